"""DARTS: differentiable architecture search.

Liu, Simonyan, Yang. ICLR 2019, arXiv:1806.09055.

The choice among the operations of an edge is relaxed to a softmax over them (Eq. 2); what is kept
is, for every node, the two incoming edges with the strongest operation other than none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tutelage.checks import at_least
from tutelage.clock import Clock
from tutelage.searches.base import Kind, Phase, near_zero, softmax
from tutelage.spaces.base import Mix, Space
from tutelage.spaces.genotype import Genotype


@dataclass(frozen=True)
class Darts:
    """Relax the choice among operations to a softmax."""

    init: float = 1e-3
    """Standard deviation of the initial alphas."""

    def __post_init__(self) -> None:
        at_least(0, init=self.init)

    kind: ClassVar[Kind] = "relaxes"

    def fit(self, space: Space) -> Space:
        """Take the space as it is."""
        return space

    def size(self, space: Space) -> tuple[int, int]:
        """Have the space's own size."""
        return space.sizes[:2]

    def phases(self, space: Space) -> Sequence[Phase]:
        """Search in one go."""
        return (Phase(),)

    def alphas(self, space: Space) -> dict[str, Tensor]:
        """Draw alphas (edges, ops) near zero for every group of choices."""
        return near_zero(space, self.init)

    def mix(self, alphas: dict[str, Tensor], clock: Clock) -> Mix:
        """Weigh operations by the softmax of their alphas, Eq. 2."""
        return self.expected(alphas)

    def expected(self, alphas: dict[str, Tensor]) -> Mix:
        """Return the mix, which has no noise."""
        return Mix(softmax(alphas))

    def derive(self, space: Space, alphas: dict[str, Tensor]) -> Genotype:
        """Read off the strongest operations and edges, by the space's rule."""
        return space.genotype(self.expected(alphas))
