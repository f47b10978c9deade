"""Budgets: what is derived within the limits, in phases and whole searches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from test_cost import PAIRS, TOY, bounds, joined, space_named, toy
from test_search import run_toml
from tutelage.run.cost.budget import Budget, budget_of
from tutelage.run.cost.count import describe
from tutelage.run.cost.limits import Limits
from tutelage.run.cost.table import costs_of
from tutelage.run.search import search_run
from tutelage.spaces.base import ArchWeights, Size, nodes
from tutelage.spaces.genotype import Genotype
from written_runs import read_rows


@pytest.mark.parametrize(("search", "space"), PAIRS)
def test_what_is_derived_stays_within_the_limits(search, space):
    relaxation, fitted = joined(search, space)
    size = toy(fitted)
    costs = costs_of(fitted, size, (8, 8))
    low, high = bounds(fitted, costs)
    for seed, part in enumerate((0.0, 0.2, 0.6)):
        torch.manual_seed(seed)
        alphas = {
            name: [30 * x for x in leaf] if isinstance(leaf, list) else 1000 * leaf
            for name, leaf in relaxation.alphas(fitted).items()
        }
        most = low.params + part * (high.params - low.params)
        asked = Budget(relaxation, costs, Limits(most), 1.0)
        read = asked.derive(fitted, alphas)
        assert costs.of(read).params <= most
        assert read == asked.derive(fitted, alphas)
        fitted.network(read, size)
    free = Budget(relaxation, costs, Limits(2 * high.params), 1.0)
    assert free.derive(fitted, alphas) == relaxation.derive(fitted, alphas)


def test_both_limits_hold():
    search, space = joined("darts", "darts")
    costs = costs_of(space, TOY, (8, 8))
    low, high = bounds(space, costs)
    alphas = {g: torch.randn(s) for g, s in space.choices.items()}
    limits = Limits(0.7 * low[0] + 0.3 * high[0], 0.9 * low[1] + 0.1 * high[1])
    read = Budget(search, costs, limits, 1.0).derive(space, alphas)
    assert all(paid <= limit for paid, limit in zip(costs.of(read), limits, strict=True))


def by_hand(rows):
    """Alphas of NAS-Bench-201 whose softmax is these six rows of five."""
    return {"cell": torch.tensor(rows).log()}


def test_the_least_loss_of_weight_for_the_cost_saved_goes_first():
    """Worked by hand: 3x3 costs 9 C^2 + 2 C, 1x1 costs C^2 + 2 C, the others nothing."""
    search, space = joined("darts", "nasbench201")
    costs = costs_of(space, TOY, (8, 8))
    edge = costs.operations["cell"][0]
    large, small = edge["nor_conv_3x3"].params, edge["nor_conv_1x1"].params
    nothing = [0.96, 0.01, 0.01, 0.01, 0.01]
    rows = [  # none, skip, 1x1, 3x3, pool
        [0.05, 0.10, 0.20, 0.55, 0.10],  # losing 3x3 to 1x1 loses 0.35 for large - small
        [0.05, 0.30, 0.05, 0.55, 0.05],  # losing 3x3 to skip loses 0.25 for large: goes first
        [0.05, 0.15, 0.45, 0.05, 0.30],  # losing 1x1 to a pool loses 0.15 for small: last
        *[nothing] * 3,
    ]
    assert 0.25 / large < 0.35 / (large - small) < 0.10 / small
    whole = costs.fixed.params + 2 * large + small

    def read(most):
        kept = Budget(search, costs, Limits(most), 1.0).derive(space, by_hand(rows))
        return [name for node in kept.cells["cell"].nodes for name, _ in node][:3]

    three, one, skip, pool = "nor_conv_3x3", "nor_conv_1x1", "skip_connect", "avg_pool_3x3"
    assert read(whole) == [three, three, one]
    assert read(whole - 1) == [three, skip, one]
    assert read(whole - large - 1) == [one, skip, one]
    assert read(whole - 2 * large + small - 1) == [skip, skip, one]  # that of 0.20 loses 0.10
    assert read(costs.fixed.params) == [skip, skip, pool]


def test_what_need_not_have_gone_comes_back():
    """The 1x1 convolution loses least for its cost, and then the 3x3 one has to go all the same."""
    search, space = joined("darts", "nasbench201")
    costs = costs_of(space, TOY, (8, 8))
    edge = costs.operations["cell"][0]
    large, small = edge["nor_conv_3x3"].params, edge["nor_conv_1x1"].params
    rows = [
        [0.10, 0.15, 0.05, 0.60, 0.10],
        [0.10, 0.30, 0.35, 0.15, 0.10],
        *[[0.96, 0.01, 0.01, 0.01, 0.01]] * 4,
    ]
    assert 0.05 / small < 0.45 / large
    most = costs.fixed.params + small
    kept = Budget(search, costs, Limits(most), 1.0).derive(space, by_hand(rows))
    names = [name for node in kept.cells["cell"].nodes for name, _ in node]
    assert names[:2] == ["skip_connect", "nor_conv_1x1"]


def test_what_is_left_out_makes_nothing_else_on_its_edge_stronger():
    """Without convolutions, a softmax over the first edge's others gives 0.5 to its pool."""
    search, space = joined("darts", "darts")
    costs = costs_of(space, TOY, (8, 8))
    alphas = {g: torch.zeros(s) for g, s in space.choices.items()}
    rows = {  # none, max pool, average pool, skip, sep 3, sep 5, dil 3, dil 5
        2: [0.05, 0.15, 0.05, 0.05, 0.55, 0.05, 0.05, 0.05],
        3: [0.10, 0.05, 0.10, 0.30, 0.10, 0.15, 0.10, 0.10],
        4: [0.10, 0.05, 0.15, 0.25, 0.10, 0.15, 0.10, 0.10],
    }
    for edge, row in rows.items():
        alphas["normal"][edge] = torch.tensor(row).log()
    assert search.derive(space, alphas).cells["normal"].nodes[1] == (
        ("sep_conv_3x3", 0),
        ("skip_connect", 1),
    )
    free = Budget(search, costs, Limits(costs.fixed.params), 1.0).derive(space, alphas)
    assert free.cells["normal"].nodes[1] == (("skip_connect", 1), ("skip_connect", 2))


