"""The plot of a measure: a dot a seed, the mean and its interval, a row a configuration."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tutelage.report.figures.theme import LIGHT, SERIES, Drawn, drawn, new_figure, styled
from tutelage.study.results.compare import Line

WIDTH, ROW, FOOT = 420.0, 44.0, 34.0
"""Points: of the figure, of a configuration, of the axis below."""
CLOSE = 0.008
"""Share of the axis below which two dots would hide one another."""
STEP, TALLEST = 0.11, 0.26
"""Shares of a row: between two dots of a stack, and of the tallest one."""
NAME, DOTS, MEAN = -0.4, 0.06, 0.3
"""Where the parts of a row lie, downwards from its middle: in shares of a row."""


def dots(measure: str, lines: Sequence[Line], baseline: str | None) -> Drawn:
    """Plot every seed's value; the baseline's mean is a line across all rows."""
    caption = f"{measure}: a dot a seed, the mean and its 95 % interval"
    return drawn(caption, figure_of(measure, lines, baseline), caption)


def figure_of(measure: str, lines: Sequence[Line], baseline: str | None) -> Figure:
    """Draw the plot; a configuration without a value has no row."""
    lines = [line for line in lines if line.sample.n]
    height = ROW * len(lines) + FOOT
    with styled():
        figure = new_figure(WIDTH, height)
        axes = figure.add_axes((0.02, FOOT / height, 0.96, 1 - FOOT / height))
        axes.grid(axis="y", visible=False)
        every = [value for line in lines for value in line.sample.values]
        close = CLOSE * (max(every, default=0.0) - min(every, default=0.0))
        for place, line in enumerate(lines):
            colour = LIGHT["ink"] if line.name == baseline else SERIES[0]
            _row(axes, line, place, colour, close)
            if line.name == baseline:
                axes.axvline(line.sample.mean, color=LIGHT["muted"], lw=1, ls=(0, (2, 2)), zorder=1)
        axes.set(ylim=(len(lines) - 0.4, -0.6), yticks=[], xlabel=measure)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.tick_params(length=0)
        axes.margins(x=0.05)
    return figure


def stacked(values: Sequence[float], close: float) -> list[float]:
    """Return how high each dot lies, so that equal values are seen to be several.

    >>> stacked([1.0, 2.0, 1.0], close=0.1)
    [0.0, 0.0, 0.11]
    """
    below = [sum(abs(x - y) <= close for y in values[:i]) for i, x in enumerate(values)]
    step = min(STEP, TALLEST / max([1, *below]))
    return [step * count for count in below]


def _row(axes: Axes, line: Line, place: int, colour: str, close: float) -> None:
    """Draw a configuration: its name above its dots, the interval below them."""
    sample = line.sample
    axes.annotate(
        line.name.replace("$", r"\$"), (0, place + NAME), xycoords=("axes fraction", "data"),
        va="center", fontsize=8.5,
    )  # fmt: skip
    heights = [place + DOTS - height for height in stacked(sample.values, close)]
    axes.scatter(sample.values, heights, s=22, color=colour, alpha=0.55, lw=0, zorder=3)
    if line.interval:
        axes.plot(line.interval, [place + MEAN] * 2, color=colour, lw=1.6, zorder=2)
    axes.plot([sample.mean], [place + MEAN], marker="d", ms=5.5, color=colour, lw=0, zorder=4)
