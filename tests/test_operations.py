"""How many operations a search step dispatches: a guard where a time would be noise."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

COUNTING = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "operations.py"))
STEPS = {step.what: step.settings for step in COUNTING["STEPS"]}
BUDGETS = {
    "what `make demo` runs": 8_100,
    "NAS-Bench-201, N = 5, first order": 2_500,
    "DARTS, 16 channels, 8 cells, first order": 8_000,
    "PC-DARTS, 16 channels, 8 cells, first order": 8_700,
    "SGL, two learners, 4 channels, 3 cells, exact": 39_500,
    "the same, finite difference": 46_500,
    "the same, first order": 17_200,
}


def counted(what: str) -> int:
    return COUNTING["count"](STEPS[what]).total()


def test_every_step_of_the_benchmark_has_a_budget():
    assert set(BUDGETS) == set(STEPS)


def test_the_demos_step_keeps_its_budget():
    what = "what `make demo` runs"
    assert 0.8 * BUDGETS[what] < counted(what) <= BUDGETS[what]


@pytest.mark.slow
@pytest.mark.parametrize("what", list(BUDGETS))
def test_a_step_keeps_its_budget(what):
    assert 0.8 * BUDGETS[what] < counted(what) <= BUDGETS[what]
