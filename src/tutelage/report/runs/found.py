"""The figures of a search that samples paths: those of its supernet, and of what it found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.report.runs.read import Record, Stage, number


def supernet_accuracy(record: Record) -> float | None:
    """Give what the found architecture scores in the supernet, a share of the images."""
    return _number(_end(record, "evolution"), "accuracy")


def weights(record: Record) -> float | None:
    """Give the weights of the final network: as it was trained, or as the evolution counts them."""
    if record.parameters is not None:
        return record.parameters
    return _number(_end(record, "evolution"), "params")


def multiply_adds(record: Record) -> float | None:
    """Give the multiply-adds of the final network on one image, counted likewise."""
    trained = _number(record.retraining.result, "multiply_adds") if record.retraining else None
    return trained or _number(_end(record, "evolution"), "multiply_adds")


def tau(record: Record) -> float | None:
    """Give Kendall's tau of accuracies in the supernet and true ones."""
    return _number(_end(record, "ranking"), "tau")


def gap(record: Record) -> float | None:
    """Give the teacher's accuracy less its students', after the last epoch, a fraction."""
    return _number(last_probe(record.search), "gap") if record.search else None


def students_accuracy(record: Record) -> float | None:
    """Give the mean accuracy of sampled sub-networks after the last epoch, a fraction."""
    return _number(last_probe(record.search), "students_accuracy") if record.search else None


def last_probe(stage: Stage) -> Mapping[str, Any]:
    """Give what the last epoch says of students and teacher; empty where it says nothing."""
    rows = stage.of("epoch")
    return _table(rows[-1].get("probe")) if rows else {}


def _end(record: Record, key: str) -> Mapping[str, Any]:
    """Look into the row that ends the search."""
    rows = record.search.of("end") if record.search else []
    return _table(rows[-1].get(key)) if rows else {}


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(table: Mapping[str, Any], key: str) -> float | None:
    return number(table.get(key))
