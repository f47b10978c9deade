"""A one-shot search: sampled paths train in a supernet, then evolution searches among them."""

from __future__ import annotations

from typing import Any, cast, final

from tutelage.config import Run
from tutelage.extras import Score
from tutelage.problem import Problem
from tutelage.records.results import Origin
from tutelage.records.rows import EndRow, LearnerScores
from tutelage.records.typed import finite
from tutelage.run.job.directory import RunDirectory
from tutelage.run.monitor import sampled
from tutelage.run.monitor.measured import refuse_measures
from tutelage.run.monitor.relaxed import Diagnostics
from tutelage.run.networks.found import Found
from tutelage.run.networks.relaxation import BoundPaths
from tutelage.run.one_shot import conclusion
from tutelage.run.one_shot.ranking import ranked, ranking_of
from tutelage.run.strategies.keep import append_once, best
from tutelage.run.strategies.validation import validate
from tutelage.run.supernet.penalty import without_alphas
from tutelage.run.supernet.setup import Setup
from tutelage.run.supernet.view import View
from tutelage.searches.base import Sampling
from tutelage.spaces.base import Space


@final
class OneShot:
    """Weights train on sampled paths; the path that evolution finds is kept."""

    def __init__(self, setup: Setup) -> None:
        """Open the table of the settings.

        Raises:
            ValueError: It is not a table, or not for this space.
        """
        self.setup, self.epochs = setup, setup.settings.epochs
        self.search = cast(Sampling, setup.search)
        self.diagnostics = Diagnostics(setup.settings, setup.space)

    @staticmethod
    def refuse(settings: Run, space: Space) -> None:
        """Refuse settings that would have no effect.

        Raises:
            ValueError: There is such a setting.
        """
        refuse_measures(settings, "this search samples paths and has no alphas")

    def check(self, view: View) -> None:
        """Refuse limits within which evolution finds no architecture.

        Raises:
            ValueError: No sampled architecture is within them.
        """
        conclusion.check(view)

    def bind(self, space: Space) -> BoundPaths:
        """Bind the search to the space of one supernet.

        Raises:
            ValueError: The search cannot sample paths in it.
        """
        self.search.check(space, self.setup.flops)
        return BoundPaths(self.search, space, self.setup.device, self.setup.flops)

    def train(self, problem: Problem, spaces: list[Space]) -> Problem:
        """Leave out the levels of alphas: this search has no alphas."""
        return without_alphas(problem)

    def observe(self, view: View) -> dict[str, Any]:
        """Report how often each operation was sampled, and the scores of students and teacher."""
        counts = [each.counts for each in view.bound]
        row: dict[str, Any] = {
            "sampled": list(map(sampled.shares, counts)),
            "samples": list(map(sampled.samples_of, counts)),
        }
        row |= sampled.after(view)
        differ = sampled.diversities(view) if self.search.measures else []
        for bound, measured in zip(cast("list[BoundPaths]", view.bound), differ, strict=False):
            bound.diversity = measured  # for the next epoch's paths
        return row

    def shown(self, view: View) -> dict[str, str]:
        """Show nothing: there is no best architecture before the evolution."""
        return {}

    def conclude(self, view: View, directory: RunDirectory) -> Found:
        """Run an evolution of paths in the best learner's supernet, in a folder of its own."""
        settings, table, learners = self.setup.settings, self.diagnostics.table, view.learners
        own = view.problem.extra(Score)
        scores = [{} for _ in learners] if own else validate(view).scores
        kept = best(scores)
        scorer = conclusion.scorer_of(view, learners[kept])
        order = None
        if settings.ranked and table:
            ranking = ranking_of(view, scorer, table)
            conclusion.work_in(directory.path / conclusion.RANKING, ranking, settings)
            order = ranked(ranking, table)
        evolving = conclusion.evolve_of(view, scorer)
        conclusion.work_in(directory.path / conclusion.EVOLUTION, evolving, settings)
        best_path = evolving.evolving.best
        found, candidate = evolving.genotype(best_path), evolving.described(best_path)
        end = EndRow(
            learners=[LearnerScores(**each) for each in scores],
            kept=kept,
            ranking=order,
            evolution=candidate,
            table=self.diagnostics.looked_up([found]),
            table_caveat=self.diagnostics.caveat,
        )
        append_once(directory, end)
        about = Origin(
            learner=kept,
            epoch=view.epoch,
            supernet_accuracy=candidate.accuracy,
            supernet_score=candidate.score,
        )
        directory.write_text("genotype.json", found.to_json(finite(about)))
        evolved = evolving.in_words(best_path)
        return Found(found, directory.path, kept, scores, self.setup.size, evolved=evolved)
