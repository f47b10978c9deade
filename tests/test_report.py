"""The report: what it reads, the numbers on its page, and how it takes what is missing."""

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from tutelage.report.alphas import heat_maps, mixes
from tutelage.report.page import write_report
from tutelage.report.read import read_run
from tutelage.report.sections import status
from tutelage.report.tables import Statistic, as_text, comparison
from tutelage.spaces.published import PUBLISHED

EPOCHS = 50


def softmax(values):
    weights = np.exp(values)
    return weights / weights.sum(-1, keepdims=True)


def rows(epochs, learners, seed):
    """A search's metrics with curves as real searches have them."""
    generator = np.random.default_rng(seed)
    drift = generator.normal(size=(learners, 2, 14, 8)) * 0.05
    for epoch in range(epochs):
        progress = (epoch + 1) / EPOCHS
        states = []
        for learner in range(learners):
            loss = 0.35 + 1.7 * math.exp(-4 * progress) + 0.05 * learner + generator.normal() * 0.02
            states.append(
                {
                    "train_loss": loss,
                    "train_accuracy": 1 - 0.35 * loss,
                    "valid_loss": loss + 0.15 * progress,
                    "valid_accuracy": 0.98 - 0.35 * loss - 0.05 * progress,
                }
            )
        mix = softmax(drift * (epoch + 1))
        norm = 1e-2 * math.exp(-progress)
        common = {
            "epoch": epoch,
            "loss": {"V": 2.3 - progress, "W": 3.1 - progress, "A": 2 - progress},
        }
        yield common | {"event": "step", "step": 50, "learners": states}
        yield common | {
            "event": "epoch",
            "step": 391,
            "learners": states,
            "mix": [{"normal": m[0].tolist(), "reduce": m[1].tolist()} for m in mix],
            "genotype": [PUBLISHED[name].to_dict() for name in ("PDARTS", "DARTS_V2")][:learners],
            "gradient": {
                "validate": {"direct": norm, "V": norm / 80, "W": norm / 3, "W labels": norm / 40}
            },
        }


