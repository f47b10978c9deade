"""Studies: configurations times seeds, each run a process of the command line, and their report."""
