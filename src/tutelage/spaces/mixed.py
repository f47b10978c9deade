"""A node of a supernet's cell: textbook mixed operations, computed by state and by node.

A mixed operation is a weighted sum of all candidate operations on one edge. Run as written, it
does much twice. Here the work is laid out differently, with the same result:

- A state (an input of the cell, or a node's sum) computes its ReLU and its normalised pools once,
  for all edges that leave it, and only when one of them asks.
- A node runs one kind of separable convolution for all its edges at once: their inputs lie side
  by side as channels, so that a depthwise convolution is one call, and a 1x1 one grouped call.
- The last 1x1 convolution of each, its normalisation, its weight in the mix and the sum over edges
  are folded into one product (`fused.folded_sum`): no operation's output is ever written.
- A convolution that reads all channels (NAS-Bench-201) is work enough on its own: it runs edge by
  edge, its weight in the mix the scale of its normalisation.
- `none` is nothing, and neither is an operation that the mix's `chosen` leaves out.
- With partial channels the operations see a state's first channels; the others pass by, summed
  apart, and the shuffle that mixes the two comes once, after the sum.

Tensors are channels-last throughout. No BatchNorm has an affine part, and all use the statistics of
their batch. Which operations an edge has is data: a tuple of names.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.spaces.base import Edges, Mix, Variant
from tutelage.spaces.fused import Convolution, depthwise, folded_sum, normalise, weighted_sum
from tutelage.spaces.ops import CONVOLUTIONS, DENSE, POOLS, shifted


class Weights(NamedTuple):
    """What a mix says of the edges that enter some nodes of one group."""

    operations: Tensor
    """Weights (edges, ops)."""
    chosen: Sequence[Sequence[int]]
    """Columns of the operations that run on every edge."""
    edges: Tensor | None
    """Weight (edges,) of each whole edge; None: 1."""
    auxiliary: float
    """Weight of the skip beside the operations."""
    skip_dropout: float
    """Share of an identity skip's values that are zeroed."""

    def rows(self, start: int, stop: int) -> Weights:
        """Return those of some of the edges."""
        edges = None if self.edges is None else self.edges[start:stop]
        operations, chosen = self.operations[start:stop], self.chosen[start:stop]
        return Weights(operations, chosen, edges, self.auxiliary, self.skip_dropout)


def weights_of(mix: Mix, group: str, edges: Edges) -> Weights:
    """Return what a mix says of a group, reading its weights once."""
    everything = [range(len(names)) for names in edges]
    return Weights(
        operations=mix.operations[group],
        chosen=everything if mix.chosen is None else mix.chosen[group],
        edges=None if mix.edges is None else mix.edges[group],
        auxiliary=mix.auxiliary,
        skip_dropout=mix.skip_dropout,
    )


def select(parameter: Tensor, rows: Sequence[int], count: int) -> Tensor:
    """Take some of the `count` equal blocks that a parameter's first dimension holds."""
    if len(rows) == count:
        return parameter
    blocks = parameter.unflatten(0, (count, -1))
    return torch.cat([blocks[row] for row in rows])


def uniform(fan_in: int, *shape: int) -> nn.Parameter:
    """Draw weights as torch's convolutions do."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def side_by_side(maps: Sequence[Tensor]) -> Tensor:
    """Concatenate channels, without a copy of a single map."""
    return maps[0] if len(maps) == 1 else torch.cat(list(maps), dim=1)


def shuffle(x: Tensor, shares: int) -> Tensor:
    """Deal out the channels of x (B, C, H, W), which lie in equal shares, to each share in turn.

    Channel i of share k comes to place i * shares + k.
    """
    dealt = x.permute(0, 2, 3, 1).unflatten(3, (shares, -1)).transpose(3, 4).flatten(3)
    return dealt.permute(0, 3, 1, 2)


class State:
    """What the edges leaving one state share, computed when first asked for."""

    def __init__(self, x: Tensor, stride: int, variant: Variant) -> None:
        """Hold x (B, C, H, W), which every edge reads with the same stride."""
        seen = x.shape[1] // variant.partial
        self.whole = x
        self.x, self.rest = x, x[:, :0]
        if seen < x.shape[1]:
            # not two slices: the derivative of each would be a whole map, in part zeros
            self.x, self.rest = x.split([seen, x.shape[1] - seen], dim=1)
        self.stride = stride
        self.normalised = variant.normalised_pools
        self._shared: dict[str, Tensor] = {}

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

    def pooled(self, name: str) -> Tensor:
        """Return the pool of this name."""
        if name not in self._shared:
            pool = POOLS[name](self.x, self.stride)
            self._shared[name] = normalise(pool) if self.normalised else pool
        return self._shared[name]

    def noise(self) -> Tensor:
        """Draw a map of standard normal values, of a strided map's size."""
        return torch.randn_like(self.x[:, :, :: self.stride, :: self.stride])

    def zeros(self) -> Tensor:
        """Return what `none` gives."""
        return torch.zeros_like(self.x[:, :, :: self.stride, :: self.stride])


def gather(states: Sequence[State]) -> list[tuple[Tensor, int]]:
    """Lay activated states of equal stride side by side."""
    return [
        (side_by_side([state.active for state in group]), stride)
        for stride, group in groupby(states, key=lambda state: state.stride)
    ]


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
        self.even = Convolution(inputs, half, 1, 2)
        self.odd = Convolution(inputs, outputs - half, 1, 2)

    def forward(self, active: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, outputs, H / 2, W / 2), rounded up."""
        return normalise(torch.cat([self.even(active), self.odd(shifted(active))], dim=1))


class Stack(nn.Module):
    """One kind of separable convolution on several edges, side by side as channels."""

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
        """Run all but the last 1x1 convolution for some of the edges.

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
            y = normalise(F.conv2d(z, previous, groups=len(edges)))
            z = depthwise(y.relu(), kernel, 1, self.dilation)
        return z, pointwise[-1]


