"""The report of searches that sample paths: students, draws, ranking, evolution."""

import json
import math
import os
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sampled_runs import OPERATIONS, genotype, write_sampled
from test_report import report
from tutelage.benchmark.nasbench_macro import Table
from tutelage.benchmark.ranking import compare, correlations
from tutelage.methods.ennas import EnNAS
from tutelage.report import evolution, ranking
from tutelage.report.benchmarks import NASBENCH_MACRO
from tutelage.report.compared import compared
from tutelage.report.evolution import Candidate
from tutelage.report.marginals import Marginals, marginals
from tutelage.report.read import read_run
from tutelage.report.scatter import Limit, Points, scatter
from tutelage.report.status import status
from tutelage.report.students import at_the_end, students, taught_from
from tutelage.report.tables import as_table, comparison
from tutelage.run.search import search
from tutelage.searches import pareto
from tutelage.searches.evolution import Evolution
from tutelage.spaces.chain import NASBENCH_MACRO as MACRO
from tutelage.spaces.notation import read_macro
from tutelage.spaces.paths import genotype as genotype_of
from written_runs import read_rows, write_retraining, write_rows, write_search

TABLES = Path(os.environ.get("TUTELAGE_TEST_TABLES", ""), "nas-bench-macro_cifar10.json.xz")


def stage_of(path):
    return read_run(path).search


def change(path, edit):
    """Edit every row of a metrics.jsonl."""
    rows = read_rows(path)
    for row in rows:
        edit(row)
    write_rows(path, rows)


# Students and their teacher -----------------------------------------------------------------------


def test_the_last_epoch_by_hand(tmp_path):
    stage = stage_of(write_sampled(tmp_path / "run"))
    # students 0.2 + 0.5 * 11 / 12; the teacher 4 points above, 10 on what it is fitted to
    assert at_the_end(stage) == [
        ("validation images", "65.83 %", "69.83 %", "4.00", "3.10"),
        ("training batches", "65.83 %", "75.83 %", "10.00", "3.00"),
    ]
    captions = [each.caption for each in students(stage)]
    assert len(captions) == 3 and captions[0].endswith("the gap shaded")


def test_without_a_teacher_there_is_no_gap(tmp_path):
    run = write_sampled(tmp_path / "run", method="single")
    assert at_the_end(stage_of(run)) == []
    captions = [each.caption for each in students(stage_of(run))]
    assert captions == [
        "Accuracy of sampled sub-networks on validation images (%)",
        "Distance between the logits of two students",
    ]
    page = report(tmp_path, run)
    assert "Teacher and students" not in page.text and "gap to the teacher" not in page.text


@pytest.mark.parametrize(("warmup", "begin"), [(1 / 6, 2), (0.26, 4), (0.0, None), (1.0, None)])
def test_teaching_begins_where_the_warmup_ends(tmp_path, warmup, begin):
    run = write_sampled(tmp_path / "run", method="ennas")
    stage = stage_of(run)
    stage.settings["method"]["warmup"] = warmup
    taught = [epoch for epoch in range(12) if epoch >= warmup * 12]  # as the method asks
    assert [mark.x for mark in taught_from(stage)] == ([] if begin is None else [begin - 0.5])
    assert begin is None or taught[0] == begin


# What was drawn -----------------------------------------------------------------------------------


def one(shares, draws, group="chain"):
    shares = np.array(shares, dtype=float)
    return Marginals(group, OPERATIONS[: len(shares)], shares, np.array(draws))


