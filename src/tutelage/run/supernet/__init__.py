"""A search on its way: what is joined, its phases, batches, optimisers, metrics and state."""
