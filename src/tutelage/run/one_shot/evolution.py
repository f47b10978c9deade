"""Evolution among the paths of a trained supernet, as work that can be interrupted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, final

from tutelage.records.rows import Candidate
from tutelage.run.cost.table import Cost, Prices
from tutelage.run.one_shot.scorer import Scorer
from tutelage.searches.evolution import Evolution
from tutelage.searches.evolving import Evolving, Scored
from tutelage.spaces.base import Space
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.paths import Genes, bounds, genes, genotype, kept


@final
class Evolve:
    """An evolution on its way; an epoch is a generation, a step a candidate.

    Attributes:
        epoch: Generations done.
        step: Candidates of the present one that are done.
        steps: Candidates of the present generation.
        epochs: Generations in all; fewer where a small space is exhausted.
    """

    def __init__(
        self,
        space: Space,
        scorer: Scorer,
        prices: Prices,
        within: Callable[[Cost], bool],
        settings: Evolution,
        seed: int,
        first: Sequence[Genotype] = (),
    ) -> None:
        """Draw the first generation.

        Args:
            space: What can be built.
            scorer: Says what an architecture scores.
            prices: What it costs.
            within: Whether it may cost so much.
            settings: Those of the evolution.
            seed: Seed of every draw.
            first: What the first generation holds besides, where the limits allow it.

        Raises:
            ValueError: No architecture is found within the limits.
        """
        self.space, self.scorer, self.prices, self.settings = space, scorer, prices, settings

        def allowed(candidate: Genes) -> bool:
            return within(prices.total(kept(space, candidate)))

        self.given = [genes(space, architecture) for architecture in first]
        self.evolving = Evolving(bounds(space), settings, allowed, seed, self.given)
        self.epochs = settings.generations
        self._follow()

    def _follow(self) -> None:
        self.epoch, self.step = self.evolving.generation, self.evolving.candidate
        self.steps = self.evolving.size
        if self.evolving.done:
            self.epochs = self.epoch

    @property
    def done(self) -> int:
        """Candidates scored in all."""
        return len(self.evolving.history)

    def advance(self) -> None:
        """Score one candidate."""
        found = genotype(self.space, self.evolving.ask())
        score, cost = self.scorer.score(found), self.prices.of(found)
        second = {
            "accuracy": (),
            "accuracy-flops": (-cost.multiply_adds,),
            "accuracy-params": (-cost.weights,),
        }
        self.evolving.tell((score, *second[self.settings.objectives]))
        self.step += 1

    def check(self) -> None:
        """Have nothing to wait for: a score is a number."""

    def check_state(self) -> None:
        """Have nothing that could be no number."""

    def row(self, event: str) -> Candidate:
        """Return a row of metrics.jsonl: the last candidate, or the best so far."""
        history = self.evolving.history
        scored = history[-1] if event == "step" else self.evolving.best
        given = event == "step" and scored.generation == 0 and scored.genes in self.given
        traded = event == "epoch" and self.settings.objectives != "accuracy"
        return replace(
            self.described(scored),
            event=event,
            epoch=self.epoch,
            step=self.step,
            given=given or None,
            front=[self.described(each) for each in self.evolving.front] if traded else [],
        )

    def described(self, scored: Scored) -> Candidate:
        """Say what an architecture is, scores and costs."""
        cost = self.prices.of(self.genotype(scored))
        score: dict[str, Any] = {self.scorer.quantity: scored.scores[0]}
        return Candidate(
            encoding=list(scored.genes), params=cost.weights, flops=cost.multiply_adds, **score
        )

    def said(self, scored: Scored) -> str:
        """Say in words what an architecture scores and costs."""
        cost = self.prices.of(self.genotype(scored))
        score = f"{self.scorer.quantity} {self.scorer.written(scored.scores[0])}"
        return (
            f"{score} with the supernet's weights, {cost.weights:,} weights, "
            f"{cost.multiply_adds:,} multiply-adds"
        )

    def genotype(self, scored: Scored) -> Genotype:
        """Return a candidate's architecture."""
        return genotype(self.space, scored.genes)

    def fields(self) -> Mapping[str, str]:
        """Return what progress shows."""
        best = self.evolving.best
        return {
            "generation": f"{self.epoch + 1}/{self.epochs}",
            "candidate": f"{self.step}/{self.steps}",
            "last": self.scorer.written(self.evolving.history[-1].scores[0]),
            "best": self.scorer.written(best.scores[0]),
        }

    def end_epoch(self) -> Candidate:
        """Return the generation's row of metrics.jsonl, and go to the next one."""
        row = self.row("epoch")
        self._follow()
        return row

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return self.evolving.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.evolving.restore(state)
        self._follow()