def test_shares_are_weighted_by_draws(tmp_path):
    run = write_sampled(tmp_path / "run", done=2, scored=0, candidates=0, end=False)
    rows = read_rows(run)
    for row, draws, shares in zip(rows, (10, 30), ([0.2, 0.8, 0.0], [0.4, 0.2, 0.4]), strict=True):
        row["drawn"], row["draws"] = [{"chain": [shares] * 8}], [{"chain": [draws] * 8}]
    write_rows(run, rows)
    (found,) = marginals(stage_of(run))
    # (2 + 12, 8 + 6, 0 + 12) of 40
    assert found.shares == pytest.approx(np.array([[0.35], [0.35], [0.3]]).repeat(8, 1))
    assert found.draws.tolist() == [40] * 8 and found.operations == OPERATIONS
    for row in rows:
        del row["draws"], row["operations"]
    write_rows(run, rows)
    (found,) = marginals(stage_of(run))
    assert found.shares[:, 0] == pytest.approx([0.3, 0.5, 0.2])  # epochs count alike
    assert found.chance is None
    assert found.said().endswith("at most (operation 1 in layer 1).")


def test_deviations_by_hand():
    found = one([[0.5, 0.3], [0.3, 0.4], [0.2, 0.3]], [300, 300])
    third = 1 / 3
    apart = [0.5 - third, third - 0.3, third - 0.3, 0.4 - third, third - 0.2, third - 0.3]
    assert found.said() == (
        f"Shares deviate from uniform by {100 * sum(apart) / 6:.2f} percentage points in the mean "
        "and by 16.67 at most (identity in layer 1); 300 independent draws a layer would leave "
        f"{100 * math.sqrt(2 / math.pi * third * (1 - third) / 300):.2f}."
    )
    assert "in edge 1 of the normal cell" in one([[0.9], [0.1]], [9], "normal").said()
    exact = one(np.full((3, 4), round(1 / 3, 6)), [12] * 4)
    assert exact.said() == "Every operation was drawn as often as every other, to the draw."


def test_what_chance_leaves_is_what_simulated_draws_leave():
    generator = np.random.default_rng(0)
    draws = generator.multinomial(400, [1 / 3] * 3, size=(2000, 4)) / 400
    expected = one(np.full((3, 4), 1 / 3), [400] * 4).chance
    assert np.abs(draws - 1 / 3).mean() == pytest.approx(expected, rel=0.02)


def test_edges_with_operations_of_their_own(tmp_path):
    run = write_sampled(tmp_path / "run", done=1, scored=0, candidates=0, end=False)

    def narrow(row):
        row["operations"] = [{"normal": [["skip_connect", "none"], ["sep_conv_3x3", "none"]]}]
        row["drawn"] = [{"normal": [[1.0, 0.0], [1.0, 0.0]]}]
        row["draws"] = [{"normal": [5, 5]}]

    change(run, narrow)
    (found,) = marginals(stage_of(run))
    assert found.operations == ("skip_connect", "sep_conv_3x3")  # none cannot be drawn
    assert np.isnan(found.shares[[0, 1], [1, 0]]).all() and found.shares[0, 0] == 1
    assert found.uniform.tolist() == [1, 1]
    assert "as often as every other" in report(tmp_path, run).text


# Evolution ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_the_one_that_the_search_follows(seed):
    generator = np.random.default_rng(seed)
    found = [
        Candidate(0, float(x), float(y), float(z), (place,))
        for place, (x, y, z) in enumerate(generator.integers(8, size=(40, 3)))
    ]
    for cost in ("params", "multiply_adds"):
        scores = [(each.score, -getattr(each, cost)) for each in found]
        theirs = {scores[place] for place in pareto.front(scores)}
        members = evolution.front(found, cost)
        assert [(each.score, -getattr(each, cost)) for each in members] == sorted(theirs)
        best = max(found, key=lambda each: (each.score, -getattr(each, cost)))
        assert evolution.best(found, cost) == best == members[-1]


