"""A grid of values: every combination, and its name."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tutelage.recipes import layered

Settings = dict[str, Any]


def combinations(grid: Mapping[str, Any]) -> Iterator[tuple[str, Settings]]:
    """Yield every combination of a grid's values: its name, and its settings."""
    axes = list(_axes(grid))
    for values in itertools.product(*(choices for _, choices in axes)):
        chosen = [(path, value) for (path, _), value in zip(axes, values, strict=True)]
        label = ",".join(f"{_label(path, axes)}={_text(value)}" for path, value in chosen)
        yield label, layered(*(_nested(path, value) for path, value in chosen))


def _axes(grid: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[Any, list[Any]]]:
    for key, value in grid.items():
        path = (*above, *key.split("."))
        if isinstance(value, Mapping):
            yield from _axes(value, path)
        elif isinstance(value, list) and value:
            yield path, value
        else:
            raise ValueError(f"grid: {'.'.join(path)} = {value!r}: must be a list of values")


def _label(path: tuple[str, ...], axes: Sequence[tuple[Any, Any]]) -> str:
    """Name an axis by its last word: `method` for method.name, `lr` for alphas.lr.

    If two axes end alike, they keep their whole names.
    """
    last = [_last(other) for other, _ in axes]
    return _last(path) if last.count(_last(path)) == 1 else ".".join(path)


def _last(path: tuple[str, ...]) -> str:
    return path[-2] if path[-1] == "name" and len(path) > 1 else path[-1]


def _text(value: Any) -> str:
    """Write a value as a part of a name.

    >>> _text(True), _text(0.001), _text([1, 2]), _text("my.module:Own")
    ('true', '0.001', '1-2', 'my.module-Own')
    """
    text = "-".join(map(_text, value)) if isinstance(value, list) else str(value)
    return re.sub(r"[^\w+.-]", "-", text.lower() if isinstance(value, bool) else text)


def _nested(path: Sequence[str], value: Any) -> Settings:
    for key in reversed(path):
        value = {key: value}
    return value
