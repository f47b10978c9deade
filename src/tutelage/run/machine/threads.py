"""The number of threads that a run computes with, and the reason for it.

A search on small feature maps is thousands of short operations. At the end of each, all threads
wait for the slowest one. If another process takes that thread's CPU, all of them wait, so that two
threads take longer than one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Final, NamedTuple

import torch

from tutelage import cpus
from tutelage.formats import read_json
from tutelage.records.results import Environment
from tutelage.spaces.base import Size

VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT")
"""Environment variables that choose the number, as a call of torch.set_num_threads does."""
SHARE: Final = 25_000
"""Elements of a batch's feature maps in the first cell, for each thread. Below 50,000, a second
thread saved at most a fifth of a step's time on two idle cores. Beside a busy process, two threads
take twice as long as one."""
UNREST: Final = 0.25
"""Share of a CPU that other processes may use while it still counts as idle."""


class Threads(NamedTuple):
    """A number of threads, and its reason."""

    number: int
    because: str
    """The reason, for environment.json."""


_present: ContextVar[Threads | None] = ContextVar("threads of the present run", default=None)


@contextmanager
def restored(given: int | None) -> Iterator[None]:
    """Restore the caller's number of threads at the end of the context.

    Args:
        given: The number of the settings, which is set at once; None: nothing changes yet.
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
    """Set the number of threads, from now on."""
    _set(threads.number)
    _present.set(threads)


def _set(number: int) -> None:
    """Set torch's number, unless it is set already: setting it changes MKL's thread handling."""
    if torch.get_num_threads() != number:
        torch.set_num_threads(number)


def present() -> Threads:
    """Return the present number of threads, and its reason."""
    threads = _present.get() or Threads(0, "as torch has it")
    return threads._replace(number=torch.get_num_threads())


def settle(elements: int | None, before: Path | None = None) -> None:
    """Choose and set a number of threads; a number that was given is kept.

    Args:
        elements: Elements of a batch's feature maps in the first cell; None: a GPU computes them.
        before: The run directory of a run that resumes: the same number makes resumption exact.
    """
    if _present.get() is None:
        compute_with(chosen(elements, recorded(before) if before else None))


def chosen(elements: int | None, recorded: int | None = None) -> Threads:
    """Choose a number of threads if the settings give none; at most torch's present number.

    Args:
        elements: As in `settle`.
        recorded: The number of the run's last session, used even if torch has fewer threads now.
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
    """Name the variable or call that chose the number of threads; empty: there is none.

    By default torch has one thread for each CPU, or for each core with MKL. Any other number was
    set.
    """
    for name in VARIABLES:
        if os.environ.get(name):
            return name
    own = torch.get_num_threads() in (len(cpus.mine()), cpus.cores())
    return "" if own else "torch.set_num_threads"


def recorded(run: Path) -> int | None:
    """Return the number of threads of a run's last session; None: unknown.

    A number above this machine's CPUs comes from another machine, where exactness does not depend
    on it.
    """
    try:
        count = Environment.read(read_json(run / "environment.json")).sessions[-1].threads
    except (OSError, ValueError, LookupError):
        return None
    return count if count and 1 <= count <= (os.cpu_count() or 1) else None


def elements(batch: int, size: Size, image: Sequence[int]) -> int:
    """Count the elements of a batch's feature maps in a network's first cell.

    Args:
        batch: Images.
        size: The size of the network.
        image: Channels, height and width of the images.
    """
    stride = 8 if size.stem == "imagenet" else 1
    return batch * size.channels * -(-image[1] // stride) * -(-image[2] // stride)