@pytest.mark.parametrize("objectives", ["accuracy", "accuracy-flops", "accuracy-params"])
def test_what_evolution_found_is_what_the_run_keeps(tmp_path, objectives):
    run = write_sampled(tmp_path / "run", objectives=objectives)
    stage = stage_of(run).evolution
    found = evolution.candidates(stage)
    assert len(found) == 24 and {each.generation for each in found} == {0, 1, 2, 3}
    best = max(each.score for each in found)
    first = max(each.score for each in found[:6])
    text = report(tmp_path, run).text
    assert f"24 architectures scored. By accuracy in the supernet the best has {best:.2f} %" in text
    assert f"the best of generation 0, which is random, has {first:.2f} %." in text
    rows = evolution.front_rows(stage)
    assert bool(rows) == (objectives != "accuracy") == ("Pareto front" in text)
    captions = [each.caption for each in evolution.evolved(stage)]
    name = "weights" if objectives == "accuracy-params" else "multiply-adds"
    assert captions[1:] == [f"By {name}: accuracy in the supernet (%)"]
    if rows:
        assert rows[0][0] == f"{best:.2f} %"
        assert [float(a[0][:-2]) > float(b[0][:-2]) for a, b in pairwise(rows)].count(False) == 0


def test_a_method_may_score_by_a_rule_of_its_own(tmp_path):
    run = write_sampled(tmp_path / "run", objectives="accuracy-flops")

    def rescore(row):
        for each in (row, row.get("evolution") or {}):
            if "accuracy" in each:
                each["score"] = -each.pop("accuracy")

    for path in (run, run / "evolution", run / "ranking"):
        change(path, rescore)
    stage = stage_of(run)
    worst = min(row["score"] for row in stage.evolution.of("step"))
    found = evolution.candidates(stage.evolution)
    assert min(each.score for each in found) == worst
    text = report(tmp_path, run).text
    best = f"{max(each.score for each in found):.4f}".replace("-", "−")
    assert f"By the method’s own score the best has {best}" in text
    assert "supernet accuracy" not in text and "%), by the method’s own score" in text
    assert len(ranking.pairs(stage)) == 20


def test_limits_are_drawn_where_they_are_near_and_named_where_they_are_far(tmp_path):
    run = write_sampled(tmp_path / "run", max_params=1.12, max_flops=5000.0)
    by_flops, by_params = list(evolution.evolved(stage_of(run).evolution))[1:]
    assert "limit 1.12<" in by_params.svg and "limit 5000 →" in by_flops.svg
    figure = scatter([Points("", [1.0, 2.0], [1.0, 2.0], "#000000")], "x", [Limit(2.2, "here")])
    assert [line.get_xdata()[0] for line in figure.axes[0].lines] == [2.2]
    far = scatter([Points("", [1.0, 2.0], [1.0, 2.0], "#000000")], "x", [Limit(9.0, "there")])
    assert not far.axes[0].lines and far.axes[0].get_xlim()[1] < 2.2


# Ranking ------------------------------------------------------------------------------------------


def test_the_figures_are_those_of_the_run(tmp_path):
    run = write_sampled(tmp_path / "run")
    stage = stage_of(run)
    pairs = ranking.pairs(stage)
    expected = compare([pair.scored for pair in pairs], [pair.true for pair in pairs])
    table = {name: supernet for name, supernet, _ in ranking.figures(stage)}
    assert table["Kendall’s tau"] == f"{expected.tau:.2f}"
    assert table["Its true rank among the 20"] == str(expected.rank)
    assert table["Of the first 10, truly among the best 10"] == f"{100 * expected.precision:.0f} %"
    assert table["Lost by training only the first 10 (points)"] == f"{expected.regret:.2f}"
    text = report(tmp_path, run).text
    assert f"Kendall’s tau {expected.tau:.2f}" in text
    assert "found by evolution" in ranking_svg(stage) and "first 10" in ranking_svg(stage)


def ranking_svg(stage):
    (figure,) = ranking.ranked(stage)
    return figure.svg


@pytest.mark.parametrize("digits", [0, 1, 6])
def test_the_first_are_those_that_the_figures_are_of(tmp_path, digits):
    run = write_sampled(tmp_path / "run")
    pairs = [
        ranking.Pair(round(pair.scored, digits - 1), pair.true)
        for pair in ranking.pairs(stage_of(run))
    ]
    expected = compare([pair.scored for pair in pairs], [pair.true for pair in pairs], 7)
    first, rest = ranking.apart(pairs, 7)
    assert len(first) == 7 and sorted(first + rest) == sorted(pairs)
    assert first[0].true == expected.accuracy
    best = max(pair.true for pair in pairs)
    assert best - max(pair.true for pair in first) == expected.regret
    seventh = sorted((pair.true for pair in pairs), reverse=True)[6]
    assert sum(pair.true >= seventh for pair in first) / 7 == expected.precision


