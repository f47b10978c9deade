"""DARTS' operations: their names, their shapes as data, and each one as a module.

A convolution of the space is a depthwise k x k and a 1x1 convolution between a ReLU and a
BatchNorm, once (`dil_conv`, dilation 2) or twice (`sep_conv`, the stride in the first). The
supernet computes the same operations stacked over the edges of a node (`mixed.py`). Stand-alone
networks consist of the modules here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage import shares
from tutelage.checks import nearest
from tutelage.spaces.base import Size
from tutelage.spaces.convolution import (
    Convolution,
    Depthwise,
    autocasts,
    channels_last,
    depthwise,
    tiny,
)
from tutelage.spaces.fused import BatchNorm
from tutelage.spaces.genotype import DARTS_OPERATIONS
from tutelage.spaces.own import Operation, named
from tutelage.spaces.style import Style

NODES = 4
"""Nodes of a cell; node i reads the cell's two inputs and the i nodes before it."""

EDGES = sum(node + 2 for node in range(NODES))


def entering(edges: Sequence[object]) -> list[int]:
    """Return how many of a cell's edges enter each of its nodes.

    >>> entering(range(14))
    [2, 3, 4, 5]
    """
    counts: list[int] = []
    while sum(counts) < len(edges):
        counts.append(len(counts) + 2)
    return counts


CONVOLUTIONS = {
    "sep_conv_3x3": (3, 1, 2),
    "sep_conv_5x5": (5, 1, 2),
    "dil_conv_3x3": (3, 2, 1),
    "dil_conv_5x5": (5, 2, 1),
}
"""Kernel size, dilation and number of repetitions of every convolution."""


DENSE = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}
"""Kernel size of every convolution that reads all channels (NAS-Bench-201)."""


def max_pool(x: Tensor, stride: int) -> Tensor:
    """Maximum over 3 x 3 windows of x (B, C, H, W)."""
    return F.max_pool2d(x, 3, stride, 1)


def average_pool(x: Tensor, stride: int) -> Tensor:
    """Mean over the pixels of 3 x 3 windows of x (B, C, H, W) that are inside the image."""
    return F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)


POOLS = {"max_pool_3x3": max_pool, "avg_pool_3x3": average_pool}


def pool(name: str, x: Tensor, stride: int) -> Tensor:
    """Pool x (B, C, H, W) in training, where a large mean on a CPU is a convolution."""
    slow = name == "avg_pool_3x3" and stride == 1 and x.device.type == "cpu" and not tiny(x)
    if not slow or autocasts(x) or x.dtype not in (torch.float32, torch.float64):
        return POOLS[name](x, stride)
    # torch's takes 1.1 to 5 times as long, most with few channels; with stride 2 it is the faster
    means = depthwise(x, x.new_full((x.shape[1], 1, 3, 3), 1 / 9))
    inside = F.avg_pool2d(x.new_ones(1, 1, *x.shape[2:]), 3, 1, 1)
    # laid out like the map: with 8 channels, a value for all of them takes four times as long
    return means / channels_last(inside.expand(-1, x.shape[1], -1, -1))


def shifted(x: Tensor) -> Tensor:
    """Shift x (B, C, H, W) by one pixel up and left, so that odd pixels move to even places."""
    height, width = x.shape[-2:]
    # an odd image gets one row or column of zeros, so both halves of the reduction have one size
    return F.pad(x, (-1, width % 2, -1, height % 2))


OPERATIONS = (*DARTS_OPERATIONS, *DENSE, "noise")
"""What an edge of a cell can do."""


def check_operations(names: Iterable[str], own: Sequence[Operation] = ()) -> None:
    """Refuse operations that no cell can run: neither of these, nor one of the user's `own`.

    Raises:
        ValueError: There is one.
    """
    allowed = (*OPERATIONS, *(each.name for each in own))
    for name in names:
        if name not in allowed:
            raise ValueError(f"unknown operation {name!r}: {nearest(name, allowed)}")


def operation(name: str, channels: int, stride: int, own: Sequence[Operation] = ()) -> nn.Module:
    """Build the stand-alone operation of this name, one of the user's `own` too.

    Raises:
        ValueError: There is none.
    """
    check_operations([name], own)
    if mine := named(own, name):
        return mine.build(channels, channels, stride, Style())
    if name in CONVOLUTIONS:
        kernel, dilation, repetitions = CONVOLUTIONS[name]
        return SeparableConvolution(channels, kernel, stride, dilation, repetitions)
    if name in POOLS:
        return Pool(name, stride)
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
    if name in DENSE:
        return ReluConvolution(channels, channels, DENSE[name], stride)
    if name == "noise":
        return Noise(stride)
    return Zero(stride)


