"""Diversity-based sampling of sub-networks: EnNAS, section 3.3 (OpenReview G9M4FU8Ggo).

The m sub-networks of a batch use different operations in every layer. They are sampled one after
the other: the first uniformly, the next by how much each operation differs from those already
sampled, ζ (Eq. 4 and 5). `rule` is how the conditional probabilities are scaled:

- exact: alternately, over the sets' true probabilities, until all operations are equally likely at
  every pick, which the paper states as the sampler's property;
- printed: as printed in Eq. 5, normalised; that property holds within some per cent;
- direct: ζ alone, normalised; operations that differ more are trained more.

ζ is measured after every epoch. Before the first measurement operations are sampled uniformly,
without repetition.

Deviations: the paper does not mention operations whose output is zero everywhere. Their cosine does
not exist, so they count as different from all others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch

from tutelage.checks import known_choices
from tutelage.searches.base import Diversity, Kind, Needs
from tutelage.searches.diversity import Rule, Sequential, sequential, uniform
from tutelage.spaces.base import Space
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.paths import Encoding, choices


@dataclass(frozen=True)
class DiversePaths:
    """Train sub-networks that differ in every layer."""

    rule: Rule = "exact"
    """How Eq. 5 is normalised to a distribution: exact, printed or direct."""
    kind: ClassVar[Kind] = "one-shot"
    measures: ClassVar[bool] = True

    def __post_init__(self) -> None:
        known_choices(self)

    def needs(self, space: Space) -> Needs:
        """Take the space as it is."""
        return Needs()

    def check(self, space: Space, flops: Callable[[Genotype], float]) -> None:
        """Refuse nothing: the required number of operations depends on the number of paths."""

    def paths(
        self, space: Space, count: int, diversity: Diversity, flops: Callable[[Genotype], float]
    ) -> list[Encoding]:
        """Sample paths that have no operation of a layer in common.

        Raises:
            ValueError: A layer has fewer operations than `count`.
        """
        fewest = min(len(names) for node in choices(space) for names in node.operations)
        if count > fewest:
            raise ValueError(
                f"{count} sub-networks in a layer of {fewest} operations, but each needs a "
                f"different one: give --students {fewest} or fewer, or a space with more operations"
            )
        columns: list[list[int]] = []
        for node in choices(space):
            subsets = torch.randint(len(node.subsets), (count,)).tolist()
            if len(node.subsets) > 1:
                columns.append(subsets)
            edges = zip(node.edges, node.operations, strict=True)
            sampled = {e: self._edge(space, node.group, e, n, count, diversity) for e, n in edges}
            kept = [node.subsets[subset] for subset in subsets]
            for place in range(len(node.subsets[0])):
                columns.append([sampled[edges[place]][i] for i, edges in enumerate(kept)])
        return list(zip(*columns, strict=True))

    def _edge(
        self,
        space: Space,
        group: str,
        edge: int,
        names: Sequence[str],
        count: int,
        diversity: Diversity,
    ) -> list[int]:
        """Sample `count` different operations of one edge, among those named."""
        if group not in diversity:
            return uniform(len(names), count).draw()[0].tolist()
        columns = [space.operations[group][edge].index(name) for name in names]
        zeta = diversity[group][edge][columns][:, columns].contiguous()
        return conditionals(zeta.numpy().tobytes(), count, self.rule).draw()[0].tolist()


@lru_cache(maxsize=4096)
def conditionals(zeta: bytes, count: int, rule: Rule) -> Sequential:
    """Make an edge's probabilities, once for all steps between two measurements."""
    values = torch.frombuffer(bytearray(zeta), dtype=torch.float64)
    side = round(len(values) ** 0.5)
    return sequential(values.view(side, side), count, rule)
