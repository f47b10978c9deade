"""The maker that a method receives: it makes nets for one space, one search and one device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import nan
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.clock import Clock
from tutelage.problem import UNTRAINED, CrossEntropy, Net
from tutelage.run.networks.fixed import fixed_network
from tutelage.run.networks.relaxation import Bound
from tutelage.run.networks.teacher import Pictures, Teacher, trained, untrained
from tutelage.spaces.base import ArchWeights, Size, Space
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.paths import architecture
from tutelage.transfer import cross_entropy


@dataclass
class Maker:
    """Makes the networks and teachers of a method."""

    bind: Callable[[Space], Bound]
    """Binds the search to the space of one supernet."""
    spaces: Sequence[Space]
    """Spaces of the first supernet, the second, ...; the last one serves the others."""
    size: Size
    clock: Clock
    epochs: int
    device: torch.device
    amp: torch.dtype | None
    images: Mapping[str, int] = field(default_factory=dict)
    """How many images each half has, for methods that store something for each image."""
    flops: Callable[[Genotype], float] = lambda genotype: nan
    """Counts the FLOPs of an architecture."""
    pictures: Pictures = field(default_factory=Pictures)
    """The images, for a pretrained teacher."""
    bound: list[Bound] = field(default_factory=list)
    """For every supernet so far, what relaxes its choices or samples its paths."""
    nets: int = 0
    """How many networks were made so far."""
    class_weights: Tensor | None = None
    """Weights of the classes (C,) in the loss of labels; None: equal."""
    weighs: bool = False
    """Whether the method has asked for that loss."""

    @property
    def classes(self) -> int:
        """Count the classes, C."""
        return self.size.classes

    @property
    def cross_entropy(self) -> CrossEntropy:
        """The loss of labels, with the weights that classes have."""
        self.weighs = True
        return partial(cross_entropy, weights=self.class_weights)

    def supernet(self) -> Net:
        """Make a fresh learner in the searched space."""
        space = self.spaces[min(len(self.bound), len(self.spaces) - 1)]
        relaxation = self.bind(space)
        self.bound.append(relaxation)
        return self._net(lambda: space.supernet(self.size), relaxation)

    def fixed(self, architecture: str) -> Net:
        """Make a network that is not searched, from a genotype: resnet18, a name, text or file."""
        return self._net(lambda: fixed_network(architecture, self.size), None)

    def _net(self, build: Callable[[], nn.Module], relaxation: Bound | None) -> Net:
        number, self.nets = self.nets, self.nets + 1
        return Net(lambda: self._placed(build()), relaxation, self.clock, self.amp, number)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.pictures.shape

    @property
    def stages(self) -> int:
        """Count the stages of a supernet that can run separately; 0: it runs only as a whole."""
        return self.spaces[0].stages

    def teacher(self, name: str) -> Teacher:
        """Return a trained network: images to its feature maps (B, C, H, W), stage by stage.

        Raises:
            ValueError: There is no network of this name, or it is for other images.
        """
        if name == UNTRAINED:
            return untrained(self.spaces[0], self.size, self.device, self.amp)
        return trained(name, self.pictures, self.device, self.amp)

    def flops_of(self, arch: ArchWeights) -> float:
        """Count the FLOPs of the architecture that a path runs."""
        return self.flops(architecture(self.spaces[0], arch))

    def _placed(self, module: nn.Module) -> nn.Module:
        placed: Any = module  # nn.Module.to is not typed for memory formats
        return placed.to(self.device, memory_format=torch.channels_last)
