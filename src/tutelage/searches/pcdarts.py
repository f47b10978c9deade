"""PC-DARTS: partial channel connections.

Xu, Xie, Zhang, Chen, Qi, Tian, Xiong: PC-DARTS: partial channel connections for memory-efficient
architecture search. ICLR 2020, arXiv:1907.05737.

Only one in K of an edge's channels passes its operations, the others pass by; channels are shuffled
so that each has its turn. Which channels are seen changes from batch to batch and makes the alphas
restless, so every edge (i, j) has a weight of its own, a softmax of betas over the edges that enter
node j:

    x_j = sum_{i < j}  softmax_i(beta_ij) f_ij(x_i; K)

In the first epochs only weights train.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from tutelage.checks import at_least, within
from tutelage.clock import Clock
from tutelage.searches.base import Kind, Needs, Phase, near_zero, softmax
from tutelage.spaces.base import Allowed, ArchWeights, Space
from tutelage.spaces.genotype import Genotype

BETAS = "{} betas"
"""Under which name the betas of a group stand beside its alphas."""


@dataclass(frozen=True)
class PcDarts:
    """Relax a sample of the channels; weigh edges apart from operations."""

    partial: int = 4
    """Operations see one in so many channels, K."""
    frozen: float = 0.3
    """Share of the epochs in which only weights train: 15 of 50."""
    init: float = 1e-3
    """Standard deviation of the initial alphas and betas."""

    def __post_init__(self) -> None:
        at_least(1, partial=self.partial)
        within(0, 1, frozen=self.frozen)
        at_least(0, init=self.init)

    kind: ClassVar[Kind] = "relaxed"

    def needs(self, space: Space) -> Needs:
        """Search in one phase, on a share of the channels, weights alone at first."""
        return Needs(phases=(Phase(frozen=self.frozen, partial=self.partial),))

    def alphas(self, space: Space) -> dict[str, Any]:
        """Sample alphas (edges, ops), and for every node betas (edges that enter it,)."""
        betas = {
            BETAS.format(group): [self.init * torch.randn(count) for count in space.nodes]
            for group in space.choices
        }
        return near_zero(space, self.init) | betas

    def relax(self, alphas: dict[str, Any], clock: Clock) -> ArchWeights:
        """Weigh operations by softmax over an edge, edges by softmax over a node."""
        return self.expected(alphas)

    def expected(self, alphas: dict[str, Any]) -> ArchWeights:
        """Return the architecture weights, which have no noise."""
        groups = [name for name in alphas if BETAS.format(name) in alphas]
        edges = {
            group: torch.cat([beta.softmax(0) for beta in alphas[BETAS.format(group)]])
            for group in groups
        }
        return ArchWeights(softmax({group: alphas[group] for group in groups}), edges=edges)

    def derive(
        self, space: Space, alphas: dict[str, Any], allowed: Allowed | None = None
    ) -> Genotype:
        """Derive by the products of operations' and edges' weights."""
        return space.genotype(self.expected(alphas).only(allowed))
