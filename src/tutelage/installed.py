"""Parts of installed packages, which they offer by entry points: `tutelage.methods` and others.

A package that cannot be imported is named where its part is used; all else works without it.
Nothing here imports a package before one of its parts is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

KINDS: Final = ("methods", "searches", "spaces", "blocks", "data", "genotypes")
"""What a package may offer; the entry points of the group `tutelage.KIND`."""
NAME: Final = re.compile(r"\w[\w.-]*")
"""Matches a name that the command line can take."""


@cache
def _offers() -> Mapping[str, list[EntryPoint]]:
    """Return what the installed packages offer, by kind; one look at all of them."""
    found = entry_points()
    groups = {kind: found.select(group=f"tutelage.{kind}") for kind in KINDS}
    return {kind: sorted(set(each), key=_order) for kind, each in groups.items()}


def _order(offer: EntryPoint) -> tuple[str, str]:
    return offer.name, package(offer)


def package(offer: EntryPoint) -> str:
    """Name the package of an entry point."""
    return offer.dist.name if offer.dist else "unknown"


def added(kind: str, own: Iterable[str]) -> dict[str, str]:
    """Return the parts of installed packages by name, as `module:attribute`.

    Args:
        kind: One of `KINDS`.
        own: Names of the same kind that are taken; a part of such a name is left out.
    """
    taken = set(own)
    return {x.name: x.value.split()[0] for x in _offers()[kind] if not _why_not(x, kind, taken)}


def left_out(kind: str, own: Iterable[str]) -> list[str]:
    """Return a sentence for every part that is left out for its name."""
    taken = set(own)
    return [
        f"{kind} {offer.name!r} of the package {package(offer)} is left out: {why}"
        for offer in _offers()[kind]
        if (why := _why_not(offer, kind, taken))
    ]


def _why_not(offer: EntryPoint, kind: str, own: set[str]) -> str:
    """Say why a part cannot have its name; empty: it can."""
    if not NAME.fullmatch(offer.name):
        return "a name has letters, digits, dots, - and _"
    if offer.name in own:
        return "Tutelage has that name itself, so the package must choose another"
    others = {package(x) for x in _offers()[kind] if x.name == offer.name} - {package(offer)}
    if others:
        return f"{', '.join(sorted(others))} has that name too; uninstall one of them"
    return ""


def origin(kind: str, name: str) -> str:
    """Name the package that offers a part; empty: none does."""
    return next((package(offer) for offer in _offers()[kind] if offer.name == name), "")


def load(kind: str, name: str, target: str) -> Any:
    """Import a part of an installed package.

    Raises:
        ValueError: It cannot be imported; the message names the package.
    """
    module, _, attribute = target.partition(":")
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise ValueError(
            f"{kind} {name!r} of the package {origin(kind, name)} cannot be imported: "
            f"{type(error).__name__}: {error}; mend or uninstall the package"
        ) from error
    return found
