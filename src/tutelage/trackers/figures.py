"""Figures of rows and results, as flat names and numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final

LEFT_OUT: Final = {
    *("event", "epoch", "step"),  # which row it is
    *("arch_weights", "operations", "sampled", "samples"),  # hundreds of numbers: the report's
    *("genotype", "encoding", "front", "members"),  # architectures, which are no figures
}
"""Entries of a row without figures."""
FORBIDDEN: Final = re.compile(r"[^\w.-]+")
"""Matches what some tracker allows in no name."""


def figures(record: Any, prefix: str) -> dict[str, float]:
    """Return the numbers of a record by names that begin with a prefix.

    Entries of learners are named `learner-0` and so on; other lists by place.

    >>> from tutelage.records.rows import LearnerScores, StepRow, Teaching
    >>> row = StepRow(loss={"W": 0.5}, learners=[LearnerScores(train_loss=2)])
    >>> figures(row, "step")
    {'step/loss/W': 0.5, 'step/learner-0/train_loss': 2.0}
    >>> figures(StepRow(teaching=Teaching(gate=[[0.0, 1.0]])), "step")
    {'step/teaching/gate/0/0': 0.0, 'step/teaching/gate/0/1': 1.0}
    """
    return {name.replace("/learners/", "/"): x for name, x in _numbers(prefix, record)}


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    match value:
        case bool():
            return
        case int() | float():
            yield name, float(value)
        case list():
            for place, inner in enumerate(value):
                of_learner = isinstance(inner, Mapping) or is_dataclass(inner)
                yield from _numbers(f"{name}/{'learner-' * of_learner}{place}", inner)
        case _:
            for key, inner in _entries(value):
                yield from _numbers(f"{name}/{FORBIDDEN.sub('_', key)}", inner)


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a record or a table that may hold figures; a text has none."""
    if is_dataclass(value):
        value = {each.name: getattr(value, each.name) for each in fields(value)}
    if isinstance(value, Mapping):
        yield from ((str(key), inner) for key, inner in value.items() if key not in LEFT_OUT)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Return nested settings by dotted names, lists as text.

    >>> flat({"seed": 1, "method": {"name": "sgl", "sizes": [1, 2]}})
    {'seed': 1, 'method.name': 'sgl', 'method.sizes': '1 2'}
    """
    found: dict[str, bool | int | float | str] = {}
    for name, value in settings.items():
        match value:
            case Mapping():
                found |= flat(value, f"{prefix}{name}.")
            case list():
                found[prefix + name] = " ".join(map(str, value))
            case bool() | int() | float():
                found[prefix + name] = value
            case _:
                found[prefix + name] = str(value)
    return found
