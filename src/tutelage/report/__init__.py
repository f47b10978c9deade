"""Reports of runs: they only read run directories, and do not import torch."""
