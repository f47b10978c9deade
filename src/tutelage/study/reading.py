"""Read a study's file: compose its configurations, and refuse what a run would refuse."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.checks import nearest
from tutelage.config import Data, Retrain, Run
from tutelage.formats import from_toml, read_text
from tutelage.papers import Row, Table, read_paper, read_table, row_named
from tutelage.parts import from_table
from tutelage.recipes import layered, read_recipe
from tutelage.report.runs.tables import dotted
from tutelage.study.grid import combinations
from tutelage.study.plan import FILE, Configuration, Head, Settings, Study, Then, among

NAME = re.compile(r"[\w+=,.-]+(/[\w+=,.-]+)*")
"""Names of configurations, which are folders too."""
RESERVED = re.compile(r"(^|/)(\.|seed-\d+($|[./]))|^(study\.toml|report\.)")
"""Names of what else is in those folders."""
SEEDS = ("seed", "retrain.seed")
START = ("recipe", "row")
TABLES = ("study", "base", "grid", "configurations")


def read_study(path: Path) -> Study:
    """Read a study's file, or that of a study's folder.

    Raises:
        ValueError: It is missing or damaged, or something in it is unknown or refused.
    """
    written = path.is_dir()  # a recipe's seeds may be in it
    path = path / FILE if written else path
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file of a study")
    try:
        found = from_toml(read_text(path))
    except ValueError as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    try:
        return study_of(found, written)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def study_of(found: Mapping[str, Any], written: bool = False) -> Study:
    """Make a study of the content of its file.

    Args:
        found: The content.
        written: Whether it is the file of a study's folder, which was read before.

    Raises:
        ValueError: Something in it is unknown or refused.
    """
    for name, value in found.items():
        if name not in TABLES:
            raise ValueError(f"unknown table [{name}]: {nearest(name, TABLES)}")
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} = {value!r}: must be a table [{name}]")
    if not written:
        _refuse_seeds(found)
    head: Head = from_table(Head, found.get("study", {}), "[study]")
    made: dict[str, Configuration] = {}
    for each in _configurations(head, found):
        if not NAME.fullmatch(each.name) or RESERVED.search(each.name):
            raise ValueError(
                f"configuration {each.name!r}: a name consists of letters, digits and -_+=.,"
                " and is not that of another file of a study"
            )
        if each.name in made:
            raise ValueError(f"two configurations are called {each.name!r}: rename one")
        _check(each)
        made[each.name] = each
    if head.baseline is not None:
        among(head.baseline, made)
    return Study(head, made)


def _refuse_seeds(found: Mapping[str, Any]) -> None:
    """Refuse seeds that would have no effect, since every run has one of the study's."""
    own = found.get("configurations", {})
    given = {"base": found.get("base"), "grid": found.get("grid")}
    given |= {f"configurations.{name}": table for name, table in own.items()}
    for table, settings in given.items():
        for name, value in dotted(settings) if isinstance(settings, Mapping) else ():
            if name.removeprefix("grid.") in SEEDS:
                raise ValueError(
                    f"[{table}] {name} = {value}: every run has a seed of the study; give [study] "
                    "seeds"
                )


def _configurations(head: Head, found: Mapping[str, Any]) -> Iterator[Configuration]:
    """Yield every configuration with every combination of its grid."""
    base = dict(found.get("base", {}))
    given = dict(found.get("configurations", {}))
    starts = [(name, dict(table)) for name, table in given.items() if _table(name, table)]
    starts += [(row.name, {"row": row.name}) for name in head.rows for row in _rows(name)]
    for name, own in starts or [("", {})]:
        grid = layered(found.get("grid", {}), own.pop("grid", {}))
        for label, values in combinations(grid):
            full = ",".join(part for part in (name, label) if part) or "run"
            yield _configuration(full, base, layered(own, values), head.then)


def _table(name: str, table: Any) -> bool:
    if not isinstance(table, Mapping):
        raise ValueError(f"{name} = {table!r}: must be a table [configurations.{name}]")
    return True


def _configuration(
    name: str, base: Settings, own: Settings, then: tuple[Then, ...] | None
) -> Configuration:
    """Compose one configuration; its own recipe or row replaces the base's."""
    start = next((x for x in (own, base) if any(key in x for key in START)), {})
    recipe, row = (start.get(key) for key in START)
    if recipe and row:
        raise ValueError(f"{name or 'base'}: recipe {recipe} with row {row}: give one of them")
    settings = layered(*({k: x for k, x in t.items() if k not in START} for t in (base, own)))
    then = from_table(Head, {"seeds": [0], "then": settings.pop("then", then)}, name).then
    if then is None:
        then = _follows(row_named(row)) if row else ("retrain",)
    if recipe:
        settings = layered(read_recipe(str(recipe))[0], settings)
    return Configuration(name, settings, row, then)


def _follows(row: Row) -> tuple[Then, ...]:
    """Return what follows a search of a paper's row."""
    paper, table, _ = row.name.split("/", 2)
    follows = read_table(paper, table).then
    return () if follows == "nothing" else (follows,)


def _rows(name: str) -> list[Row]:
    """Return the rows that run of a paper or a table, or one row."""
    paper, _, rest = name.partition("/")
    table, _, own = rest.partition("/")
    if own:
        return [row_named(name)]
    tables: Sequence[Table] = [read_table(paper, table)] if table else [*read_paper(paper).each()]
    return [row for each in tables for row in each.each() if row.parts]


def _check(configuration: Configuration) -> None:
    """Refuse settings that a search or a retraining would refuse, as far as files say."""
    try:
        table = configuration.search()
        for name in ("retrain", "data"):
            if not isinstance(table.get(name, {}), dict):
                raise ValueError(f"{name} = {table[name]!r}: must be a table")
        from_table(Run, {k: x for k, x in table.items() if k != "retrain"}, "a search")
        from_table(Retrain, table.get("retrain", {}), "a retraining")
        from_table(Data, table.get("data", {}), "the data")
    except ValueError as error:
        raise ValueError(f"configuration {configuration.name}: {error}") from error
