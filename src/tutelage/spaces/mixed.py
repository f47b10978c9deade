"""A node of a supernet's cell: DARTS' mixed operations, computed by state and by node.

A mixed operation is a weighted sum of all candidate operations on one edge. A direct implementation
repeats much work. Here the work is arranged differently, with the same result:

- A state (an input of the cell, or a node's sum) computes its ReLU and its normalised pools once,
  for all edges that leave it, and only when an edge needs them.
- A node runs one kind of separable convolution for all its edges at once. Their inputs are
  concatenated as channels, so that a depthwise convolution is one call, and a 1x1 convolution one
  grouped call.
- The last 1x1 convolution of each, its normalisation, its architecture weight and the sum over
  edges are folded into one product (`fused.folded_sum`): no operation's output is written to
  memory.
- A convolution that reads all channels (NAS-Bench-201) is large enough for separate calls: it runs
  edge by edge. For large maps the architecture weight is the scale of their normalisation; small
  maps are normalised together.
- `none` is not computed, nor are operations that `chosen` of the architecture weights leaves out.
- With partial channels the operations see a state's first channels. The others bypass them and are
  summed separately, and one shuffle after the sum mixes the two.

Tensors are channels-last throughout. No BatchNorm has an affine part, and all use the statistics of
their batch. The operations of an edge are data: a tuple of names.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import cached_property, partial
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.spaces.base import Edges, Variant
from tutelage.spaces.convolution import Convolution, convolve, depthwise, relu_depthwise, subsample
from tutelage.spaces.fused import (
    folded_sum,
    joins,
    mix,
    normalise,
    normalised,
    normalised_sum,
    side_by_side,
    stacked,
)
from tutelage.spaces.ops import CONVOLUTIONS, DENSE, POOLS, shifted
from tutelage.spaces.parallel import concurrently
from tutelage.spaces.plan import AUXILIARY, Leaving, Weights, index_of


def select(parameter: Tensor, rows: Sequence[int], count: int) -> Tensor:
    """Select some of the `count` equal blocks of a parameter's first dimension, in order."""
    if len(rows) == count:
        return parameter
    blocks = parameter.unflatten(0, (count, -1))
    return torch.cat([blocks[row] for row in rows])


def uniform(fan_in: int, *shape: int) -> nn.Parameter:
    """Initialise weights as torch's convolutions do."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def shuffle(x: Tensor, shares: int) -> Tensor:
    """Interleave the channels of x (B, C, H, W), which consist of equal shares.

    Channel i of share k moves to place i * shares + k.
    """
    dealt = x.permute(0, 2, 3, 1).unflatten(3, (shares, -1)).transpose(3, 4).flatten(3)
    return dealt.permute(0, 3, 1, 2)


class State:
    """The maps that the edges leaving one state share, computed when first needed."""

    def __init__(self, x: Tensor, stride: int, variant: Variant) -> None:
        """Hold x (B, C, H, W), which every edge reads with the same stride."""
        seen = x.shape[1] // variant.partial
        self.whole = x
        self.x, self.rest = x, x[:, :0]
        if seen < x.shape[1]:
            # not two slices: the derivative of each would be a whole map with zeros
            self.x, self.rest = x.split([seen, x.shape[1] - seen], dim=1)
        self.stride = stride
        self.normalised = variant.normalised_pools

    @property
    def bypass(self) -> Tensor:
        """The channels that no operation sees."""
        return self.rest if self.stride == 1 else F.max_pool2d(self.rest, 2, 2, ceil_mode=True)

    @cached_property
    def active(self) -> Tensor:
        """ReLU of x."""
        return self.x.relu()

    @cached_property
    def halves(self) -> tuple[Tensor, Tensor]:
        """The even and the odd pixels of `active`."""
        return halves(self.active)

    def pooled(self, names: Sequence[str]) -> list[Tensor]:
        """Return the pools of these names."""
        maps = [POOLS[name](self.x, self.stride) for name in names]
        return normalised(maps) if self.normalised else maps

    def maps(self, names: Sequence[str]) -> list[Tensor]:
        """Return pools and identities, in the order of their names."""
        pools = iter(self.pooled([name for name in names if name in POOLS]))
        return [next(pools) if name in POOLS else self.x for name in names]

    def noise(self) -> Tensor:
        """Sample a map of standard normal values, of a strided map's size."""
        return torch.randn_like(self.x[:, :, :: self.stride, :: self.stride])

    def zeros(self) -> Tensor:
        """Return the output of `none`."""
        return torch.zeros_like(self.x[:, :, :: self.stride, :: self.stride])


def gather(states: Sequence[State]) -> list[tuple[Tensor, int]]:
    """Concatenate the channels of activated states of equal stride."""
    return [
        (side_by_side([state.active for state in group], copied=False), stride)
        for stride, group in groupby(states, key=lambda state: state.stride)
    ]


def halves(active: Tensor) -> tuple[Tensor, Tensor]:
    """Return the even and the odd pixels of a map (B, C, H, W), each (B, C, H / 2, W / 2)."""
    return subsample(active, 2), subsample(shifted(active), 2)


