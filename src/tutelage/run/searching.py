"""A search on its way: its variables, and what one step, one row and one checkpoint are.

Batches and random draws are functions of (seed, epoch, step), so a search that goes on from a
checkpoint is the uninterrupted one, to the bit.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any, Final, final

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.clock import Clock
from tutelage.config import Run
from tutelage.data.batches import Stream
from tutelage.data.draws import draws
from tutelage.multilevel import Level, Notes, evaluate, hypergradient, search_step, tops
from tutelage.problem import Learner, Method, Part, Problem, pick
from tutelage.run.maker import Maker
from tutelage.run.phases import (
    Kept,
    Stretch,
    carried,
    carry_moments,
    everything,
    stretches,
    strongest,
)
from tutelage.searches.base import Search
from tutelage.spaces.base import Size, Space
from tutelage.spaces.genotype import Genotype
from tutelage.virtual import Exact, FiniteDifference, FirstOrder, Rate, Tree, Via, leaves, tree_map

SHORT = re.compile(r"_conv|_pool|_connect|x\d|_(?=\d)")
"""What a progress line leaves out of an operation's name: sep_conv_3x3 is sep3."""

STILL: Final = 20
"""Steps with no gradient at all after which a search stops: a sampled path may have none for one."""


@dataclass(frozen=True, eq=False)
class Streams:
    """The three supplies of a search."""

    train: Stream
    valid: Stream
    unlabelled: Stream


@dataclass(frozen=True, eq=False)
class LazyBatch:
    """The batches of one step, each made when a loss first reads it."""

    streams: Streams
    epoch: int
    step: int

    @cached_property
    def train(self) -> Part:
        """Images that train weights."""
        return self.streams.train.batch(self.epoch, self.step)

    @cached_property
    def valid(self) -> Part:
        """Images that train alphas."""
        return self.streams.valid.batch(self.epoch, self.step)

    @cached_property
    def unlabelled(self) -> Part:
        """Images to pseudo-label."""
        return self.streams.unlabelled.batch(self.epoch, self.step)


def with_penalty(problem: Problem) -> Problem:
    """Add what the learners' mixes ask as a penalty to the last loss of the alphas."""
    learners, top = problem.learners, problem.levels[-1]

    def penalty(variables: Mapping[str, Tree]) -> list[Tensor]:
        mixes = [learner.net.mix(pick(variables, learner.alphas)) for learner in learners]
        return [mix.penalty for mix in mixes if mix.penalty is not None]

    def loss(s: SimpleNamespace, batch: Any) -> tuple[Tensor, Notes]:
        value, notes = evaluate(top, vars(s), batch)
        return value + torch.stack(penalty(vars(s))).sum(), notes

    if not penalty(problem.variables):
        return problem
    loss.__name__ = top.name
    return problem._replace(levels=[*problem.levels[:-1], replace(top, loss=loss)])


def rule(settings: Run) -> Via:
    """Return the rule for the derivative of a virtual step that the settings name."""
    rules: dict[str, Via] = {
        "exact": Exact(settings.recompute),
        "finite-difference": FiniteDifference(settings.radius, settings.sides),
        "first-order": FirstOrder(),
    }
    return rules[settings.via]


