"""A run directory: the files that searching, retraining and reporting share.

    run.toml          every setting, verbatim
    environment.json  sessions: when, how long, with which versions and hardware
    metrics.jsonl     a version, then a row for each logged step and each epoch, without times
    checkpoint.pt     see `tutelage.run.job.checkpoint`

Every file except metrics.jsonl is replaced as a whole: after a kill or on a full disk, the old one
remains. Nothing here imports torch, so that a report can be written without it.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import tomli_w

from tutelage.files import write_bytes
from tutelage.formats import read_json, read_toml
from tutelage.records import lift
from tutelage.records.results import Environment, Session
from tutelage.records.typed import finite
from tutelage.renamed import lifted_settings
from tutelage.run.job.environment import session
from tutelage.run.job.metrics_file import MetricsFile
from tutelage.run.job.settings import changed_settings, plain_value

Peak = Callable[[], int | None]
"""Returns the most bytes that tensors had on a GPU; None: there is none."""
TABLES: Final = frozenset(
    ("method", "search", "space", "data", "weights", "alphas", "evolution", "retrain")
)
"""Settings that are tables."""


class RunDirectory:
    """The files of one run, made by `create` or `open`; as a context, it releases the lock.

    Attributes:
        path: The folder.
        metrics: Its rows.
        writes: Whether this process writes to it; one that does not only reads.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self.metrics = MetricsFile(path / "metrics.jsonl", writes)
        self._lock: BinaryIO | None = None
        self._sessions: list[Session] = []
        self._began = 0.0
        self._peak: Peak = lambda: None

    @classmethod
    def create(cls, path: Path, settings: Mapping[str, Any]) -> RunDirectory:
        """Make a folder with its run.toml and lock it.

        Raises:
            ValueError: The folder is not empty, or another process writes to it.
        """
        if path.is_symlink() and not path.exists():
            raise ValueError(
                f"{path} is a link to {path.readlink()}, which does not exist: give another --out"
            )
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is a file: give another --out")
        path.mkdir(parents=True, exist_ok=True)
        directory = cls(path)
        directory.lock()
        if (path / "run.toml").exists():
            directory.close()
            raise ValueError(f"{path} holds a run: resume with --resume, or give another --out")
        # Files that a killed creation left do not count.
        if any(entry.name != ".lock" and entry.suffix != ".partial" for entry in path.iterdir()):
            directory.close()
            raise ValueError(f"{path} is not empty and no run to --resume: give another --out")
        directory.write_text("run.toml", tomli_w.dumps(plain_value(settings)))
        return directory

    @classmethod
    def open(cls, path: Path, *, write: bool = False) -> RunDirectory:
        """Open an existing run, and lock it if it is to be written.

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
    def follow(cls, path: Path) -> RunDirectory:
        """Open a run that another process of the same work writes: nothing is written here."""
        return cls(path, writes=False)

    @classmethod
    def resume(cls, path: Path, settings: Mapping[str, Any]) -> RunDirectory:
        """Open an existing run to resume it, and lock it.

        Raises:
            ValueError: as `open`, or a setting that matters has changed; the message names it.
        """
        directory = cls.open(path, write=True)
        try:
            directory.refuse_changes(settings)
        except ValueError:
            directory.close()
            raise
        return directory

    def refuse_changes(self, settings: Mapping[str, Any]) -> None:
        """Raise ValueError, which names them, for settings that differ from run.toml."""
        stored = self.settings()
        if settings and not stored:
            raise ValueError(f"{self.path / 'run.toml'} is empty: the run's settings are lost")
        changed = changed_settings(stored, settings)
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
        """Keep other processes from writing, until this process ends or is killed."""
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
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def settings(self) -> dict[str, Any]:
        """Read run.toml, in the present form.

        Raises:
            ValueError: It is not TOML, or nested too deep.
        """
        path = self.path / "run.toml"
        found = lift.settings(lifted_settings(read_toml(path)))
        for name in TABLES & found.keys():
            if not isinstance(found[name], Mapping):
                raise ValueError(f"{path} is damaged: {name} = {str(found[name])[:40]}: no table")
        return found

    def write_text(self, name: str, text: str) -> None:
        """Replace a file by a text, completely or not at all."""
        if self.writes:
            write_bytes(self.path / name, text.encode())

    def write_json(self, name: str, value: Any) -> None:
        """Replace a file by a value as JSON, completely or not at all."""
        self.write_text(name, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")

    def read_json(self, name: str) -> Any:
        """Read a JSON file.

        Raises:
            ValueError: It is not JSON, or nested too deep.
        """
        return read_json(self.path / name)

    def begin_session(
        self, epoch: int, step: int, peak: Peak = lambda: None, **hardware: Any
    ) -> None:
        """Add a session to environment.json, which starts now at an epoch and a step.

        A damaged file, which nothing depends on, is renamed to environment.damaged.json.

        Args:
            epoch: Epochs that are done.
            step: Steps of this epoch that are done.
            peak: Measures the memory of its GPU.
            hardware: As `session` takes it.
        """
        self._sessions = self._read_sessions()
        self._began, self._peak = time.monotonic(), peak
        self._sessions.append(session(epoch, step, **hardware))
        self.save_session()

    def note(self, sentence: str) -> None:
        """Keep a sentence on the present session's programs, for its next writing."""
        present = self._sessions[-1]
        self._sessions[-1] = replace(present, programs=[*present.programs, sentence])

    def _read_sessions(self) -> list[Session]:
        path = self.path / "environment.json"
        if not (path.exists() and self.writes):
            return []
        try:
            return Environment.read(self.read_json(path.name)).sessions
        except ValueError as error:
            aside = path.with_name("environment.damaged.json")
            path.replace(aside)
            reason = str(error).removeprefix(f"{path} is damaged: ")
            print(f"{path} is damaged: {reason}; it is kept as {aside.name}", flush=True)
            return []

    def save_session(self) -> None:
        """Write how long this process has worked, and the largest memory of its GPU.

        Called at every checkpoint and at the end. Work within this one, such as a ranking, has
        sessions of its own, which reset the peak: the largest one is kept.
        """
        seconds, last = round(time.monotonic() - self._began, 1), self._sessions[-1]
        known = [each for each in (last.gpu_memory, self._peak()) if each is not None]
        largest = max(known, default=None)
        self._sessions[-1] = replace(last, seconds=seconds, gpu_memory=largest)
        self.write_json("environment.json", Environment(self._sessions))
