"""What a step exchanges, counted: one exchange a level and reduction, and nothing twice."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from launched import together

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from collectives import NAMES, RULES, counted, toy

STEPS = {
    # method, rule: exchanges of gradients, of v, of the alphas' gradient, and of outputs
    ("single", "first-order"): (1, 0, 1, 2),
    ("single", "exact"): (2, 1, 1, 4),  # alphas first: a virtual step, then a real one
    ("single", "finite-difference"): (2, 1, 1, 5),
    ("sgl", "first-order"): (2, 0, 1, 10),  # levels first: a virtual step is the real one
    ("sgl", "exact"): (2, 2, 1, 16),
    ("sgl", "finite-difference"): (2, 2, 1, 26),
}
EXCHANGED = ("gradient", "v", "alphas", "outputs")


@pytest.mark.parametrize(("method", "via"), STEPS)
def test_a_level_exchanges_its_gradient_once(method, via):
    found = counted(toy(method, "darts", via), ranks=2)
    assert tuple(found.calls[name] for name in EXCHANGED) == STEPS[method, via]
    learners = 2 if method == "sgl" else 1
    size = found.bytes["gradient"] / found.calls["gradient"]
    assert size == 4 * 6288 * learners  # every weight once, for all learners together
    assert found.bytes["v"] == found.calls["v"] * size


def test_statistics_of_a_rank_are_not_exchanged():
    settings = toy("sgl", "darts", "exact")
    batch, rank = (counted(settings, ranks=2, together=each) for each in (True, False))
    assert {name: rank.calls[name] for name in EXCHANGED} == {
        name: batch.calls[name] for name in EXCHANGED
    }
    assert batch.calls["forward"] == 150
    assert batch.calls["backward"] == 318
    assert rank.calls["forward"] == rank.calls["backward"] == 0


@pytest.mark.parametrize("via", RULES)
def test_processes_exchange_what_is_counted_without_them(via):
    settings = toy("single", "darts", via)
    alone = counted(settings, ranks=2)
    for found in together(2, counted, settings):
        for name in NAMES:
            assert found.calls[name] == alone.calls[name]
            assert found.bytes[name] == alone.bytes[name]


def test_bytes_do_not_grow_with_the_images_but_for_outputs():
    few, many = (
        counted(toy("single", "darts", "exact") | {"batch_size": images}, ranks=2)
        for images in (2, 6)
    )
    assert many.calls == few.calls
    assert many.bytes["outputs"] == 3 * few.bytes["outputs"]
    assert {name: many.bytes[name] for name in NAMES if name != "outputs"} == {
        name: few.bytes[name] for name in NAMES if name != "outputs"
    }
