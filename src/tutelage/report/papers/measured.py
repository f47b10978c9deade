"""What runs of the papers' rows have measured, by row and by the settings that differ from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tutelage.config import Data, Run
from tutelage.formats import read_json, read_toml
from tutelage.papers import Row, read_table, row_named
from tutelage.parts import PARTS, from_table, make_part, names_code, part_settings, plain
from tutelage.records.typed import typed
from tutelage.report.runs.found import flops, params
from tutelage.report.runs.read import read_query, read_run
from tutelage.report.runs.record import Record, number
from tutelage.report.runs.tables import Statistic, dotted, material

ANSWERS = {
    f"{short}_{part}": f"{name}_{part}_200"
    for short, name in (("c10", "cifar10"), ("c100", "cifar100"), ("in16", "imagenet16"))
    for part in ("valid", "test")
}
"""Measures of rows that query NAS-Bench-201, and the keys of the table's answers."""
CUTOUT = 16
"""Pixels that a retraining on the images of the papers cuts out unless it is set."""


@dataclass(frozen=True)
class Measured:
    """Runs of a row that differ only in their seed."""

    row: str
    """PAPER/TABLE/ROW."""
    changed: tuple[str, ...]
    """Settings that differ from the row's, `name = value (row's value)`; none: its full size."""
    runs: dict[str, dict[str, float]]
    """By seed, what the run has measured, by measure and in the unit that papers print."""

    @property
    def seeds(self) -> list[int]:
        """The seeds of the runs."""
        return sorted(map(int, self.runs))

    def figure(self, measure: str) -> Statistic:
        """Return what the runs have measured."""
        return Statistic(tuple(run[measure] for run in self.runs.values() if measure in run))


def measured(paths: Iterable[Path], known: Iterable[Measured] = ()) -> list[Measured]:
    """Read the runs of rows in some folders, and put them to those that are known.

    Raises:
        ValueError: A folder does not exist.
    """
    groups = {(one.row, one.changed): dict(one.runs) for one in known}
    for path in paths:
        if not path.is_dir():
            raise ValueError(f"{path}: no such directory; give a folder of runs")
        for folder, name in _runs(path):
            record = read_run(folder)
            values = {each: _figure(record, each) for each in _FIGURES} | _answers(record)
            found = {each: x for each, x in values.items() if x is not None}
            changed = _changes(record, row_named(name), "error" in found)
            if (found or _unlisted(record, name)) and record.seed is not None:
                groups.setdefault((name, changed), {})[str(record.seed)] = found
    return [Measured(*key, runs) for key, runs in groups.items()]


def of_row(measured: Iterable[Measured], row: Row) -> Measured | None:
    """Return the runs that tell most of a row: of its full size, then most seeds.

    Of as many seeds, those with the fewest changed settings. Runs without a figure come last.
    """

    def order(one: Measured) -> tuple[bool, bool, int, int]:
        return not any(one.runs.values()), bool(one.changed), -len(one.runs), len(one.changed)

    return min((one for one in measured if one.row == row.name), key=order, default=None)


def read_known(path: Path) -> list[Measured]:
    """Read what `as_json` wrote; an absent file holds nothing.

    Raises:
        ValueError: It is damaged.
    """
    if not path.exists():
        return []
    try:
        return typed(read_json(path), list[Measured])
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def as_json(measured: Sequence[Measured]) -> str:
    """Write measured runs as JSON, a group a line."""
    ordered = sorted(measured, key=lambda one: (one.row, one.changed))
    return "[\n" + ",\n".join(json.dumps(asdict(one)) for one in ordered) + "\n]\n"


def _runs(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield the run directories below a folder that are runs of rows, with the row's name."""
    for file in sorted(path.rglob("run.toml")):
        try:
            name = read_toml(file).get("row")
        except ValueError:
            continue  # a damaged run is named where it is reported on
        if isinstance(name, str):
            yield file.parent, name


def _changes(record: Record, row: Row, retrained: bool) -> tuple[str, ...]:
    """List the settings of a run that differ from its row's; those of a retraining if it ended."""
    own = dict(_settings(row.search()))
    given = dict(_settings(record.search.settings)) if record.search else {}
    if retrained and record.retraining:
        both = _retraining(row), record.retraining.settings.get("retrain", {})
        rows, runs = ({f"retrain.{name}": x for name, x in dotted(table)} for table in both)
        own, given = own | rows, given | runs
        images = _images(row.search(), row.retraining()), _images(record.retraining.settings)
        for name, value in images[1].items():
            pair = images[0][name], value
            if pair != (own.get(f"data.{name}"), given.get(f"data.{name}")):  # told there
                own[f"retrain.data.{name}"], given[f"retrain.data.{name}"] = pair
    return tuple(
        f"{name} = {value} ({own.get(name, 'not set')})"
        for name, value in given.items()
        if value != own.get(name)
        and material(name)
        and (retrained or not name.startswith("retrain."))
    )


def _retraining(row: Row) -> dict[str, Any]:
    """Return a row's settings of a retraining, with what the retraining fills in."""
    settings = row.search()
    sizes = make_part("space", from_table(Run, settings, "a search").space).sizes
    filled = {
        "channels": sizes.final_channels,
        "cells": sizes.final_cells,
        "auxiliary": sizes.auxiliary,
        "cutout": CUTOUT,
    }
    return {**filled, **settings.get("retrain", {}), **row.retraining().get("retrain", {})}


def _images(*tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of a retraining's data, but for the cutout, which is among its own."""
    table = {name: value for each in tables for name, value in each.get("data", {}).items()}
    found = asdict(from_table(Data, table, "the data"))
    return {name: value for name, value in found.items() if name != "cutout"}


def _settings(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """List all settings of a search by dotted name, defaults too, those of its parts as well."""
    settings = from_table(Run, table, "a search")
    if any(names_code(str(getattr(settings, kind).get("name"))) for kind in PARTS):
        return dotted(
            plain(asdict(settings))
        )  # of a run that may be of others: nothing is imported
    parts = {kind: part_settings(kind, make_part(kind, getattr(settings, kind))) for kind in PARTS}
    return dotted(plain(asdict(settings)) | parts)


_FIGURES = ("error", "accuracy", "params", "flops")


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
    raise ValueError(f"measure = {measure!r}: must be one of {', '.join(_FIGURES)}")


def _answers(record: Record) -> dict[str, float | None]:
    """Return a table's figures: of the query that followed, or those that the search looked up."""
    asked = {} if record.together else read_query(record.path).get("accuracy")
    found = {**record.answer, **(asked if isinstance(asked, Mapping) else {})}
    return {measure: number(found.get(key)) for measure, key in ANSWERS.items()}


def _unlisted(record: Record, row: str) -> bool:
    """Tell whether a row is queried and a run of it found an ensemble, which no table has."""
    paper, table, _ = row.split("/", 2)
    ended = record.search is not None and record.search.ended
    return ended and record.together and read_table(paper, table).then == "query"


def _millions(count: float | None) -> float | None:
    return None if count is None else count / 1e6
