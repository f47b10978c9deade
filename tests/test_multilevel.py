"""The hypergradient against the full unroll, on every method that stands on it."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from problems import METHODS, RATES, RULES, relative, setting
from toys import ToyMake, ToySupernet, toy_batch
from tutelage.methods.sgl import SGL
from tutelage.methods.single import Single
from tutelage.multilevel import Level, hypergradient, own_gradient, search_step
from tutelage.trees import leaves, rebuild
from tutelage.virtual import (
    Exact,
    FiniteDifference,
    FirstOrder,
    Rate,
    descend,
    gradient_at,
    virtual_step,
)
from unrolled import unrolled


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("method", "rate"),
    [
        (method, rate)
        for method, rate in itertools.product(METHODS, RATES)
        if rate == "clipped" or method.startswith(("darts", "sgl", "lbt", "pamkd-2", "pamkd-3"))
    ],
)
def test_hypergradient_equals_the_full_unroll(method, rate, rule):
    via, tolerance = RULES[rule]
    levels, variables, batch, rates, velocities = setting(METHODS[method], RATES[rate])
    torch.manual_seed(1)  # groups are drawn in the losses
    found = hypergradient(levels, variables, batch, rates, via, velocities)
    torch.manual_seed(1)
    expected = unrolled(levels, variables, batch, rates, velocities)
    assert relative(leaves(found.gradient), expected) < tolerance


@pytest.mark.parametrize("rule", ["exact", "finite-difference"])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(
    "method", ["darts", "sgl-1", "sgl-2", "sgl-3", "lbt", "lbt-in-turn", "pamkd-2"]
)
def test_three_virtual_steps_equal_the_full_unroll(method, rate, rule):
    via, tolerance = RULES[rule]
    levels, variables, batch, rates, velocities = setting(METHODS[method], RATES[rate], steps=3)
    torch.manual_seed(1)  # groups are drawn in the losses
    found = hypergradient(levels, variables, batch, rates, via, velocities)
    torch.manual_seed(1)
    expected = unrolled(levels, variables, batch, rates, velocities)
    assert relative(leaves(found.gradient), expected) < tolerance


@pytest.mark.parametrize("method", ["darts", "sgl-2", "lbt"])
def test_the_unrolled_part_matters_and_a_wrong_factor_is_seen(method):
    """With the inner learning rate off by 2 % the gradient leaves the tests' tolerance."""
    levels, variables, batch, rates, _ = setting(METHODS[method])
    expected = unrolled(levels, variables, batch, rates)
    wrong = {name: rate._replace(lr=1.02 * rate.lr) for name, rate in rates.items()}
    found = hypergradient(levels, variables, batch, wrong, Exact())
    assert relative(leaves(found.gradient), expected) > 1e-3
    direct = hypergradient(levels, variables, batch, {}, Exact())
    assert relative(leaves(direct.gradient), expected) > 1e-2


class WrongFactor(Exact):
    """The engine with a deliberate error: half the product (the defect of three other tools)."""

    def gradient(self, loss, w, u, needed):
        g, product = super().gradient(loss, w, u, needed)
        return g, lambda v: [None if x is None else x / 2 for x in product(v)]


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_factor_in_the_rule_is_seen(method):
    levels, variables, batch, rates, _ = setting(METHODS[method])
    found = hypergradient(levels, variables, batch, rates, WrongFactor())
    expected = unrolled(levels, variables, batch, rates)
    assert relative(leaves(found.gradient), expected) > 1e-3


def test_hypergradient_of_a_quadratic_in_closed_form():
    """L(w) = (w - a)^2 / 2, top loss w^2 / 2: dL/da = w' * lr, with w' = w - lr (w - a)."""
    lr = 0.25

    def fit(s, batch):
        return 0.5 * (s.w - s.a) ** 2

    def judge(s, batch):
        return 0.5 * s.w**2

    levels = [Level("w", fit), Level("a", judge, optimiser="alphas")]
    variables = {"w": torch.tensor(2.0), "a": torch.tensor(1.0)}
    found = hypergradient(levels, variables, None, {"w": Rate(lr)}, Exact())
    stepped = 2.0 - lr * (2.0 - 1.0)
    assert float(found.gradient) == pytest.approx(stepped * lr)


