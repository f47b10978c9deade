"""Fused kernels, in Triton, of the operations that a fast supernet repeats most on a GPU.

What they compute has a plain form in `fused.py`, `folding.py` or `convolution.py`, with the same
derivatives; `moments` and `folded` together are `folding.folded_sum`. Who computes asks `usable`
first, and takes the plain form otherwise.

Sums are in float32, in float64 for maps in float64, whatever the type of what is read. No kernel
uses atomic operations, and sizes of tiles depend on shapes alone: equal calls have equal bits.

Triton comes with torch's builds for CUDA. It is imported when a kernel is first called.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from tutelage.spaces.kernels.convolutions import depthwise, relu_depthwise
    from tutelage.spaces.kernels.covariances import moments
    from tutelage.spaces.kernels.folding import folded
    from tutelage.spaces.kernels.sums import mix, products

__all__ = [
    "allowed",
    "depthwise",
    "folded",
    "mix",
    "moments",
    "products",
    "relu_depthwise",
    "usable",
]

WIDEST = 64
"""Most channels of a group whose covariance a kernel computes: registers hold the matrix."""
MOST = 1 << 30
"""Most values of a map, as in `language.py`, which imports Triton."""
KINDS = (torch.float32, torch.bfloat16, torch.float16)
OLDEST = (8, 0)
"""Compute capability from which on Triton compiles for a card."""

_allowed = [True]
_FILES = {
    "depthwise": "convolutions",
    "relu_depthwise": "convolutions",
    "moments": "covariances",
    "folded": "folding",
    "mix": "sums",
    "products": "sums",
}


@contextmanager
def allowed(allow: bool) -> Iterator[None]:
    """Let this process use kernels in the context, or not; what held before holds again after it.

    The threads of backward passes ask too, so this is one value of the process.
    """
    before, _allowed[0] = _allowed[0], allow
    try:
        yield
    finally:
        _allowed[0] = before


def usable(x: Tensor, channels: int = 0) -> bool:
    """Tell whether the kernels of this folder take x.

    They take maps on a GPU with Triton. They take no tensor without data (FakeTensor), and nothing
    inside of torch.compile, which has kernels of its own.

    Args:
        x: The largest map that is read.
        channels: Channels of one group, where a covariance is read or written.
    """
    if not (x.is_cuda and _allowed[0]) or torch.compiler.is_compiling():
        return False
    real = type(x) is Tensor or type(x) is nn.Parameter
    fits = x.dtype in KINDS and x.numel() < MOST and channels <= WIDEST
    return real and fits and _compiles(x.device)


@cache
def _compiles(device: torch.device) -> bool:
    """Tell whether Triton is there, and compiles for a card."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= OLDEST


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
    return found
