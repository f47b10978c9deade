"""What a run writes and a report reads: types, versions, their reading and writing. No torch."""
