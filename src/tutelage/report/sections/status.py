"""The progress of a run, why it stopped, and the origin of its genotype."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tutelage.report.runs.record import Record, RunFiles, number
from tutelage.report.sections.evolution import progress
from tutelage.report.sections.tiles import percent


def status(record: Record) -> str:
    """Describe the progress of a run in one sentence."""
    parts = []
    if record.search:
        done, total = record.search.epochs_done, record.search.setting("epochs")
        state = "finished" if record.search.ended else "in progress"
        if record.search.stopped:
            parts.append(f"Search stopped early after {_of(done, total)}")
        elif record.search.trainless:
            parts.append("Search finished without training")
        else:
            parts.append(f"Search {state}, {_of(done, total)}")
        parts += list(_sampled(record.search))
    if record.retraining is None:
        parts.append("not retrained yet, so there is no test error")
    elif record.test_error is None and record.members:
        done = sum(bool(network.result) for network in record.retraining.networks)
        parts.append(f"retraining in progress, {done} of {len(record.members)} networks")
    elif record.test_error is None:
        done, total = record.retraining.epochs_done, record.retraining.setting("retrain", "epochs")
        parts.append(f"retraining in progress, {_of(done, total)}")
    else:
        start = record.retraining.setting("retrain", "start")
        begun = f"from the weights of {start}" if start else "from scratch"
        parts.append(f"retrained {begun} and tested once, after the last epoch")
    sentence = "; ".join(parts) + "."
    return sentence[0].upper() + sentence[1:]


def _sampled(files: RunFiles) -> Iterator[str]:
    """Describe the progress of ranking and evolution, if there are any."""
    if files.ranking and not files.ranking.epochs_done:
        scored, asked = len(files.ranking.scored), files.setting("ranked")
        yield f"ranking in progress, {scored} of {asked} architectures"
    if files.evolution:
        yield ("evolution: " if files.ends else "evolution in progress, ") + progress(
            files.evolution
        )
    elif files.sampled and not files.ranking and files.epochs_done == files.setting("epochs"):
        yield "its paths are not ranked or evolved yet"


def caveats(record: Record) -> Iterator[str]:
    """Yield a note if figures of the run were predicted."""
    if record.search and record.search.caveat:
        yield record.search.caveat


def quick(record: Record) -> Iterator[str]:
    """Yield a note if a run was a quick look."""
    if record.search and record.search.setting("quick"):
        yield (
            "A quick look (--quick): its settings were made small so that it ends within a minute, "
            "and its figures do not show how good the method is."
        )


def stopped(files: RunFiles) -> str:
    """Describe why a search stopped early and what it keeps; empty if it did not stop."""
    if not (files.stopped and files.last):
        return ""
    last = f", not that of the last epoch, {files.epochs[-1].epoch}"
    rest = last if files.kept_earlier else ", the last"
    kept = f"The architecture of epoch {files.last.epoch} is kept{rest}."
    return f"Stopped early: {files.stopped.reason}. {kept}"


def provenance(record: Record) -> str:
    """Describe the genotype's origin, and the supernet's scores at the end of the search."""
    if record.search is None or record.search.about.learner is None:
        return ""
    about, last = record.search.about, record.search.last
    if record.search.evolution:
        return f"evolution among the paths of the supernet of learner {about.learner}"
    origin = f"learner {about.learner}"
    if record.members:
        origin += f", the first of the {record.ensemble},"
    if last:
        origin += f" after epoch {last.epoch}"
    loss, accuracy = number(about.valid_loss), number(about.valid_accuracy)
    if loss is None or accuracy is None:
        return origin
    scores = f"validation loss {loss:.4f}, validation accuracy {percent(accuracy)}"
    return f"{origin}, whose supernet ended with {scores}"


def _of(done: int, total: Any) -> str:
    return f"{done} of {total} epochs" if total else f"{done} epochs"
