"""The operations that a narrowed space keeps: columns for every edge, chosen by alphas."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tutelage.spaces.base import Space

Kept = dict[str, list[list[int]]]
"""For every group and edge, columns of the kept operations, counted in the whole space."""


def everything(space: Space) -> Kept:
    """Keep all operations of a space."""
    return {g: [list(range(len(e))) for e in edges] for g, edges in space.operations.items()}


def check_kept(space: Space, kept: Kept) -> None:
    """Raise ValueError unless columns are some of a space's, in order, for every edge."""
    whole = everything(space)
    edges = {group: len(rows) for group, rows in kept.items()}
    if edges != {group: len(rows) for group, rows in whole.items()}:
        raise ValueError(f"operations are kept for the edges {edges}, which the space has not")
    for group, rows in kept.items():
        for row, every in zip(rows, whole[group], strict=True):
            if not row or row != sorted(set(row) & set(every)):
                raise ValueError(f"columns {row} of group {group} are kept, of {len(every)}")


def strongest(kept: Kept, alphas: Mapping[str, Tensor], count: int) -> tuple[Kept, Kept]:
    """Keep the operations of every edge with the largest alphas.

    Returns:
        The kept columns, counted in the whole space, and counted in the alphas.
    """
    columns = {g: alphas[g].topk(count).indices.sort().values.tolist() for g in kept}
    return {
        group: [
            [row[column] for column in chosen]
            for row, chosen in zip(rows, columns[group], strict=True)
        ]
        for group, rows in kept.items()
    }, columns
