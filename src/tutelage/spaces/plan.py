"""The operations that run at the nodes of a cell, and their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.spaces.base import ArchWeights, Edges
from tutelage.spaces.ops import CONVOLUTIONS, DENSE, POOLS


class Plan(NamedTuple):
    """The operations that run on the edges that enter a node, and the places of their weights."""

    maps: tuple[tuple[int, str], ...]
    """Edge and name of operations other than convolutions: pools, skips, noise."""
    dense: tuple[tuple[int, str], ...]
    """Edge and name of the convolutions that read all channels."""
    separable: Mapping[str, tuple[int, ...]]
    """The edges of every kind of separable convolution."""
    places: tuple[int, ...]
    """Places of the weights of all these in (edges, ops), flattened, in this order."""

    @property
    def counts(self) -> tuple[int, int]:
        """Count the terms that are summed, and those that are folded into one convolution."""
        summed = len(self.maps) + len(self.dense)
        return summed, len(self.places) - summed


@lru_cache(maxsize=4096)
def plan(edges: Edges, chosen: tuple[tuple[int, ...], ...]) -> Plan:
    """Sort the chosen columns of every edge by how their operations are computed."""
    runs = [
        (edge, edges[edge][column], edge * len(edges[edge]) + column)
        for edge, columns in enumerate(chosen)
        for column in columns
    ]
    maps = [run for run in runs if run[1] in (*POOLS, "skip_connect", "noise")]
    dense = [run for run in runs if run[1] in DENSE]
    kinds = dict.fromkeys(name for _, name, _ in runs if name in CONVOLUTIONS)
    separable = {name: [run for run in runs if run[1] == name] for name in kinds}
    ordered = [*maps, *dense, *chain(*separable.values())]
    return Plan(
        maps=tuple(run[:2] for run in maps),
        dense=tuple(run[:2] for run in dense),
        separable={name: tuple(run[0] for run in same) for name, same in separable.items()},
        places=tuple(run[2] for run in ordered),
    )


@lru_cache(maxsize=4096)
def _index(places: tuple[int, ...], device: torch.device) -> Tensor:
    """Return places as a tensor, made once."""
    with torch.inference_mode(False):  # it is used outside the mode too
        return torch.tensor(places, dtype=torch.int64, device=device)


class Weights(NamedTuple):
    """The architecture weights of the edges that enter a node."""

    plan: Plan
    """The operations that run."""
    summed: Tensor
    """Weights (terms,) of maps and of convolutions that read all channels, in the plan's order."""
    folded: Tensor
    """Weights (terms,) of separable convolutions, in the plan's order."""
    edges: Tensor | None
    """Weight (edges,) of each whole edge; None: 1."""
    auxiliary: float = 0.0
    """Weight of the auxiliary skip beside the operations."""
    skip_dropout: float = 0.0
    """Share of an identity skip's values that are zeroed."""


def weights_of(arch: ArchWeights, group: str, edges: Edges, nodes: Sequence[int]) -> list[Weights]:
    """Return the architecture weights of the nodes of a cell, reading them once.

    Args:
        arch: The architecture weights.
        group: The cell's group.
        edges: The operations of every edge of the group.
        nodes: How many edges enter each node.
    """
    operations = arch.operations[group]
    of_edges = None if arch.edges is None else arch.edges[group]
    if of_edges is not None:
        operations = operations * of_edges.unsqueeze(1)
    chosen = [range(len(names)) for names in edges] if arch.chosen is None else arch.chosen[group]
    plans, places, start = [], [], 0
    for count in nodes:
        rows = slice(start, start + count)
        plans.append(plan(edges[rows], tuple(map(tuple, chosen[rows]))))
        places += [start * operations.shape[1] + place for place in plans[-1].places]
        start += count
    index = _index(tuple(places), operations.device)
    counts = [count for own in plans for count in own.counts]
    each = operations.flatten().index_select(0, index).split(counts)
    shares = [None] * len(nodes) if of_edges is None else of_edges.split(list(nodes))
    return [
        Weights(own, summed, folded, share, arch.auxiliary, arch.skip_dropout)
        for own, summed, folded, share in zip(plans, each[::2], each[1::2], shares, strict=True)
    ]


def alone(edges: Edges, edge: int, column: int, like: Tensor) -> Weights:
    """Return the weights of a node in which a single operation runs."""
    own = plan(edges, tuple((column,) if row == edge else () for row in range(len(edges))))
    summed, folded = (like.new_ones(count) for count in own.counts)
    return Weights(own, summed, folded, None)
