"""Files of release 0.1 in the present form, and their report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from test_report import report
from tutelage.parts import make_part
from tutelage.records import lift, metrics
from tutelage.records.results import Environment, Origin, Result
from tutelage.records.rows import (
    CANDIDATES,
    SEARCH,
    TRAINING,
    EndRow,
)
from tutelage.records.typed import finite, present, typed
from tutelage.report.runs.read import read_run
from tutelage.run.job.directory import RunDirectory
from tutelage.searches.needs import fit
from tutelage.spaces.cells import DARTS

DATA = Path(__file__).parent / "data"
OLD, SAMPLED = DATA / "run-0.1", DATA / "sampled-0.1"
"""What release 0.1 wrote: sgl in nasbench201, retrained; ennas in nasbench-macro."""


def lines(*rows):
    return b"".join(map(metrics.line_of, (metrics.HEAD, *rows)))


def old_rows(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("path", "types"),
    [
        (OLD, SEARCH),
        (OLD / "retrain", TRAINING),
        (SAMPLED, SEARCH),
        (SAMPLED / "evolution", CANDIDATES),
    ],
)
def test_rows_of_0_1_lose_nothing(path, types):
    rows, damage = metrics.read((path / "metrics.jsonl").read_bytes(), types)
    before = old_rows(path)
    assert not damage and len(rows) == len(before)
    for row, old in zip(rows, before, strict=True):
        now, names = finite(row), lift.NAMES
        assert list(now) == [names.get(key, key) for key in old]  # in their order
        for key, value in old.items():
            if key != "evolution":
                assert now[names.get(key, key)] == value


def test_values_of_0_1_have_their_present_names():
    rows, _ = metrics.read((OLD / "metrics.jsonl").read_bytes(), SEARCH)
    first, last = old_rows(OLD)[0], rows[-1]
    assert rows[0].arch_weights == first["mix"]
    assert rows[0].learners[1].label_entropy == first["learners"][1]["label_entropy"]
    assert rows[0].teaching.agreement == first["teaching"]["agreement"]
    assert rows[0].collapse[0]["eigenvalue"] is None
    assert last.kept == 0 and last.learners[1].first_loss > 0
    (end,) = [row for row in old_rows(SAMPLED) if row["event"] == "end"]
    found = metrics.read((SAMPLED / "metrics.jsonl").read_bytes(), SEARCH).rows[-1].evolution
    assert found.encoding == end["evolution"]["genes"]
    assert found.flops == end["evolution"]["multiply_adds"]
    assert found.params == end["evolution"]["params"]


def test_costs_fronts_and_rankings_are_lifted():
    figures = {"count": 5, "tau": None, "rho": 0.5, "accuracy": 90.0, "rank": 1, "top": 5}
    old = {
        "event": "end",
        "cost": [{"expected": {"weights": 1.5, "multiply_adds": 2.5}, "read_off": {"weights": 1}}],
        "front": [{"genes": [1], "score": 0.5, "params": 3, "multiply_adds": 4}],
        "ranking": {**figures, "by_multiply_adds": figures},
        "loss": {"mix": 1.0, "genes": 2.0, "weights": 3.0},  # a method's names
        "gradient": {"weights": {"mix": 1.0}},
    }
    kept = json.dumps(old)
    now = lift.row(old, 1)
    assert now["cost"] == [{"expected": {"params": 1.5, "flops": 2.5}, "derived": {"params": 1}}]
    assert now["front"] == [{"encoding": [1], "score": 0.5, "params": 3, "flops": 4}]
    assert now["ranking"]["by_flops"] == figures
    assert now["loss"] == old["loss"] and now["gradient"] == old["gradient"]
    assert json.dumps(old) == kept  # it is left as it is
    assert lift.row(now, 2) is now and lift.row(now, 1) == now
    assert typed(now, EndRow).ranking.by_flops.rho == 0.5


def test_a_result_of_0_1_is_read():
    old = json.loads((OLD / "retrain" / "result.json").read_text())
    found = Result.read(old)
    assert (found.params, found.flops) == (old["parameters"], old["multiply_adds"])
    assert found.test_error == old["test_error"] and found.genotype == old["genotype"]
    assert Result.read(found.as_file()) == found
    assert list(found.as_file())[:3] == ["format", "version", "data"]


def test_sessions_and_origins_of_0_1_are_read():
    found = Environment.read(json.loads((OLD / "environment.json").read_text()))
    assert [each.from_step for each in found.sessions] == [0, 7]
    assert [each.threads for each in found.sessions] == [None, 1]
    about = json.loads((OLD / "genotype.json").read_text())["about"]
    assert present(typed(about, Origin)) == about


def test_a_run_of_0_1_is_reported(tmp_path):
    for source in (OLD, SAMPLED):
        shutil.copytree(source, tmp_path / source.name)
    page = report(tmp_path, tmp_path / OLD.name)
    assert read_run(tmp_path / OLD.name).search.notes == ()
    for text in (
        "Search finished, 6 of 6 epochs; retrained",
        "test error 85.81 %",
        "parameters 11.0 k",
        "FLOPs 86.4 k",
        "Found by learner 0 after epoch 5",
        "learner 0, kept 66.94 % 61.27 %",
        "in 2 sessions",
    ):
        assert text in page.text
    page = report(tmp_path, tmp_path / SAMPLED.name)
    assert "evolution: 2 of 2 generations, 8 architectures scored" in page.text
    both = report(tmp_path, tmp_path / OLD.name, tmp_path / SAMPLED.name)
    assert "2 runs, 2 experiments" in both.text


def test_the_present_form_gives_the_same_page(tmp_path):
    """A file of 0.1 whose rows are written anew in the present form says the same."""
    old, new = (shutil.copytree(OLD, tmp_path / name / "run") for name in ("old", "new"))
    for path, types in ((new, SEARCH), (new / "retrain", TRAINING)):
        rows = metrics.read((path / "metrics.jsonl").read_bytes(), types).rows
        (path / "metrics.jsonl").write_bytes(lines(*rows))
    result = json.loads((new / "retrain" / "result.json").read_text())
    written = json.dumps(finite(Result.read(result).as_file()))
    (new / "retrain" / "result.json").write_text(written)
    pages = [report(path.parent, path).html for path in (old, new)]
    assert pages[0].replace(str(old), "") == pages[1].replace(str(new), "")


def test_what_a_meter_sums_up_is_lifted():
    state = {
        "work": {
            "epoch": 1,
            "meter": {
                "sums": {
                    "loss/a/b": 1.0,
                    "gradient/validate/learn: A_labels": 2.0,
                    "learner/11/label_accuracy": 3.0,
                    "teaching/gap": 4.0,
                    "teaching/gate/0/12": 5.0,
                },
                "counts": {"loss/a/b": 3},
            },
        },
        "metrics_size": 7,
    }
    found = lift.checkpoint(state, 1)
    assert found["work"]["meter"] == {
        "sums": {
            ("loss", "a/b"): 1.0,
            ("gradient", "validate", "learn: A_labels"): 2.0,
            ("learners", 11, "label_accuracy"): 3.0,
            ("teaching", "gap"): 4.0,
            ("matrices", "gate", 0, 12): 5.0,
        },
        "counts": {("loss", "a/b"): 3},
    }
    assert (found["metrics_size"], found["work"]["epoch"]) == (7, 1)
    assert lift.checkpoint(found, 2) is found and lift.checkpoint({"work": {}}, 1) == {"work": {}}


def test_a_run_of_gdas_keeps_what_its_settings_meant_when_it_began(tmp_path):
    """Settings that were added later stand in no run.toml of before."""
    old = '[search]\nname = "gdas"\ntau = 5.0\n'
    (tmp_path / "run.toml").write_text(old)
    found = RunDirectory(tmp_path).settings()["search"]
    before = {"derivation": "edges", "normalisation": "pools", "unsampled": "left-out"}
    assert found == {"name": "gdas", "tau": 5.0, **before}
    assert fit(make_part("search", found), DARTS) == DARTS
    (tmp_path / "run.toml").write_text(old + 'derivation = "pairs"\n')
    assert RunDirectory(tmp_path).settings()["search"] == {**found, "derivation": "pairs"}
    (tmp_path / "run.toml").write_text('[search]\nname = "darts"\n')
    assert RunDirectory(tmp_path).settings() == {"search": {"name": "darts"}}
