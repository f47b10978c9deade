"""The steps of an iteration, in both orders, against a loop that is written out."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch

from tutelage.multilevel import Level, hypergradient, search_step, summands
from tutelage.virtual import Exact, FiniteDifference, FirstOrder, Rate
from unrolled import unrolled

RATES = {
    "v": Rate(0.04, momentum=0.9, weight_decay=0.02, clip=3.0),
    "w": Rate(0.05, momentum=0.8, weight_decay=0.01, nesterov=True),
}
ALPHAS = 0.1
"""The learning rate by which these tests move alphas, by plain gradient descent."""


def loss_called(name, owner):
    """A smooth loss in which all variables meet."""

    def loss(s, batch):
        place = len(name) + ord(name[-1])
        matrix = torch.sin(torch.arange(9.0, dtype=torch.float64) * place).view(3, 3)
        rest = sum(getattr(s, other).sin() * (1 + i) for i, other in enumerate("vwa"))
        return ((matrix @ getattr(s, owner)).tanh() - 0.5 * rest).square().sum() * batch

    loss.__name__ = name
    return loss


def levels_of(*lower, every=1):
    """Levels from (owner, steps, every), with names in their order, below alphas."""
    inner = [
        Level(owner, loss_called(f"{owner}{place}", owner), steps=steps, every=own)
        for place, (owner, steps, own) in enumerate(lower)
    ]
    return [*inner, Level("a", loss_called("top", "a"), optimiser="alphas", every=every)]


def start():
    torch.manual_seed(0)
    return {name: torch.randn(3, dtype=torch.float64) for name in "vwa"}


def sgd_step(level, values, buffers, batch):
    """One step of SGD, as the paper of any optimiser prints it."""
    rate, w = RATES[level.variable], values[level.variable].clone().requires_grad_()
    (g,) = torch.autograd.grad(
        level.loss(SimpleNamespace(**{**values, level.variable: w}), batch), w
    )
    if rate.clip and g.norm() + 1e-6 > rate.clip:
        g = g * rate.clip / (g.norm() + 1e-6)
    d = g + rate.weight_decay * w.detach()
    buffer = rate.momentum * buffers.get(level.variable, torch.zeros_like(g)) + d
    buffers[level.variable] = buffer
    step = d + rate.momentum * buffer if rate.nesterov else buffer
    values[level.variable] = w.detach() - rate.lr * step


def slow(levels, batches, order, rule):
    """Iterate as `docs/engine.md` says, and nothing is shared."""
    values, buffers = start(), {}
    (*lower, top) = levels
    for iteration, batch in enumerate(batches):
        turn = [level for level in lower if iteration % level.every == 0]
        before, buffers_before = dict(values), dict(buffers)
        if order == "levels-first":
            for level in turn:
                for _ in range(level.steps):
                    sgd_step(level, values, buffers, batch)
        if iteration % top.every == 0:
            ahead = turn if order == "levels-first" else lower
            if rule != "first-order":  # through the steps
                rates = {name: tuple(rate) for name, rate in RATES.items()}
                (g,) = unrolled([*ahead, top], before, batch, rates, buffers_before)
            else:  # at what the steps give; at the present values if alphas go first
                a = values["a"].clone().requires_grad_()
                (g,) = torch.autograd.grad(
                    top.loss(SimpleNamespace(**{**values, "a": a}), batch), a
                )
            values["a"] = values["a"] - ALPHAS * g
        if order == "alphas-first":
            for level in turn:
                sgd_step(level, values, buffers, batch)
    return values, buffers


def fast(levels, batches, order, via):
    values, buffers = start(), {}

    def move(name, gradient):
        values[name] = values[name] - ALPHAS * gradient

    for iteration, batch in enumerate(batches):
        search_step(
            levels,
            values,
            buffers,
            batch,
            rates=RATES,
            virtual=RATES,
            via=via,
            order=order,
            move=move,
            iteration=iteration,
        )
    return values, buffers


VIAS = {
    "exact": (Exact(), 1e-9),
    "recompute": (Exact(recompute=True), 1e-9),
    "finite-difference": (FiniteDifference(1e-4), 1e-5),
    "first-order": (FirstOrder(), 1e-9),
}
CHAINS = {
    "plain": levels_of(("v", 1, 1), ("w", 1, 1)),
    "steps": levels_of(("v", 3, 1), ("w", 2, 1)),
    "every": levels_of(("v", 1, 2), ("w", 1, 3)),
    "steps and every": levels_of(("v", 3, 2), ("w", 2, 1)),
    "seldom alphas": levels_of(("v", 2, 1), ("w", 1, 2), every=3),
    "one variable": levels_of(("w", 2, 2), ("v", 1, 1), ("w", 1, 1)),
}


@pytest.mark.parametrize("order", ["levels-first", "alphas-first"])
@pytest.mark.parametrize("rule", VIAS)
@pytest.mark.parametrize("chain", CHAINS)
def test_iterations_equal_a_loop_that_shares_nothing(chain, rule, order):
    via, tolerance = VIAS[rule]
    batches = [1.0, 0.7, 1.3, 0.9, 1.1, 0.8, 1.2]
    found, expected = (
        run(CHAINS[chain], batches, order, how) for run, how in ((fast, via), (slow, rule))
    )
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine:
            torch.testing.assert_close(mine[name], theirs[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("steps", "every"), [*itertools.product((1, 3), (1, 2))])
def test_with_levels_first_the_real_step_is_the_virtual_one(steps, every):
    """The alphas' loss is evaluated where the weights then are, in every iteration."""
    seen = []

    def judge(s, batch):
        seen.append((s.v.detach(), s.w.detach()))
        return (s.v * s.w * s.a).sum()

    levels = [
        *levels_of(("v", steps, every), ("w", steps, 1))[:-1],
        Level("a", judge, optimiser="alphas"),
    ]
    values, buffers = start(), {}
    for iteration in range(4):
        common = {"rates": RATES, "virtual": RATES, "via": Exact(), "order": "levels-first"}
        search_step(
            levels,
            values,
            buffers,
            1.0,
            **common,
            move=lambda name, gradient: None,
            iteration=iteration,
        )
        assert torch.equal(seen[-1][0], values["v"])
        assert torch.equal(seen[-1][1], values["w"])


