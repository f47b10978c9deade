"""Refuse to resume a run whose images have changed, and keep what it read in data.json."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from tutelage.data import DataError
from tutelage.data.changes import Digests, changes, digests_of, fixed_changes
from tutelage.data.digests import Numbers
from tutelage.data.images import Labelled
from tutelage.records.inputs import Accepted, Inputs, Part
from tutelage.records.typed import NewerError
from tutelage.run.job.directory import RunDirectory

FILE: Final = "data.json"


class Comparison:
    """Compares the images of a run with those that it began with.

    A run that began before there was a data.json is not compared, nor is a part that it lacks.
    """

    def __init__(self, out: Path, *, resume: bool, accept: bool = False) -> None:
        """Read data.json.

        Args:
            out: The run directory.
            resume: Whether it is an earlier run.
            accept: Go on with changed images, if their number, classes and channels allow it.
        """
        self.out, self.accept = out, accept
        self.stored = _stored(out) if resume else Inputs()
        self.parts, self.accepted = dict(self.stored.parts), list(self.stored.accepted)

    def add(self, use: str, part: Labelled) -> None:
        """Compare a part, by its use: train, unlabelled or validation.

        Raises:
            DataError: The images have changed; the message says which.
        """
        now, names = digests_of(part)
        self.parts[use] = _written(now)
        if use not in self.stored.parts:
            return
        before = _digests(self.stored.parts[use])
        found = changes(before, now, names)
        if not found:
            return
        other = f"other images{'' if use == 'train' else f' ({use})'}: {'; '.join(found)}"
        if fixed_changes(before, now):
            raise DataError(
                f"{self.out} was begun with {other}; its networks and epochs are made for the "
                "earlier ones: restore them, or give another --out"
            )
        if not self.accept:
            raise DataError(
                f"{self.out} was begun with {other}; restore them, give another --out, or go on "
                "with --accept-changed-data"
            )
        print(f"accepted, {self.out} was begun with {other}", flush=True)
        when = datetime.now(UTC).isoformat(timespec="seconds")
        self.accepted.append(Accepted(when, use, found))

    def save(self, directory: RunDirectory) -> None:
        """Write data.json."""
        directory.write_json(FILE, Inputs(self.parts, self.accepted).as_file())


def _stored(out: Path) -> Inputs:
    """Read data.json, which an older run lacks; say so if it is damaged."""
    if not (out / FILE).exists():
        return Inputs()
    try:
        stored = Inputs.read(RunDirectory.open(out).read_json(FILE))
        for part in stored.parts.values():
            _digests(part)
    except NewerError:
        raise
    except ValueError as error:
        print(
            f"{out / FILE} cannot be read ({error}): the images are not compared with those that "
            "the run began with, and the file is written again",
            flush=True,
        )
        return Inputs()
    return stored


def _written(part: Digests) -> Part:
    return Part(
        name=part.name,
        images=len(part.contents),
        shape=part.shape,
        classes=list(part.classes),
        by=part.by,
        names=_text(part.names),
        contents=_text(part.contents),
        labels=_text(part.labels),
    )


def _digests(part: Part) -> Digests:
    """Read the digests of a part.

    Raises:
        ValueError: They are not as many numbers as images, or not those of its classes.
    """
    names, contents, labels = map(_numbers, (part.names, part.contents, part.labels))
    if not len(contents) == len(labels) == part.images or len(names) not in (0, part.images):
        raise ValueError(f"it has not one digest for each of {part.images} images")
    if labels.size and labels.max() >= max(1, len(part.classes)):
        raise ValueError(f"it has {len(part.classes)} classes and a label {labels.max()}")
    return Digests(part.name, part.shape, tuple(part.classes), part.by, names, contents, labels)


def _text(numbers: Numbers) -> str:
    return base64.b64encode(numbers.astype("<u4").tobytes()).decode()


def _numbers(text: str) -> Numbers:
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), "<u4").astype(np.uint32)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
