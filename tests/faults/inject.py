"""Faults of a process: what the variables of its environment ask for, at the writes of its files.

    FAULT_UNDER  the folder whose files count
    FAULT_LIST   a file: a line for every point, with a digest of the folder
    FAULT_COPIES a folder: the first point of every digest leaves a copy there, by its number
    FAULT_KILL   the number of a point: the process ends there by SIGKILL
    FAULT_SIGNAL NAME:POINT,NAME:POINT, ...: signals that the process gets there
    FAULT_CLOCK  seconds: every reading of the clock is that much earlier than the one before
    FAULT_BYTES  room in the folder, for a machine where no small disk can be mounted
    FAULT_FILES  the most files in the folder
    FAULT_WATCH  a file: a line for every 10 steps, with resident memory, open files and threads

A point is a moment before and in the middle of a write, and before a rename, a removal, a new
folder and a wait for the disk: between two points nothing in the folder changes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

DIARIES = ("environment.json", ".lock")
"""Files with times and process ids."""
open_path, replace_path = Path.open, Path.replace


def digest(folder: Path) -> str:
    """Digest what a folder holds, without times."""
    total = hashlib.blake2b(digest_size=8)
    for path in sorted(folder.rglob("*")):
        diary = any(name in path.name for name in DIARIES)
        content = path.read_bytes() if path.is_file() and not diary else b""
        total.update(f"{path.relative_to(folder)} {len(content)} ".encode() + content)
    return total.hexdigest()


class Points:
    """Counts the points of a process and acts at those that the environment names."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.under = environment["FAULT_UNDER"]
        self.number = 0
        self.list = environment.get("FAULT_LIST")
        self.copies, self.copied = environment.get("FAULT_COPIES"), set[str]()
        self.kill = int(environment.get("FAULT_KILL", -1))
        pairs = [x.split(":") for x in environment.get("FAULT_SIGNAL", "").split(",") if x]
        self.signals = [(signal.Signals[name], int(point)) for name, point in pairs]
        self.bytes = int(environment.get("FAULT_BYTES", -1))
        self.files = int(environment.get("FAULT_FILES", -1))

    def counts(self, path: Any) -> bool:
        """Tell whether a path lies in the folder."""
        text = os.path.normpath(Path.cwd() / path)  # a link keeps its own name
        return text == self.under or text.startswith(self.under + os.sep)

    def reach(self, what: str, path: Any) -> None:
        """Pass a point."""
        self.number += 1
        if self.list:
            held = digest(Path(self.under))
            with open_path(Path(self.list), "a") as file:
                name = os.path.relpath(path, self.under)
                file.write(f"{self.number}\t{held}\t{what} {name}\n")
            if self.copies and held not in self.copied and Path(self.under).is_dir():
                shutil.copytree(self.under, Path(self.copies, str(self.number)))
                self.copied.add(held)
        for number, point in self.signals:
            if point == self.number:
                os.kill(os.getpid(), number)
        if self.kill == self.number:
            os.kill(os.getpid(), signal.SIGKILL)

    def room(self, size: int) -> int:
        """Return how many of so many bytes still fit."""
        if self.bytes < 0:
            return size
        files = [each for each in Path(self.under).rglob("*") if each.is_file()]
        return max(0, min(size, self.bytes - sum(each.stat().st_size for each in files)))

    def new(self, path: Path) -> None:
        """Raise OSError where another file would be one too many."""
        if self.files >= 0 and not path.exists():
            found = sum(1 for _ in Path(self.under).rglob("*"))
            if found >= self.files:
                raise full(path)


def full(path: Any) -> OSError:
    """Return the system's error for a full disk."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


class Writer:
    """A file that is written in two halves, with a point before each."""

    def __init__(self, file: Any, path: Path, points: Points) -> None:
        self.file, self.path, self.points = file, path, points

    def write(self, content: Any) -> int:
        self.points.reach("before writing", self.path)
        whole, place, written = self.points.room(len(content)), 0, 0
        for half in (content[: len(content) // 2], content[len(content) // 2 :]):
            fits = half[: max(0, whole - place)]
            written += self.file.write(fits)
            place += len(half)
            if place < len(content):
                self.file.flush()
                self.points.reach("half written", self.path)
        if whole < len(content):
            self.file.flush()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written

    def truncate(self, *size: int) -> int:
        self.points.reach("before cutting", self.path)
        return self.file.truncate(*size)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def install(environment: Mapping[str, str] = os.environ) -> None:
    """Put the faults that the environment asks for into this process."""
    if "FAULT_CLOCK" in environment:
        set_back(float(environment["FAULT_CLOCK"]))
    if "FAULT_WATCH" in environment:
        watch(Path(environment["FAULT_WATCH"]))
    if "FAULT_UNDER" not in environment:
        return
    points = Points(environment)

    def opened(self: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        if not set(mode) & set("wax+") or not points.counts(self):
            return open_path(self, mode, *more, **named)
        points.reach("before opening", self)
        points.new(self)
        return Writer(open_path(self, mode, *more, **named), self, points)

    def before(of: Any, name: str, what: str) -> None:
        real: Callable[..., Any] = getattr(of, name)

        def changed(path: Any, *more: Any, **named: Any) -> Any:
            if isinstance(path, int) or points.counts(path):
                points.reach(what, points.under if isinstance(path, int) else path)
            return real(path, *more, **named)

        setattr(of, name, changed)

    Path.open = opened  # type: ignore[assignment, method-assign]
    before(Path, "replace", "before renaming")
    before(Path, "unlink", "before removing")
    before(Path, "mkdir", "before making")
    before(os, "fsync", "before waiting for")


def set_back(seconds: float) -> None:
    """Let every clock go back at every reading."""
    for name in ("time", "monotonic", "perf_counter"):
        start, readings = getattr(time, name)(), iter(range(10**9))

        def earlier(start: float = start, readings: Iterator[int] = readings) -> float:
            return start - seconds * next(readings)

        setattr(time, name, earlier)


def watch(out: Path) -> None:
    """Let every tenth step of a search or a training write what the process holds."""
    from tutelage.run.supernet.state import Searching
    from tutelage.run.training.training import Training

    for kind in (Searching, Training):
        kind.advance = watched(kind.advance, out)  # type: ignore[method-assign]


def watched(real: Callable[[Any], None], out: Path) -> Callable[[Any], None]:
    """Return a step that writes what the process holds after every tenth."""

    def advance(work: Any) -> None:
        real(work)
        if work.done % 10 == 0:
            status = Path("/proc/self/status").read_text()
            held = dict(line.split(":", 1) for line in status.splitlines())
            files = len(list(Path("/proc/self/fd").iterdir()))
            memory, threads = held["VmRSS"].split()[0], held["Threads"].strip()
            with open_path(out, "a") as file:
                file.write(f"{work.done} {memory} {files} {threads}\n")

    return advance
