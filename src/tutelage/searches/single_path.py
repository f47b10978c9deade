"""Single path one-shot: train one sampled path for each batch, then evolve.

Guo et al.: Single path one-shot neural architecture search with uniform sampling. ECCV 2020,
arXiv:1904.00420.

    W* = argmin_W  E_{a ~ Γ(A)} [ L_train(N(a, W(a))) ]                            Eq. 6
    a* = argmax_{a ∈ A}  ACC_val(N(a, W*(a)))                                       Eq. 2

The prior Γ is uniform over the architectures. The paper's code instead samples one of several
ranges of FLOPs of equal width, and then an architecture within it: `bins`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from tutelage.checks import at_least
from tutelage.searches.base import Diversity, Kind, Needs
from tutelage.spaces.base import Space
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.paths import Encoding, genotype, sample

MILLION = 1e6
TRIES = 10_000
"""Architectures that are sampled to check that some are within a range of FLOPs. For a path, up to
a hundred times as many are sampled, so that a range of few architectures does not stop a search."""


@dataclass(frozen=True)
class SinglePath:
    """Train one sampled path for each batch."""

    bins: int = field(default=0, metadata={"quick": 0})
    """Ranges of FLOPs of equal width; one is sampled first, then an architecture in it; 0: the
    architecture is sampled uniformly."""
    bins_from: float = 0.0
    """Least FLOPs of the lowest range, in millions (the paper's code: 290)."""
    bins_to: float = 0.0
    """Most FLOPs of the highest range, in millions (the paper's code: 360)."""
    kind: ClassVar[Kind] = "one-shot"
    measures: ClassVar[bool] = False

    def __post_init__(self) -> None:
        at_least(0, bins=self.bins, bins_from=self.bins_from)
        if self.bins and self.bins_to <= self.bins_from:
            raise ValueError(
                f"bins_to = {self.bins_to}: must be above bins_from = {self.bins_from}, both in "
                "millions of FLOPs"
            )

    def needs(self, space: Space) -> Needs:
        """Take the space as it is."""
        return Needs()

    def check(self, space: Space, flops: Callable[[Genotype], float]) -> None:
        """Refuse ranges of FLOPs without a sampled architecture.

        Raises:
            ValueError: None was found in one of them.
        """
        for place in range(self.bins):
            self._within(place, space, flops, TRIES)

    def paths(
        self, space: Space, count: int, diversity: Diversity, flops: Callable[[Genotype], float]
    ) -> list[Encoding]:
        """Sample paths, each independently.

        Raises:
            ValueError: No architecture was found within a range of FLOPs.
        """
        if self.bins:
            places = torch.randint(self.bins, (count,)).tolist()
            return [self._within(place, space, flops, 100 * TRIES) for place in places]
        return [sample(space) for _ in range(count)]

    def _within(
        self, place: int, space: Space, flops: Callable[[Genotype], float], tries: int
    ) -> Encoding:
        """Sample an architecture within a range, which includes both ends as in the code."""
        width = (self.bins_to - self.bins_from) / self.bins
        low = self.bins_from + width * place
        for _ in range(tries):
            encoding = sample(space)
            if low <= flops(genotype(space, encoding)) / MILLION <= low + width:
                return encoding
        raise ValueError(
            f"bins of {self.bins_from:g} to {self.bins_to:g} million FLOPs: of {tries:,} "
            f"architectures of {space.name} none has {low:g} to {low + width:g}; give a range "
            "that --dry-run shows"
        )
