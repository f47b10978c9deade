"""One iteration of a search as a step that may run as a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from tutelage.config import Run
from tutelage.extras import AfterStep
from tutelage.multilevel import Level, search_step
from tutelage.run.step.held import settle
from tutelage.run.step.programs import Step
from tutelage.run.supernet.metrics import Place, measured
from tutelage.run.supernet.optimizers import virtual_rate
from tutelage.run.supernet.phase import PhaseState
from tutelage.trees import leaves
from tutelage.virtual import Rate, Via


class Iteration(NamedTuple):
    """One iteration of a search: every active level is updated once."""

    settings: Run
    phase: PhaseState
    via: Via
    levels: Sequence[Level]
    """The active levels, inner first."""
    rates: Mapping[str, Rate]
    """Step sizes of the variables that are trained like weights."""
    number: int
    """Steps done before."""

    @property
    def virtual(self) -> Mapping[str, Rate]:
        """The step sizes of virtual steps."""
        return {name: virtual_rate(self.settings, rate) for name, rate in self.rates.items()}

    def step(self, batches: Any) -> Step:
        """Return the iteration as a step on these batches."""
        phase = self.phase
        moving = tuple(name for name in phase.variables if name in phase.velocities)
        fires = tuple(self.number % level.every == 0 for level in self.levels)
        names = [level.name for level in self.levels]
        return Step(
            kind=(tuple(names), fires, moving),
            name=", ".join(name for name, moves in zip(names, fires, strict=True) if moves),
            work=self.take,
            batches=batches,
            numbers={name: float(rate.lr) for name, rate in self.rates.items()},
            held=lambda: [*leaves(phase.variables), *leaves(phase.velocities)],
        )

    def take(self, batches: Any, lr: Mapping[str, Any]) -> tuple[list[Place], Tensor]:
        """Update the phase's variables in place; return what was measured.

        Args:
            batches: The iteration's batches.
            lr: Learning rates by variable, as numbers or as tensors ().
        """
        rates = {name: rate._replace(lr=lr[name]) for name, rate in self.rates.items()}
        timed = self._replace(rates=rates)
        phase, problem = self.phase, self.phase.problem
        variables, velocities = dict(phase.variables), dict(phase.velocities)
        clip = self.settings.alphas.clip
        report = search_step(
            self.levels,
            variables,
            velocities,
            batches,
            rates=rates,
            virtual=timed.virtual,
            via=self.via,
            order=problem.order,
            move=lambda name, gradient: phase.move(name, gradient, clip),
            joint=problem.joint,
            iteration=self.number,
        )
        found = measured(report, batches)
        if after := problem.extra(AfterStep):
            after.call(variables, batches, report.notes)
        settle(phase.variables, variables)
        settle(phase.velocities, velocities)
        return found
