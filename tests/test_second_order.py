"""Steps of DARTS by its recipes, against its authors' step written out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from problems import relative
from reference import NaiveBenchmark, NaiveSupernet, unstack
from search_steps import begun, draw_batches, settings_of, single_problem, take_step
from toys import ToyMake, toy_batch
from tutelage.config import Run
from tutelage.multilevel import own_gradient
from tutelage.parts import from_table, make_part
from tutelage.recipes import read_recipe, recipe_names
from tutelage.run.supernet.optimizers import virtual_rate
from tutelage.searches.darts import Darts
from tutelage.spaces.base import Size
from tutelage.spaces.cells import DARTS
from tutelage.spaces.nb201 import NASBENCH201
from tutelage.trees import leaves, norm, tree_map
from tutelage.virtual import Rate, descend
from unrolled import unrolled


class ByHand:
    """The step of quark0/darts' architect.py and train_search.py, tensor by tensor.

    Eq. 7 and 8 of the paper with momentum and decay in the virtual step, and no clipping there;
    then Adam on the alphas, then SGD on the weights with their gradient clipped to norm 5.
    """

    LR, MOMENTUM, LIMIT, RADIUS = 0.025, 0.9, 5.0, 0.01
    ALPHAS_LR, BETA1, BETA2, ALPHAS_DECAY = 3e-4, 0.5, 0.999, 1e-3

    def __init__(self, net, alphas, *, unrolled, decay=3e-4, nesterov=False):
        self.net, self.names = net, list(alphas)
        self.w = list(net.parameters())
        self.alphas = [x.detach().clone().requires_grad_() for x in alphas.values()]
        self.unrolled, self.decay, self.nesterov = unrolled, decay, nesterov
        self.buffers = [torch.zeros_like(p) for p in self.w]
        self.first = [torch.zeros_like(a) for a in self.alphas]
        self.second = [torch.zeros_like(a) for a in self.alphas]
        self.steps, self.norm, self.gradient = 0, 0.0, []

    def gradients(self, part, of):
        rows = [a.softmax(-1) for a in self.alphas]
        logits = self.net(part.x, dict(zip(self.names, rows, strict=True)))[0]
        return list(torch.autograd.grad(F.cross_entropy(logits, part.y), of))

    @torch.no_grad()
    def put(self, values):
        for p, value in zip(self.w, values, strict=True):
            p.copy_(value)

    def gradient_of_alphas(self, batch):
        if not self.unrolled:
            return self.gradients(batch.valid, self.alphas)
        here = [p.detach().clone() for p in self.w]
        there = []
        gradient = self.gradients(batch.train, self.w)
        for p, g, buffer in zip(here, gradient, self.buffers, strict=True):
            there.append(p - self.LR * (self.MOMENTUM * buffer + g + self.decay * p))
        self.put(there)
        direct = self.gradients(batch.valid, self.alphas)
        vector = self.gradients(batch.valid, self.w)
        epsilon = self.RADIUS / sum(float(v.square().sum()) for v in vector) ** 0.5
        self.put([p + epsilon * v for p, v in zip(here, vector, strict=True)])
        above = self.gradients(batch.train, self.alphas)
        self.put([p - epsilon * v for p, v in zip(here, vector, strict=True)])
        below = self.gradients(batch.train, self.alphas)
        self.put(here)
        return [
            d - self.LR * (a - b) / (2 * epsilon)
            for d, a, b in zip(direct, above, below, strict=True)
        ]

    def step(self, batch):
        self.steps += 1
        self.gradient = self.gradient_of_alphas(batch)
        for i, g in enumerate(self.gradient):
            alphas = self.alphas[i].data
            g = g + self.ALPHAS_DECAY * alphas
            self.first[i] = self.BETA1 * self.first[i] + (1 - self.BETA1) * g
            self.second[i] = self.BETA2 * self.second[i] + (1 - self.BETA2) * g * g
            mean = self.first[i] / (1 - self.BETA1**self.steps)
            square = self.second[i] / (1 - self.BETA2**self.steps)
            alphas -= self.ALPHAS_LR * mean / (square.sqrt() + 1e-8)
        gradient = self.gradients(batch.train, self.w)
        self.norm = sum(float(g.square().sum()) for g in gradient) ** 0.5
        if self.norm > self.LIMIT:
            gradient = [g * self.LIMIT / (self.norm + 1e-6) for g in gradient]
        for i, g in enumerate(gradient):
            g = g + self.decay * self.w[i].data
            self.buffers[i] = self.MOMENTUM * self.buffers[i] + g
            moved = g + self.MOMENTUM * self.buffers[i] if self.nesterov else self.buffers[i]
            self.w[i].data -= self.LR * moved


CASES = {
    "darts1-cifar10": {"unrolled": False},
    "darts2-cifar10": {"unrolled": True},
    "darts2-nasbench201": {"unrolled": True, "decay": 5e-4, "nesterov": True},
}
"""Recipes, and what the code that they cite does; the last is D-X-Y/AutoDL-Projects' DARTS-V2."""


