"""Edits deep inside a checkpoint, which torch then writes anew with the right checksums."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

Path = tuple[Any, ...]
Edit = Callable[[Any, Any], None]
"""Changes an owner, a dict or a list, at a key."""
MOST = 20
"""Of an object with more entries, the first and the last are edited: they are all alike."""


def nested(depth: int = 200) -> list[Any]:
    """Return lists in lists."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def cyclic() -> list[Any]:
    """Return a list that is in itself."""
    value: list[Any] = []
    value.append(value)
    return value


def paths(value: Any, depth: int = 20) -> Iterator[Path]:
    """Yield the paths of the entries inside a value, down to a depth."""
    if isinstance(value, dict):
        keys = list(value)
    else:
        keys = list(range(len(value))) if isinstance(value, (list, tuple)) else []
    for key in keys if len(keys) < MOST else (keys[0], keys[-1]):
        yield (key,)
        if depth > 1:
            yield from ((key, *rest) for rest in paths(value[key], depth - 1))


def at(value: Any, path: Path) -> Any:
    """Return the entry at a path."""
    for key in path:
        value = value[key]
    return value


def changed(value: Any, path: Path, by: Edit) -> Any:
    """Change plain values at a path, in place where that can be; tuples are made anew."""
    owner = list(value) if isinstance(value, tuple) else value
    if len(path) == 1:
        by(owner, path[0])
    else:
        owner[path[0]] = changed(owner[path[0]], path[1:], by)
    return tuple(owner) if isinstance(value, tuple) else owner


def replaced(by: Callable[[Any], Any]) -> Edit:
    """Replace an entry by what a function makes of it."""

    def edit(owner: Any, key: Any) -> None:
        owner[key] = by(owner[key])

    return edit


def renamed(owner: Any, key: Any) -> None:
    """Give an entry another key."""
    owner["x"] = owner.pop(key)


ALWAYS: dict[str, Any] = {
    "none": None,
    "list": [],
    "object": {},
    "text": "x",
    "bytes": b"x",
    "tensor": torch.zeros(3, 5),
    "number": torch.tensor(0.5),
    "fraction": 3.5,
    "negative": -1,
    "huge": 10**30,
    "infinity": float("inf"),
    "true": True,
    "complex": 1j,
    "numbers": [1, 2],
    "objects": {"x": {"x": 1}},
    "a set": {1},
}
"""What replaces any entry, by what it is."""

OF_TENSORS: dict[str, Callable[[Tensor], Any]] = {
    "cut": lambda x: x.flatten()[:-1].clone(),
    "another axis": lambda x: x[None],
    "one number for all": lambda x: x.new_zeros(()).expand(x.shape),
    "without numbers": lambda x: x.new_zeros(0),
    "float64": lambda x: x.double() if x.dtype != torch.float64 else x.float(),
    "whole numbers": lambda x: x.long(),
    "complex": lambda x: x.to(torch.complex64),
    "truths": lambda x: x.bool(),
    "sparse": lambda x: x.to_sparse(),
    "meta": lambda x: x.to("meta"),
    "a leaf with a gradient": lambda x: x.double().float().clone().requires_grad_(),
    "a parameter": lambda x: nn.Parameter(x.clone(), requires_grad=False),
    "huge": lambda x: x.new_zeros(()).expand(2**20, 2**20),
    "a list": lambda x: [x],
}
"""What replaces a tensor."""

OF_OBJECTS: dict[str, Callable[[dict[Any, Any]], Any]] = {
    "and more": lambda x: {**x, "x": 1},
    "with a number's key": lambda x: {**x, 7: None},
    "in a list": lambda x: [x],
    "items": lambda x: [*x.items()],
}
OF_LISTS: dict[str, Callable[[Any], Any]] = {
    "and more": lambda x: type(x)([*x, None]),
    "cut": lambda x: x[:-1],
    "twice": lambda x: x + x,
    "in a list": lambda x: [x],
    "by number": lambda x: dict(enumerate(x)),
}
OF_NUMBERS: dict[str, Callable[[Any], Any]] = {
    "its text": str,
    "as a tensor": torch.tensor,
    "much more": lambda x: x + 10**6,
    "in a list": lambda x: [x],
}


def edits(value: Any) -> Iterator[tuple[str, Edit]]:
    """Yield the edits of an entry."""
    for name, other in ALWAYS.items():
        yield f"= {name}", replaced(lambda _, other=other: other)
    yield "= nested", replaced(lambda _: nested())
    yield "= cyclic", replaced(lambda _: cyclic())
    yield "removed", lambda owner, key: owner.pop(key)
    yield "renamed", lambda owner, key: renamed(owner, key) if type(owner) is dict else owner.pop()
    own: dict[str, Callable[[Any], Any]] = {}
    if isinstance(value, Tensor):
        own = OF_TENSORS
    elif isinstance(value, dict):
        own = OF_OBJECTS
    elif isinstance(value, (list, tuple)):
        own = OF_LISTS
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        own = OF_NUMBERS
    yield from ((name, replaced(make)) for name, make in own.items())


def read(content: bytes) -> Any:
    """Read a checkpoint."""
    return torch.load(io.BytesIO(content), weights_only=True)


def written(value: Any) -> bytes:
    """Write a checkpoint, with its checksums."""
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def every(content: bytes) -> list[tuple[Path, str]]:
    """List all edits of a checkpoint, by path and name."""
    whole = read(content)
    return [(path, name) for path in paths(whole) for name, _ in edits(at(whole, path))]


def edited(content: bytes, *chosen: tuple[Path, str]) -> bytes:
    """Edit a checkpoint; an edit whose place an earlier one has removed is left out."""
    whole = read(content)
    for path, name in chosen:
        try:
            edit = dict(edits(at(whole, path)))[name]
            whole = changed(whole, path, edit)
        except (LookupError, TypeError, AttributeError, RuntimeError, ValueError):
            continue
    return written(whole)
