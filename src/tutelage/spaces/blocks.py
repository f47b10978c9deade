"""The blocks of chains: inverted residuals, ShuffleNetV2's two, ResNet's two, and the identity.

MBConv: Sandler et al., MobileNetV2, CVPR 2018, with the squeeze-and-excitation of EfficientNet
(Tan, Le, ICML 2019), whose inner width is a share of the block's input. Shuffle: Ma et al., ECCV
2018, as in Single Path One-Shot (Guo et al., ECCV 2020): a block that keeps the size computes on
every second channel, and the others bypass it. A block that changes the size computes on all
channels in two branches. Basic and bottleneck: He et al., CVPR 2016, with the stride on the
bottleneck's KxK convolution, as in all current releases.

A name gives all properties of a single block: `mbconv6_5x5` expands its input six times and has a
5x5 kernel. `Style` has the properties that all blocks of a network share.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tutelage.installed import added, load, origin
from tutelage.spaces.headed import Probability
from tutelage.spaces.network import drop, never
from tutelage.spaces.own import Foreign, Operation, checked, named
from tutelage.spaces.style import Style

ODD = r"((?:[1-9]\d*)?[13579])"
"""Sides of a kernel. They are odd: with an even one, a padded map would grow by a pixel."""
MBCONV = re.compile(rf"mbconv([1-9]\d*)_{ODD}x\2")
SHUFFLE = re.compile(rf"shuffle_{ODD}x\1")
RESIDUAL = re.compile(rf"(basic|bottleneck)_{ODD}x\2")


class SqueezeExcitation(nn.Module):
    """Scales channels by a function of the means of all channels."""

    def __init__(self, channels: int, inner: int, style: Style) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Conv2d(channels, inner, 1), style.act(), nn.Conv2d(inner, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of x (B, C, H, W)."""
        return x * self.gate(x.mean((2, 3), keepdim=True))


class MBConv(nn.Module):
    """Expand, convolve each channel, squeeze and excite, project; residual where sizes agree."""

    def __init__(
        self, expansion: int, kernel: int, inputs: int, outputs: int, stride: int, style: Style
    ) -> None:
        super().__init__()
        width = expansion * inputs
        layers = style.pointwise(inputs, width) if expansion > 1 else []
        layers += [*style.depthwise(width, kernel, stride), style.act()]
        if style.squeeze:
            layers.append(SqueezeExcitation(width, max(1, int(inputs * style.squeeze)), style))
        self.layers = nn.Sequential(*layers, *style.pointwise(width, outputs, act=False))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor, drop_path: Probability = 0.0) -> Tensor:
        """Map x (B, C, H, W), dropping the path beside a residual with this probability."""
        y = self.layers(x)
        if not self.residual:
            return y
        return x + (y if never(drop_path) else drop(y, drop_path))


class Shuffle(nn.Module):
    """ShuffleNetV2's block; without a kernel size its variant of three convolutions (Xception)."""

    def __init__(
        self, kernel: int | None, inputs: int, outputs: int, stride: int, style: Style
    ) -> None:
        super().__init__()
        self.halves = stride == 1 and inputs == outputs
        seen = inputs // 2 if self.halves else inputs
        # bypassed channels stay the same if the output has more channels
        passed = seen if seen < outputs else outputs // 2
        middle, made = outputs // 2, outputs - passed
        if kernel is None:
            kernel = 3
            main = [*style.depthwise(seen, 3, stride), *style.pointwise(seen, middle)]
            main += [*style.depthwise(middle, 3, 1), *style.pointwise(middle, middle)]
            main += [*style.depthwise(middle, 3, 1), *style.pointwise(middle, made)]
        else:
            main = [*style.pointwise(seen, middle), *style.depthwise(middle, kernel, stride)]
            main += style.pointwise(middle, made)
        self.main = nn.Sequential(*main)
        self.passed: nn.Module = nn.Identity()
        if not self.halves:
            aside = [*style.depthwise(seen, kernel, stride), *style.pointwise(seen, passed)]
            self.passed = nn.Sequential(*aside)

    def forward(self, x: Tensor, drop_path: Probability = 0.0) -> Tensor:
        """Map x (B, C, H, W); there is no residual whose path could be dropped."""
        aside, seen = (x[:, 0::2], x[:, 1::2]) if self.halves else (x, x)
        return torch.cat([self.passed(aside), self.main(seen)], dim=1)