def test_levels_with_losses_of_one_name_are_refused():
    levels, variables, batch, rates, _ = setting(Single())
    with pytest.raises(ValueError, match="its own name"):
        hypergradient([levels[0], *levels], variables, batch, rates, Exact())


def chain_of(*owners):
    """Levels of these variables below a top of a, each coupled with all others; float64."""
    torch.manual_seed(0)
    matrix = torch.randn(4, 4, dtype=torch.float64)

    def loss_of(owner, place):
        def loss(s, batch):
            rest = sum(getattr(s, name).sin() for name in "vwa" if name != owner)
            return ((matrix @ getattr(s, owner)).tanh() - (1 + place) * rest).square().sum()

        loss.__name__ = f"{owner}{place}"
        return loss

    lower = [Level(owner, loss_of(owner, place)) for place, owner in enumerate(owners)]
    top = Level("a", loss_of("a", len(owners)), optimiser="alphas")
    return [*lower, top], {x: torch.randn(4, dtype=torch.float64) for x in "vwa"}


@pytest.mark.parametrize("owners", ["ww", "wvw", "vwvw"])
def test_levels_of_one_variable_step_one_after_the_other(owners):
    levels, variables = chain_of(*owners)
    rates = {"w": Rate(0.05, 0.9, 0.01), "v": Rate(0.03, 0.9)}
    found = hypergradient(levels, variables, None, rates, Exact()).gradient
    (expected,) = unrolled(levels, variables, None, rates)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_a_lower_level_of_the_tops_variable_is_refused():
    levels, variables = chain_of("a", "w")
    with pytest.raises(ValueError, match="level a0 owns a, which is the top's variable"):
        hypergradient(levels, variables, None, {"a": Rate(0.1), "w": Rate(0.1)}, Exact())


def test_added_levels_that_move_at_different_times_are_refused():
    levels, variables = chain_of("w", "v")
    other = Level("a", levels[1].loss, optimiser="alphas", every=2)
    levels = [levels[0], other, levels[-1]]
    common = {"rates": {"w": Rate(0.1)}, "virtual": {"w": Rate(0.1)}, "via": Exact()}
    common |= {"order": "levels-first", "move": lambda name, gradient: None}
    with pytest.raises(ValueError, match="v1: every = 2, a2: every = 1: levels whose losses"):
        search_step(levels, variables, {}, None, **common)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "level fit: steps = 0 must be at least 1"),
        ({"every": 0}, "level fit: every = 0 must be at least 1"),
        ({"optimiser": "alphas", "steps": 2}, "steps = 2 with optimiser = 'alphas'"),
        ({"optimiser": "alphas", "clip": False}, "clip = False with optimiser = 'alphas'"),
        ({"reads": "present"}, "reads = 'present' with optimiser = 'weights': only a level at the"),
        ({"optimiser": "alphas", "schedule": "constant"}, "schedule = 'constant' with optimiser"),
    ],
)
def test_settings_of_a_level_that_contradict_each_other_are_refused(settings, message):
    def fit(s, batch):
        return s.w.sum()

    with pytest.raises(ValueError, match=message):
        Level("w", fit, **settings)


def test_hypergradient_equals_a_central_difference_of_the_whole_objective():
    levels, variables, batch, rates, _ = setting(METHODS["sgl-2"])
    found = leaves(hypergradient(levels, variables, batch, rates, Exact()).gradient)
    alphas = leaves(variables["A"])
    direction = [torch.randn_like(x) for x in alphas]

    def objective(step):
        moved = [x + step * d for x, d in zip(alphas, direction, strict=True)]
        values = {**variables, "A": rebuild(variables["A"], iter(moved))}
        for level in levels[:-1]:
            g, _, _ = own_gradient(level, values, batch)
            values[level.variable] = descend(values[level.variable], g, None, rates["W"])[0]
        return own_gradient(levels[-1], values, batch)[1]

    slope = (objective(1e-5) - objective(-1e-5)) / 2e-5
    expected = sum((g * d).sum() for g, d in zip(found, direction, strict=True))
    assert float(slope) == pytest.approx(float(expected), rel=1e-7)


