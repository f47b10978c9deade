"""Draw a chain: one row for each stage, one box for each layer; wider lines mean more channels.

A box has the colour of its kernel, and its height grows with the expansion. An identity is only the
line if sizes agree; otherwise it is a 1x1 convolution.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from tutelage.report.figures.theme import LIGHT, canvas
from tutelage.spaces.genotype import Genotype

COLOURS = {3: LIGHT["blue"], 5: LIGHT["vermilion"], 7: LIGHT["purple"]}
"""Kernel to colour."""

MBCONV = re.compile(r"mbconv(\d+)_(\d+)x\2")
OTHER = re.compile(r"(shuffle|basic|bottleneck)_(\d+)x\2")

MARGIN, TITLE = 10.0, 22.0
"""Space around a chain, and above it for its name, in points."""

LABELS, STEP, ROW, BOX = 104.0, 66.0, 47.0, 54.0
"""Space for the names of rows, distance of layers, distance of rows, and width of a box, in
points."""

ABREAST = 8
"""Layers in a row; a longer stage has several rows."""

WIRE = (1.0, 4.0)
"""Widths of the line between layers, at no channels and at the most of the chain, in points."""


@dataclass(frozen=True)
class Block:
    """The drawing of a layer."""

    kind: str
    """Its family, in small letters above."""
    shape: str = ""
    """Its kernel, in large letters below."""
    colour: str = LIGHT["muted"]
    height: float = 30.0


@dataclass(frozen=True)
class Row:
    """Layers side by side; None is an identity, drawn as a line only."""

    name: str
    note: str
    blocks: tuple[Block | None, ...]
    channels: int | None = None


def block_of(name: str, *, alike: bool = True) -> Block | None:
    """Return how a block is drawn.

    Args:
        name: The block's name.
        alike: Whether input and output have one size.

    >>> block_of("mbconv6_5x5").kind, block_of("mbconv6_5x5").shape, block_of("identity")
    ('MBConv 6', '5×5', None)
    """
    if name == "identity":
        return None if alike else Block("projection", "1×1", height=24.0)
    if match := MBCONV.fullmatch(name):
        expansion, kernel = map(int, match.groups())
        height = 23 + 2.0 * min(expansion, 8)
        return Block(f"MBConv {expansion}", _square(kernel), _colour(kernel), height)
    if match := OTHER.fullmatch(name):
        kernel = int(match[2])
        return Block(match[1], _square(kernel), _colour(kernel))
    if name == "shuffle_xception":
        return Block("xception", "3×3 thrice", LIGHT["green"])
    return Block(name.replace("_", " "), colour=LIGHT["slate"])


def rows_of(genotype: Genotype) -> Iterator[Row]:
    """Yield the layers before the searched ones, the stages, and the layers after them."""
    layout, before = genotype.layout, None
    if stem := layout.get("stem_channels"):
        first = layout.get("first")
        fixed = [Block("convolution", "3×3", LIGHT["slate"])]
        if first:
            fixed.append(Block("MBConv 1", "3×3", LIGHT["slate"], height=25.0))
        widths = f"{stem}, then {first} channels" if first else f"{stem} channels"
        before = first or stem
        yield Row("stem", widths, tuple(fixed), before)
    for place, stage in enumerate(genotype.stages):
        same = stage.stride == 1 and before in (None, stage.channels)
        blocks = [
            block_of(name, alike=same or layer > 0) for layer, name in enumerate(stage.blocks)
        ]
        for start in range(0, len(blocks), ABREAST):
            name = "layers" if len(genotype.stages) == 1 else f"stage {place + 1}"
            named = ("", "") if start else (name, stage.note)
            yield Row(*named, tuple(blocks[start : start + ABREAST]), stage.channels)
        before = stage.channels
    if last := layout.get("last"):
        head = Block("convolution", "1×1", LIGHT["slate"])
        yield Row("head", f"{last} channels", (head,), last)


def chain_figure(genotype: Genotype) -> Figure:
    """Draw a chain, row by row."""
    rows = list(rows_of(genotype))
    longest = max(len(row.blocks) for row in rows)
    most = max(chain([1], (row.channels or 0 for row in rows)))
    width = LABELS + STEP * longest + 2 * MARGIN
    figure, axes = canvas(width, TITLE + ROW * len(rows) + 2 * MARGIN)
    axes.text(MARGIN, MARGIN, "chain", va="top", weight="bold", size=10)
    for place, row in enumerate(rows):
        thick = WIRE[0] + (WIRE[1] - WIRE[0]) * ((row.channels or 0) / most) ** 0.5
        _draw_row(axes, row, MARGIN + TITLE + ROW * (place + 0.5), thick)
    return figure


def _draw_row(axes: Axes, row: Row, y: float, thick: float) -> None:
    """Draw a row, with its middle at `y`."""
    axes.text(MARGIN, y - 5.5, row.name, va="center", size=9)
    axes.text(MARGIN, y + 6.5, row.note, va="center", size=7, color=LIGHT["muted"])
    left = MARGIN + LABELS
    right = left + STEP * len(row.blocks)
    gaps = [left]
    for place, block in enumerate(row.blocks):
        if block:
            x = left + place * STEP + (STEP - BOX) / 2
            gaps += [x, x + BOX]
            _draw_box(axes, block, x, y)
        else:
            x = left + (place + 0.5) * STEP
            axes.text(x, y - 6, "identity", ha="center", size=7, color=LIGHT["muted"])
    gaps.append(right)
    for start, end in zip(gaps[::2], gaps[1::2], strict=True):
        axes.plot(
            [start, end], [y, y], color=LIGHT["slate"], linewidth=thick, alpha=0.6,
            solid_capstyle="butt", clip_on=False,
        )  # fmt: skip


def _draw_box(axes: Axes, block: Block, x: float, y: float) -> None:
    """Draw a layer's box, with its middle at `y` and its left edge at `x`."""
    for fill, edge, alpha in ((block.colour, "none", 0.12), ("none", block.colour, 1.0)):
        axes.add_patch(
            FancyBboxPatch(
                (x, y - block.height / 2), BOX, block.height, fc=fill, ec=edge, alpha=alpha, lw=1.2,
                boxstyle="round,pad=0,rounding_size=5", clip_on=False,
            )
        )  # fmt: skip
    middle = x + BOX / 2
    if not block.shape:
        axes.text(middle, y, block.kind, ha="center", va="center", size=7)
        return
    axes.text(middle, y - 5.5, block.kind, ha="center", va="center", size=7, color=LIGHT["muted"])
    axes.text(middle, y + 5, block.shape, ha="center", va="center", size=9)


def _square(kernel: int) -> str:
    return f"{kernel}×{kernel}"


def _colour(kernel: int) -> str:
    return COLOURS.get(kernel, LIGHT["amber"])
