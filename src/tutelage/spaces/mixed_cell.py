"""A cell of a supernet: its nodes one after the other, and sums that several of them share.

Where maps are joined, on a GPU and small ones on a CPU, those that leave a state are summed for all
nodes after it by one product, and the convolutions of one kind that read all channels
(NAS-Bench-201) and leave a state are one call. Large maps on a CPU are summed node by node, and
those convolutions run edge by edge, with the architecture weight as the scale of their
normalisation.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from tutelage.spaces.base import Variant
from tutelage.spaces.fused import (
    joined,
    joins,
    mix,
    normalised,
    normalised_sum,
    side_by_side,
    stacked,
)
from tutelage.spaces.plan import Leaving, Weights, index_of
from tutelage.spaces.states import State, dense, shuffle


class Waiting:
    """Maps of the nodes to come with their weights, until a node takes its own."""

    def __init__(self, nodes: int) -> None:
        self.each: list[list[tuple[Tensor, list[Tensor]]]] = [[] for _ in range(nodes)]

    def add(
        self, weights: Tensor, terms: Sequence[Tensor], having: Sequence[Sequence[int]]
    ) -> None:
        """Add maps (B, C, H, W), with weights (maps, nodes to come), to the nodes that have them.

        `having` holds the nodes of every map, counted from 0.
        """
        flat, count = weights.flatten(), weights.shape[1]
        for node, own in enumerate(self.each[-count:]):
            rows = [row for row, nodes in enumerate(having) if node in nodes]
            if len(rows) == len(flat):  # the last node takes all
                own.append((flat, list(terms)))
            elif rows:
                places = tuple(row * count + node for row in rows)
                share = flat.index_select(0, index_of(places, flat.device))
                own.append((share, [terms[row] for row in rows]))

    def take(self) -> tuple[Tensor, list[Tensor]] | None:
        """Remove the next node's weights (n,) and its n maps; None: it has none."""
        if not (own := self.each.pop(0)):
            return None
        shares, terms = zip(*own, strict=True)
        return joined(shares), list(chain(*terms))


class Sums:
    """Weighted sums of maps, one for each node to come.

    Maps that are joined are added for all nodes by one product, others when a node takes its sum.
    """

    def __init__(self, nodes: int) -> None:
        self.each: Tensor | None = None
        self.later = Waiting(nodes)

    def add(
        self, weights: Tensor, terms: Sequence[Tensor], having: Sequence[Sequence[int]]
    ) -> None:
        """Add maps to the sums; the arguments are those of `Waiting.add`."""
        if not terms:
            return
        if joins(terms[0]):
            self.each = mix(weights, stacked(terms), self.each)
        else:
            self.later.add(weights, terms, having)

    def take(self) -> Tensor | None:
        """Remove the next node's sum, (1, B, H, W, C); None: nothing was added."""
        taken, self.each = self.each, None
        if taken is not None and len(taken) > 1:
            taken, self.each = taken.split([1, len(taken) - 1])
        if (own := self.later.take()) is None:
            return taken
        weights, terms = own
        return mix(weights.unsqueeze(1), stacked(terms), taken)


