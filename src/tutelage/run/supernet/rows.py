"""What a search says of itself: rows of metrics.jsonl, and the line of progress."""

from __future__ import annotations

import re
from typing import Any, Protocol, cast

from tutelage.clock import Clock
from tutelage.multilevel import Level
from tutelage.problem import Learner, Problem
from tutelage.records.rows import EpochRow, StepRow
from tutelage.run.cost.budget import Budget
from tutelage.run.monitor.sampled import draws_of, shares
from tutelage.run.supernet.factory import Maker
from tutelage.run.supernet.metrics import Meter, entries, teaching, teaching_line
from tutelage.run.supernet.metrics import learners as scores_of
from tutelage.searches.base import Relaxing, Search
from tutelage.spaces.base import Space
from tutelage.spaces.genotype import Genotype
from tutelage.virtual import Rate, Tree

SHORT = re.compile(r"_conv|_pool|_connect|x\d|_(?=\d)")
"""What a progress line leaves out of an operation's name: sep_conv_3x3 is sep3."""


class Running(Protocol):
    """What rows and progress read of a search on its way."""

    epoch: int
    epochs: int
    step: int
    steps: int
    clock: Clock
    meter: Meter
    apart: dict[str, dict[str, float]]
    maker: Maker
    search: Search
    problem: Problem
    budget: Budget | None

    def levels(self) -> list[Level]:
        """List the levels that train in this epoch."""

    def rate(self, level: Level) -> Rate:
        """Return how a level's variable descends now."""

    def genotype(self, learner: Learner) -> Genotype:
        """Read a learner's architecture off."""

    def alphas(self, learner: Learner) -> Tree:
        """Return a learner's alphas, on the CPU."""

    def space_of(self, learner: Learner) -> Space:
        """Return the space of a learner's supernet."""


def row(work: Running, event: str) -> StepRow:
    """Return a row of metrics.jsonl: the last step's values, or an epoch's means."""
    values = work.meter.last if event == "step" else work.meter.means
    found: dict[str, Any] = {"epoch": work.epoch, "step": work.step, **entries(values)}
    weights = [level for level in work.levels() if level.optimiser == "weights"]
    found["lr"] = {level.variable: work.rate(level).lr for level in weights}
    if event == "step":
        return StepRow(**found)
    learners = work.problem.learners
    found["gradient"] |= work.apart
    found["phase"] = work.clock.phase
    found["operations"] = [names(work.space_of(x)) for x in learners]
    found |= sampled(work) if work.maker.sampled else relaxed(work)
    return EpochRow(**found)


def sampled(work: Running) -> dict[str, Any]:
    """Say how often each operation was drawn in the epoch."""
    counts = [each.counts for each in work.maker.sampled]
    return {"drawn": list(map(shares, counts)), "draws": list(map(draws_of, counts))}


def relaxed(work: Running) -> dict[str, Any]:
    """Say how much of every operation there is, and what is read off."""
    learners = work.problem.learners
    found: dict[str, Any] = {"arch_weights": [mix(work, learner) for learner in learners]}
    found["genotype"] = [work.genotype(learner).to_dict() for learner in learners]
    if work.budget:
        pairs = [(work.space_of(x), work.alphas(x)) for x in learners]
        found["cost"] = [work.budget.costs(*pair) for pair in pairs]
    return found


def mix(work: Running, learner: Learner) -> dict[str, list[list[float]]]:
    """Return a learner's expected mix as plain numbers, edges x operations for every group."""
    expected = cast(Relaxing, work.search).expected(work.alphas(learner))
    return {
        group: [[round(x, 6) for x in each] for each in weights.tolist()]
        for group, weights in expected.operations.items()
    }


def names(space: Space) -> dict[str, Any]:
    """Return the operations of every group: of all edges at once where they are the same."""
    return {g: e[0] if len(set(e)) == 1 else e for g, e in space.operations.items()}


def fields(work: Running) -> dict[str, str]:
    """Return what progress shows."""
    shown = {"epoch": f"{work.epoch + 1}/{work.epochs}", "step": f"{work.step}/{work.steps}"}
    for k, scores in enumerate(scores_of(work.meter.means)):
        name = "learner" if len(work.problem.learners) == 1 else f"learner {k}"
        shown[name] = ", ".join(
            f"{half} {loss:.3f} {100 * accuracy:.1f} %"
            for half, loss, accuracy in (
                ("train", scores.train_loss, scores.train_accuracy),
                ("valid", scores.valid_loss, scores.valid_accuracy),
            )
            if loss is not None and accuracy is not None
        )
    if said := teaching_line(teaching(work.meter.means)):
        shown["teaching"] = said
    if work.search.kind != "samples":
        first = work.genotype(work.problem.learners[0])
        for group, cell in first.cells.items():
            shown[group] = " ".join(
                "+".join(f"{SHORT.sub('', op)}({state})" for op, state in node)
                for node in cell.nodes
            )
    return shown
