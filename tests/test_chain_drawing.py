"""Chains as they are drawn and printed: stages, blocks, identities, layouts that do not fit."""

import random
import re
from itertools import pairwise

import pytest

from tutelage.parts import PARTS, make_part
from tutelage.report.figures.chain import ABREAST, block_of, chain_figure, rows_of
from tutelage.report.figures.draw import cell_figure, draw, save_drawing
from tutelage.report.figures.theme import styled
from tutelage.spaces.genotype import Cell, Genotype
from tutelage.spaces.published import resolve
from tutelage.spaces.stages import stages_of

CHAINS = ("ennas-s1", "ennas-s2", "ennas-s3", "shuffle", "nasbench-macro")
LAYOUT = {
    "widths": [64, 128],
    "depths": [1, 2],
    "strides": [2, 1],
    "stem_channels": 32,
    "last": 1280,
}


def at_random(name, seed=0):
    space, generator = make_part("space", {"name": name}), random.Random(seed)
    names = [generator.choice(edge) for edge in space.operations["chain"]]
    return Genotype.of_chain(name, names, space.layout)


@pytest.mark.parametrize("name", CHAINS)
def test_every_layer_is_drawn_in_its_stage(name):
    assert name in PARTS["space"]
    found = at_random(name)
    rows = [row for row in rows_of(found) if row.name.startswith("stage")]
    assert [len(row.blocks) for row in rows] == list(found.layout["depths"])
    assert [row.channels for row in rows] == list(found.layout["widths"])
    drawn = [block for row in rows for block in row.blocks]
    assert len(drawn) == len(found.names)
    for block, operation in zip(drawn, found.names, strict=True):
        assert (block is None) <= (operation == "identity")
        if block and operation.startswith("mbconv"):
            expansion, kernel = re.findall(r"\d+", operation)[:2]
            assert (block.kind, block.shape) == (f"MBConv {expansion}", f"{kernel}×{kernel}")


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("seed", range(3))
def test_nothing_overlaps_or_leaves_the_picture(name, seed):
    found = at_random(name, seed)
    with styled():
        figure = chain_figure(found)
        renderer = figure.canvas.get_renderer()
        (axes,) = figure.axes
        boxes = [patch.get_window_extent(renderer) for patch in axes.patches[::2]]
        texts = [text.get_window_extent(renderer) for text in axes.texts]
    for box in [*boxes, *texts]:
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    for group in (boxes, texts):
        for place, one in enumerate(group):
            assert not [other for other in group[place + 1 :] if one.overlaps(other)]
    for text in texts:
        around = [box for box in boxes if box.overlaps(text)]
        assert all(box.x0 < text.x0 and text.x1 < box.x1 for box in around)


def test_an_identity_is_a_line_where_sizes_agree_and_else_a_projection():
    found = Genotype.of_chain("nasbench-macro", ["identity"] * 3, LAYOUT)
    stem, first, second, head = rows_of(found)
    assert (stem.name, head.name) == ("stem", "head")
    assert [block.kind for block in first.blocks] == ["projection"]  # stride 2
    assert [block and block.kind for block in second.blocks] == ["projection", None]  # 64 to 128
    same = LAYOUT | {"widths": [32, 32], "strides": [1, 1]}
    rows = rows_of(Genotype.of_chain("nasbench-macro", ["identity"] * 3, same))
    assert [row.blocks for row in rows if "stage" in row.name] == [(None,), (None, None)]
    assert draw(found).count(">identity<") == 1


def test_wider_maps_have_wider_lines():
    figure = cell_figure(at_random("shuffle"), ["chain"])
    widths = [line.get_linewidth() for line in figure.axes[0].lines]
    levels = list(dict.fromkeys(widths))
    assert len(levels) == 6  # 16, 64, 160, 320, 640, 1024 channels
    assert all(thin < thick for thin, thick in pairwise(levels))


def test_a_long_stage_goes_on_in_another_row():
    names = ["mbconv3_3x3"] * (2 * ABREAST + 1)
    found = Genotype.of_chain("x", names, {"widths": [8], "depths": [17], "strides": [1]})
    rows = list(rows_of(found))
    assert [len(row.blocks) for row in rows] == [ABREAST, ABREAST, 1]
    assert [row.name for row in rows] == ["layers", "", ""]


def test_without_a_layout_there_are_layers(tmp_path):
    found = resolve("02012100")
    (row,) = rows_of(found)
    assert row.name == "layers" and row.note == "" and row.blocks.count(None) == 4
    assert found.as_text() == ("chain\n  - mbconv6_5x5 - mbconv3_3x3 mbconv6_5x5 mbconv3_3x3 - -")
    assert found.to_macro() == "02012100"
    for name in ("chain.png", "chain.svg"):
        save_drawing(found, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000


def test_other_blocks_are_drawn_by_their_names():
    assert block_of("shuffle_7x7").shape == "7×7"
    assert block_of("shuffle_xception").kind == "xception"
    assert block_of("some_block").kind == "some block"
    heights = [block_of(f"mbconv{expansion}_3x3").height for expansion in (1, 3, 4, 6)]
    assert heights == sorted(set(heights))
    colours = {block_of(f"mbconv3_{k}x{k}").colour for k in (3, 5, 7, 9)}
    assert len(colours) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"depths": [1, 1]},
        {"depths": [1, 2, 0]},
        {"widths": [64]},
        {"widths": None},
        {"strides": 2},
        {"strides": [1, "2"]},
        {"depths": [3, 0]},
    ],
)
def test_layouts_of_other_chains_are_refused(change):
    with pytest.raises(ValueError, match="a chain of 3 layers whose layout has widths") as caught:
        Genotype.of_chain("nasbench-macro", ["identity"] * 3, LAYOUT | change)
    assert "\n" not in str(caught.value)


def test_what_is_no_chain_has_no_stages():
    assert resolve("DARTS_V2").stages == []
    assert Genotype("x", {"cell": Cell(((("a", 0),),), (1,), 1)}).stages == []
    with pytest.raises(ValueError, match="the space 'darts'"):
        resolve("DARTS_V2").to_macro()
    assert [stage.blocks for stage in stages_of("ab", {"stem_channels": 3})] == [("a", "b")]
