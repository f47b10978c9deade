"""The progress of a search, which searches, methods and the loop share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Clock:
    """The progress of the search; the loop updates it."""

    phase: int = 0
    """Index of the search's present phase."""
    epoch: int = 0
    """Epochs since the weights were initialised, from 0."""
    epochs: int = 1
    """Epochs for which these weights train."""
    progress: float = 0.0
    """Fraction of the whole search that is done, in [0, 1]."""
