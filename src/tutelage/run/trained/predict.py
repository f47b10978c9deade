"""Classes of new images, by a trained network and with the preprocessing of its test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import torch
from torch import Tensor

from tutelage.checks import at_least
from tutelage.config import Data
from tutelage.cpus import decoders
from tutelage.data import DataError
from tutelage.data.augment import normalise
from tutelage.data.device import Parcel, onto
from tutelage.data.folder import on_disk
from tutelage.data.images import Listing, OnDisk
from tutelage.data.listing import files_below
from tutelage.data.pictures import SUFFIXES
from tutelage.run.networks.files import read_by
from tutelage.run.trained.opened import Trained, open_trained

BATCH: Final = 64


@final
@dataclass(frozen=True)
class Prediction:
    """What a network says of an image."""

    path: str
    classes: tuple[str, ...] = ()
    """The most probable classes, the first one first; empty if the image could not be read."""
    probabilities: tuple[float, ...] = ()
    """Their probabilities."""
    error: str = ""
    """Why it could not be read, in a sentence; empty if it was."""


class Read(NamedTuple):
    """An image that was read, uint8 (C, H, W), or why it was not."""

    pixels: Tensor | None
    error: str


@final
class Predictor:
    """A trained network that is opened once, and asked for files of images.

    Attributes:
        trained: The network, its classes and its preprocessing.
    """

    def __init__(self, path: Path | str, device: str = "auto") -> None:
        """Open a network.

        Args:
            path: A retraining's directory, a run's, an exported folder, the network's file, or
                hf-hub:OWNER/NAME.
            device: cpu, cuda, or auto for CUDA where there is one.

        Raises:
            ValueError: There is no such network or device.
        """
        self.trained = open_trained(path, device)

    def __call__(
        self, paths: Iterable[Path | str], top: int = 1, batch_size: int = BATCH
    ) -> Iterator[Prediction]:
        """Yield a prediction for every image, in order.

        An image is converted to the network's channels, resized and cropped at its centre as in the
        test. One that cannot be read has an `error` and no classes.

        Args:
            paths: Files, and folders, of which all images are taken.
            top: How many classes of each image.
            batch_size: Images that run together.

        Raises:
            ValueError: `top` or `batch_size` is below 1.
        """
        at_least(1, top=top, batch_size=batch_size)
        files = [file for path in paths for file in files_of(Path(path))]
        images = reader([file.path for file in files], self.trained)

        def read(place: int) -> Read:
            if files[place].error:
                return Read(None, files[place].error)
            try:
                return Read(images.take(torch.tensor([place]))[0], "")
            except DataError as error:
                return Read(None, str(error))

        batches = [
            range(len(files))[at : at + batch_size] for at in range(0, len(files), batch_size)
        ]
        with ThreadPoolExecutor(decoders()) as pool:
            reading = [pool.map(read, batch) for batch in batches[:1]]
            for batch, following in zip(batches, (*batches[1:], ()), strict=True):
                reading.append(pool.map(read, following))  # while the network runs
                own = [files[place].path for place in batch]
                yield from self._named(own, list(reading.pop(0)), top)

    def _named(
        self, paths: Sequence[str], images: Sequence[Read], top: int
    ) -> Iterator[Prediction]:
        pixels = [each.pixels for each in images if each.pixels is not None]
        found = iter(self.probabilities(torch.stack(pixels)) if pixels else ())
        names = self.trained.details.classes
        for path, image in zip(paths, images, strict=True):
            if image.pixels is None:
                yield Prediction(path, error=image.error)
                continue
            best = next(found).topk(min(top, len(names)))
            classes = tuple(names[label] for label in best.indices.tolist())
            yield Prediction(path, classes, tuple(best.values.tolist()))

    @torch.no_grad()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """Map images, uint8 (B, C, H, W) in the network's shape, to probabilities (B, classes)."""
        details, device, parcel = self.trained.details, self.trained.device, Parcel()
        change = normalise(details.shape[2], details.mean, details.std, parcel)
        parcel.send(device)
        return self.trained.network(change(onto(pixels, device))).softmax(1).cpu()


def reader(paths: Sequence[Any], trained: Trained) -> OnDisk:
    """Return what reads files in a network's shape, as its test images were read."""
    details = trained.details
    files = Listing(paths, torch.full((len(paths),), -1), ())
    return on_disk(files, details.shape, Data(**read_by(details)))


def files_of(path: Path) -> Iterator[Prediction]:
    """Yield the images of a path, without classes yet."""
    if path.is_dir():
        files, _ = files_below(path)
        if not files:
            yield Prediction(str(path), error=f"{path} holds no images ({', '.join(SUFFIXES)})")
        yield from map(Prediction, files)
    elif not path.exists():
        yield Prediction(str(path), error=f"{path} does not exist")
    else:
        yield Prediction(str(path))
