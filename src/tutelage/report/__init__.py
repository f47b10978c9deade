"""Reports of runs: read run directories only, never torch."""
