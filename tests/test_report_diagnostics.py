"""The report's diagnostics of collapse, early stops, and figures of NAS-Bench-201."""

import math
import re

import pytest

from test_report import report
from tutelage.report.figures.plots import Axis, Line, curves, events, plot
from tutelage.report.runs.read import read_run
from tutelage.report.runs.tables import as_text, comparison
from tutelage.report.sections.contents import status, stopped
from tutelage.report.sections.monitor import (
    collapse,
    diagnostic_lines,
    table_lines,
    table_plots,
    warnings,
)
from written_runs import NASBENCH201, as_before, read_rows, write_rows, write_search

EIGENVALUE = {"reason": "the dominant eigenvalue grew from 0.2 to 0.5", "epoch": 11}


def stage_of(path):
    return read_run(path).search


def test_every_sign_has_its_curve_per_learner_and_cell(tmp_path):
    stage = stage_of(write_search(tmp_path / "run", epochs=25))
    lines = diagnostic_lines(stage, "skips")
    assert [(line.label, line.dashed) for line in lines] == [
        ("normal cell, learner 0", False),
        ("reduce cell, learner 0", True),
        ("normal cell, learner 1", False),
        ("reduce cell, learner 1", True),
    ]
    assert lines[0].colour == lines[1].colour != lines[2].colour == lines[3].colour
    assert lines[2].x == list(range(25))
    assert lines[2].y == [0] * 10 + [1] * 10 + [2] * 5
    assert lines[3].y == [1] * 10 + [2] * 10 + [3] * 5
    (entropy, *_) = diagnostic_lines(stage, "entropy")
    assert entropy.y == [1 - epoch / 100 for epoch in range(25)]
    alignment = diagnostic_lines(stage, "alignment")[2]
    assert alignment.y == [0.2 * math.cos(epoch + 1) for epoch in range(25)]


def test_the_eigenvalue_is_a_curve_through_what_was_measured(tmp_path):
    run = write_search(tmp_path / "run", epochs=6, learners=1)
    (line,) = diagnostic_lines(stage_of(run), "eigenvalue")
    assert line.x == [1, 3, 5]
    assert line.y == pytest.approx([0.101, 0.109, 0.125])
    captions = [each.caption for each in collapse(stage_of(run))]
    assert len(captions) == 4 and captions[3].startswith("Dominant eigenvalue")
    rows = read_rows(run)
    for row in rows:
        for each in row.get("collapse", []):
            each["eigenvalue"] = None
    write_rows(run, rows)
    assert [each.caption for each in collapse(stage_of(run))] == captions[:3]


def test_a_warning_is_told_once_for_the_epochs_that_it_stands_in(tmp_path):
    run = write_search(tmp_path / "run", epochs=42)
    rows = read_rows(run)
    for row in rows:
        if row["event"] == "epoch" and row["epoch"] == 35:
            row["warnings"] = ["something else"]
    write_rows(run, rows)
    three = "learner 1: the normal cell has 3 skip connections, more than 2"
    told = [
        ("epochs 30 to 34", three),
        ("epoch 35", "something else"),
        ("epochs 36 to 39", three),
        ("epochs 40 to 41", three.replace("3", "4")),
    ]
    assert warnings(stage_of(run)) == told
    text = report(tmp_path, run).text
    assert all(f"{epochs} {sentence}" in text for epochs, sentence in told)


def test_no_warning_is_said_to_be_none(tmp_path):
    text = report(tmp_path, write_search(tmp_path / "run", epochs=3)).text
    assert "Warnings None: no diagnostic with a published threshold pointed to collapse." in text


def test_an_early_stop_is_marked_and_said(tmp_path):
    run = write_search(tmp_path / "run", epochs=20, stopped=EIGENVALUE)
    stage = stage_of(run)
    assert [(mark.x, mark.text) for mark in events(stage)] == [(19, "stopped"), (11, "kept")]
    assert status(read_run(run)).startswith("Search stopped early after 20 of 50 epochs; not retr")
    page = report(tmp_path, run)
    message = (
        "the dominant eigenvalue grew from 0.2 to 0.5. The architecture of epoch 11 is kept, not"
    )
    assert f"Stopped early: {message} that of the last epoch, 19." in page.text
    assert "Found by learner 1 after epoch 11, whose supernet ended" in page.text
    plotted = len(re.findall(r"<figcaption>", page.html)) - 4  # less two learners' two heat maps
    assert page.html.count(">stopped<") == page.html.count(">kept<") == plotted


