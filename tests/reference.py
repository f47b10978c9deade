"""Slow, obvious versions of what the package does fast."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.spaces.base import Size
from tutelage.spaces.supernet import Supernet

# The naive supernet: one module per operation per edge, weighted and summed as the paper says.


def batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, affine=False, track_running_stats=False)


class NaiveReduce(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(inputs, outputs // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(inputs, outputs // 2, 1, 2, bias=False)
        self.norm = batch_norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))


class NaiveZero(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return 0 * x[:, :, :: self.stride, :: self.stride]


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


def naive_operation(name: str, channels: int, stride: int) -> nn.Module:
    if name == "none":
        return NaiveZero(stride)
    if name == "max_pool_3x3":
        return nn.Sequential(nn.MaxPool2d(3, stride, padding=1), batch_norm(channels))
    if name == "avg_pool_3x3":
        pool = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
        return nn.Sequential(pool, batch_norm(channels))
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else NaiveReduce(channels, channels)
    kernel = int(name[-1])
    if name.startswith("dil"):
        return nn.Sequential(*naive_separable(channels, kernel, stride, 2))
    first, second = (naive_separable(channels, kernel, each, 1) for each in (stride, 1))
    return nn.Sequential(*first, *second)


class NaiveCell(nn.Module):
    def __init__(
        self,
        names: tuple[str, ...],
        inputs: tuple[int, int],
        channels: int,
        reduce: bool,
        after: bool,
    ) -> None:
        super().__init__()

        def project(width: int) -> nn.Module:
            return nn.Sequential(
                nn.ReLU(), nn.Conv2d(width, channels, 1, bias=False), batch_norm(channels)
            )

        self.before = NaiveReduce(inputs[0], channels) if after else project(inputs[0])
        self.last = project(inputs[1])
        self.edges = nn.ModuleList()
        for node in range(4):
            for source in range(node + 2):
                stride = 2 if reduce and source < 2 else 1
                self.edges.append(
                    nn.ModuleList(naive_operation(name, channels, stride) for name in names)
                )

    def forward(self, before: Tensor, last: Tensor, weights: Tensor) -> Tensor:
        states = [self.before(before), self.last(last)]
        edge = 0
        for _ in range(4):
            total = 0
            for state in list(states):
                for column, operation in enumerate(self.edges[edge]):
                    total = total + weights[edge, column] * operation(state)
                edge += 1
            states.append(total)
        return torch.cat(states[2:], dim=1)


class NaiveSupernet(nn.Module):
    """DARTS' supernet in CIFAR form."""

    def __init__(self, names: tuple[str, ...], size: Size) -> None:
        super().__init__()
        width = 3 * size.channels
        self.stem = nn.Sequential(
            nn.Conv2d(size.image_channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width, track_running_stats=False),
        )
        self.groups = []
        self.cells = nn.ModuleList()
        before = last = width
        channels, after = size.channels, False
        for index in range(size.cells):
            reduce = index in (size.cells // 3, 2 * size.cells // 3)
            channels = 2 * channels if reduce else channels
            self.groups.append("reduce" if reduce else "normal")
            self.cells.append(NaiveCell(names, (before, last), channels, reduce, after))
            before, last, after = last, 4 * channels, reduce
        self.classifier = nn.Linear(last, size.classes)

    def forward(self, x: Tensor, operations: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        before = last = self.stem(x)
        for group, cell in zip(self.groups, self.cells, strict=True):
            before, last = last, cell(before, last, operations[group])
        features = F.adaptive_avg_pool2d(last, 1).flatten(1)
        return self.classifier(features), features


def unstack(supernet: Supernet, tree: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a supernet's weights, or gradients in them, to the naive supernet's, edge by edge."""
    plain = {}
    for name, tensor in tree.items():
        keys = name.split(".")
        if keys[0] == "stem":
            plain[name.replace("stem.0.", "stem.")] = tensor
        elif keys[0] == "classifier":
            plain[name] = tensor
        elif keys[2] in ("before", "last"):
            plain[name.replace("convolution", "1")] = tensor
        else:
            node = supernet.cells[int(keys[1])].nodes[int(keys[3])]
            first = sum(earlier + 2 for earlier in range(int(keys[3])))
            prefix = f"cells.{keys[1]}.edges."
            if keys[4] == "reductions":
                edge = int(keys[5])
                column = node.edges[edge].index("skip_connect")
                plain[f"{prefix}{first + edge}.{column}.{keys[6]}.weight"] = tensor
            else:
                layer = 4 * int(keys[7]) + (1 if keys[6] == "depthwise" else 2)
                stack = node.stacks[keys[5]]
                for edge, block in zip(stack.edges, tensor.chunk(len(stack.edges)), strict=True):
                    column = node.edges[edge].index(keys[5])
                    plain[f"{prefix}{first + edge}.{column}.{layer}.weight"] = block
    return plain
