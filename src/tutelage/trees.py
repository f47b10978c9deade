"""Trees: variables as nested lists and dicts of tensors.

Leaves have an order: that of lists, and that in which the entries of a dict were added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Tree = Any
"""A tensor, or a list or dict of trees. A list at the root has one tree for every learner."""


def leaves(tree: Tree) -> list[Tensor]:
    """List the tensors of a tree, in order.

    >>> [int(x) for x in leaves({"a": torch.tensor(1), "b": [torch.tensor(2), torch.tensor(3)]})]
    [1, 2, 3]
    """
    if isinstance(tree, Tensor):
        return [tree]
    children = tree.values() if isinstance(tree, Mapping) else tree
    return [leaf for child in children for leaf in leaves(child)]


def rebuild(tree: Tree, tensors: Iterator[Tensor]) -> Tree:
    """Build a tree shaped like `tree` from tensors in the order of `leaves`."""
    if isinstance(tree, Tensor):
        return next(tensors)
    if isinstance(tree, Mapping):
        return {key: rebuild(child, tensors) for key, child in tree.items()}
    return [rebuild(child, tensors) for child in tree]


def tree_map(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """Apply a function to every tensor of a tree."""
    return rebuild(tree, iter([function(leaf) for leaf in leaves(tree)]))


def detach(tree: Tree) -> Tree:
    """Detach a tree from the graph: in a loss, this leaves out a path of the derivative."""
    return tree_map(Tensor.detach, tree)


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm () of all entries of all tensors."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(t) for t in tensors]))
