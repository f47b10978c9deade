"""What stands on the report's page: every section as plain values and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from tutelage.report.alphas import heat_maps, mixes
from tutelage.report.draw import cell_figure
from tutelage.report.figures import SERIES, to_svg
from tutelage.report.plots import (
    Line,
    curves,
    keyed_lines,
    learner_lines,
    timeline,
    values,
)
from tutelage.report.read import Record, Stage, number
from tutelage.report.tables import Row, dotted, duration
from tutelage.spaces.genotype import Genotype


@dataclass(frozen=True)
class Drawn:
    """A figure of the page."""

    caption: str
    svg: str
    width: float
    """Natural width in points."""


@dataclass(frozen=True)
class Tile:
    """One number that matters."""

    name: str
    value: str
    remark: str


@dataclass(frozen=True)
class Learner:
    """What one learner's alphas did, and the cells that they give now."""

    title: str
    open: bool
    """Shown at first sight."""
    cells: list[Drawn]
    heat_maps: list[Drawn]


def summary(record: Record) -> dict[str, Any]:
    """Make what the page says of every run, also among others."""
    return {
        "title": record.title,
        "name": record.path.name,
        "path": record.path,
        "status": status(record),
        "notes": [note for _, stage in record.stages for note in stage.notes],
        "tiles": list(tiles(record)),
        "cells": cells(record.genotype),
        "genotype": record.genotype,
        "genotype_darts": darts_text(record.genotype),
    }


def details(record: Record) -> dict[str, Any]:
    """Make what the page says more of a run that is alone on it; empty where it has nothing."""
    search, retraining = record.search, record.retraining
    return {
        "stages": [name for name, _ in record.stages],
        "provenance": provenance(record),
        "learning": list(learning(search)) if search else [],
        "learners": list(learners(search, record.kept)) if search else [],
        "gradients": list(gradients(search)) if search else [],
        "retraining": list(retrained(retraining)) if retraining else [],
        "settings": [(name, settings(stage)) for name, stage in record.stages],
        "sessions": [(name, each) for name, stage in record.stages for each in sessions(stage)],
    }


def status(record: Record) -> str:
    """Say in one sentence how far a run is."""
    parts = []
    if record.search:
        done, total = record.search.epochs_done, record.search.setting("epochs")
        ended = record.search.of("end") or done == total
        parts.append(f"Search {'finished' if ended else 'in progress'}, {_of(done, total)}")
    if record.retraining is None:
        parts.append("not retrained yet, so there is no test error")
    elif record.test_error is None:
        done, total = record.retraining.epochs_done, record.retraining.setting("retrain", "epochs")
        parts.append(f"retraining in progress, {_of(done, total)}")
    else:
        parts.append("retrained from scratch and tested once, after the last epoch")
    sentence = "; ".join(parts) + "."
    return sentence[0].upper() + sentence[1:]


def tiles(record: Record) -> Iterator[Tile]:
    """Give the numbers that matter, as far as they are known."""
    retraining = record.retraining
    if retraining and record.test_error is not None:
        epochs = retraining.result.get("epochs", retraining.epochs_done)
        yield Tile("test error", percent(record.test_error), f"after {epochs} epochs of training")
    if retraining and record.parameters is not None:
        yield Tile("weights", quantity(record.parameters), "without auxiliary head")
    multiply_adds = number(retraining.result.get("multiply_adds")) if retraining else None
    if multiply_adds is not None:
        yield Tile("multiply-adds", quantity(multiply_adds), "one image")
    if record.valid_accuracy is not None:
        remark = (
            "supernet, end of search" if record.kept is None else f"learner {record.kept}, kept"
        )
        yield Tile("valid accuracy", percent(record.valid_accuracy), remark)
    for name, stage in record.stages:
        if stage.seconds is not None:
            count = len(stage.sessions)
            remark = "in one session" if count == 1 else f"in {count} sessions"
            yield Tile(f"{name} time", duration(stage.seconds), remark)


def percent(fraction: float) -> str:
    """Write a fraction in percent, two decimals."""
    return f"{100 * fraction:.2f} %"


def quantity(count: float) -> str:
    """Write a large number with three digits or more.

    >>> quantity(3349342), quantity(528e6), quantity(48214), quantity(12)
    ('3.35 M', '528 M', '48.2 k', '12')
    """
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if count >= size:
            digits = 0 if count >= 100 * size else 1 if count >= 10 * size else 2
            return f"{count / size:.{digits}f} {unit}"
    return f"{count:.0f}"


def cells(genotype: Genotype | None) -> list[Drawn]:
    """Draw every cell by itself."""
    if genotype is None:
        return []
    return [_drawn("", cell_figure(genotype, [group]), f"{group} cell") for group in genotype.cells]


def provenance(record: Record) -> str:
    """Say where the genotype comes from."""
    about = record.search.about if record.search else {}
    parts = []
    if "learner" in about:
        parts.append(f"learner {about['learner']}")
    if "epoch" in about:
        parts.append(f"epoch {about['epoch']}")
    loss, accuracy = number(about.get("valid_loss")), number(about.get("valid_accuracy"))
    if loss is not None:
        parts.append(f"validation loss {loss:.4f}")
    if accuracy is not None:
        parts.append(f"validation accuracy {percent(accuracy)}")
    return ", ".join(parts)


