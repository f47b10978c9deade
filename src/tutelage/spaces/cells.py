"""Spaces of DARTS' cells: DARTS' own, and S1 to S4.

Liu, Simonyan, Yang: DARTS: differentiable architecture search. ICLR 2019, arXiv:1806.09055. A cell
reads the two cells before it and has four nodes. Every node reads all states before it, each
through one operation. Normal and reduction cells are searched separately: two groups of 14 edges.

Zela et al.: Understanding and robustifying differentiable architecture search. ICLR 2020,
arXiv:1909.09656: S1 to S4 have few operations on every edge, and DARTS clearly fails in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from tutelage.spaces.base import (
    PLAIN,
    ArchWeights,
    Edges,
    Image,
    Size,
    Sizes,
    Slot,
    Variant,
    check_space,
    halved,
    narrow,
)
from tutelage.spaces.genotype import DARTS_OPERATIONS, Cell, Genotype, Node
from tutelage.spaces.network import Network
from tutelage.spaces.ops import NODES, entering, layout, operation
from tutelage.spaces.own import Page, Paged
from tutelage.spaces.supernet import Supernet

GROUPS = ("normal", "reduce")
SIZES = Sizes(16, 8, 36, 20, auxiliary=0.4, fewest=3)
"""The sizes of DARTS' networks."""


def strongest(names: Sequence[str], weights: Sequence[float]) -> tuple[float, str]:
    """Return the largest weight of an operation other than `none`, and its name."""
    candidates = [pair for pair in zip(weights, names, strict=True) if pair[1] != "none"]
    return max(candidates, key=lambda pair: pair[0])


def derive(edges: Sequence[Sequence[str]], weights: Sequence[Sequence[float]]) -> Cell:
    """Derive a cell from weights (edges, ops) by DARTS' rule (section 2.4 of the paper).

    Every edge is rated by its best operation other than `none`, and every node keeps its two best
    edges. As in DARTS' code, a node's pairs are listed by decreasing weight. Ties go to the lower
    predecessor, and for operations to the lower column.
    """
    nodes: list[Node] = []
    start = 0
    for count in entering(edges):
        rows = range(start, start + count)
        best = [(*strongest(edges[row], weights[row]), row - start) for row in rows]
        best.sort(key=lambda each: -each[0])
        nodes.append(tuple((name, source) for _, name, source in best[:2]))
        start = rows.stop
    return Cell(tuple(nodes), concat=tuple(range(2, 2 + len(nodes))))


@dataclass(frozen=True)
class CellSpace(Paged):
    """Normal and reduction cells of DARTS' shape, with some operations on every edge."""

    name: str
    """Name on the command line, and in the genotypes."""
    operations: Mapping[str, Edges]
    """For each group, the operations of its edges, 14 for four nodes: by node, then by
    predecessor."""
    variant: Variant = PLAIN
    """How supernets differ from the default, as the search needs it."""
    sizes: Sizes = SIZES
    """Default sizes."""
    page: Page | None = None
    """The page of TOML that describes the space; None: it has a name instead."""
    stages: ClassVar[int] = 0

    @property
    def nodes(self) -> tuple[int, ...]:
        """How many edges enter each node."""
        return tuple(entering(next(iter(self.operations.values()))))

    @property
    def choices(self) -> Mapping[str, tuple[int, int]]:
        """The (edges, ops) of every group of choices."""
        return {group: (len(edges), len(edges[0])) for group, edges in self.operations.items()}

    def varied(self, **changes: Any) -> CellSpace:
        """Return the space with fields of its variant changed."""
        return replace(self, variant=replace(self.variant, **changes))

    def narrowed(self, kept: Mapping[str, Sequence[Sequence[int]]]) -> CellSpace:
        """Return the space with only some operations of every edge, by their columns."""
        return replace(self, operations=narrow(self.operations, kept))

    def slots(self, size: Size, image: Image) -> Iterator[Slot]:
        """Yield every edge of every cell."""
        if size.stem == "imagenet":
            image = halved(halved(halved(image)))
        for place in layout(size, dict.fromkeys(GROUPS, len(self.nodes))):
            inside = halved(image) if place.stride == 2 else image
            sources = (source for entering in self.nodes for source in range(entering))
            for edge, source in enumerate(sources):
                stride, seen = (place.stride, image) if source < 2 else (1, inside)
                arguments = (place.channels, stride, self.own)
                yield Slot(place.group, edge, operation, arguments, (place.channels, *seen))
            image = inside

    def supernet(self, size: Size) -> Supernet:
        """Build the network whose forward (x, arch) gives logits (B, classes), features (B, D)."""
        return Supernet(self.operations, size, self.variant, self.own)

    def genotype(self, arch: ArchWeights) -> Genotype:
        """Derive the architecture, by operations' weights times their edges' weights."""
        weights = arch.products()
        cells = {
            group: derive(edges, weights[group].tolist())
            for group, edges in self.operations.items()
        }
        return Genotype(self.name, cells, self.layout)

    def inherited(self, weights: Mapping[str, Tensor], genotype: Genotype) -> None:
        """Return None: the supernet computes operations together."""

    def network(
        self, genotype: Genotype, size: Size, *, auxiliary: bool = False, drop_path: float = 0.0
    ) -> Network:
        """Build the stand-alone network of a genotype.

        Raises:
            ValueError: The genotype is of another space, or of another page.
        """
        check_space(genotype, self.name, self.layout)
        return Network(genotype, size, auxiliary=auxiliary, drop_path=drop_path, own=self.own)


def everywhere(*names: str, nodes: int = NODES) -> Mapping[str, Edges]:
    """Return the same operations for all edges of both cells."""
    return dict.fromkeys(GROUPS, (names,) * sum(range(2, 2 + nodes)))


SKIP, MAX, AVERAGE = "skip_connect", "max_pool_3x3", "avg_pool_3x3"
SEP3, DIL3, DIL5 = "sep_conv_3x3", "dil_conv_3x3", "dil_conv_5x5"

DARTS = CellSpace("darts", everywhere(*DARTS_OPERATIONS))
"""DARTS' cells: eight operations on every edge."""

S1 = CellSpace(
    "s1",
    {
        "normal": (
            (SKIP, DIL3),
            (SKIP, DIL5),
            (SKIP, DIL5),
            (SKIP, SEP3),
            (SKIP, DIL3),
            (MAX, SKIP),
            (SKIP, SEP3),
            (SKIP, SEP3),
            (SKIP, DIL3),
            (SKIP, SEP3),
            (MAX, SKIP),
            (SKIP, DIL3),
            (DIL3, DIL5),
            (DIL3, DIL5),
        ),
        "reduce": (
            (MAX, AVERAGE),
            (MAX, DIL3),
            (MAX, AVERAGE),
            (MAX, AVERAGE),
            (SKIP, DIL5),
            (MAX, AVERAGE),
            (MAX, SEP3),
            (SKIP, DIL3),
            (SKIP, DIL5),
            (MAX, AVERAGE),
            (MAX, AVERAGE),
            (SKIP, DIL5),
            (SKIP, DIL5),
            (SKIP, DIL5),
        ),
    },
)
"""RobustDARTS' S1: on every edge the two operations that DARTS kept longest."""

S2 = CellSpace("s2", everywhere(SKIP, SEP3))
"""RobustDARTS' S2: a skip or a convolution on every edge."""

S3 = CellSpace("s3", everywhere("none", SKIP, SEP3))
"""RobustDARTS' S3: none, a skip or a convolution on every edge."""

S4 = CellSpace("s4", everywhere("noise", SEP3))
"""RobustDARTS' S4: noise or a convolution on every edge."""
