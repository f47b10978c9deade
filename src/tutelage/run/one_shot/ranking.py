"""A ranking by a supernet: its scores of architectures, and their true accuracies in a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from math import isfinite, prod
from typing import Any, NamedTuple, final

import torch

from tutelage.benchmark.ranking import compare
from tutelage.benchmark.table import Table, looked_up
from tutelage.data.seeding import generator
from tutelage.records.rows import Candidate, RankingScores
from tutelage.records.typed import typed
from tutelage.run.one_shot.ahead import Ahead
from tutelage.run.one_shot.scorer import Scorer
from tutelage.run.supernet.setup import Setup
from tutelage.run.supernet.view import View
from tutelage.spaces.base import Space
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.paths import Encoding, bounds, genotype, sample


class Known(NamedTuple):
    """What is known of an architecture before it is scored."""

    flops: int
    """FLOPs for one image."""
    table: dict[str, float]
    """The table's entries for it."""


@final
class Ranking:
    """Architectures sampled uniformly, and the score of each in the supernet.

    Attributes:
        epoch: 1 when all are scored.
        step: How many are scored.
        steps: How many there are.
        epochs: 1.
    """

    def __init__(
        self,
        space: Space,
        scorer: Scorer,
        encodings: Sequence[Encoding],
        known: Callable[[Genotype], Known],
    ) -> None:
        """Score nothing yet; `known` gives the other entries of an architecture's row."""
        self.space, self.scorer, self.encodings, self.known = space, scorer, list(encodings), known
        self._ahead = Ahead(scorer.score, partial(genotype, space))
        self.scores: list[float] = []
        self.epoch, self.step, self.steps, self.epochs = 0, 0, len(self.encodings), 1

    @property
    def done(self) -> int:
        """Architectures scored."""
        return len(self.scores)

    def advance(self) -> None:
        """Score one architecture."""
        self.scores.append(self._ahead.first_of(self.encodings[self.step :]))
        self.step += 1

    def check(self) -> None:
        """Do nothing: a score is already a number on the CPU."""

    def check_state(self) -> None:
        """Do nothing: every score is finite."""

    def row(self, event: str) -> Candidate:
        """Return a row of metrics.jsonl for the last architecture."""
        encoding = self.encodings[self.done - 1]
        score: dict[str, Any] = {self.scorer.quantity: self.scores[-1]}
        flops, table = self.known(genotype(self.space, encoding))
        return Candidate(
            event=event,
            epoch=self.epoch,
            step=self.step,
            encoding=list(encoding),
            flops=flops,
            table=table,
            **score,
        )

    def fields(self) -> Mapping[str, str]:
        """Return what progress shows."""
        return {"architecture": f"{self.step}/{self.steps}", "last": f"{self.scores[-1]:.3f}"}

    def end_epoch(self) -> Candidate:
        """Return the row that records that all are scored."""
        self.epoch, self.step = 1, 0
        return Candidate(event="epoch", epoch=0, step=self.steps)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {"scores": self.scores}

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a checkpoint."""
        self.scores = typed(state["scores"], list[float], strict=True)
        if not all(map(isfinite, self.scores)):
            raise ValueError("a score is not finite")
        self.epoch, self.step = divmod(len(self.scores), self.steps)


TOP = 10
"""How many of the best-scored architectures are compared by their true accuracy."""


def ranking_of(view: View, scorer: Scorer, table: Table) -> Ranking:
    """Sample the architectures to rank, uniformly and without repetition."""
    setup = view.setup
    torch.manual_seed(int(generator(setup.settings.seed, "search/ranked").integers(2**63)))
    count = counts(setup)[0]
    encoding: set[Encoding] = set()
    while len(encoding) < count:
        encoding.add(sample(setup.space))

    def known(found: Genotype) -> Known:
        return Known(setup.costs.of(found).flops, looked_up(table, found))

    return Ranking(setup.space, scorer, sorted(encoding), known)


def ranked(ranking: Ranking, table: Table) -> RankingScores:
    """Compare the supernet's scores of architectures with the table's true accuracies.

    Returns:
        The figures of the comparison, and as `by_flops` those of a ranking of the same
        architectures by their FLOPs, which needs no training.
    """
    known = [ranking.known(genotype(ranking.space, encoding)) for encoding in ranking.encodings]
    true = [each.table[table.ranked_by] for each in known]
    top = min(TOP, len(true))
    untrained = compare([each.flops for each in known], true, top)
    found = compare(ranking.scores, true, top)
    return RankingScores(**asdict(found), by_flops=RankingScores(**asdict(untrained)))


def counts(setup: Setup) -> tuple[int, int]:
    """Count the architectures to rank, and those to evolve if the limits leave enough."""
    settings, every = setup.settings, prod(bounds(setup.space))
    evolution, ranked = settings.evolution, settings.ranked if settings.table else 0
    return min(ranked, every), min(evolution.population * evolution.generations, every)
