"""What can be built."""

SPACES = {"darts": "tutelage.spaces.cells:DartsSpace"}
"""Every space's name on the command line, and its class; a line here makes a space usable."""
