"""Drawings and plots, in the one palette."""
