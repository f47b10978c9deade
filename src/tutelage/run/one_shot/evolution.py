"""Evolution among the paths of a trained supernet, as work that can be interrupted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, final

from tutelage.records.rows import Candidate
from tutelage.run.cost.table import Cost, Costs
from tutelage.run.one_shot.ahead import Ahead
from tutelage.run.one_shot.scorer import Scorer
from tutelage.searches.evolution import Evolution
from tutelage.searches.evolving import Evolving, Scored
from tutelage.spaces.base import Space
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.paths import Encoding, bounds, encode, genotype, kept


@final
class Evolve:
    """An evolution in progress; an epoch is a generation, a step a candidate.

    Attributes:
        epoch: Generations done.
        step: Candidates of the present generation that are done.
        steps: Candidates of the present generation.
        epochs: Generations in all; fewer where a small space is exhausted.
    """

    def __init__(
        self,
        space: Space,
        scorer: Scorer,
        costs: Costs,
        within: Callable[[Cost], bool],
        settings: Evolution,
        seed: int,
        first: Sequence[Genotype] = (),
    ) -> None:
        """Sample the first generation.

        Args:
            space: What can be built.
            scorer: Scores architectures.
            costs: Gives their costs.
            within: Tells whether a cost is within the limits.
            settings: The settings of the evolution.
            seed: Seed of all random numbers.
            first: Further members of the first generation, where the limits allow them.

        Raises:
            ValueError: No architecture is found within the limits.
        """
        self.space, self.scorer, self.costs, self.settings = space, scorer, costs, settings

        def allowed(candidate: Encoding) -> bool:
            return within(costs.total(kept(space, candidate)))

        self.given = [encode(space, architecture) for architecture in first]
        self.evolving = Evolving(bounds(space), settings, allowed, seed, self.given)
        self._ahead = Ahead(scorer.score, partial(genotype, space))
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
        score, cost = self._ahead.first_of(self.evolving.following), self.costs.of(found)
        second = {
            "accuracy": (),
            "accuracy-flops": (-cost.flops,),
            "accuracy-params": (-cost.params,),
            "accuracy-latency": (-cost.latency,),
        }
        self.evolving.tell((score, *second[self.settings.objectives]))
        self.step += 1

    def check(self) -> None:
        """Do nothing: a score is already a number on the CPU."""

    def check_state(self) -> None:
        """Do nothing: every score is finite."""

    def row(self, event: str) -> Candidate:
        """Return a row of metrics.jsonl for the last candidate, or for the best so far."""
        history = self.evolving.history
        scored = history[-1] if event == "step" else self.evolving.best
        given = event == "step" and scored.generation == 0 and scored.encoding in self.given
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
        """Return an architecture with its scores and its cost."""
        cost = self.costs.of(self.genotype(scored))
        score: dict[str, Any] = {self.scorer.quantity: scored.scores[0]}
        return Candidate(
            encoding=list(scored.encoding),
            params=cost.params,
            flops=cost.flops,
            latency=cost.latency or None,
            **score,
        )

    def in_words(self, scored: Scored) -> str:
        """Describe the score and the cost of an architecture in words."""
        cost = self.costs.of(self.genotype(scored))
        score = f"{self.scorer.quantity} {self.scorer.written(scored.scores[0])}"
        latency = f", {cost.latency:.4g} ms" if cost.latency else ""
        return (
            f"{score} with the supernet's weights, {cost.params:,} parameters, {cost.flops:,} "
            f"FLOPs{latency}"
        )

    def genotype(self, scored: Scored) -> Genotype:
        """Return a candidate's architecture."""
        return genotype(self.space, scored.encoding)

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
        """Resume from a checkpoint."""
        self.evolving.restore(state)
        self._follow()
