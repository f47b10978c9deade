"""The benchmark of bf16 gradients measures the gradients of the search itself, and changes none."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from tutelage.trees import leaves

MEASURING = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "precision.py"))
SIZE = "--channels 2 --cells 3 --epochs 1 --limit-batches 2 --batch-size 4 --every 1"


def searching(via="exact", precision="fp32"):
    arguments = MEASURING["parser"]().parse_args(SIZE.split())
    return MEASURING["searching"](MEASURING["settings_of"]("single", via, arguments, precision))


def flat(tree):
    return torch.cat([leaf.flatten() for leaf in leaves(tree)])


@pytest.mark.parametrize("via", ["exact", "first-order"])
def test_the_measured_gradient_is_the_searchs_own(via, monkeypatch):
    work, other = searching(via), searching(via)
    work.advance()
    moved = []
    monkeypatch.setattr(type(work.phase), "move", lambda self, name, g, clip: moved.append(g))
    found = MEASURING["gradient"](other, work, work.step)  # another search's losses, in fp32 too
    work.advance()
    assert torch.equal(found, flat(moved[0]).double())


def test_measuring_leaves_the_search_as_it_is():
    work, alone = searching("first-order"), searching("first-order")
    points = list(MEASURING["measured"](work, searching("first-order", "bf16"), 1))
    for _ in range(2):
        alone.advance()
    assert torch.equal(flat(work.phase.variables), flat(alone.phase.variables))
    assert [point.epoch for point in points] == [0, 0]
    assert all(0.5 < point.bf16 < 1 for point in points)
    assert all(-1 <= point.batch < 1 for point in points)


def test_rows_are_per_epoch_and_over_all():
    arguments = MEASURING["parser"]().parse_args(SIZE.split())
    rows = list(MEASURING["rows"]("single", "first-order", arguments))
    assert [row["epoch"] for row in rows] == [1, "all"]
    assert rows[0]["bf16_lowest"] <= rows[0]["bf16_median"]
    assert MEASURING["table"](rows).count("\n") == 3
