"""The labelled images on which a trained network is tested, and what it says of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from tutelage.classification import as_dict, by_class, calibration, confused
from tutelage.config import Data
from tutelage.data import DataError
from tutelage.data.collection import COLLECTIONS, Collection, collection_of, listing
from tutelage.data.folder import describe, on_disk, test_files
from tutelage.data.images import InMemory, Labelled, Listing
from tutelage.data.read import known, named, place_of, read
from tutelage.run.machine.device import arithmetic
from tutelage.run.networks.files import read_by
from tutelage.run.trained.measure import Measured, measured
from tutelage.run.trained.opened import Trained

PAIRS: Final = 5
"""Confusions that are printed."""


def names_of(data: Data) -> list[str]:
    """Name the images of the test set below its folder, in order; none if they are not listed."""
    data = named(data)
    if data.name not in COLLECTIONS:
        return []
    own = collection_of(data)
    files = test_files(own, listing(own, "train"), data)
    return [str(path).replace(f"{files.source.root}/", "", 1) for path in files.paths]


@dataclass(frozen=True, eq=False)
class Tested:
    """What a trained network says of labelled images."""

    data: Labelled
    """Labels count the network's classes."""
    found: Measured

    def as_dict(self) -> dict[str, Any]:
        """Return the figures, for JSON."""
        labels, predicted = self.data.images.labels.numpy(), self.found.predicted.numpy()
        entries = self.found.entries()
        error = calibration(self.found.confidence.numpy(), labels == predicted).error
        return {
            "data": self.data.name,
            "images": entries["test_images"],
            "accuracy": entries["test_accuracy"],
            "loss": entries["test_loss"],
            "calibration_error": error,
            "classes": list(self.data.classes),
            **as_dict(self.data.classes, labels, predicted),
        }

    def as_text(self) -> str:
        """Return a sentence, a table of the classes, and the most frequent confusions."""
        figures, classes = self.as_dict(), self.data.classes
        table = np.array(figures["confusion"])
        scores = by_class(table)
        width = max(len("class"), *map(len, classes))
        lines = [
            f"accuracy {100 * figures['accuracy']:.2f} % of {figures['images']:,} images, loss "
            f"{figures['loss']:.4f}, calibration error "
            f"{100 * figures['calibration_error']:.2f} percentage points",
            f"{'class':{width}}  images  precision  recall     F1",
        ]
        for place, name in enumerate(classes):
            precision, recall, f1 = (_share(float(each[place])) for each in scores[:3])
            lines.append(
                f"{name:{width}}  {scores.images[place]:6}  {precision:>9}  {recall:>6}  {f1:>5}"
            )
        lines += [
            f"{count} of {classes[true]} taken for {classes[taken]}"
            for true, taken, count in confused(table, PAIRS)
        ]
        return "\n".join(lines)


def _share(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.1f}"


def measured_on(
    trained: Trained, data: Data | None = None, batch_size: int = 64, root: Path | None = None
) -> Tested:
    """Test a network on labelled images, in fp32.

    Args:
        trained: The network.
        data: The images: the test part of a set, or all images of a folder ROOT/CLASS that is not
            the one it was trained on. None: the test images of its own set.
        batch_size: Images that run together.
        root: Where the folder of its own set is now; None: where it was.

    Raises:
        ValueError: There are no such images, or they have other classes or, of a set that is not
            resized, another shape.
    """
    own = trained.data and replace(trained.data, root=root or trained.data.root)
    chosen = data or own
    if chosen is None:
        raise ValueError(
            f"{trained.folder} has no run.toml, which would name its test images: give --data"
        )
    labelled = images_for(trained, named(chosen), own=data is None)
    with arithmetic("fp32"):
        found = measured(trained.network, labelled, batch_size, trained.device)
    return Tested(labelled, found)


def asked(trained: Trained, name: str | None, root: Path | None) -> Data | None:
    """Return the images that are asked for by name and folder; None: the network's own."""
    if name is None:
        return None
    own = trained.data.root if trained.data and known(name) else None
    return Data(name=name, root=root or own)


def images_for(trained: Trained, data: Data, own: bool = False) -> Labelled:
    """Read images to test on, in a network's shape, normalisation and order of classes.

    Args:
        trained: The network.
        data: The images.
        own: Whether they are of the set that it was trained on, wherever that is now.
    """
    details = trained.details
    if data.name in COLLECTIONS:
        found = collection_of(data)
        own = own or (data.root is not None and _is_own(trained, data.root))
        files = _files(found, data, own)
        shown = Data(**read_by(details))
        files = _relabelled(files, details.classes, str(data.root or found.name))
        images: Any = on_disk(files, details.shape, shown)
        name = found.name
    else:
        tested = read(data, "test")
        images, name = tested.images, tested.name
        if images.shape != details.shape:
            raise DataError(
                f"the images of {name} are {describe(images.shape)}, and the network takes "
                f"{describe(details.shape)}; only a folder's images are resized"
            )
        files = Listing((), images.labels, tested.classes)
        labels = _relabelled(files, details.classes, name).labels
        images = InMemory(images.take(torch.arange(len(images))), labels)
    return Labelled(name, images, details.classes, details.mean, details.std, 0, False)


def _is_own(trained: Trained, root: Path) -> bool:
    """Tell whether a network was trained on images of a folder."""
    own = trained.data or Data()
    place = own.root if known(own.name) else place_of(own)
    return place is not None and place.resolve() == root.resolve()


def _files(images: Collection, data: Data, own: bool) -> Listing:
    """List the files to test on: a test part, or of what has no parts all of another one."""
    if own and data.held_out:
        return test_files(images, listing(images, "train"), data)
    return listing(images, "test") if own or images.divided else images.whole()


def _relabelled(files: Listing, classes: tuple[str, ...], name: str) -> Listing:
    """Count the labels by a network's classes, which are matched by name.

    Raises:
        DataError: The names differ.
    """
    more = sorted(set(files.classes) - set(classes))
    fewer = sorted(set(classes) - set(files.classes))
    if more or fewer:
        parts = [
            f"{verb} {', '.join(each[:5])}{f' and {len(each) - 5} more' if len(each) > 5 else ''}"
            for verb, each in (("it has", more), ("it lacks", fewer))
            if each
        ]
        raise DataError(f"{name} has other classes than the network: {', '.join(parts)}")
    places = torch.tensor([classes.index(each) for each in files.classes])
    return files._replace(labels=places[files.labels], classes=classes)
