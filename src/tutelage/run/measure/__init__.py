"""A few steps of a search, measured: time and memory."""