@pytest.mark.skipif(not TABLES.is_file(), reason="TUTELAGE_TEST_TABLES has no NAS-Bench-Macro")
def test_the_baseline_is_that_of_the_table():
    table = Table(TABLES)
    tau, _ = correlations(table._flops, table._accuracy)
    assert NASBENCH_MACRO.by_multiply_adds == pytest.approx(tau, abs=5e-4)
    assert "a tau of 0.56" in ranking.baseline(NASBENCH_MACRO)


# The page -----------------------------------------------------------------------------------------


def test_one_run_shows_its_numbers(tmp_path):
    run = write_sampled(tmp_path / "run", seed=3)
    text = report(tmp_path, run).text
    end = read_rows(run)[-1]["evolution"]
    assert f"supernet accuracy {100 * end['accuracy']:.2f} %" in text
    assert "CIFAR-10 test 94.25 % rank 2,503 of 6,561" in text
    assert f"weights {end['params'] / 1e6:.2f} M" in text
    assert "students’ accuracy 65.83 %" in text and "gap to the teacher 4.00 points" in text
    assert "Found by evolution among the paths of the supernet of learner 0." in text
    assert "found by evolution 94.25 % 2,503 of 6,561" in text
    digits = "".join(map(str, end["genes"]))
    assert f"NAS-Bench-Macro’s digits {digits}" in text
    assert read_macro(digits) == genotype(end["genes"]).names
    for absent in ("Alphas", "Signs of collapse", "Gradient of the alphas", "valid accuracy"):
        assert absent not in text


@pytest.mark.parametrize(
    ("progress", "sentence", "absent"),
    [
        (
            {"done": 5, "scored": 0, "candidates": 0},
            "Search in progress, 5 of 12 epochs; not retrained yet",
            ("Ranking by the supernet",),
        ),
        (
            {"scored": 0, "candidates": 0},
            "Search in progress, 12 of 12 epochs; its paths are not ranked or evolved yet",
            ("Ranking by the supernet",),
        ),
        (
            {"scored": 7, "candidates": 0},
            "Search in progress, 12 of 12 epochs; ranking in progress, 7 of 20 architectures",
            ("Kendall’s tau", "The best scores"),
        ),
        (
            {"candidates": 8},
            "evolution in progress, 1 of 4 generations, 8 architectures scored",
            ("Kendall’s tau",),
        ),
    ],
)
def test_a_run_on_its_way_says_how_far_it_is(tmp_path, progress, sentence, absent):
    run = write_sampled(tmp_path / "run", end=False, **progress)
    assert sentence in status(read_run(run))
    text = report(tmp_path, run).text
    assert sentence in text and "No genotype yet" in text
    assert not [each for each in absent if each in text]
    assert ("Not begun yet: it follows the last epoch." in text) == (not progress["candidates"])


def test_a_finished_run_says_so(tmp_path):
    assert status(read_run(write_sampled(tmp_path / "run"))) == (
        "Search finished, 12 of 12 epochs; evolution: 4 of 4 generations, 24 architectures "
        "scored; not retrained yet, so there is no test error."
    )


def test_rows_without_their_numbers_are_left_out(tmp_path):
    run = write_sampled(tmp_path / "run")
    for name, keys in (("evolution", ("params", "genes")), ("ranking", ("table",))):
        rows = read_rows(run / name)
        for key in keys:
            rows[1].pop(key)
        rows[2]["accuracy"] = "NaN"
        write_rows(run / name, rows)
        with (run / name / "metrics.jsonl").open("a") as file:
            file.write('{"cut": \n')
    rows = read_rows(run)
    rows[3].pop("probe"), rows[4].pop("drawn"), rows[5].pop("draws"), rows[6].pop("teaching")
    write_rows(run, rows)
    page = report(tmp_path, run)
    assert len(evolution.candidates(stage_of(run).evolution)) == 22
    assert len(ranking.pairs(stage_of(run))) == 18
    assert page.text.count("1 damaged row left out") == 2


