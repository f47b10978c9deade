"""PAMKD: its losses by hand, its gate, and what it refuses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from problems import alone, answers, kl, made, relative, setting
from tutelage.ensembling import differentiable_weights
from tutelage.extras import AfterStep
from tutelage.methods import kdcl
from tutelage.methods.kdcl import combine
from tutelage.methods.pamkd import PAMKD
from tutelage.multilevel import hypergradient, own_gradient
from tutelage.trees import leaves, rebuild
from tutelage.virtual import Exact, descend
from unrolled import unrolled


def test_pamkds_second_stage_by_loops():
    method = PAMKD(learners=3, group_size=2, margin=0.2, peer_weight=0.5)
    problem, batch, levels, seen, _ = made(method)
    torch.manual_seed(5)
    loss, notes = levels["learn_together"].loss(seen, batch)
    torch.manual_seed(5)
    groups = torch.randperm(7)[:6].view(3, 2).tolist()
    teachers = answers(problem, seen, batch.valid.x, "V")
    students = answers(problem, seen, batch.valid.x)
    losses = [float(F.cross_entropy(z, batch.valid.y)) for z, _ in teachers]

    def s(e, group):
        return float(F.cosine_similarity(e[group[0]], e[group[1]], dim=0))

    expected = alone(answers(problem, seen, batch.train.x), batch.train.y)
    for k in range(3):
        for j in range(3):
            d = max(0.0, losses[k] - losses[j])
            hinges = 0.0
            for one in groups:
                for two in groups:
                    ordered = s(teachers[j][1], one) - s(teachers[j][1], two)
                    if ordered > 0:
                        fitted = s(students[k][1], one) - s(students[k][1], two)
                        hinges += max(0.0, 0.2 - ordered * fitted)
            expected += 0.5 * d * hinges
            if j != k:
                assert float(notes["transfer"][k, j]) == pytest.approx(hinges, rel=1e-9)
                assert float(notes["gate"][k, j]) == pytest.approx(d, rel=1e-9, abs=1e-15)
    assert float(loss) == pytest.approx(expected, rel=1e-12)


def test_the_gate_is_closed_to_a_worse_peer_and_its_derivative_right_on_both_sides():
    problem, batch, levels, seen, _ = made(PAMKD(group_size=2, margin=0.2))
    names = list(problem.variables["V"][0])
    teachers = answers(problem, seen, batch.valid.x, "V")
    losses = [float(F.cross_entropy(z, batch.valid.y)) for z, _ in teachers]
    better = losses.index(min(losses))
    worse = 1 - better
    torch.manual_seed(2)
    _, notes = levels["learn_together"].loss(seen, batch)
    assert float(notes["gate"][better, worse]) == 0.0
    assert float(notes["gate"][worse, better]) == pytest.approx(losses[worse] - losses[better])

    def gates(shift):
        """Both gates, with the worse learner's first weights shifted along its loss's gradient."""
        moved = [dict(tree) for tree in problem.variables["V"]]
        moved[worse][names[0]] = moved[worse][names[0]] + shift
        seen.V = moved
        torch.manual_seed(2)
        gate = levels["learn_together"].loss(seen, batch)[1]["gate"]
        return gate[worse, better], gate[better, worse]

    w = problem.variables["V"][worse][names[0]].clone().requires_grad_()
    net, a = problem.learners[worse].net, problem.variables["A"][worse]
    own = F.cross_entropy(
        net({**problem.variables["V"][worse], names[0]: w}, a, batch.valid.x), batch.valid.y
    )
    (slope,) = torch.autograd.grad(own, w)
    step = torch.zeros_like(w, requires_grad=True)
    open_, closed = gates(step)
    (found,) = torch.autograd.grad(open_, step, retain_graph=True)
    torch.testing.assert_close(found, slope)  # d (L_worse - L_better)+ on the open side
    (found,) = torch.autograd.grad(closed, step)
    assert float(found.abs().max()) == 0.0  # and nothing on the closed one
    direction = slope / slope.norm()
    up, down = (float(gates(sign * 1e-6 * direction)[0]) for sign in (1, -1))
    assert (up - down) / 2e-6 == pytest.approx(float(slope.norm()), rel=1e-5)


@pytest.mark.parametrize("learners", [1, 2, 3])
def test_pamkds_hypergradient_passes_gate_and_similarities(learners):
    method = PAMKD(learners=learners, group_size=2, margin=0.3, peer_weight=20.0)
    levels, variables, batch, rates, _ = setting(method)
    torch.manual_seed(1)
    found = hypergradient(levels, variables, batch, rates, Exact())
    torch.manual_seed(1)
    expected = unrolled(levels, variables, batch, rates)
    assert relative(leaves(found.gradient), expected) < 1e-8
    through_v = float(found.terms.get("learn_alone", 0.0))
    assert (through_v > 1e-4) == (learners > 1)
    assert (float(found.terms["learn_together: A_peers"]) > 1e-4) == (learners > 1)


def test_a_real_step_moves_only_its_own_variable_through_its_own_loss():
    """Neither gate nor teachers carry a gradient into W's step: V and A are given there."""
    problem, batch, levels, _, _ = made(PAMKD(group_size=2))
    torch.manual_seed(0)
    gradient, _, _ = own_gradient(levels["learn_together"], problem.variables, batch)
    assert all(not x.requires_grad for x in leaves(problem.variables))
    assert len(leaves(gradient)) == len(leaves(problem.variables["W"]))


