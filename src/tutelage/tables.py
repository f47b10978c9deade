"""Settings from tables: dataclasses of settings from plain values, as TOML holds them.

Nothing here imports torch.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tutelage.checks import LARGEST, nearest, sized


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as TOML has them: lists for tuples, without None."""
    given = {name: x for name, x in values.items() if x is not None}
    return {name: list(x) if isinstance(x, tuple) else x for name, x in given.items()}


def init_fields(of: Any) -> list[Field[Any]]:
    """List a dataclass' settings: its constructor's arguments, or a ready part's declared ones.

    They have the constructor's order, in which those of keywords alone are the last.
    """
    if not is_dataclass(of):
        return []
    if isinstance(of, type):
        return sorted((f for f in fields(of) if f.init), key=lambda f: f.kw_only is True)
    return [f for f in fields(of) if f.metadata.get("setting")]


def from_table(of: Any, table: Mapping[str, Any], what: str) -> Any:
    """Build a dataclass, and nested ones, from a table as TOML holds it.

    For a ready part, build a copy with the table's values.

    Raises:
        ValueError: A setting is unknown, of another type, or refused by the dataclass.
    """
    known = {f.name for f in init_fields(of)}
    kinds = hints(of) if known else {}
    values = {}
    for name, value in table.items():
        if name not in known:
            meant = nearest(name, known) if known else "it has no settings"
            raise ValueError(f"unknown setting {name!r} of {what}: {meant}")
        if is_dataclass(kinds[name]) and isinstance(value, Mapping):
            try:
                values[name] = from_table(typing.cast(type, kinds[name]), value, name)
            except ValueError as error:  # weights and alphas both have an lr
                raise ValueError(f"{name}: {error}") from error
        else:
            values[name] = _typed(kinds[name], value, name)
    return of(**values) if isinstance(of, type) else replace(of, **values)


def hints(of: Any) -> dict[str, Any]:
    """Return the types of the fields of a dataclass or a ready part."""
    return typing.get_type_hints(of if isinstance(of, type) else type(of))


def _typed(kind: Any, value: Any, name: str) -> Any:
    """Check one TOML value against a setting's type, and widen it if that is exact."""
    origin, choices = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        inner = [choice for choice in choices if choice is not type(None)]
        return None if value is None else _typed(inner[0], value, name)
    if origin is dict and isinstance(value, Mapping):
        return dict(value)
    if origin is tuple and isinstance(value, (list, tuple)):
        each = choices[:1] * len(value) if choices[-1] is ... else choices
        if len(each) == len(value):
            return tuple(_typed(kind, x, name) for kind, x in zip(each, value, strict=True))
    if type(value) is int and kind in (int, float):
        sized(name, value)
        return kind(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    fits = value in choices if origin is Literal else isinstance(value, origin or kind)
    if not fits or (type(value) is bool and kind is not bool):
        raise ValueError(f"{name} = {value!r}: {must_be(kind, value)}")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{name} = {value}: must be a finite number")
    return value


def must_be(kind: Any, value: Any) -> str:
    """Describe the allowed values of a setting's type, or the choice that was probably meant."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) is Literal:
        return nearest(str(value), map(str, typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        each = typing.get_args(kind)
        what = "texts" if each[0] is str else "numbers"
        return f"must be {what if each[-1] is ... else f'{len(each)} {what}'}"
    if kind is int and str(value).lstrip("-").isdecimal():
        return f"must be a whole number between -{LARGEST:,} and {LARGEST:,}"
    return f"must be {_TYPE_NAMES.get(kind, 'a table')}"


_TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Path: "a path",
}


def default(of: Field[Any], part: Any = None) -> Any:
    """Return a setting's default, which for a ready part is its value; None: there is none."""
    if part is not None and not isinstance(part, type):
        return getattr(part, of.name)
    if of.default is not MISSING:
        return of.default
    return of.default_factory() if of.default_factory is not MISSING else None
