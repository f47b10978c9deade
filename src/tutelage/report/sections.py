"""What stands on the report's page: every section as plain values and figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from tutelage.report.benchmarks import BENCHMARKS
from tutelage.report.figures import LIGHT, SERIES, Drawn
from tutelage.report.learners import cells, learners
from tutelage.report.plots import (
    Axis,
    Line,
    by_epoch,
    keyed_lines,
    learner_lines,
    plot,
    timeline,
    values,
)
from tutelage.report.read import Record, Stage, number
from tutelage.report.tables import Row, dotted, duration
from tutelage.report.teaching import first_stage, teaching
from tutelage.report.watched import (
    collapse,
    figure,
    rank,
    table_header,
    table_plots,
    table_rows,
    warnings,
)
from tutelage.spaces.genotype import Genotype

COSTS = (
    ("multiply_adds", "max_flops", "Multiply-adds"),
    ("weights", "max_params", "Weights"),
)
"""Keys of `cost` in metrics.jsonl, settings that limit them, and names."""


@dataclass(frozen=True)
class Tile:
    """One number that matters."""

    name: str
    value: str
    remark: str
    result: bool = False
    """Whether it is what the run was for."""


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
        "texts": list(texts(record.genotype)),
    }


def details(record: Record) -> dict[str, Any]:
    """Make what the page says more of a run that is alone on it; empty where it has nothing."""
    search, retraining = record.search, record.retraining
    return {
        "stages": [name for name, _ in record.stages],
        "trained": search is not None and not search.trainless,
        "provenance": provenance(record),
        "learning": list(learning(search)) if search else [],
        "teaching": list(teaching(search)) if search else [],
        "first_stage": first_stage(search, record.kept) if search else [],
        "first_stage_header": ("learner", "first stage", "taught", "difference in points"),
        "kept_earlier": search is not None and search.kept_earlier,
        "learners": list(learners(search, record.kept)) if search else [],
        "collapse": list(collapse(search)) if search else [],
        "warnings": warnings(search) if search else [],
        "stopped": stopped(search) if search else "",
        "table": table_rows(search, record.kept) if search else [],
        "benchmark": search.benchmark if search else None,
        "table_header": table_header(search) if search else (),
        "table_plots": list(table_plots(search)) if search else [],
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
        state = "finished" if ended else "in progress"
        if record.search.stopped:
            parts.append(f"Search stopped early after {_of(done, total)}")
        elif record.search.trainless:
            parts.append("Search finished without training")
        else:
            parts.append(f"Search {state}, {_of(done, total)}")
    if record.retraining is None:
        parts.append("not retrained yet, so there is no test error")
    elif record.test_error is None and record.members:
        done = sum(bool(network.result) for network in record.retraining.networks)
        parts.append(f"retraining in progress, {done} of {len(record.members)} networks")
    elif record.test_error is None:
        done, total = record.retraining.epochs_done, record.retraining.setting("retrain", "epochs")
        parts.append(f"retraining in progress, {_of(done, total)}")
    else:
        parts.append("retrained from scratch and tested once, after the last epoch")
    sentence = "; ".join(parts) + "."
    return sentence[0].upper() + sentence[1:]


def stopped(stage: Stage) -> str:
    """Say why a search stopped early and what it keeps; nothing where it did not."""
    if not stage.stopped:
        return ""
    reason, kept = stage.stopped.get("reason", "no reason is recorded"), stage.last.get("epoch")
    last = f", not that of the last epoch, {stage.of('epoch')[-1].get('epoch')}"
    rest = last if stage.kept_earlier else ", the last"
    return f"Stopped early: {reason}. The architecture of epoch {kept} is kept{rest}."


def tiles(record: Record) -> Iterator[Tile]:
    """Give the numbers that matter, as far as they are known."""
    retraining = record.retraining
    if retraining and record.test_error is not None:
        epochs = retraining.result.get("epochs", retraining.epochs_done)
        remark = f"after {epochs} epochs of training"
        if record.members:
            own = ", ".join(percent(each) for each in retraining.result.get("ensemble") or [])
            remark = f"of the ensemble, {remark} of each network; by themselves {own}"
        yield Tile("test error", percent(record.test_error), remark, True)
    if record.search and record.answer:
        answer, benchmark = record.answer, record.search.benchmark
        for key, data in benchmark.tests.items():
            ranked = key == benchmark.ranked_by
            remark = f"rank {rank(answer, benchmark)}" if ranked else f"of {benchmark.title}"
            yield Tile(f"{data} test", figure(answer, key), remark, result=ranked)
    if retraining and record.parameters is not None:
        whose = "of all networks, " if record.members else ""
        yield Tile("weights", quantity(record.parameters), f"{whose}without auxiliary head")
    multiply_adds = number(retraining.result.get("multiply_adds")) if retraining else None
    if multiply_adds is not None:
        whose = "all networks, " if record.members else ""
        yield Tile("multiply-adds", quantity(multiply_adds), f"{whose}one image")
    if record.valid_accuracy is not None:
        alone = "supernet, end of search" if record.kept is None else f"learner {record.kept}, kept"
        yield Tile("valid accuracy", percent(record.valid_accuracy), record.ensemble or alone)
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


def provenance(record: Record) -> str:
    """Say where the genotype comes from, and how the supernet did when the search ended."""
    about = record.search.about if record.search else {}
    if record.search is None or "learner" not in about:
        return ""
    origin = f"learner {about['learner']}"
    if record.members:
        origin += f", the first of the {record.ensemble},"
    if record.search.epochs_done:
        origin += f" after epoch {record.search.last.get('epoch', '?')}"
    loss, accuracy = number(about.get("valid_loss")), number(about.get("valid_accuracy"))
    if loss is None or accuracy is None:
        return origin
    marks = f"validation loss {loss:.4f}, validation accuracy {percent(accuracy)}"
    return f"{origin}, whose supernet ended with {marks}"


def learning(stage: Stage) -> Iterator[Drawn]:
    """Plot losses and accuracies of all learners, and the losses of the levels."""
    axis = timeline(stage)[0]
    yield from plot("Loss of every learner", learner_lines(stage, "loss"), axis)
    yield from plot("Accuracy of every learner (%)", learner_lines(stage, "accuracy", 100), axis)
    yield from plot("Loss of every level", keyed_lines(stage, "loss"), axis)
    past = learner_lines(stage, "divergence")
    yield from plot("Divergence of every learner from its own past", past, axis)
    for cost, limit, name in COSTS:
        caption = f"{name} of the final network (millions)"
        yield from plot(caption, cost_lines(stage, cost, limit), by_epoch(stage)[0])


def cost_lines(stage: Stage, cost: str, limit: str) -> list[Line]:
    """Make every learner's cost of what is read off, and dashed what is expected; and the limit."""
    _, x, rows = by_epoch(stage)
    count = max((len(row.get("cost") or []) for row in rows), default=0)
    lines = []
    for k in range(count):
        for kind, text in (("read_off", "read off"), ("expected", "expected")):
            y = [value / 1e6 for value in values(rows, "cost", k, kind, cost)]
            label = f"{text}, learner {k}" if count > 1 else text
            lines.append(Line(label, x, y, SERIES[k % len(SERIES)], kind == "expected"))
    allowed = number(stage.setting(limit))
    if lines and allowed is not None:
        lines.append(Line("limit", x, [allowed] * len(x), LIGHT["muted"], dashed=True))
    return lines


