"""What a benchmark of trained architectures says about a genotype."""