class Project(nn.Module):
    """1x1 convolution of an activated map, normalised."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = Convolution(inputs, outputs, 1)

    def forward(self, active: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, outputs, H, W)."""
        return normalise(self.convolution(active))


class Reduce(nn.Module):
    """1x1 convolutions of the even and of the odd pixels of an activated map, normalised."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.even = Convolution(inputs, half, 1)
        self.odd = Convolution(inputs, outputs - half, 1)

    def forward(self, pixels: tuple[Tensor, Tensor]) -> Tensor:
        """Map the even and the odd pixels, each (B, C, H, W), to (B, outputs, H, W)."""
        even, odd = pixels
        return normalise(side_by_side([self.even(even), self.odd(odd)]))


class Stack(nn.Module):
    """One kind of separable convolution on several edges, concatenated as channels."""

    def __init__(self, name: str, edges: Sequence[int], channels: int) -> None:
        super().__init__()
        kernel, self.dilation, repetitions = CONVOLUTIONS[name]
        self.edges = tuple(edges)
        width = len(edges) * channels
        self.depthwise = nn.ParameterList(
            uniform(kernel**2, width, 1, kernel, kernel) for _ in range(repetitions)
        )
        self.pointwise = nn.ParameterList(
            uniform(channels, width, channels, 1, 1) for _ in range(repetitions)
        )

    @property
    def kernels(self) -> list[Tensor]:
        """All kernels."""
        return [*self.depthwise, *self.pointwise]

    def forward(
        self, inputs: Sequence[tuple[Tensor, int]], edges: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Run everything except the last 1x1 convolution, for some of the edges.

        Args:
            inputs: Activated maps (B, n * C, H, W) and their strides, together for all `edges`.
            edges: The edges that run.

        Returns:
            The maps (B, edges * C, H, W) and the kernel (edges * C, C, 1, 1) to be folded.
        """
        rows = [self.edges.index(edge) for edge in edges]
        kernels = [select(each, rows, len(self.edges)) for each in self.depthwise]
        pointwise = [select(each, rows, len(self.edges)) for each in self.pointwise]
        parts = kernels[0].split([x.shape[1] for x, _ in inputs])
        z = side_by_side(
            [
                depthwise(x, kernel, stride, self.dilation)
                for (x, stride), kernel in zip(inputs, parts, strict=True)
            ]
        )
        for previous, kernel in zip(pointwise, kernels[1:], strict=False):
            y = normalise(convolve(z, previous, groups=len(edges)))
            z = relu_depthwise(y, kernel, 1, self.dilation)
        return z, pointwise[-1]


class Dense(nn.Module):
    """One kind of convolution that reads all channels on several edges."""

    def __init__(self, name: str, edges: Sequence[int], channels: int) -> None:
        super().__init__()
        self.edges = tuple(edges)
        size = DENSE[name]
        width = len(edges) * channels
        self.weight = uniform(channels * size**2, width, channels, size, size)

    def kernels(self) -> dict[int, Tensor]:
        """Return the kernel (C, C, k, k) of every edge."""
        each = self.weight.unflatten(0, (len(self.edges), -1)).unbind()
        return dict(zip(self.edges, each, strict=True))


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
            maps = torch.stack([node.operation(states[edge], edge, name) for name in names])
            yield group, start + edge, maps.flatten(2)
            total = total + dealt(maps)
        start += len(node.edges)
        states.append(State(total, 1, variant))
    return states


def dealt(maps: Tensor) -> Tensor:
    """Select one operation's map for every image from (ops, B, C, H, W), evenly, at random."""
    images = torch.arange(maps.shape[1], device=maps.device)
    return maps[torch.randperm(maps.shape[1], device=maps.device) % len(maps), images]


