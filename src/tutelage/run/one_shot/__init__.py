"""The steps after the training of sampled paths: scores, evolution, a ranking."""