def session(seconds):
    return {
        "started": "2026-11-22T02:02:11+00:00",
        "seconds": seconds,
        "from_epoch": 0,
        "from_step": 0,
        "versions": {"python": "3.11.7", "tutelage": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
        "commit": None,
        "hardware": {"cpu": "A Processor With a Long Name @ 2.20GHz", "cores": 2, "gpu": None},
    }


def write_search(
    path, *, seed=0, method="sgl", epochs=EPOCHS, learners=2, end=True, seconds=5000.0, **changed
):
    path.mkdir(parents=True)
    settings = {
        "method": {"name": method, "learners": learners, "peer_weight": 1.0},
        "search": {"name": "pcdarts"},
        "space": {"name": "darts"},
        "data": {"name": "cifar10", "root": f"/data/{seed}", "train_fraction": 0.5},
        "weights": {"lr": 0.1, "lr_min": 0.0, "momentum": 0.9, "weight_decay": 3e-4, "clip": 5.0},
        "alphas": {"lr": 6e-4, "beta1": 0.5, "beta2": 0.999, "weight_decay": 1e-3},
        "epochs": EPOCHS,
        "batch_size": 256,
        "via": "finite-difference",
        "seed": seed,
        "retrain": {"epochs": 600, "seed": seed},
    }
    (path / "run.toml").write_text(tomli_w.dumps(settings | changed))
    found = list(rows(epochs, learners, seed))
    if end:
        found.append({"event": "end", "learners": found[-1]["learners"], "kept": learners - 1})
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    sessions = {"sessions": [session(seconds - 1000), session(1000.0)]}
    (path / "environment.json").write_text(json.dumps(sessions))
    about = found[-1]["learners"][-1] | {"learner": learners - 1, "epoch": epochs - 1}
    (path / "genotype.json").write_text(PUBLISHED["DARTS_V2"].to_json(about))
    return path


def write_retraining(path, *, error=0.0265, seed=0, epochs=40, done=True, parameters=3_349_342):
    path.mkdir(parents=True)
    genotype = PUBLISHED["DARTS_V2"]
    settings = {
        "genotype": genotype.to_json(),
        "data": {"name": "cifar10", "root": f"/data/{seed}"},
        "retrain": {"epochs": epochs, "channels": 36, "cells": 20, "seed": seed},
    }
    (path / "run.toml").write_text(tomli_w.dumps(settings))
    (path / "genotype.json").write_text(genotype.to_json())
    (path / "environment.json").write_text(json.dumps({"sessions": [session(7200.0)]}))
    found = [
        {
            "event": "epoch",
            "epoch": epoch,
            "step": 521,
            "train_loss": 0.1 + 2 * math.exp(-epoch / 8),
            "train_accuracy": 1 - 0.6 * math.exp(-epoch / 8),
            "lr": 0.025,
            "drop_path": 0.2 * epoch / epochs,
        }
        for epoch in range(epochs if done else epochs // 2)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    if done:
        result = {
            "test_error": error,
            "test_loss": 0.11,
            "parameters": parameters,
            "multiply_adds": 528_000_000,
            "epochs": epochs,
            "seed": seed,
            "genotype": genotype.to_dict(),
        }
        (path / "result.json").write_text(json.dumps(result))
    return path


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
    assert "weights 3.35 M" in page.text
    assert "multiply-adds 528 M" in page.text
    assert "search time 1 h 23 min in 2 sessions" in page.text
    accuracy = json.loads((run / "genotype.json").read_text())["about"]["valid_accuracy"]
    assert f"valid accuracy {100 * accuracy:.2f} % learner 1, kept" in page.text
    assert "Search finished, 50 of 50 epochs; retrained from scratch" in page.text
    assert "weights.weight_decay 0.0003" in page.text
    assert "A Processor With a Long Name @ 2.20GHz, 2 cores" in page.text
    assert PUBLISHED["DARTS_V2"].to_darts() in page.text
    assert "Found by learner 1, epoch 49" in page.text


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
    assert "Not retrained yet" in page.text or "not retrained yet" in page.text
    table = as_text(comparison([read_run(run) for run in runs])).splitlines()
    assert table[0].split("  ")[0] == "runs"
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
        {"event": "epoch", "epoch": 1, "learners": [{}], "gradient": None, "mix": None},
        {"event": "end"},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"cut')
    assert "is damaged" not in report(tmp_path, run).text


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


def test_heat_maps_hold_the_weights_of_every_edge(tmp_path):
    stage = read_run(write_search(tmp_path / "run", epochs=4)).search
    mix = mixes(stage)[1, "reduce"]
    assert mix.shape == (4, 14, 8)
    assert np.allclose(mix.sum(-1), 1)
    last = stage.of("epoch")[-1]
    assert mix[-1].tolist() == last["mix"][1]["reduce"]
    (axes,) = heat_maps(mix, "reduce", PUBLISHED["DARTS_V2"], 3).axes
    scale, *panels = axes.images
    assert len(panels) == 14
    assert scale.get_array()[0, [0, -1]].tolist() == [mix.min(), mix.max()]
    for edge, panel in enumerate(panels):
        assert np.array_equal(panel.get_array(), mix[:, edge].T)
    names = {text.get_text(): text.get_position() for text in axes.texts}
    left, right, bottom, top = panels[2 + 3 + 1].get_extent()  # after node 2's and 3's edges
    assert names["$c_{k-1}$ to 4"] == (left, top - 4)
    marks = [line.get_xydata()[0] for line in axes.lines]
    assert len(marks) == 8
    left, right, bottom, top = panels[2 + 2].get_extent()  # 2 to 3, where skip_connect is row 3
    wanted = (right + 3.5, top + 3.5 * (bottom - top) / 8)
    assert sum(np.allclose(mark, wanted) for mark in marks) == 1


def test_alphas_of_an_unknown_space_are_shown_without_names():
    (axes,) = heat_maps(np.full((2, 6, 5), 0.2), "cell", None, 1).axes
    shown = [text.get_text() for text in axes.texts]
    assert [each for each in shown if "edge" in each] == [f"edge {i}" for i in range(6)]
    assert "operation 4" in shown


def test_operations_dropped_on_the_way_do_not_mix_with_later_ones(tmp_path):
    run = write_search(tmp_path / "run", epochs=3, learners=1)
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in found:
        if row["event"] == "epoch" and row["epoch"] == 0:
            row["mix"][0]["normal"] = [[0.1] * 10] * 14
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    assert mixes(read_run(run).search)[0, "normal"].shape == (2, 14, 8)


def test_the_report_does_not_import_torch():
    code = "import sys, tutelage.report.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