class MixedNode(nn.Module):
    """A node: the weighted sum of all operations on all edges that enter it."""

    def __init__(
        self, edges: Edges, strides: Sequence[int], channels: int, variant: Variant
    ) -> None:
        super().__init__()
        self.edges = edges
        self.variant = variant
        seen = channels // variant.partial
        self.stacks: Any = nn.ModuleDict()
        for name in (*CONVOLUTIONS, *DENSE):
            having = [edge for edge, names in enumerate(edges) if name in names]
            if having:
                kind = Stack if name in CONVOLUTIONS else Dense
                self.stacks[name] = kind(name, having, seen)
        halved = [edge for edge, stride in enumerate(strides) if stride == 2]
        self.reductions = nn.ModuleDict(
            {str(edge): Reduce(seen, seen) for edge in halved if "skip_connect" in edges[edge]}
        )
        self.auxiliaries = nn.ModuleDict(
            {str(edge): Reduce(seen, seen) for edge in halved if variant.auxiliary_skip}
        )

    def forward(
        self, states: Sequence[State], shared: Tensor | None, weights: Weights, place: int
    ) -> Tensor | None:
        """Sum weights times operations, over the operations that run on every edge.

        Args:
            states: The states that the node reads.
            shared: The sum of what the states compute for several nodes, (1, B, H, W, C); None:
                there is nothing.
            weights: The architecture weights of the cell.
            place: The node's place in the cell.

        Returns:
            A map (B, C, H, W); None if nothing runs.
        """
        entering, dropout = weights.plan.nodes[place], weights.skip_dropout
        if entering.maps:
            own = [self._map(edge, states[edge], name, dropout) for edge, name in entering.maps]
            shared = mix(weights.maps[place].unsqueeze(1), stacked(own), shared)
        total = None if shared is None else shared.squeeze(0).permute(0, 3, 1, 2)
        if entering.separable:
            folded = self._separable(states, entering.separable, weights.folded[place])
            total = folded if total is None else total + folded
        return total

    def kernels(self) -> dict[str, dict[int, Tensor]]:
        """Return the kernels of the convolutions that read all channels, by name and edge."""
        return {name: stack.kernels() for name, stack in self.stacks.items() if name in DENSE}

    def operation(self, state: State, edge: int, name: str) -> Tensor:
        """Return the output (B, C, H, W) of a single operation of an edge."""
        if name == "none":
            return state.zeros()
        if name in DENSE:
            return normalise(convolve(state.active, self.kernels()[name][edge]))
        if name in CONVOLUTIONS:
            states = {edge: state}
            return self._separable(states, {name: (edge,)}, state.x.new_ones(1))
        return self._map(edge, state, name, 0.0)

    def _map(self, edge: int, state: State, name: str, dropout: float) -> Tensor:
        """Return a pool, noise or a skip; dropout zeroes values of an identity skip."""
        if name in POOLS:
            return state.pooled([name])[0]
        if name == "noise":
            return state.noise()
        if state.stride == 2:
            own = self.auxiliaries if name == AUXILIARY else self.reductions
            return own[str(edge)](state.halves)
        return F.dropout(state.x, dropout) if dropout else state.x

    def _separable(
        self,
        states: Sequence[State] | Mapping[int, State],
        kinds: Mapping[str, tuple[int, ...]],
        weights: Tensor,
    ) -> Tensor:
        """Sum separable convolutions, all of one kind together."""
        several = dict.fromkeys(kinds.values())
        inputs = {edges: gather([states[edge] for edge in edges]) for edges in several}
        runs = [partial(self.stacks[name], inputs[edges], edges) for name, edges in kinds.items()]
        reads = [x for each in inputs.values() for x, _ in each]
        reads += [kernel for name in kinds for kernel in self.stacks[name].kernels]
        maps, pointwise = zip(*concurrently(runs, reads), strict=True)
        return folded_sum(maps, torch.cat(pointwise), weights)


# A cell ------------------------------------------------------------------------------------------


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
    states: list[State] = []
    sums, passed = Sums(), Sums()
    apart: list[list[Tensor]] = [[] for _ in nodes]
    kernels = [node.kernels() for node in nodes]

    def reach(state: State) -> None:
        place = len(states)
        states.append(state)
        if place == len(weights.plan.states):
            return
        leaving, matrix = weights.plan.states[place], weights.states[place]
        terms, after = state.maps(leaving.maps), len(nodes) - leaving.nodes
        if leaving.dense and joins(state.x):
            terms += _dense_joined(kernels[after:], leaving, state, place)
        elif leaving.dense:
            matrix, rest = matrix.split([len(terms), len(matrix) - len(terms)])
            found = _dense_apart(kernels[after:], leaving, state, place, rest)
            for node, total in found.items():
                apart[after + node].append(total)
        sums.add(matrix, terms)
        if variant.partial > 1:
            ones = state.x.new_ones(1, leaving.nodes)
            shares = ones if weights.edges is None else weights.edges[place]
            passed.add(shares, [state.bypass])

    for state in inputs:
        reach(state)
    for place, node in enumerate(nodes):
        parts = [node(states, sums.take(), weights, place), *apart[place]]
        parts = [part for part in parts if part is not None] or [states[0].zeros()]
        total = sum(parts[1:], start=parts[0])
        if (bypass := passed.take()) is not None:
            bypass = bypass.squeeze(0).permute(0, 3, 1, 2)
            total = shuffle(side_by_side([total, bypass]), variant.partial)
        reach(State(total, 1, variant))
    return states


Kernels = Mapping[str, Mapping[int, Tensor]]
"""A node's kernels of convolutions that read all channels, by their name and edge."""


def _dense_joined(
    kernels: Sequence[Kernels], leaving: Leaving, state: State, edge: int
) -> list[Tensor]:
    """Run a state's convolutions that read all channels, one call for the edges of each kind."""
    maps = []
    for name, having in leaving.dense.items():
        own = [kernels[node][name][edge] for node in having]
        maps.append(convolve(state.active, own[0] if len(own) == 1 else torch.cat(own)))
    return list(normalise(side_by_side(maps)).split(state.x.shape[1], dim=1))


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
