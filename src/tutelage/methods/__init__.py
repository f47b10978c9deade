"""Who teaches whom: one file for each paper."""

METHODS = {
    "single": "tutelage.methods.single:Single",
    "lbt": "tutelage.methods.lbt:LBT",
    "sgl": "tutelage.methods.sgl:SGL",
    "pamkd": "tutelage.methods.pamkd:PAMKD",
    "mkd": "tutelage.methods.mkd:MKD",
    "kdcl": "tutelage.methods.kdcl:KDCL",
    "one": "tutelage.methods.one:ONE",
    "okddip": "tutelage.methods.okddip:OKDDip",
    "afd": "tutelage.methods.afd:AFD",
    "cream": "tutelage.methods.cream:Cream",
    "nes": "tutelage.methods.nes:NES",
    "ennas": "tutelage.methods.ennas:EnNAS",
    "dna": "tutelage.methods.dna:DNA",
    "sd-darts": "tutelage.methods.sd_darts:SDDarts",
}
"""Every method's name on the command line, and its class; a new line here adds a method."""
