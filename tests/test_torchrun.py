"""A run of several processes is as safe as one of one process: faults, refusals, resuming.

The processes are torchrun's in the slow tests, and the tests' own in most others, which saves the
time of imports. Every method's run is killed in tests/faults/test_ranks_killed.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time

import pytest

from compared import same
from faulty import LOST, Torchrun, new_store, together
from photographs import make_photographs
from tutelage import cli
from tutelage.run.job import checkpoint

PARTS = "--space nasbench201 --channels 2 --cells 1 --batch-size 8 --device cpu --threads 1"
SEARCH = f"search {PARTS} --limit-batches 2 --epochs 3 --via first-order --out"
RETRAIN = (
    "retrain DARTS_V2 --channels 4 --cells 2 --batch-size 8 --epochs 3 --limit-batches 2 "
    "--data digits --validate 21 --threads 1 --device cpu --out"
)


def call(line):
    """Call the command line in this process."""
    with pytest.raises(SystemExit) as end:
        cli.main(line.split())
    assert not end.value.code


def sentence(ends):
    """Return what the processes said, if that is one sentence of one of them."""
    (only,) = [each for end in ends for each in end.said]
    assert sum(bool(end.error) for end in ends) == 1, ends
    assert all(end.status for end in ends)
    return only


def sessions(run):
    """Return the sessions of environment.json."""
    return json.loads((run / "environment.json").read_text())["sessions"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search in one process that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    call(f"{SEARCH} {out}")
    return out


@pytest.fixture
def processes(tmp_path):
    """Run a command line in two processes, or more."""
    return lambda line, count=2, **more: together(tmp_path / "said", count, line, **more)


def test_a_killed_process_ends_the_others_and_nothing_is_lost(whole, processes, tmp_path):
    run = tmp_path / "run"
    store = new_store()
    ends = processes(f"{SEARCH} {run}", FAULT="1:4:kill", store=store)
    assert sentence(ends).startswith(LOST)
    assert [end.status for end in ends] == [1, -9]
    assert checkpoint.load(run)["work"]["epoch"] == 1
    shutil.copytree(run, tmp_path / "alone")
    # torchrun has started both again: the same command goes on from the checkpoint
    ends = processes(
        f"{SEARCH} {run}", TORCHELASTIC_RESTART_COUNT="1", FAULT="1:1:kill", store=store
    )
    assert [end.status for end in ends] == [0, 0]
    same(run, whole)
    assert "2 processes, gloo" in (tmp_path / "said" / "out-0").read_text()
    assert (tmp_path / "said" / "out-1").read_text() == ""
    call(f"search --resume {tmp_path / 'alone'}")
    same(tmp_path / "alone", whole)
    assert [each["processes"] for each in sessions(tmp_path / "alone")] == [2, 1]


@pytest.mark.parametrize("fault", ["1:3:term", "*:3:int"])
def test_a_signal_saves_and_ends_all(whole, processes, tmp_path, fault):
    run = tmp_path / "run"
    ends = processes(f"{SEARCH} {run}", FAULT=fault)
    name = f"SIG{fault[4:].upper()}"
    assert sentence(ends) == (
        f"{name} came: saved at epoch 1, step 1; resume with tutelage search --resume {run}"
    )
    assert {end.status for end in ends} == {143 if "term" in fault else 130}
    call(f"search --resume {run}")
    same(run, whole)


def test_a_signal_while_settings_are_read_is_no_wrong_setting(processes, tmp_path):
    ends = processes(f"{SEARCH} {tmp_path / 'run'}", FAULT="1:0:early")
    assert sentence(ends).startswith("SIGTERM came: what the last checkpoint holds is safe")
    assert {end.status for end in ends} == {143}


@pytest.mark.parametrize(
    ("fault", "pattern"),
    [
        ("1:4:raise", "this process has no data"),
        ("0:4:raise", "this process has no data"),
        ("0:3:full", r"no room for .*checkpoint.coming.pt .*: everything written before is safe"),
    ],
)
def test_a_mistake_of_one_process_is_said_once(processes, tmp_path, fault, pattern):
    run = tmp_path / "run"
    assert re.match(pattern, sentence(processes(f"{SEARCH} {run}", FAULT=fault)))
    assert checkpoint.load(run)["work"]["epoch"] == 1


def test_a_difference_of_one_bit_ends_the_run_before_it_is_saved(whole, processes, tmp_path):
    run = tmp_path / "run"
    text = sentence(processes(f"{SEARCH} {run}", FAULT="1:4:bit"))
    assert re.match(r"rank 1 has another A than rank 0 at epoch 2, step 0, and nothing is", text)
    assert checkpoint.load(run)["work"]["epoch"] == 1
    call(f"search --resume {run}")
    same(run, whole)


@pytest.mark.slow
def test_processes_that_were_started_differently_are_refused(processes, tmp_path):
    run = tmp_path / "run"
    other = "--alphas.lr 0.5 --data.held-out 5"
    assert sentence(processes(f"{SEARCH} {run}", each={1: other})).startswith(
        "rank 1 was started with data.held_out = 5 (rank 0: 0), alphas.lr = 0.5 (rank 0: 0.0003): "
        "all processes of a run need the same"
    )
    text = sentence(processes(f"{SEARCH} {run}", FAULT="1:0:version"))
    assert re.match(
        r"rank 1 was started with tutelage's version = 9.9 \(rank 0: .*\), torch's ", text
    )
    text = sentence(processes(f"{SEARCH} {run}", each={1: "--epochs 4"}))
    assert text.startswith("--epochs is given more than once"), "before it joined the others"
    assert not run.exists()
    line = SEARCH.removesuffix(" --out")
    ends = processes(line, each={0: f"--out {run}", 1: f"--out {tmp_path / 'b'}"}, PATIENCE="60")
    assert re.match(r"rank 1 does not see .*b/run.toml as rank 0 has written", sentence(ends))


def test_other_images_are_refused(processes, tmp_path):
    """The folders have the same names and sizes, and other photographs."""
    for name in ("a", "b"):
        make_photographs(tmp_path / name)
    for path in (tmp_path / "b" / "train").rglob("*.JPEG"):
        path.write_bytes((tmp_path / "b" / "val" / path.parent.name / path.name).read_bytes())
    line = f"{SEARCH} {tmp_path / 'run'} --data folder --data.resolution 8 --data.memory stream"
    each = {rank: f"--data-root {tmp_path / name}" for rank, name in enumerate("ab")}
    text = sentence(processes(line, each=each))
    assert text.startswith("rank 1 has images with other pixels than rank 0: all processes")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "line",
    ["report run", "study s.toml --out d", f"search {PARTS} --dry-run", "describe x", "list"],
)
def test_what_one_process_does_is_refused_under_torchrun(refused, monkeypatch, line):
    monkeypatch.setattr(cli, "end_with_a_sentence", lambda: None)
    monkeypatch.setattr(cli, "ignore", lambda: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    named = "search --dry-run" if "dry" in line else line.split()[0]
    refused(line, f"tutelage {named} is the work of one process, and torchrun has started 2")


@pytest.mark.slow
def test_the_networks_of_an_ensemble_are_read_when_they_are_written(
    processes, searched_pool, tmp_path
):
    run = shutil.copytree(searched_pool.path, tmp_path / "pool")
    line = f"retrain {run} --epochs 1 --limit-batches 1 --channels 4 --cells 2 --batch-size 8"
    ends = processes(f"{line} --device cpu --threads 1", FAULT="0:0:late")
    assert [end.status for end in ends] == [0, 0], ends
    assert (run / "retrain" / "result.json").exists()


@pytest.mark.slow
def test_a_process_that_hangs_is_given_up(whole, processes, tmp_path):
    run = tmp_path / "run"
    began = time.monotonic()
    ends = processes(f"{SEARCH} {run}", FAULT="1:4:stop", PATIENCE="5", after=5)
    assert time.monotonic() - began < 60
    assert sentence(ends).startswith(LOST)
    call(f"search --resume {run}")
    same(run, whole)


# Under torchrun -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_torchrun_starts_again_and_the_run_goes_on(whole, tmp_path):
    run = tmp_path / "run"
    with Torchrun(tmp_path / "said", 2, f"{SEARCH} {run}", restarts=2, FAULT="1:4:kill") as job:
        end = job.end()
        assert len(job.pids) == 4
    assert end.status == 0
    assert [line[: len(LOST)] for line in end.said] == [LOST]
    same(run, whole)
    assert [each["processes"] for each in sessions(run)] == [2, 2]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_torchrun_starts_a_retraining_again(tmp_path):
    call(f"{RETRAIN} {tmp_path / 'whole'}")
    run = tmp_path / "run"
    with Torchrun(tmp_path / "said", 2, f"{RETRAIN} {run}", restarts=1, FAULT="0:4:kill") as job:
        end = job.end()
    assert end.status == 0, end.error
    same(run, tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("fault", ["1:4:kill", "0:4:kill", "1:4:raise", "0:4:term"])
def test_torchrun_ends_all_with_one_sentence(whole, tmp_path, fault):
    run = tmp_path / "run"
    with Torchrun(tmp_path / "said", 2, f"{SEARCH} {run}", FAULT=fault) as job:
        end = job.end()
    assert end.status
    assert len(end.said) == 1, end.error
    call(f"search --resume {run}")
    same(run, whole)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("whom", ["torchrun", "all"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signals_to_torchrun_and_to_all(whole, tmp_path, number, whom):
    run = tmp_path / "run"
    with Torchrun(tmp_path / "said", 2, f"{SEARCH} {run}") as job:
        job.until((run / "metrics.jsonl").exists)
        job.signal(number)
        for pid in job.pids if whom == "all" else ():
            os.kill(pid, number)
        job.until(lambda: not job.alive)  # without torchrun they work to the end
        end = job.end()
    assert end.status
    names = [line.split()[0] for line in end.said]
    assert names == ([] if number == signal.SIGKILL else [number.name]), end.error
    if (number, whom) != (signal.SIGKILL, "torchrun"):
        assert not (run / "genotype.json").exists()
        call(f"search --resume {run}")
    same(run, whole)
