"""Studies at work: what is missing is run, what was stopped resumes, what fails is named."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from commands import content
from tutelage.run.job.signals import ENDING, StoppedError
from tutelage.study import process
from tutelage.study.jobs import Outcome, prepare, run_directories
from tutelage.study.local import run_here, threads
from tutelage.study.reading import read_study, study_of
from tutelage.study.status import share, standing, status

FAKE = (sys.executable, str(Path(__file__).with_name("studied.py")))
TWO = """
[study]
seeds = [1, 2]
[base]
epochs = 2
[configurations.a]
[configurations.b]
then = []
"""


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(process, "COMMAND", FAKE)


def prepared(text, out):
    return prepare(study_of(tomllib.loads(text)), out)


def test_every_run_has_its_own_directory_seed_and_steps(fake, tmp_path, capsys):
    jobs = prepared(TWO, tmp_path / "out")
    assert [job.name for job in jobs] == ["a/seed-1", "b/seed-1", "a/seed-2", "b/seed-2"]
    run_here(jobs, 2)
    for job in jobs:
        assert tomllib.loads((job.run / "run.toml").read_text())["seed"] == job.seed
        retrained = job.run / "retrain" / "run.toml"
        assert retrained.exists() == (job.configuration == "a")
        assert job.outcome().memory["search"] > 2**20
    table = tomllib.loads((tmp_path / "out/a/seed-2/retrain/run.toml").read_text())
    assert table["retrain"]["seed"] == 2
    written = capsys.readouterr().out
    assert "[4/4]" in written and "all 4 runs are done" in written


def test_started_twice_it_does_only_what_is_missing(fake, tmp_path, capsys):
    run_here(prepared(TWO, tmp_path), 2)
    before = content(tmp_path)
    run_here(prepared(TWO, tmp_path), 2)
    assert content(tmp_path) == before
    jobs = prepared(TWO.replace("[1, 2]", "[1, 2, 5]"), tmp_path)
    run_here(jobs, 2)
    after = content(tmp_path)
    assert {name for name in after if name not in before} >= {"a/seed-5/run.toml"}
    assert all(after[name] == before[name] for name in before if name != "study.toml")


def test_a_failed_run_is_named_and_stops_no_other(fake, tmp_path, capsys):
    text = TWO.replace("then = []", "weights.lr = 13") + "[configurations.c]\nweights.lr = 9\n"
    with pytest.raises(ValueError, match="4 of 6 runs failed, such as b/seed-1: the loss is not"):
        run_here(prepared(text, tmp_path), 2)
    assert (tmp_path / "a/seed-2/retrain/result.json").exists()
    written = capsys.readouterr().out
    assert "b/seed-1: failed: the loss is not finite" in written
    told = status(tmp_path)
    assert "b/seed-2: search: the loss is not finite" in told
    assert "c/seed-1: search: ended by SIGKILL, as the system does when memory is full" in told
    lines = {line.split()[0]: line.split()[1:] for line in told.splitlines() if line}
    assert lines["a"] == ["2", "–", "–", "–"]
    assert lines["b"] == ["–", "–", "–", "2"]
    assert lines["all"] == ["2", "0", "0", "4"]


def test_a_failed_run_is_tried_again(fake, tmp_path):
    text = TWO.replace("then = []", "weights.lr = 13")
    with pytest.raises(ValueError, match="2 of 4"):
        run_here(prepared(text, tmp_path), 2)
    for seed in (1, 2):  # as if the cause were gone
        file = tmp_path / f"b/seed-{seed}/run.toml"
        file.write_text(file.read_text().replace("13", "1"))
    run_here(prepared(text, tmp_path), 2)
    assert standing(prepared(text, tmp_path)[1]).state == "done"


def test_other_settings_under_the_same_name_are_refused(fake, tmp_path):
    run_here(prepared(TWO, tmp_path), 2)
    before = content(tmp_path)
    with pytest.raises(ValueError, match=r"a has runs with other settings: epochs = 3 \(was 2\)"):
        prepared(TWO.replace("epochs = 2", "epochs = 3"), tmp_path)
    assert content(tmp_path) == before
    prepared(TWO.replace("epochs = 2", "epochs = 2\nthreads = 1"), tmp_path)  # as for one run


def test_folders_that_hold_something_else_are_refused(tmp_path):
    (tmp_path / "letter").write_text("")
    with pytest.raises(ValueError, match="not empty and no study"):
        prepared(TWO, tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        prepared(TWO, tmp_path / "letter")


def test_settings_of_a_rows_retraining_are_files_of_their_own(tmp_path):
    text = '[study]\nseeds=[1]\nrows=["sgl/table-2/darts1/sgl"]\n[base]\nretrain.epochs=1'
    (job,) = prepared(text, tmp_path)
    assert tomllib.loads((job.folder / "retrain.toml").read_text()) == {"retrain": {"epochs": 1}}
    job.run.mkdir()
    (job.run / "genotype.json").write_text("{}")
    step = job.step()
    assert step.words[:4] == ("retrain", str(job.run), "--recipe", str(job.folder / "retrain.toml"))


def test_a_query_is_kept_whole_in_the_run(fake, tmp_path):
    text = '[study]\nseeds=[1]\nthen=["query"]\ntable="t.bin"\n[base]\nepochs=1\n'
    (job,) = prepared(text, tmp_path)
    run_here([job], 1)
    assert json.loads((job.run / "query.json").read_text()) == {"accuracy": {}}
    assert job.step() is None
    assert not list(job.run.glob("*.partial"))


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def wait_for(condition, seconds=15):
    for _ in range(20 * seconds):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited for too long")


def engine(file, out, jobs=2, at_start=None):
    """Start a study as a process of its own."""
    code = (
        "import sys; from tutelage.study import process; "
        f"process.COMMAND = {FAKE!r}; from tutelage.cli import main; main()"
    )
    words = [sys.executable, "-c", code, "study", str(file), "--out", str(out), "--jobs", str(jobs)]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(words, preexec_fn=at_start, **piped)


SLOW = TWO.replace("epochs = 2", "epochs = 20\nsave_every = 0.002")


@pytest.fixture
def slow(tmp_path):
    file = tmp_path / "slow.toml"
    file.write_text(SLOW)
    return file, tmp_path / "out"


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_ends_the_children_and_the_same_command_continues(slow, fake, number):
    file, out = slow
    study = engine(file, out)
    metrics = out / "a/seed-1/metrics.jsonl"
    wait_for(metrics.exists)
    study.send_signal(number)
    written, _ = study.communicate(timeout=60)
    assert study.returncode == 128 + number
    assert f"{number.name} came: 0 of 4 runs are done" in written
    saved = metrics.read_text()
    assert saved.count("epoch") > 0 and not (out / "a/seed-1/genotype.json").exists()
    jobs = prepare(read_study(file), out)
    assert [standing(job).state for job in jobs] == ["waiting"] * 4
    assert standing(jobs[0]).text.startswith("search, epoch ")
    assert 0 < share(jobs[0]) < 0.5
    run_here(jobs, 4)
    assert metrics.read_text().startswith(saved)
    assert metrics.read_text().count('"event": "epoch"') == 20


def test_in_the_background_of_a_script_a_signal_ends_the_children_too(tmp_path):
    """There a shell lets a process ignore SIGINT, and all that it starts."""
    file, out = tmp_path / "long.toml", tmp_path / "out"
    file.write_text(SLOW.replace("epochs = 20", "epochs = 1000"))
    study = engine(file, out, at_start=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    wait_for((out / "a/seed-1/metrics.jsonl").exists)
    study.send_signal(signal.SIGTERM)
    assert "SIGTERM came: 0 of 4 runs are done" in study.communicate(timeout=60)[0]


def test_a_signal_while_a_run_starts_reaches_it(fake, tmp_path, monkeypatch):
    """It comes when the process works and the study does not know it yet."""
    begin = process.Running._begin

    def interrupted(self):
        begin(self)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(process.Running, "_begin", interrupted)
    jobs = prepared(SLOW.replace("epochs = 20", "epochs = 1000"), tmp_path)
    with pytest.raises(StoppedError, match="SIGTERM came: 0 of 4"):
        run_here(jobs, 1)


def test_a_signal_to_a_process_that_has_just_ended_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", ""))
    job = prepared(TWO, tmp_path)[0]
    running = process.Running(job, job.claim(), {})
    os.waitid(os.P_PID, running._process.pid, os.WEXITED | os.WNOWAIT)  # not reaped yet
    running.interrupt()
    assert running.poll() and not running.outcome.failed
    running.interrupt()


def test_after_a_kill_the_runs_go_on_and_are_not_started_twice(slow, fake):
    """What works goes on and holds its lock; another process waits, and does the rest."""
    file, out = slow
    study = engine(file, out)
    wait_for((out / "a/seed-1/metrics.jsonl").exists)
    study.kill()
    study.communicate()
    jobs = prepare(read_study(file), out)
    assert standing(jobs[0]).state == "running"
    assert "seed 1: search, epoch" in status(out)
    run_here(jobs, 2)
    for job in jobs:
        assert [row["epoch"] for row in rows_of(job.run)] == list(range(20))
    assert len({row["pid"] for row in rows_of(jobs[0].run)}) == 1


def test_two_processes_share_a_study(slow):
    file, out = slow
    both = [engine(file, out) for _ in range(2)]
    for each in both:
        written, _ = each.communicate(timeout=100)
        assert each.returncode == 0, written
    for folder in out.glob("*/seed-*/"):
        rows = rows_of(folder)
        assert [row["epoch"] for row in rows] == list(range(20))
        assert len({row["pid"] for row in rows}) == 1


def test_a_status_disturbs_nothing(slow, fake):
    file, out = slow
    study = engine(file, out)
    wait_for((out / "a/seed-1/metrics.jsonl").exists)
    while study.poll() is None:
        status(out)
    written = study.communicate()[0]
    assert study.returncode == 0 and "another process" not in written


def test_a_query_that_waits_has_no_epochs(fake, tmp_path):
    text = TWO.replace("[base]", '[base]\nthen = ["query"]').replace("then = []", "")
    jobs = prepared(text.replace("[base]", 'table = "t"\n[base]', 1), tmp_path)
    run_here(jobs, 2)
    (jobs[0].run / "query.json").unlink()
    assert standing(jobs[0]).text == "query"
    assert (share(jobs[0]), share(jobs[1])) == (0.5, 1.0)


def test_an_override_that_is_dropped_leaves_no_file(tmp_path):
    text = '[study]\nseeds = [1]\n[base]\nrow = "sgl/table-2/darts1/sgl"\n'
    (job,) = prepared(text + "retrain.epochs = 3\n", tmp_path)
    assert (job.folder / "retrain.toml").exists()
    prepared(text, tmp_path)
    assert not (job.folder / "retrain.toml").exists()


def test_damaged_outcomes_say_nothing(tmp_path):
    job = prepared(TWO, tmp_path)[0]
    for text in ("{", "[]", '{"failed": 3}', '{"unknown": 3}'):
        (job.folder / "seed-1.json").write_text(text)
        assert job.outcome() == Outcome()


def test_the_directories_of_runs(fake, tmp_path):
    jobs = prepared(TWO, tmp_path)
    with pytest.raises(ValueError, match="a/seed-1: the search has not ended"):
        run_directories(tmp_path)
    run_here(jobs, 2)
    a, b = (tmp_path / name for name in "ab")
    assert run_directories(tmp_path) == {
        "a": [a / "seed-1", a / "seed-2"],
        "b": [b / "seed-1", b / "seed-2"],
    }


def test_threads_are_shared_unless_the_user_says(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads(1) == {}
    assert threads(10_000) == {"OMP_NUM_THREADS": "1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads(2) == {}


def test_no_job_at_a_time_is_refused(tmp_path):
    with pytest.raises(ValueError, match="jobs = 0"):
        run_here([], 0)
    assert issubclass(StoppedError, ValueError)


def test_the_command_line_on_the_digits(here, tutelage):
    """A whole study of one run that trains nothing, by the true commands."""
    (here / "question.toml").write_text("""
        [study]
        seeds = [3]
        then = []
        [base]
        method.name = "single"
        search.name = "random"
        channels = 2
        cells = 3
    """)
    code, written, error = tutelage("study question.toml --dry-run")
    assert (code, written.splitlines()[0]) == (0, "1 runs: 1 configurations, seeds [3]")
    assert not (here / "out").exists()
    code, written, error = tutelage("study question.toml --out out")
    assert code == 0, error
    assert "a page about it with: tutelage report out" in written
    assert tomllib.loads((here / "out/run/seed-3/run.toml").read_text())["seed"] == 3
    assert "all            1     0        0        0" in tutelage("study --status out")[1]
    assert tutelage("report out")[0] == 0
    assert (here / "out/report.html").exists()


def test_mistakes_of_the_command_line(here, refused):
    (here / "a.toml").write_text("[study]\nseeds = [1]\n")
    refused("study", "a study needs its file")
    refused("study a.toml", "needs --out DIR")
    refused("study b.toml --out out", "b.toml: there is no such file")
    refused("study --status out", "no such file of a study")
    refused("study a.toml --out out --jobs 0", "jobs = 0: must be")
    assert not (here / "out").exists()
    refused("study a.toml --out out --slurm gpu", "must be KEY=VALUE")