def test_a_stop_that_keeps_the_last_epoch_has_one_mark(tmp_path):
    stop = {"reason": "the normal cell has 2 skip connections", "epoch": 4}
    stage = stage_of(write_search(tmp_path / "run", epochs=5, stopped=stop))
    assert [(mark.x, mark.text) for mark in events(stage)] == [(4, "stopped, kept")]
    assert stopped(stage).endswith("The architecture of epoch 4 is kept, the last.")


def test_phases_begin_at_marks(tmp_path):
    stage = stage_of(write_search(tmp_path / "run", epochs=9, phases=3))
    assert [(mark.x, mark.text) for mark in events(stage)] == [(2.5, "phase 2"), (5.5, "phase 3")]
    assert events(stage_of(as_before(stage.path))) == ()


def test_plots_show_the_heights_that_they_should():
    line = Line("", [0, 1, 2], [1.0, 2.0, 1.0], "black")
    (axes,) = curves([line], Axis("epoch"), shown=(0.0, 3.0)).axes
    low, high = axes.get_ylim()
    assert -0.2 < low < 0 and 3 < high < 3.2
    assert all(tick == round(tick) for tick in axes.get_yticks())
    (axes,) = curves([line], Axis("epoch"), log=True, shown=(1, 15_625)).axes
    assert axes.get_ylim() == (1, 15_625)
    nothing = Line("", [0, 1], [math.nan, math.nan], "black")
    assert list(plot("nothing", [nothing], Axis("epoch"))) == []


def test_true_accuracies_over_epochs_and_at_the_end(tmp_path):
    run = write_search(tmp_path / "run", space="nasbench201", epochs=21)
    stage = stage_of(run)
    first, second = table_lines(stage, "cifar100_test_200")
    assert (first.label, second.label) == ("learner 0", "learner 1")
    assert second.y == pytest.approx([71 + epoch / 10 for epoch in range(21)])
    assert [each.caption for each in table_plots(stage)] == [
        "CIFAR-10: test accuracy (%)",
        "CIFAR-100: test accuracy (%)",
        "ImageNet16-120: test accuracy (%)",
        "Rank of 15,625 on CIFAR-10 (1: best)",
    ]
    text = report(tmp_path, run).text
    assert "CIFAR-10 test 93.00 % rank 3,001 of 15,625" in text
    assert "CIFAR-100 test 73.00 % of NAS-Bench-201" in text
    assert "learner 0 92.00 % 72.00 % 42.00 % 3,000 of 15,625" in text
    assert "learner 1, kept 93.00 % 73.00 % 43.00 % 3,001 of 15,625" in text
    assert "neither the search nor the selection of the kept architecture uses it" in text
    assert f"NAS-Bench-201’s string {NASBENCH201[1]}" in text
    assert "tuple text" not in text


def test_figures_are_those_of_the_architecture_that_an_early_stop_keeps(tmp_path):
    run = write_search(tmp_path / "run", space="nasbench201", epochs=20, stopped=EIGENVALUE)
    text = report(tmp_path, run).text
    assert "CIFAR-10 test 92.10 % rank 3,901 of 15,625" in text
    assert f"NAS-Bench-201’s string {NASBENCH201[0]}" in text


def test_figures_of_the_table_over_seeds(tmp_path):
    runs = [
        write_search(tmp_path / f"{seed}", space="nasbench201", seed=seed, epochs=11, learners=1)
        for seed in range(3)
    ]
    runs.append(write_search(tmp_path / "darts", seed=0, epochs=3))
    rows = comparison([read_run(run) for run in runs])
    # seeds differ by 0.5, 1, 1 and 10: so do mean and first value, and so large is the deviation
    found = rows[0].cells()
    assert found["CIFAR-10 test %"] == "91.50 ± 0.50 (n = 3)"
    assert found["CIFAR-100 test %"] == "72.00 ± 1.00 (n = 3)"
    assert found["ImageNet16-120 test %"] == "42.00 ± 1.00 (n = 3)"
    assert found["rank of 15,625"] == "4010 ± 10 (n = 3)"
    assert rows[1].cells()["CIFAR-10 test %"] == "–"
    text = report(tmp_path, *runs).text
    assert (
        "91.50 ± 0.50 (n = 3) 72.00 ± 1.00 (n = 3) 42.00 ± 1.00 (n = 3) 4010 ± 10 (n = 3)" in text
    )
    assert "NAS-Bench-201: CIFAR-10 test accuracy of the kept learner (%)" in text


