"""A study's file: configurations of settings, the seeds they run with, and what follows a search.

    [study]            seeds, then, table, baseline, rows, about
    [base]             what all configurations share: a recipe or a row, and settings
    [configurations.A] the same for one configuration, over the base
    [grid]             lists of values: each configuration is repeated with every combination

Nothing here imports torch.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tomli_w

from tutelage.checks import nearest
from tutelage.config import Data, Retrain, Run
from tutelage.papers import Row, Table, read_paper, read_table, row_named
from tutelage.parts import from_table
from tutelage.recipes import layered, read_recipe
from tutelage.report.runs.tables import dotted
from tutelage.study.grid import combinations

FILE = "study.toml"
"""The study's file in its folder: every configuration with its settings."""
NAME = re.compile(r"[\w+=,.-]+(/[\w+=,.-]+)*")
"""Names of configurations, which are folders too."""
RESERVED = re.compile(r"(^|/)(\.|seed-\d+($|[./]))|^(study\.toml|report\.)")
"""Names of what else is in those folders."""
START = ("recipe", "row")
TABLES = ("study", "base", "grid", "configurations")
Then = Literal["retrain", "query"]
Settings = dict[str, Any]


@dataclass(frozen=True)
class Head:
    """The table [study] of a study's file."""

    seeds: tuple[int, ...] = ()
    """Seeds of every configuration: of its search and of its retraining."""
    then: tuple[Then, ...] | None = None
    """What follows each search, in this order; not set: a retraining, and for rows of papers what
    their table says."""
    table: Path | None = None
    """Table of the benchmark that is queried."""
    baseline: str | None = None
    """The configuration that the report compares all others with."""
    rows: tuple[str, ...] = ()
    """Rows of papers, PAPER/TABLE/ROW, or all running rows of PAPER/TABLE or PAPER."""
    about: str = ""
    """The question, for the report."""

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ValueError("[study] has no seeds: give a list such as seeds = [1, 2, 3]")
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds = {list(self.seeds)}: must be different numbers from 0 on")


@dataclass(frozen=True)
class Configuration:
    """What runs once with every seed."""

    name: str
    settings: Settings
    """As a recipe has them; over a row's, if there is one."""
    row: str | None
    """The paper's row it begins from."""
    then: tuple[Then, ...]
    """What follows the search."""

    def search(self) -> Settings:
        """Return all settings of the search."""
        return layered(row_named(self.row).search() if self.row else {}, self.settings)

    def retraining(self) -> Settings:
        """Return the settings that override those that the retraining finds in its run."""
        own = {key: x for key, x in self.settings.items() if key in ("retrain", "data")}
        return own if self.row else {}

    def as_table(self) -> Settings:
        """Return its table of a study's file."""
        start = {"row": self.row} if self.row else {}
        return {**start, "then": list(self.then), **self.settings}


@dataclass(frozen=True)
class Study:
    """A study's file, read."""

    head: Head
    configurations: Mapping[str, Configuration]

    def as_toml(self) -> str:
        """Write it as a study's file without a base, a grid or a recipe."""
        head = {
            "about": self.head.about,
            "seeds": list(self.head.seeds),
            **({"table": str(self.head.table)} if self.head.table else {}),
            **({"baseline": self.head.baseline} if self.head.baseline else {}),
        }
        tables = {name: each.as_table() for name, each in self.configurations.items()}
        return tomli_w.dumps({"study": head, "configurations": tables})


def read_study(path: Path) -> Study:
    """Read a study's file, or that of a study's folder.

    Raises:
        ValueError: It is missing or damaged, or something in it is unknown or refused.
    """
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file of a study")
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    try:
        return study_of(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def study_of(found: Mapping[str, Any]) -> Study:
    """Make a study of the content of its file.

    Raises:
        ValueError: Something in it is unknown or refused.
    """
    for name, value in found.items():
        if name not in TABLES:
            raise ValueError(f"unknown table [{name}]: {nearest(name, TABLES)}")
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} = {value!r}: must be a table [{name}]")
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
        _among(head.baseline, made)
    return Study(head, made)


def listed(study: Study) -> str:
    """Write the configurations, and what differs between them."""
    runs = len(study.configurations) * len(study.head.seeds)
    tables = {name: dict(dotted(each.search())) for name, each in study.configurations.items()}
    names = dict.fromkeys(name for table in tables.values() for name in table)
    lines = [f"{runs} runs: {len(tables)} configurations, seeds {list(study.head.seeds)}"]
    for name, table in tables.items():
        own = (key for key in names if any(x.get(key) != table.get(key) for x in tables.values()))
        changes = ", ".join(f"{key} = {table[key]}" for key in own if key in table)
        then = " and ".join(study.configurations[name].then) or "nothing"
        lines.append(f"  {name}: {changes or 'the base'}; then {then}")
    return "\n".join(lines)


def with_baseline(study: Study, name: str | None) -> Study:
    """Return a study with another baseline, if one is given.

    Raises:
        ValueError: No configuration has this name.
    """
    if name is None:
        return study
    _among(name, study.configurations)
    return replace(study, head=replace(study.head, baseline=name))


def placed(study: Study, data_root: Path | None, table: Path | None) -> Study:
    """Return a study with the places of this machine, where they are given.

    Args:
        study: A study.
        data_root: The folder that holds the data sets' files.
        table: The table of a benchmark, to query and for the searches.

    Raises:
        ValueError: A configuration queries a table, and none is given.
    """
    own: Settings = {"data": {"root": str(data_root)}} if data_root else {}
    if table is not None:
        study = replace(study, head=replace(study.head, table=table))
        own["table"] = str(table)
    for name, each in study.configurations.items():
        if "query" in each.then and study.head.table is None:
            raise ValueError(f"{name} queries a table: give --table FILE, or [study] table = FILE")
    changed = {
        name: replace(each, settings=layered(each.settings, own))
        for name, each in study.configurations.items()
    }
    return replace(study, configurations=changed)


def _among(baseline: str, names: Mapping[str, Any]) -> None:
    if baseline not in names:
        raise ValueError(f"baseline = {baseline!r}: {nearest(baseline, names)}")


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
        from_table(Run, {k: x for k, x in table.items() if k != "retrain"}, "a search")
        from_table(Retrain, table.get("retrain", {}), "a retraining")
        from_table(Data, table.get("data", {}), "the data")
    except ValueError as error:
        raise ValueError(f"configuration {configuration.name}: {error}") from error
