"""Networks that are not searched: LBT's student."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from tutelage.run.networks.files import space_of
from tutelage.spaces.base import Size
from tutelage.spaces.published import resolve


class Fixed(nn.Module):
    """A genotype's network as a search uses it: batch statistics, logits and features."""

    network: Any  # nn.Module types neither `features` nor `classifier`

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.track_running_stats = False
                module.running_mean = module.running_var = module.num_batches_tracked = None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, classes) and features (B, D)."""
        features = self.network.features(x)
        return self.network.classifier(features), features


def fixed_network(architecture: str, size: Size) -> nn.Module:
    """Build a network whose forward (x) gives logits (B, classes) and features (B, D).

    Args:
        architecture: A genotype: published name, text or file.
        size: Classes, image channels and stem; for cells also channels and number of cells.
            Chains, such as resnet18, have their own.

    Raises:
        ValueError: The architecture is not a genotype.
    """
    try:
        genotype = resolve(architecture)
    except ValueError as error:
        raise ValueError(
            f"student {architecture!r}: must be resnet18, resnet50 or another genotype ({error})"
        ) from error
    space = space_of(genotype)
    if genotype.stages:
        sizes = space.sizes
        size = replace(size, channels=sizes.final_channels, cells=sizes.final_cells)
    return Fixed(space.network(genotype, size))
