"""What each tracker wrote, read with its own reader; a tracker that is not installed is skipped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tutelage.trackers.feed import PLACES, feed
from written_runs import read_rows, write_retraining, write_rows, write_search

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trackers' own dependencies
ROWS = 3
"""Rows of which the first session knows."""


@pytest.fixture
def run(tmp_path):
    """A search of three epochs that was fed before it was killed, and then again."""
    return write_search(tmp_path / "runs" / "sgl", epochs=3)


def fed_twice(run, name):
    """Feed a run that is stopped after a few rows, and again when it has ended."""
    whole = (run / "metrics.jsonl").read_bytes()
    shutil.move(run / "genotype.json", run / "genotype.later")
    write_rows(run, read_rows(run)[:ROWS])
    feed(run, name)
    (run / "metrics.jsonl").write_bytes(whole)
    shutil.move(run / "genotype.later", run / "genotype.json")
    return feed(run, name)


def losses(run, event="epoch"):
    """The loss of the weights by step: steps go on over epochs of 391."""
    rows = [row for row in read_rows(run) if row["event"] == event]
    return [(391 * row["epoch"] + row["step"], row["loss"]["W"]) for row in rows]


def final(run):
    return json.loads((run / "genotype.json").read_text())["about"]["valid_accuracy"]


def test_tensorboard(run):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    assert fed_twice(run, "tensorboard") == f"tensorboard: 7 rows of {run}, in {run}/tensorboard"
    events = EventAccumulator(str(run / "tensorboard"), {"images": 0, "scalars": 0}).Reload()
    for event in ("epoch", "step"):
        read = [(each.step, each.value) for each in events.Scalars(f"{event}/loss/W")]
        assert read == [(step, pytest.approx(x)) for step, x in losses(run, event)]
    assert [x.value for x in events.Scalars("final/valid_accuracy")] == pytest.approx([final(run)])
    (cells,) = events.Images("cells/found")
    assert cells.step == 1173 and cells.width > 300 and cells.height > 300
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    values = metadata.parse_session_start_info_plugin_data(content).hparams
    assert values["weights.lr"].number_value == 0.1
    assert values["method.name"].string_value == "sgl"


def test_mlflow(run, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    store = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", None)
    monkeypatch.chdir(tmp_path)  # artifacts go to the working folder
    assert fed_twice(run, "mlflow") == f"mlflow: 4 rows of {run}, in {store}"
    feed(run, "mlflow")  # has everything
    client = mlflow.tracking.MlflowClient(store)
    experiment = client.get_experiment_by_name("tutelage")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == "sgl" and found.info.status == "FINISHED"
    assert found.info.run_id == json.loads((run / PLACES).read_text())["mlflow"]["id"]
    for event in ("epoch", "step"):
        history = client.get_metric_history(found.info.run_id, f"{event}/loss/W")
        assert [(each.step, each.value) for each in history] == losses(run, event)
    history = client.get_metric_history(found.info.run_id, "final/valid_accuracy")
    assert [each.value for each in history] == [final(run)]
    assert found.data.params["weights.lr"] == "0.1" and found.data.params["method.name"] == "sgl"
    files = {each.path for each in client.list_artifacts(found.info.run_id)}
    assert files == {"run.toml", "genotype.json", "cells"}
    (cells,) = client.list_artifacts(found.info.run_id, "cells/found")
    assert cells.path == "cells/found/0001173.png" and cells.file_size > 10_000


def test_wandb(run, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert fed_twice(run, "wandb") == f"wandb: 7 rows of {run}, in tutelage (offline)"
    first, last = sorted((run / "wandb").glob("offline-run-*/*.wandb"))
    place = json.loads((run / PLACES).read_text())["wandb"]
    assert first.name == last.name == f"run-{place['id']}.wandb"
    records = list(records_of(last))
    history = [items(each.history.item) for each in records if each.HasField("history")]
    for event in ("epoch", "step"):
        name = f"{event}/loss/W"
        assert [(x["_step"], x[name]) for x in history if name in x] == losses(run, event)
    assert history[-1]["cells/found/_type"] == "image-file"
    picture = last.parent / "files" / history[-1]["cells/found/path"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    (begun,) = [each.run for each in records if each.HasField("run")]
    assert (begun.project, begun.display_name) == ("tutelage", "sgl")
    assert items(begun.config.update)["weights.lr"] == 0.1
    summaries = [items(each.summary.update) for each in records if each.HasField("summary")]
    assert {"final/valid_accuracy": final(run)}.items() <= {
        key: value for each in summaries for key, value in each.items()
    }.items()


def items(found):
    """Read W&B's pairs of a name and JSON."""
    return {x.key or "/".join(x.nested_key): json.loads(x.value_json) for x in found}


def records_of(path: Path):
    """Read a .wandb file: blocks of LevelDB's log, whose chunks make up W&B's own messages."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, record = path.read_bytes(), 7, b""
    assert content.startswith(b":W&B")
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # the rest of a block is too short for a chunk's head
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole message, or its last chunk
            yield Record.FromString(record)
            record = b""


def test_a_retraining_in_tensorboard_has_its_test_error(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = write_retraining(tmp_path / "retrain", epochs=2)
    feed(out, "tensorboard")
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    assert events.Scalars("final/test_error")[0].value == pytest.approx(0.0265)
