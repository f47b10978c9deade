"""The report of searches that sample paths: students, draws, how far a run is, comparisons."""

import math

import numpy as np
import pytest

from sampled_runs import OPERATIONS, TEACHER, genotype, write_sampled
from test_report import report
from tutelage.report.runs.found import students_accuracy
from tutelage.report.runs.read import read_run
from tutelage.report.runs.tables import as_table, comparison
from tutelage.report.sections import evolution, ranking
from tutelage.report.sections.compared import compared
from tutelage.report.sections.marginals import Marginals, marginals
from tutelage.report.sections.status import status
from tutelage.report.sections.students import at_the_end, students, taught_from
from tutelage.spaces.notation import read_macro
from written_runs import change, read_rows, stage_of, write_retraining, write_rows, write_search

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


def test_the_page_says_who_teaches_as_the_run_has_logged_it(tmp_path):
    run = write_sampled(tmp_path / "run", method="ennas")
    assert TEACHER in report(tmp_path, run).text
    change(run, lambda row: row.pop("taught_by", None))  # as runs of before
    page = report(tmp_path, run)
    assert "Teacher and students" in page.text and "Their teacher is" not in page.text


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
        row["sampled"], row["samples"] = [{"chain": [shares] * 8}], [{"chain": [draws] * 8}]
    write_rows(run, rows)
    (found,) = marginals(stage_of(run))
    # (2 + 12, 8 + 6, 0 + 12) of 40
    assert found.shares == pytest.approx(np.array([[0.35], [0.35], [0.3]]).repeat(8, 1))
    assert found.samples.tolist() == [40] * 8 and found.operations == OPERATIONS
    for row in rows:
        del row["samples"], row["operations"]
    write_rows(run, rows)
    (found,) = marginals(stage_of(run))
    assert found.shares[:, 0] == pytest.approx([0.3, 0.5, 0.2])  # epochs count alike
    assert found.chance is None
    assert found.described().endswith("at most (operation 1 in layer 1).")


def test_deviations_by_hand():
    found = one([[0.5, 0.3], [0.3, 0.4], [0.2, 0.3]], [300, 300])
    third = 1 / 3
    apart = [0.5 - third, third - 0.3, third - 0.3, 0.4 - third, third - 0.2, third - 0.3]
    assert found.described() == (
        f"Shares deviate from uniform by {100 * sum(apart) / 6:.2f} percentage points on average "
        "and by 16.67 at most (identity in layer 1); 300 independent samples on each layer "
        "would give "
        f"{100 * math.sqrt(2 / math.pi * third * (1 - third) / 300):.2f}."
    )
    assert "in edge 1 of the normal cell" in one([[0.9], [0.1]], [9], "normal").described()
    exact = one(np.full((3, 4), round(1 / 3, 6)), [12] * 4)
    assert exact.described() == "Every operation was sampled exactly as often as every other."


def test_what_chance_leaves_is_what_simulated_draws_leave():
    generator = np.random.default_rng(0)
    draws = generator.multinomial(400, [1 / 3] * 3, size=(2000, 4)) / 400
    expected = one(np.full((3, 4), 1 / 3), [400] * 4).chance
    assert np.abs(draws - 1 / 3).mean() == pytest.approx(expected, rel=0.02)


def test_an_edge_that_drew_nothing_is_left_out(tmp_path):
    """A short epoch does not reach every edge of a cell that keeps two of each node's."""
    run = write_sampled(tmp_path / "run", done=1, scored=0, candidates=0, end=False)

    def cell(row):
        row["operations"] = [{"normal": ["skip_connect", "sep_conv_3x3"]}]
        row["sampled"] = [{"normal": [[0.75, 0.25], [0.0, 0.0]]}]
        row["samples"] = [{"normal": [4, 0]}]

    change(run, cell)
    (found,) = marginals(stage_of(run))
    assert found.uniform[0] == 0.5 and np.isnan(found.deviations[:, 1]).all()
    assert "by 25.00 percentage points on average" in report(tmp_path, run).text


