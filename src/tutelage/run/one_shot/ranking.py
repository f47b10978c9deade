"""A ranking of a supernet: its scores of architectures whose true accuracies a table knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from math import prod
from typing import Any, final

import torch

from tutelage.benchmark.ranking import compare
from tutelage.benchmark.table import Table, looked_up
from tutelage.data.draws import draws
from tutelage.run.one_shot.scorer import Scorer
from tutelage.run.supernet.setup import Setup
from tutelage.run.supernet.view import View
from tutelage.spaces.base import Space
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.paths import Genes, bounds, drawn, genotype


@final
class Ranking:
    """Architectures drawn uniformly, and what each scores in the supernet.

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
        drawn: Sequence[Genes],
        known: Callable[[Genotype], Mapping[str, Any]],
    ) -> None:
        """Score nothing yet; `known` says what else of an architecture goes into its row."""
        self.space, self.scorer, self.drawn, self.known = space, scorer, list(drawn), known
        self.scores: list[float] = []
        self.epoch, self.step, self.steps, self.epochs = 0, 0, len(self.drawn), 1

    @property
    def done(self) -> int:
        """Architectures scored."""
        return len(self.scores)

    def advance(self) -> None:
        """Score one architecture."""
        self.scores.append(self.scorer.score(genotype(self.space, self.drawn[self.step])))
        self.step += 1

    def check(self) -> None:
        """Have nothing to wait for: a score is a number."""

    def check_state(self) -> None:
        """Have nothing that could be no number."""

    def row(self, event: str) -> dict[str, Any]:
        """Return a row of metrics.jsonl: the last architecture."""
        genes = self.drawn[self.done - 1]
        last = {"genes": list(genes), self.scorer.quantity: self.scores[-1]}
        known = self.known(genotype(self.space, genes))
        return {"event": event, "epoch": self.epoch, "step": self.step, **last, **known}

    def fields(self) -> Mapping[str, str]:
        """Return what progress shows."""
        return {"architecture": f"{self.step}/{self.steps}", "last": f"{self.scores[-1]:.3f}"}

    def end_epoch(self) -> dict[str, Any]:
        """Return a row that says that all are scored."""
        self.epoch, self.step = 1, 0
        return {"event": "epoch", "epoch": 0, "step": self.steps}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {"scores": self.scores}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.scores = list(state["scores"])
        self.epoch, self.step = divmod(len(self.scores), self.steps)


TOP = 10
"""Architectures that score best, of which is said how good they truly are."""


def ranking_of(view: View, scorer: Scorer, table: Table) -> Ranking:
    """Draw the architectures that are to be ranked, uniformly, none of them twice."""
    setup = view.setup
    torch.manual_seed(int(draws(setup.settings.seed, "search/ranked").integers(2**63)))
    count = counts(setup)[0]
    genes: set[Genes] = set()
    while len(genes) < count:
        genes.add(drawn(setup.space))

    def known(found: Genotype) -> dict[str, Any]:
        multiply_adds = setup.prices.of(found).multiply_adds
        return {"multiply_adds": multiply_adds, "table": looked_up(table, found)}

    return Ranking(setup.space, scorer, sorted(genes), known)


def ranked(ranking: Ranking, table: Table) -> dict[str, Any]:
    """Compare what architectures score in the supernet with what the table knows of them.

    Returns:
        The figures of the comparison, and under `by_multiply_adds` those of ranking the same
        architectures by their multiply-adds, for which nothing need be trained.
    """
    known = [ranking.known(genotype(ranking.space, genes)) for genes in ranking.drawn]
    true = [each["table"][table.ranked_by] for each in known]
    top = min(TOP, len(true))
    untrained = compare([each["multiply_adds"] for each in known], true, top)
    found = compare(ranking.scores, true, top)
    return {**asdict(found), "by_multiply_adds": asdict(untrained)}


def counts(setup: Setup) -> tuple[int, int]:
    """Count the architectures that are ranked, and those that evolve if the limits leave enough."""
    settings, every = setup.settings, prod(bounds(setup.space))
    evolution, ranked = settings.evolution, settings.ranked if settings.table else 0
    return min(ranked, every), min(evolution.population * evolution.generations, every)
