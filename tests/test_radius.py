"""The decision on the radius of the finite difference: see docs/engine.md."""

from __future__ import annotations

from statistics import median
from types import SimpleNamespace

import pytest
import torch

from binding import binder
from tutelage.batch import Batch
from tutelage.clock import Clock
from tutelage.config import Run
from tutelage.methods.single import Single
from tutelage.multilevel import hypergradient
from tutelage.run.networks.factory import Maker
from tutelage.searches.darts import Darts
from tutelage.spaces.base import Size
from tutelage.spaces.cells import DARTS
from tutelage.trees import leaves, tree_map
from tutelage.virtual import Exact, FiniteDifference, FirstOrder, Rate, virtual_step

SEEDS = range(3)


def on_one_layer(activation, radius, seed):
    """Relative error of d<g, v>/da on one hidden layer, in float64."""
    torch.manual_seed(seed)
    x, y = torch.randn(64, 10).double(), torch.randn(64, 3).double()
    w = [torch.randn(10, 40).double() / 3, torch.randn(40, 3).double() / 6]
    a, v = torch.randn(40).double().requires_grad_(), [torch.randn_like(each) for each in w]

    def loss(w, a):
        return (activation(a * (x @ w[0])) @ w[1] - y).square().mean()

    def product(via):
        stepped = virtual_step(loss, w, a, lr=1.0, via=via)
        total = sum((p * q).sum() for p, q in zip(stepped, v, strict=True))
        return torch.autograd.grad(total, a)[0]

    exact = product(Exact())
    return float((product(FiniteDifference(radius)) - exact).norm() / exact.norm())


def test_on_a_smooth_network_the_error_falls_with_the_square_of_the_radius():
    errors = [median(on_one_layer(torch.tanh, r, s) for s in SEEDS) for r in (1.0, 0.1, 0.01)]
    assert 50 < errors[0] / errors[1] < 200
    assert 50 < errors[1] / errors[2] < 200
    kinked = [median(on_one_layer(torch.relu, r, s) for s in SEEDS) for r in (0.1, 0.01)]
    assert kinked[1] > 10 * errors[2]  # ReLU: only with the radius, while units switch


@pytest.mark.parametrize("seed", [0, 1])
def test_on_a_supernet_only_a_radius_too_short_for_float32_finds_the_exact_product(seed):
    """Errors of the term through the virtual step; leaving it out has an error of 1."""
    torch.manual_seed(seed)
    size = Size(channels=2, cells=2, image_channels=1)
    maker = Maker(binder(Darts()), [DARTS], size, Clock(), 1, torch.device("cpu"), None)
    problem = Single()(maker)
    x, y = torch.randn(2, 8, 1, 8, 8).double(), torch.randint(10, (2, 8))

    def terms(dtype, *rules):
        variables = {n: tree_map(lambda t: t.to(dtype), v) for n, v in problem.variables.items()}
        parts = [Batch(x[i].to(dtype), y[i], y[i]) for i in (0, 1)]
        batch = SimpleNamespace(train=parts[0], valid=parts[1])
        direct, *others = (
            hypergradient(problem.levels, variables, batch, {"w": Rate(0.025)}, rule).gradient
            for rule in (FirstOrder(), *rules)
        )
        return [
            torch.cat([(p - q).flatten() for p, q in zip(leaves(g), leaves(direct), strict=True)])
            for g in others
        ]

    rules = [FiniteDifference(radius) for radius in (0.01, 0.001, 1e-8)]
    exact, *wide = terms(torch.float64, Exact(), *rules)
    (narrow,) = terms(torch.float32, rules[-1])
    papers, shorter, shortest, rounded = (
        float((x - exact).norm() / exact.norm()) for x in (*wide, narrow)
    )
    assert papers > 1 and shorter > 1
    assert shortest < 1e-5  # no unit switches between the two points
    assert rounded > 1


def test_the_default_is_the_exact_product_and_the_papers_radius():
    assert (FiniteDifference().radius, Run().radius, Run().via) == (0.01, 0.01, "exact")
