"""Recipes: the papers' settings by name, as TOML files in this folder.

A recipe holds any part of a run's settings, and `about`, a line for the listing.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from tutelage.checks import nearest
from tutelage.renamed import Told, lifted_settings, say

FOLDER = Path(__file__).parent


def recipe_names() -> list[str]:
    """List the recipes of the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


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
        settings = lifted_settings(tomllib.loads(path.read_text(encoding="utf-8")), told)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"recipe {path} is not TOML: {error}") from error
    return settings, settings.pop("about", "")
