"""What a genotype's network costs: parameters, FLOPs and its cells as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tutelage.run.networks.files import build, space_of
from tutelage.spaces.base import Size
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.own import declared

SIDES = {"cifar": 32, "imagenet": 224}
"""Side of the images that papers count FLOPs at, in pixels: one FLOP is a multiplication with its
addition."""


@dataclass(frozen=True)
class Description:
    """A network's size and cost."""

    genotype: Genotype
    size: Size
    side: int
    """Side of the images that FLOPs are counted at, in pixels."""
    params: int
    """Parameters, without the auxiliary head."""
    params_with_auxiliary: int
    """Parameters, with the auxiliary head."""
    flops: int
    """FLOPs of convolutions and the classifier for one image, without the auxiliary head."""

    def as_dict(self) -> dict[str, Any]:
        """Return what `describe --json` prints."""
        return {
            "genotype": self.genotype.to_dict(),
            "size": asdict(self.size),
            "side": self.side,
            "params": self.params,
            "params_with_auxiliary": self.params_with_auxiliary,
            "flops": self.flops,
        }

    def as_text(self) -> str:
        """Return what `describe` prints."""
        size, side = self.size, self.side
        layers = "layers" if self.genotype.stages else "cells"
        head = f"  with auxiliary{self.params_with_auxiliary:>15,}"
        has_head = self.params_with_auxiliary > self.params
        return "\n".join(
            [
                f"{self.genotype.space}, {size.stem} stem: {size.channels} channels, "
                f"{size.cells} {layers}, {size.classes} classes",
                f"parameters      {self.params:>15,}",
                *([head] if has_head else []),
                f"FLOPs           {self.flops:>15,}  "
                f"on one {size.image_channels} x {side} x {side} image",
                "",
                self.genotype.as_text(),
            ]
        )


def describe(genotype: Genotype, size: Size, side: int | None = None) -> Description:
    """Count a network's parameters and FLOPs, without allocating it.

    Args:
        genotype: the architecture.
        size: its channels, cells, classes and stem.
        side: side of the images in pixels; None: 32 for the cifar stem, 224 for imagenet.

    Raises:
        ValueError: the side is below 1, or the genotype's space is unknown.
    """
    side = SIDES[size.stem] if side is None else side
    if side < 1:
        raise ValueError(f"side = {side}: must be at least 1 pixel")
    with torch.device("meta"):
        network = build(genotype, size).eval()
        has_head = space_of(genotype).sizes.auxiliary > 0
        with_head = build(genotype, size, auxiliary=has_head)
    return Description(
        genotype=genotype,
        size=size,
        side=side,
        params=params(network),
        params_with_auxiliary=params(with_head),
        flops=flops(network, (size.image_channels, side, side)),
    )


def params(network: nn.Module) -> int:
    """Count the parameters of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def flops(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Count the FLOPs of a network on the meta device for one image (C, H, W).

    Operations of one's own may declare theirs.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad(), declared(network) as own:
        network(torch.empty(1, *shape, device="meta"))
    # the counter counts a multiplication and its addition as two
    return counter.get_total_flops() // 2 + sum(own)
