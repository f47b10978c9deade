"""Phases of a search: where each lies among the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tutelage.searches.base import Phase


class Stretch(NamedTuple):
    """A phase among the epochs of its search."""

    phase: Phase
    start: int
    """Its first epoch."""
    epochs: int
    """How many it has."""
    initialised: int
    """The epoch in which the weights were initialised: its own first, or that of a phase before."""
    span: int
    """For how many epochs those weights train."""

    @property
    def thaw(self) -> int:
        """The first epoch whose steps move the alphas."""
        return self.start + round(self.phase.frozen * self.epochs)


def stretches(phases: Sequence[Phase], epochs: int) -> list[Stretch]:
    """Share epochs out to phases, evenly.

    Raises:
        ValueError: There are fewer epochs than phases.
    """
    if epochs < len(phases):
        raise ValueError(
            f"epochs = {epochs}: the search has {len(phases)} phases, so give at least as many"
        )
    starts = [epochs * index // len(phases) for index in range(len(phases) + 1)]
    fresh = [s for s, phase in zip(starts, phases, strict=False) if not phase.carries] + [epochs]
    found = []
    for index, phase in enumerate(phases):
        initialised = max(s for s in fresh if s <= starts[index])
        span = min(s for s in fresh if s > starts[index]) - initialised
        length = starts[index + 1] - starts[index]
        found.append(Stretch(phase, starts[index], length, initialised, span))
    return found
