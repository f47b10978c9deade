"""The training of one network, and its optimisers."""
