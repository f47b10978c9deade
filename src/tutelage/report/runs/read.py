"""Read run directories for a report: all that exists, and a note for what is damaged."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from tutelage.formats import read_json, read_toml
from tutelage.records import metrics
from tutelage.records.results import Environment, Members, Origin, Result
from tutelage.records.rows import (
    CANDIDATES,
    SEARCH,
    TRAINING,
    Row,
    StepRow,
    TrainingRow,
)
from tutelage.records.typed import typed
from tutelage.renamed import lifted_settings
from tutelage.report.runs.record import Record, RunFiles
from tutelage.spaces.genotype import Genotype

FILES = ("run.toml", "metrics.jsonl", "genotype.json", "result.json")
"""A directory with any of these files is a run."""

SHOWN = 3
"""Number of damaged lines of a file that a note explains."""

MOST_STEPS = 10_000
"""Logged steps of a file that are kept: more than a figure shows."""

T = TypeVar("T")


def read_run(path: Path) -> Record:
    """Read a run's directory, or a retraining's.

    Raises:
        ValueError: it is not a directory, or it holds no file of a run.
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


def read_query(path: Path) -> dict[str, Any]:
    """Read a run's query.json, a table's entry for what it found; empty if there is none."""
    return _table(path / "query.json", read_json, [])


def _trains(settings: Mapping[str, Any], result: Result | None) -> bool:
    """Tell whether a directory is a retraining's."""
    return result is not None or ("retrain" in settings and "method" not in settings)


def _run_files(path: Path, types: Mapping[str, type[Row]] | None = None) -> RunFiles:
    """Read a directory; `types` are the types of its rows, if its place determines them."""
    notes: list[str] = []
    settings = _table(path / "run.toml", lambda file: lifted_settings(read_toml(file)), notes)
    result = _file(path / "result.json", Result.read, notes)
    environment = _file(path / "environment.json", Environment.read, notes) or Environment()
    members = sorted(each for each in path.glob("member-*") if each.is_dir())
    networks = tuple(_run_files(each, TRAINING) for each in members)
    ranking, evolution = (
        _run_files(path / name, CANDIDATES) if (path / name).is_dir() else None
        for name in ("ranking", "evolution")
    )
    stored = _table(path / "genotype.json", read_json, notes)
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
    """Read a JSON file; None if it is missing or damaged."""
    if not path.is_file():
        return None
    try:
        return read(read_json(path))
    except ValueError as error:
        notes.append(_left_out(path, error))
        return None


def _table(path: Path, read: Callable[[Path], Any], notes: list[str]) -> dict[str, Any]:
    """Read a file that holds an object; an empty object if it is missing or damaged."""
    if not path.is_file():
        return {}
    try:
        return typed(read(path), dict[str, Any])
    except ValueError as error:
        notes.append(_left_out(path, error))
        return {}


def _left_out(path: Path, error: ValueError) -> str:
    """Write a note on a damaged file."""
    return f"{path} is damaged and left out: {str(error).removeprefix(f'{path} is damaged: ')}"


def _found(
    path: Path, stored: Mapping[str, Any], notes: list[str]
) -> tuple[Genotype | None, Origin]:
    """Read the genotype and its origin."""
    try:
        genotype = Genotype.from_dict(stored) if stored else None
        return genotype, typed(stored.get("about") or {}, Origin)
    except ValueError as error:
        notes.append(f"{path / 'genotype.json'}: {error}")
        return None, Origin()


def _rows(path: Path, types: Mapping[str, type[Row]], notes: list[str]) -> list[Row]:
    if not path.is_file():
        return []
    with path.open("rb") as file:
        rows, damage = _thinned(metrics.scan(file, types))
    if damage:
        lines = [f"line {line} ({reason})" for line, reason in damage[:SHOWN]]
        lines += [f"{len(damage) - SHOWN} more"] if len(damage) > SHOWN else []
        count = f"{len(damage)} damaged row{'s' if len(damage) > 1 else ''}"
        notes.append(f"{path}: {count} left out: {', '.join(lines)}")
    return rows


def _thinned(found: Iterable[Row | metrics.Damage]) -> tuple[list[Row], list[metrics.Damage]]:
    """Return the rows, of logged steps evenly at most `MOST_STEPS`, and the damage.

    Steps are shown where fewer than two epochs have ended.
    """
    others: list[tuple[int, Row]] = []
    steps: list[tuple[int, Row]] = []
    damage: list[metrics.Damage] = []
    seen, stride = 0, 1
    for place, each in enumerate(found):
        match each:
            case metrics.Damage():
                damage.append(each)
            case StepRow(event="step") | TrainingRow(event="step"):
                if seen % stride == 0:
                    steps.append((place, each))
                seen += 1
                if len(steps) > MOST_STEPS:
                    steps, stride = steps[::2], 2 * stride
            case _:
                others.append((place, each))
    return [row for _, row in heapq.merge(others, steps, key=itemgetter(0))], damage
