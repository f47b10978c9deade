"""Checks of a user's values: each raises ValueError with one sentence."""

import difflib
from collections.abc import Iterable
from dataclasses import fields
from math import isfinite
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

LARGEST: Final = 10**18
"""The largest whole number that a setting may be."""


def at_least(minimum: float, **values: float) -> None:
    """Raise ValueError for the first named value that is below `minimum` or not finite."""
    for name, value in values.items():
        if not (value >= minimum and isfinite(value)):
            raise ValueError(f"{name} = {value}: must be a number of at least {minimum}")


def positive(**values: float) -> None:
    """Raise ValueError for the first named value that is not above zero or not finite."""
    for name, value in values.items():
        if not (value > 0 and isfinite(value)):
            raise ValueError(f"{name} = {value}: must be a number above 0")


def within(low: float, high: float, **values: float) -> None:
    """Raise ValueError for the first named value outside [low, high]."""
    for name, value in values.items():
        if not low <= value <= high:
            raise ValueError(f"{name} = {value}: must be between {low} and {high}")


def sized(name: str, value: int) -> None:
    """Raise ValueError for a whole number that no float, index or tensor holds."""
    if abs(value) > LARGEST:
        shown = value if abs(value) < 10**30 else f"a number of {value.bit_length()} bits"
        raise ValueError(f"{name} = {shown}: must be between -{LARGEST:,} and {LARGEST:,}")


def known_choices(settings: Any) -> None:
    """Raise ValueError for the first setting that its type, a Literal, does not allow.

    Args:
        settings: A dataclass; its optional settings and tuples of such a type count too.
    """
    hints = get_type_hints(type(settings))
    for each in fields(settings):
        value, kind = getattr(settings, each.name), hints[each.name]
        literals = [x for x in (kind, *get_args(kind)) if get_origin(x) is Literal]
        if not literals or value is None:
            continue
        allowed = get_args(literals[0])
        for given in value if isinstance(value, tuple) else (value,):
            if given not in allowed:
                listing = ", ".join(map(str, allowed))
                raise ValueError(f"{each.name} = {given!r}: must be one of {listing}")


def listed(values: Iterable[object]) -> str:
    """Write several values as the command line takes them."""
    return " ".join(map(str, values))


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Suggest the allowed name that was probably meant, otherwise list all."""
    allowed = list(allowed)
    close = difflib.get_close_matches(name.lower(), [each.lower() for each in allowed], n=1)
    meant = [each for each in allowed if each.lower() in close]
    return f"did you mean {meant[0]}?" if meant else f"must be one of {', '.join(allowed)}"
