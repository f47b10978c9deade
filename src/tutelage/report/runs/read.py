"""Read run directories for a report: whatever is there, and a note for what is damaged."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.report.runs.benchmarks import BENCHMARKS, Benchmark
from tutelage.spaces.genotype import Genotype

FILES = ("run.toml", "metrics.jsonl", "genotype.json", "result.json")
"""Any one of these makes a directory a run."""

AXES = ("method", "search", "space", "data")
"""The tables whose names make a run's title."""


@dataclass(frozen=True)
class Stage:
    """What one directory holds: a search, or a retraining."""

    path: Path
    settings: Mapping[str, Any]
    """The tables of run.toml."""
    sessions: list[dict[str, Any]]
    """When, how long, on which versions and hardware."""
    rows: list[dict[str, Any]]
    """The rows of metrics.jsonl."""
    genotype: Genotype | None
    about: Mapping[str, Any]
    """What genotype.json says of where it comes from."""
    result: Mapping[str, Any]
    """What result.json says of the test set; empty before that."""
    ensemble: Mapping[str, Any]
    """What ensemble.json says of the learners that are kept together; empty without any."""
    notes: tuple[str, ...]
    """One sentence for everything that is damaged."""
    networks: tuple[Stage, ...] = ()
    """The retrainings of an ensemble's members, as far as there are any."""
    ranking: Stage | None = None
    """How a supernet of sampled paths ranked architectures that a table knows; None before it."""
    evolution: Stage | None = None
    """The evolution among its paths; None before it begins."""

    def of(self, event: str) -> list[dict[str, Any]]:
        """Give the rows of one event: step, epoch or end."""
        return [row for row in self.rows if row.get("event") == event]

    @property
    def members(self) -> list[Any]:
        """The learners that are kept together, by their numbers."""
        found = self.ensemble.get("members") or []
        return [each.get("learner") for each in found if isinstance(each, Mapping)]

    @property
    def trainings(self) -> tuple[Stage, ...]:
        """The retrainings of networks, of which an ensemble has several."""
        return self.networks or (self,)

    @property
    def seconds(self) -> float | None:
        """How long all sessions took; None where nothing says so."""
        spent = [number(session.get("seconds")) for session in self.sessions]
        known = [seconds for seconds in spent if seconds is not None]
        return sum(known) if known else None

    @property
    def epochs_done(self) -> int:
        """How many epochs have ended."""
        return len(self.of("epoch"))

    @property
    def trainless(self) -> bool:
        """Whether this is a search that has ended without any epoch, one at random."""
        return bool(self.of("end")) and not self.epochs_done

    @property
    def sampled(self) -> bool:
        """Whether paths of a supernet were sampled, as far as an epoch has told."""
        return self.evolution is not None or any("drawn" in row for row in self.of("epoch"))

    @property
    def stopped(self) -> Mapping[str, Any]:
        """Why the search stopped early, and the epoch whose architecture counts; or nothing."""
        found = [row["stopped"] for row in self.of("epoch") if row.get("stopped")]
        return found[-1] if found else {}

    @property
    def last(self) -> Mapping[str, Any]:
        """The row of the epoch whose architectures count: the last, unless the search stopped.

        A search without epochs has its end alone.
        """
        rows = self.of("epoch") or self.of("end") or [{}]
        wanted = self.stopped.get("epoch", rows[-1].get("epoch"))
        return next((row for row in rows if row.get("epoch") == wanted), rows[-1])

    @property
    def answers(self) -> list[Any]:
        """What a table says of the architectures that count: of every learner's, or of the one."""
        ends = [row["table"] for row in self.of("end") if row.get("table")]
        return ends[-1] if ends else self.last.get("table") or []

    @property
    def benchmark(self) -> Benchmark:
        """The benchmark that was asked; the first where none was."""
        ranked = [row.get("table") or {} for row in (self.ranking.rows if self.ranking else [])]
        asked = {key for answer in [*self.answers, *ranked] for key in answer}
        return next((each for each in BENCHMARKS if each.ranked_by in asked), BENCHMARKS[0])

    @property
    def kept_earlier(self) -> bool:
        """Whether the architecture of an epoch before the last is kept."""
        return bool(self.stopped) and self.last is not self.of("epoch")[-1]

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
    search: Stage | None
    retraining: Stage | None

    @property
    def stages(self) -> list[tuple[str, Stage]]:
        """What there is of search and retraining, by name."""
        both = (("search", self.search), ("retraining", self.retraining))
        return [(name, stage) for name, stage in both if stage is not None]

    @property
    def title(self) -> str:
        """Method x search x space x data, by the names of the command line."""
        if self.search:
            parts = [self.search.setting(table, "name") for table in AXES]
        else:
            parts = ["retraining", *(stage.setting("data", "name") for _, stage in self.stages)]
        return " × ".join(str(part or "?") for part in parts)

    @property
    def genotype(self) -> Genotype | None:
        """The genotype found, or the one that was trained."""
        return next((stage.genotype for _, stage in self.stages if stage.genotype), None)

    @property
    def seed(self) -> Any:
        """The search's seed, or else the retraining's."""
        if self.search:
            return self.search.setting("seed")
        return self.retraining.setting("retrain", "seed") if self.retraining else None

    @property
    def test_error(self) -> float | None:
        """The test error after retraining, a fraction; None before that."""
        return number(self.retraining.result.get("test_error")) if self.retraining else None

    @property
    def parameters(self) -> float | None:
        """The retrained network's weights; None before that."""
        return number(self.retraining.result.get("parameters")) if self.retraining else None

    @property
    def kept(self) -> int | None:
        """The learner whose genotype was kept; None where nothing says so."""
        if self.search is None:
            return None
        ends = self.search.of("end")
        kept = ends[-1].get("kept") if ends else self.search.about.get("learner")
        return kept if isinstance(kept, int) else None

    @property
    def members(self) -> list[Any]:
        """The learners of the ensemble that is kept, best one first; none where it is no ensemble.

        Then test error, weights and validation accuracy are the ensemble's.
        """
        return self.stages[-1][1].members  # one network of it may have been trained alone

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
            return number(self.search.ensemble.get("valid_accuracy"))
        found = self.search.about.get("valid_accuracy")
        for row in self.search.of("end"):
            learners = row.get("learners") or []
            if self.kept is not None and self.kept < len(learners):
                found = learners[self.kept].get("valid_accuracy", found)
        return number(found)

    @property
    def answer(self) -> Mapping[str, Any]:
        """What a benchmark says of the kept architecture; empty where not asked, or not yet.

        Of an ensemble it says nothing: the table has single networks alone.
        """
        if self.search is None or self.kept is None or self.members:
            return {}
        found = self.search.answers
        place = 0 if self.search.sampled else self.kept
        return found[place] if place < len(found) else {}


