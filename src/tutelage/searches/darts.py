"""DARTS: differentiable architecture search.

Liu, Simonyan, Yang. ICLR 2019, arXiv:1806.09055.

The choice among the operations of an edge is relaxed to a softmax over them (Eq. 2); what is kept
is, for every node, the two incoming edges with the strongest operation other than none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tutelage.checks import at_least
from tutelage.spaces.base import Mix, Space
from tutelage.spaces.genotype import Genotype


@dataclass(frozen=True)
class Darts:
    """Relax the choice among operations to a softmax."""

    init: float = 1e-3
    """Standard deviation of the initial alphas."""

    def __post_init__(self) -> None:
        at_least(0, init=self.init)

    trains: ClassVar[bool] = True

    def fit(self, space: Space) -> Space:
        """Take the space as it is."""
        return space

    def alphas(self, space: Space) -> dict[str, Tensor]:
        """Draw alphas (edges, ops) near zero for every group of choices."""
        return {group: self.init * torch.randn(shape) for group, shape in space.choices.items()}

    def mix(self, alphas: dict[str, Tensor], progress: float) -> Mix:
        """Weigh operations by the softmax of their alphas, Eq. 2."""
        return Mix({group: a.softmax(-1) for group, a in alphas.items()})

    def derive(self, space: Space, alphas: dict[str, Tensor]) -> Genotype:
        """Read off the strongest operations and edges, by the space's rule."""
        return space.genotype(self.mix(alphas, 1.0))
