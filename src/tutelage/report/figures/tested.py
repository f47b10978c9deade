"""Figures of a test: the confusion matrix, and the reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tutelage.classification import Calibration, Integers
from tutelage.report.figures.theme import LIGHT, canvas, new_figure, styled

SIDE: Final = 264.0
"""Points of a matrix's side."""
COUNTED: Final = 15
"""Most classes of a matrix whose cells show their numbers."""
NAMED: Final = 40
"""Most classes of a matrix whose rows and columns have names."""
LETTERS: Final = 18
"""Letters of a class' name; longer ones are cut."""


def matrix(table: Integers, classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix (C, C): rows are classes, columns what their images were taken for.

    The colour of a cell is the stronger, the larger its share of the row.
    """
    count, named = len(classes), len(classes) <= NAMED
    names = [short(name) for name in classes] if named else []
    margin = 24 + (max(map(len, names)) * 5.0 if named else 0)
    side = SIDE / count
    size = min(8.0, 1.7 * side / len(str(table.max())))
    with styled():
        figure, axes = canvas(margin + SIDE + 8, margin + SIDE + 8)
        shares = table / np.maximum(1, table.sum(1, keepdims=True))
        for row, column in zip(*np.nonzero(table), strict=True):
            share = float(shares[row, column])
            corner = margin + column * side, margin + row * side
            colour = LIGHT["blue" if row == column else "vermilion"]
            strength = 0.12 + 0.88 * share
            axes.add_patch(Rectangle(corner, side, side, fc=colour, alpha=strength, lw=0))
            if count <= COUNTED:
                ink = LIGHT["page" if strength > 0.55 else "ink"]
                middle, text = (corner[0] + side / 2, corner[1] + side / 2), str(table[row, column])
                axes.text(*middle, text, size=size, ha="center", va="center", color=ink)
        axes.add_patch(Rectangle((margin, margin), SIDE, SIDE, fc="none", ec=LIGHT["line"], lw=0.8))
        _label(axes, names, margin, side)
    return figure


def _label(axes: Axes, names: Sequence[str], margin: float, side: float) -> None:
    """Name rows and columns, and say what they are."""
    size = min(8.0, max(4.0, 0.8 * side))
    for place, name in enumerate(names):
        at, text = margin + (place + 0.5) * side, name.replace("$", r"\$")
        axes.text(margin - 4, at, text, size=size, ha="right", va="center")
        axes.text(at, margin - 4, text, size=size, ha="center", va="bottom", rotation=90)
    middle = margin + SIDE / 2
    for text, where, turned in (("taken for", (middle, 8), 0), ("class", (8, middle), 90)):
        axes.text(
            where[0],
            where[1],
            text,
            size=8,
            ha="center",
            va="center",
            rotation=turned,
            color=LIGHT["muted"],
        )


def short(name: str) -> str:
    """Cut a long name.

    >>> short("cat"), short("a very long name of a class")
    ('cat', 'a very long name …')
    """
    return name if len(name) <= LETTERS else name[: LETTERS - 2].rstrip() + " …"


def reliability(found: Calibration) -> Figure:
    """Draw accuracy by confidence, bin by bin, with the share of the images in each below."""
    bins = len(found.images)
    width, height = 400.0, 320.0
    left, across = 42 / width, (width - 54) / width
    middles = (np.arange(bins) + 0.5) / bins
    with styled():
        figure = new_figure(width, height)
        axes = figure.add_axes((left, 108 / height, across, 200 / height))
        axes.plot([0, 100], [0, 100], color=LIGHT["muted"], lw=1, ls="--")
        shown = found.images > 0
        at, own = 100 * middles[shown], 100 * found.accuracy[shown]
        axes.bar(at, own, width=92 / bins, color=LIGHT["blue"], alpha=0.75, lw=0)
        sure = 100 * found.confidence[shown]
        axes.plot(sure, own, "o", color=LIGHT["vermilion"], markersize=3.5)
        axes.set(xlim=(0, 100), ylim=(0, 100), ylabel="accuracy (%)")
        axes.tick_params(length=0, labelbottom=False)
        below = figure.add_axes((left, 34 / height, across, 62 / height))
        share = 100 * found.images / max(1, found.images.sum())
        below.bar(100 * middles, share, width=92 / bins, color=LIGHT["slate"], alpha=0.75, lw=0)
        below.set(
            xlim=(0, 100), xlabel="probability of the predicted class (%)", ylabel="images (%)"
        )
        below.tick_params(length=0)
    return figure
