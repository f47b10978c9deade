"""The methods that PAMKD is measured against: their losses by hand, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from problems import alone, answers, kl, made, relative
from test_search import TINY, work_of
from tutelage.extras import AfterStep
from tutelage.methods.afd import AFD
from tutelage.methods.kdcl import KDCL, combine, correlations
from tutelage.methods.mkd import MKD
from tutelage.methods.okddip import OKDDip
from tutelage.methods.one import ONE
from tutelage.multilevel import own_gradient
from tutelage.searches.pdarts import PDarts
from tutelage.trees import leaves


def test_mkd_is_cross_entropy_and_the_peers_divergence():
    problem, batch, levels, seen, _ = made(MKD(learners=3, peer_weight=0.6))
    loss, _ = levels["learn"].loss(seen, batch)
    found = answers(problem, seen, batch.train.x)
    p = [logits.softmax(1) for logits, _ in found]
    teaching = sum(kl(p[j], p[k]) for k in range(3) for j in range(3) if j != k)
    assert float(loss) == pytest.approx(alone(found, batch.train.y) + 0.6 * teaching, rel=1e-12)


def test_mkd_with_the_mean_of_the_others_logits():
    problem, batch, levels, seen, _ = made(MKD(learners=3, target="mean", temperature=3.0))
    loss, _ = levels["learn"].loss(seen, batch)
    found = answers(problem, seen, batch.train.x)
    z = [logits for logits, _ in found]
    teaching = 0.0
    for k in range(3):
        mean = sum(z[j] for j in range(3) if j != k) / 2
        teaching += 9 * kl((mean / 3).softmax(1), (z[k] / 3).softmax(1))
    assert float(loss) == pytest.approx(alone(found, batch.train.y) + teaching, rel=1e-12)


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
    by_image = [
        min(z[:, b], key=lambda row, b=b: float(F.cross_entropy(row, y[b]))) for b in (0, 1)
    ]
    assert combine(z, y, "naive-by-image").equal(torch.stack(by_image))
    assert by_image[0].equal(z[0, 0]) and by_image[1].equal(z[1, 1])  # two learners teach
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


def test_kdcls_teachers_in_the_order_of_their_cross_entropy():
    """A choice for each image cannot be worse than one for the batch; nor can convex weights."""
    torch.manual_seed(0)
    y = torch.randint(5, (32,))
    z = torch.randn(3, 32, 5).double() + F.one_hot(y, 5)
    losses = [float(F.cross_entropy(each, y)) for each in z]
    naive, by_image, linear, minimum = (
        float(F.cross_entropy(combine(z, y, form), y))
        for form in ("naive", "naive-by-image", "linear", "minimum")
    )
    assert naive == min(losses)
    assert by_image == pytest.approx(
        sum(min(float(F.cross_entropy(z[k, b], y[b])) for k in range(3)) for b in range(32)) / 32
    )
    assert by_image < linear < naive
    assert minimum < by_image  # by class as well as by image


def test_kdcl_remembers_the_errors_on_validation_data():
    problem, batch, levels, seen, _ = made(KDCL(ensemble="general"))
    _, notes = levels["validate"].loss(seen, batch)
    variables = dict(problem.variables)
    problem.extra(AfterStep).call(variables, batch, [{}, notes])
    now = correlations(torch.stack(notes["valid"]).detach(), batch.valid.y)
    torch.testing.assert_close(variables["C"], 0.99 * torch.eye(2).double() + 0.01 * now)
    still = dict(variables)
    problem.extra(AfterStep).call(still, batch, [{}])  # as of frozen alphas
    assert still["C"] is variables["C"]


GENERAL = TINY | {"channels": 4, "batch_size": 16}


def test_kdcls_correlations_wait_for_frozen_alphas(tmp_path, monkeypatch):
    """PC-DARTS' alphas do not move in the first of three epochs; then C is that of Eq. 10."""
    settings = GENERAL | {"search": "pcdarts", "space": "nasbench201", "cells": 1, "epochs": 3}
    work = work_of(settings, tmp_path, monkeypatch, KDCL(ensemble="general"))
    start = work.phase.variables["C"].clone()
    assert start.equal(torch.eye(2))
    for _ in range(work.steps):
        work.advance()
        assert work.phase.variables["C"].equal(start)
    work.end_epoch()
    part = work.setup.streams.valid.batch(1, 0)  # alphas move first, by what W says before its step
    learners, s = work.phase.problem.learners, work.phase.variables
    logits = [
        learner.net(w, a, part.x) for learner, w, a in zip(learners, s["W"], s["A"], strict=True)
    ]
    work.advance()
    now = correlations(torch.stack(logits), part.y)
    torch.testing.assert_close(work.phase.variables["C"], 0.99 * start + 0.01 * now)
    assert not work.phase.variables["C"].equal(start)


