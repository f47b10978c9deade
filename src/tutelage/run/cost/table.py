"""The cost of the final network, choice by choice.

The final network is the one that `tutelage retrain` trains, without an auxiliary head. Its
parameters and its FLOPs are sums: a fixed term (stem, the cells' preprocessing, classifier), and
one term for each operation on each edge that it keeps. Its latency is predicted as such a sum,
where there is a table of measured ones.

A relaxed architecture has an expected cost. With m the architecture weights, c the costs, and n
edges that enter a node of which k are kept (k = 2 in cells of DARTS' shape, k = n in nasbench201),

    E[cost] = fixed + sum_e k / n_e sum_o p_eo c_eo,   p_eo = m_eo / sum_o' m_eo',

where o' runs over what can be kept: cells of DARTS' shape never keep `none`. Where the architecture
weights include weights of edges (PC-DARTS' w, which sum to 1 over a node), k w_e replaces k / n_e
unless k = n.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tutelage.config import Run
from tutelage.run.cost.count import flops, params
from tutelage.run.cost.latency import LatencyTable, Target
from tutelage.spaces.base import ArchWeights, Image, Size, Space, keeps_none, nodes
from tutelage.spaces.genotype import Genotype


class Cost(NamedTuple):
    """The cost of a network, or of an operation in one."""

    params: int
    """Parameters."""
    flops: int
    """FLOPs of convolutions and the classifier for one image."""
    latency: float = 0.0
    """Milliseconds of a forward pass, predicted by a table; 0: there is none."""


def added(costs: Iterable[Cost]) -> Cost:
    """Add costs up."""
    return Cost(*(sum(parts) for parts in zip(*costs, strict=True)))


# Costs ------------------------------------------------------------------------------------------


def final_size(settings: Run, space: Space, classes: int, image_channels: int) -> Size:
    """Return the size of the network that a retraining by these settings trains."""
    return Size(
        channels=settings.retrain.channels or space.sizes.final_channels,
        cells=settings.retrain.cells or space.sizes.final_cells,
        classes=classes,
        image_channels=image_channels,
        stem=settings.retrain.stem,
    )


@lru_cache(maxsize=4096)
def cost_of(
    make: Callable[..., nn.Module],
    name: str,
    arguments: tuple[Hashable, ...],
    shape: tuple[int, int, int],
) -> Cost:
    """Count the cost of an operation at one place."""
    with torch.device("meta"):
        module = make(name, *arguments).eval()
    return Cost(params(module), flops(module, shape))


@dataclass(frozen=True, eq=False)
class CostTable:
    """Costs as tensors, for the operations of a space's architecture weights."""

    fixed: Tensor
    """Cost that every network has, (3,): parameters, FLOPs, latency."""
    operations: Mapping[str, Tensor]
    """For every group, the costs (edges, ops, 3)."""
    can_stay: Mapping[str, Tensor]
    """For every group, 1 for what can be derived, 0 for what cannot, (edges, ops)."""
    nodes: Sequence[tuple[int, int]]
    """How many edges enter each node, and how many of them it keeps."""

    def expected(self, arch: ArchWeights) -> Tensor:
        """Return the expected cost (3,) of architecture weights; it is differentiable."""
        total = self.fixed
        for group, costs in self.operations.items():
            stay = self.can_stay[group] * arch.operations[group]
            stay = stay / stay.sum(-1, keepdim=True).clamp(min=1e-30)  # softmax may underflow
            shares = self._shares(None if arch.edges is None else arch.edges[group].to(costs))
            total = total + torch.einsum("e,eo,eoc->c", shares, stay, costs)
        return total

    def _shares(self, edges: Tensor | None) -> Tensor:
        """Return how much of every edge is kept, (edges,)."""
        shares = []
        starts = accumulate((entering for entering, _ in self.nodes), initial=0)
        for start, (entering, kept) in zip(starts, self.nodes, strict=False):
            if edges is None or kept == entering:
                shares.append(self.fixed.new_full((entering,), kept / entering))
            else:
                rows = edges[start : start + entering]
                shares.append(kept * rows / rows.sum())
        return torch.cat(shares)


@dataclass(frozen=True)
class Costs:
    """The cost that each choice of a space adds to the final network."""

    fixed: Cost
    """Cost that every network has."""
    operations: Mapping[str, Sequence[Mapping[str, Cost]]]
    """For every group and edge, operations and their costs."""
    nodes: Sequence[tuple[int, int]]
    """How many edges enter each node, and how many operations it keeps."""
    keeps_none: bool
    """Whether `none` can be derived."""

    def of(self, genotype: Genotype) -> Cost:
        """Add up the cost of an architecture."""
        return self.total(
            (group, e, name) for group, _, kept in nodes(genotype) for e, name in kept
        )

    def total(self, kept: Iterable[tuple[str, int, str]]) -> Cost:
        """Add up the costs of all kept operations, given as (group, edge, operation)."""
        parts = (self.operations[group][edge][name] for group, edge, name in kept)
        return added([self.fixed, *parts])

    def can_stay(self, name: str) -> bool:
        """Tell whether an operation can be derived."""
        return name != "none" or self.keeps_none

    def table(self, space: Space, device: torch.device | None = None) -> CostTable:
        """Arrange the costs in the order of a space's operations; the space may be narrowed."""

        def tensor(value: Any) -> Tensor:
            return torch.tensor(value, dtype=torch.float64, device=device)

        return CostTable(
            fixed=tensor(self.fixed),
            operations={
                group: tensor(
                    [
                        [costs[name] for name in names]
                        for names, costs in zip(edges, self.operations[group], strict=True)
                    ]
                )
                for group, edges in space.operations.items()
            },
            can_stay={
                group: tensor([[self.can_stay(name) for name in names] for names in edges])
                for group, edges in space.operations.items()
            },
            nodes=self.nodes,
        )


def costs_of(
    space: Space, size: Size, image: Image, latencies: LatencyTable | None = None
) -> Costs:
    """Count the cost that each operation on each edge adds to a network of this size.

    Args:
        space: What can be built, with all of its operations.
        size: The size of the final network.
        image: Height and width of the images.
        latencies: Measured latencies; None: they are not part of the cost.

    Raises:
        ValueError: The table lacks an operation at its place, or networks of this size.
    """
    target = Target(space, size, image)
    operations: dict[str, list[dict[str, Cost]]] = {
        group: [dict.fromkeys(names, Cost(0, 0)) for names in edges]
        for group, edges in space.operations.items()
    }
    for slot in space.slots(size, image):
        found = operations[slot.group][slot.edge]
        for name in found:
            one = cost_of(slot.make, name, slot.arguments, slot.shape)
            if latencies:
                one = one._replace(latency=latencies.of(target, slot, name))
            found[name] = added([found[name], one])
    some = space.genotype(
        ArchWeights({g: torch.zeros(shape) for g, shape in space.choices.items()})
    )
    with torch.device("meta"):
        network = space.network(some, size).eval()
    cell = next(iter(some.cells.values()))
    kept = list(zip(space.nodes, map(len, cell.nodes), strict=True))
    costs = Costs(Cost(0, 0), operations, kept, keeps_none(space))
    chosen = costs.of(some)
    fixed = Cost(
        params(network) - chosen.params,
        flops(network, (size.image_channels, *image)) - chosen.flops,
        latencies.fixed(target) if latencies else 0.0,
    )
    return replace(costs, fixed=fixed)
