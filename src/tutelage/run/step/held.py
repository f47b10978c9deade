"""Tensors that stay in place from step to step: variables, batches, and numbers that change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tutelage.batch import Batch
from tutelage.trees import Tree, leaves


def settle(held: dict[str, Tree], new: Mapping[str, Tree]) -> None:
    """Copy new values into the tensors that hold the old ones.

    A tree of another structure, or whose tensors lie differently in memory, replaces the old one.
    """
    into: list[Tensor] = []
    values: list[Tensor] = []
    for name, tree in new.items():
        if tree is held.get(name):
            continue
        if name not in held or not _alike(held[name], tree):
            held[name] = tree
            continue
        pairs = zip(leaves(held[name]), leaves(tree), strict=True)
        changed = [(mine, value) for mine, value in pairs if mine is not value]
        into += [mine for mine, _ in changed]
        values += [value for _, value in changed]
    if into:
        written = {_memory(x) for x in into}
        values = [x.clone() if _memory(x) in written else x for x in values]
        with torch.no_grad():
            torch._foreach_copy_(into, values)


def _alike(one: Tree, other: Tree) -> bool:
    """Tell whether the tensors of two trees have the same layouts, and so can be copied over."""
    return [_layout(x) for x in leaves(one)] == [_layout(x) for x in leaves(other)]


def _layout(x: Tensor) -> tuple[Any, ...]:
    return x.shape, x.stride(), x.dtype, x.device


def _memory(x: Tensor) -> int:
    """Identify the memory of a tensor, also of one that holds no data."""
    return x.untyped_storage()._cdata


def shapes(batches: Any, names: Sequence[str]) -> tuple[Any, ...]:
    """Return the layouts of some streams' batches."""
    return tuple((name, *(_layout(x) for x in getattr(batches, name))) for name in names)


def copies(batches: Any, names: Sequence[str]) -> Any:
    """Return batches of some streams in tensors of their own."""
    found = {name: Batch(*(x.clone() for x in getattr(batches, name))) for name in names}
    return SimpleNamespace(**found)


def refill(held: Any, batches: Any) -> None:
    """Copy the values of batches into tensors that `copies` made."""
    for name, batch in vars(held).items():
        for mine, value in zip(batch, getattr(batches, name), strict=True):
            mine.copy_(value, non_blocking=True)


class Noted:
    """Batches that note which streams were read, in `names`."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self.names: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._batches, name)
        self.names.add(name)
        return found
