"""SIGKILL at every write and at random moments: resumed, a run ends as if nothing had been."""

from __future__ import annotations

import random
import shutil
import time
from typing import NamedTuple

import pytest
import runs
from inject import digest
from processes import Command, run

DEFAULT = ("retrain",)
RANDOM = ("search single", "search ennas", "retrain")
"""Killed at random moments also in the smaller campaigns."""
MARKED = [
    pytest.param(name, marks=[pytest.mark.slow] if name not in DEFAULT else [])
    for name in runs.NAMES
]


def words_given(name, given, request):
    return request.getfixturevalue("pool") if name == "retrain ensemble" else given


class State(NamedTuple):
    """A point of a run at which its folder has changed."""

    number: int
    digest: str
    """Of the folder."""
    what: str
    """What happens there."""


def states(name, out, given, copies=None, **more):
    """List the states of a run's folder under more faults, and copy each where that is asked."""
    log = out.parent / "points"
    log.unlink(missing_ok=True)
    faults = {"FAULT_UNDER": out, "FAULT_LIST": log, **more}
    faults |= {"FAULT_COPIES": copies} if copies else {}
    ended = run(runs.words(name, runs.fresh(out), given), out.parent, faults)
    assert ended.code == 0, ended.error
    found = {}
    for line in log.read_text().splitlines():
        number, digest, what = line.split("\t")
        found.setdefault(digest, State(int(number), digest, what))
    return list(found.values())


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", MARKED)
def test_killed_at_a_write_and_resumed_ends_the_same(
    name, tmp_path, whole, given, amount, figures, request
):
    """Some are killed, and leave what the run was seen to hold there; the others begin with that.

    A process that is killed leaves its files as the system has them, so a copy is as good.
    """
    given = words_given(name, given, request)
    undisturbed, out, copies = whole(name, given), tmp_path / "run", tmp_path / "copies"
    points = states(name, out, given, copies)
    assert {"half written", "before renaming"} <= {x.what.rpartition(" ")[0] for x in points}
    choose = random.Random(name)
    chosen = choose.sample(points, min(amount(2, 8, len(points)), len(points)))
    lost = []
    for place, point in enumerate(chosen):
        if place < amount(2, 4, 6):
            faults = {"FAULT_UNDER": out, "FAULT_KILL": point.number}
            killed = run(runs.words(name, runs.fresh(out), given), tmp_path, faults)
            assert killed.code == -9, killed.error
            assert digest(out) == point.digest, f"a kill leaves another folder than {point}"
            figures["kills"] += 1
        elif (copy := copies / str(point.number)).exists():
            shutil.copytree(copy, runs.fresh(out))
            figures["states as a kill leaves them"] += 1
        ended = runs.finish(name, out, given)
        different = runs.differences(undisturbed, out) if ended.code == 0 else [ended.error[-300:]]
        figures["tracebacks"] += ended.traceback
        figures["lost"] += bool(different)
        lost += [f"{point.what} (point {point.number}): {different}"] if different else []
    assert not lost, "\n".join(lost)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in RANDOM else [pytest.mark.exhaustive])
        for name in runs.NAMES
    ],
)
def test_killed_at_random_moments_and_resumed_ends_the_same(
    name, tmp_path, whole, given, amount, figures, request
):
    given = words_given(name, given, request)
    undisturbed, out = whole(name, given), tmp_path / "run"
    choose = random.Random(name)
    began = time.monotonic()
    runs.finish(name, runs.fresh(out), given)
    seconds = time.monotonic() - began
    lost = []
    for attempt in range(amount(1, 3, 6)):
        runs.fresh(out)
        for _ in range(choose.randint(1, 5)):
            command = Command(runs.words(name, out, given), tmp_path)
            time.sleep(choose.uniform(0, seconds))
            command.kill()
            figures["kills"] += command.end().code == -9
        ended = runs.finish(name, out, given)
        different = runs.differences(undisturbed, out) if ended.code == 0 else [ended.error[-300:]]
        figures["tracebacks"] += ended.traceback
        figures["lost"] += bool(different)
        lost += [f"attempt {attempt}: {different}"] if different else []
    assert not lost, "\n".join(lost)
