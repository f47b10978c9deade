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
from collections.abc import Generator, Iterable, Sequence
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.spaces.base import Edges, Variant
from tutelage.spaces.convolution import Convolution, convolve, depthwise, subsample
from tutelage.spaces.fused import (
    folded_sum,
    joins,
    normalise,
    normalised,
    normalised_sum,
    side_by_side,
    stacked,
    weighted_sum,
)
from tutelage.spaces.ops import CONVOLUTIONS, DENSE, POOLS, shifted
from tutelage.spaces.plan import Weights, alone


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
        self._shared: dict[str, Tensor] = {}
        self._stacks: dict[tuple[str, ...], list[Tensor]] = {}

    @property
    def bypass(self) -> Tensor:
        """The channels that no operation sees."""
        if self.stride == 1:
            return self.rest
        if "bypass" not in self._shared:
            self._shared["bypass"] = F.max_pool2d(self.rest, 2, 2, ceil_mode=True)
        return self._shared["bypass"]

    @property
    def active(self) -> Tensor:
        """ReLU of x."""
        if "relu" not in self._shared:
            self._shared["relu"] = self.x.relu()
        return self._shared["relu"]

    @property
    def halves(self) -> tuple[Tensor, Tensor]:
        """The even and the odd pixels of `active`."""
        if "even" not in self._shared:
            self._shared["even"], self._shared["odd"] = halves(self.active)
        return self._shared["even"], self._shared["odd"]

    def pooled(self, names: Sequence[str]) -> list[Tensor]:
        """Return the pools of these names."""
        new = [name for name in names if name not in self._shared]
        maps = [POOLS[name](self.x, self.stride) for name in new]
        if new and self.normalised and joins(maps[0]):
            maps = list(normalise(side_by_side(maps)).split(self.x.shape[1], dim=1))
        elif self.normalised:
            maps = [normalise(x) for x in maps]
        self._shared.update(zip(new, maps, strict=True))
        return [self._shared[name] for name in names]

    def stacks(self, names: tuple[str, ...]) -> list[Tensor]:
        """Stack pools and the identity, in the order of their names."""
        if names not in self._stacks:
            pools = iter(self.pooled([name for name in names if name in POOLS]))
            self._stacks[names] = stacked([next(pools) if n in POOLS else self.x for n in names])
        return self._stacks[names]

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
            z = depthwise(y.relu(), kernel, 1, self.dilation)
        return z, pointwise[-1]


class Dense(nn.Module):
    """One kind of convolution that reads all channels on several edges."""

    def __init__(self, name: str, edges: Sequence[int], channels: int) -> None:
        super().__init__()
        self.edges = tuple(edges)
        self.kernel = DENSE[name]
        size = self.kernel
        width = len(edges) * channels
        self.weight = uniform(channels * size**2, width, channels, size, size)

    def forward(self, inputs: Sequence[tuple[Tensor, int]]) -> list[Tensor]:
        """Convolve activated maps, each with the kernel of its edge."""
        kernels = self.weight.unflatten(0, (len(self.edges), -1)).unbind()
        return [convolve(active, kernels[self.edges.index(edge)]) for active, edge in inputs]


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
        edges = node.edges
        total: Any = 0
        for edge, names in enumerate(edges):
            x = states[0].x
            maps = [node(states, alone(edges, edge, column, x)) for column in range(len(names))]
            yield group, start + edge, torch.stack(maps).flatten(2)
            total = total + dealt(torch.stack(maps))
        start += len(edges)
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
        self.stacks = nn.ModuleDict()
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

    def forward(self, states: Sequence[State], weights: Weights) -> Tensor:
        """Sum weights times operations, over the operations that run on every edge."""
        stacks, dense = self._stacks(states, weights), self._dense(states, weights)
        scales, of_dense = weights.summed.split([len(weights.plan.maps), len(dense)])
        if dense and joins(dense[0]):
            stacks.append(normalised(dense))
            scales, dense = weights.summed, []
        if self.variant.auxiliary_skip and weights.auxiliary:
            skips = [self._auxiliary(edge, state) for edge, state in enumerate(states)]
            stacks += stacked(skips)
            scales = torch.cat([scales, scales.new_full((len(skips),), weights.auxiliary)])
        parts = [weighted_sum(scales, stacks)] if stacks else []
        if dense:
            parts.append(normalised_sum(of_dense, dense))
        if weights.plan.separable:
            parts.append(self._separable(states, weights))
        total = sum(parts[1:], start=parts[0]) if parts else states[0].zeros()
        if self.variant.partial == 1:
            return total
        edges = total.new_ones(len(states)) if weights.edges is None else weights.edges
        passed = weighted_sum(edges, stacked([state.bypass for state in states]))
        return shuffle(side_by_side([total, passed]), self.variant.partial)

    def _stacks(self, states: Sequence[State], weights: Weights) -> list[Tensor]:
        """Stack the maps that are not convolutions, edge by edge."""
        stacks = []
        for edge, same in groupby(weights.plan.maps, key=lambda run: run[0]):
            state, names = states[edge], tuple(name for _, name in same)
            shared = state.stride == 1 and not weights.skip_dropout and "noise" not in names
            if shared or set(names) <= set(POOLS):
                stacks += state.stacks(names)
            else:
                dropout = weights.skip_dropout
                stacks += stacked([self._map(edge, state, n, dropout) for n in names])
        return stacks

    def _dense(self, states: Sequence[State], weights: Weights) -> list[Tensor]:
        """Run the convolutions that read all channels, edge by edge."""
        found: dict[tuple[int, str], Tensor] = {}
        for name in dict.fromkeys(name for _, name in weights.plan.dense):
            edges = [edge for edge, other in weights.plan.dense if other == name]
            maps = self.stacks[name]([(states[edge].active, edge) for edge in edges])
            found |= {(edge, name): x for edge, x in zip(edges, maps, strict=True)}
        return [found[run] for run in weights.plan.dense]

    def _map(self, edge: int, state: State, name: str, dropout: float) -> Tensor:
        """Return a pool, noise or a skip; dropout zeroes values of an identity skip."""
        if name in POOLS:
            return state.pooled([name])[0]
        if name == "noise":
            return state.noise()
        if state.stride == 2:
            return self.reductions[str(edge)](state.halves)
        return F.dropout(state.x, dropout) if dropout else state.x

    def _auxiliary(self, edge: int, state: State) -> Tensor:
        """Return the auxiliary skip beside an edge's operations."""
        return state.x if state.stride == 1 else self.auxiliaries[str(edge)](state.halves)

    def _separable(self, states: Sequence[State], weights: Weights) -> Tensor:
        """Sum separable convolutions, all of one kind together."""
        inputs: dict[tuple[int, ...], list[tuple[Tensor, int]]] = {}
        maps, pointwise = [], []
        for name, edges in weights.plan.separable.items():
            if edges not in inputs:
                inputs[edges] = gather([states[edge] for edge in edges])
            z, last = self.stacks[name](inputs[edges], edges)
            maps.append(z)
            pointwise.append(last)
        return folded_sum(maps, torch.cat(pointwise), weights.folded)
