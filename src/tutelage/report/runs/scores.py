"""What a supernet's paths are scored by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tutelage.report.runs.read import number


class Quantity(NamedTuple):
    """A score, the higher the better."""

    key: str
    """Its name in metrics.jsonl."""
    name: str
    scale: float
    unit: str
    digits: int

    @property
    def caption(self) -> str:
        """Name it with its unit."""
        return f"{self.name} ({self.unit.strip()})" if self.unit else self.name

    def of(self, row: Mapping[str, Any]) -> float | None:
        """Look it up, scaled."""
        value = number(row.get(self.key))
        return None if value is None else self.scale * value

    def written(self, value: float) -> str:
        """Write a scaled value."""
        return f"{value:.{self.digits}f}{self.unit}".replace("-", "−")


ACCURACY = Quantity("accuracy", "accuracy in the supernet", 100, " %", 2)
SCORE = Quantity("score", "the method’s own score", 1, "", 4)


def quantity_of(rows: Sequence[Mapping[str, Any]]) -> Quantity:
    """Say what the rows of a ranking or an evolution score by: accuracy, unless told otherwise."""
    return SCORE if any(SCORE.key in row for row in rows) else ACCURACY
