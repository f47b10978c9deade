"""Networks outside a search: their files, ensembles, teachers, and those that are fixed."""
