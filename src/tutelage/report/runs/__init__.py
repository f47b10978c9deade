"""Reading run directories, and tables of their content."""
