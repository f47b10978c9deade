"""How often each operation was sampled: the sampler's marginals, over all epochs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tutelage.records.rows import EpochRow
from tutelage.report.figures.layout import cell_name, short_name
from tutelage.report.figures.theme import LIGHT, canvas, styled
from tutelage.report.runs.read import RunFiles, at

LEFT, TOP, ROW, BOTTOM = 92.0, 24.0, 19.0, 16.0
"""Room for names and for the scale, height of an operation, and room for numbers, in points."""

WIDTH, NARROWEST = 400.0, 23.0
"""Width of a map of few edges, and least width of an edge, in points."""

FAINTEST = 0.02
"""Least deviation from uniform of the darkest shade."""


EXACT = 1e-5
"""Least deviation that is no rounding."""


@dataclass(frozen=True)
class Marginals:
    """What was sampled on the edges of a group."""

    group: str
    operations: tuple[str, ...]
    """Every operation that some edge has."""
    shares: np.ndarray
    """Of the samples of an edge, (ops, edges); NaN where the operation
    cannot be sampled, or nothing was.
    """
    samples: np.ndarray
    """How many samples those are, (edges,); 0 where nothing says so."""

    @property
    def uniform(self) -> np.ndarray:
        """Each operation's share if all were sampled equally often, (edges,); NaN: no samples."""
        known = np.isfinite(self.shares)
        return 1 / np.where(known.any(0), known.sum(0), np.nan)

    @property
    def deviations(self) -> np.ndarray:
        """How far shares are from uniform, (ops, edges)."""
        return self.shares - self.uniform

    @property
    def chance(self) -> float | None:
        """The mean deviation, either way, that independent uniform samples leave; None: unknown.

        A share of n samples has the variance p (1 - p) / n, and a normal variable deviates by
        sqrt(2 / pi) standard deviations in the mean.
        """
        if not self.samples.all():
            return None
        p, known = self.uniform, np.isfinite(self.shares)
        spread = np.sqrt(2 / np.pi * p * (1 - p) / self.samples)
        return float(np.broadcast_to(spread, known.shape)[known].mean())

    def edge(self, place: int) -> str:
        """Name an edge; those of a chain are layers."""
        if self.group == "chain":
            return f"layer {place + 1}"
        return f"edge {place + 1} of the {cell_name(self.group)}"

    def described(self) -> str:
        """Say how far the samples are from uniform."""
        apart = np.abs(self.deviations)
        if np.nanmax(apart) < EXACT:
            return "Every operation was sampled exactly as often as every other."
        operation, edge = np.unravel_index(np.nanargmax(apart), apart.shape)
        where = f"{short_name(self.operations[operation])} in {self.edge(int(edge))}"
        text = (
            f"Shares deviate from uniform by {100 * np.nanmean(apart):.2f} percentage points in "
            f"the mean and by {100 * np.nanmax(apart):.2f} at most ({where})"
        )
        if self.chance is None:
            return f"{text}."
        few, many = int(self.samples.min()), int(self.samples.max())
        count = f"{few:,}" if few == many else f"{few:,} to {many:,}"
        kind = "a layer" if self.group == "chain" else "an edge"
        return f"{text}; {count} independent samples {kind} would leave {100 * self.chance:.2f}."


def marginals(files: RunFiles) -> Iterator[Marginals]:
    """Sum up what was sampled in all epochs, for every supernet and group."""
    rows = [row for row in files.epochs if row.sampled]
    supernets = min((len(row.sampled) for row in rows), default=0)
    for k in range(supernets):
        for group, last in rows[-1].sampled[k].items():
            shape = _shape(last)
            parts = [row for row in rows if _shape(row.sampled[k].get(group, [])) == shape]
            if shape is None:
                continue
            shares = np.array([row.sampled[k][group] for row in parts], dtype=float)
            samples = np.array([_samples(row, k, group, len(last)) for row in parts])
            weights = samples if samples.any() else shares.any(-1).astype(float)
            total = (shares * weights[:, :, None]).sum(0)
            names = _names(rows[-1], k, group, shape)
            yield _placed(group, names, total, samples.sum(0))


