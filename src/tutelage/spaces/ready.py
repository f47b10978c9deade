"""The spaces that have a name."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from tutelage.spaces import SPACES
from tutelage.spaces.base import Space


def ready() -> Iterator[Space]:
    """Yield every space of the package."""
    for target in SPACES.values():
        module, _, name = target.partition(":")
        yield getattr(import_module(module), name)
