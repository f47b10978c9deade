"""A cell of a supernet: its nodes one after the other, and sums that several of them share.

The maps that leave a state are summed for all nodes after it by one product. Where maps are joined,
on a GPU and small ones on a CPU, the convolutions of one kind that read all channels
(NAS-Bench-201) and leave a state are one call. Large ones run edge by edge, with the architecture
weight as the scale of their normalisation.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tutelage.spaces.base import Variant
from tutelage.spaces.convolution import convolve
from tutelage.spaces.fused import joins, mix, normalised, normalised_sum, side_by_side, stacked
from tutelage.spaces.plan import Leaving, Weights, index_of
from tutelage.spaces.states import State, shuffle


class Sums:
    """Weighted sums of maps, one for each node to come."""

    def __init__(self) -> None:
        self.each: Tensor | None = None

    def add(self, weights: Tensor, terms: Sequence[Tensor]) -> None:
        """Add maps (B, C, H, W) to the sums, with weights (maps, nodes to come)."""
        if terms:
            self.each = mix(weights, stacked(terms), self.each)

    def take(self) -> Tensor | None:
        """Remove the next node's sum, (1, B, H, W, C); None: nothing was added."""
        if self.each is None or len(self.each) == 1:
            taken, self.each = self.each, None
            return taken
        taken, self.each = self.each.split([1, len(self.each) - 1])
        return taken


Kernels = Mapping[str, Mapping[int, Tensor]]
"""A node's kernels of convolutions that read all channels, by their name and edge."""


class Progress:
    """A cell in progress: its states, and what they hand to the nodes to come."""

    def __init__(self, nodes: Sequence[Any], weights: Weights, variant: Variant) -> None:
        self.weights, self.variant = weights, variant
        self.states: list[State] = []
        self.sums, self.passed = Sums(), Sums()
        self.apart: list[list[Tensor]] = [[] for _ in nodes]
        self.kernels: list[Kernels] = [node.kernels() for node in nodes]

    def reach(self, state: State) -> None:
        """Add a state, and compute what leaves it for several nodes."""
        place = len(self.states)
        self.states.append(state)
        if place == len(self.weights.plan.states):
            return
        leaving, matrix = self.weights.plan.states[place], self.weights.states[place]
        terms, after = state.maps(leaving.maps), len(self.kernels) - leaving.nodes
        if leaving.dense and joins(state.x):
            terms += _dense_joined(self.kernels[after:], leaving, state, place)
        elif leaving.dense:
            matrix, rest = matrix.split([len(terms), len(matrix) - len(terms)])
            found = _dense_apart(self.kernels[after:], leaving, state, place, rest)
            for node, total in found.items():
                self.apart[after + node].append(total)
        self.sums.add(matrix, terms)
        if self.variant.partial > 1:
            ones = state.x.new_ones(1, leaving.nodes)
            shares = ones if self.weights.edges is None else self.weights.edges[place]
            self.passed.add(shares, [state.bypass])

    def compute(self, node: Any, place: int) -> State:
        """Return the state of the next node."""
        shared = node(self.states, self.sums.take(), self.weights, place)
        parts = [part for part in (shared, *self.apart[place]) if part is not None]
        total = sum(parts[1:], start=parts[0]) if parts else self.states[0].zeros()
        if (passed := self.passed.take()) is not None:
            passed = passed.squeeze(0).permute(0, 3, 1, 2)
            total = shuffle(side_by_side([total, passed]), self.variant.partial)
        return State(total, 1, self.variant)


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


def _dense_joined(
    kernels: Sequence[Kernels], leaving: Leaving, state: State, edge: int
) -> list[Tensor]:
    """Run a state's convolutions that read all channels, one call for the edges of each kind."""
    maps = []
    for name, having in leaving.dense.items():
        own = [kernels[node][name][edge] for node in having]
        maps.append(convolve(state.active, own[0] if len(own) == 1 else torch.cat(own)))
    return normalised(maps, state.x.shape[1])


def _dense_apart(
    kernels: Sequence[Kernels], leaving: Leaving, state: State, edge: int, matrix: Tensor
) -> dict[int, Tensor]:
    """Run them edge by edge, and sum those of each node with weights (convolutions, nodes)."""
    runs = [(node, name) for name, having in leaving.dense.items() for node in having]
    found = {}
    for node in dict.fromkeys(node for node, _ in runs):
        rows = [row for row, (other, _) in enumerate(runs) if other == node]
        maps = [convolve(state.active, kernels[node][runs[row][1]][edge]) for row in rows]
        places = tuple(row * matrix.shape[1] + node for row in rows)
        weights = matrix.flatten().index_select(0, index_of(places, matrix.device))
        found[node] = normalised_sum(weights, maps)
    return found


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
