"""The data that losses read: a batch of one stream, and the batches of an iteration."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class Batch(NamedTuple):
    """A batch of one stream of data."""

    x: Tensor
    """Images (B, C, H, W)."""
    y: Tensor
    """Labels (B,); -1 if there is none."""
    position: Tensor
    """Position (B,) of every image in its split."""


class Batches(Protocol):
    """The batches that every loss of an iteration may read."""

    @property
    def train(self) -> Batch:
        """Images that train weights."""

    @property
    def valid(self) -> Batch:
        """Images that train alphas."""

    @property
    def unlabelled(self) -> Batch:
        """Images without labels."""
