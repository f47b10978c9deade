"""A study whose processes die at their writes goes on with the same command, and ends the same."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import runs
from processes import run

STUDY = """
[study]
seeds = [1]
[base]
via = "first-order"
channels = 2
cells = 3
batch_size = 4
limit_batches = 2
epochs = 2
save_every = 0.0
retrain = { epochs = 2, limit_batches = 2, channels = 2, cells = 3, batch_size = 4 }
[configurations.one]
method.name = "single"
"""
SITE = Path(__file__).parent / "site"
LAST = 90
"""A search passes more points than this."""


def studied(folder, faults=None):
    """Run the study; its processes have the faults too."""
    (folder / "study.toml").write_text(STUDY)
    path = os.pathsep.join([str(SITE), os.environ.get("PYTHONPATH", "")])
    faults = {**faults, "PYTHONPATH": path} if faults else None
    return run("study study.toml --out out --jobs 1".split(), folder, faults)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.timeout(7200)
def test_a_study_killed_at_writes_ends_the_same(tmp_path, amount, figures):
    whole = tmp_path / "whole"
    whole.mkdir()
    ended = studied(whole)
    assert ended.code == 0, ended.error
    choose, wrong, told = random.Random(0), [], 0
    for place in range(amount(1, 3, 10)):
        folder = tmp_path / str(place)
        folder.mkdir()
        # every second time the study itself, which writes little; else the search that it starts
        point = choose.randint(1, 9) if place % 2 else choose.randint(20, LAST)
        faults = {"FAULT_UNDER": folder / "out", "FAULT_KILL": point}
        killed = studied(folder, faults)
        assert killed.code == -9 or "ended by SIGKILL" in killed.error, killed.error
        told += killed.code == 1 and killed.sentence
        ended = studied(folder)
        name = Path("out", "one", "seed-1")
        different = (
            runs.differences(whole / name, folder / name) if ended.code == 0 else [ended.error]
        )
        figures["kills"] += 1
        figures["tracebacks"] += killed.traceback + ended.traceback
        figures["lost"] += bool(different)
        wrong += [f"point {point}: {different}"] if different else []
    assert not wrong, "\n".join(wrong)
    assert told  # a process that the study started has died, and the study has said so
