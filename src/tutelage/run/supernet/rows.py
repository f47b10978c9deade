"""The output of a running search: rows of metrics.jsonl, and the line of progress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.records.rows import EpochRow, StepRow
from tutelage.run.supernet.metrics import Place, entries, teaching, teaching_line
from tutelage.run.supernet.metrics import learners as scores_of
from tutelage.run.supernet.view import View
from tutelage.spaces.base import Space


def step_row(view: View) -> StepRow:
    """Return a row of metrics.jsonl for the last step."""
    return StepRow(**_measured(view, view.last))


def epoch_row(view: View) -> EpochRow:
    """Return an epoch's row of means over its steps, without what is observed after it."""
    found = _measured(view, view.means)
    found["gradient"] |= view.apart
    operations = [names(view.space_of(learner)) for learner in view.learners]
    return EpochRow(**found, phase=view.phase, operations=operations)


def _measured(view: View, values: Mapping[Place, float]) -> dict[str, Any]:
    at = {"epoch": view.epoch, "step": view.step}
    return {**at, **entries(values), "lr": dict(view.rates)}


def names(space: Space) -> dict[str, Any]:
    """Return the operations of every group: one list for all edges if it is the same."""
    return {g: e[0] if len(set(e)) == 1 else e for g, e in space.operations.items()}


def fields(view: View) -> dict[str, str]:
    """Return what progress shows of steps, losses and teaching."""
    shown = {"epoch": f"{view.epoch + 1}/{view.epochs}", "step": f"{view.step}/{view.steps}"}
    for k, scores in enumerate(scores_of(view.means)):
        name = "learner" if len(view.learners) == 1 else f"learner {k}"
        shown[name] = ", ".join(
            f"{half} {loss:.3f} {100 * accuracy:.1f} %"
            for half, loss, accuracy in (
                ("train", scores.train_loss, scores.train_accuracy),
                ("valid", scores.valid_loss, scores.valid_accuracy),
            )
            if loss is not None and accuracy is not None
        )
    if described := teaching_line(teaching(view.means)):
        shown["teaching"] = described
    return shown
