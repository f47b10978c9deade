"""Flags from dataclasses: every setting is a flag, its docstring the help, its default shown.

A flag's value goes to the place in the nested settings that it was made for, so that flags lie over
a recipe as a recipe lies over the defaults.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any

from cyclopts import Parameter

from tutelage.parts import default, field_help, init_fields

Table = dict[str, Any]


@dataclass(frozen=True)
class Flag:
    """One flag, and where its value goes."""

    name: str
    """As typed, without the dashes."""
    path: tuple[str, ...]
    """Keys of the nested settings."""
    kind: Any
    """Type of the value."""
    default: Any
    """Shown in the help."""
    help: str
    """One sentence or two."""
    group: str
    """Heading in the help."""

    @property
    def parameter(self) -> inspect.Parameter:
        """The function parameter that cyclopts makes the flag of."""
        return inspect.Parameter(
            "__".join(self.path),
            inspect.Parameter.KEYWORD_ONLY,
            default=self.default,
            annotation=Annotated[
                self.kind,
                Parameter(name=f"--{self.name}", help=self.help, group=self.group),
            ],
        )


def flags_of(
    of: type,
    *,
    path: tuple[str, ...] = (),
    prefix: str = "",
    group: str = "Settings",
    table: Mapping[str, Any] | None = None,
    leave_out: Iterable[str] = (),
) -> list[Flag]:
    """Make the flags of a dataclass' plain settings.

    Args:
        of: The dataclass.
        path: Where its table stands in the nested settings.
        prefix: Before every flag's name, such as `weights.`.
        group: Heading in the help.
        table: Values that stand in for the defaults, from a recipe.
        leave_out: Settings that get no flag here.
    """
    kinds, texts = typing.get_type_hints(of), field_help(of)
    return [
        Flag(
            name=prefix + field.name.replace("_", "-"),
            path=(*path, field.name),
            kind=kinds[field.name],
            default=(table or {}).get(field.name, default(field)),
            help=texts.get(field.name, ""),
            group=group,
        )
        for field in init_fields(of)
        if field.name not in leave_out
        and not is_dataclass(kinds[field.name])
        and typing.get_origin(kinds[field.name]) is not dict
    ]


def nested(flags: Iterable[Flag], arguments: Mapping[str, Any]) -> Table:
    """Put the values that were given where they belong."""
    table: Table = {}
    for flag in flags:
        if flag.parameter.name in arguments:
            inner = table
            for key in flag.path[:-1]:
                inner = inner.setdefault(key, {})
            inner[flag.path[-1]] = arguments[flag.parameter.name]
    return table


def layered(*tables: Mapping[str, Any]) -> Table:
    """Lay tables over one another, later ones on top; a part of another name starts afresh.

    >>> layered({"method": {"name": "sgl", "learners": 3}, "seed": 5}, {"method": {"name": "lbt"}})
    {'method': {'name': 'lbt'}, 'seed': 5}
    """
    result: Table = {}
    for table in tables:
        for key, value in table.items():
            below = result.get(key)
            if isinstance(value, Mapping) and isinstance(below, Mapping):
                afresh = key in ("method", "search", "space") and value.get(
                    "name", below.get("name")
                ) != below.get("name")
                result[key] = layered({} if afresh else below, value)
            else:
                result[key] = dict(value) if isinstance(value, Mapping) else value
    return result


def command(function: Any, flags: Iterable[Flag], name: str, help_text: str) -> Any:
    """Give a function that takes **arguments the signature of its own parameters and the flags."""
    own = [
        parameter
        for parameter in inspect.signature(function, eval_str=True).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]

    def call(*args: Any, **arguments: Any) -> Any:
        return function(*args, **arguments)

    parameters = [*own, *(flag.parameter for flag in flags)]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    call.__name__, call.__doc__ = name, help_text
    return call
