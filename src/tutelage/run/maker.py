"""What a method is handed: nets that join one space, one search and one device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.clock import Clock
from tutelage.problem import Net
from tutelage.searches.base import Search
from tutelage.spaces.base import Mix, Size, Space
from tutelage.spaces.fixed import fixed_network
from tutelage.virtual import Tree, tree_map


@dataclass(frozen=True)
class Relaxed:
    """A search bound to the space and the device of one supernet."""

    search: Search
    space: Space
    device: torch.device

    def alphas(self) -> Tree:
        """Draw initial alphas; on the CPU, so that a seed means the same everywhere."""

        def placed(x: Tensor) -> Tensor:
            return x.to(self.device)

        return tree_map(placed, self.search.alphas(self.space))

    def mix(self, alphas: Tree, clock: Clock) -> Mix:
        """Turn alphas into a mix."""
        return self.search.mix(alphas, clock)


@dataclass
class Maker:
    """Hands a method what it asks for."""

    search: Search
    spaces: Sequence[Space]
    """Of the first supernet that is asked for, the second, ...; the last one serves the others."""
    size: Size
    clock: Clock
    epochs: int
    device: torch.device
    amp: torch.dtype | None
    images: Mapping[str, int] = field(default_factory=dict)
    """How many images each half has: what a method that remembers them asks for."""
    made: list[Net] = field(default_factory=list)
    """The supernets so far."""

    @property
    def classes(self) -> int:
        """Count the classes, C."""
        return self.size.classes

    def supernet(self) -> Net:
        """Make a fresh learner in the searched space."""
        space = self.spaces[min(len(self.made), len(self.spaces) - 1)]
        relaxed = Relaxed(self.search, space, self.device)
        net = Net(lambda: self._placed(space.supernet(self.size)), relaxed, self.clock, self.amp)
        self.made.append(net)
        return net

    def fixed(self, architecture: str) -> Net:
        """Make a network that is not searched: resnet18, resnet50, or a genotype."""
        return Net(
            lambda: self._placed(fixed_network(architecture, self.size)), None, self.clock, self.amp
        )

    def _placed(self, module: nn.Module) -> nn.Module:
        placed: Any = module  # nn.Module.to is not typed for memory formats
        return placed.to(self.device, memory_format=torch.channels_last)
