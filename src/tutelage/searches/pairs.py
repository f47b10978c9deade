"""Deriving by pairs: a node of DARTS' cells keeps its two best operations, on whichever edges.

GDAS' and PR-DARTS' code derive so. DARTS' own rule, of its space, keeps the two best edges, each
with its best operation.
"""

from __future__ import annotations

from tutelage.spaces.base import ArchWeights, Space
from tutelage.spaces.genotype import Cell, Genotype, Node


def derive_pairs(space: Space, arch: ArchWeights) -> Genotype:
    """Derive cells whose nodes keep their two best pairs of edge and operation except `none`.

    Both may be on one edge. Ties go to the lower predecessor, then to the lower column.

    Args:
        space: A space of normal and reduction cells.
        arch: Weights (edges, ops) of its operations.
    """
    cells = {}
    for group, weights in arch.operations.items():
        rows = zip(space.operations[group], weights.tolist(), strict=True)
        kept: list[Node] = []
        for entering in space.nodes:
            pairs = [
                (weight, name, source)
                for source, (names, row) in zip(range(entering), rows, strict=False)
                for name, weight in zip(names, row, strict=True)
                if name != "none"
            ]
            pairs.sort(key=lambda each: -each[0])
            kept.append(tuple((name, source) for _, name, source in pairs[:2]))
        cells[group] = Cell(tuple(kept), concat=tuple(range(2, 2 + len(kept))))
    return Genotype(space.name, cells, getattr(space, "layout", {}))
