"""How many threads compute: what is chosen, and what a run records."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from commands import BRIEF
from photographs import make_photographs
from retraining import GENOTYPE, SMALL
from tutelage import cpus
from tutelage.config import Data, Retrain, Run
from tutelage.data.images import OnDisk
from tutelage.run.dry_run import dry_run
from tutelage.run.machine import threads
from tutelage.run.retrain import retrain
from tutelage.run.search import search_run
from tutelage.spaces.base import Size

LARGE = 100 * threads.SHARE


@pytest.fixture
def caller(monkeypatch):
    """A caller who has set nothing, on 4 idle CPUs, each a core of its own: torch has 4 threads."""
    for name in threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cpus, "mine", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(cpus, "cores", lambda: 4)
    monkeypatch.setattr(cpus, "usable", lambda: 4)
    monkeypatch.setattr(cpus, "idle", lambda: 4.0)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield monkeypatch
    torch.set_num_threads(before)


# The choice -------------------------------------------------------------------------------------


def test_idle_cpus_decide(caller):
    assert threads.chosen(LARGE) == (4, "usable CPUs: 4")
    caller.setattr(cpus, "idle", lambda: None)
    assert threads.chosen(LARGE) == (4, "usable CPUs: 4")
    for idle, number in ((3.8, 4), (3.7, 3), (1.9, 2), (1.0, 1), (0.1, 1)):
        caller.setattr(cpus, "idle", lambda idle=idle: idle)
        assert threads.chosen(LARGE).number == number
    assert threads.chosen(LARGE).because == "1 of 4 usable CPUs idle"


def test_a_quota_decides_and_the_choice_is_never_above_what_torch_has(caller):
    caller.setattr(cpus, "usable", lambda: 2)
    assert threads.chosen(LARGE) == (2, "usable CPUs: 2")
    caller.setattr(cpus, "usable", lambda: 64)
    caller.setattr(cpus, "idle", lambda: 64.0)
    assert threads.chosen(LARGE) == (4, "as torch has it")


def test_small_work_decides(caller):
    share = threads.SHARE
    assert threads.chosen(2 * share - 1) == (1, "small work")
    assert threads.chosen(2 * share) == (2, "small work")
    assert threads.chosen(4 * share) == (4, "usable CPUs: 4")
    assert threads.chosen(1) == (1, "small work")
    assert threads.chosen(None) == (4, "usable CPUs: 4")  # a GPU computes


def test_the_work_is_measured_in_the_first_cell():
    assert threads.elements(100, Size(channels=4), (1, 8, 8)) == 100 * 4 * 8 * 8
    assert threads.elements(2, Size(channels=3, stem="imagenet"), (3, 224, 100)) == 2 * 3 * 28 * 13


@pytest.mark.parametrize("name", threads.VARIABLES)
def test_a_variable_of_the_callers_decides(caller, name):
    caller.setenv(name, "3")
    caller.setattr(cpus, "idle", lambda: 1.0)
    assert threads.chosen(1) == threads.chosen(LARGE, recorded=2) == (4, name)
    caller.setenv(name, "")
    assert threads.chosen(1) == (1, "small work")


def test_the_callers_own_number_decides(caller):
    caller.setattr(cpus, "idle", lambda: 1.0)
    torch.set_num_threads(3)
    assert threads.chosen(1) == threads.chosen(LARGE, recorded=2) == (3, "torch.set_num_threads")
    caller.setattr(cpus, "cores", lambda: 3)  # what torch begins with where MKL counts cores
    assert threads.chosen(1) == (1, "small work")


def test_what_was_recorded_goes_before_the_machine(caller):
    assert threads.chosen(1, recorded=3) == (3, "as the run began")


def test_the_callers_number_comes_back(caller):
    with pytest.raises(KeyError), threads.restored(2):
        assert torch.get_num_threads() == 2
        assert threads.present() == (2, "given")
        threads.settle(1)
        assert threads.present() == (2, "given")
        with threads.restored(3):  # a member of an ensemble that is retrained
            assert threads.present() == (3, "given")
        assert threads.present() == (2, "given")
        raise KeyError
    assert torch.get_num_threads() == 4
    assert threads.present() == (4, "as torch has it")
    with threads.restored(None):
        assert threads.present() == (4, "as torch has it")
        threads.settle(1)
        assert threads.present() == (1, "small work")
    assert torch.get_num_threads() == 4


ODD = [
    *(
        "",
        "[]",
        "{}",
        '{"sessions": []}',
        '{"sessions": 3}',
        '{"sessions": {"a": 1}}',
        "[" * 99_999,
    ),
    *('{"sessions": [{}]}', '{"sessions": [7]}', '{"sessions": [{"threads": null}]}', "\xff\xfe"),
    *(f'{{"sessions": [{{"threads": {x}}}]}}' for x in ("0", "-1", "5", "true", "1.5", "[1]")),
]


@pytest.mark.parametrize("text", ODD)
def test_an_odd_record_is_none(caller, tmp_path, text):
    assert threads.recorded(tmp_path) is None
    (tmp_path / "environment.json").write_text(text, encoding="latin-1")
    assert threads.recorded(tmp_path) is None


def test_the_last_session_is_the_record(caller, tmp_path):
    sessions = {"sessions": [{"threads": 2}, {"threads": 3}]}
    (tmp_path / "environment.json").write_text(json.dumps(sessions))
    assert threads.recorded(tmp_path) == 3


# Runs -------------------------------------------------------------------------------------------

TINY = Run(
    channels=2, cells=3, batch_size=4, epochs=1, limit_batches=1, via="first-order", device="cpu"
)


def sessions(out: Path) -> list[tuple[int, str]]:
    read = json.loads((out / "environment.json").read_text())["sessions"]
    return [(session["threads"], session["threads_because"]) for session in read]


@pytest.fixture
def seen(monkeypatch):
    """Numbers of threads with which networks compute."""
    numbers = set()
    whole = torch.nn.functional.cross_entropy

    def spy(*args, **named):
        numbers.add(torch.get_num_threads())
        return whole(*args, **named)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", spy)
    return numbers


def test_a_search_computes_with_what_it_records_and_gives_the_callers_back(caller, tmp_path, seen):
    search_run(TINY, tmp_path / "small")
    assert sessions(tmp_path / "small") == [(1, "small work")]
    assert seen == {1}
    assert torch.get_num_threads() == 4
    seen.clear()
    search_run(replace(TINY, threads=2), tmp_path / "given")
    assert sessions(tmp_path / "given") == [(2, "given")]
    assert seen == {2}
    assert torch.get_num_threads() == 4


def test_a_failed_search_gives_the_callers_back(caller, tmp_path):
    with pytest.raises(ValueError, match="unknown data set"):
        search_run(replace(TINY, threads=2, data=Data(name="nothing")), tmp_path / "run")
    assert torch.get_num_threads() == 4


def test_evolution_has_the_searchs_threads(caller, tmp_path):
    evolution = replace(TINY.evolution, population=2, generations=1, parents=2, images=4, judged=4)
    settings = replace(
        TINY,
        search={"name": "single-path"},
        space={"name": "nasbench-macro"},
        cells=None,
        threads=3,
        evolution=evolution,
    )
    search_run(settings, tmp_path / "run")
    assert sessions(tmp_path / "run") == [(3, "given")]
    assert sessions(tmp_path / "run" / "evolution") == [(3, "given")]


def test_a_run_that_goes_on_keeps_its_number_or_takes_another(caller, tmp_path):
    out = tmp_path / "run"
    search_run(TINY, out)
    caller.setattr(threads, "SHARE", 1)  # now four threads would be chosen
    search_run(TINY, out, resume=True)
    search_run(replace(TINY, threads=2), out, resume=True)
    search_run(TINY, out, resume=True)
    assert sessions(out) == [
        (1, "small work"),
        (1, "as the run began"),
        (2, "given"),
        (2, "as the run began"),
    ]


@pytest.mark.parametrize("text", ["", "[]", '{"sessions": 3}', '{"sessions": [{"threads": "x"}]}'])
def test_an_odd_record_stops_no_run_that_goes_on(caller, tmp_path, text):
    search_run(TINY, tmp_path / "run")
    (tmp_path / "run" / "environment.json").write_text(text)
    search_run(TINY, tmp_path / "run", resume=True)
    *_, last = json.loads((tmp_path / "run" / "environment.json").read_text())["sessions"]
    assert (last["threads"], last["threads_because"]) == (1, "small work")


def test_a_retraining_has_threads_too(caller, tmp_path, seen):
    settings = replace(SMALL, epochs=1, limit_batches=1)
    retrain(GENOTYPE, Data(), replace(settings, threads=2), tmp_path / "given")
    assert sessions(tmp_path / "given") == [(2, "given")]
    assert seen == {2}  # the test of the network too
    retrain(GENOTYPE, Data(), settings, tmp_path / "open")
    assert sessions(tmp_path / "open") == [(1, "small work")]
    assert seen == {1, 2}
    assert torch.get_num_threads() == 4


def test_a_dry_run_says_its_threads(caller, seen):
    assert "threads        2 (given)" in dry_run(replace(TINY, threads=2)).as_text()
    assert "threads        1 (small work)" in dry_run(TINY).as_text()
    assert seen == {1, 2}
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("settings", [Run, Retrain])
@pytest.mark.parametrize("number", [0, -1, 1025])
def test_a_bad_number_is_refused(settings, number):
    with pytest.raises(ValueError, match=rf"threads = {number}: must be between 1 and 1024"):
        settings(threads=number)


def test_the_flag_reaches_both_verbs(tutelage):
    assert tutelage(f"search {BRIEF} --via first-order --threads 2 --out run")[0] == 0
    assert sessions(Path("run")) == [(2, "given")]
    line = "retrain run --epochs 1 --channels 2 --cells 3 --limit-batches 1 --threads 3"
    assert tutelage(line)[0] == 0
    assert sessions(Path("run/retrain")) == [(3, "given")]


def test_the_loader_has_the_threads_that_are_asked_for(caller, tmp_path, monkeypatch):
    made = []
    init = OnDisk.__init__

    def spy(self, *args, **named):
        init(self, *args, **named)
        made.append(self._pool._max_workers)

    monkeypatch.setattr(OnDisk, "__init__", spy)
    name = str(make_photographs(tmp_path / "images"))
    data = Data(name=name, memory="stream", resolution=8, colour="rgb")
    search_run(replace(TINY, threads=3, data=data), tmp_path / "given")
    assert set(made) == {3}
    made.clear()
    search_run(replace(TINY, data=data), tmp_path / "open")
    assert set(made) == {4}  # a CPU each, though one thread computes
    assert sessions(tmp_path / "open") == [(1, "small work")]
