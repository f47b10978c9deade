"""Runs independent parts of a network side by side, on streams of a GPU.

Small kernels leave most of a GPU idle, so independent ones should run at the same time. Outside a
recorded step that gains nothing: there the processor is too slow to start them. So everywhere but
in a CUDA graph, the parts run one after the other, with the same result to the bit.

Autograd runs a backward pass on the stream of its forward pass, so derivatives of all orders run
side by side too.

Memory. Freed memory of a stream is used again by that stream, which is safe in the stream's own
order only. A tensor that one stream makes and another reads could be overwritten while it is read:

- what a branch reads and what it returns cross streams, so `record_stream` tells the allocator. In
  a recording it then sets the memory of these tensors aside until the recording ends. The graph
  takes more memory, and no kernel of it writes there again;
- what a branch makes for itself, and saves for its backward pass, stays on its stream;
- gradients that cross streams are told to the allocator by autograd.

Memory of a recording, on every stream that has joined it, comes from the graph's own pool.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T", Tensor, tuple[Tensor, ...])


def concurrently(branches: Sequence[Callable[[], T]], reads: Sequence[Tensor]) -> list[T]:
    """Call functions, in a CUDA graph side by side; return their results in order.

    Args:
        branches: Functions that do not depend on one another. Each returns a tensor or a tuple of
            tensors.
        reads: All tensors that they read, weights too: those of a virtual step are freed with it.
    """
    device = reads[0].device
    if len(branches) > 1 and device.type == "cuda" and _records():
        return _forked(branches, reads, device)
    return [branch() for branch in branches]


def _forked(
    branches: Sequence[Callable[[], T]], reads: Sequence[Tensor], device: torch.device
) -> list[T]:
    """Run every branch on a stream of its own, after all earlier work and before all later work."""
    present = torch.cuda.current_stream(device)
    begun = present.record_event()
    found = []
    for branch, stream in zip(branches, _streams(device, len(branches)), strict=True):
        stream.wait_event(begun)
        for x in reads:
            x.record_stream(stream)
        with torch.cuda.stream(stream):
            result = branch()
        for x in (result,) if isinstance(result, Tensor) else result:
            x.record_stream(present)
        found.append(result)
        present.wait_event(stream.record_event())
    return found


def join() -> None:
    """Let the present stream wait for all side streams of its recording, which ends after that.

    A backward pass may end with work on a side stream whose result nobody reads.
    """
    present = torch.cuda.current_stream()
    for stream in chain(*_side.values()):
        with torch.cuda.stream(stream):
            records = _records()
        if records:
            present.wait_stream(stream)


def _records() -> bool:
    """Tell whether the present stream records a CUDA graph; a torch without CUDA cannot say."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


_side: dict[torch.device, list[torch.cuda.Stream]] = {}
"""The side streams of every device."""


def _streams(device: torch.device, count: int) -> list[torch.cuda.Stream]:
    """Return streams beside the present one; the same ones every time."""
    own = _side.setdefault(device, [])
    own += [torch.cuda.Stream(device) for _ in range(count - len(own))]
    return own[:count]
