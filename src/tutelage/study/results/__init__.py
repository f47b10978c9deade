"""What a study says: its statistics, tables, plots, page."""
