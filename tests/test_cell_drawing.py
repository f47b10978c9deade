"""Drawings of cells: no label is covered, wires join what the cell joins, text stays text."""

import re
from itertools import combinations, product

import pytest

from test_genotype import EVERY
from tutelage.report.figures.draw import cell_figure, draw, save_drawing
from tutelage.report.figures.layout import arrange
from tutelage.spaces.published import PUBLISHED


def box(slot):
    return (
        slot.x - slot.width / 2, slot.x + slot.width / 2,
        slot.y - slot.height / 2, slot.y + slot.height / 2,
    )  # fmt: skip


def curve_points(wire):
    """Points on a wire as `draw` bends it, port offsets left out: they only move the far ends."""
    for before, after in zip(wire.slots, wire.slots[1:], strict=False):
        x0, x1 = before.x + before.width / 2, after.x - after.width / 2
        for t in (each / 20 for each in range(21)):
            y = before.y + (after.y - before.y) * t * t * (3 - 2 * t)
            middle = (x0 + x1) / 2
            x = x0 * (1 - t) ** 3 + 3 * middle * t * (1 - t) + x1 * t**3
            yield x, y
        yield after.x, after.y


@pytest.mark.parametrize("cell", [cell for genotype in EVERY for cell in genotype.cells.values()])
def test_no_label_is_covered(cell):
    layout = arrange(cell)
    drawn = [slot for rank in layout.ranks for slot in rank if slot.kind != "bend"]
    labels = [slot for slot in drawn if slot.kind == "label"]
    assert len(labels) == sum(len(node) for node in cell.nodes)
    for a, b in combinations(drawn, 2):
        left, right, top, bottom = box(a)
        left_b, right_b, top_b, bottom_b = box(b)
        assert right <= left_b or right_b <= left or bottom <= top_b or bottom_b <= top
    for wire, slot in product(layout.wires, drawn):
        if slot not in wire.slots:
            left, right, top, bottom = box(slot)
            assert not any(left < x < right and top < y < bottom for x, y in curve_points(wire)), (
                wire.operation,
                slot.text,
            )


def test_wires_run_from_left_to_right_and_join_what_the_cell_joins():
    cell = PUBLISHED["DARTS_V2"].cells["normal"]
    layout = arrange(cell)
    joined = [(wire.slots[0].text, wire.operation, wire.slots[-1].text) for wire in layout.wires]
    wanted = [
        (cell.state_name(read), operation, str(state))
        for state, node in enumerate(cell.nodes, start=2)
        for operation, read in node
    ] + [(str(state), None, "output") for state in cell.concat]
    assert sorted(joined, key=str) == sorted(wanted, key=str)
    for wire in layout.wires:
        places = [slot.x for slot in wire.slots]
        assert places == sorted(places)


@pytest.mark.parametrize("genotype", [each for each in EVERY if not each.stages])
def test_svg_keeps_text_as_text(genotype):
    svg = draw(genotype)
    assert svg.startswith("<svg") and svg.rstrip().endswith("</svg>")
    count = sum(len(node) for cell in genotype.cells.values() for node in cell.nodes)
    labels = re.findall(r">(sep|dil|max|avg|skip|nor|none)\b", svg)
    assert len(labels) == count
    assert svg.count(">output<") == len(genotype.cells)
    assert draw(genotype) == svg


def test_drawings_go_to_files_by_their_ending(tmp_path):
    genotype = PUBLISHED["PDARTS"]
    save_drawing(genotype, tmp_path / "cell.svg", "normal")
    assert "normal cell" in (tmp_path / "cell.svg").read_text()
    assert "reduce cell" not in (tmp_path / "cell.svg").read_text()
    save_drawing(genotype, tmp_path / "cells.png")
    assert (tmp_path / "cells.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"\.svg or \.png"):
        save_drawing(genotype, tmp_path / "cells.pdf")
    with pytest.raises(ValueError, match="did you mean normal"):
        draw(genotype, "nromal")
    assert len(cell_figure(genotype, ["normal", "reduce"]).axes) == 1
