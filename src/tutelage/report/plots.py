"""Curves of a report: quantities of metrics.jsonl over epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tutelage.report.figures import SERIES, new_figure, styled
from tutelage.report.read import Stage, number


@dataclass(frozen=True)
class Line:
    """One curve: where and how high, and how it is drawn."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    dashed: bool = False


def timeline(stage: Stage) -> tuple[str, list[float], list[dict[str, Any]]]:
    """Choose what curves run over: epochs, or steps where fewer than two epochs have ended.

    Returns:
        The axis' name, the places on it, and the rows of metrics.jsonl at those places.
    """
    epochs, steps = stage.of("epoch"), stage.of("step")
    if len(epochs) > 1 or len(steps) < 2:
        return "epoch", [row.get("epoch", i) for i, row in enumerate(epochs)], epochs
    length = max(row.get("step", 0) for row in epochs + steps)
    return "step", [row.get("epoch", 0) * length + row.get("step", 0) for row in steps], steps


def values(rows: Sequence[Any], *keys: str | int) -> list[float]:
    """Follow keys into every row; NaN where they lead nowhere."""
    found = []
    for row in rows:
        for key in keys:
            if isinstance(row, Mapping):
                row = row.get(key)
            elif isinstance(row, list) and isinstance(key, int) and key < len(row):
                row = row[key]
            else:
                row = None
        value = number(row)
        found.append(float("nan") if value is None else value)
    return found


def learner_lines(stage: Stage, quantity: str, scale: float = 1.0) -> list[Line]:
    """Make every learner's train and valid curve of a quantity: loss or accuracy."""
    _, x, rows = timeline(stage)
    count = max((len(row.get("learners") or []) for row in rows), default=0)
    lines = []
    for learner in range(count):
        for part in ("valid", "train"):
            y = [scale * value for value in values(rows, "learners", learner, f"{part}_{quantity}")]
            name = f"{part}, learner {learner}" if count > 1 else part
            lines.append(Line(name, x, y, SERIES[learner % len(SERIES)], part == "train"))
    return [line for line in lines if np.isfinite(line.y).any()]


def keyed_lines(stage: Stage, *keys: str) -> list[Line]:
    """Make one curve for every number in the object that keys lead to in the rows."""
    _, x, rows = timeline(stage)
    names: dict[str, None] = {}
    for row in rows:
        inner: Any = row
        for key in keys:
            inner = (inner.get(key) or {}) if isinstance(inner, Mapping) else {}
        names |= dict.fromkeys(inner)
    return [
        Line(name, x, values(rows, *keys, name), SERIES[place % len(SERIES)])
        for place, name in enumerate(names)
    ]


def curves(lines: Sequence[Line], axis: str, *, log: bool = False) -> Figure:
    """Plot curves under a legend that names curves of the same label once."""
    with styled():
        labels = {line.label for line in lines}
        columns = len(labels) if len(labels) < 4 else min(3, (len(labels) + 1) // 2)
        if max(map(len, labels)) > 30:
            columns = 1
        legend = 14.0 * -(-len(labels) // columns) + 8 if len(labels) > 1 else 0.0
        width, height = 400.0, 210 + legend
        figure = new_figure(width, height)
        axes = figure.add_axes((42 / width, 34 / height, (width - 54) / width, 170 / height))
        handles: dict[str, Line2D] = {}
        for line in lines:
            few = np.isfinite(line.y).sum() < 3
            (drawn,) = axes.plot(
                line.x, line.y, color=line.colour,
                linestyle="--" if line.dashed else "-", linewidth=1.1 if line.dashed else 1.7,
                marker="o" if few else "", markersize=4,
            )  # fmt: skip
            handles.setdefault(line.label.replace("$", r"\$"), drawn)
        positive = [value for line in lines for value in line.y if value > 0]
        if log and positive:
            decades = math.log10(min(positive)), math.log10(max(positive))
            low, high = (
                math.floor(decades[0]),
                max(math.ceil(decades[1]), math.floor(decades[0]) + 1),
            )
            axes.set(yscale="log", ylim=(10.0**low, 10.0**high))
            axes.minorticks_off()
        axes.set_xlabel(axis)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.margins(x=0.02)
        axes.tick_params(length=0)
        if legend:
            figure.legend(
                list(handles.values()), list(handles), loc="upper left", ncols=columns,
                bbox_to_anchor=(30 / width, 1), fontsize=9, handlelength=1.8, columnspacing=1.4,
                borderaxespad=0.2,
            )  # fmt: skip
    return figure
