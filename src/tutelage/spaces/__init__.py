"""What can be built."""

SPACES = {
    "darts": "tutelage.spaces.cells:DARTS",
    "s1": "tutelage.spaces.cells:S1",
    "s2": "tutelage.spaces.cells:S2",
    "s3": "tutelage.spaces.cells:S3",
    "s4": "tutelage.spaces.cells:S4",
    "nasbench201": "tutelage.spaces.nb201:NASBENCH201",
}
"""Every space's name on the command line, and where it stands; a line here makes it usable."""
