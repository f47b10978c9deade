"""DARTS-: an auxiliary skip connection.

Chu, Wang, Zhang, Lu, Wei, Yan: DARTS-: robustly stepping out of performance collapse without
indicators. ICLR 2021, arXiv:2009.01027.

A skip connection helps a supernet train, even where it is a poor operation, and so it is chosen too
often. Every edge gets a second skip outside the softmax, which helps training instead. Its weight
beta falls linearly to zero, and it is left out when the architecture is derived.
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
class DartsMinus:
    """Relax as DARTS does, with an auxiliary skip whose weight falls to 0."""

    factor: float = 1.0
    """Initial weight of the auxiliary skip, beta; 0 is DARTS."""
    init: float = 1e-3
    """Standard deviation of the initial alphas."""

    def __post_init__(self) -> None:
        at_least(0, factor=self.factor, init=self.init)

    kind: ClassVar[Kind] = "relaxed"

    def needs(self, space: Space) -> Needs:
        """Require the auxiliary skip."""
        return Needs(variant={"auxiliary_skip": self.factor > 0})

    def alphas(self, space: Space) -> dict[str, Tensor]:
        """Sample alphas (edges, ops) near zero for every group of choices."""
        return near_zero(space, self.init)

    def relax(self, alphas: dict[str, Tensor], clock: Clock) -> ArchWeights:
        """Weigh operations by a softmax, and the auxiliary skip by beta (1 - epoch / epochs)."""
        beta = self.factor * (1 - clock.epoch / clock.epochs)
        return ArchWeights(softmax(alphas), auxiliary=beta)

    def expected(self, alphas: dict[str, Tensor]) -> ArchWeights:
        """Return the architecture weights without the auxiliary skip."""
        return ArchWeights(softmax(alphas))

    def derive(
        self, space: Space, alphas: dict[str, Tensor], allowed: Allowed | None = None
    ) -> Genotype:
        """Derive the strongest operations and edges, without the auxiliary skip."""
        return space.genotype(self.expected(alphas).only(allowed))
