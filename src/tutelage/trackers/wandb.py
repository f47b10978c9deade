"""A run in Weights & Biases, on its server or offline."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Final, final
from uuid import uuid4

from tutelage.trackers import Outcome, Place, Subject

PROJECT: Final = "tutelage"
"""The project, unless WANDB_PROJECT names one."""
PATIENCE: Final = 30.0
"""Seconds to wait for the server when a run begins."""
CODES: Final[Mapping[Outcome, int]] = {"finished": 0, "stopped": 130, "failed": 1}


@final
class WandbRun:
    """A run of W&B, which a later session resumes by its identity.

    Offline (WANDB_MODE=offline, or without a key), every session writes a folder of its own with
    all rows from the first: `wandb sync` of the last one is enough.
    """

    def __init__(self, subject: Subject, place: Place) -> None:
        import wandb

        mode = os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")
        where = f"{os.environ.get('WANDB_PROJECT') or PROJECT} ({mode})"
        if mode != "online" or place.where != where:
            place.rows, place.finished = 0, False
        place.id, place.where = place.id or uuid4().hex[:12], where
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            dir=str(subject.path),
            id=place.id,
            name=subject.name,
            config=dict(subject.settings),
            mode=mode,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", init_timeout=PATIENCE),
        )

    def row(self, step: int, figures: Mapping[str, float]) -> None:
        """Log figures; rows of the same step are one for W&B."""
        self._run.log(dict(figures), step=step)

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Log an image."""
        import wandb
        from PIL import Image

        with Image.open(io.BytesIO(png)) as image:
            self._run.log({name: wandb.Image(image.convert("RGB"))}, step=step)

    def end(self, step: int, figures: Mapping[str, float], outcome: Outcome) -> None:
        """Keep the final figures in the summary, and finish the run."""
        self._run.summary.update(dict(figures))
        self._run.finish(exit_code=CODES[outcome])
