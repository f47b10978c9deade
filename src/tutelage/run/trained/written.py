"""A network in another format, compared with the module."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor

from tutelage.run.trained.opened import Trained

TOLERANCE: Final = 1e-4
"""Largest difference of a logit, relative to the largest one."""


class Written(NamedTuple):
    """A network in another format."""

    content: bytes
    difference: float
    """Largest difference of a logit from the module's, when its own reader runs it."""


def sample(trained: Trained) -> Tensor:
    """Return three images of noise (3, C, H, W), always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, *trained.details.shape, generator=generator)


def compared(reader: str, content: bytes, logits: Tensor, expected: Tensor) -> Written:
    """Compare logits with those of the module.

    Raises:
        ValueError: They differ by more than rounding.
    """
    difference = (logits - expected).abs().max().item()
    if not difference <= TOLERANCE * max(1.0, expected.abs().max().item()):
        raise ValueError(f"{reader}'s logits differ from the module's by {difference:.1e}")
    return Written(content, difference)