def test_terms_are_the_norms_of_parts_that_add_up_to_the_gradient():
    """The gradient with all paths minus the printed one is the alias' part."""
    levels, variables, batch, rates, _ = setting(SGL())
    whole = hypergradient(levels, variables, batch, rates, Exact())
    levels, same, _, _, _ = setting(SGL(paths="printed"))
    printed = hypergradient(levels, same, batch, rates, Exact())
    difference = [
        a - b for a, b in zip(leaves(whole.gradient), leaves(printed.gradient), strict=True)
    ]
    unprinted = torch.cat([x.flatten() for x in difference]).norm()
    assert set(whole.terms) == {
        "learn_alone",
        "learn_together",
        "learn_together: A_labels",
        "validate",
    }
    assert float(whole.terms["learn_together: A_labels"]) == pytest.approx(float(unprinted))
    assert float(printed.terms["learn_together: A_labels"]) == 0
    direct = hypergradient(levels, variables, batch, {}, Exact()).gradient
    assert set(hypergradient(levels, variables, batch, {}, Exact()).terms) == {"validate"}
    assert all(torch.isfinite(x).all() for x in leaves(direct))


class Dropping(ToySupernet):
    """A toy learner whose forward pass draws random numbers."""

    def forward(self, x, arch):
        logits, features = super().forward(nn.functional.dropout(x, 0.5, self.training), arch)
        return logits, features


@pytest.mark.parametrize("rule", ["exact-recompute", "finite-difference", "one-sided"])
def test_random_draws_are_replayed(rule):
    """Re-evaluations see the draws of the first one, so all rules agree with the kept graph."""
    torch.manual_seed(0)
    problem = SGL()(ToyMake(supernet=Dropping))
    batch = toy_batch()
    rates = {"V": Rate(0.3), "W": Rate(0.3)}
    torch.manual_seed(1)
    kept = hypergradient(problem.levels, problem.variables, batch, rates, Exact())
    after_kept = torch.rand(1)
    torch.manual_seed(1)
    via, tolerance = RULES[rule]
    found = hypergradient(problem.levels, problem.variables, batch, rates, via)
    assert relative(leaves(found.gradient), leaves(kept.gradient)) < tolerance
    assert torch.rand(1) == after_kept  # a replay leaves the generator where it was


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_random_draws_are_replayed_on_cuda():
    w = torch.ones(1000, device="cuda", requires_grad=True)
    a = torch.ones(1000, device="cuda", requires_grad=True)

    def loss(w, u):
        return (nn.functional.dropout(w * u, 0.5) ** 2).sum()

    found = []
    for via in (Exact(), Exact(recompute=True)):
        torch.manual_seed(0)
        stepped = virtual_step(loss, w, a, lr=0.1, via=via)
        found.append(torch.autograd.grad(stepped.sum(), a)[0])
    assert torch.equal(*found)


def test_first_order_leaves_the_derivative_of_the_step_out():
    levels, variables, batch, rates, _ = setting(Single())
    found = hypergradient(levels, variables, batch, rates, FirstOrder())
    g, _, _ = own_gradient(levels[0], variables, batch)
    stepped = {**variables, "w": descend(variables["w"], g, None, rates["w"])[0]}
    expected, _, _ = own_gradient(levels[1], stepped, batch)
    assert relative(leaves(found.gradient), leaves(expected)) < 1e-12


@pytest.mark.parametrize("via", [Exact(), Exact(recompute=True), FiniteDifference()])
def test_a_third_derivative_is_refused(via):
    w, a = torch.tensor(2.0, requires_grad=True), torch.tensor(1.0, requires_grad=True)
    stepped = virtual_step(lambda w, u: (w * u) ** 3, w, a, lr=0.1, via=via)
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(stepped, a, create_graph=True)


def test_a_gradient_asks_for_no_other_unless_a_graph_is_made():
    """Nor do the zeros of a tensor that the value does not depend on."""
    w, unused = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    found = gradient_at(w.square().sum(), [w, unused])
    assert [x.tolist() for x in found] == [[2.0, 2.0], [0.0, 0.0, 0.0]]
    assert [x.requires_grad for x in found] == [False, False]
    assert gradient_at(w.square().sum(), [w], create_graph=True)[0].requires_grad
