"""What a search says of itself: rows of metrics.jsonl, and the line of progress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.run.supernet.metrics import entries, teaching_line
from tutelage.run.supernet.metrics import learners as marks_of
from tutelage.run.supernet.view import View
from tutelage.spaces.base import Space


def step_row(view: View) -> dict[str, Any]:
    """Return a row of metrics.jsonl about the last step."""
    return _row(view, "step", view.last)


def epoch_row(view: View) -> dict[str, Any]:
    """Return an epoch's row, means of its steps, but for what is observed after it."""
    row = _row(view, "epoch", view.means)
    row["gradient"] |= view.apart
    row["phase"] = view.phase
    row["operations"] = [names(view.space_of(x)) for x in view.learners]
    return row


def _row(view: View, event: str, values: Mapping[str, float]) -> dict[str, Any]:
    found: dict[str, Any] = {"event": event, "epoch": view.epoch, "step": view.step}
    return found | entries(values) | {"lr": dict(view.rates)}


def names(space: Space) -> dict[str, Any]:
    """Return the operations of every group: of all edges at once where they are the same."""
    return {g: e[0] if len(set(e)) == 1 else e for g, e in space.operations.items()}


def fields(view: View) -> dict[str, str]:
    """Return what progress shows of steps, losses and teaching."""
    shown = {"epoch": f"{view.epoch + 1}/{view.epochs}", "step": f"{view.step}/{view.steps}"}
    for k, marks in enumerate(marks_of(view.means)):
        name = "learner" if len(view.learners) == 1 else f"learner {k}"
        shown[name] = ", ".join(
            f"{half} {marks[f'{half}_loss']:.3f} {100 * marks[f'{half}_accuracy']:.1f} %"
            for half in ("train", "valid")
            if f"{half}_loss" in marks
        )
    if teaching := teaching_line(view.means):
        shown["teaching"] = teaching
    return shown
