"""The diagnostics of a search by alphas after every epoch, and the decision to stop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch

from tutelage.benchmark.table import looked_up, open_table, why_absent
from tutelage.config import Run
from tutelage.records.rows import StageAccuracies, Stopped
from tutelage.records.typed import typed
from tutelage.run.monitor.collapse import warnings_of
from tutelage.run.monitor.early_stopping import eigenvalues, stop_now
from tutelage.run.monitor.measured import measured
from tutelage.run.monitor.subject import Subject
from tutelage.run.monitor.teaching import two_stages
from tutelage.run.supernet.view import View
from tutelage.spaces.base import ArchWeights, Space
from tutelage.spaces.genotype import Genotype

PARTS = 8
"""Batches on which a learner is compared before and after it was taught."""


def uniform(space: Space) -> Iterable[Genotype]:
    """Yield, for every operation of a space, the architecture that has it on all edges."""
    shapes = space.choices
    for place in range(max(operations for _, operations in shapes.values())):
        yield space.genotype(
            ArchWeights(
                {g: torch.eye(n)[place % n].expand(edges, n) for g, (edges, n) in shapes.items()}
            )
        )


@dataclass(frozen=True)
class Remembered:
    """What is read again of one learner's diagnostics after an epoch."""

    skips: dict[str, int]
    eigenvalue: float | None
    genotype: dict[str, Any]


@final
class Diagnostics:
    """The diagnostics after every epoch so far.

    Attributes:
        history: For every epoch and every learner, the diagnostics and its `genotype`.
        stopped: Why the search stops and which epoch's architecture it keeps; None: it continues.
    """

    def __init__(self, settings: Run, space: Space, *, remembers: bool = False) -> None:
        """Open the table of the settings.

        Args:
            settings: Those of the search.
            space: Its space.
            remembers: Whether every epoch is diagnosed, by `after`.

        Raises:
            ValueError: It is not a table, or it is for another space, layout or operations.
        """
        self.settings, self.remembers = settings, remembers
        self.table = open_table(settings.table) if settings.table else None
        if self.table and space.name not in self.table.spaces:
            raise ValueError(
                f"--table with --space {space.name}: {settings.table} is of "
                f"{', '.join(self.table.spaces)}"
            )
        if self.table and self.table.caveat and settings.ranked:
            raise ValueError(
                f"ranked = {settings.ranked} with figures that are {self.table.caveat}: a ranking "
                "needs a table of measured accuracies; leave out --ranked"
            )
        for each in uniform(space) if self.table else ():
            self.looked_up([each])  # refuses a chain of another layout or other blocks
        self.history: list[list[dict[str, Any]]] = []
        self.stopped: dict[str, Any] | None = None

    @property
    def caveat(self) -> str | None:
        """What must be said of the table's figures; None: nothing, or there is no table."""
        return self.table.caveat or None if self.table else None

    def after(self, view: View) -> dict[str, Any]:
        """Measure the diagnostics, store them, and decide whether the search stops.

        Args:
            view: The search at the end of an epoch.

        Returns:
            Entries of the epoch's row of metrics.jsonl.
        """
        make = view.setup.streams.valid.batch
        first, since = make(view.epoch, 0), view.setup.phases[view.phase].initialised
        genotypes = [view.genotype(learner) for learner in view.learners]
        found = [
            measured(Subject(view, learner, genotype, first))
            for learner, genotype in zip(view.learners, genotypes, strict=True)
        ]
        self.history.append(
            [
                {**each, "genotype": genotype.to_dict()}
                for each, genotype in zip(found, genotypes, strict=True)
            ]
        )
        row: dict[str, Any] = {"collapse": found, "warnings": list(self._warnings(since))}
        if any(learner.drafts and learner.weights[0] in view.training for learner in view.learners):
            batches = [
                first,
                *(make(view.epoch, step) for step in range(1, min(PARTS, view.steps))),
            ]
            stages = [two_stages(x, view.variables, batches) for x in view.learners]
            row["stages"] = [StageAccuracies(**each.accuracies) for each in stages]
            row["warnings"] += [
                f"learner {k}: {x.warning}" for k, x in enumerate(stages) if x.warning
            ]
        if self.table:
            row["table"], row["table_caveat"] = self.looked_up(genotypes), self.caveat
            row["warnings"] += list(self._absent(genotypes))
        stop = stop_now(self.history, self.settings.stop, self.settings.stop_from, since)
        if stop:
            self.stopped = {"reason": stop.reason, "epoch": stop.epoch}
            row["stopped"] = Stopped(**self.stopped)
        return row

    def _warnings(self, since: int) -> Iterable[str]:
        """Yield warnings of collapse in the last epoch; weights were initialised in `since`."""
        last = self.history[-1]
        for k, each in enumerate(last):
            for warning in warnings_of(each["skips"], eigenvalues(self.history, k, since)):
                yield f"learner {k}: {warning}" if len(last) > 1 else warning

    def _absent(self, genotypes: Sequence[Genotype]) -> Iterable[str]:
        """Yield why the table has no entries for architectures."""
        for k, genotype in enumerate(genotypes):
            if self.table and (why := why_absent(self.table, genotype)):
                yield f"learner {k}: {why}" if len(genotypes) > 1 else why

    def looked_up(self, genotypes: Sequence[Genotype]) -> list[dict[str, Any]]:
        """Return the table's entries for architectures; empty if there is no table."""
        return [looked_up(self.table, genotype) for genotype in genotypes] if self.table else []

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {"history": self.history, "stopped": self.stopped}

    def restore(self, state: Mapping[str, Any], epochs: int, learners: int) -> None:
        """Resume from a checkpoint after so many epochs of so many learners."""
        history = typed(state["history"], list[list[Remembered]], strict=True)
        if len(history) != epochs * self.remembers:
            raise ValueError(f"history has {len(history)} epochs, of {epochs * self.remembers}")
        if others := {len(each) for each in history} - {learners}:
            raise ValueError(f"history has {min(others)} learners in some epoch, of {learners}")
        if state["stopped"] is not None:
            epoch = typed(state["stopped"], Stopped, strict=True).epoch
            if epoch is None or not 0 <= epoch < len(history):
                raise ValueError(f"stopped has epoch {epoch}, of {len(history)}")
            for each in history[epoch]:
                Genotype.from_dict(each.genotype)
        self.history, self.stopped = state["history"], state["stopped"]
