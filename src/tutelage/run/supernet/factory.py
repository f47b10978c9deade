"""What a method is handed: nets that join one space, one search and one device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Any, cast

import torch
from torch import Tensor, nn

from tutelage.clock import Clock
from tutelage.problem import UNTRAINED, Net
from tutelage.run.networks.fixed import fixed_network
from tutelage.run.networks.teacher import Pictures, Teacher, trained, untrained
from tutelage.searches.base import Relaxing, Sampling, Search
from tutelage.spaces.base import Mix, Size, Space
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.paths import architecture, kept, path
from tutelage.virtual import Tree, tree_map


@dataclass(frozen=True)
class Relaxed:
    """A search bound to the space and the device of one supernet."""

    search: Relaxing
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

    def paths(self, count: int) -> list[Mix]:
        """Refuse to draw any.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "this search samples no sub-networks, and the method teaches such: use "
            "--search diverse-paths or single-path"
        )


@dataclass
class Sampled:
    """A search that samples paths, bound to the space and the device of one supernet."""

    search: Sampling
    space: Space
    device: torch.device
    flops: Callable[[Genotype], float]
    """Counts the multiply-adds of an architecture."""
    dtype: torch.dtype = field(default_factory=torch.get_default_dtype)
    """That of the weights, which are drawn now."""
    diversity: dict[str, list[Tensor]] = field(default_factory=dict)
    """How much operations differ, as it was measured last; empty before."""
    counts: dict[str, Tensor] = field(default_factory=dict)
    """How often each operation was drawn in this epoch, (edges, ops) for every group."""

    def alphas(self) -> Tree:
        """Have none: nothing but weights descends."""
        return {}

    def mix(self, alphas: Tree, clock: Clock) -> Mix:
        """Draw one path."""
        return self.paths(1)[0]

    def paths(self, count: int) -> list[Mix]:
        """Draw the paths of one batch."""
        drawn = self.search.paths(self.space, count, self.diversity, self.flops)
        for genes in drawn:
            for group, edge, name in kept(self.space, genes):
                shape = self.space.choices[group]
                counts = self.counts.setdefault(group, torch.zeros(shape, dtype=torch.int64))
                counts[edge, self.space.operations[group][edge].index(name)] += 1
        return [path(self.space, genes, self.device, self.dtype) for genes in drawn]

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {"diversity": self.diversity, "counts": self.counts}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.diversity, self.counts = dict(state["diversity"]), dict(state["counts"])


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
    flops: Callable[[Genotype], float] = lambda genotype: nan
    """Counts the multiply-adds of an architecture, for a search that samples by them."""
    pictures: Pictures = field(default_factory=Pictures)
    """The images, for a teacher that was trained already."""
    made: list[Net] = field(default_factory=list)
    """The supernets so far."""
    sampled: list[Sampled] = field(default_factory=list)
    """Of every supernet what samples its paths; none where the search mixes operations."""

    @property
    def classes(self) -> int:
        """Count the classes, C."""
        return self.size.classes

    def supernet(self) -> Net:
        """Make a fresh learner in the searched space."""
        space = self.spaces[min(len(self.made), len(self.spaces) - 1)]
        net = Net(
            lambda: self._placed(space.supernet(self.size)),
            self._bound(space),
            self.clock,
            self.amp,
        )
        self.made.append(net)
        return net

    def _bound(self, space: Space) -> Relaxed | Sampled:
        if self.search.kind == "samples":
            search = cast(Sampling, self.search)
            search.check(space, self.flops)
            self.sampled.append(Sampled(search, space, self.device, self.flops))
            return self.sampled[-1]
        return Relaxed(cast(Relaxing, self.search), space, self.device)

    def fixed(self, architecture: str) -> Net:
        """Make a network that is not searched, by its genotype: resnet18, a name, text or file."""
        return Net(
            lambda: self._placed(fixed_network(architecture, self.size)), None, self.clock, self.amp
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.pictures.shape

    @property
    def stages(self) -> int:
        """Count the stages of a supernet that run one by one; 0: it only runs whole."""
        return self.spaces[0].stages

    def teacher(self, name: str) -> Teacher:
        """Get a trained network: images to its feature maps (B, C, H, W), stage by stage.

        Raises:
            ValueError: There is none of this name, or it is for other images.
        """
        if name == UNTRAINED:
            return untrained(self.spaces[0], self.size, self.device, self.amp)
        return trained(name, self.pictures, self.device, self.amp)

    def multiply_adds(self, mix: Mix) -> float:
        """Count the multiply-adds of the architecture that a sampled mix runs."""
        return self.flops(architecture(self.spaces[0], mix))

    def _placed(self, module: nn.Module) -> nn.Module:
        placed: Any = module  # nn.Module.to is not typed for memory formats
        return placed.to(self.device, memory_format=torch.channels_last)
