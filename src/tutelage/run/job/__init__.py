"""Any long work: its loop, run directory, checkpoints, threads, progress. It knows no search."""
