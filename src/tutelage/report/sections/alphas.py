"""Heat maps of a report: how every edge's operation weights move over epochs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tutelage.records.rows import EpochRow
from tutelage.report.figures.layout import short_name
from tutelage.report.figures.theme import LIGHT, canvas, styled
from tutelage.report.runs.read import RunFiles, at
from tutelage.spaces.genotype import OPERATIONS, Cell, Genotype

LEFT, TOP, BOTTOM = 50.0, 36.0, 14.0
"""Room for operation names, for the scale, and for epochs, in points."""

WIDTH, NARROW, ROW = 118.0, 86.0, 8.4
"""Widths of a panel, alone and with names of its own; height of one operation in it; in points."""

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


@dataclass(frozen=True, eq=False)
class Reading:
    """The architecture weights of one cell after an epoch."""

    row: EpochRow
    weights: np.ndarray
    """The architecture weights, (edges, ops)."""

    @property
    def kind(self) -> tuple[int, tuple[int, ...]]:
        """What the readings of a phase have in common: its number, and the shape of the weights."""
        return self.row.phase, self.weights.shape


@dataclass(frozen=True)
class Course:
    """How the architecture weights of one cell move over the epochs of a phase."""

    group: str
    phase: int
    epochs: tuple[int, ...]
    weights: np.ndarray
    """The architecture weights, (epochs, edges, ops)."""
    operations: tuple[tuple[str, ...], ...]
    """Their names, on every edge."""
    genotype: Genotype | None
    """What is derived after the last of the epochs, or after `kept`."""
    kept: int | None = None
    """The epoch whose architecture counts, where it is not the last."""

    @property
    def alike(self) -> bool:
        """Whether every edge has the same operations."""
        return len(set(self.operations)) == 1

    @property
    def cell(self) -> Cell | None:
        """The cell of the genotype, where it has as many edges as the architecture weights."""
        cell = self.genotype.cells.get(self.group) if self.genotype else None
        edges = sum(cell.inputs + row for row in range(len(cell.nodes))) if cell else 0
        return cell if edges == self.weights.shape[1] else None


@dataclass(frozen=True)
class Panel:
    """One edge's heat map: nodes go down, the states that they read go right."""

    row: int
    column: int
    name: str
    operations: tuple[str, ...]
    lowest: bool
    """No other panel stands below it."""
    chosen: tuple[str, ...] = ()
    """The operations of the genotype on this edge."""


@dataclass(frozen=True)
class Grid:
    """Where panels stand."""

    count: int
    """Operations of an edge."""
    alike: bool
    """The names left of a row of panels are those of all of them."""

    @property
    def width(self) -> float:
        """Width of a panel."""
        return WIDTH if self.alike else NARROW

    @property
    def step(self) -> tuple[float, float]:
        """From one panel to the next, across and down."""
        return self.width + (GAPS[0] if self.alike else LEFT), ROW * self.count + GAPS[1]

    def corner(self, panel: Panel) -> tuple[float, float]:
        """Give the upper left corner of a panel's shades."""
        across, down = self.step
        return LEFT + panel.column * across, TOP + panel.row * down + GAPS[1] - 4


def courses(files: RunFiles) -> dict[tuple[int, str], list[Course]]:
    """Gather the architecture weights of every (learner, group), phase by phase.

    Where operations were dropped on the way, a phase begins even if the rows do not say so.
    """
    found: dict[tuple[int, str], list[list[Reading]]] = {}
    for row in files.epochs:
        for learner, groups in enumerate(row.arch_weights):
            for group, edges in groups.items():
                if len({len(edge) for edge in edges}) != 1:
                    continue
                reading = Reading(row, np.array(edges, dtype=float))
                phases = found.setdefault((learner, group), [])
                if not phases or phases[-1][-1].kind != reading.kind:
                    phases.append([])
                phases[-1].append(reading)
    return {
        key: [_course(*key, each, files.last) for each in phases] for key, phases in found.items()
    }


def derived(row: EpochRow | None, learner: int) -> Genotype | None:
    """Give the genotype of a learner in an epoch's row; None where there is none."""
    try:
        return Genotype.from_dict(at(row.genotype if row else [], learner, {}))
    except ValueError:
        return None


def _course(
    learner: int, group: str, readings: Sequence[Reading], counts: EpochRow | None
) -> Course:
    """Make a course of the readings of a phase; `counts` is the row whose architectures count."""
    last = readings[-1].row
    kept = next((each.row for each in readings if each.row is counts), None)
    weights = np.stack([each.weights for each in readings])
    _, edges, count = weights.shape
    genotype = derived(kept or last, learner)
    names: Sequence[str | list[str]] = at(last.operations, learner, {}).get(group, ())
    if not names and genotype:  # a run of before rows named them
        names = OPERATIONS.get(genotype.space, ())
    every: Sequence[Any] = names
    if all(isinstance(name, str) for name in names):
        every = [names] * edges
    if len(every) != edges or any(len(each) != count for each in every):
        every = [[f"operation {i}" for i in range(count)]] * edges
    return Course(
        group=group,
        phase=readings[0].row.phase,
        epochs=tuple(each.row.epoch for each in readings),
        weights=weights,
        operations=tuple(tuple(each) for each in every),
        genotype=genotype,
        kept=kept.epoch if kept and kept is not last else None,
    )


