"""Counts the values that would be read back from a GPU, on a CPU.

Marked tensors stand for those on the device, and so do all that are computed from them. A copy to
the CPU is a read, and its result is no longer on the device.
"""

from __future__ import annotations

import weakref
from collections import Counter
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READS = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2")
"""Operations for whose result the host waits."""


class Reads(TorchDispatchMode):
    """Counts, by name, the operations that read a tensor of the device."""

    def __init__(self, *tensors: Tensor) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self._device: dict[int, weakref.ref] = {}
        self.mark(*tensors)

    @property
    def total(self) -> int:
        return self.counts.total()

    def mark(self, *tensors: Tensor) -> None:
        for x in tensors:
            storage = x.untyped_storage()
            key = storage._cdata
            self._device[key] = weakref.ref(storage, partial(self._gone, key))

    def _gone(self, key, _):
        self._device.pop(key, None)

    def _there(self, x: object) -> bool:
        return isinstance(x, Tensor) and x.untyped_storage()._cdata in self._device

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        there = any(map(self._there, tree_leaves((args, kwargs))))
        name = function.overloadpacket.__name__
        if there and name in READS:
            self.counts[name] += 1
        result = function(*args, **kwargs)
        if there:
            self.mark(*(x for x in tree_leaves(result) if isinstance(x, Tensor)))
        return result

    def copied(self, x: Tensor) -> Tensor:
        """Stand in for `Tensor.cpu`."""
        if not self._there(x):
            return x
        self.counts["cpu"] += 1
        away = torch.empty(x.shape, dtype=x.dtype)
        with torch.no_grad(), torch.utils._python_dispatch._disable_current_modes():
            away.copy_(x)
        return away

    def listed(self, x: Tensor) -> list:
        """Stand in for `Tensor.tolist`, which reads all values at once."""
        if self._there(x):
            self.counts["tolist"] += 1
        return TOLIST(x)


TOLIST = Tensor.tolist


@contextmanager
def reading(*tensors: Tensor):
    """Count the reads of tensors and of all that is computed from them."""
    reads = Reads(*tensors)
    copied = patch.object(Tensor, "cpu", lambda x: reads.copied(x))
    with copied, patch.object(Tensor, "tolist", lambda x: reads.listed(x)), reads:
        yield reads
