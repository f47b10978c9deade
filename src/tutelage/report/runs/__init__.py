"""Reading run directories, and tables of what they hold."""
