"""Who teaches whom: one paper a file."""

METHODS = {
    "single": "tutelage.methods.single:Single",
    "lbt": "tutelage.methods.lbt:LBT",
    "sgl": "tutelage.methods.sgl:SGL",
    "sd-darts": "tutelage.methods.sd_darts:SDDarts",
}
"""Every method's name on the command line, and its class; a line here makes a method usable."""
