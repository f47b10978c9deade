"""What the final network costs, choice by choice, and a budget for it.

The final network is the one that `tutelage retrain` trains, without an auxiliary head. Its weights
and its multiply-adds are sums: a fixed part (stem, the cells' preprocessing, classifier), and a
price for each operation on each edge that it keeps.

A relaxed architecture has an expected cost. With m the mix, c the prices, and n edges that enter a
node of which k are kept (k = 2 in cells of DARTS' shape, k = n in nasbench201),

    E[cost] = fixed + sum_e k / n_e sum_o p_eo c_eo,   p_eo = m_eo / sum_o' m_eo',

where o' runs over what can be kept: cells of DARTS' shape never keep `none`. Where a mix weighs
edges too (PC-DARTS' w, which sum to 1 over a node), k w_e stands for k / n_e unless k = n.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tutelage.config import Run
from tutelage.run.describe import multiply_adds, weights
from tutelage.run.phases import everything, strongest
from tutelage.searches.base import Search
from tutelage.spaces.base import Mix, Size, Space
from tutelage.spaces.cells import GROUPS
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.nb201 import GROUP
from tutelage.spaces.ops import NODES, layout, operation
from tutelage.virtual import Tree

Image = tuple[int, int]  # height, width
Choice = tuple[str, int, int]
"""An operation of a space: its group, edge and column."""
MILLION = 1e6


class Cost(NamedTuple):
    """What a network, or a part of one, costs."""

    weights: int
    """Trained numbers."""
    multiply_adds: int
    """Of convolutions and the classifier for one image."""


def added(costs: Iterable[Cost]) -> Cost:
    """Add costs up."""
    weights, multiply_adds = zip(*costs, strict=True)
    return Cost(sum(weights), sum(multiply_adds))


# Prices -----------------------------------------------------------------------------------------


def halved(image: Image) -> Image:
    """Return the size of an image after a stride of 2."""
    return (image[0] + 1) // 2, (image[1] + 1) // 2


def cells(space: Space, size: Size, image: Image) -> Iterator[tuple[str, int, int, Image]]:
    """Yield group, channels, stride and input image of every cell of the final network.

    Raises:
        ValueError: The space is not one whose cells this knows.
    """
    if set(space.operations) == {GROUP}:
        for stage in range(3):
            for _ in range(size.cells):
                yield GROUP, size.channels << stage, 1, image
            image = halved(image)
    elif set(space.operations) == set(GROUPS):
        if size.form == "imagenet":
            image = halved(halved(halved(image)))
        for place in layout(size, dict.fromkeys(GROUPS, NODES)):
            yield place.group, place.channels, place.stride, image
            image = halved(image) if place.stride == 2 else image
    else:
        raise ValueError(
            f"space {space.name!r}: costs are known for the cells of darts, s1 to s4 and "
            "nasbench201, so leave out max_params and max_flops"
        )


@lru_cache(maxsize=1024)
def price(name: str, channels: int, stride: int, image: Image) -> Cost:
    """Count an operation at one place."""
    with torch.device("meta"):
        module = operation(name, channels, stride).eval()
    return Cost(weights(module), multiply_adds(module, (channels, *image)))


def nodes(
    space: Space, genotype: Genotype
) -> Iterator[tuple[str, range, list[tuple[int, int]]]]:
    """Yield group, entering edges and kept (edge, column)s of every node of a genotype."""
    for group, cell in genotype.cells.items():
        starts = accumulate(space.nodes, initial=0)
        for start, entering, node in zip(starts, space.nodes, cell.nodes, strict=False):
            edges = [start + source for _, source in node]
            names = [name for name, _ in node]
            columns = [
                space.operations[group][edge].index(name)
                for edge, name in zip(edges, names, strict=True)
            ]
            yield group, range(start, start + entering), list(zip(edges, columns, strict=True))


@dataclass(frozen=True, eq=False)
class Table:
    """Prices as tensors, for the operations of a space's mixes."""

    fixed: Tensor
    """What every network has, (2,): weights, multiply-adds."""
    operations: Mapping[str, Tensor]
    """For every group, the prices (edges, ops, 2)."""
    can_stay: Mapping[str, Tensor]
    """For every group, 1 for what can be read off, 0 for what cannot, (edges, ops)."""
    nodes: Sequence[tuple[int, int]]
    """How many edges enter each node, and how many of them it keeps."""

    def expected(self, mix: Mix) -> Tensor:
        """Return the expected cost (2,) of a mix, differentiably."""
        total = self.fixed
        for group, prices in self.operations.items():
            stay = self.can_stay[group] * mix.operations[group]
            stay = stay / stay.sum(-1, keepdim=True).clamp(min=1e-30)
            shares = self._shares(None if mix.edges is None else mix.edges[group])
            total = total + torch.einsum("e,eo,eoc->c", shares.to(prices), stay, prices)
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
class Prices:
    """What each choice of a space adds to the final network."""

    fixed: Cost
    """What every network has."""
    operations: Mapping[str, Sequence[Mapping[str, Cost]]]
    """For every group and edge, operations and their prices."""
    kept: tuple[int, ...]
    """How many operations each node keeps."""

    def of(self, genotype: Genotype) -> Cost:
        """Add up what an architecture costs."""
        parts = [self.operations[group][edge][name] for group, edge, name in choices(genotype)]
        return added([self.fixed, *parts])

    def can_stay(self, space: Space, name: str) -> bool:
        """Tell whether an operation can be read off: `none` where a node keeps all its edges."""
        return name != "none" or self.kept == space.nodes

    def table(self, space: Space, device: torch.device | None = None) -> Table:
        """Lay the prices out as a space, which may be narrowed, has its operations."""

        def tensor(value: Any) -> Tensor:
            return torch.tensor(value, dtype=torch.float64, device=device)

        return Table(
            fixed=tensor(self.fixed),
            operations={
                group: tensor(
                    [
                        [prices[name] for name in names]
                        for names, prices in zip(edges, self.operations[group], strict=True)
                    ]
                )
                for group, edges in space.operations.items()
            },
            can_stay={
                group: tensor([[self.can_stay(space, name) for name in names] for names in edges])
                for group, edges in space.operations.items()
            },
            nodes=list(zip(space.nodes, self.kept, strict=True)),
        )


