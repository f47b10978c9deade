"""Diagnostics of a search: collapse, early stopping, students and teachers."""
