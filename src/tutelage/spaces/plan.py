"""The operations that run in a cell, sorted by how they are computed, and their weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from itertools import accumulate
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from tutelage.spaces.base import ArchWeights, Edges
from tutelage.spaces.ops import CONVOLUTIONS, DENSE, POOLS

AUXILIARY = "auxiliary"
"""The name of DARTS-' skip beside the operations of an edge."""

SORTED = ("none", *CONVOLUTIONS, *DENSE)
"""Operations that are no maps to be summed, or are computed with those of other edges."""

Choices = tuple[tuple[int, ...], ...]
"""For every edge, the columns of the operations that run."""


WHOLE: Final = 64
"""Plans that are kept. A relaxed search has a few; where operations are sampled, each step has new
ones, and thousands of them would be memory that grows with the steps."""
PARTS: Final = 1024
"""Parts of plans that are kept."""


class Layout(NamedTuple):
    """The shape of a group's cells."""

    nodes: tuple[int, ...]
    """How many states each node reads: all that were there before it."""
    halved: frozenset[int] = frozenset()
    """The states that are read with a stride of 2."""


class Leaving(NamedTuple):
    """What runs on the edges that leave a state, each for one of the nodes after it."""

    maps: Mapping[str, tuple[int, ...]]
    """Pools and identities, which are the same map on every edge: by name, the nodes after the
    state that have it, counted from 0."""
    dense: Mapping[str, tuple[int, ...]]
    """Convolutions that read all channels, the same way."""
    nodes: int
    """How many nodes read the state, m."""


class Entering(NamedTuple):
    """What runs on the edges that enter a node, beside what it shares with other nodes."""

    maps: tuple[tuple[int, str], ...]
    """Edge and name of maps that each edge has for itself: strided skips, dropout, noise, and
    operations of one's own."""
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


class _Cell(NamedTuple):
    """A kind of cell: what can run in it."""

    edges: Edges
    """The operations of every edge."""
    layout: Layout
    auxiliary: bool
    """Whether every edge has an auxiliary skip too."""
    dropout: bool
    """Whether identities have dropout, each its own."""

    @property
    def nothing(self) -> int:
        """The place of the weight 0; the auxiliary weight is behind it."""
        return sum(map(len, self.edges))

    def shared(self, state: int, name: str) -> bool:
        """Tell whether an operation is the same map on every edge that leaves a state."""
        whole = state not in self.layout.halved and not self.dropout
        return name in POOLS or (name == "skip_connect" and whole)

    def places(self, edges: Sequence[int], chosen: Choices) -> dict[tuple[int, str], int]:
        """Return the places of what runs on some edges, among (edges, ops) flattened."""
        return {
            (edge, self.edges[edge][column]): _begin(self.edges, edge) + column
            for edge, columns in zip(edges, chosen, strict=True)
            for column in columns
        }


@lru_cache(maxsize=4096)
def _begin(edges: Edges, edge: int) -> int:
    return sum(map(len, edges[:edge]))


@lru_cache(maxsize=WHOLE)
def plan(edges: Edges, chosen: Choices, layout: Layout, auxiliary: bool, dropout: bool) -> Plan:
    """Sort the operations that run in a cell.

    Args:
        edges: The operations of every edge of the cell.
        chosen: Those that run.
        layout: The shape of the cell.
        auxiliary: Whether every edge has an auxiliary skip too.
        dropout: Whether identities have dropout, each its own.

    Raises:
        ValueError: An edge has an operation twice.
    """
    cell = _checked(edges, layout, auxiliary, dropout)
    starts = list(accumulate(layout.nodes, initial=0))
    states, nodes, places, sizes, leaving = [], [], [], [], []
    for state in range(layout.nodes[-1]):
        out = [starts[n] + state for n, count in enumerate(layout.nodes) if count > state]
        each, matrix = _leaving(cell, state, tuple(out), tuple(chosen[edge] for edge in out))
        states.append(each)
        places += matrix
        sizes.append(len(matrix))
        leaving += out
    for start, count in zip(starts, layout.nodes, strict=False):
        node, own, folded = _entering(cell, start, chosen[start : start + count])
        nodes.append(node)
        places += own + folded
        sizes += [len(own), len(folded)]
    return Plan(tuple(states), tuple(nodes), tuple(places), tuple(sizes), tuple(leaving))


@lru_cache(maxsize=4096)
def _checked(edges: Edges, layout: Layout, auxiliary: bool, dropout: bool) -> _Cell:
    """Refuse an edge that has an operation twice."""
    for edge, names in enumerate(edges):
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"edge {edge} has {twice[0]} twice: every operation once is enough")
    return _Cell(edges, layout, auxiliary, dropout)


# Of these there are few, also where every step samples another plan


@lru_cache(maxsize=PARTS)
def _leaving(
    cell: _Cell, state: int, out: tuple[int, ...], chosen: Choices
) -> tuple[Leaving, list[int]]:
    """Sort what runs on the edges that leave a state; the places of its matrix, row by row."""
    nothing, places = cell.nothing, cell.places(out, chosen)

    def having(names: Iterable[str]) -> dict[str, tuple[int, ...]]:
        each = {name: [n for n, edge in enumerate(out) if (edge, name) in places] for name in names}
        return {name: tuple(nodes) for name, nodes in each.items() if nodes}

    maps = having(name for name in (*POOLS, "skip_connect") if cell.shared(state, name))
    matrix = [places.get((edge, name), nothing) for name in maps for edge in out]
    if cell.auxiliary and state not in cell.layout.halved:
        maps[AUXILIARY] = tuple(range(len(out)))
        matrix += [nothing + 1] * len(out)
    dense = having(DENSE)
    for name, nodes in dense.items():
        for node in nodes:  # a convolution is for one node alone
            matrix += [places[edge, name] if n == node else nothing for n, edge in enumerate(out)]
    return Leaving(maps, dense, len(out)), matrix


