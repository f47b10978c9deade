"""GDAS: what runs, which gradient comes back, and how often what is drawn."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.func import functional_call

from tutelage.clock import Clock
from tutelage.searches.gdas import Gdas
from tutelage.spaces import mixed, mixed_cell
from tutelage.spaces.base import ArchWeights, Size
from tutelage.spaces.cells import DARTS, S1, S3
from tutelage.spaces.mixed import Reduce
from tutelage.spaces.nb201 import NASBENCH201
from tutelage.spaces.ops import CONVOLUTIONS, DENSE, POOLS
from tutelage.virtual import gradient_at

SPACES = [DARTS, S1, S3, NASBENCH201]


def sample(space):
    """Sample architecture weights; return it and its alphas."""
    alphas = {
        group: torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for group, shape in space.choices.items()
    }
    return Gdas().relax(alphas, Clock()), alphas


def soft_of(alphas, tau):
    """The relaxation of one group's draw, from numbers that the seed gives again."""
    gumbel = -torch.empty_like(alphas).exponential_().log()
    return ((alphas.log_softmax(-1) + gumbel) / tau).softmax(-1)


# What runs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_one_operation_an_edge_is_chosen_and_weighs_one(space):
    arch, _ = sample(space)
    for group, weights in arch.operations.items():
        assert all(len(columns) == 1 for columns in arch.chosen[group])
        columns = torch.tensor(arch.chosen[group])
        expected = torch.zeros_like(weights).scatter_(1, columns, 1.0)
        torch.testing.assert_close(weights.detach(), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_one_operation_an_edge_runs(space, monkeypatch):
    """Hooks on what has weights, counters on pools: in every cell just what was drawn."""
    net = space.supernet(Size(channels=4, cells=3)).double()
    arch, _ = sample(space)
    ran = Counter()

    names = {}
    for module in net.modules():
        if isinstance(module, mixed.MixedNode):
            names |= {stack: name for name, stack in module.stacks.items()}
            for each in module.reductions.values():
                assert isinstance(each, Reduce)
                each.register_forward_hook(lambda *_: ran.update(["reduction"]))

    def separable(stacks, inputs, edges, run=mixed.run_stacks):
        for stack in stacks:  # one call computes several edges
            ran[names[stack]] += len(edges)
        return run(stacks, inputs, edges)

    monkeypatch.setattr(mixed, "run_stacks", separable)
    for name, pool in POOLS.items():

        def counted(x, stride, name=name, pool=pool):
            ran[name] += 1
            return pool(x, stride)

        monkeypatch.setitem(POOLS, name, counted)

    def dense(state, kernel, run=mixed_cell.dense):
        # one call computes all edges of a kind that leave a state
        ran[f"nor_conv_{kernel.shape[2]}x{kernel.shape[3]}"] += len(kernel) // state.x.shape[1]
        return run(state, kernel)

    monkeypatch.setattr(mixed_cell, "dense", dense)
    net(torch.randn(2, 3, 8, 8, dtype=torch.float64), arch)
    assert ran == +sum((expected_of(space, arch, group) for group in groups_of(net)), Counter())


def groups_of(net):
    """List the group of every cell."""
    plan = getattr(net, "plan", None)
    return [place.group for place in plan] if plan else ["cell"] * len(net.skeleton.cells)


def expected_of(space, arch, group) -> Counter:
    """Count what one cell has to run: a pool once a state, however many edges ask."""
    ran, pools = Counter(), set()
    edge = 0
    for entering in space.nodes:
        for source in range(entering):
            (column,) = arch.chosen[group][edge]
            name = space.operations[group][edge][column]
            if name in CONVOLUTIONS or name in DENSE:
                ran[name] += 1
            elif name in POOLS:
                pools.add((name, source))
            elif name == "skip_connect" and group == "reduce" and source < 2:
                ran["reduction"] += 1
            edge += 1
    return ran + Counter(name for name, _ in pools)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_what_runs_is_what_the_same_weights_of_all_operations_give(space):
    net = space.supernet(Size(channels=4, cells=3)).double()
    arch, _ = sample(space)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for one, other in zip(net(x, arch), net(x, ArchWeights(arch.operations)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


# Gradients --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("epoch", "tau"), [(0, 10.0), (1, 7.525), (2, 5.05), (4, 0.1), (5, 0.1)])
def test_the_gradient_is_the_relaxations_at_the_temperature_of_the_epoch(epoch, tau):
    """The temperature falls linearly from 10 in the first epoch to 0.1 in the last, and stays.

    The validation after the last epoch finds the clock at the number of epochs.
    """
    alphas = torch.randn(14, 8, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(14, 8, dtype=torch.float64)
    torch.manual_seed(5)
    clock = Clock(epoch=epoch, epochs=5, progress=0.9)
    weights = Gdas().relax({"normal": alphas}, clock).operations["normal"]
    torch.manual_seed(5)
    soft = soft_of(alphas, tau)
    assert torch.equal(weights.argmax(1), soft.argmax(1))
    assert not torch.allclose(weights, soft, atol=1e-3)
    ours, theirs = (torch.autograd.grad((w * direction).sum(), alphas)[0] for w in (weights, soft))
    assert theirs.abs().max() > 1e-6
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    # by hand on the first edge: d soft_c / d alpha_k = soft_c (1[c = k] - soft_k) / tau
    s, v = soft[0].detach(), direction[0]
    by_hand = [sum(v[c] * s[c] * (float(c == k) - s[k]) for c in range(8)) / tau for k in range(8)]
    torch.testing.assert_close(ours[0], torch.stack(by_hand), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("space", [DARTS, NASBENCH201], ids=lambda space: space.name)
def test_through_a_supernet_it_is_that_of_the_chosen_columns(space):
    """Only the chosen operation ran, so that only its weight's gradient can come back."""
    net = space.supernet(Size(channels=2, cells=3)).double()
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    alphas = {
        group: torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for group, shape in space.choices.items()
    }
    torch.manual_seed(5)
    arch = Gdas().relax(alphas, Clock(epoch=1, epochs=3))
    torch.manual_seed(5)
    soft = {group: soft_of(a, 5.05) for group, a in alphas.items()}
    hard = {g: w.detach().round().requires_grad_() for g, w in arch.operations.items()}
    slopes = torch.autograd.grad(
        net(x, ArchWeights(hard, arch.chosen))[0].square().sum(), list(hard.values())
    )
    products = 0.0
    for (group, s), slope in zip(soft.items(), slopes, strict=True):
        columns = torch.tensor(arch.chosen[group])
        # nothing for the columns that did not run
        assert (slope.scatter(1, columns, 0.0) == 0).all()
        products = products + (s.gather(1, columns) * slope.gather(1, columns)).sum()
    expected = torch.autograd.grad(products, list(alphas.values()))
    found = torch.autograd.grad(net(x, arch)[0].square().sum(), list(alphas.values()))
    for one, other in zip(found, expected, strict=True):
        assert other.abs().max() > 1e-6
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


# Draws ------------------------------------------------------------------------------------------


def test_operations_are_drawn_as_often_as_their_softmax_says():
    """Whatever the temperature; within five standard deviations of a binomial."""
    alphas = torch.tensor([1.5, -1.0, 0.3, 0.0, 2.0], dtype=torch.float64)
    probabilities, count = alphas.softmax(0), 50_000
    for epoch in (0, 1):
        arch = Gdas().relax({"cell": alphas.expand(count, 5)}, Clock(epoch=epoch, epochs=2))
        columns = torch.tensor(arch.chosen["cell"]).flatten()
        found = columns.bincount(minlength=5) / count
        bound = 5 * (probabilities * (1 - probabilities) / count).sqrt()
        assert ((found - probabilities).abs() < bound).all()


def test_every_pass_draws_afresh_and_the_seed_repeats_it():
    alphas = {group: torch.zeros(shape) for group, shape in DARTS.choices.items()}
    torch.manual_seed(1)
    first, second = Gdas().relax(alphas, Clock()), Gdas().relax(alphas, Clock())
    torch.manual_seed(1)
    again = Gdas().relax(alphas, Clock())
    assert first.chosen == again.chosen != second.chosen
    assert first.chosen["normal"] != first.chosen["reduce"]


def test_what_is_shown_are_the_probabilities():
    alphas = {group: torch.randn(shape) for group, shape in DARTS.choices.items()}
    shown = Gdas().expected(alphas)
    assert shown.chosen is None
    for group, weights in shown.operations.items():
        torch.testing.assert_close(weights, alphas[group].softmax(1))


@pytest.mark.parametrize("settings", [{"tau": 0.0}, {"tau_end": -1.0}, {"init": -1.0}])
def test_refuses_bad_settings(settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        Gdas(**settings)


def test_a_path_of_none_alone_has_no_gradient_and_stops_nothing():
    """Every edge samples none: the logits are the classifier's bias, whatever the alphas are."""
    torch.manual_seed(0)
    net = NASBENCH201.supernet(Size(channels=2, cells=1, classes=3)).double()
    alphas = {"cell": torch.zeros(6, 5, dtype=torch.float64).requires_grad_()}
    with torch.no_grad():
        alphas["cell"][:, 0] = 100.0
    weights = {name: p.detach() for name, p in net.named_parameters()}
    arch = Gdas().relax(alphas, Clock())
    logits, _ = functional_call(net, weights, (torch.randn(2, 3, 8, 8).double(), arch))
    assert not logits.requires_grad
    (gradient,) = gradient_at(logits.square().sum(), [alphas["cell"]])
    assert gradient.shape == (6, 5) and not gradient.any()
