"""What follows the training of sampled paths: scores, evolution, a ranking."""
