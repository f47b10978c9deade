"""Recipes: the papers' settings by name, as TOML files in this folder.

A recipe holds any part of a run's settings, and `about`, a line for the listing. Its `parts` are
names of other recipes and of shared pieces in `parts.toml`; its own settings override theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tutelage.checks import nearest
from tutelage.formats import from_toml, read_text, read_toml
from tutelage.renamed import Told, lifted_settings, say

FOLDER = Path(__file__).parent
SHARED = FOLDER / "parts.toml"
"""Pieces of settings that several recipes and rows of papers have."""


def recipe_names() -> list[str]:
    """List the recipes of the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml") if path != SHARED)


def read_recipe(name: str, told: Told | None = say) -> tuple[dict[str, Any], str]:
    """Read a recipe of the package by name, or a TOML file by its path.

    Args:
        name: The name, or the path.
        told: Called with the old and the new name of each setting that has changed since 0.1.

    Returns:
        Its settings, and its line for the listing.

    Raises:
        ValueError: There is no recipe of this name, or it is not TOML.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if name.endswith(".toml") and not path.is_file():
        raise ValueError(f"recipe {name}: there is no such file")
    if not path.is_file():
        raise ValueError(f"unknown recipe {name!r}: {nearest(name, recipe_names())}")
    try:
        settings = lifted_settings(from_toml(read_text(path)), told)
    except ValueError as error:
        raise ValueError(f"recipe {path} is not TOML: {error}") from error
    about, parts = settings.pop("about", ""), settings.pop("parts", [])
    return layered(composed(parts, told), settings), about


@cache
def shared() -> dict[str, dict[str, Any]]:
    """Read the shared pieces of settings."""
    return read_toml(SHARED)


def composed(parts: Iterable[str], told: Told | None = None) -> dict[str, Any]:
    """Merge parts: names of recipes and of shared pieces, later ones override earlier ones.

    Raises:
        ValueError: There is no part of a name.
    """
    tables: list[dict[str, Any]] = []
    for name in parts:
        if name in shared():
            tables.append({key: x for key, x in shared()[name].items() if key != "about"})
        elif name in recipe_names():
            tables.append(read_recipe(name, told)[0])
        else:
            raise ValueError(
                f"unknown part {name!r}: {nearest(name, [*shared(), *recipe_names()])}"
            )
    return layered(*tables)


def layered(*tables: Mapping[str, Any]) -> dict[str, Any]:
    """Merge tables, later ones override earlier ones; a part of another name has its defaults.

    >>> layered({"method": {"name": "sgl", "learners": 3}, "seed": 5}, {"method": {"name": "lbt"}})
    {'method': {'name': 'lbt'}, 'seed': 5}

    Raises:
        ValueError: A single value would replace a table.
    """
    result: dict[str, Any] = {}
    for table in tables:
        for key, value in table.items():
            below = result.get(key)
            if isinstance(value, Mapping) and isinstance(below, Mapping):
                afresh = key in ("method", "search", "space") and value.get(
                    "name", below.get("name")
                ) != below.get("name")
                result[key] = layered({} if afresh else below, value)
            elif isinstance(below, Mapping):
                raise ValueError(f"{key} = {value!r}: must be a table of settings")
            else:
                result[key] = dict(value) if isinstance(value, Mapping) else value
    return result
