"""The operations that run in a cell, sorted by how they are computed, and their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.spaces.base import ArchWeights, Edges
from tutelage.spaces.ops import CONVOLUTIONS, DENSE, POOLS

AUXILIARY = "auxiliary"
"""The name of DARTS-' skip beside the operations of an edge."""

Choices = tuple[tuple[int, ...], ...]
"""For every edge, the columns of the operations that run."""


class Layout(NamedTuple):
    """The shape of a group's cells."""

    nodes: tuple[int, ...]
    """How many states each node reads: all that were there before it."""
    halved: frozenset[int] = frozenset()
    """The states that are read with a stride of 2."""


class Leaving(NamedTuple):
    """What runs on the edges that leave a state, each for one of the nodes after it."""

    maps: tuple[str, ...]
    """Pools and identities, which are the same map on every edge."""
    dense: Mapping[str, tuple[int, ...]]
    """Convolutions that read all channels: by name, the nodes after the state, counted from 0."""
    nodes: int
    """How many nodes read the state, m."""


class Entering(NamedTuple):
    """What runs on the edges that enter a node, beside what it shares with other nodes."""

    maps: tuple[tuple[int, str], ...]
    """Edge and name of maps that each edge has for itself: strided skips, dropout, noise."""
    separable: Mapping[str, tuple[int, ...]]
    """The edges of every kind of separable convolution."""


class Plan(NamedTuple):
    """What runs in a cell, and where its weights are."""

    states: tuple[Leaving, ...]
    nodes: tuple[Entering, ...]
    places: tuple[int, ...]
    """Places of the weights among (edges, ops) flattened, then 0 and the auxiliary weight: for each
    state a matrix (maps and convolutions, m), for each node those of its maps, then folded ones."""
    sizes: tuple[int, ...]
    """How many places each state's matrix and each node's two parts have."""
    edges: tuple[int, ...]
    """For each state, the edges that leave it, in the order of the nodes."""


@lru_cache(maxsize=4096)
def plan(edges: Edges, chosen: Choices, layout: Layout, auxiliary: bool, dropout: bool) -> Plan:
    """Sort the operations that run in a cell.

    Args:
        edges: The operations of every edge of the cell.
        chosen: Those that run.
        layout: The shape of the cell.
        auxiliary: Whether every edge has an auxiliary skip too.
        dropout: Whether identities have dropout, each its own.
    """
    widths = list(accumulate(map(len, edges), initial=0))
    none, extra = widths[-1], widths[-1] + 1
    starts = list(accumulate(layout.nodes, initial=0))
    place = {
        (edge, edges[edge][column]): widths[edge] + column
        for edge, columns in enumerate(chosen)
        for column in columns
    }

    def shared(state: int, name: str) -> bool:
        return name in POOLS or (
            name == "skip_connect" and state not in layout.halved and not dropout
        )

    states, nodes, places, sizes, leaving = [], [], [], [], []
    for state in range(layout.nodes[-1]):
        out = [starts[n] + state for n, count in enumerate(layout.nodes) if count > state]
        names = [*POOLS, "skip_connect"]
        maps = [n for n in names if shared(state, n) and any((edge, n) in place for edge in out)]
        matrix = [[place.get((edge, name), none) for edge in out] for name in maps]
        if auxiliary and state not in layout.halved:
            maps.append(AUXILIARY)
            matrix.append([extra] * len(out))
        dense: dict[str, tuple[int, ...]] = {}
        for name in DENSE:
            having = tuple(n for n, edge in enumerate(out) if (edge, name) in place)
            if having:
                dense[name] = having
            for n in having:
                matrix.append([none] * len(out))
                matrix[-1][n] = place[out[n], name]
        states.append(Leaving(tuple(maps), dense, len(out)))
        places += [each for row in matrix for each in row]
        sizes.append(len(matrix) * len(out))
        leaving += out
    for start, count in zip(starts, layout.nodes, strict=False):
        entering = [(state, n) for state in range(count) for n in edges[start + state]]
        entering = [(state, n) for state, n in entering if (start + state, n) in place]
        own = [(s, n) for s, n in entering if n in ("skip_connect", "noise") and not shared(s, n)]
        places += [place[start + state, name] for state, name in own]
        if auxiliary:
            strided = [state for state in range(count) if state in layout.halved]
            own += [(state, AUXILIARY) for state in strided]
            places += [extra] * len(strided)
        separable = {
            name: tuple(state for state, other in entering if other == name)
            for name in CONVOLUTIONS
            if any(other == name for _, other in entering)
        }
        folded = [place[start + s, name] for name, having in separable.items() for s in having]
        nodes.append(Entering(tuple(own), separable))
        places += folded
        sizes += [len(own), len(folded)]
    return Plan(tuple(states), tuple(nodes), tuple(places), tuple(sizes), tuple(leaving))