def read_run(path: Path) -> Record:
    """Read a run's directory, or a retraining's own.

    Raises:
        ValueError: it is no directory, or nothing in it belongs to a run.
    """
    if not path.is_dir():
        raise ValueError(f"{path}: no such directory; give the --out of a search or a retraining")
    if not any((path / name).is_file() for name in (*FILES, "retrain/run.toml")):
        raise ValueError(f"{path} is no run: it holds none of {', '.join(FILES)}")
    stage = _stage(path)
    if stage.result or ("retrain" in stage.settings and "method" not in stage.settings):
        return Record(path, None, stage)
    inner = path / "retrain"
    retrained = any((inner / name).is_file() for name in FILES)
    return Record(path, stage, _stage(inner) if retrained else None)


def number(value: Any) -> float | None:
    """Read a finite number; None for anything else, NaN and infinity among it."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _stage(path: Path) -> Stage:
    notes: list[str] = []
    result = _read(path / "result.json", json.loads, notes)
    ensemble = _read(path / "ensemble.json", json.loads, notes)
    networks = tuple(_stage(folder) for folder in sorted(path.glob("member-*")))
    ranking, evolution = (
        _stage(path / name) if (path / name).is_dir() else None for name in ("ranking", "evolution")
    )
    stored = _read(path / "genotype.json", json.loads, notes) or result.get("genotype", {})
    genotype = None
    if stored:
        try:
            genotype = Genotype.from_dict(stored)
        except ValueError as error:
            notes.append(f"{path / 'genotype.json'}: {error}")
    return Stage(
        path=path,
        settings=_read(path / "run.toml", tomllib.loads, notes),
        sessions=[
            *(_read(path / "environment.json", json.loads, notes).get("sessions") or []),
            *(session for network in networks for session in network.sessions),
        ],
        rows=_rows(path / "metrics.jsonl", notes),
        genotype=genotype,
        about=stored.get("about") or {},
        result=result,
        ensemble=ensemble,
        notes=(
            *notes,
            *(note for each in (*networks, ranking, evolution) if each for note in each.notes),
        ),
        networks=networks,
        ranking=ranking,
        evolution=evolution,
    )


def _read(path: Path, parse: Callable[[str], Any], notes: list[str]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = parse(path.read_text(encoding="utf-8"))
    except ValueError as error:
        notes.append(f"{path} is damaged and left out: {error}")
        return {}
    return found if isinstance(found, dict) else {}


def _rows(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    rows, damaged = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            row = json.loads(line)
        except ValueError:
            damaged += line.endswith("\n")  # a last line without an end is being written
            continue
        if isinstance(row, dict):
            rows.append(row)
    if damaged:
        notes.append(f"{path}: {damaged} damaged row{'s' if damaged > 1 else ''} left out")
    return rows
