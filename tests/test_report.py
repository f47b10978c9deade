"""The report: what it reads, the numbers on its page, and how it takes what is missing."""

import json
import math
import re
import subprocess
import sys
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tutelage.config import Machine
from tutelage.report.page import write_report
from tutelage.report.runs.read import read_run
from tutelage.report.runs.tables import Statistic, as_text, comparison, material
from tutelage.report.sections.contents import status
from tutelage.spaces.published import PUBLISHED
from written_runs import write_retraining, write_search


class Page(HTMLParser):
    """The visible text of a page, and what its tags refer to."""

    VOID = ("meta", "link", "br", "path", "use", "image", "rect")

    def __init__(self, path):
        super().__init__()
        self.open, self.references, self.ids, words = [], [], [], []
        self.handle_data = lambda data: "style" in self.open or words.append(data)
        self.html = path.read_text()
        self.feed(self.html)
        self.close()
        self.text = re.sub(r"\s+", " ", " ".join(words))

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def report(tmp_path, *runs):
    page = Page(write_report(runs, tmp_path / "report.html"))
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole")
    run = write_search(path / "run")
    write_retraining(run / "retrain")
    return run, report(path, run)


def test_one_run_shows_its_numbers(whole):
    run, page = whole
    assert "sgl × pcdarts × darts × cifar10" in page.text
    assert "test error 2.65 % after 40 epochs of training" in page.text
    assert "parameters 3.35 M" in page.text
    assert "FLOPs 528 M" in page.text
    assert "search time 1 h 23 min in 2 sessions" in page.text
    accuracy = json.loads((run / "genotype.json").read_text())["about"]["valid_accuracy"]
    assert f"valid accuracy {100 * accuracy:.2f} % learner 1, kept" in page.text
    assert "Search finished, 50 of 50 epochs; retrained from scratch" in page.text
    assert "weights.weight_decay 0.0003" in page.text
    assert "A Processor With a Long Name @ 2.20GHz, 2 cores" in page.text
    assert PUBLISHED["DARTS_V2"].to_darts() in page.text
    assert "Found by learner 1 after epoch 49, whose supernet ended with" in page.text


def test_the_page_needs_nothing_from_elsewhere(whole):
    _, page = whole
    assert page.references
    assert all(reference.startswith(("data:", "#")) for reference in page.references)
    assert "<script" not in page.html
    fragments = {f"#{each}" for each in page.ids}
    assert {each for each in page.references if each.startswith("#")} <= fragments
    urls = re.findall(r"url\(([^)]*)\)", page.html)
    assert set(urls) <= fragments
    hosts = set(re.findall(r"https?://[^\s\"'<>]+", page.html))
    assert hosts <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_mean_and_deviation_over_seeds(tmp_path):
    runs = []
    for seed, error in enumerate((0.0250, 0.0260, 0.0285)):
        runs.append(
            write_search(tmp_path / f"sgl-{seed}", seed=seed, epochs=3, seconds=3600 * (seed + 2))
        )
        write_retraining(
            runs[-1] / "retrain", seed=seed, error=error, parameters=3_000_000 + seed * 500_000
        )
    runs.append(write_search(tmp_path / "lbt-7", seed=7, method="lbt", epochs=3))
    page = report(tmp_path, *runs)
    # mean 2.65; squared deviations .0225 + .0025 + .04 = .065, over 2: .0325, root .18
    assert "2.65 ± 0.18 (n = 3)" in page.text
    assert "3.50 ± 0.50 (n = 3)" in page.text
    assert "3.00 ± 1.00 h (n = 3)" in page.text
    assert "4 runs, 2 experiments" in page.text
    assert "lbt × pcdarts × darts × cifar10 7 –" in page.text
    assert page.text.count("not retrained yet") == 1
    table = as_text(comparison([read_run(run) for run in runs])).splitlines()
    assert table[0].split("  ")[0] == "runs" and "  parameters (M)  " in table[0]
    assert "0, 1, 2  2.65 ± 0.18 (n = 3)" in table[2]
    assert len(table) == 4


def test_other_settings_make_another_experiment(tmp_path):
    records = [
        read_run(write_search(tmp_path / "a", seed=0, epochs=1)),
        read_run(write_search(tmp_path / "b", seed=1, epochs=1)),
        read_run(write_search(tmp_path / "c", seed=0, epochs=1, via="exact")),
    ]
    first, second = comparison(records)
    assert [record.path.name for record in first.records] == ["a", "b"]
    assert first.label.endswith("cifar10 (via = finite-difference)")
    assert second.label.endswith("cifar10 (via = exact)")


def test_conditions_make_no_other_experiment(tmp_path):
    conditions = {"threads": 2, "log": ["csv"], "graph": "off", "deterministic": False, "row": "x"}
    records = [
        read_run(write_search(tmp_path / "a", seed=0, epochs=1)),
        read_run(write_search(tmp_path / "b", seed=1, epochs=1, **conditions)),
        read_run(write_search(tmp_path / "c", seed=0, epochs=1, precision="bf16")),
    ]
    named = {field.name for field in fields(Machine)}
    assert {name for name in named if material(name)} == {"precision", "statistics"}
    first, second = comparison(records)
    assert [record.path.name for record in first.records] == ["a", "b"]
    assert second.label.endswith("(precision = bf16)")


