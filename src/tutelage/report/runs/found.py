"""The figures of a search that samples paths: those of its supernet, and of what it found."""

from __future__ import annotations

from tutelage.records.rows import EndRow, Probe
from tutelage.report.runs.read import Record, RunFiles, number


def supernet_accuracy(record: Record) -> float | None:
    """Give what the found architecture scores in the supernet, a share of the images."""
    found = _end(record).evolution
    return number(found.accuracy) if found else None


def params(record: Record) -> float | None:
    """Give the parameters of the final network: as trained, or as the evolution counts them."""
    trained, found = record.result, _end(record).evolution
    if trained and trained.params is not None:
        return trained.params
    return found.params if found else None


def flops(record: Record) -> float | None:
    """Give the FLOPs of the final network on one image, counted likewise."""
    trained, found = record.result, _end(record).evolution
    if trained and trained.flops:
        return trained.flops
    return found.flops if found else None


def tau(record: Record) -> float | None:
    """Give Kendall's tau of accuracies in the supernet and true ones."""
    found = _end(record).ranking
    return number(found.tau) if found else None


def gap(record: Record) -> float | None:
    """Give the teacher's accuracy less its students', after the last epoch, a fraction."""
    return number(last_probe(record.search).gap) if record.search else None


def students_accuracy(record: Record) -> float | None:
    """Give the mean accuracy of sampled sub-networks after the last epoch, a fraction."""
    return number(last_probe(record.search).students_accuracy) if record.search else None


def last_probe(files: RunFiles) -> Probe:
    """Give what the last epoch says of students and teacher; empty where it says nothing."""
    return files.epochs[-1].probe if files.epochs else Probe()


def _end(record: Record) -> EndRow:
    """Give the row that ends the search; an empty one before that."""
    ends = record.search.ends if record.search else []
    return ends[-1] if ends else EndRow()
