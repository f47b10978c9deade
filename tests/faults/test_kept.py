"""A campaign that was stopped goes on with what is not done, and has the figures of all of it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

FILE = Path(__file__).with_name("kept.py")


def process():
    """Load the module as another process does."""
    spec = importlib.util.spec_from_file_location("kept_of_another_process", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_campaign_that_was_stopped_goes_on(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "kept.jsonl"
    monkeypatch.setenv("FAULTS_KEPT", str(path))
    monkeypatch.setenv("FAULTS_BEFORE", "0")
    monkeypatch.setenv("FAULT_SEED", "0")
    first = process()
    first.begin()
    for test, outcome, kills in (("a", "passed", 2), ("b", "failed", 1), ("c", "skipped", 0)):
        first.note(test, outcome)
        first.note(test, "passed")  # its teardown
        first.add(test, "kills", {"kills": kills, "CPU seconds": 30.0})
    with path.open("a") as file:
        file.write('{"test": "d", "figures": {"kills": 1}')  # it ended here

    second = process()
    second.begin()
    worker = process()  # takes what the process that started it found
    assert second.passed() == worker.passed() == {"a", "c"}
    second.note("b", "passed")
    second.add("b", "kills", {"kills": 4, "CPU seconds": 60.0})
    last = [
        "kills: 6 kills, 120 CPU seconds, 2 tests passed, 1 tests skipped",
        "all: 2.0 CPU minutes",
    ]
    assert sorted(second.table()) == sorted(last)
    assert worker.passed() == {"a", "c"}  # what is done meanwhile changes no list of tests
    printed = subprocess.run(
        [sys.executable, FILE, path], capture_output=True, text=True, check=True
    )
    assert sorted(printed.stdout.splitlines()) == sorted(last)

    monkeypatch.setenv("FAULT_SEED", "1")
    other = process()
    other.begin()
    assert other.passed() == set() and list(other.table()) == []
