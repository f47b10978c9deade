"""Parts of every kind, offered to Tutelage by entry points."""
