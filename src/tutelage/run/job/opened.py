"""The directory of a run that several processes work on: one of them writes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tutelage import ranks
from tutelage.run.job.directory import RunDirectory


@contextmanager
def opened(path: Path, settings: Mapping[str, Any], *, resume: bool) -> Iterator[RunDirectory]:
    """Create or resume a run's directory, and release its lock at the end.

    Rank 0 writes to it. The others only read, so all need a file system that they share.

    Raises:
        ValueError: As `RunDirectory.create` or `RunDirectory.resume`, on all ranks.
    """
    begin = RunDirectory.resume if resume else RunDirectory.create
    held: list[RunDirectory] = []
    ranks.first(lambda: held.append(begin(path, settings)))
    with held[0] if held else RunDirectory.follow(path) as directory:
        yield directory


def resumes(path: Path, asked: bool) -> bool:
    """Tell whether a run resumes: if that is asked for, or torchrun has restarted its processes."""
    return ranks.first(lambda: asked or (ranks.again() and (path / "run.toml").exists()))
