"""What a report knows of one run: the files of its directories, with their types."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tutelage.records.results import Members, Origin, Result, Session
from tutelage.records.rows import (
    Answer,
    Candidate,
    EndRow,
    EpochRow,
    LearnerScores,
    Row,
    Stopped,
)
from tutelage.report.runs.benchmarks import BENCHMARKS, Benchmark
from tutelage.spaces.genotype import Genotype

AXES = ("method", "search", "space", "data")
"""The tables whose names make a run's title."""

T = TypeVar("T")


def at(items: Sequence[T], place: int | None, otherwise: T) -> T:
    """Return an item by its place, or a default if there is none.

    >>> at([3, 4], 1, 0), at([3, 4], 2, 0), at([3, 4], None, 0)
    (4, 0, 0)
    """
    return otherwise if place is None or not 0 <= place < len(items) else items[place]


def number(value: Any) -> float | None:
    """Return a finite number; None for anything else, including NaN and infinity."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


@dataclass(frozen=True)
class RunFiles:
    """The content of one directory: a search, or a retraining."""

    path: Path
    settings: Mapping[str, Any]
    """The tables of run.toml."""
    sessions: list[Session]
    """Sessions: when, how long, with which versions and hardware."""
    rows: list[Row]
    """The rows of metrics.jsonl."""
    genotype: Genotype | None
    about: Origin
    """The genotype's origin, from genotype.json."""
    result: Result | None
    """The content of result.json; None before the test."""
    ensemble: Members
    """The content of ensemble.json; empty if there is no ensemble."""
    notes: tuple[str, ...]
    """A sentence for each damaged file."""
    networks: tuple[RunFiles, ...] = ()
    """The retrainings of an ensemble's members, as far as they exist."""
    ranking: RunFiles | None = None
    """The ranking of architectures of a table by a supernet of sampled paths, if it exists."""
    evolution: RunFiles | None = None
    """The evolution among the supernet's paths; None before it begins."""

    def of(self, event: str) -> list[Any]:
        """Return the rows of one event: step, epoch or end, of this directory's type."""
        return [row for row in self.rows if row.event == event]

    @property
    def epochs(self) -> list[EpochRow]:
        """The epochs of a search."""
        return [row for row in self.rows if isinstance(row, EpochRow)]

    @property
    def ends(self) -> list[EndRow]:
        """The end rows of a search; a file that was not edited has at most one."""
        return [row for row in self.rows if isinstance(row, EndRow)]

    @property
    def scored(self) -> list[Candidate]:
        """The architectures that a ranking or an evolution has scored, in order."""
        return [x for x in self.rows if isinstance(x, Candidate) and x.event == "step"]

    @property
    def members(self) -> list[int]:
        """The numbers of the learners in the ensemble."""
        return [each.learner for each in self.ensemble.members]

    @property
    def trainings(self) -> tuple[RunFiles, ...]:
        """The retrainings of networks; an ensemble has several."""
        return self.networks or (self,)

    @property
    def seconds(self) -> float | None:
        """The time of all sessions together; None if it is unknown."""
        spent = [number(session.seconds) for session in self.sessions]
        known = [seconds for seconds in spent if seconds is not None]
        return sum(known) if known else None

    @property
    def gpu_memory(self) -> int | None:
        """The most bytes that tensors had on a GPU, also in a ranking or an evolution.

        None: it ran on a CPU, or the figure is unknown.
        """
        within = [part for part in (self.ranking, self.evolution) if part]
        sessions = [each for files in (self, *within) for each in files.sessions]
        known = [each.gpu_memory for each in sessions if each.gpu_memory is not None]
        return max(known, default=None)

    @property
    def epochs_done(self) -> int:
        """How many epochs have ended."""
        return len(self.of("epoch"))

    @property
    def ended(self) -> bool:
        """Whether a search has ended; one of sampled paths ends with its evolution."""
        trained = self.epochs_done == self.setting("epochs") and not self.sampled
        return bool(self.ends) or trained

    @property
    def trainless(self) -> bool:
        """Whether this is a search that has ended without any epoch: a random search."""
        return bool(self.ends) and not self.epochs_done

    @property
    def sampled(self) -> bool:
        """Whether paths of a supernet were sampled, known after the first epoch."""
        return self.evolution is not None or any(row.sampled for row in self.epochs)

    @property
    def stopped(self) -> Stopped | None:
        """Why the search stopped early, and the epoch whose architecture is kept."""
        found = [row.stopped for row in self.epochs if row.stopped]
        return found[-1] if found else None

    @property
    def last(self) -> EpochRow | None:
        """The row of the epoch whose architectures are kept: the last one unless it stopped."""
        rows = self.epochs
        if not rows:
            return None
        wanted = self.stopped.epoch if self.stopped else rows[-1].epoch
        return next((row for row in rows if row.epoch == wanted), rows[-1])

    @property
    def answers(self) -> list[Answer]:
        """The table's entries for the final architectures, one for each learner."""
        ends = [row.table for row in self.ends if row.table]
        if ends:
            return ends[-1]
        return self.last.table if self.last else []

    @property
    def benchmark(self) -> Benchmark:
        """The benchmark whose table was used; the first one if none was."""
        ranked = [row.table for row in (self.ranking.scored if self.ranking else [])]
        each_epoch = [answer for row in self.epochs for answer in row.table]
        asked = {key for answer in [*self.answers, *each_epoch, *ranked] for key in answer}
        return next((each for each in BENCHMARKS if each.ranked_by in asked), BENCHMARKS[0])

    @property
    def caveat(self) -> str:
        """A sentence that must stand beside the table's figures; empty: none."""
        said = [row.table_caveat for row in self.ends] + [row.table_caveat for row in self.epochs]
        found = next(filter(None, said), "")
        return found and f"Figures of {self.benchmark.title} are {found}."

    @property
    def kept_earlier(self) -> bool:
        """Whether the kept architecture is from an epoch before the last."""
        return self.stopped is not None and self.last is not self.epochs[-1]

    def setting(self, *names: str) -> Any:
        """Look up a setting by the names of its tables and its own name; None: not set."""
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
        """Method x search x space x data, by their names on the command line."""
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
        """The search's seed, otherwise the retraining's."""
        if self.search:
            return self.search.setting("seed")
        return self.retraining.setting("retrain", "seed") if self.retraining else None

    @property
    def test_error(self) -> float | None:
        """The test error after retraining, a fraction; None before the test."""
        return number(self.result.test_error) if self.result else None

    @property
    def result(self) -> Result | None:
        """The result of the retraining; None before its end."""
        return self.retraining.result if self.retraining else None

    @property
    def kept(self) -> int | None:
        """The learner whose genotype was kept; None if unknown."""
        if self.search is None:
            return None
        ends = self.search.ends
        return ends[-1].kept if ends else self.search.about.learner

    @property
    def members(self) -> list[int]:
        """The learners of the kept ensemble, best one first; empty if there is no ensemble.

        If there is one, test error, parameters and validation accuracy are the ensemble's.
        """
        return self.run_files[-1][1].members  # one network of it may have been trained alone

    @property
    def together(self) -> bool:
        """Whether it is an ensemble of several networks, which no benchmark's table has."""
        return len(self.members) > 1

    @property
    def ensemble(self) -> str:
        """Name the learners of the ensemble; empty if there is none."""
        names = ", ".join(map(str, self.members))
        return f"ensemble of learners {names}" if names else ""

    @property
    def valid_accuracy(self) -> float | None:
        """The validation accuracy of the kept learner or ensemble at the end of the search.

        None if paths were sampled: then no architecture was kept in training.
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
        """The benchmark's entries for the kept architecture; empty if there are none yet.

        They are empty for an ensemble: the table has only single networks.
        """
        if self.search is None or self.kept is None or self.together:
            return {}
        return at(self.search.answers, 0 if self.search.sampled else self.kept, {})
