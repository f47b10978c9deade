"""Classes of unequal size: weights for a loss, or an order that samples them equally often."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tutelage.data.erasing import Integers
from tutelage.data.seeding import generator


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Return weights of the classes (C,), inversely proportional to their images.

    Their mean over the images is 1; a class without images has weight 0.

    Args:
        labels: The class of every image, int64 (N,).
        classes: How many classes there are, C.
    """
    counts = torch.bincount(labels, minlength=classes).float()
    there = (counts > 0).sum()
    return torch.where(counts > 0, len(labels) / (there * counts), 0.0)


def balanced_order(labels: Integers, seed: int, name: str, epoch: int, turn: int) -> Integers:
    """Return N places of images, (N,), of every class equally many, in a random order.

    The numbers of two classes differ by 1 at most. The images of a class are taken in permutations,
    so those of a small class repeat equally often, and of a large class each turn has others.

    Args:
        labels: The class of every image, (N,).
        seed: Of the stream.
        name: Of the stream.
        epoch: The epoch.
        turn: The turn in the epoch.
    """
    random = generator(seed, f"{name}/balanced", epoch, turn)
    own = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    counts = np.full(len(own), len(labels) // len(own))
    counts[random.permutation(len(own))[: len(labels) % len(own)]] += 1
    chosen = []
    for places, count in zip(own, counts.tolist(), strict=True):
        repeats = -(-count // len(places))
        chosen.append(np.concatenate([random.permutation(places) for _ in range(repeats)])[:count])
    return random.permutation(np.concatenate(chosen))
