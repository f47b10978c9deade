"""The bars that a GPU has to meet, and what was measured of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""The rows of a run, by part."""
HIDDEN = ("what", "key")


class Judged(NamedTuple):
    """A bar, and what was measured."""

    what: str
    limit: str
    measured: str
    verdict: str
    """met, not met, or not measured."""


class Bar(NamedTuple):
    """A figure that has to be reached."""

    what: str
    limit: float
    unit: str
    value: Callable[[Rows], float | None]
    """The measured figure; None: it was not measured."""
    least: bool = False
    """Whether the figure has to be at least the limit, instead of at most."""

    def judge(self, rows: Rows) -> Judged:
        """Compare what was measured with the limit."""
        sign = ">=" if self.least else "<="
        limit, value = f"{sign} {self.limit:g} {self.unit}".strip(), self.value(rows)
        if value is None:
            return Judged(self.what, limit, "", "not measured")
        met = value >= self.limit if self.least else value <= self.limit
        measured = f"{value:.3g} {self.unit}".strip()
        return Judged(self.what, limit, measured, "met" if met else "not met")


def figure(rows: Rows, part: str, key: str, name: str) -> float | None:
    """Return a figure of the row with a key; None: there is none."""
    for row in rows.get(part, ()):
        if row.get("key") == key:
            return row.get(name)
    return None


def step(key: str) -> Callable[[Rows], float | None]:
    """Return the milliseconds of a replayed step."""
    return lambda rows: figure(rows, "steps", f"{key}/on", "ms")


def ratio(
    above: Callable[[Rows], float | None], below: Callable[[Rows], float | None]
) -> Callable[[Rows], float | None]:
    """Return the ratio of two figures."""

    def value(rows: Rows) -> float | None:
        one, other = above(rows), below(rows)
        return one / other if one is not None and other else None

    return value


def repeated(rows: Rows) -> float | None:
    """Return the share of repeats that gave the same files, to the bit."""
    same = [row["same"] for row in rows.get("repeats", ()) if "same" in row]
    return sum(same) / len(same) if same else None


def failures(rows: Rows) -> float | None:
    """Return how many tests failed; None: not all have run, or none."""
    for row in rows.get("tests", ()):
        if row["failed"] or (row["passed"] and not row["note"]):
            return row["failed"]
    return None


BARS = (
    Bar("DARTS step, first order", 30, "ms", step("first-order")),
    Bar("DARTS step, exact", 100, "ms", step("exact")),
    Bar("exact against two-sided", 1.25, "", ratio(step("exact"), step("finite-difference"))),
    Bar("NAS-Bench-201 step", 8, "ms", step("nasbench201")),
    Bar("SGL step, two learners, exact", 250, "ms", step("sgl")),
    Bar(
        "against quark0/darts, first order",
        20,
        "x",
        ratio(lambda rows: figure(rows, "original", "original", "ms"), step("first-order")),
        least=True,
    ),
    Bar("repeats that are the same to the bit", 1, "", repeated, least=True),
    Bar(
        "cost of determinism, DARTS step",
        10,
        "%",
        lambda rows: figure(rows, "repeats", "cost", "percent"),
    ),
    Bar("failed tests on CUDA", 0, "", failures),
)


def judged(rows: Rows) -> list[Judged]:
    """Compare the rows of a run with all bars."""
    return [bar.judge(rows) for bar in BARS]


def written(row: Mapping[str, Any]) -> str:
    """Write the figures of a row.

    >>> written({"what": "a step", "key": "a", "ms": 12.3456, "steps": 20, "note": ""})
    'ms 12.35, steps 20'
    """
    return ", ".join(
        f"{name.replace('_', ' ')} {_number(value)}"
        for name, value in row.items()
        if name not in HIDDEN and value not in ("", None)
    )


def _number(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
