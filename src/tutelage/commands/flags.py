"""The flags of the commands that have settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

from tutelage.commands.search import search_base
from tutelage.commands.tables import Asked
from tutelage.config import Alphas, Data, Machine, Retrain, Run, Weights
from tutelage.flags import Flag, distinct, flags_of, heading
from tutelage.parts import (
    PARTS,
    importable,
    init_fields,
    names_code,
    part_named,
    part_of,
)
from tutelage.searches.evolution import Evolution
from tutelage.trusted import require
from tutelage.trusted import trust as trusting

DATA_FLAGS = {
    "name": "data",
    "root": "data-root",
    "download": "download",
    "unlabelled": "unlabelled",
}
"""Settings of the data that have a short flag; the others are --data.NAME."""


ROLES = {
    "method": "Who teaches whom",
    "search": "How choices are relaxed",
    "space": "What can be built",
}
SECTIONS = {
    "weights": (Weights, "Weights, by SGD"),
    "alphas": (Alphas, "Alphas, by Adam"),
    "evolution": (Evolution, "Evolution, for searches that sample paths"),
    "retrain": (Retrain, "Retraining, for `tutelage retrain`"),
}


RUN = heading("Run", 0)
MACHINE = "Machine, and what it writes"
OF_MACHINE = [field.name for field in init_fields(Machine)]
"""The settings under that heading, of a search and of a retraining."""


def machine_flags(path: tuple[str, ...] = (), table: Mapping[str, Any] | None = None) -> list[Flag]:
    """Make the flags of how a machine works."""
    return flags_of(Machine, path=path, group=heading(MACHINE, 4), table=table)


def data_flags(table: Mapping[str, Any], leave_out: Sequence[str] = ()) -> list[Flag]:
    """Make the flags of the data: common ones are short, others begin with `data.`."""
    return [
        replace(flag, name=DATA_FLAGS.get(flag.path[-1], f"data.{flag.name}"))
        for flag in flags_of(
            Data, path=("data",), group=heading("Data", 3), table=table, leave_out=leave_out
        )
    ]


def search_flags(tokens: Sequence[str]) -> list[Flag]:
    """Make the flags of a search: those of the run, and of the parts that the tokens name."""
    recipe, resume, row = (_value(tokens, each) for each in ("recipe", "resume", "row"))
    trusting(*_values(tokens, "trust"))
    base = search_base(recipe, resume, row, told=None)
    said = search_base(recipe, None, row, told=None)
    flags = flags_of(Run, group=RUN, table=base, leave_out=("row", *OF_MACHINE))
    for kind, names in PARTS.items():
        name = _value(tokens, kind) or base[kind]["name"]
        if names_code(str(name)) and name not in (_value(tokens, kind), said[kind].get("name")):
            require(name, f"{resume}: {kind} = {name!r}")
        table = base[kind] if name == base[kind]["name"] else {}
        page = ", a page of TOML" if kind == "space" else ""
        text = f"{ROLES[kind]}: {', '.join(names)}{page}, or module:Class."
        flags.append(Flag(kind, (kind, "name"), str, name, text, heading("Parts", 1)))
        if tokens:
            own, group = part_of(kind, {**table, "name": name}), heading(f"Of --{kind} {name}", 2)
            flags += flags_of(own, path=(kind,), group=group, table=table)
    flags += data_flags(base["data"]) + machine_flags(table=base)
    for place, (name, (of, title)) in enumerate(SECTIONS.items(), start=5):
        group = heading(title, place)
        flags += flags_of(
            of,
            path=(name,),
            prefix=f"{name}.",
            group=group,
            table=base[name],
            leave_out=("start",),  # --from of `tutelage retrain`: a search has no weights for it
        )
    own = ("recipe", "row", "out", "resume", "quick", "dry-run", "accept-changed-data", "trust")
    distinct(flags, taken=(*own, "help", "version"))
    return flags


def every_flag() -> list[Flag]:
    """Make the flags of all methods, searches and spaces, with the parts' names as choices."""
    found = {flag.name: flag for flag in search_flags([])}
    for kind, names in PARTS.items():
        for name in importable(kind):
            group = heading(f"Of --{kind} {name}", 2)
            own = flags_of(part_named(kind, name), path=(kind,), group=group)
            found |= {flag.name: flag for flag in own}
        found[kind] = replace(found[kind], kind=Literal[tuple(names)])
    return list(found.values())


RETRAIN_FLAGS = [
    *(
        replace(flag, name="from" if flag.name == "start" else flag.name)
        for flag in flags_of(Retrain, path=("retrain",), group=RUN, leave_out=OF_MACHINE)
    ),
    *data_flags(
        {},
        leave_out=(
            *("unlabelled", "train_fraction", "stratified", "sample", "unlabelled_sample"),
            "cutout",
        ),
    ),  # a retraining reads none of them
    *machine_flags(path=("retrain",)),
]


LATENCY_FLAGS = flags_of(Asked, group=RUN)


SURVEY_FLAGS = data_flags(
    {},
    leave_out=("name", "unlabelled", "train_fraction", "stratified", "unlabelled_sample", "memory"),
)


def _value(tokens: Sequence[str], flag: str) -> str | None:
    """Find a flag's first value among unparsed tokens."""
    return next(_values(tokens, flag), None)


def _values(tokens: Sequence[str], flag: str) -> Iterator[str]:
    """Find the values of a flag among unparsed tokens."""
    for token, following in pairwise((*tokens, "--")):
        if token == f"--{flag}" and not following.startswith("--"):
            yield following
        if token.startswith(f"--{flag}="):
            yield token.partition("=")[2]