@final
class Searching:
    """A search, and everything that a checkpoint holds of it.

    Attributes:
        epoch: Epochs done.
        step: Steps done in the epoch.
        steps: Steps of an epoch.
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
        self.via = rule(settings)
        self.epoch, self.step = 0, 0
        self.steps = min(streams.train.steps, settings.limit_batches or streams.train.steps)
        self._unchecked: list[dict[str, Tensor]] = []
        self._still = 0
        self._enter(0, [everything(space)])
        self._begin_epoch()

    def _enter(self, phase: int, kept: list[Kept]) -> None:
        """Make the problem of a phase, its variables drawn afresh, and optimisers for it."""
        self.clock.phase, self.kept = phase, kept
        stretch = self.stretches[phase]
        partial = stretch.phase.partial or self.space.variant.partial
        varied = self.space.varied(partial=partial)
        self.maker = Maker(
            search=self.search,
            spaces=[varied.narrowed(each) for each in kept],
            size=replace(self.size, cells=self.size.cells + stretch.phase.cells),
            clock=self.clock,
            epochs=stretch.span,
            device=self.device,
            amp=torch.bfloat16 if self.settings.precision == "bf16" else None,
        )
        self.problem = with_penalty(self.method(self.maker))
        self.variables = dict(self.problem.variables)
        self.velocities: dict[str, Tree] = {}
        self.optimisers = self._optimisers()

    def _optimisers(self) -> dict[str, torch.optim.Adam]:
        alphas = self.settings.alphas
        return {
            name: torch.optim.Adam(
                leaves(self.variables[name]),
                lr=alphas.lr,
                betas=(alphas.beta1, alphas.beta2),
                weight_decay=alphas.weight_decay,
            )
            for name in {x.variable: None for x in self.problem.levels if x.optimiser == "alphas"}
        }

    def _next_phase(self) -> None:
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
            pairs = [
                strongest(whole, each, to.operations)
                for whole, each in zip(wholes, alphas, strict=True)
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
        self.optimisers = self._optimisers()
        for name, optimiser in self.optimisers.items():
            carry_moments(
                optimisers[name], optimiser, name, variables[name], problem.learners, columns
            )

    @property
    def done(self) -> int:
        """Steps done in all."""
        return self.epoch * self.steps + self.step

    def _begin_epoch(self) -> None:
        self._last: dict[str, float] = {}
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)
        self._apart: dict[str, dict[str, float]] = {}

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
        """Return how a level's variable descends now: by a cosine over its epochs."""
        weights = self.settings.weights
        lr = weights.lr
        if level.schedule == "cosine":
            epochs = level.epochs or range(self.stretch.span)
            now = float(self.epoch - self.stretch.drawn)
            now += self.step / self.steps if weights.anneal == "step" else 0
            turned = math.pi * (now - epochs.start) / len(epochs)
            lr = weights.lr_min + (lr - weights.lr_min) * (1 + math.cos(turned)) / 2
        clip = weights.clip if level.clip else 0.0
        return Rate(lr, weights.momentum, weights.weight_decay, clip, weights.nesterov)

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
        values = {f"loss/{name}": value for name, value in report.losses.items()}
        values |= {
            f"gradient/{exam}/{part}": value
            for exam, terms in report.terms.items()
            for part, value in terms.items()
        }
        values |= _marks(report.notes, batch)
        self._unchecked.append({name: x.detach().double() for name, x in values.items()})
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
        tensors, clip = leaves(self.variables[name]), self.settings.alphas.clip
        for alphas, g in zip(tensors, leaves(gradient), strict=True):
            alphas.grad = g.clone()
        if clip:
            torch.nn.utils.clip_grad_norm_(tensors, clip)
        self.optimisers[name].step()

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
            self._apart[level.name] = {part: float(x) for part, x in found.terms.items()}

    # Metrics -------------------------------------------------------------------------------

    def check(self) -> None:
        """Wait for the device; raise ValueError at the first step whose loss is no number."""
        first = self.step - len(self._unchecked) + 1
        for step, values in enumerate(self._unchecked, start=first):
            numbers = torch.stack(list(values.values())).tolist() if values else []
            self._last = dict(zip(values, numbers, strict=True))
            for name, number in self._last.items():
                if name.startswith("loss/") and not math.isfinite(number):
                    raise ValueError(
                        f"the loss of level {name[5:]!r} is {number} at epoch {self.epoch}, step "
                        f"{step}, and nothing of it is saved; a lower --weights.lr or --precision "
                        "fp32 may help"
                    )
                self._sums[name] += number
                self._counts[name] += 1
            terms = [x for name, x in self._last.items() if name.startswith("gradient/")]
            self._still = 0 if not terms or any(terms) else self._still + 1
            if self._still == STILL:
                raise ValueError(
                    f"the alphas' gradient has been zero for {STILL} steps at epoch {self.epoch}, "
                    f"step {step}: with these settings no loss of theirs depends on them; with "
                    "--via first-order nothing passes a lower level, so use --via exact"
                )
        self._unchecked = []

    def check_state(self) -> None:
        """Raise ValueError where a variable is no number, so that no checkpoint takes it."""
        for name, tree in self.variables.items():
            floats = [x for x in leaves(tree) if x.is_floating_point()]
            if not all(bool(torch.isfinite(x).all()) for x in floats):
                raise ValueError(
                    f"variable {name} is no longer finite at epoch {self.epoch}, step "
                    f"{self.step}, and is not saved; a lower --weights.lr may help"
                )

    def row(self, event: str) -> dict[str, Any]:
        """Return a row of metrics.jsonl: the last step's values, or an epoch's means."""
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        values = self._last if event == "step" else means
        row: dict[str, Any] = {"event": event, "epoch": self.epoch, "step": self.step}
        row["loss"] = {n[5:]: x for n, x in values.items() if n.startswith("loss/")}
        row["learners"] = _learners(values)
        gradient: dict[str, dict[str, float]] = {}
        for name, value in values.items():
            if name.startswith("gradient/"):
                _, exam, part = name.split("/")
                gradient.setdefault(exam, {})[part] = value
        row["gradient"] = gradient | (self._apart if event == "epoch" else {})
        row["lr"] = {x.variable: self.rate(x).lr for x in self.levels() if x.optimiser == "weights"}
        if event == "epoch":
            row["phase"] = self.clock.phase
            row["operations"] = [self.space_of(x).operations for x in self.problem.learners]
            row["mix"] = [self.mix(learner) for learner in self.problem.learners]
            row["genotype"] = [self.genotype(x).to_dict() for x in self.problem.learners]
        return row

    def fields(self) -> dict[str, str]:
        """Return what progress shows."""
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        shown = {"epoch": f"{self.epoch + 1}/{self.settings.epochs}"}
        shown["step"] = f"{self.step}/{self.steps}"
        for k, marks in enumerate(_learners(means)):
            name = "learner" if len(self.problem.learners) == 1 else f"learner {k}"
            shown[name] = ", ".join(
                f"{half} {marks[f'{half}_loss']:.3f} {100 * marks[f'{half}_accuracy']:.1f} %"
                for half in ("train", "valid")
                if f"{half}_loss" in marks
            )
        first = self.genotype(self.problem.learners[0])
        for group, cell in first.cells.items():
            shown[group] = " ".join(
                "+".join(f"{SHORT.sub('', op)}({state})" for op, state in node)
                for node in cell.nodes
            )
        return shown

    def mix(self, learner: Learner) -> dict[str, list[list[float]]]:
        """Return a learner's expected mix as plain numbers, edges x operations for every group."""
        mix = self.search.expected(self.alphas(learner))
        return {
            group: [[round(x, 6) for x in row] for row in weights.tolist()]
            for group, weights in mix.operations.items()
        }

    def genotype(self, learner: Learner) -> Genotype:
        """Read a learner's architecture off."""
        return self.search.derive(self.space_of(learner), self.alphas(learner))

    def alphas(self, learner: Learner) -> Tree:
        """Return a learner's alphas, on the CPU."""
        return tree_map(Tensor.cpu, pick(self.variables, learner.alphas))

    def space_of(self, learner: Learner) -> Space:
        """Return the space of a learner's supernet: what the phases have left of it."""
        spaces = self.maker.spaces
        return spaces[min(self.problem.learners.index(learner), len(spaces) - 1)]

    # Checkpoints ---------------------------------------------------------------------------

    def end_epoch(self) -> None:
        """Go to the next epoch."""
        if self.problem.after_epoch:
            self.problem.after_epoch(self.variables, self.epoch)
        self.epoch, self.step = self.epoch + 1, 0
        self._begin_epoch()
        if self.clock.phase + 1 < len(self.stretches) and self.epoch == (
            self.stretch.start + self.stretch.epochs
        ):
            self._next_phase()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "sums": dict(self._sums),
            "counts": dict(self._counts),
            "apart": self._apart,
            "phase": self.clock.phase,
            "kept": self.kept,
            "variables": self.variables,
            "velocities": self.velocities,
            "optimisers": {name: x.state_dict() for name, x in self.optimisers.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.epoch, self.step = state["epoch"], state["step"]
        self._sums.update(state["sums"])
        self._counts.update(state["counts"])
        self._apart = state["apart"]
        if state["phase"]:
            self._enter(state["phase"], state["kept"])

        def placed(x: Tensor) -> Tensor:
            return x.to(self.device)

        for name, tree in state["variables"].items():
            if name in self.optimisers:  # Adam holds these very tensors
                for mine, stored in zip(leaves(self.variables[name]), leaves(tree), strict=True):
                    mine.copy_(stored)
            else:
                self.variables[name] = tree_map(placed, tree)
        self.velocities = {n: tree_map(placed, x) for n, x in state["velocities"].items()}
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])


def _marks(notes: list[Notes], batch: LazyBatch) -> dict[str, Tensor]:
    """Loss and accuracy of every learner on the halves that the losses noted logits of."""
    values = {}
    for noted in notes:
        for half, answers in noted.items():
            y = getattr(batch, half).y
            for k, logits in enumerate(answers):
                logits = logits.detach()
                values[f"learner/{k}/{half}_loss"] = F.cross_entropy(logits, y)
                values[f"learner/{k}/{half}_accuracy"] = (logits.argmax(1) == y).double().mean()
    return values


def _learners(values: Mapping[str, float]) -> list[dict[str, float]]:
    """Group the values of learners by their number."""
    learners: dict[int, dict[str, float]] = {}
    for name, value in values.items():
        if name.startswith("learner/"):
            _, k, mark = name.split("/")
            learners.setdefault(int(k), {})[mark] = value
    return [learners[k] for k in sorted(learners)]
