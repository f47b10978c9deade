"""DARTS-: the skip that fades, and DARTS where there is none."""

from __future__ import annotations

import pytest
import torch

from test_search import run_toml, same_runs
from tutelage.clock import Clock
from tutelage.run.search import search_run
from tutelage.searches.darts import Darts
from tutelage.searches.darts_minus import DartsMinus
from tutelage.searches.needs import fit
from tutelage.spaces.base import Size
from tutelage.spaces.cells import DARTS, S2
from tutelage.spaces.nb201 import NASBENCH201


def beta(epoch, epochs=50, **settings):
    alphas = DartsMinus().alphas(DARTS)
    return DartsMinus(**settings).relax(alphas, Clock(epoch=epoch, epochs=epochs)).auxiliary


def test_the_skip_fades_linearly():
    assert beta(0) == 1.0
    assert beta(10) == pytest.approx(0.8, rel=1e-12)
    assert beta(49) == pytest.approx(1 / 50, rel=1e-12)
    assert beta(49, factor=3.0) == pytest.approx(3 / 50, rel=1e-12)
    assert beta(1, epochs=2) == 0.5
    assert beta(7, factor=0.0) == 0.0


@pytest.mark.parametrize(
    ("space", "via"),
    [("nasbench201", "first-order"), pytest.param("darts", "exact", marks=pytest.mark.slow)],
)
def test_with_factor_0_it_is_darts_to_the_bit(space, via, tmp_path):
    settings = {
        "space": {"name": space},
        "via": via,
        "epochs": 1,
        "limit_batches": 3,
        "log_every": 1,
    }
    searches = {
        "darts": {"name": "darts"},
        "minus": {"name": "darts-minus", "factor": 0.0},
        "other": {"name": "darts-minus"},
    }
    for name, search in searches.items():
        search_run(run_toml(search=search, **settings), tmp_path / name)
    same_runs(tmp_path / "darts", tmp_path / "minus")
    # and with a skip it is another search
    rows = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("darts", "other")]
    assert rows[0] != rows[1]


@pytest.mark.parametrize("space", [DARTS, S2, NASBENCH201], ids=lambda space: space.name)
def test_it_asks_for_the_skip_only_where_it_has_weight(space):
    assert fit(DartsMinus(), space) == space.varied(auxiliary_skip=True)
    assert fit(DartsMinus(factor=0.0), space) == space


@pytest.mark.parametrize("space", [DARTS, S2, NASBENCH201], ids=lambda space: space.name)
def test_the_skip_is_not_derived(space):
    search = DartsMinus(factor=100.0)
    fitted = fit(search, space)
    for seed in range(20):
        torch.manual_seed(seed)
        alphas = {group: torch.randn(shape) for group, shape in space.choices.items()}
        assert search.derive(fitted, alphas) == Darts().derive(space, alphas)
    assert search.expected(alphas).auxiliary == 0.0


def test_the_skip_stands_outside_of_the_softmax():
    alphas = {group: torch.randn(shape) for group, shape in DARTS.choices.items()}
    arch = DartsMinus().relax(alphas, Clock(epoch=3, epochs=50))
    for group, weights in arch.operations.items():
        assert torch.equal(weights, alphas[group].softmax(-1))
    assert arch.edges is None and arch.chosen is None


def test_an_edge_without_operations_has_its_skip_still():
    """With no operation at all a cell of NAS-Bench-201 is its skips: x, then (b + b^2) x, ..."""
    space = fit(DartsMinus(), NASBENCH201)
    net = space.supernet(Size(channels=4, cells=1)).double()
    seen = {}
    net.skeleton.cells[0].register_forward_hook(lambda _, args, y: seen.update(x=args[0], y=y))
    alphas = {"cell": torch.zeros(6, 5, dtype=torch.float64)}
    arch = DartsMinus().relax(alphas, Clock(epoch=20, epochs=50))
    arch.operations["cell"].zero_()
    net(torch.randn(2, 3, 8, 8, dtype=torch.float64), arch)
    b = 0.6
    first = b
    second = b * (1 + first)
    third = b * (1 + first + second)
    torch.testing.assert_close(seen["y"], third * seen["x"], rtol=1e-12, atol=1e-12)


def test_refuses_bad_settings():
    with pytest.raises(ValueError, match="factor = -1"):
        DartsMinus(factor=-1)
