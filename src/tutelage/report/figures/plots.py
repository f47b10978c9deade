"""Curves of a report: quantities of metrics.jsonl over epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter, methodcaller
from textwrap import fill, wrap
from typing import Any, TypeVar

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tutelage.records.rows import EndRow, LearnerScores, StepRow
from tutelage.report.figures.theme import LIGHT, SERIES, Drawn, drawn, new_figure, styled
from tutelage.report.runs.record import RunFiles, at, number

LINE = 60
"""Letters in one line of a legend; longer names take several lines."""

T = TypeVar("T")


@dataclass(frozen=True)
class Line:
    """One curve: its points, and how it is drawn."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    dashed: bool = False


@dataclass(frozen=True)
class Mark:
    """An event: a vertical line with a text above it."""

    x: float
    text: str
    colour: str


@dataclass(frozen=True)
class Axis:
    """The horizontal axis of curves, and the events on it."""

    name: str
    marks: tuple[Mark, ...] = ()


def by_epoch(files: RunFiles) -> tuple[Axis, list[float], list[Any]]:
    """Return the axis of epochs, the places on it, and their rows of metrics.jsonl."""
    rows = files.of("epoch")
    return Axis("epoch", events(files)), [row.epoch for row in rows], rows


def timeline(files: RunFiles) -> tuple[Axis, list[float], list[Any]]:
    """Choose the horizontal axis: epochs, or steps if fewer than two epochs have ended.

    Returns:
        The axis, the places on it, and the rows of metrics.jsonl at those places.
    """
    epochs, steps = files.of("epoch"), files.of("step")
    if len(epochs) > 1 or len(steps) < 2:
        return by_epoch(files)
    length = max(row.step for row in epochs + steps)
    return Axis("step"), [row.epoch * length + row.step for row in steps], steps


def values(rows: Sequence[T], read: Callable[[T], float | None]) -> list[float]:
    """Read a number of every row; NaN if there is none or it is not finite."""
    found = [number(read(row)) for row in rows]
    return [math.nan if value is None else value for value in found]


def learner(row: StepRow | EndRow, k: int) -> LearnerScores:
    """Return a row's entries for a learner; empty if there are none."""
    return at(row.learners, k, LearnerScores())


def learner_lines(files: RunFiles, quantity: str, scale: float = 1.0) -> list[Line]:
    """Make every learner's train and valid curve of a quantity: loss or accuracy."""
    _, x, rows = timeline(files)
    count = max((len(row.learners) for row in rows), default=0)
    lines = []
    for k in range(count):
        scores = [learner(row, k) for row in rows]
        for part in ("valid", "train"):
            y = [scale * each for each in values(scores, attrgetter(f"{part}_{quantity}"))]
            name = f"{part}, learner {k}" if count > 1 else part
            lines.append(Line(name, x, y, SERIES[k % len(SERIES)], part == "train"))
    return [line for line in lines if np.isfinite(line.y).any()]


def keyed_lines(files: RunFiles, read: Callable[[StepRow], Mapping[str, float]]) -> list[Line]:
    """Make one curve for every name of the numbers in the rows."""
    _, x, rows = timeline(files)
    found = [read(row) for row in rows]
    names = dict.fromkeys(name for each in found for name in each)
    return [
        Line(name, x, values(found, methodcaller("get", name)), SERIES[place % len(SERIES)])
        for place, name in enumerate(names)
    ]


def events(files: RunFiles) -> tuple[Mark, ...]:
    """Mark the beginnings of phases, early stopping, and the epoch whose architecture is kept."""
    epochs = files.epochs
    marks = [
        Mark(row.epoch - 0.5, f"phase {row.phase + 1}", LIGHT["muted"])
        for before, row in pairwise(epochs)
        if row.phase != before.phase
    ]
    if files.stopped and files.last:
        last, kept = epochs[-1].epoch, files.last.epoch
        texts = {last: "stopped"} | {kept: "kept" if kept < last else "stopped, kept"}
        marks += [Mark(epoch, text, LIGHT["ink"]) for epoch, text in texts.items()]
    return tuple(marks)


def plot(
    caption: str,
    lines: Sequence[Line],
    axis: Axis,
    *,
    log: bool = False,
    shown: tuple[float, float] | None = None,
    filled: bool = False,
) -> Iterator[Drawn]:
    """Yield the plot of the lines, or nothing if no line holds a number."""
    lines = [line for line in lines if np.isfinite(line.y).any()]
    if lines:
        figure = curves(lines, axis, log=log, shown=shown, filled=filled)
        yield drawn(caption, figure, caption)


