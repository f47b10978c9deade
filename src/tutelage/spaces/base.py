"""What a space and a search agree on: the size of a network, a mix, and a space's protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor, nn

from tutelage.spaces.genotype import Genotype

Form = Literal["cifar", "imagenet"]


@dataclass(frozen=True)
class Size:
    """How large a network is, and for which images."""

    channels: int = 16
    """Channels of the first cell, C."""
    cells: int = 8
    """Number of cells, L."""
    classes: int = 10
    """Number of classes."""
    image_channels: int = 3
    """Channels of an image: 1 for grey, 3 for colour."""
    form: Form = "cifar"
    """Stem and head: cifar keeps the image's resolution, imagenet divides it by 8."""

    def __post_init__(self) -> None:
        for name in ("channels", "cells", "classes", "image_channels"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} = {value}: must be at least 1")
        if self.form not in ("cifar", "imagenet"):
            raise ValueError(f"form = {self.form!r}: must be 'cifar' or 'imagenet'")


@dataclass(frozen=True)
class Mix:
    """A relaxed architecture: how much of every operation there is on every edge."""

    operations: Mapping[str, Tensor]
    """For every group of choices (normal, reduce), weights (edges, ops)."""
    chosen: Mapping[str, Sequence[Sequence[int]]] | None = field(default=None)
    """For every group and edge, the operations that run, as ints; None: all of them."""

    def without_zeros(self) -> Mix:
        """Skip the operations whose weight is exactly zero (reads the values: one device sync)."""
        chosen = {
            group: [
                [op for op, weight in enumerate(row) if weight != 0] for row in weights.tolist()
            ]
            for group, weights in self.operations.items()
        }
        return Mix(self.operations, chosen)


class Space(Protocol):
    """What can be built: a supernet that takes a mix, and the network that a genotype names."""

    name: str

    @property
    def choices(self) -> Mapping[str, tuple[int, int]]:
        """The (edges, ops) of every group of choices."""

    @property
    def operations(self) -> Mapping[str, Sequence[str]]:
        """Names of the operations of every group, in the order of the mix's columns."""

    def supernet(self, size: Size) -> nn.Module:
        """Build the network whose forward (x, mix) gives logits (B, classes), features (B, D)."""

    def genotype(self, mix: Mix) -> Genotype:
        """Read off the architecture that a mix favours."""

    def network(
        self, genotype: Genotype, size: Size, *, auxiliary: bool = False, drop_path: float = 0.0
    ) -> nn.Module:
        """Build the stand-alone network of a genotype."""
