"""Triton, and the sizes and types that all kernels here share.

Without Triton the files of this folder can be imported, and their functions cannot be called.
Sizes depend on shapes alone: the same numbers are added in the same order on every card.
"""

from __future__ import annotations

from typing import Any

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

__all__ = ["PROGRAMS", "SIDE", "accumulator", "blocks", "jit", "launch", "power", "tl"]

PROGRAMS = 512
"""Most programs that share one reduction: about four for each of a large card's processors."""
SIDE = 16
"""Smallest side of a matrix product's tile."""


def launch(kernel: Any, grid: tuple[int, ...], warps: int, *arguments: Any) -> None:
    """Run a kernel on the device of its first argument, which is a tensor.

    Contraction of a product and a sum to one operation is Triton's default up to 3.9, which warns
    that the default will change.
    """
    with torch.cuda.device_of(arguments[0]):
        kernel[grid](*arguments, num_warps=warps, enable_fp_fusion=True)


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
