"""A run directory: the files through which searching, retraining and reporting meet.

    run.toml          every setting, verbatim
    environment.json  sessions: when, how long, on which versions and hardware
    metrics.jsonl     a version, then one row a logged step and one an epoch, without times
    checkpoint.pt     see `tutelage.run.job.checkpoint`

Every file but metrics.jsonl is replaced whole: a kill or a full disk leaves the old one. Nothing
here imports torch, so that a report can be written without it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import tomli_w

from tutelage.files import FULL, write_bytes
from tutelage.records import metrics
from tutelage.records.results import Environment, Session
from tutelage.records.rows import Row
from tutelage.records.typed import finite
from tutelage.renamed import lifted_settings
from tutelage.run.job.environment import session
from tutelage.run.job.settings import changed_settings, plain_value


class RunDirectory:
    """One run's files; made by `create` or `open`, and a context that gives the lock back.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: BinaryIO | None = None
        self._sessions: list[Session] = []
        self._began = 0.0

    @classmethod
    def create(cls, path: Path, settings: Mapping[str, Any]) -> RunDirectory:
        """Make a folder with its run.toml and lock it.

        Raises:
            ValueError: The folder holds something, or another process writes to it.
        """
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is a file: give another --out")
        path.mkdir(parents=True, exist_ok=True)
        directory = cls(path)
        directory.lock()
        if (path / "run.toml").exists():
            directory.close()
            raise ValueError(f"{path} holds a run: resume with --resume, or give another --out")
        # What a killed creation left is not content.
        if any(entry.name != ".lock" and entry.suffix != ".partial" for entry in path.iterdir()):
            directory.close()
            raise ValueError(f"{path} is not empty and no run to --resume: give another --out")
        directory.write_text("run.toml", tomli_w.dumps(plain_value(settings)))
        return directory

    @classmethod
    def open(cls, path: Path, *, write: bool = False) -> RunDirectory:
        """Open an existing run, locked if it is to be written.

        Raises:
            ValueError: There is no run, or another process writes to it.
        """
        if not (path / "run.toml").is_file():
            what = "is no run: it has no run.toml" if path.exists() else "does not exist"
            raise ValueError(f"{path} {what}; give the --out of an earlier run")
        directory = cls(path)
        if write:
            directory.lock()
        return directory

    @classmethod
    def resume(cls, path: Path, settings: Mapping[str, Any]) -> RunDirectory:
        """Open an existing run to resume it, locked.

        Raises:
            ValueError: as `open`, or a setting that matters has changed; says which.
        """
        directory = cls.open(path, write=True)
        try:
            directory.refuse_changes(settings)
        except ValueError:
            directory.close()
            raise
        return directory

    def refuse_changes(self, settings: Mapping[str, Any]) -> None:
        """Raise ValueError, naming them, for settings other than those of run.toml."""
        changed = changed_settings(self.settings(), settings)
        if changed:
            raise ValueError(
                f"{self.path} was begun with other settings: {', '.join(changed)}; resume without "
                "them, or give another --out"
            )

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def lock(self) -> None:
        """Keep other processes from writing; the system lets go when this one ends, even killed."""
        file = (self.path / ".lock").open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().decode() or "unknown"
            file.close()
            raise ValueError(
                f"{self.path} is being written by process {holder}: wait for it or stop it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        self._lock = file

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def settings(self) -> dict[str, Any]:
        """Read run.toml.

        Raises:
            ValueError: It is not TOML, or nested too deep.
        """
        try:
            return lifted_settings(
                tomllib.loads((self.path / "run.toml").read_text(encoding="utf-8"))
            )
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"{self.path / 'run.toml'} is damaged: {error}") from error

    def write_text(self, name: str, text: str) -> None:
        """Replace a file by a text, whole or not at all."""
        write_bytes(self.path / name, text.encode())

    def write_json(self, name: str, value: Any) -> None:
        """Replace a file by a value as JSON, whole or not at all."""
        self.write_text(name, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")

    def read_json(self, name: str) -> Any:
        """Read a JSON file.

        Raises:
            ValueError: It is not JSON, or nested too deep.
        """
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.path / name} is damaged: {error}") from error

    def append(self, row: Row) -> None:
        """Add one row to metrics.jsonl; whole, also when the disk is full.

        Raises:
            ValueError: The disk is full; the rows from before are safe.
        """
        self._append(metrics.line_of(row))

    def _append(self, line: bytes) -> None:
        path = self.path / "metrics.jsonl"
        with path.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                written = file.write(line)
                if written != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                file.truncate(size)
                if error.errno not in FULL:
                    raise
                raise ValueError(
                    f"no room for another row in {path} ({error.strerror}): its rows and "
                    "the last checkpoint are safe, free some space and resume the run"
                ) from error

    def rows(self, types: Mapping[str, type[Row]]) -> list[Row]:
        """Read the rows of metrics.jsonl, without one that is only half written.

        Args:
            types: The types of its rows, by their event.

        Raises:
            ValueError: A line is damaged, or a newer release wrote it.
        """
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        rows, damage = metrics.read(path.read_bytes(), types)
        if damage:
            raise ValueError(f"{path} line {damage[0].line} is damaged: {damage[0].reason}")
        return rows

    def metrics_size(self) -> int:
        """Return the bytes of metrics.jsonl once they are on disk, for a checkpoint to record."""
        with (self.path / "metrics.jsonl").open("ab") as file:
            os.fsync(file.fileno())
            return file.tell()

    def cut_metrics(self, size: int) -> None:
        """Drop the rows after the first `size` bytes: steps after a checkpoint are done again.

        Raises:
            ValueError: metrics.jsonl is shorter than that.
        """
        with (self.path / "metrics.jsonl").open("ab") as file:
            present = file.tell()
            if present < size:
                raise ValueError(
                    f"{self.path / 'metrics.jsonl'} has {present:,} bytes where the checkpoint "
                    f"counted {size:,}: rows were taken out, so the run cannot resume"
                )
            file.truncate(size)

    def begin_rows(self) -> None:
        """Say in metrics.jsonl of what version the rows after its present end are.

        Call it after `cut_metrics`: a file that is new has no such line, nor has one of release
        0.1, or one that was cut before it.

        Raises:
            ValueError: A newer release wrote the file, or the disk is full.
        """
        path = self.path / "metrics.jsonl"
        try:
            version = metrics.version_of(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path} cannot be resumed: {error}") from error
        if version < metrics.VERSION:
            self._append(metrics.line_of(metrics.HEAD))

    def begin_session(self, epoch: int, step: int, **hardware: Any) -> None:
        """Add a session to environment.json: it starts at an epoch and a step, now.

        A damaged file, which nothing depends on, is renamed to environment.damaged.json.
        """
        self._sessions = self._read_sessions()
        self._began = time.monotonic()
        self._sessions.append(session(epoch, step, **hardware))
        self.save_session()

    def _read_sessions(self) -> list[Session]:
        path = self.path / "environment.json"
        if not path.exists():
            return []
        try:
            return Environment.read(self.read_json(path.name)).sessions
        except ValueError:
            path.replace(path.with_name("environment.damaged.json"))
            return []

    def save_session(self) -> None:
        """Write how long this process has worked; called at every checkpoint and the end."""
        seconds = round(time.monotonic() - self._began, 1)
        self._sessions[-1] = replace(self._sessions[-1], seconds=seconds)
        self.write_json("environment.json", Environment(self._sessions))
