"""Cream: its board, how the matching learns, and paths as students."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from problems import made, relative
from test_search import TINY, KilledError, killed_at, same_runs
from toys import CLASSES, EDGES, OPS, ToyMake, ToyRelaxation, toy_batch
from tutelage.config import Run
from tutelage.extras import AfterStep, Probe, Seeds
from tutelage.methods.board import empty, entered, paths_of
from tutelage.methods.cream import Cream
from tutelage.multilevel import hypergradient, search_step
from tutelage.problem import Net
from tutelage.run.job import checkpoint
from tutelage.run.search import search_run
from tutelage.run.supernet.penalty import without_alphas
from tutelage.searches.evolution import Evolution
from tutelage.spaces.base import ArchWeights
from tutelage.trees import leaves
from tutelage.virtual import Exact, FiniteDifference, Rate
from unrolled import unrolled
from written_runs import read_rows


def path_of(*operations):
    return {"operations": {"normal": F.one_hot(torch.tensor(operations), OPS).double()}}


def filled(problem, losses=(2.0, 1.0)):
    """A board with two paths of the toy: operations (0, 1) and (2, 2) of its two edges."""
    board = problem.variables["board"]
    for place, operations in enumerate([(0, 1), (2, 2)]):
        board = entered(board, path_of(*operations), losses[place], 0.0)
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
        arch = ArchWeights(**path_of(*operations))
        answers.append(net.under(w, arch, x)[0])
        part = net.under(w, arch, x[:3])[0] - z[:3]
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
    assert entered(board, path_of(1, 1), 2.5, 0.0) is board  # worse than all
    assert entered(board, path_of(2, 2), 0.1, 0.0) is board  # there already
    better = entered(board, path_of(1, 1), 0.5, 0.0)
    assert better["loss"].tolist() == [0.5, 1.0]
    assert paths_of(better)[0]["operations"]["normal"].equal(path_of(1, 1)["operations"]["normal"])
    assert board["loss"].tolist() == [2.0, 1.0]  # the old one is left as it was


def test_a_path_replaces_the_worst_that_it_beats_at_no_more_flops():
    board = empty(path_of(0, 0), 3)
    for path, loss, cost in [((0, 0), 3.0, 10.0), ((0, 1), 2.0, 30.0), ((0, 2), 1.0, 50.0)]:
        board = entered(board, path_of(*path), loss, cost)

    def after(loss, cost):
        found = entered(board, path_of(1, 1), loss, cost)
        return found["loss"].tolist(), found["cost"].tolist()

    assert after(0.5, 10.0) == ([0.5, 2.0, 1.0], [10.0, 30.0, 50.0])  # equal costs are no more
    assert after(0.5, 20.0) == ([3.0, 0.5, 1.0], [10.0, 20.0, 50.0])  # larger than the worst
    assert after(0.5, 40.0) == ([3.0, 2.0, 0.5], [10.0, 30.0, 40.0])
    assert after(0.5, 60.0) == ([3.0, 2.0, 1.0], [10.0, 30.0, 50.0])  # better, and too large
    assert after(2.5, 20.0) == ([3.0, 2.0, 1.0], [10.0, 30.0, 50.0])  # small, and no better
    assert after(2.5, 5.0) == ([2.5, 2.0, 1.0], [5.0, 30.0, 50.0])


def test_cream_measures_a_path_of_its_mix_after_every_step():
    problem, batch, _, _, _ = made(Cream(board=2))
    variables = dict(problem.variables)
    torch.manual_seed(0)
    problem.extra(AfterStep).call(variables, batch, [])
    board = variables["board"]
    assert int(board["filled"]) == 1
    rows = board["paths"]["operations"]["normal"][0]
    assert rows.sum(1).tolist() == [1.0, 1.0]
    net = problem.learners[0].net
    z = net.under(variables["w"], ArchWeights({"normal": rows}), batch.valid.x)[0]
    assert float(board["loss"][0]) == pytest.approx(float(F.cross_entropy(z, batch.valid.y)))


# Sampled paths ----------------------------------------------------------------------------------


class ToySampled(ToyRelaxation):
    """Draws one operation for every edge."""

    def alphas(self):
        return {}

    def relax(self, alphas, clock):
        return self.paths(1)[0]

    def paths(self, count):
        return [arch_of(torch.randint(OPS, (EDGES,))) for _ in range(count)]


class SampledMake(ToyMake):
    """Operations of the toy cost 1, 10 and 100."""

    def supernet(self):
        return Net(lambda: self.module().double(), ToySampled(), self.clock)

    def flops_of(self, arch):
        return float(arch.operations["normal"] @ torch.tensor([1.0, 10.0, 100.0]).double() @ ONES)


ONES = torch.ones(EDGES, dtype=torch.float64)


def arch_of(operations):
    rows = F.one_hot(torch.as_tensor(operations), OPS).double()
    return ArchWeights({"normal": rows}, edges={"normal": ONES.clone()})


def tree_of(operations):
    arch = arch_of(operations)
    return {"operations": arch.operations, "edges": arch.edges}


def sampled(method, path=(2, 0), board=((0, 1), (2, 2))):
    """A problem of paths, with what a loss reads: a path to train, and a board."""
    torch.manual_seed(0)
    problem = without_alphas(method(SampledMake()))
    variables = {**problem.variables, "path": tree_of(path)}
    for place, operations in enumerate(board):
        entry = (tree_of(operations), 3.0 - place, 1000.0)
        variables["board"] = entered(variables["board"], *entry)
    return problem, variables, toy_batch(7)


def rho_of(net, variables, operations, student, x):
    """ρ of a path of the board, as the docstring says it."""
    theta, w = variables["A"]["match"], variables["w"]
    apart = net.under(w, arch_of(operations), x)[0] - student
    return float((apart @ theta["weight"].T + theta["bias"]).mean().sigmoid())


def test_the_student_is_the_sampled_path():
    problem, variables, batch = sampled(Cream(board=3, warmup=0.0, judged=0.5))
    loss, notes = problem.levels[0].loss(SimpleNamespace(**variables), batch)
    x, y, _ = batch.train
    net, w = problem.learners[0].net, variables["w"]
    z = net.under(w, arch_of((2, 0)), x)[0]
    rho = [rho_of(net, variables, path, z[:3], x[:3]) for path in ((0, 1), (2, 2))]
    best = rho.index(max(rho))
    teacher = net.under(w, arch_of(((0, 1), (2, 2))[best]), x)[0]
    taught = -float((teacher.softmax(1) * z.log_softmax(1)).sum(1).mean())
    expected = 0.5 * (rho[best] * taught + (2 - rho[best]) * float(F.cross_entropy(z, y)))
    assert float(loss) == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(notes["students"], z.unsqueeze(0))
    torch.testing.assert_close(notes["teacher"], teacher)


def test_before_the_board_teaches_the_student_learns_from_labels():
    problem, variables, batch = sampled(Cream(warmup=0.5))
    loss, notes = problem.levels[0].loss(SimpleNamespace(**variables), batch)
    x, y, _ = batch.train
    z = problem.learners[0].net.under(variables["w"], arch_of((2, 0)), x)[0]
    assert float(loss) == pytest.approx(float(F.cross_entropy(z, y)), rel=1e-12)
    assert set(notes) == {"students"}


@pytest.mark.parametrize("rate", [Rate(0.3), Rate(0.3, 0.9, 0.03)])
def test_matchings_hypergradient_on_paths_equals_the_unroll(rate):
    problem, variables, batch = sampled(Cream(board=2, warmup=0.0, judged=0.5))
    found = hypergradient(problem.levels, variables, batch, {"w": rate}, Exact())
    expected = unrolled(problem.levels, variables, batch, {"w": rate})
    assert relative(leaves(found.gradient), expected) < 1e-8
    assert float(found.gradient["match"]["weight"].norm()) > 1e-6
    assert float(found.terms["validate"]) == 0  # only through the student's step
    shifted = hypergradient(problem.levels, variables, batch, {"w": rate}, FiniteDifference(1e-4))
    assert relative(leaves(shifted.gradient), expected) < 1e-3


@pytest.mark.parametrize(("every", "moves"), [(3, [0, 3, 6]), (1, list(range(8))), (0, [])])
def test_the_matching_moves_once_in_so_many_iterations(every, moves):
    problem, variables, batch = sampled(Cream(board=2, warmup=0.2, every=every))
    assert not any(level.trains(1) for level in problem.levels if level.variable == "A")
    moved = []
    for iteration in range(8):
        search_step(
            [level for level in problem.levels if level.trains(2)],
            variables,
            {},
            batch,
            rates={"w": Rate(0.1)},
            virtual={"w": Rate(0.1)},
            via=Exact(),
            order=problem.order,
            move=lambda name, gradient, at=iteration: moved.append(at),
            iteration=iteration,
        )
    assert moved == moves


def test_the_path_that_was_trained_is_judged_and_another_is_drawn():
    problem, variables, batch = sampled(Cream(board=3), board=())
    torch.manual_seed(0)
    problem.extra(AfterStep).call(variables, batch, [])
    (path,) = paths_of(variables["board"])
    torch.testing.assert_close(path, tree_of((2, 0)))
    x, y, _ = batch.valid
    z = problem.learners[0].net.under(variables["w"], arch_of((2, 0)), x)[0]
    assert float(variables["board"]["loss"][0]) == pytest.approx(float(F.cross_entropy(z, y)))
    assert float(variables["board"]["cost"][0]) == 101.0
    torch.manual_seed(0)
    (drawn,) = problem.learners[0].net.paths(1)
    torch.testing.assert_close(variables["path"]["operations"], drawn.operations)
    (seed,) = problem.extra(Seeds).ask(variables)
    assert seed.operations["normal"].equal(arch_of((2, 0)).operations["normal"])
    assert seed.chosen == {"normal": [[2], [0]]}


def test_a_probe_lets_the_best_match_of_the_fitted_images_teach_others():
    problem, variables, batch = sampled(Cream(board=3))
    torch.manual_seed(3)
    message = problem.extra(Probe).ask(variables, batch.train, batch.valid)
    torch.manual_seed(3)
    net, w = problem.learners[0].net, variables["w"]
    students = net.paths(2)
    expected = torch.stack([net.under(w, arch, batch.valid.x)[0] for arch in students])
    torch.testing.assert_close(message.students, expected)
    x, board = batch.train.x, ((0, 1), (2, 2))
    answers = [net.under(w, arch, x)[0] for arch in students]
    rho = [sum(rho_of(net, variables, path, z, x) for z in answers) for path in board]
    best = board[rho.index(max(rho))]
    torch.testing.assert_close(message.teacher, net.under(w, arch_of(best), batch.valid.x)[0])
    _, without, _ = sampled(Cream(), board=())
    assert problem.extra(Probe).ask(without, batch.train, batch.valid).teacher is None
    assert message.students.shape == (2, 7, CLASSES)


@pytest.mark.slow
def test_killed_and_resumed_is_the_run_left_alone_and_evolves_from_its_board(tmp_path, monkeypatch):
    run = Run(
        **{**TINY, "cells": None, "limit_batches": 3, "via": "exact"},
        method={"name": "cream", "board": 3, "warmup": 0.0, "every": 2},
        search={"name": "single-path"},
        space={"name": "nasbench-macro"},
        evolution=Evolution(population=4, generations=1, images=20, judged=20),
        save_every=0.0,
    )
    search_run(run, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        killed_at(patch, 5)  # in the second epoch
        search_run(run, tmp_path / "killed")
    search_run(run, tmp_path / "killed", resume=True)
    same_runs(tmp_path / "whole", tmp_path / "killed")

    board = checkpoint.load(tmp_path / "whole")["work"]["variables"]["board"]
    columns = board["paths"]["operations"]["chain"].argmax(-1).tolist()
    asked = read_rows(tmp_path / "whole" / "evolution")
    assert [row["encoding"] for row in asked[:3]] == columns and len(columns) == 3
    assert [row.get("given") for row in asked] == [True] * 3 + [None] * 2  # the last: the best
    rows = read_rows(tmp_path / "whole")
    ends = [row for row in rows if row["event"] == "epoch"]
    assert (
        ends[1]["gradient"]["validate"]["learn"] > 0 == ends[1]["gradient"]["validate"]["validate"]
    )
    assert {"teacher_accuracy", "gap", "students_accuracy"} <= set(ends[1]["probe"])
    assert "the path of the board that the matching chooses" in ends[1]["taught_by"]
    assert {"teacher_accuracy", "gap"} <= set(ends[1]["teaching"])
