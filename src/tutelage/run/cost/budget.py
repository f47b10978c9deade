"""A budget of the final network: a penalty during the search, and a limit in the derivation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from operator import truediv
from typing import NamedTuple, cast

import torch
from torch import Tensor

from tutelage.config import Run
from tutelage.records import rows
from tutelage.run.cost.latency import LatencyTable
from tutelage.run.cost.limits import UNITS, Limits, in_units, limits_of, recorded
from tutelage.run.cost.table import Cost, Costs, CostTable, costs_of, final_size
from tutelage.searches.base import Relaxing, Search
from tutelage.spaces.base import ArchWeights, Space, nodes
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.narrowing import everything, strongest
from tutelage.trees import Tree

ADVICE = "raise the limit, or lower retrain.channels or retrain.cells"


class LeftOut(NamedTuple):
    """Operations that are not to be derived."""

    loss: float
    """Architecture weight lost, divided by the cost saved in shares of the limits."""
    group: str
    places: list[tuple[int, int]]
    """Edges and columns."""


@dataclass(frozen=True, eq=False)
class Budget:
    """Limits on the cost of the final network of a search."""

    search: Relaxing
    costs: Costs
    limits: Limits
    weight: float
    """Weight of the penalty on an expected cost above a limit."""

    def penalties(
        self, spaces: Sequence[Space], learners: int, device: torch.device
    ) -> list[Callable[[Tree], Tensor]]:
        """Make every learner's penalty as a function of its alphas; none without weight or limits.

        Args:
            spaces: Those of the first learner, the second, ...; the last one serves the others.
            learners: How many there are.
            device: Where their alphas are.
        """
        tables = [self.costs.table(space, device) for space in spaces]
        tables += tables[-1:] * (learners - len(tables))
        limited = self.weight and self.limits != Limits()
        return [partial(self.penalty, table) for table in tables if limited]

    def penalty(self, table: CostTable, alphas: Tree) -> Tensor:
        """Return weight * sum relu(E[cost] / limit - 1), (), differentiable in the alphas.

        The expectation is the cost of the expected architecture weights, since costs are
        linear in architecture weights.
        """
        arch = self.search.expected(alphas)
        expected = table.expected(arch)
        excess = (expected / expected.new_tensor(self.limits) - 1).relu().sum()
        return self.weight * excess.to(next(iter(arch.operations.values())).dtype)

    def costs_at(self, space: Space, alphas: Tree) -> rows.Costs:
        """Return the expected and the derived architecture's cost, for a row of metrics."""
        with torch.no_grad():
            expected = self.costs.table(space).expected(self.search.expected(alphas))
        derived = self.costs.of(self.derive(space, alphas))
        return rows.Costs(expected=recorded(Cost(*expected.tolist())), derived=recorded(derived))

    def relative_costs(self, space: Space, limits: Sequence[float]) -> dict[str, list[list[float]]]:
        """Return each operation's cost as a share of these limits, summed, (edges, ops)."""
        return {
            group: [
                [sum(map(truediv, costs[name], limits)) for name in names]
                for names, costs in zip(edges, self.costs.operations[group], strict=True)
            ]
            for group, edges in space.operations.items()
        }

    def cheapest(self, space: Space, limits: Sequence[float] | None = None) -> Genotype:
        """Return the architecture with the lowest cost, in shares of these or other limits."""
        relative_costs = self.relative_costs(space, limits or self.limits)
        return space.genotype(
            ArchWeights(
                {group: -torch.tensor(relative) for group, relative in relative_costs.items()}
            )
        )

    def check(self, space: Space) -> None:
        """Refuse limits below what the space's cheapest architecture costs.

        Raises:
            ValueError: One limit, or both together, cannot be met.
        """
        for name, (unit, words) in UNITS.items():
            alone = self.limits.only(name)
            least = getattr(self.costs.of(self.cheapest(space, alone)), name)
            if least > getattr(alone, name):
                raise ValueError(
                    f"{alone.as_text()}: the cheapest architecture of the space {space.name} has "
                    f"{least / unit:.4g} {words}; {ADVICE}"
                )
        cost = self.costs.of(self.cheapest(space))
        if not self.limits.allow(cost):
            raise ValueError(
                f"{self.limits.as_text()}: the architecture of the space {space.name} that comes "
                f"nearest to all has {in_units(cost)}; {ADVICE}"
            )

    def derive(self, space: Space, alphas: Tree) -> Genotype:
        """Derive an architecture within the limits that loses little weight.

        While it costs too much, one operation is left out, and the architecture derived again:
        the one whose replacement loses the least weight for the cost it saves. All others of its
        node that cost as much are left out too, except on the other edges that the node keeps.
        Once the limits hold, what need not be left out is restored. Where a search has rules that
        never get below the limits (P-DARTS' on skips), the cheapest architecture is returned.
        """
        weights = {g: w.tolist() for g, w in self.search.expected(alphas).products().items()}
        gone: list[LeftOut] = []
        found = self._derive(space, alphas, gone)
        while not self.limits.allow(cost := self.costs.of(found)):
            exceeded = [
                limit if paid > limit else inf
                for paid, limit in zip(cost, self.limits, strict=True)
            ]
            relative_costs = self.relative_costs(space, exceeded)
            options = list(self._options(space, found, weights, relative_costs, gone))
            if not options:
                return self.cheapest(space)
            gone.append(min(options, key=lambda option: option.loss))
            found = self._derive(space, alphas, gone)
        for each in list(gone):
            others = [other for other in gone if other is not each]
            more = self._derive(space, alphas, others)
            if self.limits.allow(self.costs.of(more)):
                found, gone = more, others
        return found

    def _derive(self, space: Space, alphas: Tree, gone: Sequence[LeftOut]) -> Genotype:
        """Derive by the search's rule, without some operations."""
        allowed = {g: torch.ones(shape, dtype=torch.bool) for g, shape in space.choices.items()}
        for each in gone:
            allowed[each.group][tuple(zip(*each.places, strict=True))] = False
        return self.search.derive(space, alphas, allowed)

    def _options(
        self,
        space: Space,
        genotype: Genotype,
        weights: Mapping[str, list[list[float]]],
        relative_costs: Mapping[str, list[list[float]]],
        gone: Sequence[LeftOut],
    ) -> Iterator[LeftOut]:
        """Yield the operations that may be left out next."""
        out = {(each.group, *place) for each in gone for place in each.places}
        for group, entering, named in nodes(genotype):
            weight, relative = weights[group], relative_costs[group]
            kept = [(e, space.operations[group][e].index(name)) for e, name in named]
            staying = [
                (edge, column)
                for edge in entering
                for column, name in enumerate(space.operations[group][edge])
                if self.costs.can_stay(name) and (group, edge, column) not in out
            ]
            for edge, column in (choice for choice in kept if choice in staying):
                others = {e for e, c in kept if (e, c) != (edge, column)}
                own = relative[edge][column]
                rivals = [(e, c) for e, c in staying if e not in others]
                cheaper = [(e, c) for e, c in rivals if relative[e][c] < own]
                if cheaper:
                    e, c = max(cheaper, key=lambda rival: weight[rival[0]][rival[1]])
                    lost = weight[edge][column] - weight[e][c]
                    leave = [(e, c) for e, c in rivals if relative[e][c] >= own]
                    loss = lost / (own - relative[e][c])
                    yield LeftOut(loss, group, list(dict.fromkeys([*leave, (edge, column)])))

    def spared(self, space: Space, alphas: Tree, count: int) -> Tree:
        """Return alphas whose order lets every edge keep `count` operations and no more.

        They are the given alphas where the kept operations have an architecture within the limits;
        otherwise every edge's cheapest operation comes first.
        """
        columns = strongest(everything(space), alphas, count)[1]
        if self.limits.allow(self.costs.of(self.cheapest(space.narrowed(columns)))):
            return alphas
        raised = {group: alphas[group].clone() for group in columns}
        for group, edges in self.relative_costs(space, self.limits).items():
            for row, names, relative in zip(
                raised[group], space.operations[group], edges, strict=True
            ):
                able = [c for c, name in enumerate(names) if self.costs.can_stay(name)]
                row[min(able, key=relative.__getitem__)] = inf
        return {**alphas, **raised}


def budget_of(
    settings: Run,
    search: Search,
    space: Space,
    classes: int,
    shape: tuple[int, int, int],
    latencies: LatencyTable | None = None,
) -> Budget | None:
    """Make the budget of the settings; None: there is no limit, and no table of latencies.

    Args:
        settings: The settings of the search.
        search: How choices are relaxed.
        space: What can be built, fitted to the search.
        classes: Classes of the data.
        shape: Channels, height and width of the images.
        latencies: Measured latencies of the operations.

    Raises:
        ValueError: The space's cheapest architecture costs more, or its costs are not known.
    """
    limits = limits_of(settings)
    if limits == Limits() and not latencies:
        return None
    size = final_size(settings, space, classes, shape[0])
    costs = costs_of(space, size, shape[1:], latencies)
    budget = Budget(cast(Relaxing, search), costs, limits, settings.budget_weight)
    budget.check(space)
    return budget
