"""The images for weights and those for alphas: a seeded permutation, stored."""

import hashlib
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tutelage.data import DataError
from tutelage.data.seeding import generator
from tutelage.files import write_bytes
from tutelage.formats import LARGEST


def split(count: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Divide range(count) by a seeded permutation into training and validation indices, int64.

    Raises:
        DataError: a part would hold fewer than two images, too few for a batch.
    """
    cut = round(count * fraction)
    if min(cut, count - cut) < 2:
        raise DataError(
            f"train_fraction = {fraction} divides {count} images into {cut} and {count - cut}: "
            "each part needs at least 2"
        )
    order = torch.from_numpy(generator(seed, "split").permutation(count))
    return order[:cut], order[cut:]


def stratified(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Divide every class by `split`'s permutation; return training and validation indices, int64.

    A class of two images or more is in both parts; that of a single one trains.

    Args:
        labels: The class of every image, int64 (N,).
        fraction: The share of the training part.
        seed: Of the permutation.

    Raises:
        DataError: As `split`, of all images.
    """
    order = torch.cat(split(len(labels), fraction, seed))
    trains = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        own = order[labels[order] == label]
        trains[own[: max(1, min(round(len(own) * fraction), len(own) - 1))]] = True
    train, valid = order[trains[order]], order[~trains[order]]
    if min(len(train), len(valid)) < 2:
        raise DataError(
            f"train_fraction = {fraction} of every class divides {len(labels)} images into "
            f"{len(train)} and {len(valid)}: each part needs at least 2"
        )
    return train, valid


def remarks(
    labels: Tensor, classes: Sequence[str], halves: tuple[Tensor, Tensor], batch_size: int
) -> list[str]:
    """Say which half of a search lacks a class, and which is smaller than a batch.

    Args:
        labels: The class of every image, int64 (N,).
        classes: Names of the classes.
        halves: The images for weights and those for alphas.
        batch_size: Images in a batch.
    """
    found = []
    for half, index in zip(("training", "validation"), halves, strict=True):
        counts = np.bincount(labels[index].numpy(), minlength=len(classes))
        if lacking := [name for name, count in zip(classes, counts, strict=True) if not count]:
            others = f" and {len(lacking) - 3} others" if len(lacking) > 3 else ""
            found.append(
                f"the {half} half has no image of {', '.join(lacking[:3])}{others}: these classes "
                "have few images; --data.stratified divides each class of two or more"
            )
        if batch_size > len(index):
            found.append(larger(batch_size, len(index), f"{half} half"))
    return found


def larger(batch_size: int, images: int, part: str) -> str:
    """Say that a batch would have more images than there are."""
    return (
        f"batch_size = {batch_size} is more than the {images} images of the {part}: its batches "
        f"have {images}"
    )


def save_split(path: Path, train: Tensor, valid: Tensor) -> None:
    """Write a split to an .npz file, completely or not at all.

    Raises:
        ValueError: The disk is full.
    """
    content = io.BytesIO()
    np.savez(content, train=train.numpy(), valid=valid.numpy())
    write_bytes(path, content.getvalue())


def load_split(path: Path, count: int) -> tuple[Tensor, Tensor]:
    """Read the split of a training set of `count` images.

    Raises:
        DataError: the file is missing or not a split, or divides another number of images.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            train, valid = (_indices(archive, name) for name in ("train", "valid"))
    except Exception as error:  # for broken bytes zipfile and numpy raise almost any error
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"{path} is not a stored split: {reason}; without it nobody can tell which images "
            "train weights: restore it, or start the search again with another --out"
        ) from error
    together = np.sort(np.concatenate([train, valid]))
    if not np.array_equal(together, np.arange(count)):
        raise DataError(
            f"{path} divides {len(together):,} images, but the training set has {count:,} now"
        )
    return torch.from_numpy(train), torch.from_numpy(valid)


def _indices(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read whole numbers, int64 (N,)."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.file_size > LARGEST:
        raise ValueError(f"{name} has {entry.file_size:,} bytes: at most {LARGEST:,}")
    with archive.open(entry) as file:
        found = np.lib.format.read_array(file, allow_pickle=False)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise ValueError(f"{name} holds {found.dtype} of shape {found.shape}: must be numbers")
    return found.astype(np.int64)


def held_out(names: Sequence[str], share: float) -> list[bool]:
    """Choose a share of the names, at least one: those whose digests come first.

    So a file keeps its part when others are added or removed, except a few at the border.
    """
    ranked = sorted(names, key=lambda name: hashlib.blake2b(name.encode()).digest())
    chosen = set(ranked[: max(1, round(share * len(names)))])
    return [name in chosen for name in names]
