"""Drawings and plots, with one palette."""
