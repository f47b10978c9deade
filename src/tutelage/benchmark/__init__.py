"""Tables of benchmarks: accuracy and cost of trained architectures."""
