"""The time left of a study, from its pace so far."""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.run.job.progress import duration


@dataclass(frozen=True)
class Pace:
    """How much of a study was done when a process began to work on it."""

    total: int
    """Runs in all."""
    first: float
    """Runs that were done then, with parts of runs."""
    began: float
    """When, in seconds."""

    def left(self, done: float, failed: int, now: float) -> str:
        """Return the time left, at the pace of this process so far.

        >>> Pace(10, 2.0, began=0.0).left(4.0, failed=1, now=60.0)
        '2 min 30 s left'
        """
        if done <= self.first:
            return "time left unknown"
        seconds = (now - self.began) / (done - self.first) * max(0.0, self.total - failed - done)
        return f"{duration(seconds)} left"
