"""P-DARTS: its phases, the dropout of skips and the limit to them."""

from __future__ import annotations

import math

import pytest
import torch

from tutelage.clock import Clock
from tutelage.run.supernet.setup import stretches
from tutelage.searches.base import softmax
from tutelage.searches.darts import Darts
from tutelage.searches.needs import fit, size_of
from tutelage.searches.pdarts import PDarts, limit, skips
from tutelage.spaces.base import ArchWeights
from tutelage.spaces.cells import DARTS, S1, S4, CellSpace, everywhere
from tutelage.spaces.genotype import Cell
from tutelage.spaces.nb201 import NASBENCH201

LAST = DARTS.narrowed(dict.fromkeys(("normal", "reduce"), [[0, 3, 4]] * 14))
"""A space as the last phase may find it: none, a skip and a 3x3 convolution on every edge."""

NORMAL = """
    .50 .10 | .10 .60
    .40 .20 | .05 .30 | .35 .15
    .45 .05 | .30 .10 | .05 .25 | .05 .04
    .60 .05 | .05 .55 | .05 .15 | .20 .10 | .05 .02
"""
"""Weights of the skip and the convolution on every edge, a line a node; the rest is none's."""


def alphas(text: str) -> dict[str, torch.Tensor]:
    """Make alphas whose softmax has these weights in both cells."""
    pairs = [[float(x) for x in pair.split()] for pair in text.replace("\n", "|").split("|")]
    rows = [[1 - sum(pair), *pair] for pair in pairs if pair]
    table = torch.tensor(rows, dtype=torch.float64).log()
    return {"normal": table, "reduce": table.clone()}


def nodes(cell: Cell) -> str:
    """Write a cell as 'conv 1, skip 0 · ...'."""
    short = {"skip_connect": "skip", "sep_conv_3x3": "conv"}
    return " · ".join(", ".join(f"{short[name]} {x}" for name, x in node) for node in cell.nodes)


# Reading off ------------------------------------------------------------------------------------


def test_without_a_limit_it_is_darts_rule_and_none_is_never_kept():
    given = alphas(NORMAL)
    found = PDarts(max_skips=8).derive(LAST, given)
    expected = "conv 1, skip 0 · skip 0, skip 2 · skip 0, skip 1 · skip 0, conv 1"
    assert nodes(found.cells["normal"]) == nodes(found.cells["reduce"]) == expected
    assert found == Darts().derive(LAST, given)


def test_the_weakest_skips_give_way_one_after_another():
    # edges 6 (.30), 4 (.35), 2 (.40) and 5 (.45) lose their skips; 7 and 3 come in, conv on both
    found = PDarts(max_skips=2).derive(LAST, alphas(NORMAL))
    expected = "conv 1, skip 0 · conv 1, conv 0 · conv 2, conv 1 · skip 0, conv 1"
    assert nodes(found.cells["normal"]) == expected


def test_a_limit_of_one_more_stops_one_sooner():
    found = PDarts(max_skips=3).derive(LAST, alphas(NORMAL))
    expected = "conv 1, skip 0 · conv 1, conv 0 · skip 0, conv 2 · skip 0, conv 1"
    assert nodes(found.cells["normal"]) == expected


def test_a_skip_that_comes_in_for_another_gives_way_too():
    # at the last node 12's skip (.20) takes 9's place, and then 11's convolution (.15) takes its
    found = PDarts(max_skips=0).derive(LAST, alphas(NORMAL))
    expected = "conv 1, conv 0 · conv 1, conv 0 · conv 2, conv 1 · conv 1, conv 2"
    assert nodes(found.cells["normal"]) == expected


def test_the_reduction_cell_keeps_its_skips():
    found = PDarts(max_skips=0).derive(LAST, alphas(NORMAL))
    expected = "conv 1, skip 0 · skip 0, skip 2 · skip 0, skip 1 · skip 0, conv 1"
    assert nodes(found.cells["reduce"]) == expected


def test_of_equal_skips_that_on_the_lower_edge_gives_way():
    found = PDarts(max_skips=2).derive(LAST, alphas("|".join([".4 .3"] * 14)))
    expected = "conv 0, conv 1 · conv 0, conv 1 · conv 0, conv 1 · skip 0, skip 1"
    assert nodes(found.cells["normal"]) == expected


def test_a_skip_gives_way_to_operations_whose_weights_are_zero():
    certain = torch.tensor([0.0, 500.0, 0.0]).expand(14, 3)  # a softmax of exactly 0, 1, 0
    found = PDarts(max_skips=0).derive(LAST, {"normal": certain, "reduce": certain})
    assert nodes(found.cells["normal"]) == " · ".join(["conv 0, conv 1"] * 4)


