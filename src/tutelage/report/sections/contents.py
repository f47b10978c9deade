"""The content of the report's page: every section as plain values and figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any

from tutelage.records.results import Session
from tutelage.records.rows import Costs, StepRow
from tutelage.report.figures.plots import (
    Line,
    by_epoch,
    keyed_lines,
    learner_lines,
    plot,
    timeline,
    values,
)
from tutelage.report.figures.theme import LIGHT, SERIES, Drawn
from tutelage.report.runs.record import Record, RunFiles, at, number
from tutelage.report.runs.tables import dotted, duration
from tutelage.report.sections.learners import cells, learners
from tutelage.report.sections.monitor import (
    collapse,
    table_header,
    table_plots,
    table_rows,
    warnings,
)
from tutelage.report.sections.sampled import sampled
from tutelage.report.sections.status import caveats, provenance, quick, status, stopped
from tutelage.report.sections.teaching import first_stage, teaching
from tutelage.report.sections.tested import quality
from tutelage.report.sections.tiles import tiles
from tutelage.spaces.genotype import Genotype

COSTS = (
    ("flops", "max_flops", "FLOPs", 1e6, "millions"),
    ("params", "max_params", "Parameters", 1e6, "millions"),
    ("latency", "max_latency", "Latency", 1.0, "ms"),
)
"""Fields of `Cost`, settings that limit them, names, and units of the limits."""


def summary(record: Record) -> dict[str, Any]:
    """Make the part of the page that every run has, also in a comparison."""
    return {
        "title": record.title,
        "name": record.path.name,
        "path": record.path,
        "status": status(record),
        "notes": [
            *quick(record),
            *caveats(record),
            *(note for _, files in record.run_files for note in files.notes),
        ],
        "tiles": list(tiles(record)),
        "cells": cells(record.genotype),
        "genotype": record.genotype,
        "texts": list(texts(record.genotype)),
        "drawing": drawing(record),
    }


def details(record: Record) -> dict[str, Any]:
    """Make the further sections of a page with a single run; each may be empty."""
    search, retraining = record.search, record.retraining
    return {
        "run_files": [name for name, _ in record.run_files],
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
        "caveat": search.caveat if search else "",
        "table_header": table_header(search) if search else (),
        "table_plots": list(table_plots(search)) if search else [],
        "gradients": list(gradients(search)) if search else [],
        "sampled": sampled(search) if search and search.sampled else None,
        "retraining": list(retrained(retraining)) if retraining else [],
        "measured_on": measured_on(retraining) if retraining else "",
        "tested": quality(retraining) if retraining else {},
        "settings": [(name, settings(files)) for name, files in record.run_files],
        "sessions": [(name, each) for name, files in record.run_files for each in sessions(files)],
    }


def learning(files: RunFiles) -> Iterator[Drawn]:
    """Plot losses and accuracies of all learners, and the losses of the levels."""
    axis = timeline(files)[0]
    yield from plot("Loss of every learner", learner_lines(files, "loss"), axis)
    yield from plot("Accuracy of every learner (%)", learner_lines(files, "accuracy", 100), axis)
    yield from plot("Loss of every level", keyed_lines(files, attrgetter("loss")), axis)
    past = learner_lines(files, "divergence")
    yield from plot("Divergence of every learner from its own past", past, axis)
    for cost, limit, name, unit, words in COSTS:
        caption = f"{name} of the final network ({words})"
        yield from plot(caption, cost_lines(files, cost, limit, unit), by_epoch(files)[0])


def cost_lines(files: RunFiles, cost: str, limit: str, unit: float = 1e6) -> list[Line]:
    """Make lines of every learner's derived cost, its expected cost (dashed), and the limit."""
    _, x, rows = by_epoch(files)
    count = max((len(row.cost) for row in rows), default=0)
    lines = []
    for k in range(count):
        costs = [at(row.cost, k, Costs()) for row in rows]
        for kind, text in (("derived", "derived"), ("expected", "expected")):
            y = [value / unit for value in values(costs, attrgetter(f"{kind}.{cost}"))]
            label = f"{text}, learner {k}" if count > 1 else text
            lines.append(Line(label, x, y, SERIES[k % len(SERIES)], kind == "expected"))
    allowed = number(files.setting(limit))
    if lines and allowed is not None:
        lines.append(Line("limit", x, [allowed] * len(x), LIGHT["muted"], dashed=True))
    return lines


