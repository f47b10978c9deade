"""The networks of a chain: the supernet, and the stand-alone one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tutelage.spaces.base import ArchWeights, Edges, Size
from tutelage.spaces.blocks import block
from tutelage.spaces.convolution import channels_last
from tutelage.spaces.fused import stacked, weighted_sum
from tutelage.spaces.headed import Headed
from tutelage.spaces.mixed_cell import OperationOutput, dealt
from tutelage.spaces.own import Operation
from tutelage.spaces.style import Style

GROUP = "chain"
"""The only group of choices: a chain's layers."""


class Layer(NamedTuple):
    """The place of a searched block."""

    inputs: int
    """Channels of its input."""
    outputs: int
    """Channels of its output."""
    stride: int
    stage: int

    def block(self, name: str, style: Style, own: Sequence[Operation]) -> nn.Module:
        """Build the block of this name."""
        return block(name, self.inputs, self.outputs, self.stride, style, own)


class Outline(NamedTuple):
    """A chain at a size: its channels, layer by layer."""

    layers: Sequence[Layer]
    """The searched layers."""
    first: int
    """Channels of the fixed block before the layers; 0: there is none."""
    last: int
    """Channels of the 1x1 convolution after the layers; 0: there is none."""
    pooled: bool
    """Whether the `imagenet` stem is ResNet's, with a pool."""
    own: Sequence[Operation] = ()
    """Operations of one's own."""


class Frame(nn.Module):
    """The fixed parts around the searched layers."""

    def __init__(self, outline: Outline, size: Size, style: Style) -> None:
        super().__init__()
        stem, large = size.channels, size.stem == "imagenet"
        pooled = large and outline.pooled
        kernel, stride = 7 if pooled else 3, 2 if large else 1
        layers = [*style.dense(size.image_channels, stem, kernel, stride), style.act()]
        if pooled:
            layers.append(nn.MaxPool2d(3, 2, padding=1))
        if outline.first:
            layers.append(block("mbconv1_3x3", stem, outline.first, 1, style))
        self.stem = nn.Sequential(*layers)
        width = outline.layers[-1].outputs
        self.features = outline.last or width
        end = style.pointwise(width, outline.last) if outline.last else [nn.Identity()]
        self.end = nn.Sequential(*end)
        self.classifier = nn.Linear(self.features, size.classes)

    def pooled(self, x: Tensor) -> Tensor:
        """Map the last layer's output to the classifier's input (B, D)."""
        return self.end(x).mean((2, 3))


class MixedLayer(nn.Module):
    """A layer of the supernet: the weighted sum of its blocks."""

    def __init__(
        self, names: Sequence[str], layer: Layer, style: Style, own: Sequence[Operation] = ()
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.blocks = nn.ModuleDict({name: layer.block(name, style, own) for name in names})

    def forward(self, x: Tensor, weights: Tensor, columns: Sequence[int]) -> Tensor:
        """Sum weights (ops,) times blocks over some columns; the sum over no column is zero."""
        terms = [self.blocks[self.names[column]](x) for column in columns]
        if not terms:
            return 0 * self.blocks[self.names[0]](x)
        chosen = weights if len(columns) == len(self.names) else weights[list(columns)]
        return weighted_sum(chosen, stacked(terms))

    def each(self, x: Tensor) -> list[Tensor]:
        """List every block's output."""
        return [self.blocks[name](x) for name in self.names]


class Supernet(nn.Module):
    """Mixed layers in their frame."""

    def __init__(self, outline: Outline, edges: Edges, size: Size, style: Style) -> None:
        super().__init__()
        self.frame = Frame(outline, size, style)
        self.stages = [layer.stage for layer in outline.layers]
        pairs = zip(edges, outline.layers, strict=True)
        self.layers = nn.ModuleList(
            MixedLayer(names, layer, style, outline.own) for names, layer in pairs
        )
        self.counts = {GROUP: 1}

    def forward(self, x: Tensor, arch: ArchWeights, stage: int | None = None) -> Any:
        """Map images (B, C, H, W) to logits (B, classes) and features (B, D).

        With `stage`, map the input of that stage (for the first: images) to its output.
        """
        if not stage:
            x = self.frame.stem(channels_last(x))
        for own, (layer, weights, columns) in zip(self.stages, self.through(arch), strict=True):
            if stage in (None, own):
                x = layer(x, weights, columns)
        if stage is not None:
            return x
        features = self.frame.pooled(x)
        return self.frame.classifier(features), features

    def through(self, arch: ArchWeights) -> Iterator[tuple[Any, Tensor, Sequence[int]]]:
        """Yield the layers, each with its weights and the columns that run."""
        weights = arch.operations[GROUP]
        everything = [range(len(row)) for row in weights]
        chosen = everything if arch.chosen is None else arch.chosen[GROUP]
        yield from zip(self.layers, weights, chosen, strict=True)

    def outputs(self, x: Tensor) -> Iterator[OperationOutput]:
        """Yield the outputs of all blocks of every layer for images (B, C, H, W).

        Every image continues with one block, assigned evenly and at random (EnNAS, section 3.3).
        """
        x = self.frame.stem(channels_last(x))
        layer: Any
        for edge, layer in enumerate(self.layers):
            maps = torch.stack(layer.each(x))
            yield GROUP, edge, maps.flatten(2)
            x = dealt(maps)


class Network(Headed):
    """The stand-alone network of a chain; in training mode it gives (logits, None)."""

    home = "frame"

    def __init__(
        self,
        outline: Outline,
        names: Sequence[str],
        size: Size,
        style: Style,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self._begin(drop_path)
        self.frame = Frame(outline, size, style)
        self.stages = [layer.stage for layer in outline.layers]
        self.layers = nn.ModuleList(
            layer.block(name, style, outline.own)
            for name, layer in zip(names, outline.layers, strict=True)
        )
        self._end()

    @property
    def classifier(self) -> Any:
        """The linear map from features to logits."""
        return self.frame.classifier

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to the last feature map (B, D, h, w)."""
        x = self.frame.stem(x)
        drop_path = self.drop_path if self.training else 0.0
        for layer in self.layers:
            x = layer(x, drop_path)
        return self.frame.end(x)

    def maps(self, x: Tensor) -> list[Tensor]:
        """List the feature maps (B, C, H, W) after every stage."""
        x = self.frame.stem(x)
        last: dict[int, Tensor] = {}
        for stage, layer in zip(self.stages, self.layers, strict=True):
            x = last[stage] = layer(x, 0.0)
        return list(last.values())