def heat_maps(course: Course) -> Figure:
    """Draw a panel for every edge: operations down, epochs right, weights as shades."""
    arch = course.weights
    grid, panels = Grid(arch.shape[2], course.alike), _panels(course)
    low = float(np.nanmin(arch))
    limits = low, max(float(np.nanmax(arch)), low + NARROWEST)
    across, down = grid.step
    width = LEFT + across * max(panel.column + 1 for panel in panels)
    width = max(width, LEFT + WIDTH + GAPS[0])
    height = TOP + down * (1 + max(panel.row for panel in panels)) + BOTTOM
    with styled():
        figure, axes = canvas(width, height)
        _shade(axes, (LEFT, 16), np.linspace(*limits, 60)[None], limits, (WIDTH, 7))
        axes.text(LEFT, 12, "architecture weight", size=8)
        for part, value in enumerate(np.linspace(*limits, 3)):
            x, text = LEFT + part * WIDTH / 2, f"{value:.3f}"
            axes.text(x, 25, text, size=7, ha="center", va="top")
        for panel, weights in zip(panels, arch.transpose(1, 2, 0), strict=True):
            _draw_panel(axes, grid, panel, weights, limits)
            if course.kept in course.epochs:
                _draw_kept(axes, grid, panel, (course.epochs.index(course.kept) + 1) / len(arch))
            if panel.lowest:
                _draw_epochs(axes, grid, panel, course.epochs)
    return figure


def _draw_panel(axes: Axes, grid: Grid, panel: Panel, weights: np.ndarray, limits: Limits) -> None:
    left, top = grid.corner(panel)
    _shade(axes, (left, top), weights, limits, (grid.width, ROW * grid.count))
    axes.text(left, top - 4, panel.name, size=8)
    for operation, name in enumerate(panel.operations):
        y = top + (operation + 0.5) * ROW
        if panel.column == 0 or not grid.alike:
            label, colour = short_name(name), LIGHT["muted"]
            axes.text(left - 4, y, label, size=7, ha="right", va="center", color=colour)
        if name in panel.chosen:
            axes.plot([left + grid.width + 3.5], [y], "<", color=LIGHT["vermilion"], markersize=3.5)


def _draw_kept(axes: Axes, grid: Grid, panel: Panel, share: float) -> None:
    """Draw a line after the epoch whose architecture counts."""
    left, top = grid.corner(panel)
    x = left + share * grid.width
    axes.plot([x, x], [top, top + ROW * grid.count], color=LIGHT["vermilion"], linewidth=1)


def _draw_epochs(axes: Axes, grid: Grid, panel: Panel, epochs: Sequence[int]) -> None:
    left, top = grid.corner(panel)
    for place in sorted({0, (len(epochs) - 1) // 2, len(epochs) - 1}):
        x = left + (place + 0.5) * grid.width / len(epochs)
        y, colour = top + ROW * grid.count + 3, LIGHT["muted"]
        axes.text(x, y, str(epochs[place]), size=7, ha="center", va="top", color=colour)


def _shade(
    axes: Axes,
    corner: tuple[float, float],
    weights: np.ndarray,
    limits: Limits,
    size: tuple[float, float],
) -> None:
    left, top = corner
    axes.imshow(
        weights, aspect="auto", interpolation="none", cmap=SHADES, vmin=limits[0], vmax=limits[1],
        extent=(left, left + size[0], top + size[1], top),
    )  # fmt: skip
    axes.add_patch(Rectangle(corner, *size, fc="none", ec=LIGHT["line"], lw=0.8))


def _panels(course: Course) -> list[Panel]:
    """Give every edge its panel, in the alphas' order; five a row where the cell is unknown."""
    edges, cell = len(course.operations), course.cell
    if cell is None:
        return [
            Panel(*divmod(edge, 5), f"edge {edge}", names, lowest=edge + 5 >= edges)
            for edge, names in enumerate(course.operations)
        ]
    places = [(row, read) for row in range(len(cell.nodes)) for read in range(cell.inputs + row)]
    panels = []
    for (row, read), names in zip(places, course.operations, strict=True):
        name = f"{cell.state_name(read)} to {cell.inputs + row}"
        name = re.sub(r"c_(\S+)", r"$c_\1$", name)
        lowest = row == len(cell.nodes) - 1
        chosen = tuple(operation for operation, source in cell.nodes[row] if source == read)
        panels.append(Panel(row, read, name, names, lowest, chosen))
    return panels