def test_what_is_not_allowed_is_not_derived():
    space = space_named("darts")
    allowed = {g: torch.ones(s, dtype=torch.bool) for g, s in space.choices.items()}
    allowed["normal"][:, 4] = False
    arch = ArchWeights({g: torch.eye(8)[torch.full((14,), 4)] for g in space.choices})
    assert arch.only(None) is arch
    read = space.genotype(arch.only(allowed))
    names = {group: set() for group in space.choices}
    for group, _, kept in nodes(read):
        names[group] |= {name for _, name in kept}
    assert "sep_conv_3x3" not in names["normal"]
    assert names["reduce"] == {"sep_conv_3x3"}


# Phases, and whole searches ---------------------------------------------------------------------


def test_a_phase_keeps_what_the_limits_need():
    search, space = joined("pdarts", "darts")
    costs = costs_of(space, TOY, (8, 8))
    low, high = bounds(space, costs)
    alphas = {g: torch.arange(8.0).repeat(14, 1) for g in space.choices}  # convolutions first
    tight = Budget(search, costs, Limits(low.params * 1.0), 1.0)
    raised = tight.spared(space, alphas, 3)
    kept = raised["normal"].topk(3).indices.sort().values
    assert (kept == torch.tensor([1, 6, 7])).all()  # the first free operation, and the best two
    loose = Budget(search, costs, Limits(high.params), 1.0)
    assert loose.spared(space, alphas, 3) is alphas


def rows(path):
    return read_rows(path)


def final(settings):
    return replace(settings, retrain=replace(settings.retrain, channels=4, cells=3))


@pytest.mark.parametrize("search", ["pdarts", "random", "prdarts", "gdas"])
def test_every_genotype_of_a_run_is_within_the_limit(search, tmp_path):
    own = {"deeper": (0, 1)} if search == "pdarts" else {}
    epochs = 3 if search == "pdarts" else 1
    settings = final(run_toml(search={"name": search, **own}, epochs=epochs, limit_batches=1))
    size = Size(4, 3, 10, 1)
    space = space_named("darts")
    low, high = bounds(space, costs_of(space, size, (8, 8)))
    most = low.params + 0.05 * (high.params - low.params)
    settings = replace(settings, max_params=most / 1e6)
    found = search_run(settings, tmp_path / "run")
    assert describe(found.genotype, size, 8).params <= most
    for row in rows(tmp_path / "run"):
        for genotype, cost in zip(row.get("genotype", []), row.get("cost", []), strict=True):
            counted = describe(Genotype.from_dict(genotype), size, 8)
            assert counted.params == cost["derived"]["params"] <= most
            assert counted.flops == cost["derived"]["flops"]


@pytest.mark.slow
def test_the_penalty_lowers_the_expected_cost(tmp_path):
    costs, space, size = [], space_named("s2"), Size(4, 3, 10, 1)
    low, _ = bounds(space, costs_of(space, size, (8, 8)))
    for weight in (0.0, 100.0):
        settings = final(run_toml("sgl", space={"name": "s2"}, epochs=1, limit_batches=3))
        alphas = replace(settings.alphas, lr=0.1)
        settings = replace(
            settings, alphas=alphas, max_params=1.01 * low.params / 1e6, budget_weight=weight
        )
        search_run(settings, tmp_path / str(weight))
        (epoch,) = [row for row in rows(tmp_path / str(weight)) if row["event"] == "epoch"]
        costs.append([learner["expected"]["params"] for learner in epoch["cost"]])
    assert len(costs[1]) == 2
    assert all(b < 0.97 * a for a, b in zip(*costs, strict=True))


def test_no_limit_is_no_budget_and_an_impossible_one_is_refused(refused):
    search, space = joined("darts", "darts")
    assert budget_of(run_toml(), search, space, 10, (1, 8, 8)) is None
    low, _ = bounds(space, costs_of(space, Size(36, 20, 10, 1), (8, 8)))
    brief = "search --out run --channels 2 --cells 3"
    sentence = rf"max_params = 0.01: the cheapest.* darts has {low.params / 1e6:.4g} million"
    refused(f"{brief} --max-params 0.01", sentence)
    refused(f"{brief} --search random --max-flops 0.01", r"max_flops = 0.01: the cheapest")
    refused(f"{brief} --max-flops 0", r"max_flops = 0.0: must be a number above 0")
