"""A search bound to one supernet: it relaxes its alphas, or samples its paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from tutelage.clock import Clock
from tutelage.likeness import refuse_unlike
from tutelage.problem import Relaxation
from tutelage.searches.base import Relaxing, Sampling
from tutelage.spaces.base import ArchWeights, Space
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.paths import kept, path
from tutelage.trees import Tree, tree_map


class Bound(Relaxation, Protocol):
    """What a net needs of a search, and the state that a checkpoint holds."""

    @property
    def counts(self) -> Mapping[str, Tensor]:
        """How often each operation was sampled in this epoch, (edges, ops) for every group."""

    def begin_epoch(self) -> None:
        """Reset the counts."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds; nothing where nothing is remembered."""

    def restore(self, state: Mapping[str, Any], *, measured: bool = False) -> None:
        """Resume from a checkpoint; `measured`: an epoch of this supernet has ended."""


@dataclass(frozen=True)
class BoundAlphas:
    """A search that relaxes its choices, bound to the space and the device of one supernet."""

    search: Relaxing
    space: Space
    device: torch.device

    @property
    def counts(self) -> Mapping[str, Tensor]:
        """Return no counts: no single operation is sampled."""
        return {}

    def alphas(self) -> Tree:
        """Sample initial alphas; on the CPU, so that a seed means the same everywhere."""

        def placed(x: Tensor) -> Tensor:
            return x.to(self.device)

        return tree_map(placed, self.search.alphas(self.space))

    def relax(self, alphas: Tree, clock: Clock) -> ArchWeights:
        """Make architecture weights of alphas."""
        return self.search.relax(alphas, clock)

    def paths(self, count: int) -> list[ArchWeights]:
        """Refuse to sample paths.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "this search samples no sub-networks, and the method teaches sub-networks: use "
            "--search diverse-paths or single-path"
        )

    def begin_epoch(self) -> None:
        """Do nothing: there are no counts."""

    def state(self) -> dict[str, Any]:
        """Return nothing: there is no state."""
        return {}

    def restore(self, state: Mapping[str, Any], *, measured: bool = False) -> None:
        """Do nothing: there is no state."""


@dataclass
class BoundPaths:
    """A search that samples paths, bound to the space and the device of one supernet."""

    search: Sampling
    space: Space
    device: torch.device
    flops: Callable[[Genotype], float]
    """Counts the FLOPs of an architecture."""
    dtype: torch.dtype = field(default_factory=torch.get_default_dtype)
    """The type of the weights, and of the sampled paths."""
    diversity: dict[str, list[Tensor]] = field(default_factory=dict)
    """How much operations differ, by the last measurement; empty before the first."""
    counts: dict[str, Tensor] = field(default_factory=dict)
    """How often each operation was sampled in this epoch, (edges, ops) for every group."""

    def alphas(self) -> Tree:
        """Return no alphas: only weights train."""
        return {}

    def relax(self, alphas: Tree, clock: Clock) -> ArchWeights:
        """Sample one path."""
        return self.paths(1)[0]

    def paths(self, count: int) -> list[ArchWeights]:
        """Sample the paths of one batch."""
        sampled = self.search.paths(self.space, count, self.diversity, self.flops)
        for encoding in sampled:
            for group, edge, name in kept(self.space, encoding):
                shape = self.space.choices[group]
                counts = self.counts.setdefault(group, torch.zeros(shape, dtype=torch.int64))
                counts[edge, self.space.operations[group][edge].index(name)] += 1
        return [path(self.space, encoding, self.device, self.dtype) for encoding in sampled]

    def begin_epoch(self) -> None:
        """Reset the counts."""
        self.counts = {}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {"diversity": self.diversity, "counts": self.counts}

    def restore(self, state: Mapping[str, Any], *, measured: bool = False) -> None:
        """Resume from a checkpoint; `measured`: an epoch of this supernet has ended."""
        if measured and self.search.measures and not state["diversity"]:
            raise ValueError("diversity has no measurement: must have that of the last epoch")
        shapes = self.space.choices
        counts = {g: torch.zeros(shapes[g], dtype=torch.int64) for g in state["counts"]}
        refuse_unlike(state["counts"], counts, "counts")
        differ = {
            group: [torch.zeros(len(edge), len(edge), dtype=torch.float64) for edge in edges]
            for group, edges in self.space.operations.items()
            if group in state["diversity"]
        }
        refuse_unlike(state["diversity"], differ, "diversity")
        self.diversity, self.counts = dict(state["diversity"]), dict(state["counts"])
