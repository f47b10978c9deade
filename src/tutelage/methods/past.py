"""A learner's recent probabilities for every image: a store whose tensors are variables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

Stored = dict[str, Tensor]
"""`probabilities` (N, C, K) and `count` (N,), how often an image was recorded; if only some classes
are kept, `probabilities` (N, top, K) and `classes` (N, top, K)."""


@final
@dataclass(frozen=True)
class Past:
    """A learner's last K probabilities for each of N images, or one decayed average of all.

    Every image has its own ring buffer, so that a row holds the last K recorded probabilities, for
    any order of images and any number of images that an epoch leaves out.
    """

    images: int
    """N."""
    classes: int
    """C."""
    window: int
    """K."""
    device: torch.device
    """Device of the store."""
    decay: float = 0.0
    """Share of the past that an average keeps (then K is 1); 0: a ring buffer."""
    top: int = 0
    """Most probable classes that are kept; the rest of a row is uniform. 0: all."""
    dtype: torch.dtype = torch.float32
    """Type of the stored probabilities."""

    def __post_init__(self) -> None:
        if self.top >= self.classes:
            raise ValueError(
                f"memory_top = {self.top} of {self.classes} classes: give fewer, or 0 for all"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the stored probabilities."""
        return self.images, self.top or self.classes, 1 if self.decay else self.window

    @property
    def bytes(self) -> int:
        """Memory of the store, in bytes."""
        images, width, slots = self.shape
        each = self.dtype.itemsize + (torch.int16.itemsize if self.top else 0)
        return images * (width * slots * each + torch.int32.itemsize)

    def empty(self) -> Stored:
        """Make the tensors of an empty past.

        Raises:
            ValueError: There is not enough memory; the message says which settings need less.
        """
        shapes = {"probabilities": (self.shape, self.dtype), "count": (self.shape[:1], torch.int32)}
        if self.top:
            shapes["classes"] = (self.shape, torch.int16)
        try:
            return {
                name: torch.zeros(shape, dtype=dtype, device=self.device)
                for name, (shape, dtype) in shapes.items()
            }
        except RuntimeError as error:  # torch raises this on every device: out of memory
            raise ValueError(
                f"the past of {self.images:,} images takes {self.bytes / 2**30:.1f} GiB on "
                f"{self.device}: keep it with --memory-device host, or fewer classes of it with "
                "--memory-top"
            ) from error

    @torch.no_grad()
    def record(self, past: Stored, position: Tensor, probabilities: Tensor) -> None:
        """Store probabilities (B, C) of images, by their position (B,); once of one that repeats.

        A batch of balanced classes may have an image several times, of which the first one counts:
        equal values for all of them do not depend on the order of writing.
        """
        first = (position.unsqueeze(1) == position).int().argmax(1)
        probabilities = probabilities[first]
        if self.decay:
            before, known = self.mean(past, position, probabilities)
            averaged = self.decay * before + (1 - self.decay) * probabilities
            probabilities = torch.where(known.unsqueeze(1), averaged, probabilities)
        at = position.to(self.device)
        slot = past["count"][at] % self.shape[2]
        if self.top:
            probabilities, classes = probabilities.topk(self.top, 1)
            past["classes"][at, :, slot] = classes.to(self.device, torch.int16)
        past["probabilities"][at, :, slot] = probabilities.to(self.device, self.dtype)
        past["count"][at] += 1

    def mean(self, past: Stored, position: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean row (B, C) of every image, and which images (B,) have one.

        Args:
            past: The store.
            position: Positions of the images, (B,).
            like: A tensor with the type and device for the rows.
        """
        at = position.to(self.device)
        count = past["count"][at].to(like.device)
        rows = past["probabilities"][at].to(like)
        if self.top:
            rest = (1 - rows.sum(1, keepdim=True)).clamp_min(0) / (self.classes - self.top)
            classes = past["classes"][at].to(like.device, torch.int64)
            rows = rest.repeat(1, self.classes, 1).scatter(1, classes, rows)
        slots = self.shape[2]
        filled = torch.arange(slots, device=like.device) < count.unsqueeze(1)
        total = (rows * filled.unsqueeze(1)).sum(2)
        return total / count.clamp(1, slots).unsqueeze(1), count > 0
