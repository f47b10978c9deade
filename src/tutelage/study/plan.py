"""A study's file: configurations of settings, the seeds they run with, and what follows a search.

    [study]            seeds, then, table, baseline, rows, about
    [base]             what all configurations share: a recipe or a row, and settings
    [configurations.A] the same for one configuration, over the base
    [grid]             lists of values: each configuration is repeated with every combination

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tomli_w

from tutelage.checks import nearest
from tutelage.data import ADDED, DATA
from tutelage.papers import row_named
from tutelage.recipes import layered
from tutelage.report.runs.tables import dotted

FILE = "study.toml"
"""The study's file in its folder: every configuration with its settings."""
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

    def by_path(self) -> bool:
        """Tell whether its images are given by a path, which exists here."""
        name = str(self.settings.get("data", {}).get("name", ""))
        return name not in {"", *DATA, *ADDED} and Path(name).exists()

    def places(self) -> dict[str, str]:
        """Return the flags of the places that it names: they may change when a run resumes."""
        found = {"--data-root": self.settings.get("data", {}).get("root")}
        found["--table"] = self.settings.get("table")
        return {flag: str(place) for flag, place in found.items() if place is not None}

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
    among(name, study.configurations)
    return replace(study, head=replace(study.head, baseline=name))


def placed(study: Study, data_root: Path | None, table: Path | None) -> Study:
    """Return a study with the places of this machine, where they are given.

    Args:
        study: A study.
        data_root: The folder that holds the data sets' files. Images that are given by their path
            keep it where they are there.
        table: The table of a benchmark, to query and for the searches.

    Raises:
        ValueError: A configuration queries a table, and none is given.
    """
    own: Settings = {} if table is None else {"table": str(table)}
    if table is not None:
        study = replace(study, head=replace(study.head, table=table))
    rooted = own | {"data": {"root": str(data_root)}} if data_root else own
    for name, each in study.configurations.items():
        if "query" in each.then and study.head.table is None:
            raise ValueError(f"{name} queries a table: give --table FILE, or [study] table = FILE")
    changed = {
        name: replace(each, settings=layered(each.settings, own if each.by_path() else rooted))
        for name, each in study.configurations.items()
    }
    return replace(study, configurations=changed)


def among(baseline: str, names: Mapping[str, Any]) -> None:
    """Raise ValueError, with the nearest name, for a baseline that is no configuration."""
    if baseline not in names:
        raise ValueError(f"baseline = {baseline!r}: {nearest(baseline, names)}")
