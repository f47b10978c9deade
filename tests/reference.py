"""Slow, obvious versions of what the package does fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.spaces.base import PLAIN, Edges, Size, Variant
from tutelage.spaces.nb201 import GROUP, PLAIN_201

# The naive supernets: one module per operation per edge, weighted and summed as the papers say.


def batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, affine=False, track_running_stats=False)


def relu_convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), convolution, batch_norm(outputs))


def naive_stem(size: Size, width: int) -> nn.Module:
    convolution = nn.Conv2d(size.image_channels, width, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width, track_running_stats=False))


class NaiveReduce(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        # strided by the slices below: see test_strided.py
        self.even = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.odd = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.norm = batch_norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        even, odd = x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]
        return self.norm(torch.cat([self.even(even), self.odd(odd)], dim=1))


class NaiveZero(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return 0 * x[:, :, :: self.stride, :: self.stride]


class NaiveNoise(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.randn_like(x[:, :, :: self.stride, :: self.stride])


def naive_separable(channels: int, kernel: int, stride: int, dilation: int) -> list[nn.Module]:
    padding = dilation * (kernel - 1) // 2
    return [
        nn.ReLU(),
        nn.Conv2d(
            channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False
        ),
        nn.Conv2d(channels, channels, 1, bias=False),
        batch_norm(channels),
    ]


def naive_operation(name: str, channels: int, stride: int, normalised: bool = True) -> nn.Module:
    if name == "none":
        return NaiveZero(stride)
    if name == "noise":
        return NaiveNoise(stride)
    if name.endswith("_pool_3x3"):
        pool = (
            nn.MaxPool2d(3, stride, padding=1)
            if name.startswith("max")
            else nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
        )
        return nn.Sequential(pool, batch_norm(channels)) if normalised else pool
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else NaiveReduce(channels, channels)
    kernel = int(name[-1])
    if name.startswith("nor"):
        return relu_convolution(channels, channels, kernel)
    if name.startswith("dil"):
        return nn.Sequential(*naive_separable(channels, kernel, stride, 2))
    first, second = (naive_separable(channels, kernel, each, 1) for each in (stride, 1))
    return nn.Sequential(*first, *second)


class NaiveMixed(nn.ModuleList):
    """The operations of one edge; an auxiliary skip is the last."""

    def __init__(self, names: Sequence[str], channels: int, stride: int, variant: Variant) -> None:
        self.partial, self.stride = variant.partial, stride
        names = [*names, "skip_connect"] if variant.auxiliary_skip else names
        seen = channels // variant.partial
        pools = variant.normalised_pools
        super().__init__(naive_operation(name, seen, stride, pools) for name in names)

    def forward(self, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """Mix the first share of the channels, pass the others by, deal all out."""
        first, *others = x.chunk(self.partial, dim=1)
        shares = [sum(w * operation(first) for w, operation in zip(weights, self, strict=True))]
        shares += [F.max_pool2d(x, 2) for x in others] if self.stride == 2 else others
        dealt = [share[:, i] for i in range(first.shape[1]) for share in shares]
        return torch.stack(dealt, dim=1)


class NaiveNodes(nn.Module):
    """Nodes that each sum mixed operations on all states before them."""

    def __init__(
        self, edges: Edges, inputs: int, channels: int, stride: int, variant: Variant
    ) -> None:
        """Build them; edges that leave one of the `inputs` have this stride."""
        super().__init__()
        self.auxiliary = variant.auxiliary_skip
        self.edges = nn.ModuleList()
        self.nodes = 0
        while len(self.edges) < len(edges):
            for source in range(inputs + self.nodes):
                names = edges[len(self.edges)]
                own = stride if source < inputs else 1
                self.edges.append(NaiveMixed(names, channels, own, variant))
            self.nodes += 1

    def run(self, states: list[Tensor], weights: Tensor, edges: Tensor, auxiliary: float) -> None:
        """Append the nodes to the states."""
        edge = 0
        for _ in range(self.nodes):
            total = 0
            for state in list(states):
                row = [*weights[edge], auxiliary] if self.auxiliary else [*weights[edge]]
                total = total + edges[edge] * self.edges[edge](state, row)
                edge += 1
            states.append(total)


class NaiveCell(NaiveNodes):
    def __init__(
        self,
        edges: Edges,
        inputs: tuple[int, int],
        channels: int,
        reduce: bool,
        after: bool,
        variant: Variant,
    ) -> None:
        super().__init__(edges, 2, channels, 2 if reduce else 1, variant)
        self.before = (
            NaiveReduce(inputs[0], channels) if after else relu_convolution(inputs[0], channels, 1)
        )
        self.last = relu_convolution(inputs[1], channels, 1)

    def forward(self, before: Tensor, last: Tensor, *arch) -> Tensor:
        states = [self.before(before), self.last(last)]
        self.run(states, *arch)
        return torch.cat(states[2:], dim=1)


class NaiveCells(nn.Module):
    """The supernet of DARTS' cells in CIFAR stem."""

    def __init__(self, edges: Mapping[str, Edges], size: Size, variant: Variant = PLAIN) -> None:
        super().__init__()
        before = last = 3 * size.channels
        self.stem = naive_stem(size, last)
        self.groups = []
        self.cells = nn.ModuleList()
        channels, after = size.channels, False
        for index in range(size.cells):
            reduce = index in (size.cells // 3, 2 * size.cells // 3)
            group = "reduce" if reduce else "normal"
            channels = 2 * channels if reduce else channels
            inputs = (before, last)
            self.cells.append(NaiveCell(edges[group], inputs, channels, reduce, after, variant))
            self.groups.append(group)
            before, last, after = last, 4 * channels, reduce
        self.norm = nn.BatchNorm2d(last, track_running_stats=False) if variant.final_norm else None
        self.classifier = nn.Linear(last, size.classes)

    def forward(
        self,
        x: Tensor,
        operations: Mapping[str, Tensor],
        edges: Mapping[str, Tensor] | None = None,
        auxiliary: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        before = last = self.stem(x)
        for group, cell in zip(self.groups, self.cells, strict=True):
            weights = operations[group]
            whole = torch.ones(len(weights)) if edges is None else edges[group]
            before, last = last, cell(before, last, weights, whole, auxiliary)
        last = last if self.norm is None else F.relu(self.norm(last))
        features = F.adaptive_avg_pool2d(last, 1).flatten(1)
        return self.classifier(features), features


class NaiveSupernet(NaiveCells):
    """DARTS' supernet in CIFAR stem, with the same operations on all edges."""

    def __init__(self, names: tuple[str, ...], size: Size) -> None:
        super().__init__(dict.fromkeys(("normal", "reduce"), (names,) * 14), size)


class NaiveHalve(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = relu_convolution(channels, 2 * channels, 3, 2)
        self.second = relu_convolution(2 * channels, 2 * channels, 3)
        self.shortcut = nn.Conv2d(channels, 2 * channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)) + self.shortcut(F.avg_pool2d(x, 2))


class NaiveBenchmark(nn.Module):
    """NAS-Bench-201's supernet: three stages of cells of three nodes."""

    def __init__(
        self, edges: Mapping[str, Edges], size: Size, variant: Variant = PLAIN_201
    ) -> None:
        super().__init__()
        widths = [size.channels, 2 * size.channels, 4 * size.channels]
        self.stem = naive_stem(size, widths[0])
        self.stages = [width for width in widths for _ in range(size.cells)]
        self.cells = nn.ModuleList(
            NaiveNodes(edges[GROUP], 1, width, 1, variant) for width in self.stages
        )
        self.halves = nn.ModuleList(NaiveHalve(width) for width in widths[:2])
        self.norm = nn.BatchNorm2d(widths[2], track_running_stats=False)
        self.classifier = nn.Linear(widths[2], size.classes)

    def forward(
        self,
        x: Tensor,
        operations: Mapping[str, Tensor],
        edges: Mapping[str, Tensor] | None = None,
        auxiliary: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        weights = operations[GROUP]
        whole = torch.ones(len(weights)) if edges is None else edges[GROUP]
        x = self.stem(x)
        halves = iter(self.halves)
        for width, cell in zip(self.stages, self.cells, strict=True):
            if width > x.shape[1]:
                x = next(halves)(x)
            states = [x]
            cell.run(states, weights, whole, auxiliary)
            x = states[-1]
        features = F.adaptive_avg_pool2d(F.relu(self.norm(x)), 1).flatten(1)
        return self.classifier(features), features


def unstack(supernet: nn.Module, tree: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a supernet's weights, or gradients in them, to the naive supernet's, edge by edge."""
    plain = {}
    for name, tensor in tree.items():
        body, _, place = name.removeprefix("skeleton.").partition(".nodes.")
        if not place:
            for old, new in (("stem.0.0", "stem.0"), ("stem.0.1", "stem.1"), ("convolution", "1")):
                body = body.replace(old, new)
            plain[body] = tensor
            continue
        index, kind, key, *rest = place.split(".")
        nodes = supernet.get_submodule(name.partition(".nodes.")[0]).nodes
        node, first = nodes[int(index)], sum(len(each.edges) for each in nodes[: int(index)])

        def prefix(edge: int, column: int, body=body, first=first) -> str:
            return f"{body}.edges.{first + edge}.{column}"

        if kind == "stacks":
            stack = node.stacks[key]
            # a sep_conv is ReLU, depthwise, pointwise, BatchNorm twice; a nor_conv has one kernel
            layer = 1 if rest == ["weight"] else 4 * int(rest[1]) + 1 + (rest[0] == "pointwise")
            for edge, block in zip(stack.edges, tensor.chunk(len(stack.edges)), strict=True):
                plain[f"{prefix(edge, node.edges[edge].index(key))}.{layer}.weight"] = block
        else:
            names, edge = node.edges[int(key)], int(key)
            column = len(names) if kind == "auxiliaries" else names.index("skip_connect")
            plain[f"{prefix(edge, column)}.{rest[0]}.weight"] = tensor
    return plain