def prices_of(space: Space, size: Size, image: Image) -> Prices:
    """Count what each operation on each edge adds to a network of this size, allocating none of it.

    Args:
        space: What can be built, with all of its operations.
        size: That of the final network.
        image: Height and width of the images.

    Raises:
        ValueError: The space is not one whose cells this knows.
    """
    sources = [source for entering in space.nodes for source in range(entering)]
    inputs = space.nodes[0]  # the first node reads all that comes from outside, and nothing else
    operations: dict[str, list[dict[str, Cost]]] = {
        group: [dict.fromkeys(names, Cost(0, 0)) for names in edges]
        for group, edges in space.operations.items()
    }
    for group, channels, stride, outside in cells(space, size, image):
        inside = halved(outside) if stride == 2 else outside
        for source, found in zip(sources, operations[group], strict=True):
            at = (stride, outside) if source < inputs else (1, inside)
            for name in found:
                found[name] = added([found[name], price(name, channels, *at)])
    some = space.genotype(Mix({g: torch.zeros(shape) for g, shape in space.choices.items()}))
    with torch.device("meta"):
        network = space.network(some, size).eval()
    kept = tuple(len(node) for node in next(iter(some.cells.values())).nodes)
    chosen = Prices(Cost(0, 0), operations, kept).of(some)
    fixed = Cost(
        weights(network) - chosen.weights,
        multiply_adds(network, (size.image_channels, *image)) - chosen.multiply_adds,
    )
    return Prices(fixed, operations, kept)


# Budgets ----------------------------------------------------------------------------------------


