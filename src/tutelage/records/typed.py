"""Conversion of records to plain values for JSON, and back, with checked types."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class NewerError(ValueError):
    """A newer release wrote it."""


def finite(value: Any) -> Any:
    """Write NaN and infinities as text, because JSON lacks them, and records as objects.

    >>> finite({"loss": float("inf"), "norms": [0.5, float("nan")]})
    {'loss': 'Infinity', 'norms': [0.5, 'NaN']}
    >>> from tutelage.records.rows import EndRow, LearnerScores
    >>> finite(EndRow(learners=[LearnerScores(valid_loss=float("nan")), LearnerScores()]))
    {'event': 'end', 'learners': [{'valid_loss': 'NaN'}, {}]}
    """
    if is_dataclass(value):
        return finite(present(value))
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    return value


def present(record: Any) -> dict[str, Any]:
    """Return a record's entries that have a value or are always written.

    >>> from tutelage.records.rows import Candidate, Cost
    >>> present(Cost(flops=2.5)), present(Candidate(encoding=[], score=-0.5))
    ({'flops': 2.5}, {'score': -0.5})
    """
    pairs = ((each, getattr(record, each.name)) for each in fields(record))
    return {each.name: value for each, value in pairs if _stands(each, value)}


def _stands(each: Field[Any], value: Any) -> bool:
    """Tell whether an entry is written.

    None is not written, nor is an empty list, object or record that is made by default, unless the
    field is marked.
    """
    empty = not present(value) if is_dataclass(value) else value in ([], {})
    absent = value is None or (each.default is MISSING and empty)
    return "written" in each.metadata or not absent


def typed(found: Any, kind: type[T], strict: bool = False) -> T:
    """Read plain values into a record; NaN and infinities may be text.

    Args:
        found: The values.
        kind: The type of the record.
        strict: Refuse text where a number belongs, for values that were not read from JSON.

    Raises:
        ValueError: They are of other types; the message says where.
    """
    try:
        return msgspec.convert(found, kind, strict=strict)
    except (msgspec.ValidationError, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None


def known_version(found: Any, newest: Any) -> int:
    """Return the version of an object; 1, that of release 0.1, if it has none.

    Raises:
        ValueError: It is not an object, its version is not a number, or a newer release wrote it.
    """
    if not isinstance(found, Mapping):
        raise ValueError(f"it holds {str(found)[:20]}: must be an object")
    version = found.get("version", 1)
    if type(version) is not int:
        raise ValueError(f"its version is {version!r}: must be a whole number")
    if version > newest:
        raise NewerError(
            f"it has version {version} and this release reads up to {newest}: use the release "
            "that wrote it"
        )
    return version