def told_by_macro(run):
    """Make what a run was told that of NAS-Bench-Macro's table."""
    rows = read_rows(run)
    for row in rows:
        if "table" in row:
            row["table"] = [
                {"cifar10_test": 91 + row["epoch"] / 10 + k, "rank": 1234 - row["epoch"] + k}
                for k in range(len(row["table"]))
            ]
    write_rows(run, rows)
    return run


def test_each_benchmark_is_called_by_its_name_and_size(tmp_path):
    macro = told_by_macro(write_search(tmp_path / "macro", space="nasbench201", epochs=11))
    stage = stage_of(macro)
    assert [each.caption for each in table_plots(stage)] == [
        "CIFAR-10: test accuracy (%)",
        "Rank of 6,561 on CIFAR-10 (1: best)",
    ]
    _, second = table_lines(stage, "cifar10_test")
    assert second.y == pytest.approx([92 + epoch / 10 for epoch in range(11)])
    text = report(tmp_path, macro).text
    assert "CIFAR-10 test 93.00 % rank 1,225 of 6,561" in text
    assert "learner 0 92.00 % 1,224 of 6,561" in text
    assert (
        "NAS-Bench-Macro Mean test accuracy" in text and "trained three times from scratch" in text
    )
    assert "of NAS-Bench-201" not in text and "15,625" not in text and "CIFAR-100" not in text

    both = [macro, write_search(tmp_path / "nb201", space="nasbench201", epochs=11, seed=1)]
    (other, cells) = (
        row.cells() for row in (comparison([read_run(run)])[0] for run in reversed(both))
    )
    assert (cells["CIFAR-10 test %"], cells["rank of 6,561"]) == ("93.00 (n = 1)", "1225 (n = 1)")
    assert (cells["CIFAR-100 test %"], cells["rank of 15,625"]) == ("–", "–")
    assert (other["CIFAR-10 test %"], other["rank of 15,625"]) == ("92.50 (n = 1)", "4011 (n = 1)")
    assert other["rank of 6,561"] == "–"
    text = report(tmp_path, *both).text
    for title in ("NAS-Bench-201", "NAS-Bench-Macro"):
        assert f"{title}: CIFAR-10 test accuracy of the kept learner (%)" in text


def test_columns_that_no_run_has_are_left_out(tmp_path):
    run = read_run(write_search(tmp_path / "run", epochs=2))
    header = as_text(comparison([run])).splitlines()[0]
    assert re.split(r"\s{2,}", header) == ["runs", "seeds", "valid accuracy %", "search time"]


def test_where_the_table_lies_makes_no_other_experiment(tmp_path):
    records = [
        read_run(write_search(tmp_path / name, space="nasbench201", epochs=2, table=f"/{name}"))
        for name in ("a", "b")
    ]
    assert len(comparison(records)) == 1


def test_a_search_without_epochs_takes_its_figures_from_its_end(tmp_path):
    run = write_search(tmp_path / "run", space="nasbench201", epochs=1, learners=1)
    (table,) = (row["table"] for row in read_rows(run) if row["event"] == "epoch")
    write_rows(run, [{"event": "end", "learners": [{}], "kept": 0, "table": table}])
    record = read_run(run)
    assert status(record).startswith("Search finished without training; not retrained")
    assert record.answer["cifar10_test_200"] == 90
    text = report(tmp_path, run).text
    assert "CIFAR-10 test 90.00 % rank 5,000 of 15,625" in text
    assert "learner 0, kept 90.00 % 70.00 % 40.00 % 5,000 of 15,625" in text
    assert not any(
        word in text for word in ("Alphas", "Diagnostics of collapse", "No epoch", "No losses")
    )


def test_a_search_in_progress_has_curves_and_no_result_of_the_table(tmp_path):
    run = write_search(tmp_path / "run", space="nasbench201", epochs=5, end=False, learners=1)
    (run / "genotype.json").unlink()
    text = report(tmp_path, run).text
    assert "CIFAR-10 test 9" not in text and "CIFAR-10: test accuracy (%)" in text
    assert "learner 0 90.40 % 70.40 % 40.40 % 4,600 of 15,625" in text


def test_runs_of_before_still_have_their_page(tmp_path):
    for space in ("darts", "nasbench201"):
        run = as_before(write_search(tmp_path / space, space=space, epochs=4))
        text = report(tmp_path, run).text
        assert "Diagnostics of collapse Not measured in this run." in text
        assert "Search finished, 4 of 50 epochs" in text
        assert "CIFAR-10" not in text and "Learner 1, kept" in text
