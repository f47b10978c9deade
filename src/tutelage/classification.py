"""How good the predictions of a classifier are. Needs numpy alone."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

BINS: Final = 15
"""Bins of the calibration, as in Guo et al."""


class ByClass(NamedTuple):
    """Scores of every class, (C,); NaN where one is not defined."""

    precision: Floats
    """Share of the images taken for the class that are of it."""
    recall: Floats
    """Share of the class' images that are taken for it."""
    f1: Floats
    """Harmonic mean of the two."""
    images: Integers
    """Images of the class."""


class Calibration(NamedTuple):
    """Accuracy by confidence, in bins (B,) of equal width; NaN in a bin without images."""

    error: float
    """Expected calibration error: mean distance of accuracy and confidence, by images."""
    images: Integers
    """Images of every bin."""
    confidence: Floats
    """Mean probability of the predicted class."""
    accuracy: Floats


def confusion(labels: npt.ArrayLike, predicted: npt.ArrayLike, classes: int) -> Integers:
    """Count images by their class (row) and the predicted one (column), (C, C).

    >>> confusion([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (np.asarray(labels), np.asarray(predicted)), 1)
    return table


def by_class(table: Integers) -> ByClass:
    """Return the scores of every class of a confusion matrix (C, C)."""
    right = table.diagonal()
    images, taken = table.sum(1), table.sum(0)
    return ByClass(
        precision=_share(right, taken),
        recall=_share(right, images),
        f1=_share(2 * right, images + taken),
        images=images,
    )


def _share(part: Integers, whole: Integers) -> Floats:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def calibration(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = BINS) -> Calibration:
    """Compare confidence with accuracy (Guo et al.: On calibration of modern networks, ICML 2017).

    Bin b of B has the confidences above b/B and up to (b + 1)/B. The expected calibration error is
    the sum over bins of n_b/N times the distance of the bin's mean accuracy and mean confidence.

    Args:
        confidence: Probability of the predicted class, (N,).
        correct: Whether it is the image's class, (N,).
        bins: B.
    """
    sure, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    place = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights, minlength=bins) for weights in (sure, right)]
    error = float(np.abs(sums[1] - sums[0]).sum() / max(1, len(sure)))
    means = [np.divide(total, count, out=np.full(bins, np.nan), where=count > 0) for total in sums]
    return Calibration(error, count, *means)


def confused(table: Integers, most: int) -> list[tuple[int, int, int]]:
    """List the most frequent confusions: class, what it was taken for, images.

    >>> confused(np.array([[5, 1, 0], [3, 2, 0], [0, 0, 4]]), 5)
    [(1, 0, 3), (0, 1, 1)]
    """
    wrong = table - np.diag(table.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(table)) for place in order]
    return [(true, taken, int(wrong[true, taken])) for true, taken in pairs if wrong[true, taken]]


def surely_wrong(
    labels: npt.ArrayLike, predicted: npt.ArrayLike, confidence: npt.ArrayLike, most: int
) -> Integers:
    """Return the places of wrong predictions, those with the highest confidence first."""
    wrong = np.flatnonzero(np.asarray(labels) != np.asarray(predicted))
    return wrong[np.argsort(-np.asarray(confidence)[wrong], kind="stable")][:most]


def as_dict(
    classes: tuple[str, ...], labels: npt.ArrayLike, predicted: npt.ArrayLike
) -> dict[str, Any]:
    """Return the scores of every class by its name, and the confusion matrix, for JSON.

    A score that is not defined is None.
    """
    table = confusion(labels, predicted, len(classes))
    scores = by_class(table)
    found = {
        name: {
            **{
                key: None if np.isnan(values[place]) else float(values[place])
                for key, values in zip(("precision", "recall", "f1"), scores, strict=False)
            },
            "images": int(scores.images[place]),
        }
        for place, name in enumerate(classes)
    }
    return {"by_class": found, "confusion": table.tolist()}
