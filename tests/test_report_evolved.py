"""The report's ranking by a supernet, and its evolution with the Pareto front."""

import json
import os
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sampled_runs import OPERATIONS, write_sampled
from test_report import report
from tutelage.benchmark.nasbench_macro import Table
from tutelage.benchmark.ranking import compare, correlations
from tutelage.methods.ennas import EnNAS
from tutelage.records.rows import RankingScores
from tutelage.report.figures.scatter import Limit, Points, scatter
from tutelage.report.runs.benchmarks import NASBENCH_MACRO
from tutelage.report.sections import evolution, ranking
from tutelage.report.sections.evolution import Scored
from tutelage.report.sections.marginals import marginals
from tutelage.run.search import search
from tutelage.searches import pareto
from tutelage.searches.evolution import Evolution
from tutelage.spaces.chain import NASBENCH_MACRO as MACRO
from tutelage.spaces.paths import genotype as genotype_of
from written_runs import change, stage_of

TABLES = Path(os.environ.get("TUTELAGE_TEST_TABLES", ""), "nas-bench-macro_cifar10.json.xz")


# Evolution ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_the_one_that_the_search_follows(seed):
    generator = np.random.default_rng(seed)
    found = [
        Scored(0, float(x), float(y), float(z), (place,))
        for place, (x, y, z) in enumerate(generator.integers(8, size=(40, 3)))
    ]
    for cost in ("params", "flops"):
        scores = [(each.score, -getattr(each, cost)) for each in found]
        theirs = {scores[place] for place in pareto.front(scores)}
        members = evolution.front(found, cost)
        assert [(each.score, -getattr(each, cost)) for each in members] == sorted(theirs)
        best = max(found, key=lambda each: (each.score, -getattr(each, cost)))
        assert evolution.best(found, cost) == best == members[-1]


@pytest.mark.parametrize(
    "objectives", ["accuracy", "accuracy-flops", "accuracy-params", "accuracy-latency"]
)
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
    name = {"accuracy-params": "parameters", "accuracy-latency": "latency"}.get(objectives, "FLOPs")
    assert captions[1:] == [f"By {name}: accuracy in the supernet (%)"]
    if rows:
        assert rows[0][3] == f"{1.5 + sum(map(int, rows[0][5].split())) / 8:.4g} ms"
        assert rows[0][0] == f"{best:.2f} %"
        assert [float(a[0][:-2]) > float(b[0][:-2]) for a, b in pairwise(rows)].count(False) == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (0, "random"),
        (2, "the method’s own choice in 2 of 6 architectures, otherwise random"),
        (6, "the method’s own choice"),
    ],
)
def test_generation_0_is_what_the_run_says(tmp_path, given, words):
    run = write_sampled(tmp_path / "run")

    def give(row):
        if row["event"] == "step" and row["epoch"] == 0 and row["step"] <= given:
            row["given"] = True

    change(run / "evolution", give)
    stage = stage_of(run).evolution
    assert f"the best of generation 0, which is {words}, has" in evolution.described(stage)
    change(run / "evolution", lambda row: row.update(accuracy=0.9) if "given" in row else None)
    if given:
        text = evolution.described(stage_of(run).evolution)
        assert text.endswith(f"is from generation 0; generation 0 is {words}.")


def test_a_method_may_score_by_a_rule_of_its_own(tmp_path):
    run = write_sampled(tmp_path / "run", objectives="accuracy-flops")

    def rescore(row):
        for each in (row, row.get("evolution") or {}):
            if "accuracy" in each:
                each["score"] = -each.pop("accuracy")

    change(run, lambda row: row.pop("probe", None))  # its paths are judged by no label
    for path in (run, run / "evolution", run / "ranking"):
        change(path, rescore)
    stage = stage_of(run)
    worst = min(row.score for row in stage.evolution.scored)
    found = evolution.candidates(stage.evolution)
    assert min(each.score for each in found) == worst
    text = report(tmp_path, run).text
    best = f"{max(each.score for each in found):.4f}".replace("-", "−")
    assert f"By the method’s own score the best has {best}" in text
    assert "Students" not in text and "No epoch has ended" not in text
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
    assert (
        table["Share of the first 10 that are truly among the best 10"]
        == f"{100 * expected.precision:.0f} %"
    )
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
    assert NASBENCH_MACRO.by_flops == pytest.approx(tau, abs=5e-4)
    assert "a tau of 0.56" in ranking.baseline(NASBENCH_MACRO)


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
    rows = stage.ranking.scored
    true = [row.table["cifar10_test"] for row in rows]
    assert true == [
        Table(table).query(genotype_of(MACRO, row.encoding)).accuracy["cifar10_test"]
        for row in rows
    ]
    judged = stage.ends[-1].ranking
    by_cost = compare([row.flops for row in rows], true, 4)
    assert judged.by_flops == RankingScores(**asdict(by_cost))
    assert judged.tau == compare([row.accuracy for row in rows], true, 4).tau
    (drawn,) = marginals(stage)
    assert drawn.operations == OPERATIONS and (drawn.samples >= 3).all()
    assert "Kendall’s tau" in report(tmp_path, run).text
