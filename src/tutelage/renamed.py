"""Names that have changed since 0.1: the old ones work for one release, with a warning.

Files of old runs are read without a warning. Old names in a user's flags, recipes, Python settings
and classes give a warning with the new name. Nothing here imports torch.
"""

from __future__ import annotations

import functools
import json
import sys
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from importlib import import_module
from itertools import pairwise
from typing import Any, TypeVar

from tutelage.formats import from_json

T = TypeVar("T", bound=type)
Told = Callable[[str, str], None]
"""What is called with the old and the new name of something."""

FLAGS = {
    "form": "stem",
    "retrain.form": "retrain.stem",
    "teacher-exam": "validate-teacher",
    "no-teacher-exam": "no-validate-teacher",
    "taught-weight": "teaching-weight",
}
"""Flags until 0.1, and their present names."""
OF_CHAIN = "stem"
"""A flag that was a number until 0.1 (channels of a chain's stem) and is a name now."""
CHANNELS = "stem-channels"
"""The present flag of that number."""
SETTINGS: Mapping[tuple[str, ...], Mapping[str, str]] = {
    (): {"form": "stem"},
    ("retrain",): {"form": "stem"},
    ("method",): {"teacher_exam": "validate_teacher", "taught_weight": "teaching_weight"},
    ("space",): {"stem": "stem_channels"},
}
"""For every table of settings, names until 0.1 and now."""
MEMBERS = {"search": {"mix": "relax"}}
"""Methods of a user's own class, by the kind of part, until 0.1 and now."""
KINDS = {"relaxes": "relaxed", "samples": "one-shot", "draws": "random"}
"""Values of a search's `kind` until 0.1, and now."""


def warn(before: str, now: str, level: int = 3, of: type[Warning] = DeprecationWarning) -> None:
    """Warn in Python that a name of 0.1 has changed.

    Args:
        before: The name of 0.1.
        now: The present one.
        level: How many calls above this one the user's line is. Python shows a deprecation only
            for the lines of the script itself.
        of: The kind of warning.
    """
    text = f"{before} is now {now}; the old name works in this release only"
    warnings.warn(text, of, stacklevel=level)


def say(before: str, now: str) -> None:
    """Warn on the command line that a name of 0.1 has changed."""
    print(
        f"warning: {before} is now {now}; the old name works in this release only", file=sys.stderr
    )


def lifted(table: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a table with the present names.

    >>> lifted({"form": "cifar", "seed": 1}, {"form": "stem"})
    {'stem': 'cifar', 'seed': 1}
    """
    return {names.get(name, name): value for name, value in table.items()}


def lifted_settings(
    table: Mapping[str, Any],
    told: Told | None = None,
    within: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return settings of 0.1, as in run.toml and recipes, with the present names.

    Args:
        table: The settings; present names are not changed.
        told: Called with the old and the new name of each change; None: not called.
        within: The names of the tables around this one.

    >>> lifted_settings({"form": "cifar", "space": {"name": "resnet", "stem": 8}})
    {'stem': 'cifar', 'space': {'name': 'resnet', 'stem_channels': 8}}
    """
    own = ":" in str(table.get("name", ""))  # a user's part, whose names are not changed
    names = {} if own else SETTINGS.get(within, {})
    for before in names if told else ():
        if told and before in table:
            told(*(".".join((*within, name)) for name in (before, names[before])))
    return {
        name: lifted_settings(value, told, (*within, name))
        if isinstance(value, Mapping)
        else _lifted_text(value)
        if (*within, name) == ("genotype",)
        else value
        for name, value in lifted(table, names).items()
    }


def _lifted_text(value: Any) -> Any:
    """Convert the layouts of genotypes, which a retraining's run.toml holds as JSON."""
    if isinstance(value, list):
        return [_lifted_text(each) for each in value]
    try:
        found = from_json(value)
        found["layout"] = lifted(found["layout"], SETTINGS["space",])
    except (ValueError, LookupError, TypeError, AttributeError):
        return value  # it has no layout, or it is damaged and its reader raises
    return json.dumps(found)


def lifted_flags(tokens: Sequence[str], known: Container[str] = ()) -> list[str]:
    """Return a command line with the present flags, and warn of changed ones.

    Args:
        tokens: The command line.
        known: The flags that it may have, without dashes. A user's part may have a flag with an
            old name, which is then not changed.
    """
    found = []
    for token, after in pairwise([*tokens, ""]):
        name, joined, value = token.partition("=")
        now = _flag_now(name.removeprefix("--"), value if joined else after, known)
        if name.startswith("--") and now:
            say(name, f"--{now}")
            token = f"--{now}{joined}{value}"
        found.append(token)
    return found


def _flag_now(flag: str, value: str, known: Container[str]) -> str | None:
    """Return what a flag of 0.1 is called now; None where it is none."""
    if flag == OF_CHAIN:
        return CHANNELS if value.isdigit() and CHANNELS in known else None
    return None if flag.removeprefix("no-") in known else FLAGS.get(flag)


def lifted_part(kind: str, found: Any) -> Any:
    """Give a user's class of 0.1 the present names, with a warning that Python always shows."""
    owner: Any = found if isinstance(found, type) else type(found)
    if owner.__module__.startswith("tutelage."):
        return found
    for before, now in MEMBERS.get(kind, {}).items():
        if _place(owner, before) < _place(owner, now):
            warn(f"{owner.__name__}.{before}", now, level=4, of=FutureWarning)
            setattr(owner, now, getattr(owner, before))
    if kind == "search" and (named := str(getattr(owner, "kind", ""))) in KINDS:
        described = f"kind = {named!r} of {owner.__name__}"
        warn(described, repr(KINDS[named]), level=4, of=FutureWarning)
        owner.kind = KINDS[named]
    return found


def _place(owner: type, member: str) -> int:
    """Count the classes before the one that a member is inherited from; all where none has it."""
    has = [member in vars(each) for each in owner.__mro__]
    return has.index(True) if True in has else len(has)


def keywords(**names: str) -> Callable[[T], T]:
    """Let the constructor and the attributes of a dataclass have their names of 0.1 too."""

    def wrapped(of: T) -> T:
        init: Any = of.__init__  # type: ignore[misc]

        @functools.wraps(init)
        def made(self: Any, *values: Any, **given: Any) -> None:
            for before in given.keys() & names.keys():
                warn(f"{of.__name__}({before}=...)", names[before])
                given[names[before]] = given.pop(before)
            init(self, *values, **given)

        of.__init__ = made  # type: ignore[misc]
        for before, now in names.items():
            setattr(of, before, _read_as(f"{of.__name__}.{before}", now))
        return of

    return wrapped


def _read_as(before: str, now: str) -> property:
    """Make the attribute of 0.1 that reads the present one."""

    def value(self: Any) -> Any:
        warn(before, now)
        return getattr(self, now)

    return property(value)


def old_name(module: str, name: str, names: Mapping[str, str]) -> Any:
    """Look up a module's name of 0.1, for its `__getattr__`.

    Raises:
        AttributeError: There was no such name.
    """
    if name not in names:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    home, _, now = names[name].rpartition(":")
    warn(f"{module}.{name}", f"{home}.{now}".lstrip("."), level=4)
    return getattr(import_module(home or module), now)
