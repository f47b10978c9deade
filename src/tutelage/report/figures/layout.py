"""A layered layout for cells: the places of boxes, labels and wires.

States are in even ranks, by the longest path from the inputs. A wire has one slot in every rank
that it crosses, and an operation's label is one of those slots, in an odd rank. So no two labels
overlap, and no label overlaps another wire. Within ranks, slots are ordered to have few crossings
(Sugiyama, Tagawa and Toda's barycentres) and then moved to straighten wires.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise

from tutelage.spaces.genotype import Cell

GAP = 9.0
"""Least distance between two slots of a rank, in points; three times that between states."""
CHANNEL = (30.0, 64.0)
"""Least and largest distance between two ranks, in points; wires bend between ranks."""

STRAIGHTNESS = (1, 2, 6)
"""Weight of a link, by how many of its ends are not states; it makes long wires straight."""


@dataclass(eq=False)
class Slot:
    """A place in a rank: a state, an operation's label, or a wire passing through."""

    text: str = ""
    """The text at this place; empty if a wire passes through."""
    kind: str = "bend"
    """One of state, label and bend."""
    width: float = 0.0
    height: float = 4.0
    x: float = 0.0
    """Centre, in points from the left."""
    y: float = 0.0
    """Centre, in points from the top."""


@dataclass(frozen=True)
class Wire:
    """A connection through the slots of all ranks from one state to a later one."""

    slots: tuple[Slot, ...]
    operation: str | None
    """The operation on it; None: it goes to the output."""


@dataclass
class Layout:
    """All data for the drawing of one cell."""

    ranks: list[list[Slot]]
    wires: list[Wire] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0


def short_name(operation: str) -> str:
    """Shorten an operation's name for a label.

    >>> [short_name(name) for name in ("sep_conv_3x3", "max_pool_3x3", "skip_connect")]
    ['sep 3×3', 'max 3×3', 'skip']
    """
    words = operation.replace("_conv_", " ").replace("_pool_", " ").replace("_connect", "")
    return re.sub(r"(\d)x(\d)", r"\1×\2", words.replace("_", " "))


def cell_name(group: str) -> str:
    """Name the cell of a group.

    >>> cell_name("normal"), cell_name("cell"), cell_name("chain")
    ('normal cell', 'cell', 'chain')
    """
    return group if group in ("cell", "chain") else f"{group} cell"


def arrange(cell: Cell) -> Layout:
    """Lay out a cell: inputs left, output right, every wire through its own slots."""
    layout = _ranked(cell)
    links = [pair for wire in layout.wires for pair in pairwise(wire.slots)]
    _order(layout.ranks, links, fixed=layout.ranks[0])
    _place(layout, links)
    return layout


def _ranked(cell: Cell) -> Layout:
    depths = [0] * cell.inputs
    for node in cell.nodes:
        depths.append(1 + max(depths[read] for _, read in node))
    depths.append(1 + max(depths))
    states = [
        Slot(cell.state_name(state), "state", 46 if state < cell.inputs else 30, 26)
        for state in range(cell.states)
    ]
    states.append(Slot("output", "state", 52, 34))
    columns = [2 * depth for depth in depths]
    columns[-1] -= 1  # there is no label before the output
    layout = Layout([[] for _ in range(columns[-1] + 1)])
    for state, column in zip(states, columns, strict=True):
        layout.ranks[column].append(state)

    edges = [
        (read, state, operation)
        for state, node in enumerate(cell.nodes, start=cell.inputs)
        for operation, read in node
    ]
    edges.sort(key=lambda edge: columns[edge[1]] - columns[edge[0]])
    for start, end, operation in edges + [(state, cell.states, None) for state in cell.concat]:
        between = range(columns[start] + 1, columns[end])
        slots = {rank: Slot() for rank in between}
        if operation is not None:
            quiet = min(between[::2], key=lambda rank: _labels(layout.ranks[rank]))
            text = short_name(operation)
            slots[quiet] = Slot(text, "label", 6.0 * len(text) + 12, 19)
        for rank, slot in slots.items():
            layout.ranks[rank].append(slot)
        layout.wires.append(Wire((states[start], *slots.values(), states[end]), operation))
    return layout


def _labels(rank: Sequence[Slot]) -> int:
    return sum(slot.kind == "label" for slot in rank)


