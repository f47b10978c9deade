"""A search in progress: its steps, epochs and checkpoints.

Batches and random numbers are functions of (seed, epoch, step), so a search that resumes from a
checkpoint gives the same bits as an uninterrupted one.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, final

import torch

from tutelage.clock import Clock
from tutelage.data.seeding import generator
from tutelage.data.streams import LazyBatches
from tutelage.extras import Share
from tutelage.multilevel import summands
from tutelage.records.rows import EpochRow, StepRow
from tutelage.records.typed import typed
from tutelage.run.step.programs import Programs
from tutelage.run.step.recorders import Recorder, recorder_of
from tutelage.run.supernet import optimizers, rows
from tutelage.run.supernet.iteration import Iteration
from tutelage.run.supernet.metrics import Meter
from tutelage.run.supernet.phase import begin, follow
from tutelage.run.supernet.setup import Setup
from tutelage.run.supernet.strategy import Strategy
from tutelage.run.supernet.view import View
from tutelage.spaces.narrowing import Kept, check_kept, everything
from tutelage.virtual import Rate


@final
class Searching:
    """A search, and everything that a checkpoint holds of it.

    Attributes:
        phase: The state of the present phase.
        epoch: Epochs done.
        step: Steps done in the epoch.
        steps: Steps of an epoch.
        epochs: Epochs of the whole search; fewer once it has stopped early.
        programs: Steps that run as one program.
    """

    def __init__(self, setup: Setup, strategy: Strategy, recorder: Recorder | None = None) -> None:
        """Initialise the first phase's variables.

        Args:
            setup: The parts of the search.
            strategy: How it is carried out.
            recorder: Makes programs of steps; None: the one of the settings and the device.

        Raises:
            ValueError: The settings require programs, and the device has none.
        """
        self.setup, self.strategy = setup, strategy
        self.clock, self.meter = Clock(), Meter()
        self.via = optimizers.rule(setup.settings)
        recorder = recorder or recorder_of(setup.settings.graph, setup.device)
        self.programs = Programs(recorder, setup.device, self.clock)
        self.apart: dict[str, dict[str, float]] = {}
        self.epoch, self.step, self.epochs = 0, 0, strategy.epochs
        self.phase = begin(setup, strategy, self.clock, 0, [everything(setup.space)])
        share = self.phase.problem.extra(Share)
        # less a rounding error: 0.28 of 25 steps are 7, not 8
        steps = math.ceil((share.of_images if share else 1) * setup.streams.train.steps - 1e-9)
        self.steps = min(steps, setup.settings.limit_batches or steps)

    @property
    def done(self) -> int:
        """Steps done in all."""
        return self.epoch * self.steps + self.step

    def view(self) -> View:
        """Return a view of the search at present."""
        phase, levels = self.phase, self.phase.levels(self.epoch)
        return View(
            setup=self.setup,
            problem=phase.problem,
            spaces=phase.spaces,
            bound=phase.bound,
            variables=phase.variables,
            phase=self.clock.phase,
            epoch=self.epoch,
            epochs=self.epochs,
            step=self.step,
            steps=self.steps,
            training=frozenset(level.variable for level in levels),
            rates={name: float(rate.lr) for name, rate in self.rates().items()},
            last=self.meter.last,
            means=self.meter.means,
            apart=self.apart,
        )

    def rates(self) -> dict[str, Rate]:
        """Return the present step size of every variable that is trained like weights."""
        weights, gone = self.setup.settings.weights, self.step / self.steps
        return {
            level.variable: self.phase.rate(level, weights, self.epoch, gone)
            for level in self.phase.levels(self.epoch)
            if level.optimiser == "weights"
        }

    def advance(self) -> None:
        """Take one step; the device may still compute when this returns."""
        settings, phase, problem = self.setup.settings, self.phase, self.phase.problem
        self.set_clock()
        seed = generator(settings.seed, "search/draws", self.epoch, self.step).integers(2**63)
        torch.manual_seed(int(seed))  # for the random numbers of the losses
        batch = LazyBatches(self.setup.streams, self.epoch, self.step)
        levels, rates = phase.levels(self.epoch), self.rates()
        now = Iteration(settings, phase, self.via, levels, rates, self.done)
        if self.step == 0 and problem.joint:
            held = phase.variables, phase.velocities
            self.apart |= summands(
                levels, *held, batch, now.virtual, self.via, problem.order, self.done
            )
        self.meter.add(*self.programs.run(now.step(batch)))
        self.step += 1

    def set_clock(self) -> None:
        """Set the clock to the present epoch and step."""
        stretch = self.phase.stretch
        self.clock.epoch, self.clock.epochs = self.epoch - stretch.initialised, stretch.span
        self.clock.progress = self.done / (self.steps * self.setup.settings.epochs)

    def next_phase(self) -> None:
        """Go to the next phase."""
        self.phase = follow(self.setup, self.strategy, self.clock, self.phase)
        self.programs.drop()

    # The protocol of the loop ----------------------------------------------------------------

    def check(self) -> None:
        """Wait for the device; raise ValueError at the first step whose loss is not finite."""
        self.meter.check(self.epoch, self.step)

    def check_state(self) -> None:
        """Raise ValueError where a variable is not finite, so that no checkpoint stores it."""
        self.phase.check(self.epoch, self.step)

    def row(self, event: str) -> StepRow:
        """Return a row of metrics.jsonl for the last step."""
        return rows.step_row(self.view())

    def fields(self) -> dict[str, str]:
        """Return what progress shows."""
        view = self.view()
        return rows.fields(view) | self.strategy.shown(view)

    def end_epoch(self) -> EpochRow:
        """Return the epoch's row of metrics.jsonl, and go to the next epoch."""
        view = self.view()
        row = replace(rows.epoch_row(view), **self.strategy.observe(view))
        for each in self.phase.bound:
            each.begin_epoch()
        self.epoch, self.step, self.apart = self.epoch + 1, 0, {}
        self.meter.clear()
        stretch = self.phase.stretch
        if self.strategy.diagnostics.stopped:
            self.epochs = self.epoch
        elif self.epoch < self.epochs and self.epoch == stretch.start + stretch.epochs:
            self.next_phase()
        return row

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "meter": self.meter.state(),
            "zeros": self.meter.zeros(),
            "apart": self.apart,
            "watching": self.strategy.diagnostics.state(),
            "phase": self.clock.phase,
            **self.phase.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a checkpoint."""
        phase = state["phase"]
        if type(phase) is not int or not 0 <= phase < len(self.setup.phases):
            raise ValueError(f"phase is {phase!r}: there are {len(self.setup.phases)}")
        self.epoch, self.step = state["epoch"], state["step"]
        self.meter.restore(state["meter"], state.get("zeros"))
        self.apart = typed(state["apart"], dict[str, dict[str, float]], strict=True)
        diagnostics, learners = self.strategy.diagnostics, len(self.phase.problem.learners)
        diagnostics.restore(state["watching"], self.epoch, learners)
        self.epochs = self.epoch if diagnostics.stopped else self.epochs
        if phase:
            kept = typed(state["kept"], list[Kept], strict=True)
            for each in kept:
                check_kept(self.setup.space, each)
            self.phase = begin(self.setup, self.strategy, self.clock, phase, kept)
        self.phase.restore(state, self.setup.device, self.done, self.steps)
        self.programs.drop()