@pytest.mark.parametrize("order", ["levels-first", "alphas-first"])
def test_losses_in_turn_unroll_again_and_the_first_has_the_real_steps(order):
    (v, w, top) = levels_of(("v", 2, 1), ("w", 1, 1))
    other = Level("a", loss_called("another", "a"), optimiser="alphas")
    found, buffers = start(), {}

    def move(name, gradient):
        found[name] = found[name] - ALPHAS * gradient

    common = {"rates": RATES, "virtual": RATES, "via": Exact(), "order": order, "move": move}
    search_step([v, w, top, other], found, buffers, 1.0, **common, joint=False)

    values, rates = start(), {name: tuple(rate) for name, rate in RATES.items()}
    real, own = dict(values), {}
    for level in (top, other):
        (g,) = unrolled([v, w, level], values, 1.0, rates, {})
        values["a"] = values["a"] - ALPHAS * g
    if order == "alphas-first":
        real["a"] = values["a"]
    for level in (v, w):
        for _ in range(level.steps if order == "levels-first" else 1):
            sgd_step(level, real, own, 1.0)
    for name, expected in {**real, "a": values["a"]}.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-9)


def test_terms_of_a_sum_are_measured_at_the_steps_that_are_taken():
    """A level that rests in this iteration has no part in the terms of any summand."""
    (v, w, top) = levels_of(("v", 2, 2), ("w", 1, 1))
    other = Level("a", loss_called("another", "a"), optimiser="alphas")
    levels = [v, w, top, other]
    for order, iteration, parts in (
        ("levels-first", 0, {"v0", "w1"}),
        ("levels-first", 1, {"w1"}),
        ("alphas-first", 1, {"v0", "w1"}),
    ):
        found = summands(levels, start(), {}, 1.0, RATES, Exact(), order, iteration)
        assert {name: set(terms) for name, terms in found.items()} == {
            "top": parts | {"top"},
            "another": parts | {"another"},
        }
    alone = hypergradient([w, top], start(), 1.0, RATES, Exact()).terms
    found = summands(levels, start(), {}, 1.0, RATES, Exact(), "levels-first", 1)["top"]
    assert found == {name: pytest.approx(float(x)) for name, x in alone.items()}


@pytest.mark.parametrize("rule", ["exact", "finite-difference"])
def test_an_alias_of_the_own_variable_is_held_fixed_in_every_level(rule):
    """At the top as below it: d(a b)/da = b where b is an alias of a."""
    via, tolerance = VIAS[rule]

    def fit(s, batch):
        return ((s.w - s.a) ** 2).sum() + (s.w * s.held).sum()

    def judge(s, batch):
        return (s.w * s.a * s.fixed.square()).sum() + (s.fixed**3).sum()

    aliases = {"fixed": "a"}
    levels = [
        Level("w", fit, aliases={"held": "w"}),
        Level("a", judge, optimiser="alphas", aliases=aliases),
    ]
    variables = {name: x for name, x in start().items() if name != "v"}
    found = hypergradient(levels, variables, None, {"w": Rate(0.1)}, via)
    (expected,) = unrolled(levels, variables, None, {"w": tuple(Rate(0.1))})
    w, a = variables["w"], variables["a"]
    stepped = w - 0.1 * (2 * (w - a) + w)
    by_hand = stepped * a**2 + 0.2 * a**3
    torch.testing.assert_close(expected, by_hand, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.gradient, by_hand, rtol=tolerance, atol=tolerance)
    assert set(found.terms) == {"fit", "judge"}


def test_a_top_that_reads_present_values_goes_with_alphas_first_alone():
    levels = [
        Level("w", loss_called("w0", "w")),
        Level("a", loss_called("a0", "a"), optimiser="alphas", reads="present"),
    ]
    variables = {name: torch.ones(3, dtype=torch.float64) for name in "vwa"}
    for order in ("alphas-first", "levels-first"):

        def step(order=order):
            search_step(
                levels, dict(variables), {}, torch.ones(()), rates=RATES, virtual=RATES,
                via=Exact(), order=order, move=lambda name, gradient: None,
            )  # fmt: skip

        if order == "alphas-first":
            step()
        else:
            with pytest.raises(ValueError, match="level a0: reads = 'present' with levels-first"):
                step()