def test_a_run_without_retraining_joins_its_experiment(tmp_path):
    done = write_search(tmp_path / "done", epochs=1)
    write_retraining(done / "retrain")
    waiting = write_search(tmp_path / "waiting", seed=1, epochs=1)
    (row,) = comparison([read_run(waiting), read_run(done)])
    assert [record.path.name for record in row.records] == ["waiting", "done"]
    assert row.test_error.text(scale=100) == "2.65 (n = 1)"
    assert row.search_seconds.values == (5000.0, 5000.0)


def test_retrainings_of_their_own_are_grouped_by_genotype(tmp_path):
    paths = [tmp_path / name for name in ("first", "second", "other")]
    for seed, path in enumerate(paths):
        write_retraining(path, seed=seed, error=0.02 + 0.01 * seed)
    text = (paths[2] / "run.toml").read_text()
    (paths[2] / "run.toml").write_text(text.replace("sep_conv_3x3", "sep_conv_5x5"))
    rows = comparison([read_run(path) for path in paths])
    assert [len(row.records) for row in rows] == [2, 1]
    assert rows[0].test_error.mean == pytest.approx(0.025)
    page = report(tmp_path, paths[0])
    assert "retraining × cifar10" in page.text and "test error 2.00 %" in page.text


def test_runs_in_progress_say_so(tmp_path):
    run = write_search(tmp_path / "run", epochs=7, end=False)
    assert status(read_run(run)) == (
        "Search in progress, 7 of 50 epochs; not retrained yet, so there is no test error."
    )
    write_retraining(run / "retrain", done=False)
    assert status(read_run(run)) == (
        "Search in progress, 7 of 50 epochs; retraining in progress, 20 of 40 epochs."
    )
    assert "in progress" in report(tmp_path, run).text


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("run.toml", None, "No settings: run.toml is missing"),
        ("run.toml", "epochs = ", "run.toml is damaged and left out"),
        ("environment.json", None, "No sessions are recorded"),
        ("environment.json", "", "environment.json is damaged and left out"),
        ("environment.json", "[]", "No sessions are recorded"),
        ("metrics.jsonl", None, "No epoch has ended yet"),
        ("metrics.jsonl", "{ cut\n", "1 damaged row left out"),
        ("metrics.jsonl", '{"event": "epoch"}\n', "No losses or accuracies are recorded yet"),
        ("genotype.json", None, "No genotype yet"),
        ("genotype.json", '{"format"', "genotype.json is damaged and left out"),
        ("genotype.json", '{"name": "resnet"}', "not a genotype"),
    ],
)
def test_missing_and_damaged_files_leave_their_section_out(tmp_path, name, content, sentence):
    run = write_search(tmp_path / "run", epochs=2, learners=1)
    whole = report(tmp_path, run).text
    (run / name).unlink()
    if content is not None:
        (run / name).write_text(content)
    page = report(tmp_path, run)
    assert sentence in page.text
    assert sentence not in whole


def test_keys_may_be_missing(tmp_path):
    run = write_search(tmp_path / "run", epochs=1)
    rows = [
        {"event": "step", "epoch": 0, "step": 1, "learners": [{"train_loss": 2.0}]},
        {"event": "step", "epoch": 0, "step": 2, "learners": [{"train_loss": "NaN"}], "loss": {}},
        {"event": "epoch"},
        {"event": "epoch", "epoch": 1, "learners": [{}], "gradient": None, "arch_weights": None},
        {"event": "end"},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"cut')
    assert read_run(run).search.notes == ()
    assert "Search finished" in report(tmp_path, run).text


def test_a_half_written_row_is_skipped_and_a_damaged_one_is_told(tmp_path):
    run = write_search(tmp_path / "run", epochs=3, end=False)
    metrics = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(metrics + '{"event": "epo')
    assert read_run(run).search.notes == () and read_run(run).search.epochs_done == 3
    (run / "metrics.jsonl").write_text("not json\n" + metrics)
    assert "1 damaged row left out" in read_run(run).search.notes[0]


@pytest.mark.parametrize("make", [lambda path: None, Path.touch, Path.mkdir])
def test_what_is_no_run_is_refused_in_a_sentence(tmp_path, make):
    path = tmp_path / "here"
    make(path)
    with pytest.raises(ValueError, match=r"no such directory|is no run") as caught:
        write_report([path], tmp_path / "report.html")
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_no_run_at_all_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        write_report([], tmp_path / "report.html")


def test_statistics_by_hand():
    assert Statistic((2.0, 4.0, 9.0)).mean == 5
    assert Statistic((2.0, 4.0, 9.0)).deviation == pytest.approx(math.sqrt((9 + 1 + 16) / 2))
    assert Statistic((2.0,)).text() == "2.00 (n = 1)"
    assert Statistic(()).text() == "–"


def test_the_report_does_not_import_torch():
    code = "import sys, tutelage.report.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_half_a_character_is_damage(tmp_path):
    (tmp_path / "run").mkdir()
    cell = {"inputs": 1, "nodes": [[["\ud800", 0]]], "concat": [1]}
    genotype = {"format": "tutelage genotype", "version": 1, "space": "x", "cells": {"cell": cell}}
    (tmp_path / "run" / "genotype.json").write_text(json.dumps(genotype))
    write_report([tmp_path / "run"], tmp_path / "page.html")
    (note,) = read_run(tmp_path / "run").search.notes
    assert "genotype.json is damaged and left out: 'utf-8' codec can't encode" in note
