"""Networks that are not searched: LBT's student, later a teacher."""

from __future__ import annotations

from torch import Tensor, nn

from tutelage.spaces.base import Size
from tutelage.spaces.cells import DARTS
from tutelage.spaces.network import Network
from tutelage.spaces.published import resolve
from tutelage.spaces.resnet import resnet

RESNETS = {"resnet18": 18, "resnet50": 50}


class Fixed(nn.Module):
    """A genotype's network as a search uses it: batch statistics, logits and features."""

    def __init__(self, network: Network) -> None:
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
        architecture: resnet18, resnet50, or a genotype: published name, text or file.
        size: The genotype's channels and cells; classes, image channels and form for all.

    Raises:
        ValueError: When the architecture is none of these.
    """
    if architecture in RESNETS:
        return resnet(
            RESNETS[architecture],
            size.classes,
            image_channels=size.image_channels,
            form=size.form,
            batch_statistics=True,
        )
    try:
        genotype = resolve(architecture)
    except ValueError as error:
        raise ValueError(
            f"student {architecture!r}: must be {', '.join(RESNETS)} or a genotype ({error})"
        ) from error
    return Fixed(DARTS.network(genotype, size))
