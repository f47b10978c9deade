"""PAMKD and the methods that it is measured against: their losses by hand, and what they refuse."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from test_multilevel import relative, setting
from toys import ToyMake, toy_batch
from tutelage.methods.afd import AFD
from tutelage.methods.cream import Cream, entered
from tutelage.methods.kdcl import KDCL, combine, correlations
from tutelage.methods.mkd import MKD
from tutelage.methods.okddip import OKDDip
from tutelage.methods.one import ONE
from tutelage.methods.pamkd import PAMKD
from tutelage.multilevel import hypergradient, own_gradient
from tutelage.spaces.base import Mix
from tutelage.virtual import Exact, FiniteDifference, Rate, leaves
from unrolled import unrolled


def made(method, images=7):
    """A method on toys: its problem, a batch, the losses by name, and all that they read."""
    torch.manual_seed(0)
    make = ToyMake()
    problem = method(make)
    levels = {level.name: level for level in problem.levels}
    seen = SimpleNamespace(
        **problem.variables,
        **{a: problem.variables[of] for x in problem.levels for a, of in x.aliases.items()},
    )
    return problem, toy_batch(images), levels, seen, make


def kl(p, q):
    """KL(p ‖ q) of two lists of rows, mean over rows."""
    rows = zip(p.tolist(), q.tolist(), strict=True)
    sums = [sum(a * math.log(a / b) for a, b in zip(*row, strict=True)) for row in rows]
    return sum(sums) / len(sums)


def answers(problem, seen, x, weights="W"):
    return [
        learner.net.forward(w, a, x)
        for learner, w, a in zip(problem.learners, getattr(seen, weights), seen.A, strict=False)
    ]


def alone(found, y):
    return sum(float(F.cross_entropy(logits, y)) for logits, _ in found)


def test_mkd_is_cross_entropy_and_the_peers_divergence():
    problem, batch, levels, seen, _ = made(MKD(learners=3, peer_weight=0.6))
    loss, _ = levels["learn"].loss(seen, batch)
    found = answers(problem, seen, batch.train.x)
    p = [logits.softmax(1) for logits, _ in found]
    taught = sum(kl(p[j], p[k]) for k in range(3) for j in range(3) if j != k)
    assert float(loss) == pytest.approx(alone(found, batch.train.y) + 0.6 * taught, rel=1e-12)


def test_mkd_with_the_mean_of_the_others_logits():
    problem, batch, levels, seen, _ = made(MKD(learners=3, target="mean", temperature=3.0))
    loss, _ = levels["learn"].loss(seen, batch)
    found = answers(problem, seen, batch.train.x)
    z = [logits for logits, _ in found]
    taught = 0.0
    for k in range(3):
        mean = sum(z[j] for j in range(3) if j != k) / 2
        taught += 9 * kl((mean / 3).softmax(1), (z[k] / 3).softmax(1))
    assert float(loss) == pytest.approx(alone(found, batch.train.y) + taught, rel=1e-12)


def test_a_peer_is_not_moved_by_what_it_teaches():
    """Every learner's gradient is that of its own loss, its peers' answers being data."""
    problem, batch, levels, seen, _ = made(MKD())
    gradient, _, _ = own_gradient(levels["learn"], problem.variables, batch)
    x, y, _ = batch.train
    (first, _), (second, _) = answers(problem, seen, x)
    for k, peer in ((0, second), (1, first)):
        w = {n: t.clone().requires_grad_() for n, t in problem.variables["W"][k].items()}
        z = problem.learners[k].net(w, problem.variables["A"][k], x)
        own = F.cross_entropy(z, y) + F.kl_div(
            z.log_softmax(1), peer.detach().softmax(1), reduction="batchmean"
        )
        expected = torch.autograd.grad(own, list(w.values()))
        assert relative(leaves(gradient[k]), expected) < 1e-10


def test_kdcls_teachers_by_hand():
    z = torch.tensor(
        [[[2.0, 0.0, 1.0], [0.0, 1.0, 0.0]], [[0.0, 3.0, 0.5], [1.0, 4.0, 2.0]]],
        dtype=torch.float64,
    )
    y = torch.tensor([0, 1])
    losses = [float(F.cross_entropy(each, y)) for each in z]
    assert combine(z, y, "naive").equal(z[losses.index(min(losses))])
    # less the target's own logit: (0, -2, -1) and (0, 3, 0.5); (-1, 0, -1) and (-3, 0, -2)
    expected = torch.tensor([[0.0, -2.0, -1.0], [-3.0, 0.0, -2.0]], dtype=torch.float64)
    assert combine(z, y, "minimum").equal(expected)
    errors = torch.tensor([[2.0, 1.0], [1.0, 4.0]], dtype=torch.float64)
    # C⁻¹ 1 = (3, 1) / 7
    torch.testing.assert_close(combine(z, y, "general", errors), 0.75 * z[0] + 0.25 * z[1])
    p = z.softmax(2)
    target = F.one_hot(y, 3)
    for k in range(2):
        for j in range(2):
            by_hand = sum(
                float((p[k, b, c] - target[b, c]) * (p[j, b, c] - target[b, c]))
                for b in range(2)
                for c in range(3)
            )
            assert float(correlations(z, y)[k, j]) == pytest.approx(by_hand / 2)


def test_kdcl_remembers_the_errors_on_validation_data():
    problem, batch, levels, seen, _ = made(KDCL(ensemble="general"))
    _, notes = levels["validate"].loss(seen, batch)
    variables = dict(problem.variables)
    problem.after_step(variables, batch, [{}, notes])
    now = correlations(torch.stack(notes["valid"]).detach(), batch.valid.y)
    torch.testing.assert_close(variables["C"], 0.99 * torch.eye(2).double() + 0.01 * now)


def test_one_is_the_branches_their_ensemble_and_the_divergence_from_it():
    problem, batch, levels, seen, make = made(ONE(ramp=80))
    make.clock.epoch = 20
    loss, _ = levels["learn"].loss(seen, batch)
    found = answers(problem, seen, batch.train.x)
    gate = seen.W[2]
    e = (found[0][1] + found[1][1]) / 2
    g = (e @ gate["weight"].T + gate["bias"]).softmax(1)
    z_e = sum(g[:, k : k + 1] * found[k][0] for k in range(2))
    taught = sum(9 * kl((z_e / 3).softmax(1), (z / 3).softmax(1)) for z, _ in found)
    expected = alone(found, batch.train.y) + float(F.cross_entropy(z_e, batch.train.y))
    expected += math.exp(-5 * 0.75**2) * taught
    assert float(loss) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("learners", [2, 3])
def test_okddips_peers_attend_and_a_leader_follows_the_mean(learners):
    problem, batch, levels, seen, _ = made(OKDDip(learners=learners, ramp=0))
    loss, notes = levels["learn"].loss(seen, batch)
    found = answers(problem, seen, batch.train.x)
    attention = seen.W[learners]
    z, taught = [logits for logits, _ in found], 0.0
    for i in range(2):
        rows = []
        for b in range(7):
            q = attention["query"] @ found[i][1][b]
            scores = [float(q @ (attention["key"] @ found[j][1][b])) for j in range(2)]
            share = [math.exp(s) / sum(map(math.exp, scores)) for s in scores]
            rows.append(share[0] * z[0][b] + share[1] * z[1][b])
        taught += 9 * kl((torch.stack(rows) / 3).softmax(1), (z[i] / 3).softmax(1))
    if learners == 3:
        taught += 9 * kl(((z[0] + z[1]) / 6).softmax(1), (z[2] / 3).softmax(1))
        assert notes["attention"][2].tolist() == [0.0, 0.0, 0.0]
    assert float(loss) == pytest.approx(alone(found, batch.train.y) + taught, rel=1e-12)
    torch.testing.assert_close(notes["attention"][:2].sum(1), torch.ones(2).double())


def test_afds_discriminators_and_what_deceives_them():
    method = AFD(learners=3, hidden=4, adversary_weight=0.5, temperature=1.0)
    problem, batch, levels, seen, _ = made(method)
    found = answers(problem, seen, batch.train.x)

    def judged(c, e):
        inner = F.leaky_relu(e @ c["inner"]["weight"].T + c["inner"]["bias"], 0.2)
        return inner @ c["outer"]["weight"].T + c["outer"]["bias"]

    told, deceived, taught = 0.0, 0.0, 0.0
    for k in range(3):
        peer = (k + 1) % 3
        own, theirs = judged(seen.C[k], found[k][1]), judged(seen.C[k], found[peer][1])
        told += float(((1 - theirs) ** 2).mean() + (own**2).mean())
        deceived += float(((1 - own) ** 2).mean())
        taught += kl(found[peer][0].softmax(1), found[k][0].softmax(1))
    assert float(levels["discriminate"].loss(seen, batch)) == pytest.approx(told, rel=1e-12)
    loss, _ = levels["learn"].loss(seen, batch)
    expected = alone(found, batch.train.y) + taught + 0.5 * deceived
    assert float(loss) == pytest.approx(expected, rel=1e-12)


# PAMKD ------------------------------------------------------------------------------------------


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
    problem.after_step(variables, batch, [{"train": []}, notes])
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


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: PAMKD(group_size=1), "group_size = 1"),
        (lambda: PAMKD(knowledge="group"), "knowledge = 'group': must be one of groups, labels"),
        (lambda: PAMKD(gate_memory=1.5), "gate_memory = 1.5: must lie between 0 and 1"),
        (lambda: PAMKD(first_stage="none", second_stage="mkd"), "that is method mkd itself"),
        (lambda: PAMKD(second_stage="afd", learners=1), "no peer to deceive"),
        (lambda: MKD(target="mean", knowledge="groups"), "take divergence or labels"),
        (lambda: MKD(temperature=0.0), "temperature = 0.0"),
        (lambda: KDCL(ensemble="best"), "ensemble = 'best': must be one of naive, linear"),
        (lambda: ONE(learners=0), "learners = 0"),
        (lambda: OKDDip(reduction=0), "reduction = 0"),
        (lambda: AFD(learners=1), "learners = 1: must be a number of at least 2"),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()


# Cream ------------------------------------------------------------------------------------------


def filled(problem, losses=(2.0, 1.0)):
    """A board with two paths of the toy: operations (0, 1) and (2, 2) of its two edges."""
    board = problem.variables["board"]
    for place, operations in enumerate([(0, 1), (2, 2)]):
        path = {"normal": F.one_hot(torch.tensor(operations), 3).double()}
        board = entered(board, path, torch.tensor(losses[place]).double())
    return board


def test_cream_weighs_the_best_matching_paths_answer_against_the_labels():
    problem, batch, levels, seen, _ = made(Cream(board=3, warmup=0.0, judged=0.5))
    seen.board = filled(problem)
    loss, notes = levels["learn"].loss(seen, batch)
    x, y, _ = batch.train
    net, w, theta = problem.learners[0].net, seen.w, seen.A["match"]
    z = net(w, seen.A["alphas"], x)
    answers, rho = [], []
    for operations in [(0, 1), (2, 2)]:
        path = {"normal": F.one_hot(torch.tensor(operations), 3).double()}
        answers.append(net.under(w, Mix(path), x)[0])
        part = net.under(w, Mix(path), x[:3])[0] - z[:3]
        rho.append(float((part @ theta["weight"].T + theta["bias"]).mean().sigmoid()))
    best = rho.index(max(rho))
    p, q = answers[best].softmax(1), z.log_softmax(1)
    taught = -float((p * q).sum(1).mean())
    expected = 0.5 * (rho[best] * taught + (2 - rho[best]) * float(F.cross_entropy(z, y)))
    assert float(loss) == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(notes["labels"][0][0], answers[best])


def test_creams_matching_learns_through_the_students_step_and_equals_the_unroll():
    # (of a whole batch the toy's last layer, normalised, has the same mean whatever the path)
    problem, batch, *_ = made(Cream(board=2, warmup=0.0, judged=0.5))
    variables = {**problem.variables, "board": filled(problem)}
    rates = {"w": Rate(0.3, 0.9, 0.03)}
    found = hypergradient(problem.levels, variables, batch, rates, Exact())
    expected = unrolled(problem.levels, variables, batch, rates)
    assert relative(leaves(found.gradient), expected) < 1e-8
    assert float(found.gradient["match"]["weight"].norm()) > 1e-6
    shifted = hypergradient(problem.levels, variables, batch, rates, FiniteDifference(1e-4))
    assert relative(leaves(shifted.gradient), expected) < 1e-3


def test_the_board_takes_the_better_and_none_twice():
    problem, *_ = made(Cream(board=2))
    board = filled(problem)
    assert int(board["filled"]) == 2
    assert board["loss"].tolist() == [2.0, 1.0]

    def path(*operations):
        return {"normal": F.one_hot(torch.tensor(operations), 3).double()}

    assert entered(board, path(1, 1), torch.tensor(2.5)) is board  # worse than all
    assert entered(board, path(2, 2), torch.tensor(0.1)) is board  # there already
    better = entered(board, path(1, 1), torch.tensor(0.5))
    assert better["loss"].tolist() == [0.5, 1.0]
    assert better["paths"]["normal"][0].equal(path(1, 1)["normal"])
    assert board["loss"].tolist() == [2.0, 1.0]  # the old one is left as it was


def test_cream_measures_a_path_of_its_mix_after_every_step():
    problem, batch, _, _, _ = made(Cream(board=2))
    variables = dict(problem.variables)
    torch.manual_seed(0)
    problem.after_step(variables, batch, [])
    board = variables["board"]
    assert int(board["filled"]) == 1
    rows = board["paths"]["normal"][0]
    assert rows.sum(1).tolist() == [1.0, 1.0]
    net = problem.learners[0].net
    z = net.under(variables["w"], Mix({"normal": rows}), batch.valid.x)[0]
    assert float(board["loss"][0]) == pytest.approx(float(F.cross_entropy(z, batch.valid.y)))
