"""Tutelage: neural architecture search in which models teach one another."""
