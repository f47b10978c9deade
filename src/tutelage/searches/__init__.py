"""How choices are relaxed and architectures derived: one file for each paper."""

SEARCHES = {
    "darts": "tutelage.searches.darts:Darts",
    "pdarts": "tutelage.searches.pdarts:PDarts",
    "pcdarts": "tutelage.searches.pcdarts:PcDarts",
    "darts-minus": "tutelage.searches.darts_minus:DartsMinus",
    "drnas": "tutelage.searches.drnas:DrNas",
    "prdarts": "tutelage.searches.prdarts:PrDarts",
    "gdas": "tutelage.searches.gdas:Gdas",
    "single-path": "tutelage.searches.single_path:SinglePath",
    "diverse-paths": "tutelage.searches.diverse_paths:DiversePaths",
    "random": "tutelage.searches.random:Random",
}
"""Every search's name on the command line, and its class; a new line here adds a search."""
