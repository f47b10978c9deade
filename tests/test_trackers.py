"""Trackers: each row once, also of a resumed run, and a run that a tracker cannot stop."""

from __future__ import annotations

import csv
import json
import threading
from dataclasses import replace
from typing import ClassVar

import pytest

from commands import TINY
from retraining import SMALL, train
from test_search import KilledError, killed_at, run_toml, same_runs
from tutelage.config import Retrain, Run
from tutelage.records.rows import SEARCH
from tutelage.run.search import search_run
from tutelage.trackers import TRACKERS, Kind, available
from tutelage.trackers.feed import PLACES, Feed, Source, feed
from written_runs import read_rows, write_retraining, write_rows, write_search


class Kept:
    """A tracker that keeps a place, and notes what it is told."""

    calls: ClassVar[list] = []

    def __init__(self, subject, place):
        place.id, place.where = place.id or "kept", "memory"
        self.calls.append(("open", subject.name))

    def row(self, step, figures):
        self.calls.append((step, figures))

    def picture(self, step, name, png):
        assert png.startswith(b"\x89PNG")
        self.calls.append((step, name))

    def end(self, step, figures, outcome):
        self.calls.append((outcome, figures))


class Failing(Kept):
    """A tracker whose server goes away."""

    def row(self, step, figures):
        raise ConnectionError("no\nroute")


@pytest.fixture
def kept(monkeypatch):
    """The calls of a tracker in the place of mlflow; that of wandb fails."""
    kinds = {"mlflow": Kept, "wandb": Failing}
    kinds = {name: Kind(f"test_trackers:{of.__name__}", "csv", "") for name, of in kinds.items()}
    monkeypatch.setattr("tutelage.trackers.TRACKERS", {**TRACKERS, **kinds})
    monkeypatch.setattr(Kept, "calls", [])
    return Kept.calls


def lines_of(path):
    with path.open(newline="") as file:
        return [{k: float(x) for k, x in line.items() if x} for line in csv.DictReader(file)]


def rows_in(calls):
    return [each for each in calls if type(each[1]) is dict]


# A finished run ----------------------------------------------------------------------------------


def test_a_table_has_the_figures_of_every_row(tmp_path):
    run = write_search(tmp_path / "run", epochs=3)
    assert feed(run, "csv") == f"csv: 7 rows of {run}, in {run / 'metrics.csv'}"
    lines, rows = lines_of(run / "metrics.csv"), read_rows(run)
    assert len(lines) == len(rows) + 1 == 8  # and the final figures
    assert [line["step"] for line in lines] == [50, 391, 441, 782, 832, 1173, 1173, 1173]
    for line, row in zip(lines, rows[:-1], strict=False):
        event = row["event"]
        assert line[f"{event}/loss/W"] == row["loss"]["W"]
        for k, learner in enumerate(row["learners"]):
            for name, value in learner.items():
                assert line[f"{event}/learner-{k}/{name}"] == value
        assert line["epoch"] == row["epoch"]
    skips = rows[3]["collapse"][1]["skips"]["reduce"]
    assert lines[3]["epoch/collapse/learner-1/skips/reduce"] == skips
    about = json.loads((run / "genotype.json").read_text())["about"]
    assert lines[-1]["final/valid_loss"] == about["valid_loss"]


def test_a_retraining_ends_with_its_test_error(tmp_path):
    out = write_retraining(tmp_path / "retrain", epochs=2)
    feed(out, "csv")
    *_, before, last = lines_of(out / "metrics.csv")
    assert before["epoch/train_loss"] == read_rows(out)[-1]["train_loss"]
    assert last["final/test_error"] == 0.0265 and last["final/params"] == 3_349_342


def test_a_run_that_has_not_ended_has_no_final_figures(tmp_path, kept):
    out = write_retraining(tmp_path / "retrain", epochs=4, done=False)
    feed(out, "mlflow")
    assert kept[-1] == ("stopped", {})


