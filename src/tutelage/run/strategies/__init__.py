"""How a search is carried out: by alphas that descend, by sampled paths, or at random."""
