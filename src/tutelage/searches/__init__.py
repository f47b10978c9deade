"""How choices are relaxed and read off: one paper a file."""

SEARCHES = {
    "darts": "tutelage.searches.darts:Darts",
    "random": "tutelage.searches.random:Random",
}
"""Every search's name on the command line, and its class; a line here makes a search usable."""