class Masked:
    """A space in which some operations come last when an architecture is read off a mix."""

    def __init__(self, space: Space, out: Mapping[str, Tensor]) -> None:
        """Take a space, and for every group which operations are out, (edges, ops)."""
        self.space, self.out = space, out

    def __getattr__(self, name: str) -> Any:
        """Be the space in all else."""
        return getattr(self.space, name)

    def genotype(self, mix: Mix) -> Genotype:
        """Read off the architecture that a mix favours, of what is not out if possible."""
        masked = {g: w.masked_fill(self.out[g], -1.0) for g, w in mix.operations.items()}
        return self.space.genotype(Mix(masked, edges=mix.edges))


def silenced(space: Space, alphas: Tree, out: Mapping[str, Tensor]) -> Tree:
    """Hand over to `none` what its edge's softmax gives to operations that are out.

    For a rule that reads alphas past the space (PR-DARTS'): what is out then weighs nothing, and
    all else what it did. Edges without `none` stay as they are.
    """
    changed = {group: alphas[group].detach().clone() for group in out}
    for group, masks in out.items():
        for row, names, mask in zip(changed[group], space.operations[group], masks, strict=True):
            if "none" in names:
                none = torch.tensor([name == "none" for name in names])
                total = row[mask | none].logsumexp(0)
                row[mask] = -inf
                row[none] = total
    return {**alphas, **changed}