def _shape(shares: Sequence[Sequence[float]]) -> tuple[int, int] | None:
    """Give edges and operations; None where edges differ in their operations, or there are none."""
    counts = {len(each) for each in shares}
    return (len(shares), counts.pop()) if len(counts) == 1 else None


def _samples(row: EpochRow, k: int, group: str, edges: int) -> list[float]:
    found = at(row.samples, k, {}).get(group, [])  # none: an early 0.1 did not log it
    return found if len(found) == edges else [0.0] * edges


def _names(row: EpochRow, k: int, group: str, shape: tuple[int, int]) -> list[list[str]]:
    """Give the names of every edge's operations."""
    edges, count = shape
    unnamed = [f"operation {i}" for i in range(count)]
    names: Any = at(row.operations, k, {}).get(group, unnamed)
    every = names if names and isinstance(names[0], list) else [names] * edges
    return every if {len(each) for each in every} == {count} else [list("?" * count)] * edges


def _placed(
    group: str, names: Sequence[Sequence[str]], total: np.ndarray, samples: np.ndarray
) -> Marginals:
    """Bring all edges under the same operations; leave out `none` where no sample can be it."""
    operations = list(dict.fromkeys(name for each in names for name in each))
    pairs = [pair for edge in zip(names, total, strict=True) for pair in zip(*edge, strict=True)]
    if not any(count for name, count in pairs if name == "none"):
        operations = [name for name in operations if name != "none"]
    shares = np.full((len(operations), len(total)), np.nan)
    for edge, (each, counts) in enumerate(zip(names, total, strict=True)):
        for name, count in zip(each, counts, strict=True):
            if name in operations and counts.any():
                shares[operations.index(name), edge] = count / counts.sum()
    return Marginals(group, tuple(operations), shares, samples)


def drawn_map(found: Marginals) -> Figure:
    """Draw shares in percent: operations down, edges right, shaded by the way they deviate."""
    operations, edges = found.shares.shape
    width = max((WIDTH - LEFT - 2) / edges, NARROWEST)
    deviations = found.deviations
    most = max(float(np.nanmax(np.abs(deviations))), FAINTEST)
    with styled():
        figure, axes = canvas(LEFT + width * edges + 2, TOP + ROW * operations + BOTTOM)
        _draw_scale(axes, most)
        for row, name in enumerate(found.operations):
            y = TOP + (row + 0.5) * ROW
            axes.text(LEFT - 6, y, short_name(name), size=8, ha="right", va="center")
            for edge, share in enumerate(found.shares[row]):
                x = LEFT + edge * width
                if np.isfinite(share):
                    _shade(axes, (x, TOP + row * ROW), (width, ROW), deviations[row, edge] / most)
                    text = f"{100 * share:.1f}"
                    axes.text(x + width / 2, y, text, size=7.5, ha="center", va="center")
        for edge in range(edges):
            x, colour = LEFT + (edge + 0.5) * width, LIGHT["muted"]
            y = TOP + operations * ROW + 5
            axes.text(x, y, str(edge + 1), size=7.5, ha="center", va="top", color=colour)
    return figure


def _shade(axes: Axes, corner: tuple[float, float], size: tuple[float, float], part: float) -> None:
    """Fill a cell: blue for more than uniform, vermilion for less, the more the stronger."""
    colour = LIGHT["blue" if part > 0 else "vermilion"]
    axes.add_patch(Rectangle(corner, *size, fc=colour, ec="none", alpha=0.55 * abs(part)))
    axes.add_patch(Rectangle(corner, *size, fc="none", ec=LIGHT["line"], lw=0.6))


def _draw_scale(axes: Axes, most: float) -> None:
    """Say what the shades mean."""
    for place, (part, text) in enumerate(((-1, "less"), (1, "more"))):
        x = LEFT + 120 * place
        _shade(axes, (x, 4), (12, 9), part)
        described = f"{100 * most:.1f} points {text}"
        axes.text(x + 17, 8.5, described, size=8, va="center", color=LIGHT["muted"])