class Dense(nn.Module):
    """One kind of ReLU, convolution and BatchNorm on several edges."""

    def __init__(self, name: str, edges: Sequence[int], channels: int) -> None:
        super().__init__()
        self.edges = tuple(edges)
        self.kernel = DENSE[name]
        size = self.kernel
        width = len(edges) * channels
        self.weight = uniform(channels * size**2, width, channels, size, size)

    def forward(self, active: Tensor, edge: int, scale: Tensor) -> Tensor:
        """Run on the activated map of one edge, times its scale ()."""
        kernel = select(self.weight, [self.edges.index(edge)], len(self.edges))
        return normalise(F.conv2d(active, kernel, padding=self.kernel // 2), scale)


Compared = tuple[str, int, Tensor]
"""Group, edge and its operations' maps (ops, B, D) on the same inputs."""


def compared(
    group: str, nodes: Iterable[Any], states: list[State], variant: Variant
) -> Generator[Compared, None, list[State]]:
    """Run a cell's nodes, yielding what all operations of an edge put out.

    Every image goes on with one operation of each edge, dealt out evenly and at random (EnNAS,
    section 3.3).

    Args:
        group: The cell's.
        nodes: The cell's.
        states: What comes from outside; the nodes' states are appended.
        variant: How the nodes depart from the space's plain ones.

    Returns:
        All states.
    """
    start = 0
    for node in nodes:
        edges = node.edges
        total: Any = 0
        for edge, names in enumerate(edges):
            weights = states[0].x.new_ones(len(edges), len(names))
            maps = []
            for column in range(len(names)):
                chosen: list[list[int]] = [[] for _ in edges]
                chosen[edge] = [column]
                maps.append(node(states, Weights(weights, chosen, None, 0.0, 0.0)))
            yield group, start + edge, torch.stack(maps).flatten(2)
            total = total + dealt(torch.stack(maps))
        start += len(edges)
        states.append(State(total, 1, variant))
    return states


def dealt(maps: Tensor) -> Tensor:
    """Give every image the map of one operation of (ops, B, C, H, W), evenly and at random."""
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
        """Sum weights times operations over the chosen columns of every edge."""
        scale = weights.operations
        if weights.edges is not None:
            scale = scale * weights.edges.unsqueeze(1)
        parts = [
            *self._maps(states, weights, scale),
            *self._separable(states, weights, scale),
            *self._dense(states, weights, scale),
        ]
        total = sum(parts[1:], start=parts[0]) if parts else states[0].zeros()
        if self.variant.partial == 1:
            return total
        bypasses = [state.bypass for state in states]
        edges = scale.new_ones(len(states)) if weights.edges is None else weights.edges
        passed = weighted_sum(edges, bypasses)
        return shuffle(torch.cat([total, passed], dim=1), self.variant.partial)

    def _maps(self, states: Sequence[State], weights: Weights, scale: Tensor) -> list[Tensor]:
        """Sum what is a map before its weight: skips, pools, noise."""
        terms: list[Tensor] = []
        scales: list[Tensor] = []
        for edge, (state, columns) in enumerate(zip(states, weights.chosen, strict=True)):
            for column in columns:
                name = self.edges[edge][column]
                if name in POOLS:
                    terms.append(state.pooled(name))
                elif name == "noise":
                    terms.append(state.noise())
                elif name == "skip_connect":
                    terms.append(self._skip(self.reductions, edge, state, weights.skip_dropout))
                else:
                    continue
                scales.append(scale[edge, column])
            if self.variant.auxiliary_skip and weights.auxiliary:
                terms.append(self._skip(self.auxiliaries, edge, state, 0.0))
                scales.append(scale.new_tensor(weights.auxiliary))
        return [weighted_sum(torch.stack(scales), terms)] if terms else []

    def _skip(self, reductions: nn.ModuleDict, edge: int, state: State, dropout: float) -> Tensor:
        if state.stride == 2:
            return reductions[str(edge)](state.active)
        return F.dropout(state.x, dropout) if dropout else state.x

    def _separable(self, states: Sequence[State], weights: Weights, scale: Tensor) -> list[Tensor]:
        """Sum separable convolutions, those of one kind together."""
        running: dict[str, list[int]] = {}
        for edge, columns in enumerate(weights.chosen):
            for column in columns:
                if self.edges[edge][column] in CONVOLUTIONS:
                    running.setdefault(self.edges[edge][column], []).append(edge)
        maps, pointwise, scales = [], [], []
        inputs: dict[tuple[int, ...], list[tuple[Tensor, int]]] = {}
        for name, edges in running.items():
            together = tuple(edges)
            if together not in inputs:
                inputs[together] = gather([states[edge] for edge in edges])
            z, last = self.stacks[name](inputs[together], edges)
            maps.append(z)
            pointwise.append(last)
            scales += [scale[edge, self.edges[edge].index(name)] for edge in edges]
        return [folded_sum(maps, torch.cat(pointwise), torch.stack(scales))] if maps else []

    def _dense(self, states: Sequence[State], weights: Weights, scale: Tensor) -> list[Tensor]:
        """List the convolutions that read all channels, times their weights."""
        return [
            self.stacks[self.edges[edge][column]](state.active, edge, scale[edge, column])
            for edge, (state, columns) in enumerate(zip(states, weights.chosen, strict=True))
            for column in columns
            if self.edges[edge][column] in DENSE
        ]
