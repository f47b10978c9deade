"""The sampler's marginals: how often each operation was sampled, over all epochs."""

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
from tutelage.report.runs.record import RunFiles, at

LEFT, TOP, ROW, BOTTOM = 92.0, 24.0, 19.0, 16.0
"""Space for names and for the scale, height of an operation, and space for numbers, in points."""

WIDTH, NARROWEST = 400.0, 23.0
"""Width of a map with few edges, and least width of an edge, in points."""

FAINTEST = 0.02
"""Least deviation from uniform of the darkest shade."""


EXACT = 1e-5
"""Least deviation that is not rounding."""


@dataclass(frozen=True)
class Marginals:
    """The samples on the edges of a group."""

    group: str
    operations: tuple[str, ...]
    """Every operation that some edge has."""
    shares: np.ndarray
    """Shares of an edge's samples, (ops, edges); NaN if it cannot sample the operation or has no
    samples.
    """
    samples: np.ndarray
    """Number of samples of each edge, (edges,); 0: unknown."""

    @property
    def uniform(self) -> np.ndarray:
        """Each operation's share if all were sampled equally often, (edges,); NaN: no samples."""
        known = np.isfinite(self.shares)
        return 1 / np.where(known.any(0), known.sum(0), np.nan)

    @property
    def deviations(self) -> np.ndarray:
        """Deviations of the shares from uniform, (ops, edges)."""
        return self.shares - self.uniform

    @property
    def chance(self) -> float | None:
        """The mean absolute deviation of independent uniform samples; None: unknown.

        A share of n samples has the variance p (1 - p) / n, and the mean absolute deviation of a
        normal variable is sqrt(2 / pi) standard deviations.
        """
        if not self.samples.all():
            return None
        p, known = self.uniform, np.isfinite(self.shares)
        spread = np.sqrt(2 / np.pi * p * (1 - p) / self.samples)
        return float(np.broadcast_to(spread, known.shape)[known].mean())

    def edge(self, place: int) -> str:
        """Name an edge; in a chain it is a layer."""
        if self.group == "chain":
            return f"layer {place + 1}"
        return f"edge {place + 1} of the {cell_name(self.group)}"

    def described(self) -> str:
        """Describe the deviation of the samples from uniform."""
        apart = np.abs(self.deviations)
        if np.nanmax(apart) < EXACT:
            return "Every operation was sampled exactly as often as every other."
        operation, edge = np.unravel_index(np.nanargmax(apart), apart.shape)
        where = f"{short_name(self.operations[operation])} in {self.edge(int(edge))}"
        text = (
            f"Shares deviate from uniform by {100 * np.nanmean(apart):.2f} percentage points on "
            f"average and by {100 * np.nanmax(apart):.2f} at most ({where})"
        )
        if self.chance is None:
            return f"{text}."
        few, many = int(self.samples.min()), int(self.samples.max())
        count = f"{few:,}" if few == many else f"{few:,} to {many:,}"
        kind = "on each layer" if self.group == "chain" else "on each edge"
        return f"{text}; {count} independent samples {kind} would give {100 * self.chance:.2f}."


def marginals(files: RunFiles) -> Iterator[Marginals]:
    """Sum the samples of all epochs, for every supernet and group."""
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
    """Return numbers of edges and operations; None if edges differ, or there are none."""
    counts = {len(each) for each in shares}
    return (len(shares), counts.pop()) if len(counts) == 1 else None


def _samples(row: EpochRow, k: int, group: str, edges: int) -> list[float]:
    found = at(row.samples, k, {}).get(group, [])  # empty: an early 0.1 did not log it
    return found if len(found) == edges else [0.0] * edges


def _names(row: EpochRow, k: int, group: str, shape: tuple[int, int]) -> list[list[str]]:
    """Return the names of every edge's operations."""
    edges, count = shape
    unnamed = [f"operation {i}" for i in range(count)]
    names: Any = at(row.operations, k, {}).get(group, unnamed)
    every = names if names and isinstance(names[0], list) else [names] * edges
    return every if {len(each) for each in every} == {count} else [list("?" * count)] * edges


def _placed(
    group: str, names: Sequence[Sequence[str]], total: np.ndarray, samples: np.ndarray
) -> Marginals:
    """Arrange all edges by the same operations; leave out `none` if it cannot be sampled."""
    operations = list(dict.fromkeys(name for each in names for name in each))
    pairs = [pair for edge in zip(names, total, strict=True) for pair in zip(*edge, strict=True)]
    if not any(count for name, count in pairs if name == "none"):
        operations = [name for name in operations if name != "none"]
    shares = np.full((len(operations), len(total)), np.nan)
    for edge, (each, counts) in enumerate(zip(names, total, strict=True)):
        for name, count in zip(each, counts, strict=True):
            if name in operations and 0 < counts.sum() < np.inf:
                shares[operations.index(name), edge] = count / counts.sum()
    return Marginals(group, tuple(operations), shares, samples)


def drawn_map(found: Marginals) -> Figure:
    """Draw shares in percent: operations down, edges right, shaded by their deviation."""
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
    """Fill a cell: blue for more than uniform, vermilion for less, by the deviation."""
    colour = LIGHT["blue" if part > 0 else "vermilion"]
    axes.add_patch(Rectangle(corner, *size, fc=colour, ec="none", alpha=0.55 * abs(part)))
    axes.add_patch(Rectangle(corner, *size, fc="none", ec=LIGHT["line"], lw=0.6))


def _draw_scale(axes: Axes, most: float) -> None:
    """Draw the scale of the shades."""
    for place, (part, text) in enumerate(((-1, "less"), (1, "more"))):
        x = LEFT + 120 * place
        _shade(axes, (x, 4), (12, 9), part)
        label = f"{100 * most:.1f} points {text}"
        axes.text(x + 17, 8.5, label, size=8, va="center", color=LIGHT["muted"])