def both(recipe, **more):
    """A search by a recipe and the one by hand, from the same weights and alphas.

    The classifier's weights are large, so that gradients are beyond the limit of clipping.
    """
    settings = settings_of(recipe, **more)
    torch.manual_seed(0)
    if settings.space["name"] == "darts":
        space, size = DARTS, Size(2, 3)
        naive = NaiveSupernet(tuple(space.operations["normal"][0]), size)
    else:
        space, size = NASBENCH201, Size(2, 1)
        naive = NaiveBenchmark(space.operations, size)
    module, search = space.supernet(size).double(), Darts()
    named = dict(module.named_parameters())
    with torch.no_grad():
        next(p for name, p in named.items() if name.endswith("classifier.weight")).mul_(10)
    naive.double().load_state_dict(unstack(module, named))
    alphas = {name: x.double() for name, x in search.alphas(space).items()}
    state = begun(settings, single_problem(module, search, alphas))
    return settings, state, module, ByHand(naive, alphas, **CASES[recipe])


def gradients(state):
    return [x.grad for x in leaves(state.variables["A"])]


@pytest.mark.parametrize("recipe", CASES)
def test_three_steps_are_those_of_darts_code(recipe):
    settings, state, module, hand = both(recipe)
    for number, batch in enumerate(draw_batches(3)):
        take_step(settings, state, number, batch)
        hand.step(batch)
        assert hand.norm > hand.LIMIT
        assert relative(gradients(state), hand.gradient) < 1e-10
    found = unstack(module, state.variables["w"])
    for name, p in hand.net.named_parameters():
        torch.testing.assert_close(found[name], p.detach(), rtol=0, atol=1e-12)
    for mine, alphas in zip(leaves(state.variables["A"]), hand.alphas, strict=True):
        torch.testing.assert_close(mine, alphas.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("recipe", "virtual"), [("darts2-cifar10", "sgd"), ("darts2-nasbench201", "plain")]
)
def test_another_virtual_step_is_another_search(recipe, virtual):
    """Clipping and Nesterov's rule are seen at once, momentum from the second step on."""
    settings, state, _, hand = both(recipe, virtual=virtual)
    errors = []
    for number, batch in enumerate(draw_batches(2)):
        take_step(settings, state, number, batch)
        hand.step(batch)
        errors.append(relative(gradients(state), hand.gradient))
    assert max(errors) > 0.1


def test_the_settings_of_a_virtual_step():
    real = Rate(0.1, 0.9, 3e-4, clip=5.0, nesterov=True)
    rates = {x: virtual_rate(Run(virtual=x), real) for x in ("sgd", "momentum", "plain")}
    assert rates == {"sgd": real, "momentum": Rate(0.1, 0.9, 3e-4), "plain": Rate(0.1)}
    with pytest.raises(ValueError, match="virtual = 'darts': must be one of sgd, momentum, plain"):
        Run(virtual="darts")


@pytest.mark.parametrize("stored", [{"virtual": "sgd"}, {}])
def test_a_run_that_was_begun_before_keeps_its_virtual_step(stored):
    """A run of darts2-cifar10 had none of its own, and its run.toml has the default of then."""
    before = read_recipe("darts2-cifar10")[0]
    del before["virtual"]
    assert from_table(Run, before | stored, "run.toml").virtual == "sgd"


def test_recipes_of_codes_that_clip_no_virtual_step():
    found = {name for name in recipe_names() if settings_of(name).virtual == "momentum"}
    assert found == {name for name in recipe_names() if name.startswith(("darts2-", "lbt-"))}


@pytest.mark.parametrize("recipe", ["lbt-darts1-cifar10", "lbt-darts2-cifar100"])
def test_lbt_differentiates_steps_without_clipping_and_takes_clipped_ones(recipe):
    """As its authors' later code does for teacher and student."""
    settings = settings_of(recipe, via="exact")
    settings = replace(settings, weights=replace(settings.weights, clip=0.05))
    torch.manual_seed(0)
    problem = make_part("method", settings.method)(ToyMake())
    state = begun(settings, problem)
    clipped = Rate(0.025, 0.9, 3e-4, clip=0.05)
    for number in range(2):
        batch = toy_batch()
        variables = {n: tree_map(torch.clone, tree) for n, tree in state.variables.items()}
        velocities = {n: tree_map(torch.clone, tree) for n, tree in state.velocities.items()}
        take_step(settings, state, number, batch)
        for rate, alike in ((clipped._replace(clip=0.0), True), (clipped, False)):
            rates = {"T": rate, "S": rate}
            expected = unrolled(problem.levels, variables, batch, rates, velocities)
            assert (relative(gradients(state), expected) < 1e-9) == alike
        g, _, _ = own_gradient(problem.levels[0], variables, batch)
        assert norm(leaves(g)) > 0.05
        teacher, _ = descend(variables["T"], g, velocities.get("T"), clipped)
        torch.testing.assert_close(state.variables["T"], teacher, rtol=0, atol=1e-12)
