"""Runs of the papers' rows: figures by row, and by the settings that differ from the row's."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tutelage.config import Run
from tutelage.papers import Row, row_named
from tutelage.parts import from_table, plain
from tutelage.report.runs.found import flops, params
from tutelage.report.runs.read import read_run
from tutelage.report.runs.record import Record, number
from tutelage.report.runs.tables import IMMATERIAL, Statistic, dotted

ANSWERS = {
    f"{short}_{part}": f"{name}_{part}_200"
    for short, name in (("c10", "cifar10"), ("c100", "cifar100"), ("in16", "imagenet16"))
    for part in ("valid", "test")
}
"""Measures of rows that query NAS-Bench-201, and the keys of the table's answers."""
LABELS = (*IMMATERIAL, "row", "graph", "deterministic", "threads", "quick")
"""Settings that do not change a run's size."""


@dataclass(frozen=True)
class Measured:
    """Runs of a row that differ only in their seed."""

    row: Row
    changed: tuple[str, ...]
    """Settings that differ from the row's, `name = value (row's value)`; none: its full size."""
    records: tuple[Record, ...]

    @property
    def seeds(self) -> list[int]:
        """The seeds of the runs."""
        return sorted(record.seed for record in self.records if record.seed is not None)

    def figure(self, measure: str) -> Statistic:
        """Return what the runs measured, in the unit that papers print."""
        values = (_figure(record, measure) for record in self.records)
        return Statistic(tuple(value for value in values if value is not None))


def measured(paths: Iterable[Path]) -> dict[str, list[Measured]]:
    """Read the runs of rows in some folders, grouped by row and by size.

    Raises:
        ValueError: A folder does not exist.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[Record]] = {}
    for path in paths:
        if not path.is_dir():
            raise ValueError(f"{path}: no such directory; give a folder of runs")
        for folder, name in _runs(path):
            record = read_run(folder)
            groups.setdefault((name, _changes(record, row_named(name))), []).append(record)
    found: dict[str, list[Measured]] = {}
    for (name, changed), records in groups.items():
        one = Measured(row_named(name), changed, tuple(records))
        found.setdefault(name, []).append(one)
    return found


def _runs(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield the run directories below a folder that are runs of rows, with the row's name."""
    for file in sorted(path.rglob("run.toml")):
        try:
            name = tomllib.loads(file.read_text(encoding="utf-8")).get("row")
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            continue  # a damaged run is named where it is reported on
        if isinstance(name, str):
            yield file.parent, name


def _changes(record: Record, row: Row) -> tuple[str, ...]:
    """List the settings of a run that differ from its row's."""
    own = dict(_settings(row.search()))
    given = dict(_settings(record.search.settings)) if record.search else {}
    if record.retraining:
        retrained = record.retraining.settings.get("retrain", {})
        given |= {f"retrain.{name}": value for name, value in dotted(retrained)}
    retrain = row.retraining().get("retrain", {})
    own |= {f"retrain.{name}": value for name, value in dotted(retrain)}
    return tuple(
        f"{name} = {given[name]} ({own.get(name, 'not set')})"
        for name in given
        if given[name] != own.get(name) and name.rpartition(".")[2] not in LABELS
    )


def _settings(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """List all settings of a search by dotted name, defaults too."""
    return dotted(plain(asdict(from_table(Run, table, "a search"))))


def _figure(record: Record, measure: str) -> float | None:
    match measure:
        case "error":
            return None if record.test_error is None else 100 * record.test_error
        case "accuracy":
            return None if record.test_error is None else 100 - 100 * record.test_error
        case "params":
            return _millions(params(record))
        case "flops":
            return _millions(flops(record))
    return number(record.answer.get(ANSWERS[measure])) if measure in ANSWERS else None


def _millions(count: float | None) -> float | None:
    return None if count is None else count / 1e6


def largest(runs: Sequence[Measured]) -> Measured | None:
    """Return the runs nearest to the row's size: the fewest changed settings, then most seeds."""
    return min(runs, key=lambda one: (len(one.changed), -len(one.records)), default=None)
