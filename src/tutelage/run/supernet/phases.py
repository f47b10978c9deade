"""Phases of a search: the epochs of each."""

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
    """The epoch in which the weights were initialised, in this phase or in an earlier one."""
    span: int
    """The number of epochs for which those weights train."""

    @property
    def thaw(self) -> int:
        """The first epoch whose steps train the alphas."""
        return self.start + round(self.phase.frozen * self.epochs)


def stretches(phases: Sequence[Phase], epochs: int) -> list[Stretch]:
    """Divide epochs among phases, evenly.

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