class Identity(nn.Module):
    """Identity; if sizes differ, a 1x1 convolution and its BatchNorm (NAS-Bench-Macro's)."""

    def __init__(self, inputs: int, outputs: int, stride: int, style: Style) -> None:
        super().__init__()
        self.projection: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.projection = nn.Sequential(*style.dense(inputs, outputs, 1, stride))

    def forward(self, x: Tensor, drop_path: Probability = 0.0) -> Tensor:
        """Map x (B, C, H, W) as it is."""
        return self.projection(x)


class Residual(nn.Module):
    """ResNet's block: two convolutions (basic), or 1x1, KxK, 1x1 at a quarter of the width."""

    def __init__(
        self, kind: str, kernel: int, inputs: int, outputs: int, stride: int, style: Style
    ) -> None:
        super().__init__()
        if kind == "basic":
            layers = [*style.dense(inputs, outputs, kernel, stride), style.act()]
            layers += style.dense(outputs, outputs, kernel, 1)
        else:
            inner = max(1, outputs // 4)
            layers = style.pointwise(inputs, inner)
            layers += [*style.dense(inner, inner, kernel, stride), style.act()]
            layers += style.pointwise(inner, outputs, act=False)
        self.layers = nn.Sequential(*layers)
        self.shortcut = Identity(inputs, outputs, stride, style)
        self.act = style.act()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor, drop_path: Probability = 0.0) -> Tensor:
        """Map x (B, C, H, W), dropping the path beside the shortcut with this probability."""
        y = self.layers(x)
        return self.act(self.shortcut(x) + (y if never(drop_path) else drop(y, drop_path)))


def is_own(name: str) -> bool:
    """Tell whether a block of this package has this name."""
    known = name in ("identity", "shuffle_xception")
    return known or any(form.fullmatch(name) for form in (MBCONV, SHUFFLE, RESIDUAL))


def is_block(name: str) -> bool:
    """Tell whether a block has this name, here or in an installed package."""
    return is_own(name) or name in ADDED


def foreign(name: str, inputs: int, outputs: int, stride: int, style: Style) -> Foreign:
    """Build a block of an installed package, and check its output's shape.

    Raises:
        ValueError: Its package cannot be imported, or the shape is wrong.
    """
    make = load("blocks", name, ADDED[name])
    what = f"block {name!r} of the package {origin('blocks', name)}"
    return checked(make, what, inputs, outputs, stride, style)


def block(
    name: str,
    inputs: int,
    outputs: int,
    stride: int,
    style: Style,
    own: Sequence[Operation] = (),
) -> nn.Module:
    """Build the block of this name, one of the user's `own` too, for maps of `inputs` channels.

    Raises:
        ValueError: There is no such block.
    """
    if name == "identity":
        return Identity(inputs, outputs, stride, style)
    if name == "shuffle_xception":
        return Shuffle(None, inputs, outputs, stride, style)
    if match := SHUFFLE.fullmatch(name):
        return Shuffle(int(match[1]), inputs, outputs, stride, style)
    if match := MBCONV.fullmatch(name):
        return MBConv(int(match[1]), int(match[2]), inputs, outputs, stride, style)
    if match := RESIDUAL.fullmatch(name):
        return Residual(match[1], int(match[2]), inputs, outputs, stride, style)
    if mine := named(own, name):
        return mine.build(inputs, outputs, stride, style)
    if name in ADDED:
        return foreign(name, inputs, outputs, stride, style)
    raise ValueError(f"unknown block {name!r}: {ALLOWED}")


ALLOWED = (
    "must be identity, mbconvE_KxK, shuffle_KxK, shuffle_xception, basic_KxK or bottleneck_KxK, "
    "K odd, such as shuffle_5x5, or mbconv6_3x3 for an expansion of 6, or of an installed package "
    "or a page of TOML"
)
"""The possible names, for error messages."""

ADDED = {
    name: target
    for name, target in added("blocks", ()).items()
    if name.isidentifier() and not is_own(name)  # a module's parameters have dots between names
}
"""The blocks of installed packages by name: functions, as `module:function`."""
