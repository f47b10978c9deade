"""Several batches at once, where a GPU would wait for Python between small ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

import torch

from tutelage.batch import Batch
from tutelage.data.batches import Stream

ELEMENTS = 2**22
"""Elements of the images that run at once on a GPU: 1,365 of CIFAR, 27 of ImageNet."""


def at_once(device: torch.device, shape: tuple[int, int, int], batch_size: int) -> int:
    """Return how many batches of images (C, H, W) to run at once; on a CPU one."""
    if device.type != "cuda" or batch_size == 1:
        return 1
    return max(1, ELEMENTS // (prod(shape) * batch_size))


def in_order(stream: Stream, images: int, together: int) -> Iterator[Batch]:
    """Yield the first images once, in order and not augmented, `together` batches at a time.

    A last batch that is smaller comes alone; one of a single image is left out.
    """
    subset = stream.subset[:images]
    full = len(subset) // stream.batch_size * stream.batch_size
    if full:
        wide = replace(stream, batch_size=stream.batch_size * together)
        yield from wide.in_order(full)
    if len(subset) - full > 1:
        yield from replace(stream, subset=subset[full:]).in_order()
