"""The quantities that score a supernet's paths."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import NamedTuple

from tutelage.records.rows import Candidate
from tutelage.report.runs.record import number


class Quantity(NamedTuple):
    """A score; higher is better."""

    read: Callable[[Candidate], float | None]
    """Reads its value from a candidate's row."""
    name: str
    scale: float
    unit: str
    digits: int

    @property
    def caption(self) -> str:
        """The name with its unit."""
        return f"{self.name} ({self.unit.strip()})" if self.unit else self.name

    def of(self, row: Candidate) -> float | None:
        """Return the scaled value from a row."""
        value = number(self.read(row))
        return None if value is None else self.scale * value

    def written(self, value: float) -> str:
        """Write a scaled value."""
        return f"{value:.{self.digits}f}{self.unit}".replace("-", "−")


ACCURACY = Quantity(attrgetter("accuracy"), "accuracy in the supernet", 100, " %", 2)
SCORE = Quantity(attrgetter("score"), "the method’s own score", 1, "", 4)


def quantity_of(rows: Iterable[Candidate]) -> Quantity:
    """Return the quantity that rows of a ranking or an evolution have; accuracy by default."""
    return SCORE if any(row.score is not None for row in rows) else ACCURACY
