"""The steps after the training of sampled paths: a scorer, and an evolution that uses it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tutelage import ranks
from tutelage.config import Run
from tutelage.data.seeding import generator
from tutelage.extras import Score, Seeds
from tutelage.problem import Learner
from tutelage.run.cost.limits import in_units, limits_of
from tutelage.run.job import loop
from tutelage.run.job.opened import opened
from tutelage.run.job.settings import plain
from tutelage.run.one_shot.batches import at_once, in_order
from tutelage.run.one_shot.evolution import Evolve
from tutelage.run.one_shot.scorer import Scorer
from tutelage.run.supernet.view import View
from tutelage.spaces.paths import architecture

EVOLUTION, RANKING = "evolution", "ranking"
"""Folders in a run's directory."""


def scorer_of(view: View, learner: Learner) -> Scorer:
    """Make a scorer of architectures with a learner's weights, on the validation half."""
    setup, evolution, own = view.setup, view.setup.settings.evolution, view.problem.extra(Score)
    streams, size = setup.streams, setup.streams.train.batch_size
    # cells, and a method's own score, are normalised by the batch: its size counts
    alone = own is not None or not setup.space.stages
    together = 1 if alone else at_once(setup.device, setup.shape, size)
    return Scorer(
        learner.net,
        view.weights(learner),
        setup.space,
        setup.size,
        fitted=partial(in_order, streams.train, evolution.images, together),
        judged=partial(in_order, streams.valid, evolution.judged, together),
        batch_size=size,
        own=partial(own.ask, view.variables) if own else None,
        seed=int(generator(setup.settings.seed, "search/scores").integers(2**63)),
    )


def evolve_of(view: View, scorer: Scorer) -> Evolve:
    """Make the evolution, within the limits on the final network.

    Raises:
        ValueError: No architecture is found within the limits.
    """
    setup, settings, seeds = view.setup, view.setup.settings, view.problem.extra(Seeds)
    within = limits_of(settings).allow
    seed = int(generator(settings.seed, "search/evolution").integers(2**63))
    known = seeds.ask(view.variables) if seeds else ()
    first = [architecture(setup.space, arch) for arch in known]
    return Evolve(setup.space, scorer, setup.costs, within, settings.evolution, seed, first)


def check(view: View) -> None:
    """Refuse limits within which evolution finds nothing, before any training.

    Raises:
        ValueError: No sampled architecture is within them.
    """
    if budget := view.setup.budget:
        try:
            evolve_of(view, scorer_of(view, view.learners[0]))
        except ValueError as error:
            least = budget.costs.of(budget.cheapest(view.setup.space))
            raise ValueError(f"{error}; the cheapest has {in_units(least)}") from error


def work_in(path: Path, work: loop.Work, settings: Run) -> None:
    """Do or resume the work in a folder of a run's directory.

    Raises:
        StoppedError: A signal came; everything is saved.
    """
    begun = ranks.first((path / "run.toml").exists)
    with opened(path, plain(settings), resume=begun) as directory:
        loop.run(
            work,
            directory,
            log_every=1,
            save_every=settings.save_every,
            title=f"{path.name} {path.parent}",
            resume_with=f"tutelage search --resume {path.parent}",
        )
        directory.save_session()
