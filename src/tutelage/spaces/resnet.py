"""Fixed residual networks, as students, teachers and baselines.

He et al., "Deep residual learning for image recognition", CVPR 2016 (arXiv 1512.03385), with the
stride on the bottleneck's 3x3 convolution, as every current release has it. The CIFAR form
replaces the 7x7 stem and its pooling by one 3x3 convolution, which keeps the image's resolution.
"""

from __future__ import annotations

from typing import Final, final

import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.spaces.base import Form

BLOCKS: Final = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
"""Depth to the number of blocks in each of the four stages."""
STEM_CHANNELS: Final = 64


def resnet(
    depth: int,
    classes: int,
    *,
    image_channels: int = 3,
    form: Form = "cifar",
    batch_statistics: bool = False,
) -> ResNet:
    """Build ResNet-18 or ResNet-50.

    Args:
        depth: 18 or 50.
        classes: number of classes.
        image_channels: channels of an image.
        form: cifar keeps the image's resolution in the stem, imagenet divides it by 4.
        batch_statistics: normalise by each batch's own statistics in every mode, with no moving
            state: what a network needs that is trained through `functional_call` in a search.

    Raises:
        ValueError: another depth or form.
    """
    if depth not in BLOCKS:
        raise ValueError(f"depth = {depth}: must be one of {', '.join(map(str, BLOCKS))}")
    if form not in ("cifar", "imagenet"):
        raise ValueError(f"form = {form!r}: must be 'cifar' or 'imagenet'")
    for name, value in (("classes", classes), ("image_channels", image_channels)):
        if value < 1:
            raise ValueError(f"{name} = {value}: must be at least 1")
    return ResNet(depth, classes, image_channels, form, batch_statistics)


def convolution(into: int, out: int, kernel: int, stride: int, batch_statistics: bool) -> nn.Module:
    """Return a convolution without bias and its normalisation."""
    return nn.Sequential(
        nn.Conv2d(into, out, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out, track_running_stats=not batch_statistics),
    )


@final
class Block(nn.Module):
    """Two 3x3 convolutions (basic) or 1x1, 3x3, 1x1 with 4 times the channels (bottleneck)."""

    def __init__(
        self, into: int, channels: int, stride: int, bottleneck: bool, batch_statistics: bool
    ) -> None:
        super().__init__()
        out = 4 * channels if bottleneck else channels
        # (input channels, output channels, kernel, stride) of every convolution
        shapes = (
            [(into, channels, 1, 1), (channels, channels, 3, stride), (channels, out, 1, 1)]
            if bottleneck
            else [(into, channels, 3, stride), (channels, out, 3, 1)]
        )
        self.residual = nn.ModuleList(convolution(*shape, batch_statistics) for shape in shapes)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and into == out
            else convolution(into, out, 1, stride, batch_statistics)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(shortcut(x) + residual(x))."""
        y = x
        for position, layer in enumerate(self.residual):
            y = layer(F.relu(y) if position else y)
        return F.relu(y + self.shortcut(x))


@final
class ResNet(nn.Module):
    """A residual network; see `resnet`."""

    def __init__(
        self, depth: int, classes: int, image_channels: int, form: Form, batch_statistics: bool
    ) -> None:
        super().__init__()
        kernel, stride = (7, 2) if form == "imagenet" else (3, 1)
        self.stem = convolution(image_channels, STEM_CHANNELS, kernel, stride, batch_statistics)
        self.pool = nn.MaxPool2d(3, 2, padding=1) if form == "imagenet" else nn.Identity()
        bottleneck = depth >= 50
        into, blocks = STEM_CHANNELS, []
        for stage, count in enumerate(BLOCKS[depth]):
            channels = STEM_CHANNELS * 2**stage
            for position in range(count):
                first = stage > 0 and position == 0
                blocks.append(
                    Block(into, channels, 2 if first else 1, bottleneck, batch_statistics)
                )
                into = 4 * channels if bottleneck else channels
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(into, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, classes) and pooled features (B, D) of images (B, C, H, W)."""
        x = self.blocks(self.pool(F.relu(self.stem(x))))
        features = x.mean((2, 3))
        return self.classifier(features), features