def layout(size: Size, widths: Mapping[str, int]) -> list[Place]:
    """List the places of all cells: reductions are at one and at two thirds of the depth.

    `widths` holds how many nodes are concatenated to the output of a cell of each group.
    """
    places: list[Place] = []
    channels = size.channels
    before = last = channels if size.stem == "imagenet" else 3 * channels
    reduced = size.stem == "imagenet"
    for index in range(size.cells):
        reduction = index in (size.cells // 3, 2 * size.cells // 3)
        channels *= 2 if reduction else 1
        group, stride = ("reduce", 2) if reduction else ("normal", 1)
        outputs = widths[group] * channels
        places.append(Place(group, (before, last), channels, outputs, stride, reduced))
        before, last, reduced = last, outputs, reduction
    return places


def stem(size: Size, *, track: bool = True) -> nn.ModuleList:
    """Build the part before the cells; its modules run one after the other.

    The first cell reads the outputs of the first and of the last module, which may be the same.
    With `track` its BatchNorms keep running statistics.
    """
    channels, image = size.channels, size.image_channels

    def convolution(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        norm = BatchNorm(outputs, track_running_stats=track)
        return [Convolution(inputs, outputs, 3, stride), norm]

    if size.stem == "cifar":
        return nn.ModuleList([nn.Sequential(*convolution(image, 3 * channels, 1))])
    half = max(1, channels // 2)
    first = [*convolution(image, half, 2), nn.ReLU(), *convolution(half, channels, 2)]
    second = [nn.ReLU(), *convolution(channels, channels, 2)]
    return nn.ModuleList([nn.Sequential(*first), nn.Sequential(*second)])


@dataclass(frozen=True)
class Place:
    """A cell's place in a network."""

    group: str
    """The group of the cell: normal or reduce."""
    inputs: tuple[int, int]
    """Channels of the cell before the previous one, and of the previous one."""
    channels: int
    """Channels of a node."""
    outputs: int
    """Channels of the cell's output."""
    stride: int
    """Stride of the edges that leave the cell's two inputs."""
    reduced: bool
    """Whether the previous cell halved the image."""


class ReluConvolution(nn.Sequential):
    """ReLU, convolution, BatchNorm."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(
            nn.ReLU(),
            Convolution(inputs, outputs, kernel, stride),
            BatchNorm(outputs),
        )


class SeparableConvolution(nn.Sequential):
    """ReLU, depthwise convolution, 1x1 convolution, BatchNorm; once or more."""

    def __init__(
        self, channels: int, kernel: int, stride: int, dilation: int, repetitions: int
    ) -> None:
        layers: list[nn.Module] = []
        for step in [stride] + [1] * (repetitions - 1):
            layers += [
                nn.ReLU(),
                Depthwise(channels, kernel, step, dilation),
                Convolution(channels, channels, 1),
                BatchNorm(channels),
            ]
        super().__init__(*layers)


class FactorizedReduce(nn.Module):
    """Halve the image: ReLU, 1x1 convolutions of its even and of its odd pixels, BatchNorm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.even = Convolution(inputs, half, 1, 2)
        self.odd = Convolution(inputs, outputs - half, 1, 2)
        self.norm = BatchNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, C, H, W) to (B, outputs, H / 2, W / 2), rounded up."""
        x = x.relu()
        return self.norm(torch.cat([self.even(x), self.odd(shifted(x))], dim=1))


class Pool(nn.Module):
    """A 3 x 3 pool."""

    def __init__(self, name: str, stride: int) -> None:
        super().__init__()
        self.name = name
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, C, H, W) to (B, C, H / stride, W / stride), rounded up."""
        if self.training:
            return pool(self.name, x, self.stride)
        return POOLS[self.name](x, self.stride)  # only torch's operations here, for exports


class Zero(nn.Module):
    """The operation `none`."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, C, H, W) to zeros (B, C, H / stride, W / stride), rounded up."""
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


class Noise(nn.Module):
    """The operation `noise`: standard normal values, for any input (RobustDARTS' S4)."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, C, H, W) to noise (B, C, H / stride, W / stride), rounded up."""
        return shares.random_like(x[:, :, :: self.stride, :: self.stride], Tensor.normal_)
