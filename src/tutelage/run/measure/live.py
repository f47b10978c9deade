"""The bytes of all tensors after every operation, and what they will be at another batch size.

At every operation the bytes in use are linear in the batch size, so two small batches give the
curve of any batch. Its maximum is the peak; it may be at another operation than at a small batch.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

BLOCK = 512
"""torch's allocator on a GPU rounds every tensor up to a multiple of this."""
UNCOUNTED = (torch.ops.aten.detach, torch.ops.aten.lift_fresh)
"""Operations without a result of their own; that of a constant runs only until it is cached."""


@dataclass
class Trace:
    """The memory of a device after each operation, in the order of the operations."""

    operations: list[Any] = field(default_factory=list)
    """The operations, without views."""
    sizes: list[int] = field(default_factory=list)
    """Bytes that the tensors need."""
    rounded: list[int] = field(default_factory=list)
    """Bytes that are allocated for them."""
    recorded: bool = False
    """Whether the step becomes a program, which keeps the memory of its intermediate values."""
    tensors: list[int] = field(default_factory=list)
    """Bytes of every tensor, in the order of their allocation; first those that were in use."""
    moves: list[int] = field(default_factory=list)
    """The tensors, by their place among `tensors`, each when it is allocated and when freed."""

    @property
    def peak(self) -> int:
        """The most bytes that are allocated."""
        return max(self.rounded, default=0)


@final
class Live(TorchDispatchMode):
    """Adds up the tensors of a device that are in use, from the first operation that sees them.

    It works without the device's help, so also for tensors without data (`FakeTensorMode`).
    Memory that a kernel takes only while it runs is not counted.
    """

    def __init__(self, device: str) -> None:
        """Count tensors of a type of device, such as `cuda`."""
        super().__init__()
        self.device, self.trace = device, Trace()
        self._held: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._size, self._rounded = 0, 0
        self._lock = threading.RLock()  # autograd frees tensors of a GPU in another thread

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, and note the memory after it."""
        kwargs = kwargs or {}
        self._see((args, kwargs))
        result = function(*args, **kwargs)
        self._see(result)
        if not (function.is_view or function.overloadpacket in UNCOUNTED):
            with self._lock:
                self.trace.operations.append(function)
                self.trace.sizes.append(self._size)
                self.trace.rounded.append(self._rounded)
        return result

    def begin(self) -> None:
        """Begin a new trace; tensors in use stay counted."""
        with self._lock:
            before, self.trace = self.trace, Trace()
            for key, (reference, tensor) in self._held.items():
                self._held[key] = reference, self._allocated(before.tensors[tensor])

    def _see(self, values: Any) -> None:
        for x in tree_leaves(values):
            if isinstance(x, Tensor) and x.device.type == self.device:
                storage = x.untyped_storage()
                key: int = storage._cdata
                if key not in self._held:
                    size = storage.nbytes()
                    free = partial(self._freed, key, size)
                    with self._lock:
                        self._held[key] = weakref.ref(storage, free), self._allocated(size)
                        self._add(size, 1)

    def _freed(self, key: int, size: int, _: Any) -> None:
        with self._lock:
            if (held := self._held.pop(key, None)) is not None:
                self.trace.moves.append(held[1])
                self._add(size, -1)

    def _allocated(self, size: int) -> int:
        """Note an allocation; return the tensor's place in the trace."""
        place = len(self.trace.tensors)
        self.trace.tensors.append(size)
        self.trace.moves.append(place)
        return place

    def _add(self, size: int, sign: int) -> None:
        self._size += sign * size
        self._rounded += sign * (-(-size // BLOCK) * BLOCK)


def traced(step: Callable[[], Any], device: str) -> Trace:
    """Trace the second of two calls; the first one makes what later ones keep."""
    live = Live(device)
    with live:
        step()
        live.begin()
        step()
    return live.trace


def peak_at(low: tuple[int, Trace], high: tuple[int, Trace], batch: int) -> int:
    """Predict the peak, in bytes, at a batch size from the traces at two smaller ones.

    If the two do not list the same operations, as where a step's operations depend on its values,
    the line through their peaks is used in place of the lines through every operation.
    """
    return max(_curve(low, high, batch), default=0)


def kept_at(low: tuple[int, Trace], high: tuple[int, Trace], batch: int) -> int:
    """Predict what a step takes at its peak more than at its end, which a program of it keeps."""
    curve = _curve(low, high, batch)
    return max(curve) - curve[-1] if curve and high[1].recorded else 0


def allocations_at(
    low: tuple[int, Trace], high: tuple[int, Trace], batch: int
) -> tuple[list[int], list[int]] | None:
    """Predict the bytes of every tensor at a batch size, with the order in which they come and go.

    None: the two traces differ in that order.
    """
    (_, a), (_, b) = low, high
    if a.moves != b.moves:
        return None
    line = _line(low[0], high[0], batch)
    return [line(x, y) for x, y in zip(a.tensors, b.tensors, strict=True)], b.moves


def _line(small: int, large: int, batch: int) -> Callable[[int, int], int]:
    """Return the line through values at two batch sizes, at a third one; not below 0."""
    share = (batch - small) / (large - small)
    return lambda first, second: max(0, round(first + share * (second - first)))


def _curve(low: tuple[int, Trace], high: tuple[int, Trace], batch: int) -> list[int]:
    """Return the bytes after every operation at a batch size; or only at the peak, and the end."""
    (small, a), (large, b) = low, high
    line = _line(small, large, batch)
    if a.operations != b.operations:
        return [line(a.peak, b.peak), line(a.rounded[-1], b.rounded[-1])]
    lines = zip(a.sizes, b.sizes, b.rounded, strict=True)
    return [line(x, y) + rounded - y for x, y, rounded in lines]
