"""The training of a single network, and its optimisers."""