@lru_cache(maxsize=PARTS)
def _entering(cell: _Cell, start: int, chosen: Choices) -> tuple[Entering, list[int], list[int]]:
    """Sort what runs on the edges that enter a node; the places of its maps, and of the others."""
    count = len(chosen)
    running = cell.places(range(start, start + count), chosen)
    entering = [
        (state, name)
        for state in range(count)
        for name in cell.edges[start + state]
        if (start + state, name) in running
    ]
    own = [
        (state, name)
        for state, name in entering
        if name not in SORTED and not cell.shared(state, name)
    ]
    places = [running[start + state, name] for state, name in own]
    if cell.auxiliary:
        strided = [state for state in range(count) if state in cell.layout.halved]
        own += [(state, AUXILIARY) for state in strided]
        places += [cell.nothing + 1] * len(strided)
    having = {name: [s for s, other in entering if other == name] for name in CONVOLUTIONS}
    separable = {name: tuple(states) for name, states in having.items() if states}
    folded = [running[start + s, name] for name, states in separable.items() for s in states]
    return Entering(tuple(own), separable), places, folded


def index_of(places: tuple[int, ...], device: torch.device, sampled: bool = False) -> Tensor:
    """Return places as a tensor, made once; a recorded CUDA graph reads it where it is.

    Args:
        places: The places.
        device: Where they are read.
        sampled: Whether they are of operations that were sampled, of which there are many.
    """
    faking = None if _mode is None else _mode(torch._C._TorchDispatchModeKey.FAKE)
    return (_index_of_sample if sampled else _index)(places, device, faking)


_mode = getattr(torch._C, "_get_dispatch_mode", None)


def _tensor(places: tuple[int, ...], device: torch.device, faking: Any) -> Tensor:
    """Make a tensor; those of a mode of fake tensors are for that mode alone."""
    with torch.inference_mode(False):  # it is used outside the mode too
        return torch.tensor(places, dtype=torch.int64, device=device)


_index = cache(_tensor)
_index_of_sample = lru_cache(maxsize=WHOLE)(_tensor)


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
    offsets: Sequence[Tensor] | None = None
    """For every node, a number () that is added to all values of its map; None: 0."""


def weights_of(
    arch: ArchWeights, group: str, edges: Edges, layout: Layout, cells: int, auxiliary: bool = False
) -> list[Weights]:
    """Return the architecture weights of a group's cells, reading them once.

    Args:
        arch: The architecture weights; (edges, ops), or (cells, edges, ops) for each cell its own.
        group: The group of the cells.
        edges: The operations of every edge of the group.
        layout: The shape of the cells.
        cells: How many there are.
        auxiliary: Whether the cells have auxiliary skips.

    Raises:
        ValueError: There are weights for another number of cells.
    """
    operations = arch.operations[group]
    of_edges = None if arch.edges is None else arch.edges[group]
    if of_edges is not None:
        operations = operations * of_edges.unsqueeze(-1)
    if operations.dim() == 3 and len(operations) not in (1, cells):
        raise ValueError(
            f"weights of {len(operations)} cells: the supernet has {cells} of the group {group}"
        )
    every = tuple(tuple(range(len(names))) for names in edges)
    chosen = every if arch.chosen is None else tuple(map(tuple, arch.chosen[group]))
    auxiliary = auxiliary and bool(arch.auxiliary)
    found = plan(edges, chosen, layout, auxiliary, bool(arch.skip_dropout))
    sampled = arch.chosen is not None
    device, flat = operations.device, operations.flatten(-2)
    if found.places and max(found.places) >= flat.shape[-1]:
        constants = flat.new_zeros(*flat.shape[:-1], 2)
        constants.select(-1, 1).fill_(arch.auxiliary)
        flat = torch.cat([flat, constants], dim=-1)
    picked = flat.index_select(-1, index_of(found.places, device, sampled)).expand(cells, -1)
    shares: Sequence[Sequence[Tensor] | None] = [None] * cells
    if of_edges is not None:
        out = [each.nodes for each in found.states]
        each = of_edges.index_select(-1, index_of(found.edges, device)).expand(cells, -1)
        shares = [[share.unsqueeze(0) for share in own.split(out)] for own in each.unbind()]
    offsets = None
    if arch.offsets is not None:
        offsets = [each.sum() for each in arch.offsets[group].split(layout.nodes)]
    return [
        _sorted(found, own, share, arch.skip_dropout)._replace(offsets=offsets)
        for own, share in zip(picked.unbind(), shares, strict=True)
    ]


def _sorted(
    found: Plan, picked: Tensor, edges: Sequence[Tensor] | None, skip_dropout: float
) -> Weights:
    """Sort a cell's weights, (places,)."""
    # without parts of no weights, whose gradients would be filled with zeros
    filled, empty = iter(picked.split([size for size in found.sizes if size])), picked[:0]
    parts = [next(filled) if size else empty for size in found.sizes]
    count = len(found.states)
    matrices = [
        part.view(-1, each.nodes) for part, each in zip(parts[:count], found.states, strict=True)
    ]
    return Weights(found, matrices, parts[count::2], parts[count + 1 :: 2], edges, skip_dropout)
