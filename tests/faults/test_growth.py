"""A long run holds no more at its end than after its beginning: memory, open files and threads."""

from __future__ import annotations

import mmap
from statistics import median
from types import SimpleNamespace

import inject
import pytest
import runs
from processes import run

NOISE = 3072
"""KiB by which two medians of the resident memory of one run differ without growth."""
SAMPLE = ("search single", "retrain")
MARKED = [
    pytest.param(name, marks=[] if name in SAMPLE else [pytest.mark.exhaustive])
    for name in runs.NAMES
    if name != "retrain ensemble"
]
STEPS = 90
"""Steps of an epoch."""


def long(name, out, given, steps):
    """Return the command of a run of at least so many steps."""
    words = runs.narrow(runs.words(name, out, given))
    epochs = -(-steps // STEPS)
    for flag, value in (
        ("--limit-batches", STEPS),
        ("--epochs", max(3, epochs)),
        ("--log-every", 50),
        ("--save-every", 1000),
    ):
        words[words.index(flag) + 1] = str(value)
    if "pdarts" in words:  # every third of its epochs is another network
        words = [word for word in words if word != "--deeper"]
        place = words.index("pdarts")
        words[place + 1 : place + 3] = ["--deeper", "0", "0"]
    if "afd" in words:  # batches of 4 let its adversary make all outputs constant
        words += ["--adversary-weight", "0.1"]
    if "nasbench-macro" in words:
        words[words.index("--batch-size") + 1] = "4"
    return words


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", MARKED)
def test_nothing_grows(name, tmp_path, given, amount, figures):
    steps, log = amount(270, 540, 1000), tmp_path / "held"
    words = long(name, tmp_path / "run", given, steps)
    ended = run(words, tmp_path, {"FAULT_WATCH": log}, seconds=3500)
    assert ended.code == 0, ended.error
    rows = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    assert rows[-1][0] >= steps * 0.25  # of the searches that train a share of the images
    half, quarter = rows[len(rows) // 2 :], len(rows) // 4
    early, late = rows[quarter : 2 * quarter], rows[-quarter:]
    growth = median(row[1] for row in late) - median(row[1] for row in early)
    figures["steps"] += rows[-1][0]
    figures[f"KiB more in the last quarter than in the second: {name}"] += int(growth)
    assert len({row[2] for row in half}) == 1, "open files"
    assert len({row[3] for row in half}) == 1, "threads"
    assert growth <= NOISE, f"{growth} KiB over {late[0][0] - early[0][0]} steps"


def test_what_grows_is_seen(tmp_path):
    """The measurement finds memory and files that steps keep."""
    kept, log = [], tmp_path / "held"

    def step(work):
        pages = mmap.mmap(-1, 1 << 22)  # the allocator may give memory again that was in use before
        pages.write(b"x" * (1 << 22))
        kept.append((pages, (tmp_path / "open").open("wb")))

    advance = inject.watched(step, log)
    for _ in range(10):
        advance(SimpleNamespace(done=10))
    rows = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    for pages, file in kept:
        pages.close()
        file.close()
    assert rows[-1][1] - rows[0][1] > 8 * 4096
    assert rows[-1][2] - rows[0][2] == 9
