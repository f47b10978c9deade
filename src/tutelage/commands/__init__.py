"""The work of every command, after its flags are read."""
