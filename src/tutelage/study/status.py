"""How far a study is, from its files alone: what this reads, a working study may write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tutelage.formats import read_toml
from tutelage.study.jobs import Job, jobs_of
from tutelage.study.reading import read_study

EPOCH = b'"event": "epoch"'
"""What every epoch's row of metrics.jsonl holds."""
State = Literal["done", "running", "waiting", "failed"]
STATES: tuple[State, ...] = ("done", "running", "waiting", "failed")


@dataclass(frozen=True)
class Standing:
    """How far one run is."""

    job: Job
    state: State
    text: str
    """The step and its epoch, or the last sentence of a run that failed."""


def standing(job: Job) -> Standing:
    """Tell how far a run is."""
    step = job.step()
    if step is None:
        return Standing(job, "done", "")
    text = ", ".join(filter(None, (step.name, progress(job, step.name))))
    if job.claimed():
        return Standing(job, "running", text)
    outcome = job.outcome()
    if outcome.failed:
        return Standing(job, "failed", f"{outcome.doing}: {outcome.failed}")
    return Standing(job, "waiting", text if (job.run / "run.toml").exists() else "")


def share(job: Job) -> float:
    """Return which part of a run is done, in [0, 1]: search and retraining count the same."""
    step = job.step()
    if step is None:
        return 1.0
    parts = ["search", *job.then]
    done, epochs = _epochs(job, step.name)
    return (parts.index(step.name) + min(1.0, done / max(epochs, 1))) / len(parts)


def progress(job: Job, doing: str) -> str:
    """Write how many epochs of a step are done; a query has none."""
    if doing == "query":
        return ""
    done, epochs = _epochs(job, doing)
    return f"epoch {done}" + (f"/{epochs}" if epochs else "")


def _epochs(job: Job, doing: str) -> tuple[int, int]:
    """Count the epochs done of a search or a retraining, and read how many there will be."""
    if doing == "query":
        return 0, 0
    folder = job.run / "retrain" if doing == "retrain" else job.run
    try:
        settings = read_toml(folder / "run.toml")
        metrics = (folder / "metrics.jsonl").read_bytes()
    except (OSError, ValueError):
        return 0, 0
    table = settings.get("retrain") if doing == "retrain" else settings
    epochs = table.get("epochs") if isinstance(table, Mapping) else None
    return metrics.count(EPOCH), epochs if type(epochs) is int else 0


def status(out: Path) -> str:
    """Write a study's configurations and how far each is, and the sentences of failed runs.

    Raises:
        ValueError: It is no study's folder.
    """
    study = read_study(out)
    found = [standing(job) for job in jobs_of(study, out)]
    rows = [("configuration", *STATES)]
    for name in study.configurations:
        own = [each for each in found if each.job.configuration == name]
        rows.append((name, *(_cell(state, own) for state in STATES)))
    rows.append(("all", *(str(sum(x.state == state for x in found)) for state in STATES)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in rows]
    failed = [f"{each.job.name}: {each.text}" for each in found if each.state == "failed"]
    return "\n".join([*lines, *(["", "failed:", *failed] if failed else [])])


def _cell(state: State, own: Sequence[Standing]) -> str:
    """Write how many runs have a state, and what those are at that have begun."""
    mine = [each for each in own if each.state == state]
    if state in ("done", "failed") or not any(each.text for each in mine):
        return str(len(mine) or "–")
    begun = ", ".join(f"seed {each.job.seed}: {each.text}" for each in mine if each.text)
    return f"{len(mine)} ({begun})"
