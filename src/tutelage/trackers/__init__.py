"""Trackers: the rows of metrics.jsonl for TensorBoard, CSV, Weights & Biases and MLflow.

A run writes its directory and knows no tracker. A `Feed` reads the directory, while the run works
(`following`) or after its end (`feed`), and hands figures, pictures of cells, settings and final
figures to a tracker. Nothing here imports torch, nor a tracker's package before it is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from tutelage.checks import nearest

Outcome = Literal["finished", "stopped", "failed"]
"""How a session of a run ends; a stopped one can be resumed."""


@dataclass
class Place:
    """Where a tracker has a run; it is kept in the run's directory, so that nothing is sent twice.

    Only a tracker that cannot be written again from the start needs one.
    """

    id: str = ""
    """The run's identity in the tracker; empty: it has none yet."""
    where: str = ""
    """The tracker's server, store or project."""
    rows: int = 0
    """Rows that have been sent."""
    sent: dict[str, int] = field(default_factory=dict)
    """The same by folder: "" of the run's own file, ranking and evolution."""
    finished: bool = False
    """Whether the final figures have been sent."""


class Subject(NamedTuple):
    """The run that is tracked."""

    path: Path
    name: str
    settings: Mapping[str, bool | int | float | str]
    """The content of run.toml by dotted names."""


class Tracker(Protocol):
    """One run in a tracker. Steps never fall; several rows may have the same step."""

    def row(self, step: int, figures: Mapping[str, float]) -> None:
        """Take the figures of a row, by names such as `epoch/learner-0/valid_loss`."""

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Take a picture of cells."""

    def end(self, step: int, figures: Mapping[str, float], outcome: Outcome) -> None:
        """Take the final figures, of which an unfinished run has none, and close."""


class Kind(NamedTuple):
    """A kind of tracker."""

    target: str
    """The function that opens one for a `Subject` and a `Place`, as module:name."""
    package: str
    """The package that it needs."""
    extra: str
    """The extra that installs the package; empty: Python has it."""


TRACKERS: Mapping[str, Kind] = {
    "tensorboard": Kind("tutelage.trackers.tensorboard:Events", "tensorboard", "tensorboard"),
    "csv": Kind("tutelage.trackers.table:Table", "csv", ""),
    "wandb": Kind("tutelage.trackers.wandb:WandbRun", "wandb", "wandb"),
    "mlflow": Kind("tutelage.trackers.mlflow:MlflowRun", "mlflow", "mlflow"),
}
"""Every tracker's name on the command line."""


def available(names: Iterable[str]) -> None:
    """Refuse trackers that are unknown or not installed, before anything is done.

    Raises:
        ValueError: There is no such tracker, or its package is missing.
    """
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"unknown tracker {name!r}: {nearest(name, TRACKERS)}")
        kind = TRACKERS[name]
        found = find_spec(kind.package)
        if found is None or found.origin is None:  # a folder of this name is no package
            raise ValueError(f"{name} needs an extra: pip install 'tutelage[{kind.extra}]'")


def open_tracker(name: str, subject: Subject, place: Place) -> Tracker:
    """Open a tracker for a run, which may change the place."""
    module, _, attribute = TRACKERS[name].target.partition(":")
    make: Any = getattr(import_module(module), attribute)
    tracker: Tracker = make(subject, place)
    return tracker
