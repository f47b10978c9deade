"""Draw genotypes, as SVG or PNG: every cell as a layered graph, a chain stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path as Curve

from tutelage.checks import nearest
from tutelage.files import write_bytes
from tutelage.report.figures.chain import chain_figure
from tutelage.report.figures.layout import Layout, Slot, Wire, arrange, cell_name
from tutelage.report.figures.theme import LIGHT, canvas, styled, to_png, to_svg
from tutelage.spaces.genotype import Genotype

FAMILIES = {
    "sep": LIGHT["blue"],
    "dil": LIGHT["vermilion"],
    "pool": LIGHT["green"],
    "skip": LIGHT["purple"],
    "conv": LIGHT["amber"],
    "none": LIGHT["muted"],
}
"""Part of an operation's name to the colour of its family; the first match counts."""

MARGIN, TITLE = 10.0, 26.0
"""Space around a cell, and above it for its name, in points."""


def family_colour(operation: str) -> str:
    """Return the colour of an operation's family: separable, dilated, pooling, skip and so on."""
    found = (colour for part, colour in FAMILIES.items() if part in operation)
    return next(found, LIGHT["slate"])


def draw(genotype: Genotype, group: str | None = None) -> str:
    """Draw the cell of one group, or all cells in a column, as SVG text."""
    groups = [group] if group else list(genotype.cells)
    return to_svg(cell_figure(genotype, groups), " and ".join(map(cell_name, groups)))


def save_drawing(genotype: Genotype, path: Path | str, group: str | None = None) -> None:
    """Write a drawing to a file, in the format of its ending: .svg or .png."""
    path = Path(path)
    if path.suffix == ".svg":
        write_bytes(path, draw(genotype, group).encode())
    elif path.suffix == ".png":
        groups = [group] if group else list(genotype.cells)
        write_bytes(path, to_png(cell_figure(genotype, groups)))
    else:
        raise ValueError(f"{path}: a drawing's file must end in .svg or .png")


def cell_figure(genotype: Genotype, groups: Sequence[str]) -> Figure:
    """Draw the named cells in a column into a figure.

    Raises:
        ValueError: the genotype has no such cell.
    """
    for group in groups:
        if group not in genotype.cells:
            raise ValueError(f"no cell {group!r}: {nearest(group, genotype.cells)}")
    with styled():
        if genotype.stages:
            return chain_figure(genotype)
        return _figure(groups, [arrange(genotype.cells[group]) for group in groups])


def _figure(groups: Sequence[str], layouts: Sequence[Layout]) -> Figure:
    width = max(layout.width for layout in layouts) + 2 * MARGIN
    height = sum(layout.height + TITLE + 2 * MARGIN for layout in layouts)
    figure, axes = canvas(width, height)
    top = 0.0
    for group, layout in zip(groups, layouts, strict=True):
        axes.text(MARGIN, top + MARGIN, cell_name(group), va="top", weight="bold", size=10)
        _draw_cell(axes, layout, MARGIN, top + TITLE + MARGIN)
        top += layout.height + TITLE + 2 * MARGIN
    return figure


def _draw_cell(axes: Axes, layout: Layout, left: float, top: float) -> None:
    for wire in layout.wires:
        _draw_wire(axes, layout, wire, left, top)
    colours = {
        slot: family_colour(wire.operation)
        for wire in layout.wires
        for slot in wire.slots
        if wire.operation and slot.kind == "label"
    }
    for slot in (slot for rank in layout.ranks for slot in rank if slot.kind != "bend"):
        colour = colours.get(slot, LIGHT["ink"])
        _draw_box(axes, slot, left, top, colour)


def _draw_box(axes: Axes, slot: Slot, left: float, top: float, colour: str) -> None:
    corner = (left + slot.x - slot.width / 2, top + slot.y - slot.height / 2)
    rounding = slot.height / 2 if slot.kind == "label" else 6
    shape = f"round,pad=0,rounding_size={rounding}"
    line = 1.4 if slot.kind == "state" else 1.1
    for fill, edge, alpha in ((colour, "none", 0.1), ("none", colour, 1.0)):
        axes.add_patch(
            FancyBboxPatch(
                corner, slot.width, slot.height, boxstyle=shape, fc=fill, ec=edge, lw=line,
                alpha=alpha, zorder=2, clip_on=False,
            )
        )  # fmt: skip
    text = f"${slot.text}$" if slot.text.startswith("c_") else slot.text
    size = 8.5 if slot.kind == "label" else 10
    axes.text(left + slot.x, top + slot.y, text, ha="center", va="center", size=size, zorder=3)


def _draw_wire(axes: Axes, layout: Layout, wire: Wire, left: float, top: float) -> None:
    """Draw a wire: curves between its slots, straight lines through them, and an arrow head.

    A wire without an operation is fainter, and dashed if `none` is its choice.
    """
    operation = wire.operation or "none"
    colour = family_colour(operation)
    line, alpha = (0.9, 0.7) if operation == "none" else (1.5, 0.9)
    style = (0, (3, 3)) if wire.operation == "none" else "-"
    leave, arrive = _port(layout, wire, 0), _port(layout, wire, -1)
    for before, after in pairwise(wire.slots):
        x0, x1 = left + before.x + before.width / 2, left + after.x - after.width / 2
        y0 = top + before.y + (leave if before is wire.slots[0] else 0)
        y1 = top + after.y + (arrive if after is wire.slots[-1] else 0)
        tip = x1 - 5 if after is wire.slots[-1] else x1
        bend = (tip - x0) / 2
        points = [(x0, y0), (x0 + bend, y0), (tip - bend, y1), (tip, y1)]
        codes = [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4]
        if after.kind == "bend":
            points.append((left + after.x + after.width / 2, y1))
            codes.append(Curve.LINETO)
        axes.add_patch(
            PathPatch(
                Curve(points, codes), fc="none", ec=colour, lw=line, ls=style, alpha=alpha,
                clip_on=False,
            )
        )  # fmt: skip
    head = [(x1, y1), (x1 - 6.5, y1 - 3), (x1 - 6.5, y1 + 3)]
    axes.add_patch(Polygon(head, fc=colour, ec="none", alpha=alpha, clip_on=False))


def _port(layout: Layout, wire: Wire, end: int) -> float:
    """Return how far from a state's middle a wire meets it: wires are in their slots' order."""
    inner = -2 if end else 1
    box = wire.slots[end]
    fellows = [each for each in layout.wires if each.slots[end] is box]
    fellows.sort(key=lambda each: each.slots[inner].y)
    spacing = min(7.0, 0.7 * box.height / len(fellows))
    return (fellows.index(wire) - (len(fellows) - 1) / 2) * spacing
