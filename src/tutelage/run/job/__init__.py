"""Any long work: loop, run directory, checkpoints, threads, progress. It imports no search."""
