"""A search on its way: its variables, and what one step, one row and one checkpoint are.

Batches and random draws are functions of (seed, epoch, step), so a search that goes on from a
checkpoint is the uninterrupted one, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, cast, final

import torch
from torch import Tensor

from tutelage.clock import Clock
from tutelage.config import Run
from tutelage.data.draws import draws
from tutelage.multilevel import Level, hypergradient, search_step, tops
from tutelage.problem import Learner, Method, Part, Problem, pick
from tutelage.records.rows import EpochRow, StepRow
from tutelage.run.cost.budget import budget_of
from tutelage.run.cost.table import Prices, final_size, prices_of
from tutelage.run.monitor import sampled
from tutelage.run.monitor.relaxed import Subject, Watching
from tutelage.run.networks.teacher import Pictures
from tutelage.run.supernet import optimizers, rows
from tutelage.run.supernet.batches import LazyBatch, Streams
from tutelage.run.supernet.factory import Maker
from tutelage.run.supernet.metrics import Meter
from tutelage.run.supernet.penalty import with_penalty, without_alphas
from tutelage.run.supernet.phases import Stretch, stretches
from tutelage.run.supernet.transition import carried, carry_moments
from tutelage.searches.base import Relaxing, Sampling, Search
from tutelage.spaces.base import Size, Space
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.narrowing import Kept, everything, strongest
from tutelage.virtual import Rate, Tree, leaves, rebuild, tree_map


@final
class Searching:
    """A search, and everything that a checkpoint holds of it.

    Attributes:
        epoch: Epochs done.
        step: Steps done in the epoch.
        steps: Steps of an epoch.
        epochs: Epochs of the whole search; fewer once it has stopped early.
    """

    def __init__(
        self,
        method: Method,
        search: Search,
        space: Space,
        size: Size,
        streams: Streams,
        settings: Run,
    ) -> None:
        """Draw the first phase's variables; `space` fits the search."""
        self.method, self.search, self.space = method, search, space
        self.size, self.streams, self.settings = size, streams, settings
        self.device = streams.train.device
        self.stretches = stretches(search.phases(space), settings.epochs)
        self.clock = Clock()
        self.via = optimizers.rule(settings)
        self.epoch, self.step = 0, 0
        self.epochs = settings.epochs if search.kind != "draws" else 0
        self.meter = Meter()
        self.watching = Watching(settings, space)
        self.apart: dict[str, dict[str, float]] = {}
        shape = streams.train.data.images.shape
        self.budget = budget_of(settings, search, space, size.classes, shape)
        self._enter(0, [everything(space)])
        # less a rounding error: 0.28 of 25 steps are 7, not 8
        steps = math.ceil(self.problem.share * streams.train.steps - 1e-9)
        self.steps = min(steps, settings.limit_batches or steps)

    @cached_property
    def prices(self) -> Prices:
        """What each choice adds to the final network."""
        if self.budget:
            return self.budget.prices
        shape = self.streams.train.data.images.shape
        final = final_size(self.settings, self.space, self.size.classes, shape[0])
        return prices_of(self.space, final, shape[1:])

    def _enter(self, phase: int, kept: list[Kept]) -> None:
        """Make the problem of a phase, its variables drawn afresh, and optimisers for it."""
        self.clock.phase, self.kept = phase, kept
        stretch = self.stretches[phase]
        partial = stretch.phase.partial or self.space.variant.partial
        varied, data = self.space.varied(partial=partial), self.streams.train.data
        self.maker = Maker(
            search=self.search,
            spaces=[varied.narrowed(each) for each in kept],
            size=replace(self.size, cells=self.size.cells + stretch.phase.cells),
            clock=self.clock,
            epochs=stretch.span,
            device=self.device,
            amp=torch.bfloat16 if self.settings.precision == "bf16" else None,
            images={
                half: len(stream.subset)
                for half, stream in (("train", self.streams.train), ("valid", self.streams.valid))
            },
            flops=lambda genotype: self.prices.of(genotype).multiply_adds,
            pictures=Pictures(data.images.shape, data.mean, data.std),
        )
        problem, spaces = self.method(self.maker), self.maker.spaces
        for each in self.maker.sampled:
            each.counts = {}  # what a method draws to see that it can is no sub-network's step
        if self.search.kind == "samples":
            self.problem = without_alphas(problem)
        else:
            count = len(problem.learners)
            budgets = self.budget.penalties(spaces, count, self.device) if self.budget else []
            self.problem = with_penalty(problem, budgets)
        self.variables = dict(self.problem.variables)
        self.velocities: dict[str, Tree] = {}
        self.optimisers = optimizers.adams(
            self.settings.alphas, self.problem.levels, self.variables
        )

    def next_phase(self) -> None:
        """Go to the next phase, with the operations that the alphas favour."""
        phase = self.clock.phase + 1
        seed = draws(self.settings.seed, "search/phase", phase).integers(2**63)
        torch.manual_seed(int(seed))  # for the new weights
        to = self.stretches[phase].phase
        before = (self.problem, self.variables, self.velocities, self.optimisers)
        alphas = [self.alphas(learner) for learner in self.problem.learners]
        kept, columns = self.kept, []
        if to.operations:
            wholes = (kept * len(alphas))[: len(alphas)]  # before the first phase all share one
            ranked = alphas
            if self.budget:
                spaces = [self.space_of(learner) for learner in self.problem.learners]
                each = zip(spaces, alphas, strict=True)
                ranked = [self.budget.spared(*pair, to.operations) for pair in each]
            pairs = [
                strongest(whole, each, to.operations)
                for whole, each in zip(wholes, ranked, strict=True)
            ]
            kept, columns = [left for left, _ in pairs], [chosen for _, chosen in pairs]
        self._enter(phase, kept)
        if to.carries:
            self._carry(*before, columns or [{}] * len(alphas))

    def _carry(
        self,
        problem: Problem,
        variables: dict[str, Tree],
        velocities: dict[str, Tree],
        optimisers: Mapping[str, torch.optim.Adam],
        columns: list[Kept],
    ) -> None:
        """Take over what the phase before has learnt."""
        self.variables, self.velocities = carried(
            problem, self.problem, variables, velocities, columns
        )
        self.optimisers = optimizers.adams(
            self.settings.alphas, self.problem.levels, self.variables
        )
        for name, optimiser in self.optimisers.items():
            carry_moments(
                optimisers[name], optimiser, name, variables[name], problem.learners, columns
            )

    @property
    def done(self) -> int:
        """Steps done in all."""
        return self.epoch * self.steps + self.step

    # One step ------------------------------------------------------------------------------

    @property
    def stretch(self) -> Stretch:
        """The present phase among the epochs."""
        return self.stretches[self.clock.phase]

    def levels(self) -> list[Level]:
        """List the levels that train in this epoch, inner first."""
        epoch = self.epoch - self.stretch.drawn
        thawed = self.epoch >= self.stretch.thaw
        return [
            level
            for level in self.problem.levels
            if level.trains(epoch) and (thawed or level.optimiser != "alphas")
        ]

    def rate(self, level: Level) -> Rate:
        """Return how a level's variable descends now: at a rate that falls over its epochs."""
        weights, epoch = self.settings.weights, float(self.epoch - self.stretch.drawn)
        epoch += self.step / self.steps if weights.anneal == "step" else 0
        return optimizers.rate(weights, level, epoch, self.stretch.span)

    def advance(self) -> None:
        """Take one step; the device may still be at it when this returns."""
        settings, levels = self.settings, self.levels()
        self.set_clock()
        seed = draws(settings.seed, "search/draws", self.epoch, self.step).integers(2**63)
        torch.manual_seed(int(seed))  # for draws inside the losses
        batch = LazyBatch(self.streams, self.epoch, self.step)
        rates = {x.variable: self.rate(x) for x in levels if x.optimiser == "weights"}
        plain = {name: Rate(rate.lr) for name, rate in rates.items()}
        virtual = rates if settings.virtual == "sgd" else plain
        if self.step == 0:
            self._terms_apart(levels, batch, virtual)
        report = search_step(
            levels,
            self.variables,
            self.velocities,
            batch,
            rates=rates,
            virtual=virtual,
            via=self.via,
            order=self.problem.order,
            move=self._move,
            joint=self.problem.joint,
            iteration=self.done,
        )
        self.meter.add(report, batch)
        if self.problem.after_step:
            self.problem.after_step(self.variables, batch, report.notes)
        self.step += 1

    def set_clock(self) -> None:
        """Let the clock show the present epoch and step."""
        stretch = self.stretch
        self.clock.epoch, self.clock.epochs = self.epoch - stretch.drawn, stretch.span
        self.clock.progress = self.done / (self.steps * self.settings.epochs)

    def _move(self, name: str, gradient: Tree) -> None:
        """Let Adam move alphas in place."""
        clip = self.settings.alphas.clip
        optimizers.move(self.optimisers[name], self.variables[name], gradient, clip)

    def _terms_apart(
        self, levels: list[Level], batch: LazyBatch, virtual: Mapping[str, Rate]
    ) -> None:
        """Where the top loss is a sum, measure once an epoch what each summand's gradient is."""
        count = tops(levels) if levels[-1].optimiser == "alphas" else 0
        if count < 2 or not self.problem.joint:
            return
        rates = virtual if self.via.unrolls or self.problem.order == "levels-first" else {}
        for level in levels[-count:]:
            alone = [*levels[:-count], level]
            found = hypergradient(alone, self.variables, batch, rates, self.via, self.velocities)
            self.apart[level.name] = {part: float(x) for part, x in found.terms.items()}

    # Metrics -------------------------------------------------------------------------------

    def check(self) -> None:
        """Wait for the device; raise ValueError at the first step whose loss is no number."""
        self.meter.check(self.epoch, self.step)

    def check_state(self) -> None:
        """Raise ValueError where a variable is no number, so that no checkpoint takes it."""
        for name, tree in self.variables.items():
            floats = [x for x in leaves(tree) if x.is_floating_point()]
            if not all(bool(torch.isfinite(x).all()) for x in floats):
                raise ValueError(
                    f"variable {name} is no longer finite at epoch {self.epoch}, step "
                    f"{self.step}, and is not saved; a lower --weights.lr may help"
                )

    def row(self, event: str) -> StepRow:
        """Return a row of metrics.jsonl: the last step's values, or an epoch's means."""
        return rows.row(self, event)

    def fields(self) -> dict[str, str]:
        """Return what progress shows."""
        return rows.fields(self)

    def genotype(self, learner: Learner) -> Genotype:
        """Read a learner's architecture off."""
        space, alphas = self.space_of(learner), self.alphas(learner)
        derive = cast(Relaxing, self.search).derive
        return (self.budget.read if self.budget else derive)(space, alphas)

    def alphas(self, learner: Learner) -> Tree:
        """Return a learner's alphas, on the CPU."""
        return tree_map(Tensor.cpu, pick(self.variables, learner.alphas))

    def space_of(self, learner: Learner) -> Space:
        """Return the space of a learner's supernet: what the phases have left of it."""
        spaces = self.maker.spaces
        return spaces[min(self.problem.learners.index(learner), len(spaces) - 1)]

    def validation(self) -> Iterator[Part]:
        """Yield the validation half once, not augmented; of it as many batches as an epoch has.

        Batches are those of the search, since a supernet normalises by the batch.
        """
        valid, limit = self.streams.valid, self.settings.limit_batches
        return valid.in_order(limit * valid.batch_size if limit else None)

    # Checkpoints ---------------------------------------------------------------------------

    def end_epoch(self) -> EpochRow:
        """Return the epoch's row of metrics.jsonl, and go to the next epoch."""
        row = replace(cast(EpochRow, self.row("epoch")), **self._watch())
        if self.problem.after_epoch:
            self.problem.after_epoch(self.variables, self.epoch)
        self.epoch, self.step = self.epoch + 1, 0
        self.meter.clear()
        self.apart = {}
        if self.watching.stopped:
            self.epochs = self.epoch
        elif self.epoch < self.epochs and self.epoch == self.stretch.start + self.stretch.epochs:
            self.next_phase()
        return row

    def _watch(self) -> dict[str, Any]:
        """Measure what the epoch has led to, and decide whether the search stops."""
        if self.maker.sampled:
            return self._sample()
        training = {level.variable for level in self.levels()}
        subjects = [
            Subject(
                x, self.space_of(x), self.genotype(x), bool(x.drafts and x.weights[0] in training)
            )
            for x in self.problem.learners
        ]
        valid = [partial(self.streams.valid.batch, self.epoch, x) for x in range(self.steps)]
        return self.watching.after(
            self.epoch,
            subjects,
            cast(Relaxing, self.search),
            self.variables,
            valid,
            self.validation,
        )

    def _sample(self) -> dict[str, Any]:
        """Compare students and teacher, and measure what the paths of the next epoch need."""
        seed = draws(self.settings.seed, "search/probe", self.epoch).integers(2**63)
        torch.manual_seed(int(seed))
        train, valid = (
            [partial(stream.batch, self.epoch, step) for step in range(sampled.PROBES)]
            for stream in (self.streams.train, self.streams.valid)
        )
        measures = cast(Sampling, self.search).measures
        return sampled.after(
            self.problem, self.variables, self.maker.sampled, train, valid, measures
        )

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "meter": self.meter.state(),
            "apart": self.apart,
            "watching": self.watching.state(),
            "sampled": [each.state() for each in self.maker.sampled],
            "phase": self.clock.phase,
            "kept": self.kept,
            "variables": self.variables,
            "velocities": self.velocities,
            "optimisers": {name: x.state_dict() for name, x in self.optimisers.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.epoch, self.step = state["epoch"], state["step"]
        self.meter.restore(state["meter"])
        self.apart = state["apart"]
        self.watching.restore(state["watching"])
        if self.watching.stopped:
            self.epochs = self.epoch
        if state["phase"]:
            self._enter(state["phase"], state["kept"])
        for each, stored in zip(self.maker.sampled, state["sampled"], strict=True):
            each.restore(stored)

        def placed(x: Tensor) -> Tensor:
            return x.to(self.device)

        for name, tree in state["variables"].items():
            if name in self.optimisers:  # Adam holds these very tensors
                for mine, stored in zip(leaves(self.variables[name]), leaves(tree), strict=True):
                    mine.copy_(stored)
            else:
                pairs = zip(leaves(tree), leaves(self.variables[name]), strict=True)
                self.variables[name] = rebuild(tree, (x.to(mine.device) for x, mine in pairs))
        self.velocities = {n: tree_map(placed, x) for n, x in state["velocities"].items()}
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
