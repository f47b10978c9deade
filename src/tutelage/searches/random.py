"""Random search, the baseline of comparisons.

Li, Talwalkar: Random search and reproducibility for neural architecture search. UAI 2019,
arXiv:1902.07638. Without weight sharing: one architecture is sampled, uniformly, and nothing
trains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tutelage.clock import Clock
from tutelage.searches.base import Kind, Needs
from tutelage.spaces.base import Allowed, ArchWeights, Space
from tutelage.spaces.genotype import Genotype


@dataclass(frozen=True)
class Random:
    """Sample an architecture, train nothing."""

    kind: ClassVar[Kind] = "random"

    def needs(self, space: Space) -> Needs:
        """Take the space as it is."""
        return Needs()

    def alphas(self, space: Space) -> dict[str, Tensor]:
        """Sample a score (edges, ops) for every operation."""
        return {group: torch.rand(shape) for group, shape in space.choices.items()}

    def relax(self, alphas: dict[str, Tensor], clock: Clock) -> ArchWeights:
        """Take the scores as weights."""
        return self.expected(alphas)

    def expected(self, alphas: dict[str, Tensor]) -> ArchWeights:
        """Return the scores as they are."""
        return ArchWeights(alphas)

    def derive(
        self, space: Space, alphas: dict[str, Tensor], allowed: Allowed | None = None
    ) -> Genotype:
        """Derive the operations with the highest scores: independent and uniform samples."""
        return space.genotype(self.expected(alphas).only(allowed))
