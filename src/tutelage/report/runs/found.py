"""Figures of a search that samples paths: of its supernet, and of the found architecture."""

from __future__ import annotations

from tutelage.records.rows import EndRow, Probe
from tutelage.report.runs.record import Record, RunFiles, number


def supernet_accuracy(record: Record) -> float | None:
    """Return the found architecture's accuracy in the supernet, a share of the images."""
    found = _end(record).evolution
    return number(found.accuracy) if found else None


def params(record: Record) -> float | None:
    """Return the parameters of the final network, as trained or as the evolution counts them."""
    trained, found = record.result, _end(record).evolution
    if trained and trained.params is not None:
        return trained.params
    return found.params if found else None


def flops(record: Record) -> float | None:
    """Return the FLOPs of the final network on one image, counted in the same way."""
    trained, found = record.result, _end(record).evolution
    if trained and trained.flops:
        return trained.flops
    return found.flops if found else None


def tau(record: Record) -> float | None:
    """Return Kendall's tau of accuracies in the supernet and true accuracies."""
    found = _end(record).ranking
    return number(found.tau) if found else None


def gap(record: Record) -> float | None:
    """Return the teacher's accuracy minus its students', after the last epoch, a fraction."""
    return number(_final_probe(record).gap)


def students_accuracy(record: Record) -> float | None:
    """Return the mean accuracy of sampled sub-networks after the last epoch, a fraction."""
    return number(_final_probe(record).students_accuracy)


def last_probe(files: RunFiles) -> Probe:
    """Return the scores of students and teacher after the last epoch so far, if there are any."""
    return files.epochs[-1].probe if files.epochs else Probe()


def _final_probe(record: Record) -> Probe:
    """Return the last epoch's scores of a search that has ended; empty before."""
    files = record.search
    return last_probe(files) if files and files.ended else Probe()


def _end(record: Record) -> EndRow:
    """Return the row that ends the search; an empty one before the end."""
    ends = record.search.ends if record.search else []
    return ends[-1] if ends else EndRow()
