"""Run what is missing of a study on this machine, several runs at a time."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.text import Text

from tutelage.cpus import usable
from tutelage.run.job.signals import Interrupts, StoppedError
from tutelage.study.jobs import Job
from tutelage.study.process import Running
from tutelage.study.status import share
from tutelage.study.times import Pace

SECONDS_BETWEEN_POLLS = 0.1
SECONDS_BETWEEN_LINES = 30.0


def run_here(jobs: Sequence[Job], count: int) -> None:
    """Run what is missing; return when nothing is.

    Args:
        jobs: All runs of the study.
        count: How many work at the same time.

    Raises:
        ValueError: Some have failed; all others are done.
        StoppedError: SIGINT, SIGTERM or SIGHUP came; everything is saved.
    """
    if count < 1:
        raise ValueError(f"jobs = {count}: must be a whole number of at least 1")
    Local(jobs, count).work()


class Local:
    """A study at work on this machine."""

    def __init__(
        self, jobs: Sequence[Job], count: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.jobs, self.count, self._clock = jobs, count, clock
        self.waiting = deque(job for job in jobs if job.step())
        self.elsewhere: deque[Job] = deque()
        """Runs that another process works on."""
        self.running: list[Running] = []
        self.failed: list[Running] = []
        self.interrupts = Interrupts(self._interrupt)
        self.console = Console(soft_wrap=True, highlight=False)
        self.done = len(jobs) - len(self.waiting)
        self.pace = Pace(len(self.jobs), self._share(), clock())
        self._spoken = clock()
        self._told = False

    def work(self) -> None:
        """Run what is missing."""
        self._say(f"{len(self.jobs)} runs, {self.done} done before, {self.count} at a time")
        with self.interrupts:
            while self.running or (not self.signal and (self.waiting or self.elsewhere)):
                self._start()
                time.sleep(SECONDS_BETWEEN_POLLS)
                self._poll()
        self._conclude()

    @property
    def signal(self) -> str | None:
        """The signal that came; None: there was none so far."""
        return self.interrupts.received

    def _start(self) -> None:
        """Claim runs until enough work; those of other processes wait until the others end."""
        if not self.waiting and not self.running and self.elsewhere:
            if not self._told:
                self._say(f"another process works on {len(self.elsewhere)} runs; waiting for it")
                self._told = True
            time.sleep(1.0)
            self.waiting, self.elsewhere = self.elsewhere, deque()
        while self.waiting and len(self.running) < self.count and not self.signal:
            job = self.waiting.popleft()
            if job.step() is None:  # another process did it
                self.done += 1
                continue
            log = job.claim()
            if log is None:
                self.elsewhere.append(job)
            else:
                self.running.append(Running(job, log, threads(self.count)))
                if self.signal:  # it came while the run was started
                    self.running[-1].interrupt()

    def _poll(self) -> None:
        for each in [each for each in self.running if each.poll()]:
            self.running.remove(each)
            if each.outcome.failed:
                self.failed.append(each)
                self._say_ended(each.job, f"failed: {each.outcome.failed}")
            elif each.job.step() is None:
                self.done += 1
                self._say_ended(each.job, "done")
            else:
                self._say_ended(each.job, "stopped, and saved")
        if self._clock() - self._spoken >= SECONDS_BETWEEN_LINES:
            names = ", ".join(each.job.name for each in self.running)
            self._say(f"[{self.done}/{len(self.jobs)}] running: {names} | {self._left()}")

    def _interrupt(self) -> None:
        for each in self.running:
            each.interrupt()

    def _conclude(self) -> None:
        if self.signal:
            raise StoppedError(
                self.signal,
                f"{self.done} of {len(self.jobs)} runs are done, the others are saved; the same "
                "command continues",
            )
        if self.failed:
            first = self.failed[0]
            raise ValueError(
                f"{len(self.failed)} of {len(self.jobs)} runs failed, such as {first.job.name}: "
                f"{first.outcome.failed}; the same command tries them again"
            )
        self._say(f"all {len(self.jobs)} runs are done")

    def _share(self) -> float:
        """Return how many runs are done, parts of runs too."""
        return sum(share(job) for job in self.jobs)

    def _say_ended(self, job: Job, how: str) -> None:
        self._say(f"[{self.done}/{len(self.jobs)}] {job.name}: {how} | {self._left()}")

    def _say(self, text: str) -> None:
        self._spoken = self._clock()
        self.console.print(Text(text))

    def _left(self) -> str:
        return self.pace.left(self._share(), len(self.failed), self._clock())


def threads(count: int) -> dict[str, str]:
    """Return the environment that shares the CPUs between runs, unless the user's sets it."""
    if count == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, usable() // count))}
