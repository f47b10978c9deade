"""Limits on the cost of the final network, and costs in words and in rows of metrics."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Final, NamedTuple

from tutelage.config import Run
from tutelage.records import rows
from tutelage.run.cost.table import Cost

MILLION = 1e6
UNITS: Final[Mapping[str, tuple[float, str]]] = {
    "params": (MILLION, "million"),
    "flops": (MILLION, "million"),
    "latency": (1.0, "ms"),
}
"""The units of the limits `max_params` and so on: as a number of the cost's own, and in words."""


class Limits(NamedTuple):
    """The largest cost of the final network; inf: no limit."""

    params: float = inf
    flops: float = inf
    latency: float = inf
    """Milliseconds."""

    def allow(self, cost: Cost) -> bool:
        """Tell whether a cost is within the limits."""
        return all(paid <= limit for paid, limit in zip(cost, self, strict=True))

    def only(self, name: str) -> Limits:
        """Return one of the limits, alone."""
        return Limits(**{name: getattr(self, name)})

    def as_text(self) -> str:
        """Write the settings that make these limits."""
        return " with ".join(
            f"max_{name} = {limit / UNITS[name][0]:g}"
            for name, limit in self._asdict().items()
            if limit < inf
        )


def limits_of(settings: Run) -> Limits:
    """Return the limits of the settings."""
    given = {name: getattr(settings, f"max_{name}") for name in UNITS}
    return Limits(**{name: x * UNITS[name][0] for name, x in given.items() if x is not None})


def in_units(cost: Cost) -> str:
    """Write a cost in the units of the limits."""
    latency = f" at {cost.latency:.4g} ms" if cost.latency else ""
    return (
        f"{cost.params / MILLION:.4g} million parameters and {cost.flops / MILLION:.4g} million "
        f"FLOPs{latency}"
    )


def recorded(cost: Cost) -> rows.Cost:
    """Return a cost for a row of metrics."""
    return rows.Cost(cost.params, cost.flops, cost.latency or None)
