"""What is known of the papers' rows: their printed figures beside those of run directories."""
