"""The progress of a search, which searches, methods and the loop share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

FIELDS: Final = ("phase", "epoch", "epochs", "progress")


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
    reads: set[str] = field(default_factory=set, repr=False, compare=False)
    """Names of the fields above that were read since this set was last cleared."""

    @property
    def scheduled(self) -> int:
        """The epoch by which schedules go: the present one, after the last epoch still that one."""
        return min(self.epoch, self.epochs - 1)

    def __getattribute__(self, name: str) -> Any:
        if name in FIELDS:
            super().__getattribute__("reads").add(name)
        return super().__getattribute__(name)
