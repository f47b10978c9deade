"""Cream: its board, and how the matching learns."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from problems import made, relative
from tutelage.methods.cream import Cream, entered
from tutelage.multilevel import hypergradient
from tutelage.spaces.base import Mix
from tutelage.virtual import Exact, FiniteDifference, Rate, leaves
from unrolled import unrolled


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
