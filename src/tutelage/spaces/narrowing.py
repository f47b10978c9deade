"""Which operations of a space are left: columns for every edge, chosen by their scores."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tutelage.spaces.base import Space

Kept = dict[str, list[list[int]]]
"""For every group and edge, columns of the operations that are left, counted in the whole space."""


def everything(space: Space) -> Kept:
    """Keep all operations of a space."""
    return {g: [list(range(len(e))) for e in edges] for g, edges in space.operations.items()}


def strongest(kept: Kept, alphas: Mapping[str, Tensor], count: int) -> tuple[Kept, Kept]:
    """Keep the operations of every edge with the largest alphas.

    Returns:
        The columns that are left, counted in the whole space, and counted in the alphas.
    """
    columns = {g: alphas[g].topk(count).indices.sort().values.tolist() for g in kept}
    return {
        group: [
            [row[column] for column in chosen]
            for row, chosen in zip(rows, columns[group], strict=True)
        ]
        for group, rows in kept.items()
    }, columns