def learning(stage: Stage) -> Iterator[Drawn]:
    """Plot losses and accuracies of all learners, and the losses of the levels."""
    axis = timeline(stage)[0]
    yield from _plot("Loss of every learner", learner_lines(stage, "loss"), axis)
    yield from _plot("Accuracy of every learner (%)", learner_lines(stage, "accuracy", 100), axis)
    yield from _plot("Loss of every level", keyed_lines(stage, "loss"), axis)


def gradients(stage: Stage) -> Iterator[Drawn]:
    """Plot the norms of the terms that the alphas' gradient is a sum of."""
    levels: dict[str, None] = {}
    for row in stage.of("epoch"):
        levels |= dict.fromkeys(row.get("gradient") or {})
    for level in levels:
        lines = keyed_lines(stage, "gradient", level)
        yield from _plot(f"Norms of the terms, level {level}", lines, timeline(stage)[0], log=True)


def retrained(stage: Stage) -> Iterator[Drawn]:
    """Plot a retraining."""
    axis, x, rows = timeline(stage)
    accuracy = [100 * value for value in values(rows, "train_accuracy")]
    loss = values(rows, "train_loss")
    yield from _plot("Training loss", [Line("train", x, loss, SERIES[0])], axis)
    yield from _plot("Training accuracy (%)", [Line("train", x, accuracy, SERIES[0])], axis)


def learners(stage: Stage, kept: int | None) -> Iterator[Learner]:
    """Give every learner's heat maps, and its cells unless they head the page, kept one first."""
    history = mixes(stage)
    epochs = stage.of("epoch")
    last = epochs[-1] if epochs else {}
    found = sorted({learner for learner, _ in history}, key=lambda each: (each != kept, each))
    for learner in found:
        genotype = _genotype(last, learner) or (stage.genotype if len(found) == 1 else None)
        maps = [
            _drawn(
                f"{group} cell",
                heat_maps(mix, group, genotype, last.get("epoch", 0)),
                f"weights of the operations of the {group} cell over epochs",
            )
            for (each, group), mix in history.items()
            if each == learner
        ]
        on_top = stage.genotype is not None and (learner == kept or len(found) == 1)
        title = f"Learner {learner}" + (", kept" if learner == kept else "")
        yield Learner(title, kept in (None, learner), [] if on_top else cells(genotype), maps)


def settings(stage: Stage) -> list[tuple[str, str]]:
    """List all settings by dotted name."""
    return [
        (name, str(value).lower() if isinstance(value, bool) else str(value))
        for name, value in dotted(stage.settings)
        if name != "genotype"
    ]


def sessions(stage: Stage) -> Iterator[dict[str, str]]:
    """Say of every session when, how long and on what it ran."""
    for session in stage.sessions:
        versions, hardware = session.get("versions") or {}, session.get("hardware") or {}
        yield {
            "started": str(session.get("started", "–")).replace("T", " ").replace("+00:00", " UTC"),
            "time": duration(number(session.get("seconds"))),
            "from": f"epoch {session.get('from_epoch', '–')}, step {session.get('from_step', '–')}",
            "versions": ", ".join(f"{name} {each}" for name, each in versions.items() if each),
            "hardware": ", ".join(_part(name, each) for name, each in hardware.items() if each),
        }


def darts_text(genotype: Genotype | None) -> str:
    """Write DARTS' tuple text; nothing where a cell is not of that form."""
    try:
        return genotype.to_darts() if genotype else ""
    except ValueError:
        return ""


def compared(rows: Sequence[Row]) -> list[Drawn]:
    """Plot the runs of a comparison over each other, one colour a row of the table."""
    accuracy, loss, training = [], [], []
    for place, row in enumerate(rows):
        colour = SERIES[place % len(SERIES)]
        for record in row.records:
            if record.search:
                kept = ("learners", record.kept or 0)
                _, x, found = timeline(record.search)
                y = [100 * value for value in values(found, *kept, "valid_accuracy")]
                accuracy.append(Line(row.label, x, y, colour))
                loss.append(Line(row.label, x, values(found, *kept, "valid_loss"), colour))
            if record.retraining:
                _, x, found = timeline(record.retraining)
                training.append(Line(row.label, x, values(found, "train_loss"), colour))
    return [
        *_plot("Search: validation accuracy of the kept learner (%)", accuracy, "epoch"),
        *_plot("Search: validation loss of the kept learner", loss, "epoch"),
        *_plot("Retraining: training loss", training, "epoch"),
    ]


def _plot(caption: str, lines: Sequence[Line], axis: str, *, log: bool = False) -> Iterator[Drawn]:
    """Give the plot of the lines, or nothing where no line holds a number."""
    lines = [line for line in lines if any(value == value for value in line.y)]
    if lines:
        yield _drawn(caption, curves(lines, axis, log=log), caption)


def _drawn(caption: str, figure: Figure, label: str) -> Drawn:
    return Drawn(caption, to_svg(figure, label), 72 * figure.get_figwidth())


def _of(done: int, total: Any) -> str:
    return f"{done} of {total} epochs" if total else f"{done} epochs"


def _part(name: str, value: Any) -> str:
    return str(value) if isinstance(value, str) else f"{value} {name}"


def _genotype(row: Mapping[str, Any], learner: int) -> Genotype | None:
    try:
        return Genotype.from_dict(row["genotype"][learner])
    except (KeyError, IndexError, ValueError):
        return None
