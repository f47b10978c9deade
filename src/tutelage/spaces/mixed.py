"""A node of a supernet's cell: DARTS' mixed operations, computed by state and by node.

A mixed operation is a weighted sum of all candidate operations on one edge. A direct implementation
repeats much work. Here the work is arranged differently, with the same result:

- A state (an input of the cell, or a node's sum) computes its ReLU and its normalised pools once,
  for all edges that leave it, and only when an edge needs them.
- A node runs one kind of separable convolution for all its edges at once. Their inputs are
  concatenated as channels, so that a depthwise convolution is one call, and a 1x1 convolution one
  grouped call. On small maps, where a call takes longer than its work, kinds of one dilation are
  one, with kernels of the largest size.
- The last 1x1 convolution of each, its normalisation, its architecture weight and the sum over
  edges are folded into one product (`folding.folded_sum`): no operation's output is written to
  memory.
- Small maps that leave a state are summed for all nodes after it by one product (`mixed_cell.py`).
- `none` is not computed, nor are operations that `chosen` of the architecture weights leaves out.
- An operation of one's own is a module of its edge, whose map is summed with the others.
- With partial channels the operations see a state's first channels. The others bypass them and are
  summed separately, and one shuffle after the sum mixes the two.

Tensors are channels-last throughout. No BatchNorm has an affine part, and all use the statistics of
their batch. The operations of an edge are data: a tuple of names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage import shares
from tutelage.spaces.base import Edges, Variant
from tutelage.spaces.convolution import Convolution, convolve, depthwise, relu_depthwise
from tutelage.spaces.folding import folded_sum
from tutelage.spaces.fused import joined, joins, mix, normalise, side_by_side, stacked
from tutelage.spaces.ops import CONVOLUTIONS, DENSE, OPERATIONS, POOLS
from tutelage.spaces.own import Operation
from tutelage.spaces.parallel import concurrently
from tutelage.spaces.plan import AUXILIARY, Weights
from tutelage.spaces.states import State, dense, gather
from tutelage.spaces.style import Style

SUPERNET = Style(affine=False, track=False)
"""The style of operations of one's own in a supernet of cells."""


def select(parameter: Tensor, rows: Sequence[int], count: int) -> Tensor:
    """Select some of the `count` equal blocks of a parameter's first dimension, in order."""
    if len(rows) == count:
        return parameter
    blocks = parameter.unflatten(0, (count, -1))
    return torch.cat([blocks[row] for row in rows])


def merges(x: Tensor) -> bool:
    """Tell whether a map is so small that kinds of convolution run as one."""
    return x.device.type == "cpu" and joins(x)


def uniform(fan_in: int, *shape: int) -> nn.Parameter:
    """Initialise weights as torch's convolutions do."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


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

    def selected(self, edges: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the depthwise and the 1x1 kernels of some of the edges, by repetition."""
        rows = [self.edges.index(edge) for edge in edges]
        depthwise, pointwise = (
            [select(each, rows, len(self.edges)) for each in own]
            for own in (self.depthwise, self.pointwise)
        )
        return depthwise, pointwise