@dataclass(frozen=True, eq=False)
class Budget:
    """Limits to what the final network of a search may cost."""

    search: Search
    prices: Prices
    limits: tuple[float, float]
    """Largest cost: weights, multiply-adds; inf: no limit."""
    weight: float
    """Weight of the penalty on an expected cost above a limit."""

    def penalty(self, table: Table, alphas: Tree) -> Tensor:
        """Return weight * sum relu(E[cost] / limit - 1), (), differentiable in the alphas.

        The expectation is the cost of the search's expected mix, since costs are linear in a mix.
        """
        mix = self.search.expected(alphas)
        expected = table.expected(mix)
        excess = (expected / expected.new_tensor(self.limits) - 1).relu().sum()
        return self.weight * excess.to(next(iter(mix.operations.values())).dtype)

    def within(self, cost: Cost) -> bool:
        """Tell whether a network may cost so much."""
        return all(paid <= limit for paid, limit in zip(cost, self.limits, strict=True))

    def loads(self, space: Space, limits: Sequence[float]) -> dict[str, list[list[float]]]:
        """Return each operation's price as a share of these limits, summed, (edges, ops)."""
        return {
            group: [
                [sum(map(truediv, prices[name], limits)) for name in names]
                for names, prices in zip(edges, self.prices.operations[group], strict=True)
            ]
            for group, edges in space.operations.items()
        }

    def cheapest(self, space: Space) -> Genotype:
        """Return the architecture with the lowest cost in shares of the limits."""
        loads = self.loads(space, self.limits)
        return space.genotype(Mix({group: -torch.tensor(load) for group, load in loads.items()}))

    def check(self, space: Space) -> None:
        """Refuse limits below what the space's cheapest architecture costs.

        Raises:
            ValueError: They are.
        """
        cost = self.prices.of(self.cheapest(space))
        for name, paid, limit in zip(("params", "flops"), cost, self.limits, strict=True):
            if paid > limit:
                raise ValueError(
                    f"max_{name} = {limit / MILLION:g}: the cheapest architecture of the space "
                    f"{space.name} has {paid / MILLION:.4g} million; raise the limit, or lower "
                    "retrain.channels or retrain.cells"
                )

    def read(self, space: Space, alphas: Tree) -> Genotype:
        """Read off an architecture within the limits, losing little of the mix's weight.

        While it costs too much, one operation is left out, and the architecture read off again:
        that whose replacement loses the least weight for the cost it saves. With it go all of its
        node that cost as much, but on the edges that the node keeps besides. Where a search has
        rules that never get below the limits (P-DARTS' on skips), the cheapest architecture is
        returned.
        """
        weights = {g: w.tolist() for g, w in self.search.expected(alphas).products().items()}
        out = {g: torch.zeros(shape, dtype=torch.bool) for g, shape in space.choices.items()}
        while True:
            left = alphas if self.prices.keeps_none else silenced(space, alphas, out)
            genotype = self.search.derive(cast(Space, Masked(space, out)), left)
            cost = self.prices.of(genotype)
            if self.within(cost):
                return genotype
            exceeded = [
                limit if paid > limit else inf
                for paid, limit in zip(cost, self.limits, strict=True)
            ]
            loads = self.loads(space, exceeded)
            options = list(self._options(space, genotype, weights, loads, out))
            if not options:
                return self.cheapest(space)
            _, group, leave = min(options, key=lambda option: option[0])
            for place in leave:
                out[group][place] = True

    def _options(
        self,
        space: Space,
        genotype: Genotype,
        weights: Mapping[str, list[list[float]]],
        loads: Mapping[str, list[list[float]]],
        out: Mapping[str, Tensor],
    ) -> Iterator[tuple[float, str, list[tuple[int, int]]]]:
        """Yield what may be left out: weight lost for the cost saved, group, (edge, column)s."""
        for group, rows, kept in nodes(space, genotype):
            weight, load = weights[group], loads[group]
            staying = [
                (edge, column)
                for edge in rows
                for column, name in enumerate(space.operations[group][edge])
                if self.prices.can_stay(name) and not out[group][edge, column]
            ]
            for edge, column in set(kept) & set(staying):
                others = {e for e, c in kept if (e, c) != (edge, column)}
                price = load[edge][column]
                rivals = [(e, c) for e, c in staying if e not in others]
                cheaper = [(e, c) for e, c in rivals if load[e][c] < price]
                if cheaper:
                    e, c = max(cheaper, key=lambda rival: weight[rival[0]][rival[1]])
                    lost = weight[edge][column] - weight[e][c]
                    leave = [(e, c) for e, c in rivals if load[e][c] >= price]
                    yield lost / (price - load[e][c]), group, [*leave, (edge, column)]

    def spared(self, space: Space, alphas: Tree, count: int) -> Tree:
        """Return alphas by whose order every edge can keep so many operations and no more.

        They are the alphas as they are, where what they leave has an architecture within the
        limits; else every edge's cheapest operation comes first.
        """
        columns = strongest(everything(space), alphas, count)[1]
        if self.within(self.prices.of(self.cheapest(space.narrowed(columns)))):
            return alphas
        raised = {group: alphas[group].clone() for group in columns}
        for group, edges in self.loads(space, self.limits).items():
            for row, names, load in zip(
                raised[group], space.operations[group], edges, strict=True
            ):
                able = [c for c, name in enumerate(names) if self.prices.can_stay(name)]
                row[min(able, key=load.__getitem__)] = inf
        return {**alphas, **raised}


def budget_of(
    settings: Run, search: Search, space: Space, classes: int, shape: tuple[int, int, int]
) -> Budget | None:
    """Make the budget that the settings ask for; None: there is no limit.

    Args:
        settings: Those of the search.
        search: How choices are relaxed.
        space: What can be built, fitted to the search.
        classes: Classes of the data.
        shape: Channels, height and width of the images.

    Raises:
        ValueError: The space's cheapest architecture costs more, or its costs are not known.
    """
    limits = [limit and limit * MILLION for limit in (settings.max_params, settings.max_flops)]
    if limits == [None, None]:
        return None
    prices = prices_of(space, final_size(settings, space, classes, shape[0]), shape[1:])
    budget = Budget(search, prices, (limits[0] or inf, limits[1] or inf), settings.budget_weight)
    budget.check(space)
    return budget


def final_size(settings: Run, space: Space, classes: int, image_channels: int) -> Size:
    """Return the size of the network that a retraining by these settings trains."""
    return Size(
        channels=settings.retrain.channels or space.sizes.final_channels,
        cells=settings.retrain.cells or space.sizes.final_cells,
        classes=classes,
        image_channels=image_channels,
        form=settings.retrain.form,
    )
