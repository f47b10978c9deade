"""The properties that the operations of a network share."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import nn

from tutelage.spaces.convolution import Convolution, Depthwise
from tutelage.spaces.fused import BatchNorm

Activation = Literal["relu", "swish"]


class Style(NamedTuple):
    """The properties that the blocks, or the operations, of a network share."""

    squeeze: float = 0.0
    """Width of the squeeze-and-excitation as a share of a block's input; 0: none."""
    activation: Activation = "relu"
    affine: bool = True
    """Whether BatchNorms scale and shift."""
    track: bool = True
    """Whether BatchNorms keep running statistics; those of supernets use the batch's."""

    def norm(self, channels: int) -> nn.BatchNorm2d:
        """Build a BatchNorm."""
        return BatchNorm(channels, affine=self.affine, track_running_stats=self.track)

    def act(self) -> nn.Module:
        """Build the activation."""
        return nn.ReLU() if self.activation == "relu" else nn.SiLU()

    def pointwise(self, inputs: int, outputs: int, *, act: bool = True) -> list[nn.Module]:
        """Build a 1x1 convolution, its BatchNorm and, with `act`, the activation."""
        layers = [Convolution(inputs, outputs, 1), self.norm(outputs)]
        return [*layers, self.act()] if act else layers

    def dense(self, inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
        """Build a convolution over all channels and its BatchNorm."""
        return [Convolution(inputs, outputs, kernel, stride), self.norm(outputs)]

    def depthwise(self, channels: int, kernel: int, stride: int) -> list[nn.Module]:
        """Build a depthwise convolution and its BatchNorm."""
        return [Depthwise(channels, kernel, stride), self.norm(channels)]
