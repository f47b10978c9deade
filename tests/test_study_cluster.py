"""Studies on a cluster, by submitit's executor for one machine."""

import json
import os
import signal
import sys
import tomllib
from pathlib import Path

import pytest

from tutelage.study import cluster, process
from tutelage.study.cluster import OnNode, options, submit
from tutelage.study.jobs import prepare
from tutelage.study.reading import study_of
from tutelage.study.status import standing

FAKE = (sys.executable, str(Path(__file__).with_name("studied.py")))
LOCAL = ("cluster=local", "timeout_min=5")
TEXT = """
[study]
seeds = [1, 2]
[base]
epochs = 2
[configurations.a]
[configurations.b]
weights.lr = 13
"""


@pytest.fixture
def jobs(tmp_path):
    return prepare(study_of(tomllib.loads(TEXT)), tmp_path / "out")


def test_options():
    assert options(["timeout_min=9", "gpus_per_node=1", "array_parallelism=8"]) == (
        "slurm",
        {"timeout_min": 9, "gpus_per_node": 1, "slurm_array_parallelism": 8},
    )
    for given, complaint in (
        (["timeout_min=9", "gpu"], "must be KEY=VALUE"),
        (["timeout_min="], "must be KEY=VALUE"),
        (["partition=gpu"], "needs timeout_min"),
    ):
        with pytest.raises(ValueError, match=complaint):
            options(given)


def test_without_submitit_the_message_names_the_extra(jobs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ValueError, match=r"pip install 'tutelage\[study\]'"):
        submit(jobs, tmp_path / "out", LOCAL)


def test_a_run_on_a_node_ends_or_says_why_it_failed(jobs, monkeypatch):
    monkeypatch.setattr(process, "COMMAND", FAKE)
    done, failing, *_ = jobs
    assert OnNode(done)() == "a/seed-1: done"
    assert OnNode(done)() == "a/seed-1: done"
    with pytest.raises(ValueError, match="b/seed-1: the loss is not finite"):
        OnNode(failing)()
    with done.claim():
        assert OnNode(done)() == "a/seed-1: another job works on it"


def test_a_run_that_a_signal_stops_is_not_done(jobs, monkeypatch):
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", "raise SystemExit(143)"))
    assert OnNode(jobs[0])() == "a/seed-1: stopped, and saved"


def test_runs_are_submitted_once_and_what_failed_again(jobs, tmp_path, monkeypatch, capsys):
    submitit = pytest.importorskip("submitit")
    monkeypatch.setattr(cluster, "OnNode", Faked)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path + [str(Path(__file__).parent)]))
    sent = submit(jobs, tmp_path / "out", LOCAL)
    assert len(sent) == 4
    for each in sent:
        each.wait()
    assert [standing(job).state for job in jobs] == ["done", "failed"] * 2
    with pytest.raises(submitit.core.utils.FailedJobError, match="the loss is not finite"):
        sent[1].result()
    again = submit(jobs, tmp_path / "out", LOCAL)
    assert len(again) == 2
    for each in again:
        each.wait()
    with pytest.raises(ValueError, match=r"--slurm: .*nonsense"):
        submit(jobs, tmp_path / "out", (*LOCAL, "local_nonsense=3"))


class Faked(OnNode):
    """On the node, a process of its own, the command line is the stand-in too."""

    def __call__(self):
        process.COMMAND = FAKE
        return super().__call__()


def test_a_job_at_its_limit_saves_and_is_queued_again(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setattr(process, "COMMAND", FAKE)
    text = TEXT.replace("epochs = 2", "epochs = 20\nsave_every = 0.002")
    job = prepare(study_of(tomllib.loads(text)), tmp_path)[0]
    node, queued = OnNode(job), []
    rows = job.run / "metrics.jsonl"

    def at_its_limit(number, frame):
        queued.append(node.checkpoint())

    before = signal.signal(signal.SIGALRM, at_its_limit)
    signal.setitimer(signal.ITIMER_REAL, 2.0)
    try:
        node()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert standing(job).state == "waiting"
    saved = rows.read_text()
    assert queued[0].function() == "a/seed-1: done"
    assert rows.read_text().startswith(saved)
    assert [json.loads(line)["epoch"] for line in rows.read_text().splitlines()] == list(range(20))
