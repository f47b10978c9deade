"""Images that Python holds: arrays, or the items of a map-style dataset, as Pillow's images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from threading import Lock
from typing import Any, Final, NamedTuple, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tutelage.data import DataError
from tutelage.data.digests import ITEMS, Stat
from tutelage.data.images import Listing, Source

KEYS: Final = (("image", "img", "pixel_values"), ("label", "labels", "fine_label", "target"))
"""Keys of the image and of the label in an item that is a mapping."""


class Known(NamedTuple):
    """What one pass over all items finds."""

    labels: list[int | str | None]
    digests: list[int]


@final
@dataclass(frozen=True, eq=False)
class Items:
    """One part of what Python gives."""

    part: str
    """Its name, for messages."""
    count: int
    item: Callable[[int], tuple[Any, Any]]
    """Returns an image and its label, None if it has none; called by one thread at a time."""
    classes: tuple[str, ...] = ()
    """Names that it knows for its labels; empty: it knows none."""
    _lock: Any = field(default_factory=Lock, init=False, repr=False)
    _known: list[Known] = field(default_factory=list, init=False, repr=False)

    def known(self) -> Known:
        """Return all labels, and digests of the images' pixels, by one pass that is kept.

        Raises:
            DataError: An item is no image, or a label no number and no text.
        """
        if not self._known:
            labels, digests = [], []
            for number in range(self.count):
                image, label = self.read(number)
                contents = repr((image.mode, image.size)).encode() + image.tobytes()
                digests.append(int.from_bytes(blake2b(contents, digest_size=8).digest(), "little"))
                labels.append(label)
            self._known.append(Known(labels, digests))
        return self._known[0]

    def listing(self, labels: Tensor, classes: tuple[str, ...]) -> Listing:
        """List all images."""
        return Listing([Item(self, k) for k in range(self.count)], labels, classes, SOURCE)

    def read(self, number: int) -> tuple[Image.Image, int | str | None]:
        """Return an image and its label.

        Raises:
            DataError: As `known`.
        """
        with self._lock:
            image, label = self.item(number)
            where = f"{self.part}/{number}"
            return picture(image, where), plain_label(label, where)


class Item(NamedTuple):
    """An image among those that Python gives."""

    items: Items
    number: int

    def __str__(self) -> str:
        return f"{self.items.part}/{self.number}"


def stats(items: Sequence[Item]) -> list[Stat]:
    """Describe items by the digests of their pixels."""
    return [Stat(str(item), 0, item.items.known().digests[item.number]) for item in items]


SOURCE: Final = Source("", lambda item: item.items.read(item.number)[0], stats, ITEMS)
"""How such images are opened and described."""


def items_of(given: Any, part: str, labelled: bool = True) -> Items:
    """Return the items of arrays or of a dataset.

    Args:
        given: (images, labels), a map-style dataset, or, if it is not labelled, images alone.
        part: Which part it is, for messages.
        labelled: Whether labels are needed.

    Raises:
        DataError: It is neither, or has no images.
    """
    if not labelled and _array(given) is not None:
        given = given, [None] * len(given)
    if isinstance(given, tuple) and len(given) == 2:
        found = _of_arrays(*given, part)
    elif _array(given) is not None or isinstance(given, (str, Mapping)):
        raise DataError(f"{part}: {_kind(given)} has no labels; give (images, labels) or a dataset")
    else:
        found = _of_dataset(given, part)
    if not found.count:
        raise DataError(f"{part}: there are no images")
    return found


def _of_arrays(images: Any, labels: Any, part: str) -> Items:
    pixels = _array(images)
    if pixels is None or pixels.ndim not in (3, 4):
        shape = "" if pixels is None else f" of shape {pixels.shape}"
        raise DataError(
            f"{part}: the images are {_kind(images)}{shape}: must be an array (N, C, H, W), "
            "(N, H, W, C) or (N, H, W)"
        )
    marks = labels.tolist() if isinstance(labels, (np.ndarray, Tensor)) else labels
    if not isinstance(marks, Sequence) or isinstance(marks, str):
        raise DataError(f"{part}: the labels are {_kind(labels)}: must be a list or an array (N,)")
    if len(marks) != len(pixels):
        raise DataError(f"{part}: {len(pixels):,} images have {len(marks):,} labels")
    last = channels_last(pixels.shape[1:], part) if pixels.ndim == 4 else True
    placed = pixels if last else pixels.transpose(0, 2, 3, 1)
    return Items(part, len(pixels), lambda number: (placed[number], marks[number]))


def _of_dataset(dataset: Any, part: str) -> Items:
    try:
        count, get = len(dataset), dataset.__getitem__
    except (TypeError, AttributeError, NotImplementedError):
        raise DataError(
            f"{part}: {_kind(dataset)} is no map-style dataset, with a length and items by number, "
            "which batches in any order need; give one, or arrays (images, labels)"
        ) from None
    return Items(
        part, count, lambda number: _pair(get(number), f"{part}/{number}"), _names(dataset)
    )


def _names(dataset: Any) -> tuple[str, ...]:
    """Return the names of classes that torchvision's or Hugging Face's data sets have; or none."""
    names, features = (getattr(dataset, name, None) for name in ("classes", "features"))
    if names is None and isinstance(features, Mapping):
        label = next((features[key] for key in KEYS[1] if key in features), None)
        names = getattr(label, "names", None)
    return tuple(map(str, names)) if isinstance(names, (list, tuple)) else ()


def _pair(item: Any, where: str) -> tuple[Any, Any]:
    """Return the image and the label of an item; None for no label."""
    if isinstance(item, Mapping):
        image, label = (next((item[key] for key in own if key in item), None) for own in KEYS)
        if image is None:
            raise DataError(f"{where} has the keys {', '.join(map(str, item))}, and needs image")
        return image, label
    if isinstance(item, (tuple, list)):
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def picture(image: Any, where: str) -> Image.Image:
    """Return an item's image as Pillow's.

    Raises:
        DataError: It is none, or its numbers are not bytes.
    """
    if isinstance(image, Image.Image):
        image.load()
        return image.copy()
    pixels = _array(image)
    if pixels is None or pixels.ndim not in (2, 3):
        raise DataError(f"{where} is {_kind(image)}: must be one of Pillow's images or an array")
    if pixels.dtype != np.uint8:
        raise DataError(
            f"{where} is {pixels.dtype}: must be uint8, from 0 to 255, without ToTensor or "
            "normalisation, which Tutelage does itself"
        )
    if pixels.ndim == 3 and not channels_last(pixels.shape, where):
        pixels = pixels.transpose(1, 2, 0)
    flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    return Image.fromarray(np.ascontiguousarray(flat))


def channels_last(shape: Sequence[int], where: str) -> bool:
    """Tell whether an image's shape is (H, W, C) and not (C, H, W).

    Raises:
        DataError: It is neither.
    """
    first, last = shape[0] in (1, 3, 4), shape[2] in (1, 3, 4)
    if first == last:
        reason = "may be (C, H, W) or (H, W, C)" if first else "has no 1, 3 or 4 channels"
        raise DataError(f"{where}: an image of shape {tuple(shape)} {reason}")
    return last


def plain_label(label: Any, where: str) -> int | str | None:
    """Return a label as a number or a text; None: there is none.

    Raises:
        DataError: It is of another kind.
    """
    numbers = _array(label)
    if isinstance(label, np.generic) or (numbers is not None and numbers.size == 1):
        label = label.item()
    if label is None or isinstance(label, (int, str)):
        return label
    raise DataError(f"{where} has a label {label!r}: must be a whole number or a text")


def _array(given: Any) -> Any:
    """Return an array or a tensor as an array; None: it is neither."""
    if isinstance(given, Tensor):
        return given.detach().cpu().numpy()
    return given if isinstance(given, np.ndarray) else None


def _kind(given: Any) -> str:
    return f"a {type(given).__name__}"


def numbers_of(known: Sequence[int | str | None], classes: Sequence[str], part: str) -> Tensor:
    """Return labels as numbers of classes, int64 (N,).

    Raises:
        DataError: A label is missing, or of no class.
    """
    places = {name: place for place, name in enumerate(classes)}
    found = []
    for number, label in enumerate(known):
        place = places.get(label, -1) if isinstance(label, str) else label
        if place is None or not 0 <= place < len(classes):
            raise DataError(
                f"{part}/{number} has label {label!r}: must be "
                f"{_listed(classes) if isinstance(label, str) else f'0 to {len(classes) - 1}'}"
            )
        found.append(int(place))
    return torch.tensor(found)


def _listed(classes: Sequence[str]) -> str:
    return f"one of {', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''}"


def names_for(known: Sequence[int | str | None]) -> Iterator[str]:
    """Yield names of classes: the texts among the labels, sorted, or the numbers.

    Raises:
        DataError: A number below the largest one is no image's label.
    """
    texts = sorted({label for label in known if isinstance(label, str)})
    if texts:
        yield from texts
        return
    numbers = {label for label in known if isinstance(label, int) and label >= 0}
    gap = next((number for number in range(len(numbers)) if number not in numbers), None)
    if gap is not None and None not in known:  # that one is refused by its place
        raise DataError(
            f"the labels are {len(numbers)} numbers up to {max(numbers)}, and no image has {gap}: "
            "number the classes from 0 without gaps, or give classes, the names by number"
        )
    yield from map(str, range(len(numbers)))
