"""What a study's runs measured, by configuration, measure and seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from tutelage.report.runs.benchmarks import BENCHMARKS
from tutelage.report.runs.found import flops, gap, params, students_accuracy, supernet_accuracy, tau
from tutelage.report.runs.read import read_query, read_run
from tutelage.report.runs.record import Record, number
from tutelage.report.runs.tables import time_unit
from tutelage.study.jobs import Job, jobs_of
from tutelage.study.plan import Study
from tutelage.study.results.statistics import Sample

UNIT = "UNIT"


@dataclass(frozen=True)
class Found:
    """What is known of one run."""

    job: Job
    record: Record
    query: Mapping[str, Any]
    """Its entry in a benchmark's table; empty if it was not queried."""

    @property
    def searched(self) -> bool:
        """Whether its search has ended."""
        return (self.job.run / "genotype.json").exists()

    @property
    def caveat(self) -> str:
        """A sentence that must stand beside a benchmark's figures; empty: none."""
        asked = self.query.get("caveat")
        if isinstance(asked, str) and asked:
            return f"Figures of the benchmark are {asked}."
        return self.record.search.caveat if self.record.search else ""

    def answer(self, key: str) -> float | None:
        """Return an accuracy that a query, or the search itself, looked up."""
        asked = self._asked("accuracy", key)
        return number(self.record.answer.get(key) if asked is None else asked)

    def rank(self, key: str) -> float | None:
        """Return the rank by the accuracy that a table ranks by."""
        asked = self._asked("rank", key)
        own = self.record.answer.get("rank") if key in self.record.answer else None
        return number(own if asked is None else asked)

    def _asked(self, of: str, key: str) -> Any:
        table = {} if self.record.together else self.query.get(of)
        return table.get(key) if isinstance(table, Mapping) else None


@dataclass(frozen=True)
class Measure:
    """A figure of a run."""

    name: str
    """With its unit; UNIT, of seconds, is replaced by one that fits the values."""
    read: Callable[[Found], float | None]
    digits: int = 2
    quality: bool = True
    """Whether configurations are compared by it; otherwise it is a cost."""
    beside: bool = False
    """Whether it stands beside the main measure."""
    predicted: bool = False
    """Whether a model predicts it."""


@dataclass(frozen=True)
class Measured:
    """A measure's values: by configuration, then by seed."""

    measure: Measure
    values: Mapping[str, Mapping[int, float]]
    caveat: str = ""
    """A sentence that must stand beside it; empty: none."""

    def sample(self, name: str) -> Sample:
        """Return a configuration's values."""
        return Sample(tuple(self.values[name].values()))


def measured(study: Study, out: Path) -> list[Measured]:
    """Read all runs of a study; return the measures that any run has, the main one first."""
    runs = list(_found(jobs_of(study, out)))
    made = []
    for measure in MEASURES:
        values: dict[str, dict[int, float]] = {name: {} for name in study.configurations}
        for run in runs:
            value = measure.read(run)
            if value is not None:
                values[run.job.configuration][run.job.seed] = value
        if any(values.values()):
            caveats = (run.caveat for run in runs if measure.predicted)
            made.append(_fitting(Measured(measure, values, next(filter(None, caveats), ""))))
    return made


def _fitting(found: Measured) -> Measured:
    """Return seconds in a unit that fits them, and all else as it is."""
    if UNIT not in found.measure.name:
        return found
    unit, seconds = time_unit(fmean(x for each in found.values.values() for x in each.values()))
    return Measured(
        replace(found.measure, name=found.measure.name.replace(UNIT, unit)),
        {
            name: {seed: value / seconds for seed, value in each.items()}
            for name, each in found.values.items()
        },
    )


def _found(jobs: Sequence[Job]) -> Iterator[Found]:
    for job in jobs:
        if (job.run / "run.toml").is_file():
            yield Found(job, read_run(job.run), read_query(job.run))


def _percent(read: Callable[[Record], float | None]) -> Callable[[Found], float | None]:
    return lambda found: _times(100.0, read(found.record))


def _millions(read: Callable[[Record], float | None]) -> Callable[[Found], float | None]:
    return lambda found: _times(1e-6, read(found.record))


def _times(scale: float, value: float | None) -> float | None:
    return None if value is None else scale * value


def _search_seconds(found: Found) -> float | None:
    files = found.record.search
    return files.seconds if files and found.searched else None


def _retraining_seconds(found: Found) -> float | None:
    files = found.record.retraining
    return files.seconds if files and found.record.result else None


def _memory(found: Found) -> float | None:
    peaks = [number(peak) for peak in found.job.outcome().memory.values()]
    return _times(2.0**-30, max((peak for peak in peaks if peak is not None), default=None))


def _gpu_memory(found: Found) -> float | None:
    own = [files.gpu_memory for _, files in found.record.run_files]
    return _times(2.0**-30, max((each for each in own if each is not None), default=None))


def _in_tables() -> Iterator[Measure]:
    for each in BENCHMARKS:
        for key, data in each.tests.items():
            name = f"{each.title}, {data} {each.part}{each.how} (%)"
            yield Measure(name, _asked(key), predicted=bool(each.how))


def _asked(key: str) -> Callable[[Found], float | None]:
    return lambda found: found.answer(key)


def _ranked(key: str) -> Callable[[Found], float | None]:
    return lambda found: found.rank(key)


MEASURES = (
    Measure("test error (%)", _percent(lambda record: record.test_error)),
    *_in_tables(),
    Measure("validation accuracy (%)", _percent(lambda record: record.valid_accuracy)),
    Measure("accuracy in the supernet (%)", _percent(supernet_accuracy)),
    Measure("Kendall’s tau", lambda found: tau(found.record), 3),
    Measure("accuracy of sampled students (%)", _percent(students_accuracy)),
    Measure("teacher’s gap (points)", _percent(gap)),
    *(
        Measure(f"rank of {x.count:,}", _ranked(x.ranked_by), 0, False)
        for x in BENCHMARKS
        if x.count
    ),
    Measure("parameters (M)", _millions(params), 3, False),
    Measure("FLOPs (M)", _millions(flops), 3, False),
    Measure(f"search ({UNIT})", _search_seconds, 2, False, beside=True),
    Measure(f"retraining ({UNIT})", _retraining_seconds, 2, False, beside=True),
    Measure("memory (GiB)", _memory, 2, False, beside=True),
    Measure("GPU memory (GiB)", _gpu_memory, 2, False, beside=True),
)
"""All measures. The first one that a study has is its main one. Memory is the largest resident
memory of the processor; that of a GPU is what tensors had at once."""
