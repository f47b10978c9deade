"""The loop that searching and retraining share: steps, rows, checkpoints, signals, progress."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from signal import Signals
from typing import Any, Final, Protocol

import torch

from tutelage import ranks
from tutelage.likeness import refuse_unlike
from tutelage.records import lift
from tutelage.records.rows import Candidate, EpochRow, Row, TrainingRow
from tutelage.renamed import lifted_settings
from tutelage.run.job import agreement, checkpoint
from tutelage.run.job.directory import RunDirectory
from tutelage.run.job.progress import Progress
from tutelage.run.job.settings import changed_settings
from tutelage.run.job.signals import Interrupts, StoppedError
from tutelage.run.machine import deterministic, device, threads

BETWEEN_CHECKS: Final = 1.0
"""Seconds between two checks, of which each makes a GPU wait for the processor."""
DAMAGED: Final = (
    *(LookupError, TypeError, ValueError, AttributeError, RuntimeError),
    ArithmeticError,
)
"""What work raises that is restored from values of other types or names."""
LONGEST: Final = 400
"""Characters of what a sentence repeats of a checkpoint."""


class Work(Protocol):
    """The state that passes from step to step; a checkpoint holds all of it."""

    epoch: int
    """Epochs done."""
    step: int
    """Steps done in the epoch."""
    steps: int
    """Steps of an epoch."""
    epochs: int
    """Epochs in all; a search that stops early lowers this number."""

    @property
    def done(self) -> int:
        """Steps done in all."""

    def advance(self) -> None:
        """Take one step; the device may still compute when this returns."""

    def check(self) -> None:
        """Wait for the device; raise ValueError at the first step whose loss is not finite."""

    def check_state(self) -> None:
        """Raise ValueError where the state is not finite, so that no checkpoint stores it."""

    def row(self, event: str) -> Row:
        """Return a row of metrics.jsonl for the last step, or for the epoch so far."""

    def fields(self) -> Mapping[str, str]:
        """Return what progress shows."""

    def end_epoch(self) -> EpochRow | TrainingRow | Candidate:
        """Return the epoch's row of metrics.jsonl, and go to the next epoch."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a checkpoint."""


def run(
    work: Work,
    directory: RunDirectory,
    *,
    log_every: int,
    save_every: float,
    title: str,
    resume_with: str,
    gpu: str | None = None,
    graph: str | None = None,
    notices: Callable[[], Sequence[str]] = tuple,
) -> None:
    """Work to the last epoch, writing rows and checkpoints.

    Args:
        work: It is restored from the directory's checkpoint, if there is one.
        directory: Where rows and checkpoints go.
        log_every: Steps between two logged ones.
        save_every: Minutes between two checkpoints; every epoch ends with one.
        title: Name of the work in the progress display.
        resume_with: The command that resumes the work after a signal, for the message.
        gpu: The GPU's name, for environment.json.
        graph: Whether steps may run as CUDA graphs, for environment.json.
        notices: Called after every step; returns sentences to say once and to keep in
            environment.json.

    Raises:
        ValueError: A loss is not finite.
        StoppedError: A signal came; everything is saved.
    """
    size = _restored(work, directory)
    agreement.same_place(work.epoch, work.step)
    directory.metrics.cut(size)
    directory.metrics.begin()
    number, because = threads.present()
    device.reset_gpu_memory()
    directory.begin_session(
        work.epoch,
        work.step,
        gpu=gpu,
        threads=number,
        threads_because=because,
        deterministic=deterministic.present(),
        graph=graph,
        processes=ranks.count(),
        peak=device.gpu_memory,
    )
    if ranks.count() > 1:
        title = f"{title}, {ranks.in_words()}"

    def save() -> None:
        work.check_state()
        size = directory.metrics.size()
        state = {"work": work.state(), "metrics_size": size, "settings": directory.settings()}
        if directory.writes:
            checkpoint.save(directory.path, state)
        directory.save_session()

    saved = shown = time.monotonic()
    fields: Mapping[str, str] = {}
    with (
        Interrupts() as signals,
        Progress(work.epochs * work.steps, work.done, title) as progress,
    ):
        while work.epoch < work.epochs:
            work.advance()
            for sentence in notices():
                progress.note(sentence)
                directory.note(sentence)
            now = time.monotonic()
            ended = work.step == work.steps
            logged = work.step % log_every == 0
            # all ranks save, check and stop at the same step
            signal, due, unshown = ranks.highest(
                [signals.number, now - saved >= 60 * save_every, now - shown >= BETWEEN_CHECKS]
            )
            saving = ended or due or signal
            if saving or logged or unshown:
                work.check()
                fields, shown = work.fields(), now
            progress.step(work.done, fields)
            if logged:
                directory.metrics.append(work.row("step"))
            if ended:
                progress.note(" | ".join(f"{name} {value}" for name, value in fields.items()))
                row = work.end_epoch()
                directory.metrics.append(row)
                for sentence in row.warnings or ():
                    progress.note(f"warning: {sentence}")
            if saving:
                save()
                saved = time.monotonic()
            if signal:
                break
        # in the last step too, and while it was saved: other work may follow
        if signal := max(ranks.highest([signals.number])):
            raise StoppedError(
                Signals(signal).name,
                f"saved at epoch {work.epoch}, step {work.step}; resume with {resume_with}",
            )


def _restored(work: Work, directory: RunDirectory) -> int:
    """Restore work from its checkpoint, if there is one; return the size of metrics.jsonl then.

    Raises:
        ValueError: It is another run's, or damaged.
    """
    if not checkpoint.exists(directory.path):
        return 0
    stored = checkpoint.load(directory.path)
    try:
        changed = changed_settings(
            lift.settings(lifted_settings(stored["settings"])), directory.settings()
        )
        if not changed:
            state, size = stored["work"], stored["metrics_size"]
            _refuse_place(work, state.get("epoch", 0), state.get("step", 0), size)
            work.restore(state)
            _refuse_unlike(state, work.state())
            _refuse_place(work, work.epoch, work.step, size)
    except DAMAGED as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ValueError(
            f"the checkpoint in {directory.path} is damaged or does not fit the run: "
            f"{_shortened(error)}{checkpoint.before(directory.path)}"
        ) from error
    if changed:
        named = textwrap.shorten(", ".join(changed), LONGEST)
        raise ValueError(f"the checkpoint in {directory.path} is another run's: {named}")
    return size


def _refuse_place(work: Work, epoch: int, step: int, size: int) -> None:
    """Raise ValueError if work cannot be there; an evolution stores no epoch and has one."""
    whole = all(type(x) is int and x >= 0 for x in (epoch, step, size))
    if not whole or epoch > work.epochs or step >= max(work.steps, 1):
        raise ValueError(f"epoch {epoch}, step {step}, {size} bytes of metrics")


def _refuse_unlike(stored: Mapping[str, Any], restored: Mapping[str, Any]) -> None:
    """Raise ValueError if work restored something else; other releases may store more entries."""
    for name in stored.keys() & restored.keys():
        refuse_unlike(stored[name], restored[name], name)


def _shortened(error: Exception) -> str:
    """Return what an error says, with its type where that is no sentence."""
    kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
    return kind + textwrap.shorten(str(error), LONGEST)
