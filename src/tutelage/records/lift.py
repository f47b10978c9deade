"""Conversion of files of release 0.1 to the present form, by pure functions of plain values.

They rename changed names and change nothing else, also in damaged values, whose types are checked
later. 0.1 wrote no version into metrics.jsonl and result.json; a file without one has version 1.
environment.json and the `about` of genotype.json still have the names of 0.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

NAMES: Final = {
    "mix": "arch_weights",
    "genes": "encoding",
    "parameters": "params",
    "multiply_adds": "flops",
    "drawn": "sampled",
    "draws": "samples",
}
"""Keys of a row or of result.json."""

INNER: Final = {
    **NAMES,
    "weights": "params",
    "read_off": "derived",
    "by_multiply_adds": "by_flops",
}
"""Keys anywhere inside an entry of `WHOLE`."""

LEVELS: Final = {"teacher_exam": "validate_teacher", "student_exam": "validate_student"}
"""Levels of LBT, whose names are keys of `LOSSES`, alone or in a sum of them."""

LOSSES: Final = ("loss", "gradient")
"""Entries of a row by level."""

WHOLE: Final = ("cost", "evolution", "ranking", "front")
"""Entries of a row without names from a user or a method."""

ADDED: Final[Mapping[tuple[str, str], Mapping[str, Any]]] = {
    ("search", "gdas"): {
        "derivation": "edges",
        "normalisation": "pools",
        "unsampled": "left-out",
    },
}
"""Settings that a part has had only later: by table and name, what runs did before."""


def settings(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run with those of its parts that were added after it began.

    >>> settings({"seed": 1, "search": {"name": "gdas", "tau": 5.0}})["search"]["derivation"]
    'edges'
    """
    present = dict(found)
    for (table, name), values in ADDED.items():
        part = present.get(table)
        if isinstance(part, Mapping) and part.get("name") == name:
            present[table] = {**values, **part}
    return present


def row(found: Mapping[str, Any], version: int) -> Mapping[str, Any]:
    """Return a row of metrics.jsonl, as read by json, in the present form.

    Args:
        found: A row.
        version: The version from the line before the rows; 1: there is no such line.
    """
    if version > 1:
        return found
    return {NAMES.get(key, key): _entry(key, value) for key, value in found.items()}


def result(found: Mapping[str, Any], version: int) -> Mapping[str, Any]:
    """Return the content of result.json in the present form."""
    return found if version > 1 else {NAMES.get(key, key): x for key, x in found.items()}


def checkpoint(state: dict[str, Any], version: int) -> dict[str, Any]:
    """Return the state in a checkpoint in the present form.

    Version 1 named the sums of a search's meter by texts, `loss/W` and `teaching/gate/0/1`.
    """
    work = state.get("work", {})
    if version > 1 or "meter" not in work:
        return state
    meter = {
        name: {_path(key): x for key, x in values.items()} for name, values in work["meter"].items()
    }
    lifted = {**work, "meter": meter, "apart": _by_level(work.get("apart", {}))}
    return {**state, "work": lifted}


def _entry(key: str, value: Any) -> Any:
    if key in LOSSES:
        return _by_level(value)
    return _renamed(value) if key in WHOLE else value


def _by_level(value: Any) -> Any:
    """Rename levels in keys, also in nested ones."""
    if not isinstance(value, Mapping):
        return value
    return {_level(key): _by_level(inner) for key, inner in value.items()}


def _level(name: str) -> str:
    """Rename a level, or the levels in a sum or an alias.

    >>> _level("teacher_exam + student_exam"), _level("practise: A_labels"), _level("my_exam")
    ('validate_teacher + validate_student', 'practise: A_labels', 'my_exam')
    """
    for before, now in LEVELS.items():
        name = re.sub(rf"\b{before}\b", now, name)
    return name


def _renamed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {INNER.get(key, key): _renamed(inner) for key, inner in value.items()}
    return [_renamed(inner) for inner in value] if isinstance(value, list) else value


def _path(name: str) -> tuple[str | int, ...]:
    """Split a name of a meter.

    >>> _path("loss/W"), _path("learner/0/train_loss"), _path("teaching/agreement")
    (('loss', 'W'), ('learners', 0, 'train_loss'), ('teaching', 'agreement'))
    >>> _path("teaching/gate/0/1"), _path("gradient/validate/learn")
    (('matrices', 'gate', 0, 1), ('gradient', 'validate', 'learn'))
    """
    kind, _, rest = _level(name).partition("/")
    if kind == "loss":
        return kind, rest
    first, *places = rest.split("/")
    if kind == "learner":
        return "learners", int(first), *places
    if kind == "teaching" and places:
        return "matrices", first, *map(int, places)
    return kind, first, *places
