"""Settings of a run as plain values, and which of them have changed since it began."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ELSEWHERE = (
    *("device", "deterministic", "graph", "threads", "kernels", "root", "download"),
    *("save_every", "table", "row", "log"),
)
"""Settings that may change when a run resumes: they name places and trackers, or how exactly
results repeat."""

ADDED: Mapping[str, Any] = {
    "data.held_out": 0,
    "data.sample": 1.0,
    "data.unlabelled_sample": 1.0,
    "data.white": 65_535,
    "data.stratified": False,
    "data.validation": "half",
    "data.balanced": False,
    "class_weights": "equal",
    "retrain.class_weights": "equal",
    "retrain.mixup": 0.0,
    "retrain.cutmix": 0.0,
    "retrain.validate": 0,
    "weights.warm_up": 0,
    "retrain.warm_up_rule": "line",
    "retrain.linear_tail": 0,
    "divide": "images",
    "statistics": "batch",
    "retrain.statistics": "batch",
}
"""Settings that run.toml did not have in release 0.1, with the values that describe those runs."""


def plain(settings: DataclassInstance) -> dict[str, Any]:
    """Return settings as values of TOML: paths as text, None left out."""
    return plain_value(asdict(settings))


def plain_value(value: Any) -> Any:
    """Return a value as TOML has it, also in nested tables."""
    if isinstance(value, Mapping):
        return {key: plain_value(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, (list, tuple)):
        return [plain_value(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def changed_settings(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """List the changed settings that affect results, by dotted name with both values.

    >>> changed_settings({"epochs": 50, "weights": {"lr": 0.1}}, {"epochs": 60, "seed": 1})
    ['epochs = 60 (was 50)', 'weights.lr = not set (was 0.1)', 'seed = 1 (was not set)']
    """
    return [
        f"{name} = {now} (was {before})"
        for name, before, now in differing(stored, given)
        if name.rpartition(".")[2] not in ELSEWHERE
    ]


def differing(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """List the settings that differ, by dotted name with both values."""
    before, now = dict(_dotted(plain_value(stored))), dict(_dotted(plain_value(given)))
    before, now = {**ADDED, **before}, {**ADDED, **now}
    return [
        (name, before.get(name, "not set"), now.get(name, "not set"))
        for name in before | now
        if before.get(name) != now.get(name)
    ]


def _dotted(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
