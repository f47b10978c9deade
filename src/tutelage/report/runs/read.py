"""Read run directories for a report: whatever is there, and a note for what is damaged."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tutelage.records import metrics
from tutelage.records.results import Environment, Members, Origin, Result, Session
from tutelage.records.rows import (
    CANDIDATES,
    SEARCH,
    TRAINING,
    Answer,
    Candidate,
    EndRow,
    EpochRow,
    LearnerScores,
    Row,
    Stopped,
)
from tutelage.records.typed import parse, typed
from tutelage.renamed import lifted_settings
from tutelage.report.runs.benchmarks import BENCHMARKS, Benchmark
from tutelage.spaces.genotype import Genotype

FILES = ("run.toml", "metrics.jsonl", "genotype.json", "result.json")
"""Any one of these makes a directory a run."""

AXES = ("method", "search", "space", "data")
"""The tables whose names make a run's title."""

SHOWN = 3
"""Damaged lines of a file of which a note says what is wrong with them."""

T = TypeVar("T")


@dataclass(frozen=True)
class RunFiles:
    """What one directory holds: a search, or a retraining."""

    path: Path
    settings: Mapping[str, Any]
    """The tables of run.toml."""
    sessions: list[Session]
    """When, how long, on which versions and hardware."""
    rows: list[Row]
    """The rows of metrics.jsonl."""
    genotype: Genotype | None
    about: Origin
    """What genotype.json says of where it comes from."""
    result: Result | None
    """What result.json says of the test set; None before that."""
    ensemble: Members
    """What ensemble.json says of the learners that are kept together; empty without any."""
    notes: tuple[str, ...]
    """One sentence for everything that is damaged."""
    networks: tuple[RunFiles, ...] = ()
    """The retrainings of an ensemble's members, as far as there are any."""
    ranking: RunFiles | None = None
    """How a supernet of sampled paths ranked architectures that a table knows; None before it."""
    evolution: RunFiles | None = None
    """The evolution among its paths; None before it begins."""

    def of(self, event: str) -> list[Any]:
        """Give the rows of one event: step, epoch or end, of whatever type this stage's are."""
        return [row for row in self.rows if row.event == event]

    @property
    def epochs(self) -> list[EpochRow]:
        """The epochs of a search."""
        return [row for row in self.rows if isinstance(row, EpochRow)]

    @property
    def ends(self) -> list[EndRow]:
        """The ends of a search, at most one of them in a file that nobody has changed."""
        return [row for row in self.rows if isinstance(row, EndRow)]

    @property
    def scored(self) -> list[Candidate]:
        """The architectures that a ranking or an evolution has scored, in order."""
        return [x for x in self.rows if isinstance(x, Candidate) and x.event == "step"]

    @property
    def members(self) -> list[int]:
        """The learners that are kept together, by their numbers."""
        return [each.learner for each in self.ensemble.members]

    @property
    def trainings(self) -> tuple[RunFiles, ...]:
        """The retrainings of networks, of which an ensemble has several."""
        return self.networks or (self,)

    @property
    def seconds(self) -> float | None:
        """How long all sessions took; None where nothing says so."""
        spent = [number(session.seconds) for session in self.sessions]
        known = [seconds for seconds in spent if seconds is not None]
        return sum(known) if known else None

    @property
    def epochs_done(self) -> int:
        """How many epochs have ended."""
        return len(self.of("epoch"))

    @property
    def trainless(self) -> bool:
        """Whether this is a search that has ended without any epoch, one at random."""
        return bool(self.ends) and not self.epochs_done

    @property
    def sampled(self) -> bool:
        """Whether paths of a supernet were sampled, as far as an epoch has told."""
        return self.evolution is not None or any(row.sampled for row in self.epochs)

    @property
    def stopped(self) -> Stopped | None:
        """Why the search stopped early, and the epoch whose architecture counts."""
        found = [row.stopped for row in self.epochs if row.stopped]
        return found[-1] if found else None

    @property
    def last(self) -> EpochRow | None:
        """The row of the epoch whose architectures count: the last, unless the search stopped."""
        rows = self.epochs
        if not rows:
            return None
        wanted = self.stopped.epoch if self.stopped else rows[-1].epoch
        return next((row for row in rows if row.epoch == wanted), rows[-1])

    @property
    def answers(self) -> list[Answer]:
        """What a table says of the architectures that count: of every learner's, or of the one."""
        ends = [row.table for row in self.ends if row.table]
        if ends:
            return ends[-1]
        return self.last.table if self.last else []

    @property
    def benchmark(self) -> Benchmark:
        """The benchmark that was asked; the first where none was."""
        ranked = [row.table for row in (self.ranking.scored if self.ranking else [])]
        asked = {key for answer in [*self.answers, *ranked] for key in answer}
        return next((each for each in BENCHMARKS if each.ranked_by in asked), BENCHMARKS[0])

    @property
    def kept_earlier(self) -> bool:
        """Whether the architecture of an epoch before the last is kept."""
        return self.stopped is not None and self.last is not self.epochs[-1]

    def setting(self, *names: str) -> Any:
        """Look a setting up by the names of its tables and its own; None where it is not set."""
        found: Any = self.settings
        for name in names:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found


