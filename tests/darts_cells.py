"""DARTS' space and its cells in shorthand."""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.spaces.cells import DARTS as SPACE
from tutelage.spaces.genotype import Cell, Genotype

SHORT = {
    "none": "none",
    "max": "max_pool_3x3",
    "avg": "avg_pool_3x3",
    "skip": "skip_connect",
    "sep3": "sep_conv_3x3",
    "sep5": "sep_conv_5x5",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
}
NAMES = tuple(SHORT.values())  # in the order of architecture weights' columns


def cell(text: str) -> Cell:
    """Read 'sep3 1, sep3 0 · skip 0, sep3 1 · ...'."""
    nodes = [[pair.split() for pair in node.split(",")] for node in text.split("·")]
    return Cell(
        tuple(tuple((SHORT[name], int(source)) for name, source in node) for node in nodes),
        (2, 3, 4, 5),
    )


def genotype(normal: str, reduce: str) -> Genotype:
    return Genotype("darts", {"normal": cell(normal), "reduce": cell(reduce)})


def alphas(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return {group: torch.randn(shape, dtype=dtype) for group, shape in SPACE.choices.items()}