def test_the_gate_remembers_losses_where_it_is_told_to():
    problem, batch, levels, seen, _ = made(PAMKD(group_size=2, gate_memory=0.75))
    seen.losses = torch.tensor([4.0, 0.0]).double()
    torch.manual_seed(0)
    _, notes = levels["learn_together"].loss(seen, batch)
    now = notes["losses"]
    difference = 0.75 * 4.0 + 0.25 * float(now[0] - now[1])
    assert float(notes["gate"][0, 1]) == pytest.approx(difference)
    variables = {**problem.variables, "losses": seen.losses}
    problem.extra(AfterStep).call(variables, batch, [{"train": []}, notes])
    torch.testing.assert_close(variables["losses"], 0.75 * seen.losses + 0.25 * now)


def test_without_a_first_stage_w_stands_for_v():
    problem, batch, levels, seen, _ = made(PAMKD(first_stage="none", group_size=2))
    assert set(problem.variables) == {"W", "A"}
    torch.manual_seed(0)
    _, notes = levels["learn_together"].loss(seen, batch)
    losses = [
        float(F.cross_entropy(z, batch.valid.y)) for z, _ in answers(problem, seen, batch.valid.x)
    ]
    assert float(notes["gate"].sum()) == pytest.approx(abs(losses[0] - losses[1]))


@pytest.mark.parametrize("second_stage", ["mkd", "kdcl", "afd"])
def test_another_second_stage_is_taught_by_v_without_scrutiny(second_stage):
    problem, batch, levels, seen, _ = made(PAMKD(second_stage=second_stage, peer_weight=0.5))
    loss, _ = levels["learn_together"].loss(seen, batch)
    x, y, _ = batch.train
    teachers, students = answers(problem, seen, x, "V"), answers(problem, seen, x)
    if second_stage == "kdcl":
        ensemble = combine(torch.stack([z for z, _ in teachers]), y, "linear")
        taught = sum(kl(ensemble.softmax(1), z.softmax(1)) for z, _ in students)
    else:
        taught = sum(kl(teachers[1 - k][0].softmax(1), students[k][0].softmax(1)) for k in range(2))
    if second_stage == "afd":
        for c, (_, e) in zip(seen.C, students, strict=True):
            inner = F.leaky_relu(e @ c["inner"]["weight"].T + c["inner"]["bias"], 0.2)
            judged = inner @ c["outer"]["weight"].T + c["outer"]["bias"]
            taught += float(((1 - judged) ** 2).mean())
    assert float(loss) == pytest.approx(alone(students, y) + 0.5 * taught, rel=1e-10)


@pytest.mark.parametrize(("learners", "seed"), [(2, 1), (2, 4), (3, 0), (3, 4)])
def test_the_ensembles_weights_are_a_function_of_the_alphas(learners, seed, monkeypatch):
    """Against central differences of the whole objective; with w held it is 5 to 80 % off."""
    method = PAMKD(learners=learners, second_stage="kdcl", peer_weight=1.0)
    levels, variables, batch, rates, _ = setting(method, seed=seed)
    found = leaves(hypergradient(levels, variables, batch, rates, Exact()).gradient)
    alphas = leaves(variables["A"])

    def objective(leaf, entry, step):
        moved = [x.clone() for x in alphas]
        moved[leaf].view(-1)[entry] += step
        values = {**variables, "A": rebuild(variables["A"], iter(moved))}
        for level in levels[:-1]:
            g, _, _ = own_gradient(level, values, batch)
            values[level.variable] = descend(values[level.variable], g, None, rates["W"])[0]
        return own_gradient(levels[-1], values, batch)[1]

    expected = [torch.zeros_like(x) for x in alphas]
    for leaf, slopes in enumerate(expected):
        for entry in range(slopes.numel()):
            rise = objective(leaf, entry, 1e-5) - objective(leaf, entry, -1e-5)
            slopes.view(-1)[entry] = rise / 2e-5
    assert relative(found, expected) < 1e-4

    def held(*given):
        return differentiable_weights(*given).detach()

    monkeypatch.setattr(kdcl, "differentiable_weights", held)
    without = leaves(hypergradient(levels, variables, batch, rates, Exact()).gradient)
    assert relative(without, expected) > 0.04


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: PAMKD(group_size=1), "group_size = 1"),
        (lambda: PAMKD(knowledge="group"), "knowledge = 'group': must be one of groups, labels"),
        (lambda: PAMKD(gate_memory=1.5), "gate_memory = 1.5: must be between 0 and 1"),
        (lambda: PAMKD(first_stage="none", second_stage="mkd"), "that is method mkd itself"),
        (lambda: PAMKD(second_stage="afd", learners=1), "no peer to deceive"),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()