def test_cells_are_pictures_when_they_change(tmp_path, kept):
    """Of the written run, learner 0 has one genotype in all epochs, and learner 1 another."""
    feed(write_search(tmp_path / "run", epochs=3), "mlflow")
    names = [name for _, name in kept if type(name) is str and name.startswith("cells/")]
    assert names == ["cells/learner-0", "cells/learner-1", "cells/found"]


def test_a_search_inside_a_search_has_its_folders_name_and_later_steps(tmp_path, kept):
    run = write_search(tmp_path / "run", epochs=1)
    (run / "evolution").mkdir()
    scored = {"step": 1, "epoch": 0, "accuracy": 0.5, "encoding": [1, 2]}
    write_rows(run / "evolution", [{"event": "step", **scored}, {"event": "epoch", **scored}])
    feed(run, "mlflow")
    steps = [step for step, _ in rows_in(kept)]
    assert steps[:-1] == [50, 391, 391, 392, 392]
    assert kept[-3][1] == {"evolution/epoch/accuracy": 0.5}


# A run that resumes ------------------------------------------------------------------------------


def test_a_row_that_is_written_again_is_read_once(tmp_path):
    """After a kill the file is cut to its checkpoint, and grows again."""
    run = write_search(tmp_path / "run", epochs=4, end=False)
    rows = read_rows(run)
    source, read = Source(run, SEARCH), []
    for count in (3, 5, 2, 4, 6, 8, 8):
        write_rows(run, rows[:count])
        read += source.rows()
    assert [(row.event, row.epoch) for row in read] == [(x["event"], x["epoch"]) for x in rows]


def test_a_look_reads_what_was_written_since_the_last(tmp_path):
    run = write_search(tmp_path / "run", epochs=4, end=False)
    whole = (run / "metrics.jsonl").read_bytes()
    rows = read_rows(run)
    write_rows(run, rows[:5])
    source = Source(run, SEARCH)
    assert len(source.rows()) == 5
    lines = whole.splitlines(keepends=True)
    unread = b"".join(lines[len(lines) - len(rows) + 4 :])  # from the fifth row on
    (run / "metrics.jsonl").write_bytes(b"#" * (len(whole) - len(unread)) + unread)
    assert [row.epoch for row in source.rows()] == [row["epoch"] for row in rows[5:]]


def test_half_a_line_waits(tmp_path):
    run = write_search(tmp_path / "run", epochs=1, end=False)
    content = (run / "metrics.jsonl").read_bytes()
    source = Source(run, SEARCH)
    (run / "metrics.jsonl").write_bytes(content[:-9])
    assert len(source.rows()) == 1
    (run / "metrics.jsonl").write_bytes(content)
    assert [row.event for row in source.rows()] == ["epoch"]


def test_a_later_session_sends_what_is_new(tmp_path, kept):
    run = write_search(tmp_path / "run", epochs=3)
    whole = (run / "metrics.jsonl").read_bytes()
    write_rows(run, read_rows(run)[:3])
    first = Feed(run, "mlflow")
    first.end("stopped")
    (run / "metrics.jsonl").write_bytes(whole)
    assert feed(run, "mlflow") == f"mlflow: 4 rows of {run}, in memory"
    steps = [step for step, figures in rows_in(kept) if type(step) is int]
    assert steps == [50, 391, 441, 782, 832, 1173, 1173]
    kept.clear()
    assert feed(run, "mlflow").startswith("mlflow: 0 rows")
    assert kept == [("open", "run"), ("finished", {})]


def sampled_run(path):
    """A search of three rows, with a row of its ranking and one of its evolution."""
    run = write_search(path, epochs=1)
    for folder in ("ranking", "evolution"):
        (run / folder).mkdir()
        write_rows(run / folder, [{"event": "step", "step": 1, "epoch": 0, "accuracy": 0.5}])
    return run


