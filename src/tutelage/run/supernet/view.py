"""A read-only view of a running search, for what is shown, measured and kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from tutelage.batch import Batch
from tutelage.problem import Learner, Problem, pick
from tutelage.run.networks.relaxation import Bound
from tutelage.run.supernet.metrics import Place
from tutelage.run.supernet.setup import Setup
from tutelage.searches.base import Relaxing
from tutelage.spaces.base import Space
from tutelage.spaces.genotype import Genotype
from tutelage.trees import Tree, tree_map


def alphas_of(variables: Mapping[str, Tree], learner: Learner) -> Tree:
    """Return a learner's alphas, on the CPU."""
    return tree_map(Tensor.cpu, pick(variables, learner.alphas))


@dataclass(frozen=True)
class View:
    """A search between two steps; the next step changes its tensors."""

    setup: Setup
    problem: Problem
    spaces: Sequence[Space]
    """Spaces of the first supernet, the second, ...; the last one serves the others."""
    bound: Sequence[Bound]
    """For every supernet, what relaxes its choices or samples its paths."""
    variables: dict[str, Tree]
    phase: int
    epoch: int
    """Epochs done."""
    epochs: int
    """Epochs of the whole search."""
    step: int
    """Steps done in the epoch."""
    steps: int
    """Steps of an epoch."""
    training: frozenset[str]
    """Variables that train in the epoch."""
    rates: Mapping[str, float]
    """Learning rates of the weights that train."""
    last: Mapping[Place, float]
    """The values that the last step measured."""
    means: Mapping[Place, float]
    """The means of the epoch so far."""
    apart: Mapping[str, Mapping[str, float]]
    """The parts of the gradient of every term of the top loss, measured once an epoch."""

    @property
    def learners(self) -> Sequence[Learner]:
        """The learners, of which one or an ensemble is kept."""
        return self.problem.learners

    def weights(self, learner: Learner) -> dict[str, Tensor]:
        """Return a learner's weights."""
        return cast("dict[str, Tensor]", pick(self.variables, learner.weights))

    def alphas(self, learner: Learner) -> Tree:
        """Return a learner's alphas, on the CPU."""
        return alphas_of(self.variables, learner)

    def space_of(self, learner: Learner) -> Space:
        """Return the space of a learner's supernet, as narrowed by the phases."""
        return self.spaces[min(self.learners.index(learner), len(self.spaces) - 1)]

    def genotype(self, learner: Learner) -> Genotype:
        """Derive a learner's architecture."""
        space, alphas, budget = self.space_of(learner), self.alphas(learner), self.setup.budget
        derive = cast(Relaxing, self.setup.search).derive
        return (budget.derive if budget else derive)(space, alphas)

    def validation(self) -> Iterator[Batch]:
        """Yield the validation half once, not augmented, at most as many batches as an epoch has.

        Batches have the size of the search's batches, since a supernet normalises by the batch.
        """
        valid, limit = self.setup.streams.valid, self.setup.settings.limit_batches
        return valid.in_order(limit * valid.batch_size if limit else None)
