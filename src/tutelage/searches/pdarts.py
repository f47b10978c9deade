"""P-DARTS: progressively deeper supernets.

Chen, Xie, Wu, Tian: Progressive differentiable architecture search: bridging the depth gap between
search and evaluation. ICCV 2019, arXiv:1904.12760.

Other searches search a cell in shallow networks and use it in deep ones. Here the supernet grows
over three phases, from 5 to 11 and 17 cells, while every edge keeps its strongest 5 and 3 of 8
operations. Weights and alphas start again in each phase. Shallow networks favour skip connections,
which are limited in two ways: dropout on them whose rate falls over a phase, and a maximum number
in the normal cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import accumulate
from typing import ClassVar

from torch import Tensor

from tutelage.checks import at_least, within
from tutelage.clock import Clock
from tutelage.searches.base import (
    NORMAL_AND_REDUCTION,
    Kind,
    Needs,
    Phase,
    near_zero,
    softmax,
)
from tutelage.spaces.base import Allowed, ArchWeights, Space
from tutelage.spaces.genotype import Cell, Genotype

SKIP = "skip_connect"


def skips(space: Space, cell: Cell) -> list[tuple[int, int]]:
    """List the (edge, column) of every skip that a normal cell keeps."""
    starts = accumulate(space.nodes, initial=0)
    edges = [
        start + source
        for start, node in zip(starts, cell.nodes, strict=False)
        for name, source in node
        if name == SKIP
    ]
    return [(edge, space.operations["normal"][edge].index(SKIP)) for edge in edges]


def limit(
    space: Space, weights: dict[str, Tensor], most: int, allowed: Allowed | None = None
) -> Genotype:
    """Derive an architecture with at most `most` skips in its normal cell.

    While there are more, the weakest of them (of equals, that on the lower edge) loses its weight,
    and the architecture is derived again. Then the edge's next best operation counts, and its node
    may prefer another edge. No skip loses its weight twice, so the loop ends. A skip on an edge
    without other operations may stay, but the spaces that P-DARTS accepts have no such edge.
    """
    normal = weights["normal"].detach().clone()
    while True:
        genotype = space.genotype(ArchWeights(weights | {"normal": normal}).only(allowed))
        kept = skips(space, genotype.cells["normal"])
        weighed = [place for place in kept if normal[place] >= 0]
        if len(kept) <= most or not weighed:
            return genotype
        weakest = min(weighed, key=lambda place: float(normal[place]))
        normal[weakest] = -1.0  # below the others even if they are zero


@dataclass(frozen=True)
class PDarts:
    """Relax as DARTS does, in supernets that get deeper and have fewer operations each phase."""

    frozen: float = 0.4
    """Share of each phase's epochs in which only weights train: 10 of 25."""
    skip_dropout: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Initial dropout rate of skip connections in each of the three phases."""
    max_skips: int = 2
    """Largest number of skip connections in the normal cell, M; 8: no limit."""
    deeper: tuple[int, int] = field(default=(6, 12), metadata={"quick": (1, 2)})
    """Cells that the second and the third phase have in addition to the first."""
    init: float = 1e-3
    """Standard deviation of the initial alphas."""

    def __post_init__(self) -> None:
        if len(self.deeper) != 2:
            raise ValueError(f"deeper = {self.deeper}: must be two numbers of cells")
        for cells in self.deeper:
            at_least(0, deeper=cells)
        within(0, 1, frozen=self.frozen)
        if len(self.skip_dropout) != 3:
            raise ValueError(
                f"skip_dropout = {self.skip_dropout}: must be three rates, one for each phase"
            )
        for rate in self.skip_dropout:
            within(0, 1, skip_dropout=rate)
        at_least(0, max_skips=self.max_skips, init=self.init)

    kind: ClassVar[Kind] = "relaxed"

    def needs(self, space: Space) -> Needs:
        """Require normal and reduction cells with enough operations; search in three depths.

        In each of them, at first only weights train.
        """
        return Needs(
            groups=NORMAL_AND_REDUCTION,
            least=6,
            why="P-DARTS deepens networks of normal and reduction cells, and narrows their edges "
            "to 5 operations and then 3",
            cells=5,
            phases=(
                Phase(frozen=self.frozen),
                Phase(frozen=self.frozen, cells=self.deeper[0], operations=5),
                Phase(frozen=self.frozen, cells=self.deeper[1], operations=3),
            ),
        )

    def alphas(self, space: Space) -> dict[str, Tensor]:
        """Sample alphas (edges, ops) near zero for every group of choices."""
        return near_zero(space, self.init)

    def relax(self, alphas: dict[str, Tensor], clock: Clock) -> ArchWeights:
        """Weigh operations by a softmax; apply dropout to skips."""
        return ArchWeights(softmax(alphas), skip_dropout=self.dropout(clock))

    def dropout(self, clock: Clock) -> float:
        """Return the skips' dropout rate: linear while alphas are frozen, then as exp(-t/5)."""
        rate, thaw = self.skip_dropout[clock.phase], round(self.frozen * clock.epochs)
        epoch = clock.scheduled
        if epoch < thaw:
            return rate * (clock.epochs - epoch - 1) / clock.epochs
        return rate * math.exp(-0.2 * (epoch - thaw))

    def expected(self, alphas: dict[str, Tensor]) -> ArchWeights:
        """Return the architecture weights without dropout."""
        return ArchWeights(softmax(alphas))

    def derive(
        self, space: Space, alphas: dict[str, Tensor], allowed: Allowed | None = None
    ) -> Genotype:
        """Derive by the space's rule, with a limit on the normal cell's skips."""
        return limit(space, softmax(alphas), self.max_skips, allowed)
