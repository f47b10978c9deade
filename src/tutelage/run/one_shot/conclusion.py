"""What follows the training of sampled paths: what scores them, and evolution among them."""

from __future__ import annotations

from functools import partial
from math import inf
from pathlib import Path

from tutelage.config import Run
from tutelage.data.draws import draws
from tutelage.problem import Learner, pick
from tutelage.run.cost.budget import MILLION, in_millions
from tutelage.run.cost.table import Cost
from tutelage.run.job import loop
from tutelage.run.job.directory import RunDirectory
from tutelage.run.job.settings import plain
from tutelage.run.one_shot.evolution import Evolve
from tutelage.run.one_shot.scorer import Scorer
from tutelage.run.supernet.state import Searching
from tutelage.spaces.paths import architecture

EVOLUTION, RANKING = "evolution", "ranking"
"""Folders in a run's directory."""


def scorer_of(work: Searching, learner: Learner) -> Scorer:
    """Make what scores architectures with a learner's weights, on the validation half."""
    streams, evolution, own = work.streams, work.settings.evolution, work.problem.score
    return Scorer(
        learner.net,
        pick(work.variables, learner.weights),
        work.space,
        work.size,
        fitted=partial(streams.train.in_order, evolution.images),
        judged=partial(streams.valid.in_order, evolution.judged),
        own=partial(own, work.variables) if own else None,
        seed=int(draws(work.settings.seed, "search/scores").integers(2**63)),
    )


def evolve_of(work: Searching, scorer: Scorer) -> Evolve:
    """Make the evolution, within the limits to the final network.

    Raises:
        ValueError: No architecture is found within the limits.
    """
    settings = work.settings
    limits = [
        limit * MILLION if limit else inf for limit in (settings.max_params, settings.max_flops)
    ]

    def within(cost: Cost) -> bool:
        return all(paid <= limit for paid, limit in zip(cost, limits, strict=True))

    seed = int(draws(settings.seed, "search/evolution").integers(2**63))
    known = work.problem.seeds(work.variables) if work.problem.seeds else ()
    first = [architecture(work.space, mix) for mix in known]
    return Evolve(work.space, scorer, work.prices, within, settings.evolution, seed, first)


def check(work: Searching) -> None:
    """Refuse limits within which evolution finds nothing, before anything is trained for it.

    Raises:
        ValueError: No architecture that was drawn keeps within them.
    """
    if work.budget and work.search.kind == "samples":
        try:
            evolve_of(work, scorer_of(work, work.problem.learners[0]))
        except ValueError as error:
            least = work.budget.prices.of(work.budget.cheapest(work.space))
            raise ValueError(f"{error}; the cheapest has {in_millions(least)}") from error


def work_in(path: Path, work: loop.Work, settings: Run) -> None:
    """Do the work in a folder of a run's directory, or go on with it.

    Raises:
        StoppedError: A signal came; everything is saved.
    """
    begin = RunDirectory.resume if (path / "run.toml").exists() else RunDirectory.create
    with begin(path, plain(settings)) as directory:
        loop.run(
            work,
            directory,
            log_every=1,
            save_every=settings.save_every,
            title=f"{path.name} {path.parent}",
            go_on=f"tutelage search --resume {path.parent}",
        )
        directory.save_session()
