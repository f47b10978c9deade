"""Names that have changed since 0.1: the old ones work for one release, and warn.

Files of old runs are read without a warning. What a user writes, which is flags, recipes, settings
in Python and classes of their own, gets one that names the new name. Nothing here imports torch.
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
"""Flags until 0.1, and as they are now."""
OF_CHAIN = "stem"
"""A flag that was a number, the channels of a chain's stem, and is a name now."""
CHANNELS = "stem-channels"
"""What that number's flag is called now."""
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
    """Say that a name of 0.1 has changed, to who writes Python.

    Args:
        before: The name of 0.1.
        now: The present one.
        level: How many calls up the user's line is; Python shows only what its script does.
        of: The kind of warning.
    """
    text = f"{before} is now {now}; the old name works in this release only"
    warnings.warn(text, of, stacklevel=level)


def say(before: str, now: str) -> None:
    """Say that a name of 0.1 has changed, to who uses the command line."""
    print(
        f"warning: {before} is now {now}; the old name works in this release only", file=sys.stderr
    )


def lifted(table: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a table under the names of now.

    >>> lifted({"form": "cifar", "seed": 1}, {"form": "stem"})
    {'stem': 'cifar', 'seed': 1}
    """
    return {names.get(name, name): value for name, value in table.items()}


def lifted_settings(
    table: Mapping[str, Any],
    told: Told | None = None,
    within: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return settings of 0.1, as run.toml and recipes hold them, under the names of now.

    Args:
        table: The settings; those of now stay as they are.
        told: Called with the old and the new name of each that has changed; None: nobody is told.
        within: The names of the tables that this one stands in.

    >>> lifted_settings({"form": "cifar", "space": {"name": "resnet", "stem": 8}})
    {'stem': 'cifar', 'space': {'name': 'resnet', 'stem_channels': 8}}
    """
    own = ":" in str(table.get("name", ""))  # a part of the user's, whose names are theirs
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
    """Lift the layouts of genotypes, which a retraining's run.toml holds as JSON."""
    if isinstance(value, list):
        return [_lifted_text(each) for each in value]
    try:
        found = json.loads(value)
        found["layout"] = lifted(found["layout"], SETTINGS["space",])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return value  # it has no layout; or it is damaged, which its reader says
    return json.dumps(found)


def lifted_flags(tokens: Sequence[str], known: Container[str] = ()) -> list[str]:
    """Return a command line under the flags of now, saying which have changed.

    Args:
        tokens: The command line.
        known: The flags that it may have, without dashes; a part of the user's may have one that
            is named as an old one, which then stays.
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
    """Give a user's class of 0.1 the names of now, with a warning that Python shows to all."""
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
    """Let a dataclass be made, and read, with the names that its fields had until 0.1."""

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
    """Look a module's name of 0.1 up, for its `__getattr__`.

    Raises:
        AttributeError: It was none.
    """
    if name not in names:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    home, _, now = names[name].rpartition(":")
    warn(f"{module}.{name}", f"{home}.{now}".lstrip("."), level=4)
    return getattr(import_module(home or module), now)