def gradients(stage: Stage) -> Iterator[Drawn]:
    """Plot the norms of the terms that the alphas' gradient is a sum of."""
    levels: dict[str, None] = {}
    for row in stage.of("epoch"):
        levels |= dict.fromkeys(row.get("gradient") or {})
    for level in levels:
        lines = keyed_lines(stage, "gradient", level)
        yield from plot(f"Norms of the terms, level {level}", lines, timeline(stage)[0], log=True)


def retrained(stage: Stage) -> Iterator[Drawn]:
    """Plot a retraining, with a line for every network of an ensemble."""
    losses, accuracies = [], []
    along = by_epoch if stage.networks else timeline
    for place, network in enumerate(stage.trainings):
        axis, x, rows = along(network)
        name = f"member {place}" if stage.networks else "train"
        colour = SERIES[place % len(SERIES)]
        losses.append(Line(name, x, values(rows, "train_loss"), colour))
        accuracy = [100 * value for value in values(rows, "train_accuracy")]
        accuracies.append(Line(name, x, accuracy, colour))
    yield from plot("Training loss", losses, axis)
    yield from plot("Training accuracy (%)", accuracies, axis)


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


def texts(genotype: Genotype | None) -> Iterator[tuple[str, str]]:
    """Write the genotype in the notations of others that it has a form in, each with its name."""
    if genotype is None:
        return
    notations = (
        ("NAS-Bench-201’s string", genotype.to_nasbench201),
        ("DARTS’ tuple text", genotype.to_darts),
    )
    for name, write in notations:
        try:
            yield name, write()
        except ValueError:  # cells of another shape
            continue


def compared(rows: Sequence[Row]) -> list[Drawn]:
    """Plot the runs of a comparison over each other, one colour a row of the table."""
    accuracy, loss, training = [], [], []
    tables: dict[str, list[Line]] = {each.title: [] for each in BENCHMARKS}
    for place, row in enumerate(rows):
        colour = SERIES[place % len(SERIES)]
        for record in row.records:
            if record.search:
                kept = record.kept or 0
                _, x, found = timeline(record.search)
                y = [100 * value for value in values(found, "learners", kept, "valid_accuracy")]
                accuracy.append(Line(row.label, x, y, colour))
                y = values(found, "learners", kept, "valid_loss")
                loss.append(Line(row.label, x, y, colour))
                benchmark = record.search.benchmark
                y = values(found, "table", kept, benchmark.ranked_by)
                tables[benchmark.title].append(Line(row.label, x, y, colour))
            for stage in record.retraining.trainings if record.retraining else ():
                _, x, found = timeline(stage)
                training.append(Line(row.label, x, values(found, "train_loss"), colour))
    axis = Axis("epoch")
    return [
        *plot("Search: validation accuracy of the kept learner (%)", accuracy, axis),
        *plot("Search: validation loss of the kept learner", loss, axis),
        *chain.from_iterable(
            plot(f"{title}: CIFAR-10 test accuracy of the kept learner (%)", lines, axis)
            for title, lines in tables.items()
        ),
        *plot("Retraining: training loss", training, axis),
    ]


def _of(done: int, total: Any) -> str:
    return f"{done} of {total} epochs" if total else f"{done} epochs"


def _part(name: str, value: Any) -> str:
    return str(value) if isinstance(value, str) else f"{value} {name}"
