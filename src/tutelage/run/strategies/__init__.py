"""How a search is carried out: by trained alphas, by sampled paths, or at random."""
