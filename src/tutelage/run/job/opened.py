"""The directory of a run that several processes work on: one of them writes it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tutelage import ranks
from tutelage.run.job.agreement import same_settings
from tutelage.run.job.directory import RunDirectory

VISIBLE = 60.0
"""Seconds in which a file of one machine becomes visible on another one that shares its disk."""


@contextmanager
def opened(path: Path, settings: Mapping[str, Any], *, resume: bool) -> Iterator[RunDirectory]:
    """Create or resume a run's directory, and release its lock at the end.

    Rank 0 writes to it. The others only read, so all need a file system that they share.

    Raises:
        ValueError: As `RunDirectory.create` or `RunDirectory.resume`, on all ranks; or a rank does
            not see what rank 0 has written.
    """
    same_settings(settings)
    begin = RunDirectory.resume if resume else RunDirectory.create
    held: list[RunDirectory] = []
    ranks.first(lambda: held.append(begin(path, settings)))
    with held[0] if held else RunDirectory.follow(path) as directory:
        written = ranks.first((path / "run.toml").read_bytes)
        sees = _sees(path / "run.toml", written)
        for rank, unseen in enumerate(ranks.everyones(None if sees else path)):
            if unseen:
                raise ValueError(
                    f"rank {rank} does not see {unseen / 'run.toml'} as rank 0 has written it: "
                    "all processes need the same --out, on a file system that they share"
                )
        yield directory


def _sees(path: Path, content: bytes) -> bool:
    """Tell whether this process finds a file with this content, sooner or later."""
    end = time.monotonic() + VISIBLE
    while True:
        for folder in (path.parent.parent, path.parent):
            if folder.is_dir():
                list(folder.iterdir())  # a network's file system looks for new files then
        if path.is_file() and path.read_bytes() == content:
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.2)


def resumes(path: Path, asked: bool) -> bool:
    """Tell whether a run resumes: if that is asked for, or torchrun has restarted its processes."""
    return ranks.first(lambda: asked or (ranks.again() and (path / "run.toml").exists()))
