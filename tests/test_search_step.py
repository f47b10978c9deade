"""One search iteration: what it descends by, its forward passes, and what it shares."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from problems import METHODS, made
from toys import ToyMake, ToySupernet, toy_batch
from tutelage.methods.kdcl import KDCL
from tutelage.methods.lbt import LBT
from tutelage.methods.mkd import MKD
from tutelage.methods.okddip import OKDDip
from tutelage.methods.pamkd import PAMKD
from tutelage.methods.sgl import SGL
from tutelage.methods.single import Single
from tutelage.multilevel import Level, evaluate, hypergradient, own_gradient, search_step
from tutelage.run.supernet.optimizers import check_shared
from tutelage.trees import leaves
from tutelage.virtual import Exact, FiniteDifference, FirstOrder, Rate, descend


@pytest.mark.parametrize("nesterov", [False, True])
def test_descend_is_torch_sgd(nesterov):
    torch.manual_seed(0)
    learners = [nn.Linear(4, 3).double(), nn.Linear(4, 3).double()]
    w = [dict(m.named_parameters()) for m in learners]
    w = [{k: v.detach().clone() for k, v in learner.items()} for learner in w]
    optimiser = torch.optim.SGD(
        [p for m in learners for p in m.parameters()], 0.1, 0.9, 0, 0.01, nesterov=nesterov
    )
    velocity = None
    for _ in range(4):
        x = torch.randn(5, 4, dtype=torch.float64)
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
            torch.testing.assert_close(learner[name], parameter, rtol=1e-12, atol=1e-12)


def test_descend_takes_empty_trees_and_keeps_types():
    rate = Rate(0.1, 0.9, 0.01, clip=5.0)
    assert descend({}, {}, None, rate) == ({}, {})
    assert descend([{}, {}], [{}, {}], None, rate) == ([{}, {}], [{}, {}])
    w = {"wide": torch.ones(2, dtype=torch.float64), "narrow": torch.ones(3)}
    new, velocity = descend(w, w, None, rate)
    for tree in (new, velocity):
        assert {k: x.dtype for k, x in tree.items()} == {k: x.dtype for k, x in w.items()}


class Calls:
    """Counts forward passes of a toy learner."""

    def __init__(self):
        self.count = 0
        calls = self

        class Counted(ToySupernet):
            def forward(self, x, arch):
                calls.count += 1
                return super().forward(x, arch)

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
        (Single(), FirstOrder(), "alphas-first", 2),  # validation loss, training
        (Single(), Exact(), "alphas-first", 3),  # virtual, validation loss, training
        (Single(), FiniteDifference(), "alphas-first", 5),  # and the pair
        (Single(), Exact(), "levels-first", 2),  # the virtual step is the real one
        (LBT(), Exact(), "levels-first", 3),  # training, labels, validation loss
        (LBT(), Exact(recompute=True), "levels-first", 5),
        (LBT(), FiniteDifference(sides=1), "levels-first", 5),
        (LBT(), FiniteDifference(), "levels-first", 7),
        (SGL(), Exact(), "levels-first", 10),  # 2 V, 2 labels, 4 W, 2 validation losses
        (SGL(), FirstOrder(), "levels-first", 10),
        (PAMKD(), Exact(), "levels-first", 10),  # 2 V, 2 W; 2 V, 2 W on groups; 2 validation losses
        (PAMKD(learners=3), FirstOrder(), "levels-first", 15),
        (
            MKD(),
            FirstOrder(),
            "alphas-first",
            4,
        ),  # 2 validation losses, 2 training: peers are not asked again
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
    """Sharing gives the same bits as computing every real gradient again, inner level first."""
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


def test_two_levels_of_a_variable_step_as_one_optimiser_does():
    """Three iterations of two losses in turn: torch's SGD, stepped twice, with one momentum."""
    torch.manual_seed(0)
    start = torch.randn(6, dtype=torch.float64)
    matrices = torch.randn(2, 6, 6, dtype=torch.float64)

    def first(s, batch):
        return (matrices[0] @ s.w).tanh().square().sum()

    def second(s, batch):
        return (matrices[1] @ s.w).cos().sum()

    def judge(s, batch):
        return (s.w * s.a).sum()

    parameter = nn.Parameter(start.clone())
    optimiser = torch.optim.SGD([parameter], 0.1, 0.9, 0, 0.01)
    for _ in range(3):
        for loss in (first, second):
            optimiser.zero_grad()
            loss(SimpleNamespace(w=parameter), None).backward()
            nn.utils.clip_grad_norm_(parameter, 0.5)
            optimiser.step()
    levels = [Level("w", first), Level("w", second), Level("a", judge, optimiser="alphas")]
    rates = {"w": Rate(0.1, 0.9, 0.01, clip=0.5)}
    for order in ("alphas-first", "levels-first"):
        variables, velocities = {"w": start.clone(), "a": torch.ones(6).double()}, {}
        for _ in range(3):
            search_step(
                levels,
                variables,
                velocities,
                None,
                rates=rates,
                virtual=rates,
                via=Exact(),
                order=order,
                move=lambda name, gradient: None,
            )
        torch.testing.assert_close(variables["w"], parameter.detach(), rtol=1e-12, atol=1e-12)


