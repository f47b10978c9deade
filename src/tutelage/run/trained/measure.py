"""Measure a network on labelled images, and keep what it says of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from tutelage import ranks
from tutelage.classification import surely_wrong
from tutelage.data.batches import in_order
from tutelage.data.images import Labelled, pictures
from tutelage.records.predictions import Predictions
from tutelage.shares import shared

WORST: Final = 24
"""Most images that are kept of those that were most surely wrong."""
SIDE: Final = 96
"""Longest side of such an image, in pixels."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What a network says of N labelled images."""

    loss: float
    """Mean cross-entropy."""
    right: int
    """Images that are classified correctly."""
    probabilities: Tensor
    """(N, C) in float16."""
    confidence: Tensor
    """Probability of the predicted class (N,)."""
    predicted: Tensor
    """(N,)"""

    def entries(self) -> dict[str, Any]:
        """Return the entries of result.json."""
        accuracy = self.right / len(self.predicted)
        return {
            "test_error": 1 - accuracy,
            "test_accuracy": accuracy,
            "test_loss": self.loss,
            "test_images": len(self.predicted),
        }


@torch.no_grad()
def measured(
    network: nn.Module,
    tested: Labelled,
    batch_size: int,
    device: torch.device,
    subset: Tensor | None = None,
) -> Measured:
    """Measure a network on the images of a set, or on those at an index (N,), in fp32.

    Nothing is read from the device before the last batch, so that no batch waits for it.
    """
    network.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    every = torch.arange(len(tested.images)) if subset is None else subset
    said = []
    for x, y, _ in in_order(tested, every, batch_size, device):
        logits = shared(network, x)
        probabilities, predicted = logits.softmax(1), logits.argmax(1)
        sure = probabilities.gather(1, predicted[:, None])[:, 0]
        said.append((probabilities.half(), sure, predicted))
        loss, correct = F.cross_entropy(logits, y, reduction="sum"), (predicted == y).sum()
        sums += torch.stack((loss.double(), correct.double()))
    total, right = sums.tolist()
    found = [torch.cat(each).cpu() for each in zip(*said, strict=True)]
    return Measured(total / len(every), round(right), *found)


def kept(found: Measured, tested: Labelled, names: Sequence[str]) -> Predictions:
    """Return what predictions.npz holds; one rank may call it alone.

    Args:
        found: What a network says of the images.
        tested: The images.
        names: Names of their files, or empty.
    """
    labels = tested.images.labels.numpy()
    predicted, confidence = found.predicted.numpy(), found.confidence.numpy()
    worst = surely_wrong(labels, predicted, confidence, WORST)
    with ranks.apart():  # reading images from disk is the work of all ranks otherwise
        index = torch.from_numpy(worst)
        wrong = tested.images.take(index) if len(worst) else torch.zeros(0, 1, 1, 1)
    return Predictions(
        classes=tested.classes,
        probabilities=found.probabilities.numpy(),
        confidence=confidence,
        predicted=predicted.astype(np.int32),
        labels=labels.astype(np.int32),
        worst=worst,
        pictures=small(wrong),
        names=tuple(names[place] for place in worst) if names else (),
    )


def small(pixels: Tensor) -> np.ndarray[Any, Any]:
    """Return images (K, C, H, W) as arrays (K, h, w, C) of which no side is above 96 pixels."""
    _, channels, height, width = pixels.shape
    share = min(1.0, SIDE / max(height, width))
    size = max(1, round(share * width)), max(1, round(share * height))
    resized = [each.resize(size, Image.Resampling.BILINEAR) for each in pictures(pixels)]
    arrays = [np.asarray(each, np.uint8).reshape(size[1], size[0], channels) for each in resized]
    return np.stack(arrays) if arrays else np.zeros((0, size[1], size[0], channels), np.uint8)