def run_stacks(
    stacks: Sequence[Stack], inputs: Sequence[tuple[Tensor, int]], edges: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Run kinds of one dilation together, except their last 1x1 convolutions.

    Args:
        stacks: The kinds. Smaller kernels get zeros around them.
        inputs: Activated maps (B, kinds * n * C, H, W), each edge's once for every kind, and their
            strides; together for all `edges`.
        edges: The edges that run.

    Returns:
        The maps (B, kinds * edges * C, H, W) and the kernel (kinds * edges * C, C, 1, 1) to be
        folded.
    """
    kernels, pointwise = (
        [widened(kinds) for kinds in zip(*each, strict=True)]
        for each in zip(*(stack.selected(edges) for stack in stacks), strict=True)
    )
    dilation, count = stacks[0].dilation, len(stacks)
    sizes = [x.shape[1] // count for x, _ in inputs]
    parts = kernels[0].unflatten(0, (count, -1)).split(sizes, dim=1)
    maps = [
        depthwise(x, kernel.flatten(0, 1), stride, dilation)
        for (x, stride), kernel in zip(inputs, parts, strict=True)
    ]
    if count > 1 and len(maps) > 1:  # from the order of inputs to that of kinds
        maps = [
            y for kind in zip(*(z.chunk(count, dim=1) for z in maps), strict=True) for y in kind
        ]
    z = side_by_side(maps)
    for previous, kernel in zip(pointwise, kernels[1:], strict=False):
        y = normalise(convolve(z, previous, groups=count * len(edges)))
        z = relu_depthwise(y, kernel, 1, dilation)
    return z, pointwise[-1]


def widened(kernels: Sequence[Tensor]) -> Tensor:
    """Concatenate kernels (O, I, k, k), k odd, with zeros around the smaller ones."""
    widest = max(kernel.shape[-1] for kernel in kernels)
    rims = [(widest - kernel.shape[-1]) // 2 for kernel in kernels]
    each = [
        F.pad(kernel, (rim,) * 4) if rim else kernel
        for kernel, rim in zip(kernels, rims, strict=True)
    ]
    return joined(each)


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
        if len(self.edges) == 1:
            return {self.edges[0]: self.weight}
        each = self.weight.unflatten(0, (len(self.edges), -1)).unbind()
        return dict(zip(self.edges, each, strict=True))


class MixedNode(nn.Module):
    """A node: the weighted sum of all operations on all edges that enter it."""

    def __init__(
        self,
        edges: Edges,
        strides: Sequence[int],
        channels: int,
        variant: Variant,
        own: Sequence[Operation] = (),
    ) -> None:
        super().__init__()
        self.edges = edges
        self.variant = variant
        self.seen = seen = channels // variant.partial
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
        self.own: Any = nn.ModuleDict()
        for edge, (names, stride) in enumerate(zip(edges, strides, strict=True)):
            mine = {
                each.name: each.build(seen, seen, stride, SUPERNET)
                for each in own
                if each.name in names
            }
            if mine:
                self.own[str(edge)] = nn.ModuleDict(mine)

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

    def operation(self, state: State, edge: int, name: str) -> Tensor:
        """Return the output (B, C, H, W) of a single operation of an edge."""
        if name == "none":
            return state.zeros()
        if name in DENSE:
            return normalise(dense(state, self.stacks[name].kernels()[edge]))
        if name in CONVOLUTIONS:
            states = {edge: state}
            return self._separable(states, {name: (edge,)}, state.x.new_ones(1))
        return self._map(edge, state, name, 0.0)

    def _map(self, edge: int, state: State, name: str, dropout: float) -> Tensor:
        """Return a pool, noise, a skip or an own operation; dropout is of identity skips."""
        if name in POOLS:
            return state.pooled([name])[0]
        if name == "noise":
            return state.noise()
        if name not in OPERATIONS and name != AUXILIARY:
            output: Tensor = self.own[str(edge)][name](state.x)
            return output
        if state.stride == 2:
            own = self.auxiliaries if name == AUXILIARY else self.reductions
            return own[str(edge)](state.halves)
        return shares.dropout(state.x, dropout) if dropout else state.x

    def _separable(
        self,
        states: Sequence[State] | Mapping[int, State],
        kinds: Mapping[str, tuple[int, ...]],
        weights: Tensor,
    ) -> Tensor:
        """Sum separable convolutions, all of one kind together, or small ones of one dilation."""
        families = alike(kinds, merges(states[next(iter(kinds.values()))[0]].x))
        several = dict.fromkeys((edges, len(names)) for names, edges in families)
        inputs = {(e, times): gather([states[edge] for edge in e], times) for e, times in several}
        runs = [
            partial(run_stacks, [self.stacks[name] for name in names], inputs[e, len(names)], e)
            for names, e in families
        ]
        reads = [x for each in inputs.values() for x, _ in each]
        reads += [kernel for name in kinds for kernel in self.stacks[name].kernels]
        maps, pointwise = zip(*concurrently(runs, reads), strict=True)
        return folded_sum(maps, torch.cat(pointwise), weights)


def alike(
    kinds: Mapping[str, tuple[int, ...]], merged: bool
) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
    """Sort kinds of separable convolution, in their order, into those that run as one, with edges.

    They have the same edges, dilation and number of repetitions; unless merged, each is alone.
    """
    same = groupby(kinds, lambda name: (kinds[name], CONVOLUTIONS[name][1:] if merged else name))
    return [(tuple(names), edges) for (edges, _), names in same]
