"""Random search: architectures are sampled when the search begins, and nothing is trained."""

from __future__ import annotations

from typing import Any, cast, final

from tutelage.config import Run
from tutelage.problem import Problem
from tutelage.run.job.directory import RunDirectory
from tutelage.run.monitor.measured import refuse_measures
from tutelage.run.monitor.relaxed import Diagnostics
from tutelage.run.networks.found import Found
from tutelage.run.networks.relaxation import BoundAlphas
from tutelage.run.strategies.keep import keep
from tutelage.run.strategies.relaxed import refuse_ranking
from tutelage.run.supernet.setup import Setup
from tutelage.run.supernet.view import View
from tutelage.searches.base import Relaxing
from tutelage.spaces.base import Space


@final
class Random:
    """Every learner's architecture is sampled, and the first one is kept, or an ensemble."""

    epochs = 0

    def __init__(self, setup: Setup) -> None:
        """Open the table of the settings.

        Raises:
            ValueError: It is not a table, or not for this space.
        """
        self.setup = setup
        self.diagnostics = Diagnostics(setup.settings, setup.space)

    @staticmethod
    def refuse(settings: Run, space: Space) -> None:
        """Refuse settings that would have no effect.

        Raises:
            ValueError: There is such a setting.
        """
        refuse_measures(settings, "a random search trains nothing and has no epochs")
        refuse_ranking(settings)

    def check(self, view: View) -> None:
        """Refuse nothing."""

    def bind(self, space: Space) -> BoundAlphas:
        """Bind the search to the space of one supernet."""
        return BoundAlphas(cast(Relaxing, self.setup.search), space, self.setup.device)

    def train(self, problem: Problem, spaces: list[Space]) -> Problem:
        """Return the method's problem as it is: nothing is trained."""
        return problem

    def observe(self, view: View) -> dict[str, Any]:
        """Observe nothing: there is no epoch."""
        return {}

    def shown(self, view: View) -> dict[str, str]:
        """Show nothing: there is no step."""
        return {}

    def conclude(self, view: View, directory: RunDirectory) -> Found:
        """Keep the first learner's architecture, or those of an ensemble, and print them."""
        genotypes = [view.genotype(learner) for learner in view.learners]
        table = self.diagnostics.looked_up(genotypes)  # no epoch's row has it
        caveat = self.diagnostics.caveat
        return keep(view, directory, genotypes, view.epoch, None, table, caveat)