def curves(
    lines: Sequence[Line],
    axis: Axis,
    *,
    log: bool = False,
    shown: tuple[float, float] | None = None,
    filled: bool = False,
) -> Figure:
    """Plot curves with a legend that names curves of the same label once.

    Args:
        lines: curves with at least one number among them.
        axis: their horizontal axis.
        log: whether the vertical axis is logarithmic.
        shown: values that the vertical axis includes at least; if logarithmic, its exact range.
        filled: whether the space between the first two lines is shaded.
    """
    with styled():
        figure, axes = framed([line.label for line in lines], above=12 if axis.marks else 0)
        handles = {line.label: _draw_line(axes, line) for line in lines}
        if filled and len(lines) > 1:
            first, second = lines[:2]
            axes.fill_between(first.x, first.y, second.y, color=first.colour, alpha=0.12, lw=0)
        _scale(axes, [y for line in lines for y in line.y if math.isfinite(y)], log, shown)
        axes.set_xlabel(axis.name)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.margins(x=0.02)
        axes.tick_params(length=0)
        _draw_marks(axes, axis.marks)
        name(figure, handles)
    return figure


def framed(labels: Iterable[str], above: float = 0.0) -> tuple[Figure, Axes]:
    """Make axes, with space for the legend and `above` points above them."""
    lines, _ = _legend(labels)
    room = 14.0 * lines + 8 if lines else 0.0
    width, height = 400.0, 210 + room + above
    figure = new_figure(width, height)
    return figure, figure.add_axes((42 / width, 34 / height, (width - 54) / width, 170 / height))


def name(figure: Figure, handles: Mapping[str, Artist]) -> None:
    """Add a legend, if a figure shows more than one thing."""
    lines, columns = _legend(handles)
    if lines:
        labels = [fill(label, LINE).replace("$", r"\$") for label in handles]
        figure.legend(
            list(handles.values()), labels, loc="upper left", ncols=columns,
            bbox_to_anchor=(30 / 400, 1), fontsize=9, handlelength=1.8, columnspacing=1.4,
            borderaxespad=0.2,
        )  # fmt: skip


def _legend(labels: Iterable[str]) -> tuple[int, int]:
    """Return the lines and the columns of a legend; zero for a single name."""
    found = set(labels)
    if len(found) < 2:
        return 0, 1
    if max(map(len, found)) > 30:
        return sum(len(wrap(label, LINE)) for label in found), 1
    columns = len(found) if len(found) < 4 else min(3, (len(found) + 1) // 2)
    return -(-len(found) // columns), columns


def _draw_line(axes: Axes, line: Line) -> Line2D:
    few = np.isfinite(line.y).sum() < 3
    (curve,) = axes.plot(
        line.x, line.y, color=line.colour,
        linestyle="--" if line.dashed else "-", linewidth=1.1 if line.dashed else 1.7,
        marker="o" if few else "", markersize=4,
    )  # fmt: skip
    return curve


def _scale(
    axes: Axes, heights: Sequence[float], log: bool, shown: tuple[float, float] | None
) -> None:
    positive = [height for height in heights if height > 0]
    if log and positive:
        low, high = shown or _decades(positive)
        axes.set(yscale="log", ylim=(low, high))
        axes.minorticks_off()
    elif shown:
        low, high = min(*heights, shown[0]), max(*heights, shown[1])
        axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
        if all(height.is_integer() for height in heights):
            axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))


def _decades(heights: Sequence[float]) -> tuple[float, float]:
    """Round down and up to powers of ten."""
    low = math.floor(math.log10(min(heights)))
    high = max(math.ceil(math.log10(max(heights))), low + 1)
    return 10.0**low, 10.0**high


def _draw_marks(axes: Axes, marks: Sequence[Mark]) -> None:
    """Draw vertical lines, each with its text above, on the side that has more space."""
    left, right = axes.get_xlim()
    for mark in marks:
        axes.axvline(mark.x, color=mark.colour, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        side = "right" if mark.x > (left + right) / 2 else "left"
        axes.annotate(
            mark.text, (mark.x, 1), (0, 3), xycoords=("data", "axes fraction"), ha=side,
            textcoords="offset points", fontsize=8, color=mark.colour, annotation_clip=False,
        )  # fmt: skip
