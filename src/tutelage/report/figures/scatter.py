"""Scatter plots of a report: candidates by score and cost, with lines through some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tutelage.report.figures.plots import framed, name
from tutelage.report.figures.theme import LIGHT, styled


@dataclass(frozen=True)
class Points:
    """Points of one kind, and their style."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    size: float = 14.0
    """Area in square points; 0: only the line through them is drawn."""
    alpha: float | Sequence[float] = 1.0
    """Opacity of all points, or of each."""
    ring: bool = False
    """Whether they are drawn as rings around other points."""
    line: Literal["none", "straight", "after", "before"] = "none"
    """How they are joined: by straight lines, or by steps after or before each."""


@dataclass(frozen=True)
class Limit:
    """A limit of a quantity: a line across the plot."""

    x: float
    text: str


def scatter(
    points: Sequence[Points],
    across: str,
    limits: Sequence[Limit] = (),
    *,
    whole: bool = False,
) -> Figure:
    """Plot points, later ones over earlier ones.

    Args:
        points: What to plot; at least one point.
        across: Name of the horizontal axis.
        limits: Lines across.
        whole: Whether the horizontal axis has only whole numbers.
    """
    with styled():
        figure, axes = framed([each.label for each in points], above=12 if limits else 0)
        handles = {each.label: _draw(axes, each) for each in points if len(each.x)}
        axes.set_xlabel(across)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole, min_n_ticks=1))
        axes.tick_params(length=0)
        axes.margins(0.05)
        for limit in limits:
            _draw_limit(axes, limit)
        name(figure, handles)
    return figure


def _draw_limit(axes: Axes, limit: Limit) -> None:
    """Draw a line at the limit; if it is far from all points, only write its value."""
    left, right = axes.get_xlim()
    near = limit.x < right + (right - left) / 3
    if near:
        axes.axvline(limit.x, color=LIGHT["ink"], linewidth=1, linestyle=(0, (2, 2)), zorder=1)
    axes.annotate(
        limit.text if near else f"{limit.text} →", (limit.x if near else right, 1), (0, 3),
        xycoords=("data", "axes fraction"), ha="right", textcoords="offset points", fontsize=8,
        annotation_clip=False,
    )  # fmt: skip


def _draw(axes: Axes, points: Points) -> Artist:
    """Draw points of one kind; return their handle for the legend."""
    line: Artist | None = None
    if points.line != "none":
        style = {"straight": "default", "after": "steps-post", "before": "steps-pre"}
        (line,) = axes.plot(
            points.x, points.y, color=points.colour, drawstyle=style[points.line], linewidth=1.5,
            zorder=2,
        )  # fmt: skip
    if not points.size and line:
        return line
    if points.ring:
        return axes.scatter(
            points.x, points.y, s=points.size, fc="none", ec=points.colour, lw=1.8, zorder=4
        )
    strengths = [points.alpha] * len(points.x) if isinstance(points.alpha, float) else points.alpha
    colours = [to_rgba(points.colour, strength) for strength in strengths]
    axes.scatter(points.x, points.y, s=points.size, c=colours, lw=0, zorder=3)
    return line or axes.scatter([], [], s=points.size, c=points.colour, lw=0)
