"""Disks of every size: each stop is one sentence, and with more room a run ends the same."""

from __future__ import annotations

import random

import pytest
import runs
from disks import INODES, SIZES, disk
from processes import run

LARGE = SIZES[-1]
ROOM = r"no room for|No space left on device|no room for another row"
LIMITS = [{"size": size} for size in SIZES] + [{"inodes": number} for number in INODES]


def stopped_and_finished(name, limit, folder, whole, given, figures, faked=False):
    """Work on a small disk, then on a large one; return what went wrong."""
    undisturbed = whole(name, given)
    with disk(folder, faked=faked, **limit) as small:
        out = small.folder / "run"
        first = run(runs.words(name, out, given), folder.parent, small.faults)
        figures["disks"] += 1
        figures["of them faked"] += not small.true
        figures["stops"] += first.code == 1
        figures["tracebacks"] += first.traceback
        told = first.code == 0 or (first.code == 1 and first.sentence)
        wrong = [] if told else [f"{limit}: exit {first.code}: {first.error[-300:]}"]
        if first.code and not any(each in first.error for each in ROOM.split("|")):
            wrong.append(f"{limit}: {first.error}")
        partial = [x.name for x in small.folder.rglob("*.partial")] if small.true else []
        wrong += [f"{limit}: left {each}" for each in partial]
        small.grow()
        ended = runs.finish(name, out, given)
        different = runs.differences(undisturbed, out) if ended.code == 0 else [ended.error]
        figures["tracebacks"] += ended.traceback
        figures["lost"] += bool(different)
        return wrong + [f"{limit}: {each}" for each in different], first


@pytest.mark.parametrize(
    "limit", [{"inodes": 6}, pytest.param({"size": 16384}, marks=pytest.mark.slow)], ids=str
)
def test_a_writer_that_counts_stands_in_for_a_small_disk(limit, tmp_path, whole, given, figures):
    wrong, first = stopped_and_finished(
        "retrain", limit, tmp_path / "disk", whole, given, figures, faked=True
    )
    assert not wrong
    assert first.code == 1  # so the writer was asked


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["search single", "retrain", "search ennas", "search nes"])
def test_a_small_disk_stops_a_run_which_goes_on_with_more_room(
    name, tmp_path, whole, given, amount, figures
):
    count = amount(1, 6, len(LIMITS))
    wrong = []
    for place, limit in enumerate(random.Random(name).sample(LIMITS, count)):
        wrong += stopped_and_finished(
            name, limit, tmp_path / f"disk{place}", whole, given, figures
        )[0]
    assert not wrong, "\n".join(wrong)
