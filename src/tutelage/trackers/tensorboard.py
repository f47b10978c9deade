"""A run as TensorBoard's events: scalars, images of cells, hyper-parameters."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, final

from tutelage.trackers import Outcome, Place, Subject

FOLDER: Final = "tensorboard"


@final
class Events:
    """An event file in the run's folder `tensorboard`, written anew by every session.

    The file of an earlier session is removed, so that no step stands twice.
    """

    def __init__(self, subject: Subject, place: Place) -> None:
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = subject.path / FOLDER
        for earlier in folder.glob("events.out.tfevents.*"):
            earlier.unlink()
        place.where = str(folder)
        self._writer = EventFileWriter(str(folder))
        self._add(0, hparams_pb(dict(subject.settings), trial_id=subject.name))

    def row(self, step: int, figures: Mapping[str, float]) -> None:
        """Write scalars."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=x) for name, x in figures.items()]
        self._add(step, Summary(value=values))

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Write an image."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
        image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
        self._add(step, Summary(value=[Summary.Value(tag=name, image=image)]))

    def end(self, step: int, figures: Mapping[str, float], outcome: Outcome) -> None:
        """Write the final figures as scalars, and close the file."""
        self.row(step, figures)
        self._writer.close()

    def _add(self, step: int, summary: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()
