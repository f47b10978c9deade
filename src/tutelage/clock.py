"""Where a search stands: what searches, methods and the loop agree on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Clock:
    """Where the search stands; the loop moves it."""

    phase: int = 0
    """Index of the search's present phase."""
    epoch: int = 0
    """Epochs since the weights were initialised, from 0."""
    epochs: int = 1
    """Epochs for which these weights train."""
    progress: float = 0.0
    """Fraction of the whole search that is done, in [0, 1]."""
