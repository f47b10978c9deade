"""A search by alphas: choices are relaxed, alphas are trained, an architecture is derived."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast, final

from tutelage.config import Run
from tutelage.problem import Problem
from tutelage.run.job.directory import RunDirectory
from tutelage.run.monitor.relaxed import Diagnostics
from tutelage.run.networks.found import Found
from tutelage.run.networks.relaxation import BoundAlphas
from tutelage.run.strategies.keep import keep
from tutelage.run.strategies.validation import validate
from tutelage.run.supernet.penalty import with_penalty
from tutelage.run.supernet.setup import Setup
from tutelage.run.supernet.view import View
from tutelage.searches.base import Relaxing
from tutelage.spaces.base import Space
from tutelage.spaces.genotype import Genotype

SHORT = re.compile(r"_conv|_pool|_connect|x\d|_(?=\d)")
"""Matches what a progress line leaves out of an operation's name: sep_conv_3x3 is sep3."""


@final
class Relaxed:
    """Alphas train on the validation half, and the architecture derived from them is kept."""

    def __init__(self, setup: Setup) -> None:
        """Prepare the diagnostics.

        Raises:
            ValueError: The table of the settings is not a table, or not for this space.
        """
        self.setup, self.epochs = setup, setup.settings.epochs
        self.diagnostics = Diagnostics(setup.settings, setup.space, remembers=True)

    @staticmethod
    def refuse(settings: Run, space: Space) -> None:
        """Refuse settings that would have no effect.

        Raises:
            ValueError: There is such a setting.
        """
        refuse_ranking(settings)
        if settings.stop == "skips" and "normal" not in space.operations:
            raise ValueError(
                f"stop = 'skips': it counts the skip connections of normal cells, and the space "
                f"{space.name!r} has none, but {', '.join(space.operations)}; give --stop "
                "eigenvalue, or leave it out"
            )

    def check(self, view: View) -> None:
        """Refuse nothing: limits that cannot be met were refused with the budget."""

    def bind(self, space: Space) -> BoundAlphas:
        """Bind the search to the space of one supernet."""
        return BoundAlphas(cast(Relaxing, self.setup.search), space, self.setup.device)

    def train(self, problem: Problem, spaces: list[Space]) -> Problem:
        """Add the penalties on architectures to the loss of the alphas."""
        budget, count = self.setup.budget, len(problem.learners)
        limits = budget.penalties(spaces, count, self.setup.device) if budget else []
        return with_penalty(problem, limits)

    def observe(self, view: View) -> dict[str, Any]:
        """Report the architecture weights, and diagnose the architectures of the epoch."""
        return archs(view) | self.diagnostics.after(view)

    def shown(self, view: View) -> dict[str, str]:
        """Return the cells of the first learner's architecture, abbreviated."""
        return {
            group: " ".join(
                "+".join(f"{SHORT.sub('', op)}({state})" for op, state in node)
                for node in cell.nodes
            )
            for group, cell in view.genotype(view.learners[0]).cells.items()
        }

    def conclude(self, view: View, directory: RunDirectory) -> Found:
        """Keep the learner with the lowest loss on the whole validation half, or an ensemble."""
        return keep(view, directory, self._genotypes(view), self._epoch(view), validate(view), [])

    def _genotypes(self, view: View) -> list[Genotype]:
        """Derive every learner's architecture, at the end or at the epoch that a stop keeps."""
        if stopped := self.diagnostics.stopped:
            before = self.diagnostics.history[stopped["epoch"]]
            return [Genotype.from_dict(learner["genotype"]) for learner in before]
        return [view.genotype(learner) for learner in view.learners]

    def _epoch(self, view: View) -> int:
        """Count the epochs that led to the kept architecture."""
        stopped = self.diagnostics.stopped
        return stopped["epoch"] + 1 if stopped else view.epoch


def refuse_ranking(settings: Run) -> None:
    """Refuse a ranking in a search that samples no paths.

    Raises:
        ValueError: The settings ask for one.
    """
    if settings.ranked:
        raise ValueError(
            f"ranked = {settings.ranked}: only searches that sample paths rank architectures "
            "in the supernet, single-path and diverse-paths"
        )


def archs(view: View) -> dict[str, Any]:
    """Return the architecture weights, the derived architectures and their costs."""
    search, budget = cast(Relaxing, view.setup.search), view.setup.budget
    alphas = [view.alphas(learner) for learner in view.learners]
    found: dict[str, Any] = {
        "arch_weights": [rounded(search.expected(each).operations) for each in alphas]
    }
    found["genotype"] = [view.genotype(learner).to_dict() for learner in view.learners]
    if budget:
        spaces = map(view.space_of, view.learners)
        found["cost"] = [budget.costs_at(*pair) for pair in zip(spaces, alphas, strict=True)]
    return found


def rounded(operations: Mapping[str, Any]) -> dict[str, list[list[float]]]:
    """Return weights as plain numbers, edges x operations for every group."""
    return {g: [[round(x, 6) for x in each] for each in w.tolist()] for g, w in operations.items()}