@pytest.mark.slow
def test_kdcls_correlations_begin_afresh_in_every_phase_of_a_progressive_search(
    tmp_path, monkeypatch
):
    """P-DARTS' three phases of two epochs each start with one of frozen alphas."""
    settings = GENERAL | {"search": PDarts(deeper=(0, 0)), "epochs": 6, "limit_batches": 1}
    work = work_of(settings, tmp_path, monkeypatch, KDCL(ensemble="general"))
    moved = []
    for _ in range(6):
        work.advance()
        moved.append(not work.phase.variables["C"].equal(torch.eye(2)))
        work.end_epoch()
    assert moved == [False, True] * 3


def test_one_is_the_branches_their_ensemble_and_the_divergence_from_it():
    problem, batch, levels, seen, make = made(ONE(ramp=80))
    make.clock.epoch = 20
    loss, _ = levels["learn"].loss(seen, batch)
    found = answers(problem, seen, batch.train.x)
    gate = seen.W[2]
    e = (found[0][1] + found[1][1]) / 2
    g = (e @ gate["weight"].T + gate["bias"]).softmax(1)
    z_e = sum(g[:, k : k + 1] * found[k][0] for k in range(2))
    teaching = sum(9 * kl((z_e / 3).softmax(1), (z / 3).softmax(1)) for z, _ in found)
    expected = alone(found, batch.train.y) + float(F.cross_entropy(z_e, batch.train.y))
    expected += math.exp(-5 * 0.75**2) * teaching
    assert float(loss) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("learners", [2, 3])
def test_okddips_peers_attend_and_a_leader_follows_the_mean(learners):
    problem, batch, levels, seen, _ = made(OKDDip(learners=learners, ramp=0))
    loss, notes = levels["learn"].loss(seen, batch)
    found = answers(problem, seen, batch.train.x)
    attention = seen.W[learners]
    z, teaching = [logits for logits, _ in found], 0.0
    for i in range(2):
        rows = []
        for b in range(7):
            q = attention["query"] @ found[i][1][b]
            scores = [float(q @ (attention["key"] @ found[j][1][b])) for j in range(2)]
            share = [math.exp(s) / sum(map(math.exp, scores)) for s in scores]
            rows.append(share[0] * z[0][b] + share[1] * z[1][b])
        teaching += 9 * kl((torch.stack(rows) / 3).softmax(1), (z[i] / 3).softmax(1))
    if learners == 3:
        teaching += 9 * kl(((z[0] + z[1]) / 6).softmax(1), (z[2] / 3).softmax(1))
        assert notes["attention"][2].tolist() == [0.0, 0.0, 0.0]
    assert float(loss) == pytest.approx(alone(found, batch.train.y) + teaching, rel=1e-12)
    torch.testing.assert_close(notes["attention"][:2].sum(1), torch.ones(2).double())


def test_afds_discriminators_and_what_deceives_them():
    method = AFD(learners=3, hidden=4, adversary_weight=0.5, temperature=1.0)
    problem, batch, levels, seen, _ = made(method)
    found = answers(problem, seen, batch.train.x)

    def judged(c, e):
        inner = F.leaky_relu(e @ c["inner"]["weight"].T + c["inner"]["bias"], 0.2)
        return inner @ c["outer"]["weight"].T + c["outer"]["bias"]

    told, deceived, teaching = 0.0, 0.0, 0.0
    for k in range(3):
        peer = (k + 1) % 3
        own, theirs = judged(seen.C[k], found[k][1]), judged(seen.C[k], found[peer][1])
        told += float(((1 - theirs) ** 2).mean() + (own**2).mean())
        deceived += float(((1 - own) ** 2).mean())
        teaching += kl(found[peer][0].softmax(1), found[k][0].softmax(1))
    assert float(levels["discriminate"].loss(seen, batch)) == pytest.approx(told, rel=1e-12)
    loss, _ = levels["learn"].loss(seen, batch)
    expected = alone(found, batch.train.y) + teaching + 0.5 * deceived
    assert float(loss) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: MKD(target="mean", knowledge="groups"), "use divergence or labels"),
        (lambda: MKD(temperature=0.0), "temperature = 0.0"),
        (
            lambda: KDCL(ensemble="best"),
            "ensemble = 'best': must be one of naive, naive-by-image, linear",
        ),
        (lambda: ONE(learners=0), "learners = 0"),
        (lambda: OKDDip(reduction=0), "reduction = 0"),
        (lambda: AFD(learners=1), "learners = 1: must be a number of at least 2"),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()