def test_edges_with_operations_of_their_own(tmp_path):
    run = write_sampled(tmp_path / "run", done=1, scored=0, candidates=0, end=False)

    def narrow(row):
        row["operations"] = [{"normal": [["skip_connect", "none"], ["sep_conv_3x3", "none"]]}]
        row["sampled"] = [{"normal": [[1.0, 0.0], [1.0, 0.0]]}]
        row["samples"] = [{"normal": [5, 5]}]

    change(run, narrow)
    (found,) = marginals(stage_of(run))
    assert found.operations == ("skip_connect", "sep_conv_3x3")  # none cannot be drawn
    assert np.isnan(found.shares[[0, 1], [1, 0]]).all() and found.shares[0, 0] == 1
    assert found.uniform.tolist() == [1, 1]
    assert "as often as every other" in report(tmp_path, run).text


# The page -----------------------------------------------------------------------------------------


def test_one_run_shows_its_numbers(tmp_path):
    run = write_sampled(tmp_path / "run", seed=3)
    text = report(tmp_path, run).text
    end = read_rows(run)[-1]["evolution"]
    assert f"supernet accuracy {100 * end['accuracy']:.2f} %" in text
    assert "CIFAR-10 test 94.25 % rank 2,503 of 6,561" in text
    assert f"parameters {end['params'] / 1e6:.2f} M" in text
    assert "students’ accuracy 65.83 %" in text and "gap to the teacher 4.00 points" in text
    assert "Found by evolution among the paths of the supernet of learner 0." in text
    assert "found by evolution 94.25 % 2,503 of 6,561" in text
    digits = "".join(map(str, end["encoding"]))
    assert f"NAS-Bench-Macro’s digits {digits}" in text
    assert read_macro(digits) == genotype(end["encoding"]).names
    for absent in ("Alphas", "Diagnostics of collapse", "Gradient of the alphas", "valid accuracy"):
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
    assert ("Not begun yet: it starts after the last epoch." in text) == (
        not progress["candidates"]
    )


def test_a_finished_run_says_so(tmp_path):
    assert status(read_run(write_sampled(tmp_path / "run"))) == (
        "Search finished, 12 of 12 epochs; evolution: 4 of 4 generations, 24 architectures "
        "scored; not retrained yet, so there is no test error."
    )


def test_rows_without_their_numbers_are_left_out(tmp_path):
    run = write_sampled(tmp_path / "run")
    for name, keys in (("evolution", ("params", "encoding")), ("ranking", ("table",))):
        rows = read_rows(run / name)
        for key in keys:
            rows[1].pop(key)
        rows[2]["accuracy"] = "NaN"
        write_rows(run / name, rows)
        with (run / name / "metrics.jsonl").open("a") as file:
            file.write('{"cut": \n')
    rows = read_rows(run)
    rows[3].pop("probe"), rows[4].pop("sampled"), rows[5].pop("samples"), rows[6].pop("teaching")
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


def test_a_search_that_has_not_ended_is_in_no_mean_of_the_last_epoch(tmp_path):
    """Its own page has the latest figures."""
    runs = [write_sampled(tmp_path / "a"), write_sampled(tmp_path / "b", seed=1, done=3, end=False)]
    change(runs[1], lambda row: row.get("probe", {}).update(gap=0.3))
    header, cells = as_table(comparison([read_run(run) for run in runs]))
    both = dict(zip(header, cells, strict=True))
    assert both["teacher’s gap (points)"] == "4.00 (n = 1)"
    assert both["search time"].endswith("(n = 1)")
    assert [students_accuracy(read_run(run)) is None for run in runs] == [False, True]
    assert "gap to the teacher 30.00 points" in report(tmp_path, runs[1]).text


def test_the_front_has_the_words_of_the_rest_of_the_page():
    assert {"FLOPs", "parameters", "latency"} < set(evolution.FRONT)


def test_a_retraining_replaces_what_the_evolution_counted(tmp_path):
    run = write_sampled(tmp_path / "run")
    write_retraining(run / "retrain")
    text = report(tmp_path, run).text
    assert "parameters 3.35 M" in text and "FLOPs 528 M" in text and "2.65 %" in text