@pytest.mark.parametrize("name", ["ranking", "evolution"])
def test_folders_may_be_empty(tmp_path, name):
    run = write_sampled(tmp_path / "run", end=False)
    for file in (run / name).iterdir():
        file.unlink()
    assert "of 20 architectures" in status(read_run(run)) or "0 architectures" in status(
        read_run(run)
    )
    assert "in progress" in report(tmp_path, run).text


def test_several_runs_are_compared_by_what_sampling_gives(tmp_path):
    runs = [write_sampled(tmp_path / f"ennas-{seed}", seed=seed) for seed in (0, 1)]
    runs.append(write_sampled(tmp_path / "single", method="single"))
    runs.append(write_search(tmp_path / "relaxed", epochs=2))
    rows = comparison([read_run(run) for run in runs])
    header, ennas, single, relaxed = as_table(rows)
    cells = dict(zip(header, ennas, strict=True))
    assert cells["CIFAR-10 test %"] == "91.75 ± 0.71 (n = 2)"  # 91.25 and 92.25
    assert cells["teacher’s gap (points)"] == "4.00 ± 0.00 (n = 2)"
    ends = [read_rows(run)[-1] for run in runs[:2]]
    accuracies = [100 * end["evolution"]["accuracy"] for end in ends]
    assert cells["supernet accuracy %"].startswith(f"{sum(accuracies) / 2:.2f} ±")
    taus = [end["ranking"]["tau"] for end in ends]
    assert cells["Kendall’s tau"].startswith(f"{sum(taus) / 2:.2f} ±")
    assert dict(zip(header, single, strict=True))["teacher’s gap (points)"] == "–"
    assert dict(zip(header, relaxed, strict=True))["supernet accuracy %"] == "–"
    captions = [each.caption for each in compared(rows)]
    assert "Evolution: best accuracy in the supernet so far (%)" in captions
    assert report(tmp_path, *runs).text.count("3 experiments") == 1


def test_a_retraining_replaces_what_the_evolution_counted(tmp_path):
    run = write_sampled(tmp_path / "run")
    write_retraining(run / "retrain")
    text = report(tmp_path, run).text
    assert "weights 3.35 M" in text and "multiply-adds 528 M" in text and "2.65 %" in text


# What a search writes -----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_search_writes_what_the_report_reads(tmp_path):
    entries = {
        np.base_repr(place, 3).zfill(8): {
            "test_acc": [50 + place % 41, 51.0, 52.0],
            "params": 1,
            "flops": 1,
        }
        for place in range(3**8)
    }
    table = tmp_path / "macro.json"
    table.write_text(json.dumps(entries))
    run = tmp_path / "run"
    search(
        EnNAS(students=3), "diverse-paths", "nasbench-macro", out=run, epochs=1, channels=2,
        limit_batches=1, batch_size=8, table=table, ranked=4,
        evolution=Evolution(population=2, generations=2, parents=2, images=8, judged=16),
    )  # fmt: skip
    stage = stage_of(run)
    rows = stage.ranking.of("step")
    true = [row["table"]["cifar10_test"] for row in rows]
    assert true == [
        Table(table).query(genotype_of(MACRO, row["genes"])).accuracy["cifar10_test"]
        for row in rows
    ]
    judged = stage.of("end")[-1]["ranking"]
    by_cost = compare([row["multiply_adds"] for row in rows], true, 4)
    assert judged["by_multiply_adds"] == asdict(by_cost)
    assert judged["tau"] == compare([row["accuracy"] for row in rows], true, 4).tau
    (drawn,) = marginals(stage)
    assert drawn.operations == OPERATIONS and (drawn.draws >= 3).all()
    assert "Kendall’s tau" in report(tmp_path, run).text