def learn(s, batch):
    return s.w.sum()


def learn_more(s, batch):
    return s.w.sum()


@pytest.mark.parametrize(
    ("one", "other", "sentence"),
    [
        ({}, {"clip": False}, "train w with clip = True and False: a variable has one rate"),
        ({"schedule": "constant"}, {}, "train w with schedule = 'constant' and 'cosine'"),
        ({"epochs": range(5)}, {}, r"train w with epochs = range\(0, 5\) and None"),
        ({"epochs": range(5)}, {"epochs": range(3, 9)}, "train w with epochs"),
    ],
)
def test_two_rates_of_one_variable_are_refused(one, other, sentence):
    levels = [Level("w", learn, **one), Level("w", learn_more, **other)]
    with pytest.raises(ValueError, match=f"levels learn and learn_more {sentence}"):
        check_shared(levels)


def test_levels_that_share_a_rate_or_no_epoch_are_taken():
    free = {"schedule": "constant", "clip": False}
    check_shared([Level("w", learn, **free), Level("w", learn_more, **free)])
    check_shared([Level("w", learn, **free), Level("v", learn_more)])
    early, late = {"epochs": range(5), "clip": False}, {"epochs": range(5, 9)}
    check_shared([Level("w", learn, **early), Level("w", learn_more, **late)])
    for method in METHODS.values():
        check_shared(method(ToyMake()).levels)


# The first-order own term of LBT ------------------------------------------------------------------


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("order", ["alphas-first", "levels-first"])
def test_lbts_first_order_term_is_of_the_weights_as_they_are(order, joint):
    """Before T's step where the alphas move first (release), after it where T does (paper)."""
    torch.manual_seed(0)
    problem = LBT(own_term="first-order", order=order, joint=joint)(ToyMake())
    batch, T, A = toy_batch(), problem.variables["T"], problem.variables["A"]
    rate = Rate(0.3, 0.9, 0.01)
    if order == "levels-first":
        g, _, _ = own_gradient(problem.levels[0], problem.variables, batch)
        T, _ = descend(T, g, None, rate)
    a = {group: x.clone().requires_grad_() for group, x in A.items()}
    own = nn.functional.cross_entropy(problem.learners[0].net(T, a, batch.valid.x), batch.valid.y)
    expected = torch.autograd.grad(own, list(a.values()))
    found = []
    rates = {"T": rate, "S": rate}
    search_step(
        problem.levels,
        dict(problem.variables),
        {},
        batch,
        rates=rates,
        virtual=rates,
        via=Exact(),
        order=order,
        move=lambda name, gradient: found.append(leaves(gradient)),
        joint=joint,
    )
    if joint:  # the student's term is that of its loss alone
        alone = [x for x in problem.levels if x.name != "validate_teacher"]
        student = hypergradient(alone, problem.variables, batch, rates, Exact()).gradient
        expected = [x + y for x, y in zip(expected, leaves(student), strict=True)]
    for x, y in zip(found[0], expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-12)


# Notes ------------------------------------------------------------------------------------------


def noting(s, batch):
    """Note what hangs on the graph, in every shape that notes have."""
    z = s.w * s.a
    return z.sum(), {"lone": z, "list": [z, 2 * z], "pair": ([z], batch), "dict": {"of": [z.exp()]}}


def exam(s, batch):
    return (s.w * s.a).square().sum(), {"seen": {"w": s.w, "product": [s.w * s.a]}}


def test_notes_are_cut_from_the_graph_wherever_they_lie():
    levels = [Level("w", noting), Level("a", exam, optimiser="alphas")]
    variables = {"w": torch.tensor([2.0, 3.0]), "a": torch.tensor([5.0, 7.0])}
    graph = {name: x.clone().requires_grad_() for name, x in variables.items()}
    truth = torch.tensor([0, 1])
    z = torch.tensor([10.0, 21.0])
    value, notes = evaluate(levels[0], graph, truth)
    assert value.requires_grad
    assert list(notes) == ["lone", "list", "pair", "dict"]
    expected = [z, z, 2 * z, z, truth, z.exp()]
    for note, x in zip(leaves(notes), expected, strict=True):
        assert torch.equal(note, x) and not note.requires_grad
    rates, batch = {"w": Rate(0.1)}, truth
    for via in (Exact(), Exact(recompute=True), FiniteDifference(), FirstOrder()):
        found = hypergradient(levels, variables, batch, rates, via)
        assert [list(noted) for noted in found.notes] == [list(notes), ["seen"]]
        assert not any(x.requires_grad for x in leaves(found.notes))
    _, _, noted = own_gradient(levels[0], variables, batch)
    assert not any(x.requires_grad for x in leaves(noted))


@pytest.mark.parametrize("method", METHODS)
def test_no_methods_notes_hold_on_to_a_graph(method):
    """They would keep all of it in memory to the end of the iteration."""
    problem, batch, levels, seen, _ = made(METHODS[method])
    for tree in problem.variables.values():
        for x in leaves(tree):
            x.requires_grad_(x.is_floating_point())
    for level in levels.values():
        value, notes = evaluate(level, vars(seen), batch)
        assert value.requires_grad
        assert not any(x.requires_grad for x in leaves(notes))