@dataclass(frozen=True)
class Record:
    """One run: its search, its retraining, or both."""

    path: Path
    search: RunFiles | None
    retraining: RunFiles | None

    @property
    def run_files(self) -> list[tuple[str, RunFiles]]:
        """The directories of the search and the retraining that exist, by name."""
        both = (("search", self.search), ("retraining", self.retraining))
        return [(name, files) for name, files in both if files is not None]

    @property
    def title(self) -> str:
        """Method x search x space x data, by the names of the command line."""
        if self.search:
            parts = [self.search.setting(table, "name") for table in AXES]
        else:
            parts = ["retraining", *(files.setting("data", "name") for _, files in self.run_files)]
        return " × ".join(str(part or "?") for part in parts)

    @property
    def genotype(self) -> Genotype | None:
        """The genotype found, or the one that was trained."""
        return next((files.genotype for _, files in self.run_files if files.genotype), None)

    @property
    def seed(self) -> Any:
        """The search's seed, or else the retraining's."""
        if self.search:
            return self.search.setting("seed")
        return self.retraining.setting("retrain", "seed") if self.retraining else None

    @property
    def test_error(self) -> float | None:
        """The test error after retraining, a fraction; None before that."""
        return number(self.result.test_error) if self.result else None

    @property
    def result(self) -> Result | None:
        """What the retraining has come to; None before its end."""
        return self.retraining.result if self.retraining else None

    @property
    def kept(self) -> int | None:
        """The learner whose genotype was kept; None where nothing says so."""
        if self.search is None:
            return None
        ends = self.search.ends
        return ends[-1].kept if ends else self.search.about.learner

    @property
    def members(self) -> list[int]:
        """The learners of the ensemble that is kept, best one first; none where it is no ensemble.

        Then test error, weights and validation accuracy are the ensemble's.
        """
        return self.run_files[-1][1].members  # one network of it may have been trained alone

    @property
    def ensemble(self) -> str:
        """Name the learners that are kept together; nothing where it is no ensemble."""
        names = ", ".join(map(str, self.members))
        return f"ensemble of learners {names}" if names else ""

    @property
    def valid_accuracy(self) -> float | None:
        """The accuracy of what is kept on validation data at the end of the search.

        None where paths were sampled: the supernet had none that was kept while it trained.
        """
        if self.search is None or self.search.sampled:
            return None
        if self.members:
            return number(self.search.ensemble.valid_accuracy)
        found = self.search.about.valid_accuracy
        for row in self.search.ends:
            own = at(row.learners, self.kept, LearnerScores()).valid_accuracy
            found = found if own is None else own
        return number(found)

    @property
    def answer(self) -> Answer:
        """What a benchmark says of the kept architecture; empty where not asked, or not yet.

        Of an ensemble it says nothing: the table has single networks alone.
        """
        if self.search is None or self.kept is None or self.members:
            return {}
        return at(self.search.answers, 0 if self.search.sampled else self.kept, {})


