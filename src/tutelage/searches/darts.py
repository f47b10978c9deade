"""DARTS: differentiable architecture search.

Liu, Simonyan, Yang. ICLR 2019, arXiv:1806.09055.

The choice among the operations of an edge is relaxed to a softmax over them (Eq. 2). Every node
keeps the two incoming edges with the strongest operation other than none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tutelage.checks import at_least
from tutelage.clock import Clock
from tutelage.searches.base import Kind, Needs, near_zero, softmax
from tutelage.spaces.base import Allowed, ArchWeights, Space
from tutelage.spaces.genotype import Genotype


@dataclass(frozen=True)
class Darts:
    """Relax the choice among operations to a softmax."""

    init: float = 1e-3
    """Standard deviation of the initial alphas."""

    def __post_init__(self) -> None:
        at_least(0, init=self.init)

    kind: ClassVar[Kind] = "relaxed"

    def needs(self, space: Space) -> Needs:
        """Take the space as it is."""
        return Needs()

    def alphas(self, space: Space) -> dict[str, Tensor]:
        """Sample alphas (edges, ops) near zero for every group of choices."""
        return near_zero(space, self.init)

    def relax(self, alphas: dict[str, Tensor], clock: Clock) -> ArchWeights:
        """Weigh operations by the softmax of their alphas, Eq. 2."""
        return self.expected(alphas)

    def expected(self, alphas: dict[str, Tensor]) -> ArchWeights:
        """Return the architecture weights, which have no noise."""
        return ArchWeights(softmax(alphas))

    def derive(
        self, space: Space, alphas: dict[str, Tensor], allowed: Allowed | None = None
    ) -> Genotype:
        """Derive the strongest operations and edges, by the space's rule."""
        return space.genotype(self.expected(alphas).only(allowed))
