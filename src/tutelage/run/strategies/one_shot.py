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
from tutelage.run.monitor.relaxed import Watching
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

OF_ALPHAS = ("eigenvalue_every", "sharpness_every", "gap_every", "stop")
"""Settings that watch alphas."""


@final
class OneShot:
    """Weights descend on sampled paths; the path that evolution finds is kept."""

    def __init__(self, setup: Setup) -> None:
        """Open the table of the settings.

        Raises:
            ValueError: It is none, or not of this space.
        """
        self.setup, self.epochs = setup, setup.settings.epochs
        self.search = cast(Sampling, setup.search)
        self.watching = Watching(setup.settings, setup.space)

    @staticmethod
    def refuse(settings: Run) -> None:
        """Refuse settings that would do nothing.

        Raises:
            ValueError: There are such.
        """
        for name in OF_ALPHAS:
            if (value := getattr(settings, name)) not in (0, "never"):
                raise ValueError(
                    f"{name} = {value!r}: it watches alphas, and this search samples paths and "
                    "has none"
                )

    def check(self, view: View) -> None:
        """Refuse limits within which evolution finds nothing.

        Raises:
            ValueError: No architecture that was drawn keeps within them.
        """
        conclusion.check(view)

    def bind(self, space: Space) -> BoundPaths:
        """Bind the search to the space of one supernet.

        Raises:
            ValueError: The search can draw no path in it.
        """
        self.search.check(space, self.setup.flops)
        return BoundPaths(self.search, space, self.setup.device, self.setup.flops)

    def train(self, problem: Problem, spaces: list[Space]) -> Problem:
        """Leave out the levels of alphas: there are none."""
        return without_alphas(problem)

    def observe(self, view: View) -> dict[str, Any]:
        """Say how often each operation was drawn, and what students and teacher say."""
        counts = [each.counts for each in view.bound]
        row: dict[str, Any] = {
            "drawn": list(map(sampled.shares, counts)),
            "draws": list(map(sampled.draws_of, counts)),
        }
        row |= sampled.after(view)
        differ = sampled.diversities(view) if self.search.measures else []
        for bound, measured in zip(cast("list[BoundPaths]", view.bound), differ, strict=False):
            bound.diversity = measured  # for the next epoch's paths
        return row

    def shown(self, view: View) -> dict[str, str]:
        """Show nothing: no architecture is favoured before the evolution."""
        return {}

    def conclude(self, view: View, directory: RunDirectory) -> Found:
        """Evolve among the paths of the best learner's supernet, in a folder of its own."""
        settings, table, learners = self.setup.settings, self.watching.table, view.learners
        scored = view.problem.extra(Score)
        marks = [{} for _ in learners] if scored else validate(view).marks
        kept = best(marks)
        scorer = conclusion.scorer_of(view, learners[kept])
        order = None
        if settings.ranked and table:
            ranking = ranking_of(view, scorer, table)
            conclusion.work_in(directory.path / conclusion.RANKING, ranking, settings)
            order = ranked(ranking, table)
        evolving = conclusion.evolve_of(view, scorer)
        conclusion.work_in(directory.path / conclusion.EVOLUTION, evolving, settings)
        favourite = evolving.evolving.best
        found, described = evolving.genotype(favourite), evolving.described(favourite)
        end = EndRow(
            learners=[LearnerScores(**each) for each in marks],
            kept=kept,
            ranking=order,
            evolution=described,
            table=self.watching.looked_up([found]),
        )
        append_once(directory, end)
        scores = {"supernet_accuracy": described.accuracy, "supernet_score": described.score}
        about = Origin(kept, view.epoch, **scores)
        directory.write_text("genotype.json", found.to_json(finite(about)))
        path, size, said = directory.path, self.setup.size, evolving.said(favourite)
        return Found(found, path, kept, marks, size, evolved=said)
