"""A quick look: settings under which a search of any parts ends within a minute.

Settings that every search has are made small here. For other settings of a part, the metadata
`quick` of the setting is the value for a quick look, or a function of the part that returns it.
Numbers are only lowered, other values are replaced, and a user's values are not changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from math import lcm
from typing import Any

from tutelage.checks import listed
from tutelage.config import Run
from tutelage.parts import (
    PARTS,
    default,
    from_table,
    init_fields,
    make_part,
    part_of,
    part_settings,
    plain,
)

Table = dict[str, Any]
Flat = dict[tuple[str, ...], Any]
"""Settings by their path of keys."""

EPOCHS = 2
"""Epochs of every phase: in the first, alphas may be frozen; in the second, they train."""
CHANNELS = 4
"""Fewest channels."""
SMALL: Table = {
    "batch_size": 16,
    "limit_batches": 1,
    "ranked": 4,
    "retrain": {
        "epochs": 2,
        "batch_size": 16,
        "limit_batches": 1,
        "channels": CHANNELS,
        "warm_up": 1.0,
        "linear_tail": 1,
    },
}
"""Small values of the settings that every search has."""
EVOLUTION = {"population": 4, "generations": 2, "parents": 2, "images": 32, "judged": 32}
KINDS: Mapping[str, Table] = {
    "relaxed": {"epochs": EPOCHS},
    "one-shot": {"epochs": EPOCHS, "evolution": EVOLUTION},
    "random": {},
}
"""Small values of further settings by kind of search; epochs are those of a phase."""


def quick_look(asked: Mapping[str, Any], given: Mapping[str, Any]) -> Table:
    """Make the settings of a search small, except the given ones.

    Args:
        asked: The settings of the search, those that were given among them.
        given: Settings that stay as they are.

    Returns:
        The settings of the quick look. Their table `quick` lists the changes.

    Raises:
        ValueError: A setting cannot be used, or the search does not fit the space.
    """
    from tutelage.searches.needs import fit, size_of  # here, since help must not import torch

    stay = flat(given)
    now, wanted = flat(known(asked)), flat(declared(asked))
    part = altered(asked, changes(now, wanted, stay))
    search = make_part("search", part["search"])
    space = fit(search, make_part("space", part["space"]))
    own, final = size_of(search, space), space.sizes
    usual = {"channels": own[0], "cells": own[1]}
    retrained = {"channels": final.final_channels, "cells": final.final_cells}
    for path, value in flat({**usual, "retrain": retrained}).items():
        now.setdefault(path, value)  # not set: the part's default
    wanted |= flat(sizes(search, space))
    found = changes(now, wanted, stay)
    changed = {
        ".".join(path): f"{as_text(now.get(path))} -> {as_text(value)}"
        for path, value in found.items()
    }
    return altered(asked, found) | {"quick": changed}


def sizes(search: Any, space: Any) -> Table:
    """Return the smallest sizes of a search in a space that fits it."""
    phases = search.needs(space).phases
    shared = lcm(*(phase.partial or space.variant.partial for phase in phases))
    channels = shared * -(-CHANNELS // shared)  # channels divide into the phases' shares
    found: Table = {**SMALL, "channels": channels, **KINDS[search.kind]}
    if "epochs" in found:
        found["epochs"] *= len(phases)
    if not space.stages:  # the depths of a chain are the space's, and do not change
        found["cells"] = space.sizes.fewest
        found["retrain"] = {**SMALL["retrain"], "cells": space.sizes.fewest}
    return found


def declared(asked: Mapping[str, Any]) -> Table:
    """Return the `quick` values of the parts' settings."""
    return {kind: plain(dict(_declared(make_part(kind, asked[kind])))) for kind in PARTS}


def _declared(part: Any) -> Iterator[tuple[str, Any]]:
    for field in fields(part):
        if "quick" in field.metadata:
            value = field.metadata["quick"]
            yield field.name, value(part) if callable(value) else value


def known(asked: Mapping[str, Any]) -> Table:
    """Return all settings of a search, with defaults for those that are missing."""
    settings = from_table(Run, asked, "a search")
    parts = {k: part_settings(k, make_part(k, getattr(settings, k))) for k in PARTS}
    return tables(settings) | parts


def changes(now: Flat, wanted: Flat, stay: Flat) -> Flat:
    """Return the wanted values that differ from the present ones, except those in `stay`."""
    found = {path: lowered(now.get(path), value) for path, value in wanted.items()}
    return {
        path: value for path, value in found.items() if path not in stay and value != now.get(path)
    }


def lowered(now: Any, wanted: Any) -> Any:
    """Return the smaller of two numbers, element by element; otherwise the wanted value.

    >>> lowered(50, 2), lowered([0, 12], [1, 2]), lowered(None, 2), lowered("a", "b")
    (2, [0, 2], 2, 'b')
    """
    if isinstance(now, list) and isinstance(wanted, list):
        pairs = zip(now, wanted, strict=True)
        return [lowered(*pair) for pair in pairs] if len(now) == len(wanted) else wanted
    numbers = isinstance(now, (int, float)) and isinstance(wanted, (int, float))
    return min(now, wanted) if numbers else wanted


def as_text(value: Any) -> str:
    """Write the value of a setting.

    >>> as_text([6, 12]), as_text(None), as_text("")
    ('6 12', 'not set', 'not set')
    """
    if isinstance(value, (list, tuple)):
        return listed(value) or "not set"
    return "not set" if value in (None, "") else str(value)


# Tables -----------------------------------------------------------------------------------------


def flat(table: Mapping[str, Any]) -> Flat:
    """Flatten nested settings.

    >>> flat({"epochs": 2, "method": {"name": "nes"}})
    {('epochs',): 2, ('method', 'name'): 'nes'}
    """
    return dict(_flat(table, ()))


def _flat(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, (*path, key))
        else:
            yield (*path, key), value


def altered(table: Mapping[str, Any], values: Flat) -> Table:
    """Return nested settings with some values changed.

    >>> altered({"seed": 1, "evolution": {"parents": 9}}, {("evolution", "population"): 4})
    {'seed': 1, 'evolution': {'parents': 9, 'population': 4}}
    """
    found = {key: altered(x, {}) if isinstance(x, Mapping) else x for key, x in table.items()}
    for path, value in values.items():
        inner = found
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = value
    return found


def tables(settings: Any) -> Table:
    """Return a dataclass of settings as tables, without what is None."""
    values = {field.name: getattr(settings, field.name) for field in init_fields(type(settings))}
    return plain({name: tables(x) if is_dataclass(x) else x for name, x in values.items()})


def stated(settings: Mapping[str, Any]) -> Table:
    """Return the settings that Python code gave; of parts and dataclasses, those not at default."""
    found: Table = {}
    for name, value in settings.items():
        if name in PARTS:
            own = {key: x for key, x in value.items() if key != "name"}
            found[name] = {"name": value["name"]} | _unusual(own, part_of(name, value))
        else:
            found[name] = _unusual(tables(value), type(value)) if is_dataclass(value) else value
    return found


def _unusual(values: Mapping[str, Any], of: Any) -> Table:
    """Return the values of settings that differ from their defaults."""
    usual = plain({field.name: default(field, of) for field in init_fields(of)})
    return {k: x for k, x in values.items() if k not in usual or x != usual[k]}
