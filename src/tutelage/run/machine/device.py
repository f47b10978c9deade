"""The device that a setting names, and how it computes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tutelage.cpus import cpu_name


def device_named(name: str) -> torch.device:
    """Return the device that a setting names; auto: CUDA where there is one.

    Raises:
        ValueError: CUDA is requested and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device = 'cuda': there is no CUDA device; use 'cpu' or 'auto'")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and (place := os.environ.get("LOCAL_RANK")):  # of torchrun
        return torch.device(name, int(place))
    return torch.device(name)


def name_of(device: torch.device) -> str:
    """Return the name of a device's hardware."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def gpu_memory() -> int | None:
    """Return the most bytes that tensors had on a GPU at once, since the reset; None: on none.

    This process uses one GPU, so the largest figure of all is its own.
    """
    if not torch.cuda.is_initialized():
        return None
    return max(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))


def reset_gpu_memory() -> None:
    """Measure the largest memory from now on: other work of this process may lie before."""
    if torch.cuda.is_initialized():
        for index in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(index)


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Let cuDNN round the factors of convolutions to TF32, except in precision `ieee`.

    Torch allows it by default, and allows no TF32 in matrix products. TF32 has the range of
    float32 and 10 bits of its mantissa; sums are in float32. On a CPU nothing is rounded.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = precision != "ieee"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