def _order(ranks: list[list[Slot]], links: list[tuple[Slot, Slot]], fixed: list[Slot]) -> None:
    """Order every rank's slots in place so that few links cross; `fixed` stays as it is."""
    generator = random.Random(0)
    before: dict[Slot, list[Slot]] = {slot: [] for rank in ranks for slot in rank}
    after: dict[Slot, list[Slot]] = {slot: [] for rank in ranks for slot in rank}
    for left, right in links:
        before[right].append(left)
        after[left].append(right)
    best, least = [list(rank) for rank in ranks], _disorder(ranks, links)
    for _ in range(12):
        for rank in ranks:
            if rank is not fixed:
                generator.shuffle(rank)
        for sweep in range(8):
            neighbours = after if sweep % 2 else before
            for rank in reversed(ranks) if sweep % 2 else ranks:
                place = {slot: i for row in ranks for i, slot in enumerate(row)}
                if rank is not fixed:
                    rank.sort(key=lambda slot: _mean([place[each] for each in neighbours[slot]]))
            disorder = _disorder(ranks, links)
            if disorder < least:
                best, least = [list(rank) for rank in ranks], disorder
    ranks[:] = best


def _disorder(ranks: list[list[Slot]], links: list[tuple[Slot, Slot]]) -> tuple[int, int, int]:
    """Count crossings of links, crossings at a label, and states above an earlier one."""
    column = {slot: i for i, rank in enumerate(ranks) for slot in rank}
    place = {slot: i for rank in ranks for i, slot in enumerate(rank)}
    by_rank: dict[int, list[tuple[Slot, Slot]]] = {}
    for link in links:
        by_rank.setdefault(column[link[0]], []).append(link)
    crossing = [
        (a[0], b[0])
        for group in by_rank.values()
        for a, b in combinations(group, 2)
        if (place[a[0]] - place[b[0]]) * (place[a[1]] - place[b[1]]) < 0
    ]
    names = [[slot.text for slot in rank if slot.kind == "state"] for rank in ranks[1:]]
    return (
        len(crossing),
        sum("label" in (a.kind, b.kind) for a, b in crossing),
        sum(a > b for rank in names for a, b in combinations(rank, 2)),
    )


def _place(layout: Layout, links: list[tuple[Slot, Slot]]) -> None:
    """Set the centre of every slot: wires as straight as the gaps allow."""
    neighbours: dict[Slot, list[Slot]] = {slot: [] for rank in layout.ranks for slot in rank}
    for left, right in links:
        pull = STRAIGHTNESS[(left.kind != "state") + (right.kind != "state")]
        neighbours[left] += [right] * pull
        neighbours[right] += [left] * pull
    for sweep in range(60):
        for rank in layout.ranks if sweep % 2 else reversed(layout.ranks):
            _settle(rank, [_mean([each.y for each in neighbours[slot]]) for slot in rank])
    slots = [slot for rank in layout.ranks for slot in rank]
    top = min(slot.y - slot.height / 2 for slot in slots)
    for slot in slots:
        slot.y -= top
    layout.height = max(slot.y + slot.height / 2 for slot in slots)

    edge = 0.0
    for rank in layout.ranks:
        width = max(slot.width for slot in rank)
        climb = max((abs(a.y - b.y) for a, b in links if b in rank), default=0)
        if rank is not layout.ranks[0]:
            edge += min(max(CHANNEL[0], 0.5 * climb), CHANNEL[1])
        for slot in rank:
            slot.x, slot.width = edge + width / 2, slot.width or width
        edge += width
    layout.width = edge


def _settle(rank: Sequence[Slot], wanted: Sequence[float]) -> None:
    """Move a rank's slots as near to the wanted places as order and gaps allow.

    This is least squares with a fixed order, by pooling adjacent violators.
    """
    offsets = [0.0]
    for above, below in pairwise(rank):
        gap = 3 * GAP if above.kind == below.kind == "state" else GAP
        offsets.append(offsets[-1] + (above.height + below.height) / 2 + gap)
    blocks: list[list[float]] = []
    for value, offset in zip(wanted, offsets, strict=True):
        blocks.append([value - offset])
        while len(blocks) > 1 and _mean(blocks[-2]) > _mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    settled = [_mean(block) for block in blocks for _ in block]
    for slot, value, offset in zip(rank, settled, offsets, strict=True):
        slot.y = value + offset


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
