"""A run in MLflow: on a server, or in a database on disk."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, final

from tutelage.trackers import Outcome, Place, Subject

EXPERIMENT: Final = "tutelage"
"""The experiment, unless MLFLOW_EXPERIMENT_NAME names one."""
LONGEST: Final = 500
"""Characters of a parameter's value that every release of MLflow stores."""
AT_ONCE: Final = 100
"""Parameters, or metrics, that a request may hold."""
PATIENCE: Final = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""How long a server that does not answer is waited for, unless the user's environment says so."""
STATES: Final[Mapping[Outcome, str]] = {
    "finished": "FINISHED",
    "stopped": "KILLED",
    "failed": "FAILED",
}


@final
class MlflowRun:
    """A run of MLflow, which a later session goes on with."""

    def __init__(self, subject: Subject, place: Place) -> None:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        import mlflow
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        where = mlflow.get_tracking_uri()
        self._client = MlflowClient(where)
        self._subject = subject
        if place.id and place.where == where:
            self._id = place.id
            self._client.update_run(self._id, status="RUNNING")
            return
        run = self._client.create_run(self._experiment(), run_name=subject.name)
        self._id = run.info.run_id
        place.id, place.where, place.rows, place.finished = self._id, where, 0, False
        for pairs in _batches(subject.settings):
            texts = [Param(name, str(value)[:LONGEST]) for name, value in pairs]
            self._client.log_batch(self._id, params=texts)
        self._client.log_artifact(self._id, str(subject.path / "run.toml"))

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        known = self._client.get_experiment_by_name(name)
        return known.experiment_id if known else self._client.create_experiment(name)

    def row(self, step: int, figures: Mapping[str, float]) -> None:
        """Log metrics."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        for pairs in _batches(figures):
            metrics = [Metric(name, value, now, step) for name, value in pairs]
            self._client.log_batch(self._id, metrics=metrics)

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Log a file `STEP.png` in a folder of the picture's name."""
        with TemporaryDirectory() as folder:
            file = Path(folder) / f"{step:07}.png"
            file.write_bytes(png)
            self._client.log_artifact(self._id, str(file), name)

    def end(self, step: int, figures: Mapping[str, float], outcome: Outcome) -> None:
        """Log the final figures and the genotype, and end the run."""
        self.row(step, figures)
        genotype = self._subject.path / "genotype.json"
        if figures and genotype.is_file():
            self._client.log_artifact(self._id, str(genotype))
        self._client.set_terminated(self._id, STATES[outcome])


def _batches(named: Mapping[str, Any]) -> list[list[tuple[str, Any]]]:
    pairs = list(named.items())
    return [pairs[k : k + AT_ONCE] for k in range(0, len(pairs), AT_ONCE)]
