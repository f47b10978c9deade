"""Feed trackers while a run works, each in a thread of its own that the run never waits for."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Final

from tutelage.trackers import Outcome
from tutelage.trackers.feed import Feed

SECONDS: Final = 2.0
"""Time between two looks at the run's directory."""
PATIENCE: Final = 60.0
"""Seconds that the end of a run waits for a tracker."""


class Follower(Thread):
    """Feeds one tracker until the run ends; if it fails, it says so and the run goes on."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(name=f"tracker {name}", daemon=True)
        self._path, self._to = path, name
        self._ended = Event()
        self._outcome: Outcome = "failed"
        self._session = _changed(path)

    def run(self) -> None:
        """Feed the tracker."""
        try:
            fed = Feed(self._path, self._to)
            while not self._ended.wait(SECONDS):
                if _changed(self._path) != self._session:  # rows to repeat are gone by then
                    fed.catch_up()
            fed.end(self._outcome)
        except Exception as error:
            self._say(" ".join(f"{type(error).__name__}: {error}".split()))

    def end(self, outcome: Outcome) -> None:
        """Let the tracker take the rest, and wait for it."""
        self._outcome = outcome
        self._ended.set()
        self.join(PATIENCE)
        if self.is_alive():
            self._say(f"no answer within {PATIENCE:.0f} seconds")

    def _say(self, reason: str) -> None:
        later = f"tutelage log {self._path} --to {self._to}"
        print(
            f"tutelage: {self._to} has not everything of this run ({reason}); the run is "
            f"not affected, feed it later with: {later}",
            file=sys.stderr,
            flush=True,
        )


def _changed(path: Path) -> int:
    """Return when the run's sessions were last written; 0: it has had none."""
    file = path / "environment.json"
    return file.stat().st_mtime_ns if file.exists() else 0


@contextmanager
def following(path: Path, names: Sequence[str]) -> Iterator[None]:
    """Feed the named trackers with the run in a directory that exists.

    Args:
        path: The run's directory, with its run.toml.
        names: The trackers, which are `available`.
    """
    followers = [Follower(path, name) for name in names]
    for each in followers:
        each.start()
    outcome: Outcome = "failed"
    try:
        yield
        outcome = "finished"
    except KeyboardInterrupt:
        outcome = "stopped"
        raise
    except ValueError as error:
        outcome = "stopped" if getattr(error, "status", 0) else "failed"  # of a signal
        raise
    finally:
        for each in followers:
            each.end(outcome)
