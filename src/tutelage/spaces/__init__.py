"""Search spaces: the networks that can be built."""

SPACES = {
    "darts": "tutelage.spaces.cells:DARTS",
    "s1": "tutelage.spaces.cells:S1",
    "s2": "tutelage.spaces.cells:S2",
    "s3": "tutelage.spaces.cells:S3",
    "s4": "tutelage.spaces.cells:S4",
    "nasbench201": "tutelage.spaces.nb201:NASBENCH201",
    "nasbench-macro": "tutelage.spaces.chain:NASBENCH_MACRO",
    "ennas-s1": "tutelage.spaces.chain:ENNAS_S1",
    "ennas-s2": "tutelage.spaces.chain:ENNAS_S2",
    "ennas-s3": "tutelage.spaces.chain:ENNAS_S3",
    "shuffle": "tutelage.spaces.chain:SHUFFLE",
    "cream": "tutelage.spaces.chain:CREAM",
    "dna": "tutelage.spaces.chain:DNA",
    "resnet": "tutelage.spaces.chain:RESNET",
}
"""Every space's name on the command line, and its module; a new line here adds a space."""
