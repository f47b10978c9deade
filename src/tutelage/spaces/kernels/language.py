"""Triton, and the sizes and types that all kernels here share.

Without Triton the files of this folder can be imported, and their functions cannot be called.
Sizes depend on shapes alone: the same numbers are added in the same order on every card.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

try:
    import triton.language as tl
    from triton import jit
except ImportError:  # no CUDA build of torch

    def jit(kernel: Any) -> Any:
        """Return a kernel as it is."""
        return kernel

    tl = None

__all__ = [
    "MOST",
    "PROGRAMS",
    "SIDE",
    "Laid",
    "accumulator",
    "blocks",
    "jit",
    "launch",
    "power",
    "tl",
]

PROGRAMS = 512
"""Most programs that share one reduction: about four for each of a large card's processors."""
MOST = 1 << 30
"""Most values of a map: offsets are 32-bit numbers, and those past its end must be too."""
SIDE = 16
"""Smallest side of a matrix product's tile."""


def launch(kernel: Any, grid: tuple[int, ...], warps: int, *arguments: Any) -> None:
    """Run a kernel on the device of its first argument, which is a tensor.

    Contraction of a product and a sum to one operation is Triton's default up to 3.9, which warns
    that the default will change.
    """
    with torch.cuda.device_of(arguments[0]):
        kernel[grid](*arguments, num_warps=warps, enable_fp_fusion=True)


class Laid(NamedTuple):
    """A map (B, C, H, W) as kernels read it: its channels innermost, a pixel every `pitch` values.

    Some channels of a larger map are read where they are.
    """

    map: Tensor
    pitch: int

    @classmethod
    def out(cls, x: Tensor) -> Laid:
        """Lay out x; copy it where it lies otherwise."""
        images, channels, height, width = x.shape
        sides = (width, 1), (height, width), (images, height * width)
        steps = x.stride(3), x.stride(2), x.stride(0)
        # the step of a side of one pixel means nothing
        used = [(s, n) for s, (side, n) in zip(steps, sides, strict=True) if side > 1]
        pitch = used[0][0] // used[0][1] if used else channels
        regular = all(step == pitch * pixels for step, pixels in used)
        fits = pitch >= channels and images * height * width * pitch < MOST
        if regular and fits and (x.stride(1) == 1 or channels == 1):
            return cls(x, pitch)
        return cls(x.contiguous(memory_format=torch.channels_last), channels)


def accumulator(x: Tensor) -> Any:
    """Return Triton's type in which sums over values of x are computed."""
    return tl.float64 if x.dtype == torch.float64 else tl.float32


def power(count: int) -> int:
    """Return the smallest power of two that is not less than count.

    >>> [power(n) for n in (1, 2, 3, 20)]
    [1, 2, 4, 32]
    """
    return 1 << (count - 1).bit_length()


def blocks(count: int, size: int, most: int) -> tuple[int, int]:
    """Divide `count` values among programs that read `size` at a time.

    Returns:
        How many programs there are, at most `most`, and how many values each has, a multiple of
        `size`; the last one may have fewer, and none has none.

    >>> blocks(1000, 64, 4)
    (4, 256)
    >>> blocks(10, 64, 4)
    (1, 64)
    """
    span = -(-count // (size * most)) * size
    return -(-count // span), span
