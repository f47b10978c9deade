"""Random search: the baseline that every comparison needs.

Li, Talwalkar: Random search and reproducibility for neural architecture search. UAI 2019,
arXiv:1902.07638. Without weight sharing: one architecture is drawn, uniformly, and nothing trains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tutelage.clock import Clock
from tutelage.searches.base import Kind, Needs
from tutelage.spaces.base import Allowed, Mix, Space
from tutelage.spaces.genotype import Genotype


@dataclass(frozen=True)
class Random:
    """Draw an architecture, train nothing."""

    kind: ClassVar[Kind] = "draws"

    def needs(self, space: Space) -> Needs:
        """Take the space as it is."""
        return Needs()

    def alphas(self, space: Space) -> dict[str, Tensor]:
        """Draw a score (edges, ops) for every operation."""
        return {group: torch.rand(shape) for group, shape in space.choices.items()}

    def mix(self, alphas: dict[str, Tensor], clock: Clock) -> Mix:
        """Take the scores as weights."""
        return self.expected(alphas)

    def expected(self, alphas: dict[str, Tensor]) -> Mix:
        """Return the scores, which nothing changes."""
        return Mix(alphas)

    def derive(
        self, space: Space, alphas: dict[str, Tensor], allowed: Allowed | None = None
    ) -> Genotype:
        """Read off the operations with the highest scores: independent and uniform draws."""
        return space.genotype(self.expected(alphas).only(allowed))
