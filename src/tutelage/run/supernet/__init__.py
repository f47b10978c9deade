"""A search in progress: what is joined, its phases, batches, optimisers, metrics and state."""
