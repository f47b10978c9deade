"""Networks outside a search: files, ensembles, teachers, and fixed networks."""
