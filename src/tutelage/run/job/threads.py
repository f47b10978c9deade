"""How many threads a run computes with, and why.

A search of small maps is thousands of short operations, each of which ends with all threads waiting
for the slowest. Where another process takes that one's CPU, all of them wait, so that two threads
take longer than one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Final, NamedTuple

import torch

from tutelage import cpus
from tutelage.spaces.base import Size

VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT")
"""Whoever sets one of these, or calls torch.set_num_threads, has chosen the number."""
SHARE: Final = 25_000
"""Numbers that every thread has of a batch's maps in the first cell. Below 50,000, a second thread
saved a fifth of a step's time at most on two idle cores; beside a busy process two threads take
twice as long as one."""
UNREST: Final = 0.25
"""Share of a CPU that others may use while it still counts as idle: no system is at rest."""


class Threads(NamedTuple):
    """A number of threads, and its reason."""

    number: int
    because: str
    """In short words, for environment.json."""


_present: ContextVar[Threads | None] = ContextVar("threads of the present run", default=None)


@contextmanager
def restored(given: int | None) -> Iterator[None]:
    """Give the caller's number of threads back in the end, whatever is computed with inside.

    Args:
        given: What the settings say, which holds at once; None: nothing changes yet.
    """
    before = torch.get_num_threads()
    asked, present = cpus.asked.set(given), _present.set(None)
    try:
        if given:
            compute_with(Threads(given, "given"))
        yield
    finally:
        cpus.asked.reset(asked)
        _present.reset(present)
        _set(before)


def compute_with(threads: Threads) -> None:
    """Compute with so many threads from now on."""
    _set(threads.number)
    _present.set(threads)


def _set(number: int) -> None:
    """Tell torch the number, unless it has it: to be told changes how MKL keeps its threads."""
    if torch.get_num_threads() != number:
        torch.set_num_threads(number)


def present() -> Threads:
    """Return the number of threads at present, and its reason."""
    threads = _present.get() or Threads(0, "as torch has it")
    return threads._replace(number=torch.get_num_threads())


def settle(elements: int | None, before: Path | None = None) -> None:
    """Choose a number of threads, and compute with it; one that was given stays.

    Args:
        elements: Numbers in a batch's maps of the first cell; None: a GPU computes those.
        before: The run directory of a run that resumes: its number makes it exact.
    """
    if _present.get() is None:
        compute_with(chosen(elements, recorded(before) if before else None))


def chosen(elements: int | None, recorded: int | None = None) -> Threads:
    """Choose a number of threads where the settings give none; never more than torch has now.

    Args:
        elements: As in `settle`.
        recorded: What the run computed with before; more than torch has now, if need be.
    """
    now = torch.get_num_threads()
    if by := callers():
        return Threads(now, by)
    if recorded:
        return Threads(recorded, "as the run began")
    usable = cpus.usable()
    worth = usable if elements is None else max(1, elements // SHARE)
    most = min(now, usable, worth)
    if most > 1 and elements is not None and (idle := cpus.idle()) is not None:
        free = max(1, int(idle + UNREST))
        if free < most:
            return Threads(free, f"{free} of {usable} usable CPUs idle")
    if worth < min(now, usable):
        return Threads(most, "small work")
    return Threads(most, f"usable CPUs: {usable}" if usable <= now else "as torch has it")


def callers() -> str:
    """Name what the caller has chosen a number of threads by; nothing: he has not.

    Torch begins with a thread a CPU, or a core where MKL says so: another number was set.
    """
    for name in VARIABLES:
        if os.environ.get(name):
            return name
    own = torch.get_num_threads() in (len(cpus.mine()), cpus.cores())
    return "" if own else "torch.set_num_threads"


def recorded(run: Path) -> int | None:
    """Return with how many threads the last session of a run computed; None: not known.

    More than this machine has CPUs are another machine's, on which exactness does not depend.
    """
    try:
        session = json.loads((run / "environment.json").read_bytes())["sessions"][-1]
        count = session["threads"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    known = type(count) is int and 1 <= count <= (os.cpu_count() or 1)
    return count if known else None


def elements(batch: int, size: Size, image: Sequence[int]) -> int:
    """Count the numbers in a batch's maps of a network's first cell.

    Args:
        batch: Images.
        size: The network's.
        image: Channels, height and width of the images.
    """
    stride = 8 if size.stem == "imagenet" else 1
    return batch * size.channels * -(-image[1] // stride) * -(-image[2] // stride)