def gradients(files: RunFiles) -> Iterator[Drawn]:
    """Plot the norms of the terms of the alphas' gradient."""
    for level in dict.fromkeys(level for row in files.epochs for level in row.gradient):
        lines = keyed_lines(files, terms(level))
        yield from plot(f"Norms of the terms, level {level}", lines, timeline(files)[0], log=True)


def terms(level: str) -> Callable[[StepRow], Mapping[str, float]]:
    """Return a function that reads the norms of a level's terms from a row."""
    return lambda row: row.gradient.get(level, {})


def retrained(files: RunFiles) -> Iterator[Drawn]:
    """Plot a retraining, with two lines for every network of an ensemble."""
    losses, accuracies = [], []
    along = by_epoch if files.networks else timeline
    both = validated(files)
    for place, network in enumerate(files.trainings):
        axis, x, rows = along(network)
        colour = SERIES[place % len(SERIES)]
        for part in ("valid", "train"):
            name = f"{part}, member {place}" if files.networks else part
            dashed = both and part == "train"
            loss = values(rows, attrgetter(f"{part}_loss"))
            accuracy = [100 * value for value in values(rows, attrgetter(f"{part}_accuracy"))]
            losses.append(Line(name, x, loss, colour, dashed))
            accuracies.append(Line(name, x, accuracy, colour, dashed))
    yield from plot("Loss", losses, axis)
    yield from plot("Accuracy (%)", accuracies, axis)


def validated(files: RunFiles) -> bool:
    """Tell whether a retraining was measured on images that it does not train on."""
    rows = (row for each in files.trainings for row in each.of("epoch"))
    return any(row.valid_loss is not None for row in rows)


def measured_on(files: RunFiles) -> str:
    """Say which images the curves of a retraining are of."""
    if validated(files):
        count = number(files.setting("retrain", "validate"))
        of = f"{count:,.0f} training images" if count else "the images of the validation part"
        return (
            f"train: mean over the epoch's augmented batches. valid: {of}, which it does not train "
            "on, after every epoch. No test image is in either."
        )
    return (
        "The curves are of augmented training images. With --validate N, the network is also "
        "measured after every epoch on N training images, which it then does not train on."
    )


def settings(files: RunFiles) -> list[tuple[str, str]]:
    """List all settings by dotted name."""
    return [
        (name, str(value).lower() if isinstance(value, bool) else str(value))
        for name, value in dotted(files.settings)
        if name != "genotype"
    ]


def sessions(files: RunFiles) -> Iterator[dict[str, str]]:
    """Describe every session: when, how long, with which versions and hardware."""
    for session in files.sessions:
        started = (session.started or "–").replace("T", " ").replace("+00:00", " UTC")
        epoch, step = ("–" if x is None else x for x in (session.from_epoch, session.from_step))
        versions, hardware = session.versions.items(), session.hardware.items()
        yield {
            "started": started,
            "time": duration(number(session.seconds)),
            "from": f"epoch {epoch}, step {step}",
            "versions": ", ".join(f"{name} {each}" for name, each in versions if each),
            "hardware": ", ".join(
                [*(_part(name, each) for name, each in hardware if each), *_memory(session)]
            ),
        }


def _memory(session: Session) -> Iterator[str]:
    """Write the largest memory of a GPU, if it is known."""
    if session.gpu_memory is not None:
        yield f"GPU memory {session.gpu_memory / 2**30:.2f} GiB"


def drawing(record: Record) -> str:
    """Return the title of the genotype's drawing."""
    if record.genotype is None:
        return "Architecture"
    return "Layers" if record.genotype.stages else "Cells"


def texts(genotype: Genotype | None) -> Iterator[tuple[str, str]]:
    """Yield the genotype in other repositories' notations that fit it, with their names."""
    if genotype is None:
        return
    notations = (
        ("NAS-Bench-201’s string", genotype.to_nasbench201),
        ("DARTS’ tuple text", genotype.to_darts),
        ("NAS-Bench-Macro’s digits", genotype.to_macro),
    )
    for name, write in notations:
        try:
            yield name, write()
        except ValueError:  # cells of another shape
            continue


def _part(name: str, value: Any) -> str:
    return str(value) if isinstance(value, str) else f"{value} {name}"
