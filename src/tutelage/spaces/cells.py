"""DARTS' cell space.

Liu, Simonyan, Yang: DARTS: differentiable architecture search. ICLR 2019, arXiv:1806.09055. A cell
reads the two cells before it and has four nodes; every node reads all states before it, through one
of eight operations each. Normal and reduction cells are searched apart: two groups of 14 edges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from tutelage.spaces.base import Mix, Size
from tutelage.spaces.genotype import DARTS_OPERATIONS, Cell, Genotype, Node
from tutelage.spaces.mixed import Supernet
from tutelage.spaces.network import Network
from tutelage.spaces.ops import EDGES, NODES

GROUPS = ("normal", "reduce")


def strongest(names: Sequence[str], weights: Sequence[float]) -> tuple[float, str]:
    """Return the largest weight of an operation other than `none`, and its name."""
    candidates = [pair for pair in zip(weights, names, strict=True) if pair[1] != "none"]
    return max(candidates, key=lambda pair: pair[0])


def derive(edges: Sequence[Sequence[str]], weights: Sequence[Sequence[float]]) -> Cell:
    """Read a cell off the weights (edges, ops) by DARTS' rule (their section 2.4).

    Every edge stands for its best operation other than `none`, every node keeps its two best edges.
    As in DARTS' code, a node's pairs are listed by decreasing weight, ties by lower predecessor
    (an operation's by lower column).
    """
    nodes: list[Node] = []
    start = 0
    for node in range(NODES):
        rows = range(start, start + node + 2)
        best = [(*strongest(edges[row], weights[row]), row - start) for row in rows]
        best.sort(key=lambda each: -each[0])
        nodes.append(tuple((name, source) for _, name, source in best[:2]))
        start = rows.stop
    return Cell(tuple(nodes), concat=tuple(range(2, 2 + NODES)))


@dataclass(frozen=True)
class DartsSpace:
    """DARTS' space: eight operations on every edge of a normal and of a reduction cell."""

    name: ClassVar[str] = "darts"

    @property
    def choices(self) -> Mapping[str, tuple[int, int]]:
        """The (edges, ops) of every group of choices."""
        return {group: (EDGES, len(names)) for group, names in self.operations.items()}

    @property
    def operations(self) -> Mapping[str, Sequence[str]]:
        """Names of the operations of every group, in the order of the mix's columns."""
        return dict.fromkeys(GROUPS, DARTS_OPERATIONS)

    def supernet(self, size: Size) -> nn.Module:
        """Build the network whose forward (x, mix) gives logits (B, classes), features (B, D)."""
        return Supernet(dict.fromkeys(GROUPS, (DARTS_OPERATIONS,) * EDGES), size)

    def genotype(self, mix: Mix) -> Genotype:
        """Read off the architecture that a mix favours."""
        edges = (DARTS_OPERATIONS,) * EDGES
        cells = {group: derive(edges, mix.operations[group].tolist()) for group in GROUPS}
        return Genotype(self.name, cells)

    def random(self, generator: torch.Generator) -> Genotype:
        """Draw an architecture uniformly: two distinct predecessors a node, no `none`."""
        names = DARTS_OPERATIONS[1:]

        def node(count: int) -> Node:
            sources = torch.randperm(count, generator=generator)[:2].sort().values.tolist()
            columns = torch.randint(len(names), (2,), generator=generator).tolist()
            pairs = zip(columns, sources, strict=True)
            return tuple((names[column], source) for column, source in pairs)

        concat = tuple(range(2, 2 + NODES))
        cells = {
            group: Cell(tuple(node(index + 2) for index in range(NODES)), concat)
            for group in GROUPS
        }
        return Genotype(self.name, cells)

    def network(
        self, genotype: Genotype, size: Size, *, auxiliary: bool = False, drop_path: float = 0.0
    ) -> Network:
        """Build the stand-alone network of a genotype.

        Raises:
            ValueError: The genotype is of another space.
        """
        if genotype.space != self.name:
            raise ValueError(
                f"a genotype of the space {genotype.space!r}: the space {self.name!r} builds only "
                "its own"
            )
        return Network(genotype, size, auxiliary=auxiliary, drop_path=drop_path)
