"""The engine against the full unroll, on every method that stands on it."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from toys import ToyMake, ToySupernet, toy_batch
from tutelage.methods.afd import AFD
from tutelage.methods.kdcl import KDCL
from tutelage.methods.lbt import LBT
from tutelage.methods.mkd import MKD
from tutelage.methods.okddip import OKDDip
from tutelage.methods.one import ONE
from tutelage.methods.pamkd import PAMKD
from tutelage.methods.sgl import SGL
from tutelage.methods.single import Single
from tutelage.multilevel import Level, hypergradient, own_gradient, search_step
from tutelage.virtual import (
    Exact,
    FiniteDifference,
    FirstOrder,
    Rate,
    descend,
    leaves,
    rebuild,
    virtual_step,
)
from unrolled import unrolled

METHODS = {
    "darts": Single(),
    "sgl-1": SGL(learners=1),
    "sgl-2": SGL(learners=2),
    "sgl-3": SGL(learners=3, peer_weight=0.7),
    "sgl-mean": SGL(learners=3, peers="mean"),
    "sgl-no-first-stage": SGL(first_stage="none"),
    "sgl-no-human-labels": SGL(human_labels=False),
    "sgl-printed": SGL(paths="printed"),
    "sgl-first-order-own-term": SGL(own_term="first-order"),
    "lbt": LBT(pseudo_weight=0.8, student_weight=1.3),
    "lbt-student-only": LBT(teacher_exam=False),
    "lbt-pseudo-labels-only": LBT(human_labels=False),
    "lbt-printed": LBT(paths="printed"),
    "lbt-first-order-own-term": LBT(own_term="first-order"),
    "lbt-in-turn": LBT(student_update="in-turn"),
    "pamkd-1": PAMKD(learners=1),
    "pamkd-2": PAMKD(group_size=2, margin=0.3, peer_weight=20.0),
    "pamkd-3": PAMKD(learners=3, group_size=2, margin=0.3, peer_weight=10.0),
    "pamkd-no-first-stage": PAMKD(first_stage="none", group_size=2, margin=0.3, peer_weight=9.0),
    "pamkd-first-order-own-term": PAMKD(group_size=2, margin=0.3, own_term="first-order"),
    "pamkd-triples": PAMKD(knowledge="triples", margin=0.3, reduction="mean", peer_weight=9.0),
    "pamkd-labels": PAMKD(knowledge="labels"),
    "pamkd-weights": PAMKD(knowledge="weights", peer_weight=0.01),
    "pamkd-2nd-mkd": PAMKD(second_stage="mkd"),
    "pamkd-2nd-afd": PAMKD(second_stage="afd"),
    "mkd-2": MKD(),
    "mkd-3": MKD(learners=3, temperature=3.0),
    "mkd-mean": MKD(learners=3, target="mean"),
    "kdcl": KDCL(),
    "kdcl-minimum": KDCL(ensemble="minimum"),
    "one": ONE(ramp=0),
    "okddip-2": OKDDip(ramp=0),
    "okddip-3": OKDDip(learners=3, ramp=0),
    "afd": AFD(hidden=4),
}
RATES = {
    "plain": Rate(0.3),
    "sgd": Rate(0.3, momentum=0.9, weight_decay=0.03),
    "clipped": Rate(0.3, momentum=0.9, weight_decay=0.03, clip=0.2),
    "nesterov": Rate(0.3, momentum=0.9, weight_decay=0.03, nesterov=True),
}
RULES = {
    "exact": (Exact(), 1e-8),
    "exact-recompute": (Exact(recompute=True), 1e-8),
    "finite-difference": (FiniteDifference(1e-4), 1e-3),
    "one-sided": (FiniteDifference(1e-5, sides=1), 1e-3),
}


def setting(method, rate=RATES["plain"], steps=1, seed=0):
    """Levels, variables, batch, rates and velocities of a method on toy learners."""
    torch.manual_seed(seed)
    problem = method(ToyMake())
    levels = [
        Level(x.variable, x.loss, steps=steps, aliases=x.aliases, optimiser=x.optimiser)
        for x in problem.levels
    ]
    lower = [level.variable for level in levels if level.optimiser == "weights"]
    velocities = {
        name: rebuild(
            problem.variables[name],
            iter([0.1 * torch.randn_like(x) for x in leaves(problem.variables[name])]),
        )
        for name in lower
        if rate.momentum
    }
    return levels, problem.variables, toy_batch(), dict.fromkeys(lower, rate), velocities


def relative(found, expected):
    return float(
        torch.cat([(a - b).flatten() for a, b in zip(found, expected, strict=True)]).norm()
        / torch.cat([b.flatten() for b in expected]).norm()
    )


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

    def forward(self, x, mix):
        logits, features = super().forward(nn.functional.dropout(x, 0.5, self.training), mix)
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


@pytest.mark.parametrize("nesterov", [False, True])
def test_descend_is_torch_sgd_to_the_bit(nesterov):
    torch.manual_seed(0)
    learners = [nn.Linear(4, 3), nn.Linear(4, 3)]
    w = [dict(m.named_parameters()) for m in learners]
    w = [{k: v.detach().clone() for k, v in learner.items()} for learner in w]
    optimiser = torch.optim.SGD(
        [p for m in learners for p in m.parameters()], 0.1, 0.9, 0, 0.01, nesterov=nesterov
    )
    velocity = None
    for _ in range(4):
        x = torch.randn(5, 4)
        for module in learners:
            module.zero_grad()
            (10 * module(x)).square().mean().backward()
        g = [{k: p.grad.clone() for k, p in m.named_parameters()} for m in learners]
        for module in learners:
            nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimiser.step()
        w, velocity = descend(w, g, velocity, Rate(0.1, 0.9, 0.01, clip=5.0, nesterov=nesterov))
    for learner, module in zip(w, learners, strict=True):
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(learner[name], parameter, rtol=1e-6, atol=1e-7)


class Calls:
    """Counts forward passes of a toy learner."""

    def __init__(self):
        self.count = 0
        calls = self

        class Counted(ToySupernet):
            def forward(self, x, mix):
                calls.count += 1
                return super().forward(x, mix)

        self.module = Counted


def run_step(method, via, order, calls):
    torch.manual_seed(0)
    problem = method(ToyMake(supernet=calls.module))
    rates = {x.variable: Rate(0.1, 0.9, 3e-4, 5.0) for x in problem.levels if x.variable != "A"}
    variables = dict(problem.variables)
    calls.count = 0
    velocities = {}
    search_step(
        problem.levels,
        variables,
        velocities,
        toy_batch(),
        rates=rates,
        virtual=rates,
        via=via,
        order=order,
        move=lambda name, g: [
            x.sub_(0.1 * y) for x, y in zip(leaves(variables[name]), leaves(g), strict=True)
        ],
    )
    return problem, variables, velocities


@pytest.mark.parametrize(
    ("method", "via", "order", "forwards"),
    [
        (Single(), FirstOrder(), "alphas-first", 2),  # exam, training
        (Single(), Exact(), "alphas-first", 3),  # virtual, exam, training
        (Single(), FiniteDifference(), "alphas-first", 5),  # and the pair
        (Single(), Exact(), "levels-first", 2),  # the virtual step is the real one
        (LBT(), Exact(), "levels-first", 3),  # training, labels, exam
        (LBT(), Exact(recompute=True), "levels-first", 5),
        (LBT(), FiniteDifference(sides=1), "levels-first", 5),
        (LBT(), FiniteDifference(), "levels-first", 7),
        (SGL(), Exact(), "levels-first", 10),  # 2 V, 2 labels, 4 W, 2 exams
        (SGL(), FirstOrder(), "levels-first", 10),
        (PAMKD(), Exact(), "levels-first", 10),  # 2 V, 2 W; 2 V, 2 W on groups; 2 exams
        (PAMKD(learners=3), FirstOrder(), "levels-first", 15),
        (MKD(), FirstOrder(), "alphas-first", 4),  # 2 exams, 2 training: peers are not asked again
        (KDCL(), FiniteDifference(), "alphas-first", 10),
        (OKDDip(learners=3), FirstOrder(), "alphas-first", 6),
    ],
)
def test_forward_passes_of_a_step_are_the_fewest(method, via, order, forwards):
    calls = Calls()
    run_step(method, via, order, calls)
    assert calls.count == forwards


@pytest.mark.parametrize("method", [Single(order="levels-first"), SGL(), LBT()])
def test_levels_first_adopts_the_virtual_steps_gradients(method):
    """Sharing gives the same bits as computing every real gradient anew, inner level first."""
    problem, variables, _ = run_step(method, Exact(), "levels-first", Calls())
    fresh = dict(problem.variables)
    torch.manual_seed(0)
    again = method(ToyMake(supernet=Calls().module))
    fresh, batch = dict(again.variables), toy_batch()
    for level in again.levels:
        if level.variable != "A":
            g, _, _ = own_gradient(level, fresh, batch)
            fresh[level.variable], _ = descend(
                fresh[level.variable], g, None, Rate(0.1, 0.9, 3e-4, 5.0)
            )
            for a, b in zip(
                leaves(fresh[level.variable]), leaves(variables[level.variable]), strict=True
            ):
                torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
