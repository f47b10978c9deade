"""An architecture in DARTS' notation."""

PAIRS = "[" + ", ".join("('sep_conv_3x3', 0), ('skip_connect', 1)" for _ in range(4)) + "]"
ELSEWHERE = (
    f"Genotype(normal={PAIRS}, normal_concat=range(2, 6), "
    f"reduce={PAIRS}, reduce_concat=range(2, 6))"
)