@pytest.mark.parametrize("old", [True, False])
def test_a_search_inside_a_search_is_sent_once_by_a_later_command(tmp_path, kept, old):
    """The server went away before the end; the last row of the search comes after the folders'."""
    run = sampled_run(tmp_path / "run")
    rows = read_rows(run)
    write_rows(run, rows[:-1])
    Feed(run, "mlflow").catch_up()
    place = json.loads((run / PLACES).read_text())
    assert place["mlflow"]["rows"] == 4
    if old:
        place["mlflow"].pop("sent", None)
        (run / PLACES).write_text(json.dumps(place))
    write_rows(run, rows)
    kept.clear()
    assert feed(run, "mlflow").startswith("mlflow: 1 row ")
    (sent,) = [figures for step, figures in rows_in(kept) if type(step) is int]
    assert sent and all(name.startswith("end/") for name in sent)


def test_a_damaged_file_of_places_is_begun_again(tmp_path, kept):
    run = write_search(tmp_path / "run", epochs=1)
    (run / PLACES).write_text('{"mlflow": {"rows": "many"}}')
    assert feed(run, "mlflow").startswith("mlflow: 3 rows")
    assert json.loads((run / PLACES).read_text())["mlflow"]["rows"] == 3


# A run that works --------------------------------------------------------------------------------


def test_a_killed_search_has_the_table_of_a_whole_one(tmp_path, monkeypatch):
    settings = run_toml(save_every=0.0, log_every=1, log=("csv",))
    search_run(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        killed_at(patch, 3)
        with pytest.raises(KilledError):
            search_run(settings, tmp_path / "killed")
    search_run(settings, tmp_path / "killed", resume=True)
    tables = [(tmp_path / name / "metrics.csv").read_bytes() for name in ("whole", "killed")]
    assert tables[0] == tables[1]
    assert tables[0].count(b"\n") == len(read_rows(tmp_path / "whole")) + 2
    assert not [each for each in threading.enumerate() if each.name.startswith("tracker")]


def test_a_tracker_that_fails_stops_no_search(tmp_path, kept, capsys):
    search_run(run_toml(), tmp_path / "without")
    search_run(run_toml(log=("wandb", "mlflow")), tmp_path / "with")
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "wandb has not everything of this run (ConnectionError: no route)" in error
    assert f"tutelage log {tmp_path / 'with'} --to wandb" in error
    assert kept[-1][0] == "finished"  # the other tracker has it all
    same_runs(tmp_path / "without", tmp_path / "with")


def test_a_stopped_retraining_is_said_to_be_stopped(tmp_path, kept, monkeypatch):
    monkeypatch.setattr("tutelage.run.job.loop.Interrupts", Interrupted)
    with pytest.raises(ValueError, match="SIGTERM came"):
        train(tmp_path / "out", replace(SMALL, log=("mlflow",)))
    assert kept[-1] == ("stopped", {})


class Interrupted:
    """Signals of a run that ends in its first step."""

    received, number = "SIGTERM", 15

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


# Mistakes ----------------------------------------------------------------------------------------


def test_what_is_not_there_is_refused_before_anything_is_made(tutelage, refused, here, monkeypatch):
    refused("log nowhere --to csv", "nowhere is no run: it has no run.toml")
    refused("log nowhere --to tensorbord", r"unknown tracker 'tensorbord': did you mean tensor")
    refused(f"search {TINY} --log cvs --out x", r"--log cvs: did you mean csv\?")
    monkeypatch.setattr("tutelage.trackers.find_spec", lambda name: None)
    refused(f"search {TINY} --log csv wandb --out x", "needs an extra: pip install 'tutelage")
    assert not (here / "x").exists()


def test_a_folder_is_no_package(tmp_path, monkeypatch):
    """W&B itself leaves a folder `wandb` where it works."""
    (tmp_path / "nowhere").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    kind = {"wandb": Kind("", "nowhere", "wandb")}
    monkeypatch.setattr("tutelage.trackers.TRACKERS", kind)
    with pytest.raises(ValueError, match=r"pip install 'tutelage\[wandb\]'"):
        available(["wandb"])


def test_settings_know_the_trackers():
    for kind in (Run, Retrain):
        assert kind(log=tuple(TRACKERS)).log == tuple(TRACKERS)
        with pytest.raises(ValueError, match="log = 'x': must be one of tensorboard, csv"):
            kind(log=("x",))