class Progress:
    """A cell in progress: its states, and what they hand to the nodes to come."""

    def __init__(self, nodes: Sequence[Any], weights: Weights, variant: Variant) -> None:
        self.nodes, self.weights, self.variant = nodes, weights, variant
        self.states: list[State] = []
        self.sums, self.passed = Sums(len(nodes)), Sums(len(nodes))
        self.convolved = Waiting(len(nodes))
        self.kernels: dict[tuple[int, str], Mapping[int, Tensor]] = {}

    def reach(self, state: State) -> None:
        """Add a state, and compute what leaves it for several nodes."""
        place = len(self.states)
        self.states.append(state)
        if place == len(self.weights.plan.states):
            return
        leaving, matrix = self.weights.plan.states[place], self.weights.states[place]
        terms = state.maps(tuple(leaving.maps))
        having: list[Sequence[int]] = list(leaving.maps.values())
        if leaving.dense:
            own: list[Sequence[int]] = [
                [node] for nodes in leaving.dense.values() for node in nodes
            ]
            if joins(state.x):
                terms, having = terms + self._joined(leaving, state, place), having + own
            else:
                matrix, rest = matrix.split([len(terms), len(matrix) - len(terms)])
                self.convolved.add(rest, self._apart(leaving, state, place), own)
        self.sums.add(matrix, terms, having)
        if self.variant.partial > 1:
            ones = state.x.new_ones(1, leaving.nodes)
            shares = ones if self.weights.edges is None else self.weights.edges[place]
            self.passed.add(shares, [state.bypass], [range(leaving.nodes)])

    def compute(self, node: Any, place: int) -> State:
        """Return the state of the next node."""
        total = node(self.states, self.sums.take(), self.weights, place)
        if (own := self.convolved.take()) is not None:
            convolved = normalised_sum(*own)
            total = convolved if total is None else total + convolved
        if total is None:
            total = self.states[0].zeros()
        if self.weights.offsets is not None:
            total = total + self.weights.offsets[place]
        if (passed := self.passed.take()) is not None:
            passed = passed.squeeze(0).permute(0, 3, 1, 2)
            total = shuffle(side_by_side([total, passed]), self.variant.partial)
        return State(total, 1, self.variant)

    def _joined(self, leaving: Leaving, state: State, edge: int) -> list[Tensor]:
        """Run a state's convolutions that read all channels, one call for the edges of a kind."""
        maps = []
        for name, nodes in leaving.dense.items():
            own = [self._kernel(node - leaving.nodes, name, edge) for node in nodes]
            maps.append(dense(state, joined(own)))
        return normalised(maps, state.x.shape[1])

    def _apart(self, leaving: Leaving, state: State, edge: int) -> list[Tensor]:
        """Run them edge by edge, without their normalisation."""
        return [
            dense(state, self._kernel(node - leaving.nodes, name, edge))
            for name, nodes in leaving.dense.items()
            for node in nodes
        ]

    def _kernel(self, node: int, name: str, edge: int) -> Tensor:
        """Return the kernel of an edge's convolution that reads all channels."""
        if (node, name) not in self.kernels:
            self.kernels[node, name] = self.nodes[node].stacks[name].kernels()
        return self.kernels[node, name][edge]


def run_cell(
    nodes: Sequence[Any], inputs: Sequence[State], weights: Weights, variant: Variant
) -> list[State]:
    """Compute a cell's nodes one after the other; return all states.

    Args:
        nodes: The cell's nodes.
        inputs: The cell's inputs.
        weights: The architecture weights of the cell.
        variant: How the nodes differ from the space's default ones.
    """
    cell = Progress(nodes, weights, variant)
    for state in inputs:
        cell.reach(state)
    for place, node in enumerate(nodes):
        cell.reach(cell.compute(node, place))
    return cell.states


# Operations one by one ---------------------------------------------------------------------------

OperationOutput = tuple[str, int, Tensor]
"""Group, edge and its operations' maps (ops, B, D) on the same inputs."""


def operation_outputs(
    group: str, nodes: Iterable[Any], states: list[State], variant: Variant
) -> Generator[OperationOutput, None, list[State]]:
    """Run a cell's nodes, and yield the outputs of all operations of every edge.

    Every image continues with one operation of each edge, assigned evenly and at random (EnNAS,
    section 3.3).

    Args:
        group: The cell's group.
        nodes: The cell's nodes.
        states: The cell's inputs; the nodes' states are appended.
        variant: How the nodes differ from the space's default ones.

    Returns:
        All states.
    """
    start = 0
    for node in nodes:
        total: Any = 0
        for edge, names in enumerate(node.edges):
            each = [node.operation(states[edge], edge, name) for name in names]
            if variant.partial > 1:
                passed = states[edge].bypass
                each = [shuffle(side_by_side([x, passed]), variant.partial) for x in each]
            maps = torch.stack(each)
            yield group, start + edge, maps.flatten(2)
            total = total + dealt(maps)
        start += len(node.edges)
        states.append(State(total, 1, variant))
    return states


def dealt(maps: Tensor) -> Tensor:
    """Select one operation's map for every image from (ops, B, C, H, W), evenly, at random."""
    images = torch.arange(maps.shape[1], device=maps.device)
    return maps[torch.randperm(maps.shape[1], device=maps.device) % len(maps), images]