@lru_cache(maxsize=4096)
def index_of(places: tuple[int, ...], device: torch.device) -> Tensor:
    """Return places as a tensor, made once."""
    with torch.inference_mode(False):  # it is used outside the mode too
        return torch.tensor(places, dtype=torch.int64, device=device)


class Weights(NamedTuple):
    """The architecture weights of a cell, as its states and nodes need them."""

    plan: Plan
    """The operations that run."""
    states: Sequence[Tensor]
    """For every state, its maps' and convolutions' weights in the nodes after it (n, m)."""
    maps: Sequence[Tensor]
    """For every node, the weights (n,) of its own maps."""
    folded: Sequence[Tensor]
    """For every node, the weights (n,) of its separable convolutions."""
    edges: Sequence[Tensor] | None
    """For every state, the weights (1, m) of the whole edges to the nodes after it; None: 1."""
    skip_dropout: float = 0.0
    """Share of an identity skip's values that are zeroed."""


def weights_of(
    arch: ArchWeights, group: str, edges: Edges, layout: Layout, cells: int
) -> list[Weights]:
    """Return the architecture weights of a group's cells, reading them once.

    Args:
        arch: The architecture weights; (edges, ops), or (cells, edges, ops) for each cell its own.
        group: The group of the cells.
        edges: The operations of every edge of the group.
        layout: The shape of the cells.
        cells: How many there are.
    """
    operations = arch.operations[group]
    of_edges = None if arch.edges is None else arch.edges[group]
    if of_edges is not None:
        operations = operations * of_edges.unsqueeze(-1)
    every = tuple(tuple(range(len(names))) for names in edges)
    chosen = every if arch.chosen is None else tuple(map(tuple, arch.chosen[group]))
    found = plan(edges, chosen, layout, bool(arch.auxiliary), bool(arch.skip_dropout))
    device, flat = operations.device, operations.flatten(-2)
    if found.places and max(found.places) >= flat.shape[-1]:
        constants = flat.new_zeros(*flat.shape[:-1], 2)
        constants.select(-1, 1).fill_(arch.auxiliary)
        flat = torch.cat([flat, constants], dim=-1)
    picked = flat.index_select(-1, index_of(found.places, device)).expand(cells, -1)
    shares: Sequence[Sequence[Tensor] | None] = [None] * cells
    if of_edges is not None:
        out = [each.nodes for each in found.states]
        each = of_edges.index_select(-1, index_of(found.edges, device)).expand(cells, -1)
        shares = [[share.unsqueeze(0) for share in own.split(out)] for own in each.unbind()]
    return [
        _sorted(found, own, share, arch.skip_dropout)
        for own, share in zip(picked.unbind(), shares, strict=True)
    ]


def _sorted(
    found: Plan, picked: Tensor, edges: Sequence[Tensor] | None, skip_dropout: float
) -> Weights:
    """Sort a cell's weights, (places,)."""
    # without parts of no weights, whose gradients would be filled with zeros
    filled = iter(picked.split([size for size in found.sizes if size]))
    parts = [next(filled) if size else picked[:0] for size in found.sizes]
    count = len(found.states)
    matrices = [
        part.view(-1, each.nodes) for part, each in zip(parts[:count], found.states, strict=True)
    ]
    return Weights(found, matrices, parts[count::2], parts[count + 1 :: 2], edges, skip_dropout)