def test_edges_with_nothing_but_a_skip_keep_it():
    space = CellSpace("mine", everywhere("none", "skip_connect"))
    weights = {group: torch.full((14, 2), 0.5) for group in space.operations}
    found = limit(space, weights, 0)
    assert nodes(found.cells["normal"]) == " · ".join(["skip 0, skip 1"] * 4)


@pytest.mark.parametrize("most", range(9))
def test_the_strongest_skips_stay(most):
    # another way there: all but the strongest go at once, as often as it takes
    for seed in range(10):
        torch.manual_seed(seed)
        given = {g: torch.randn(14, 8, dtype=torch.float64) for g in DARTS.operations}
        given["normal"][:, 3] += 1.5
        weights = softmax(given)
        found = limit(DARTS, weights, most)
        while True:
            cell = DARTS.genotype(ArchWeights(weights)).cells["normal"]
            ranked = sorted(skips(DARTS, cell), key=lambda place: weights["normal"][place])
            if len(ranked) <= most:
                break
            for place in ranked[: len(ranked) - most]:
                weights["normal"][place] = 0.0
        assert found.cells["normal"] == cell
        assert sum(name == "skip_connect" for node in cell.nodes for name, _ in node) <= most


def test_reading_off_leaves_the_alphas_alone():
    given = alphas(NORMAL)
    PDarts(max_skips=0).derive(LAST, given)
    assert torch.equal(given["normal"], given["reduce"])


# Phases -----------------------------------------------------------------------------------------


def test_phases_deepen_and_narrow():
    phases = PDarts().needs(DARTS).phases
    assert [size_of(PDarts(), DARTS)[1] + phase.cells for phase in phases] == [5, 11, 17]
    assert [phase.operations for phase in phases] == [None, 5, 3]
    assert not any(phase.carries for phase in phases)
    thaws = [stretch.thaw - stretch.start for stretch in stretches(phases, 75)]
    assert thaws == [10, 10, 10]


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (0, 0.4 * 24 / 25),
        (9, 0.4 * 15 / 25),
        (10, 0.4),
        (15, 0.4 * math.exp(-1)),
        (24, 0.4 * math.exp(-2.8)),
        (25, 0.4 * math.exp(-2.8)),  # the validation after the last epoch
    ],
)
def test_skips_are_dropped_less_and_less(epoch, expected):
    search = PDarts(skip_dropout=(0.1, 0.4, 0.7))
    given = {"normal": torch.randn(14, 8)}
    arch = search.relax(given, Clock(phase=1, epoch=epoch, epochs=25))
    assert arch.skip_dropout == pytest.approx(expected, rel=1e-12)
    assert torch.equal(arch.operations["normal"], given["normal"].softmax(-1))


def test_every_phase_has_its_rate():
    search = PDarts(skip_dropout=(0.1, 0.4, 0.7))
    rates = [search.dropout(Clock(phase=phase, epoch=10, epochs=25)) for phase in range(3)]
    assert rates == pytest.approx([0.1, 0.4, 0.7])
    assert PDarts().dropout(Clock(phase=2, epoch=10, epochs=25)) == 0
    frozen = PDarts(frozen=1.0, skip_dropout=(0.1, 0.4, 0.7))
    assert frozen.dropout(Clock(phase=2, epoch=25, epochs=25)) == 0


# Refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        (
            NASBENCH201,
            "space 'nasbench201' has .* normal and reduction cells.*: use the space darts",
        ),
        (S1, "space 's1' has edges of 2 operations, .*: use the space darts"),
        (S4, "space 's4' has edges of 2 operations"),
        (
            DARTS.narrowed(dict.fromkeys(("normal", "reduce"), [range(5)] * 14)),
            "edges of 5 operations, and at least 6 are needed: .* narrows",
        ),
    ],
)
def test_spaces_that_cannot_deepen_or_narrow_are_refused(space, reason):
    with pytest.raises(ValueError, match=reason):
        fit(PDarts(), space)


def test_spaces_with_operations_to_spare_fit():
    six = DARTS.narrowed(dict.fromkeys(("normal", "reduce"), [range(6)] * 14))
    assert fit(PDarts(), six) is six
    assert fit(PDarts(), DARTS) is DARTS


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"frozen": 1.5}, "frozen = 1.5"),
        ({"skip_dropout": (0.1, 0.4)}, r"skip_dropout = \(0.1, 0.4\): must be three rates"),
        ({"skip_dropout": (0.1, 1.4, 0.7)}, "skip_dropout = 1.4"),
        ({"max_skips": -1}, "max_skips = -1"),
        ({"init": math.nan}, "init = nan"),
    ],
)
def test_impossible_settings_are_refused(settings, reason):
    with pytest.raises(ValueError, match=reason):
        PDarts(**settings)
