"""The test of a retrained network: classes, confusions, calibration, and the worst mistakes."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image

from tutelage.classification import ByClass, by_class, calibration, confused, confusion
from tutelage.records.predictions import FILE, Predictions
from tutelage.report.figures.tested import matrix, reliability
from tutelage.report.figures.theme import Drawn, drawn
from tutelage.report.runs.record import RunFiles
from tutelage.report.sections.tiles import percent

DRAWN: Final = 100
"""Most classes of a confusion matrix that is drawn."""
LISTED: Final = 40
"""Most classes of a table; of more, those with the lowest F1 are listed."""
LOWEST: Final = 15
PAIRS: Final = 10
"""Confusions that are listed."""
HEADER: Final = ("class", "images", "precision", "recall", "F1")
CONFUSED: Final = ("class", "taken for", "images", "share of the class")


@dataclass(frozen=True)
class Mistake:
    """An image that was surely wrong."""

    picture: str
    """The image, as the address of an embedded PNG."""
    label: str
    predicted: str
    confidence: str
    own: str
    """Probability of its own class."""
    name: str


def quality(files: RunFiles) -> dict[str, Any]:
    """Make the section of a retraining's test; empty before it, and of runs of before."""
    path = files.path / FILE
    if not path.is_file():
        return {}
    try:
        found = Predictions.read(path)
    except ValueError as error:
        return {"note": f"{path} is damaged and left out: {error}"}
    table = confusion(found.labels, found.predicted, len(found.classes))
    right = found.labels == found.predicted
    calibrated = calibration(found.confidence, right)
    return {
        "note": "",
        "sentence": _sentence(right, calibrated.error),
        "header": HEADER,
        "rows": list(_rows(found.classes, by_class(table))),
        "cut": LOWEST if len(found.classes) > LISTED else 0,
        "figures": list(_figures(found, table)),
        "reliability": drawn(
            "Accuracy by confidence", reliability(calibrated), "Reliability diagram"
        ),
        "confused_header": CONFUSED,
        "confused": list(_confused(found.classes, table)),
        "worst": list(_worst(found)),
    }


def _sentence(right: np.ndarray[Any, Any], error: float) -> str:
    return (
        f"{int(right.sum()):,} of {len(right):,} test images are classified correctly, "
        f"{percent(float(right.mean()))}. The expected calibration error is "
        f"{100 * error:.2f} percentage points: the mean distance of accuracy and confidence over "
        "15 bins of equal width (Guo et al., 2017)."
    )


def _rows(classes: Sequence[str], scores: ByClass) -> Iterator[tuple[str, ...]]:
    places = list(range(len(classes)))
    if len(classes) > LISTED:
        places = np.argsort(np.nan_to_num(scores.f1, nan=2), kind="stable")[:LOWEST].tolist()
    mean = [float(np.nanmean(each)) for each in scores[:3]]
    yield ("mean of classes", f"{scores.images.sum():,}", *map(share, mean))
    for place in places:
        own = (float(each[place]) for each in scores[:3])
        yield (classes[place], f"{scores.images[place]:,}", *map(share, own))


def share(value: float) -> str:
    """Write a fraction in percent, one decimal; a dash where it is not defined.

    >>> share(0.5), share(math.nan)
    ('50.0 %', '–')
    """
    return "–" if math.isnan(value) else f"{100 * value:.1f} %"


def _figures(found: Predictions, table: np.ndarray[Any, Any]) -> Iterator[Drawn]:
    if len(found.classes) <= DRAWN:
        yield drawn("Confusion matrix", matrix(table, found.classes), "Confusion matrix")


def _confused(classes: Sequence[str], table: np.ndarray[Any, Any]) -> Iterator[tuple[str, ...]]:
    for true, taken, count in confused(table, PAIRS):
        yield classes[true], classes[taken], f"{count:,}", share(count / table[true].sum())


def _worst(found: Predictions) -> Iterator[Mistake]:
    for place, picture in enumerate(found.pictures):
        image = int(found.worst[place])
        label, predicted = int(found.labels[image]), int(found.predicted[image])
        yield Mistake(
            picture=embedded(picture),
            label=found.classes[label],
            predicted=found.classes[predicted],
            confidence=share(float(found.confidence[image])),
            own=share(float(found.probabilities[image, label])),
            name=found.names[place] if found.names else f"test image {image:,}",
        )


def embedded(pixels: np.ndarray[Any, Any]) -> str:
    """Return an image (H, W, 1 or 3) as an address that holds it as PNG."""
    content = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(content, "PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
