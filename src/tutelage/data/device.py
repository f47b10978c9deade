"""Transfer of arrays and tensors to the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]
Change = Callable[[Tensor], Tensor]
"""A change of a batch's images on their device, once the parcel with its numbers is sent."""
SHARE: Final = 0.25
"""Largest share of a GPU's free memory that the images of a data set may take."""
ALIGNED: Final = 16
"""Bytes; every array of a parcel begins at a multiple, as kernels that load vectors need."""


def onto(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to the device without waiting for the work queued there."""
    if device.type == "cuda" and not tensor.is_cuda:
        pinned = torch.empty_like(tensor, pin_memory=True).copy_(tensor)
        return pinned.to(device, non_blocking=True)
    return tensor.to(device)


def fits_on(device: torch.device, size: int) -> bool:
    """Decide whether the images of a set may be held by a GPU; print a sentence if not.

    Args:
        device: The GPU.
        size: Of the images, in bytes.
    """
    if not torch.cuda.is_available():  # a device that is only simulated has no memory
        return True
    free, _ = torch.cuda.mem_get_info(device)
    if size <= SHARE * free:
        return True
    print(
        f"the images take {size / 2**30:.1f} GiB, more than {SHARE:.0%} of the "
        f"{free / 2**30:.1f} GiB that are free on the GPU: they stay in the memory of the "
        "processor, and every batch is copied",
        flush=True,
    )
    return False


@final
class Sent:
    """An array of a parcel; `tensor` is the same on the device, once the parcel is sent."""

    tensor: Tensor

    def __init__(self, array: Array) -> None:
        self.array = array


@final
class Parcel:
    """Small arrays that go to the device together: on a GPU in one copy, which nothing waits for.

    What a batch needs from the host is added first. Then the parcel is sent, and the changes of the
    batch read the tensors.
    """

    def __init__(self) -> None:
        self._contents: list[Sent] = []

    def add(self, array: Array) -> Sent:
        """Add an array, which must not change afterwards."""
        self._contents.append(Sent(array))
        return self._contents[-1]

    def send(self, device: torch.device) -> None:
        """Bring all arrays to the device; on a CPU the tensors share their memory."""
        if device.type == "cpu":
            for each in self._contents:
                each.tensor = torch.from_numpy(each.array)
            return
        sizes = [each.array.nbytes for each in self._contents]
        ends = np.cumsum([-(-size // ALIGNED) * ALIGNED for size in sizes]).tolist()
        starts = [0, *ends[:-1]]
        packed = np.zeros(ends[-1], np.uint8)
        for each, start, size in zip(self._contents, starts, sizes, strict=True):
            packed[start : start + size] = each.array.reshape(-1).view(np.uint8)
        there = onto(torch.from_numpy(packed), device)
        for each, start, size in zip(self._contents, starts, sizes, strict=True):
            like = torch.from_numpy(each.array)
            each.tensor = there.narrow(0, start, size).view(like.dtype).view(like.shape)
