"""The device that a setting names."""

from __future__ import annotations

import torch


def device_named(name: str) -> torch.device:
    """Return the device that a setting names; auto: CUDA where there is one.

    Raises:
        ValueError: CUDA is requested and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device = 'cuda': there is no CUDA device; use 'cpu' or 'auto'")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