def read_run(path: Path) -> Record:
    """Read a run's directory, or a retraining's own.

    Raises:
        ValueError: it is no directory, or nothing in it belongs to a run.
    """
    if not path.is_dir():
        raise ValueError(f"{path}: no such directory; give the --out of a search or a retraining")
    if not any((path / name).is_file() for name in (*FILES, "retrain/run.toml")):
        raise ValueError(f"{path} is no run: it holds none of {', '.join(FILES)}")
    files = _run_files(path)
    if _trains(files.settings, files.result):
        return Record(path, None, files)
    inner = path / "retrain"
    retrained = any((inner / name).is_file() for name in FILES)
    return Record(path, files, _run_files(inner, TRAINING) if retrained else None)


def at(items: Sequence[T], place: int | None, otherwise: T) -> T:
    """Give an item by its place, or something else where there is none.

    >>> at([3, 4], 1, 0), at([3, 4], 2, 0), at([3, 4], None, 0)
    (4, 0, 0)
    """
    return otherwise if place is None or not 0 <= place < len(items) else items[place]


def number(value: Any) -> float | None:
    """Read a finite number; None for anything else, NaN and infinity among it."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _trains(settings: Mapping[str, Any], result: Result | None) -> bool:
    """Tell whether a directory is a retraining's own."""
    return result is not None or ("retrain" in settings and "method" not in settings)


def _run_files(path: Path, types: Mapping[str, type[Row]] | None = None) -> RunFiles:
    """Read what a directory holds; `types` are those of its rows, where its place tells them."""
    notes: list[str] = []
    settings = _table(path / "run.toml", lambda text: lifted_settings(tomllib.loads(text)), notes)
    result = _file(path / "result.json", Result.read, notes)
    environment = _file(path / "environment.json", Environment.read, notes) or Environment()
    networks = tuple(_run_files(each, TRAINING) for each in sorted(path.glob("member-*")))
    ranking, evolution = (
        _run_files(path / name, CANDIDATES) if (path / name).is_dir() else None
        for name in ("ranking", "evolution")
    )
    stored = _table(path / "genotype.json", parse, notes)
    genotype, about = _found(path, stored or (result.genotype if result else {}), notes)
    ensemble = _file(path / "ensemble.json", Members.read, notes) or Members()
    types = types or (TRAINING if _trains(settings, result) else SEARCH)
    rows = _rows(path / "metrics.jsonl", types, notes)
    inside = [each for each in (*networks, ranking, evolution) if each]
    return RunFiles(
        path=path,
        settings=settings,
        sessions=[*environment.sessions, *(x for network in networks for x in network.sessions)],
        rows=rows,
        genotype=genotype,
        about=about,
        result=result,
        ensemble=ensemble,
        notes=(*notes, *(note for each in inside for note in each.notes)),
        networks=networks,
        ranking=ranking,
        evolution=evolution,
    )


def _file(path: Path, read: Callable[[Any], T], notes: list[str]) -> T | None:
    """Read a JSON file, if it is there and whole."""
    if not path.is_file():
        return None
    try:
        return read(parse(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
        notes.append(f"{path} is damaged and left out: {error}")
        return None


def _table(path: Path, parse: Callable[[str], Any], notes: list[str]) -> dict[str, Any]:
    """Read a file that holds an object; an empty one where it is not there or not whole."""
    if not path.is_file():
        return {}
    try:
        return typed(parse(path.read_text(encoding="utf-8")), dict[str, Any])
    except (ValueError, RecursionError) as error:
        notes.append(f"{path} is damaged and left out: {error}")
        return {}


def _found(
    path: Path, stored: Mapping[str, Any], notes: list[str]
) -> tuple[Genotype | None, Origin]:
    """Read the genotype, and where it comes from."""
    try:
        genotype = Genotype.from_dict(stored) if stored else None
        return genotype, typed(stored.get("about") or {}, Origin)
    except ValueError as error:
        notes.append(f"{path / 'genotype.json'}: {error}")
        return None, Origin()


def _rows(path: Path, types: Mapping[str, type[Row]], notes: list[str]) -> list[Row]:
    if not path.is_file():
        return []
    rows, damage = metrics.read(path.read_bytes(), types)
    if damage:
        described = [f"line {line} ({reason})" for line, reason in damage[:SHOWN]]
        described += [f"{len(damage) - SHOWN} more"] if len(damage) > SHOWN else []
        count = f"{len(damage)} damaged row{'s' if len(damage) > 1 else ''}"
        notes.append(f"{path}: {count} left out: {', '.join(described)}")
    return rows
