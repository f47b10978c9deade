"""The supernet of a cell space: textbook mixed operations, computed by state and by node.

A mixed operation is a weighted sum of all candidate operations on one edge. Run as written, it
does much twice. Here the work is laid out differently, with the same result:

- A state (an input of the cell, or a node's sum) computes its ReLU and its normalised pools once,
  for all edges that leave it, and only when one of them asks.
- A node runs one kind of convolution for all its edges at once: their inputs lie side by side as
  channels, so that a depthwise convolution is one call, and a 1x1 convolution one grouped call.
- The last 1x1 convolution of every operation, its normalisation, its weight in the mix and the sum
  over edges are folded into one product (`fused.fold`): no operation's output is ever written.
- `none` is nothing, and neither is an operation that the mix's `chosen` leaves out.

Tensors are channels-last throughout. Every BatchNorm but the stem's has no affine part, and all
use the statistics of their batch. Which operations an edge has is data: a tuple of names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.spaces.base import Mix, Size
from tutelage.spaces.fused import channels_last, depthwise, fold, normalise, weighted_sum
from tutelage.spaces.ops import CONVOLUTIONS, NODES, POOLS, Place, layout, shifted, stem

Edges = tuple[tuple[str, ...], ...]
"""Operation names of every edge of a cell, edges ordered by node, then by predecessor."""


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


class State:
    """What the edges leaving one state share, computed when first asked for."""

    def __init__(self, x: Tensor, stride: int) -> None:
        """Hold x (B, C, H, W), which every edge reads with the same stride."""
        self.x = x
        self.stride = stride
        self._shared: dict[str, Tensor] = {}

    @property
    def active(self) -> Tensor:
        """ReLU of x."""
        if "relu" not in self._shared:
            self._shared["relu"] = self.x.relu()
        return self._shared["relu"]

    def pooled(self, name: str) -> Tensor:
        """Return the normalised pool of this name."""
        if name not in self._shared:
            self._shared[name] = normalise(POOLS[name](self.x, self.stride))
        return self._shared[name]

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
        self.convolution = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, active: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, outputs, H, W)."""
        return normalise(self.convolution(active))


class Reduce(nn.Module):
    """1x1 convolutions of the even and of the odd pixels of an activated map, normalised."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.even = nn.Conv2d(inputs, half, 1, 2, bias=False)
        self.odd = nn.Conv2d(inputs, outputs - half, 1, 2, bias=False)

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


class MixedNode(nn.Module):
    """A node: the weighted sum of all operations on all edges that enter it."""

    def __init__(self, edges: Edges, strides: Sequence[int], channels: int) -> None:
        super().__init__()
        self.edges = edges
        self.stacks = nn.ModuleDict()
        for name in CONVOLUTIONS:
            having = [edge for edge, names in enumerate(edges) if name in names]
            if having:
                self.stacks[name] = Stack(name, having, channels)
        self.reductions = nn.ModuleDict(
            {
                str(edge): Reduce(channels, channels)
                for edge, names in enumerate(edges)
                if strides[edge] == 2 and "skip_connect" in names
            }
        )

    def forward(
        self, states: Sequence[State], weights: Tensor, chosen: Sequence[Sequence[int]]
    ) -> Tensor:
        """Sum weights (edges, ops) times operations over the chosen columns of every edge."""
        terms: list[Tensor] = []
        scales: list[Tensor] = []
        stacked: dict[str, list[int]] = {}
        for edge, columns in enumerate(chosen):
            for column in columns:
                name = self.edges[edge][column]
                if name in self.stacks:
                    stacked.setdefault(name, []).append(edge)
                elif name != "none":
                    terms.append(self._term(name, edge, states[edge]))
                    scales.append(weights[edge, column])
        parts = [weighted_sum(torch.stack(scales), terms)] if terms else []
        inputs: dict[tuple[int, ...], list[tuple[Tensor, int]]] = {}
        for name, edges in stacked.items():
            together = tuple(edges)
            if together not in inputs:
                inputs[together] = gather([states[edge] for edge in edges])
            z, pointwise = self.stacks[name](inputs[together], edges)
            scale = [weights[edge, self.edges[edge].index(name)] for edge in edges]
            parts.append(F.conv2d(z, *fold(z, pointwise, torch.stack(scale))))
        return sum(parts[1:], start=parts[0]) if parts else states[0].zeros()

    def _term(self, name: str, edge: int, state: State) -> Tensor:
        if name in POOLS:
            return state.pooled(name)
        return state.x if state.stride == 1 else self.reductions[str(edge)](state.active)


class MixedCell(nn.Module):
    """A cell of the supernet: each of its nodes reads all states before it."""

    def __init__(self, edges: Edges, place: Place) -> None:
        """Build the cell at its place from the operation names of every edge."""
        super().__init__()
        self.stride = place.stride
        before, last = place.inputs
        self.before = (Reduce if place.reduced else Project)(before, place.channels)
        self.last = Project(last, place.channels)
        self.nodes = nn.ModuleList()
        start = 0
        for sources in range(2, 2 + NODES):
            strides = [place.stride] * 2 + [1] * (sources - 2)
            node = MixedNode(edges[start : start + sources], strides, place.channels)
            self.nodes.append(node)
            start += sources

    def forward(
        self, before: Tensor, last: Tensor, weights: Tensor, chosen: Sequence[Sequence[int]]
    ) -> Tensor:
        """Map two activated inputs to the nodes' channels, concatenated."""
        states = [State(self.before(before), self.stride), State(self.last(last), self.stride)]
        start = 0
        for node in self.nodes:
            rows = slice(start, start + len(states))
            states.append(State(node(states, weights[rows], chosen[rows]), 1))
            start = rows.stop
        return torch.cat([state.x for state in states[2:]], dim=1)


class Supernet(nn.Module):
    """Cells of mixed operations between a stem and a classifier."""

    def __init__(self, edges: Mapping[str, Edges], size: Size) -> None:
        """Build the network for the operation names of every edge of every group."""
        super().__init__()
        self.stem = stem(size, track=False)
        self.everything = {
            group: [range(len(names)) for names in rows] for group, rows in edges.items()
        }
        self.plan = layout(size, dict.fromkeys(edges, NODES))
        self.cells = nn.ModuleList(MixedCell(edges[place.group], place) for place in self.plan)
        self.classifier = nn.Linear(self.plan[-1].outputs, size.classes)

    def forward(self, x: Tensor, mix: Mix) -> tuple[Tensor, Tensor]:
        """Map images (B, C, H, W) to logits (B, classes) and features (B, D)."""
        chosen = self.everything if mix.chosen is None else mix.chosen
        before = last = self.stem[0](channels_last(x)).relu()
        for part in self.stem[1:]:
            last = part(before).relu()
        for place, cell in zip(self.plan, self.cells, strict=True):
            output = cell(before, last, mix.operations[place.group], chosen[place.group])
            before, last = last, output.relu()
        features = output.mean((2, 3))
        return self.classifier(features), features
