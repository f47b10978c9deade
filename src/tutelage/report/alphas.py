"""Heat maps of a report: how every edge's operation weights move over epochs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tutelage.report.figures import LIGHT, canvas, styled
from tutelage.report.layout import short_name
from tutelage.report.read import Stage
from tutelage.spaces.genotype import OPERATIONS, Cell, Genotype

LEFT, TOP, BOTTOM = 50.0, 36.0, 14.0
"""Room for operation names, for the scale, and for epochs, in points."""

WIDTH, ROW = 118.0, 8.4
"""Width of a panel and height of one operation in it, in points."""

GAPS = (14.0, 22.0)
"""Room right of and above every panel, in points."""

NARROWEST = 0.02
"""Least difference of weights from the lightest shade to the darkest."""

Limits = tuple[float, float]
"""The weights of the lightest and of the darkest shade."""

SHADES = LinearSegmentedColormap.from_list(
    "shades", [to_rgba(LIGHT["blue"], 0.02), to_rgba(LIGHT["blue"])]
)
"""From nearly nothing to blue, readable on light and on dark."""


@dataclass(frozen=True)
class Panel:
    """One edge's heat map: nodes go down, the states that they read go right."""

    row: int
    column: int
    name: str
    lowest: bool
    """No other panel stands below it."""
    chosen: tuple[str, ...] = ()
    """The operations of the genotype on this edge."""


def mixes(stage: Stage) -> dict[tuple[int, str], np.ndarray]:
    """Gather the mix of every (learner, group) over epochs, (epochs, edges, ops).

    Where operations were dropped on the way, only the epochs since the last change count.
    """
    found: dict[tuple[int, str], list[np.ndarray]] = {}
    for row in stage.of("epoch"):
        for learner, groups in enumerate(row.get("mix") or []):
            for group, weights in groups.items():
                found.setdefault((learner, group), []).append(np.array(weights, dtype=float))
    return {
        key: np.stack([each for each in history if each.shape == history[-1].shape])
        for key, history in found.items()
        if history[-1].ndim == 2
    }


def heat_maps(mix: np.ndarray, group: str, genotype: Genotype | None, last_epoch: int) -> Figure:
    """Draw a panel for every edge: operations down, epochs right, weights as shades.

    Args:
        mix: weights, (epochs, edges, ops).
        group: name of the cell that they belong to.
        genotype: names the edges and the operations, and marks the chosen ones.
        last_epoch: the epoch of the last weights.
    """
    epochs, edges, count = mix.shape
    cell = genotype.cells.get(group) if genotype else None
    names = OPERATIONS.get(genotype.space, ()) if genotype else ()
    if len(names) != count:
        names = tuple(f"operation {i}" for i in range(count))
    panels = _panels(cell, edges)
    low = float(np.nanmin(mix))
    limits = low, max(float(np.nanmax(mix)), low + NARROWEST)
    width = LEFT + (WIDTH + GAPS[0]) * (1 + max(panel.column for panel in panels))
    height = TOP + (ROW * count + GAPS[1]) * (1 + max(panel.row for panel in panels)) + BOTTOM
    with styled():
        figure, axes = canvas(width, height)
        _shade(axes, (LEFT, 16), np.linspace(*limits, 60)[None], limits, 7)
        axes.text(LEFT, 12, "weight in the mix", size=8)
        for part, value in enumerate(np.linspace(*limits, 3)):
            x, text = LEFT + part * WIDTH / 2, f"{value:.3f}"
            axes.text(x, 25, text, size=7, ha="center", va="top")
        for panel, weights in zip(panels, mix.transpose(1, 2, 0), strict=True):
            _draw_panel(axes, panel, weights, names, limits)
            if panel.lowest:
                _draw_epochs(axes, panel, count, range(last_epoch - epochs + 1, last_epoch + 1))
    return figure


def _corner(panel: Panel, count: int) -> tuple[float, float]:
    across, down = WIDTH + GAPS[0], ROW * count + GAPS[1]
    return LEFT + panel.column * across, TOP + panel.row * down + GAPS[1] - 4


def _draw_panel(
    axes: Axes, panel: Panel, weights: np.ndarray, names: Sequence[str], limits: Limits
) -> None:
    left, top = _corner(panel, len(names))
    _shade(axes, (left, top), weights, limits, ROW * len(names))
    axes.text(left, top - 4, panel.name, size=8)
    for operation, name in enumerate(names):
        y = top + (operation + 0.5) * ROW
        if panel.column == 0:
            label, colour = short_name(name), LIGHT["muted"]
            axes.text(left - 4, y, label, size=7, ha="right", va="center", color=colour)
        if name in panel.chosen:
            axes.plot([left + WIDTH + 3.5], [y], "<", color=LIGHT["vermilion"], markersize=3.5)


def _draw_epochs(axes: Axes, panel: Panel, count: int, epochs: range) -> None:
    left, top = _corner(panel, count)
    for place in sorted({0, (len(epochs) - 1) // 2, len(epochs) - 1}):
        x = left + (place + 0.5) * WIDTH / len(epochs)
        y, colour = top + ROW * count + 3, LIGHT["muted"]
        axes.text(x, y, str(epochs[place]), size=7, ha="center", va="top", color=colour)


def _shade(
    axes: Axes, corner: tuple[float, float], weights: np.ndarray, limits: Limits, height: float
) -> None:
    left, top = corner
    axes.imshow(
        weights, aspect="auto", interpolation="none", cmap=SHADES, vmin=limits[0], vmax=limits[1],
        extent=(left, left + WIDTH, top + height, top),
    )  # fmt: skip
    axes.add_patch(Rectangle(corner, WIDTH, height, fc="none", ec=LIGHT["line"], lw=0.8))


def _panels(cell: Cell | None, edges: int) -> list[Panel]:
    """Give every edge its panel, in the alphas' order; five a row where the cell is unknown."""
    panels = []
    if cell is not None:
        for row, node in enumerate(cell.nodes):
            for source in range(cell.inputs + row):
                name = f"{cell.state_name(source)} to {cell.inputs + row}"
                name = re.sub(r"c_(\S+)", r"$c_\1$", name)
                lowest = row == len(cell.nodes) - 1
                chosen = tuple(operation for operation, read in node if read == source)
                panels.append(Panel(row, source, name, lowest, chosen))
    if len(panels) != edges:
        places = [divmod(edge, 5) for edge in range(edges)]
        panels = [
            Panel(row, column, f"edge {edge}", edge + 5 >= edges)
            for edge, (row, column) in enumerate(places)
        ]
    return panels
