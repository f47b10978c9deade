"""The runs of a study: where each one's files are, what it has done, and what is left to do.

STUDY/study.toml                the study
STUDY/NAME/search.toml          settings of a configuration, the recipe of its searches
STUDY/NAME/retrain.toml         settings of its retrainings, where they are others
STUDY/NAME/seed-1/              the run directory
STUDY/NAME/seed-1.log           what its processes wrote; locked while one works
STUDY/NAME/seed-1.json          how its last attempt ended, and its memory
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import tomli_w

from tutelage.files import write_bytes
from tutelage.formats import read_json, read_toml
from tutelage.parts import from_table
from tutelage.run.job.settings import changed_settings
from tutelage.study.plan import FILE, Configuration, Study, Then
from tutelage.study.reading import read_study

ATTEMPTS = 20
"""How often a lock is tried: a status holds it for less than a millisecond."""
Doing = Literal["search", "retrain", "query"]


@dataclass(frozen=True)
class Step:
    """One process of a run."""

    name: Doing
    words: tuple[str, ...]
    """The command, without `tutelage`."""
    answer: Path | None = None
    """Where its output goes; None: to the log."""


@dataclass(frozen=True)
class Outcome:
    """How a run's last attempt ended: the content of its .json."""

    failed: str = ""
    """The last sentence of a run that failed; empty: it did not."""
    doing: str = ""
    """What failed."""
    memory: dict[str, int] = field(default_factory=dict)
    """Largest resident memory in bytes, by step."""


@dataclass(frozen=True)
class Job:
    """One configuration with one seed."""

    folder: Path
    """The configuration's folder."""
    configuration: str
    seed: int
    then: tuple[Then, ...]
    table: Path | None
    places: Mapping[str, str] = field(default_factory=dict)
    """Flags of this machine's places, which runs that have begun do not have in their files."""

    @property
    def name(self) -> str:
        """The configuration and the seed."""
        return f"{self.configuration}/seed-{self.seed}"

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.folder / f"seed-{self.seed}"

    @property
    def log(self) -> Path:
        """What its processes wrote."""
        return self.folder / f"seed-{self.seed}.log"

    def step(self) -> Step | None:
        """Return the first step that is not done; None: the run is done."""
        run = str(self.run)
        if not (self.run / "genotype.json").exists():
            if (self.run / "run.toml").exists():
                return Step("search", ("search", "--resume", run, *self._given(*self.places)))
            recipe, seed = str(self.folder / "search.toml"), str(self.seed)
            given = ("--recipe", recipe, "--seed", seed, "--retrain.seed", seed)
            return Step("search", ("search", *given, "--out", run))
        for each in self.then:
            if each == "retrain" and not (self.run / "retrain" / "result.json").exists():
                own = self.folder / "retrain.toml"
                words = ("retrain", run, *(("--recipe", str(own)) if own.exists() else ()))
                words = (*words, "--seed", str(self.seed), *self._given("--data-root"))
                return Step("retrain", words)
            if each == "query" and not (self.run / "query.json").exists():
                words = ("query", run, "--table", str(self.table), "--json")
                return Step("query", words, self.run / "query.json")
        return None

    def _given(self, *flags: str) -> tuple[str, ...]:
        return tuple(x for flag in flags if flag in self.places for x in (flag, self.places[flag]))

    def outcome(self) -> Outcome:
        """Read how the last attempt ended; nothing is known of a run that has not begun."""
        try:
            found = read_json(self._record)
            return from_table(Outcome, found, "a run") if isinstance(found, dict) else Outcome()
        except (OSError, ValueError):
            return Outcome()

    def write(self, outcome: Outcome) -> None:
        """Write how an attempt ended."""
        write_bytes(self._record, json.dumps(asdict(outcome)).encode())

    @property
    def _record(self) -> Path:
        return self.folder / f"seed-{self.seed}.json"

    def claim(self) -> BinaryIO | None:
        """Open and lock the log; None: another process works on this run.

        Processes that write to it inherit the lock, so it lasts as long as one of them.
        """
        file = self.log.open("ab")
        for _ in range(ATTEMPTS):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return file
            except BlockingIOError:
                time.sleep(0.01)
        file.close()
        return None

    def claimed(self) -> bool:
        """Tell whether a process works on this run, without disturbing one."""
        try:
            with self.log.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False


def jobs_of(study: Study, out: Path) -> list[Job]:
    """List the runs of a study, seed by seed, so that a study that is stopped has whole pairs."""
    return [
        Job(out / name, name, seed, each.then, study.head.table, each.places())
        for seed in study.head.seeds
        for name, each in study.configurations.items()
    ]


def run_directories(out: Path) -> dict[str, list[Path]]:
    """Return the run directories of a study's folder by configuration, in the order of its seeds.

    Raises:
        ValueError: It is no study's folder, or a search has not ended.
    """
    study = read_study(out)
    found: dict[str, list[Path]] = {name: [] for name in study.configurations}
    for job in jobs_of(study, out):
        if not (job.run / "genotype.json").exists():
            raise ValueError(f"{job.run}: the search has not ended; see tutelage study --status")
        found[job.configuration].append(job.run)
    return found


def prepare(study: Study, out: Path) -> list[Job]:
    """Write a study's file and the settings of its configurations; list its runs.

    Raises:
        ValueError: The folder holds other files, or runs of a configuration that was begun with
            other settings.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: give another --out")
    out.mkdir(parents=True, exist_ok=True)
    others = any(not entry.name.startswith(".") for entry in out.iterdir())
    if others and not (out / FILE).exists():
        raise ValueError(f"{out} is not empty and no study: give another --out")
    with (out / ".lock").open("wb") as lock:  # two processes may begin at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        _write(study, out)
    return jobs_of(study, out)


def _write(study: Study, out: Path) -> None:
    for name, each in study.configurations.items():
        _refuse_changes(out / name, each)
    write_bytes(out / FILE, study.as_toml().encode())
    for name, each in study.configurations.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        write_bytes(out / name / "search.toml", tomli_w.dumps(each.search()).encode())
        if retraining := each.retraining():
            write_bytes(out / name / "retrain.toml", tomli_w.dumps(retraining).encode())
        else:
            (out / name / "retrain.toml").unlink(missing_ok=True)  # of overrides that were dropped


def _refuse_changes(folder: Path, configuration: Configuration) -> None:
    if not any(folder.glob("seed-*/run.toml")):
        return
    changed = changed_settings(_stored(folder / "search.toml"), configuration.search())
    before = {"retraining": _stored(folder / "retrain.toml")}
    changed += changed_settings(before, {"retraining": configuration.retraining()})
    if changed:
        raise ValueError(
            f"{folder} has runs with other settings: {', '.join(changed)}; give the configuration "
            "another name, or the study another --out"
        )


def _stored(path: Path) -> Mapping[str, Any]:
    try:
        return read_toml(path)
    except FileNotFoundError:
        return {}
