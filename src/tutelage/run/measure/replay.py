"""Replays a process's tensors in its allocator, and prints the most memory that was taken.

Run as a script, without the package, so that the heap is empty. Its input is two lines of numbers:
the bytes of every tensor, and the tensors in the order in which they come and go. The first time
that one is named, it is allocated, the second time freed. No page of them is written, so the memory
is only reserved: a replay of more than the machine has is possible.
"""

from __future__ import annotations

import ctypes
import sys

ALIGNED = 64
"""Alignment of torch's tensors on a CPU, in bytes."""
BEFORE, AFTER = (24, 24, 40, 40), (104, 184, 312, 40)
"""Bytes of the small objects that torch allocates around a tensor and frees with it: nodes of
autograd's graph with their lists before it, the storage and the tensor's own object after it. A
step of a DARTS supernet allocates as many for each tensor that lives on, and of these sizes."""


class MallInfo(ctypes.Structure):
    """What glibc says of its memory."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def replay(sizes: list[int], moves: list[int]) -> int:
    """Return the most bytes that the allocator took from the system.

    Raises:
        AttributeError: The allocator is not glibc's, from version 2.33 on.
        MemoryError: The system does not reserve so much.
    """
    libc = ctypes.CDLL(None)
    info, malloc, free, aligned = libc.mallinfo2, libc.malloc, libc.free, libc.posix_memalign
    info.restype, malloc.restype = MallInfo, ctypes.c_void_p
    malloc.argtypes, free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
    aligned.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_size_t]

    def taken() -> int:
        found = info()
        return int(found.arena + found.hblkhd)

    begun = most = taken()
    held: dict[int, list[int]] = {}
    place = ctypes.c_void_p()
    for tensor in moves:
        if tensor in held:
            for each in held.pop(tensor):
                free(each)
            continue
        around = [malloc(size) for size in BEFORE]
        if aligned(ctypes.byref(place), ALIGNED, max(1, sizes[tensor])):
            raise MemoryError
        held[tensor] = [*around, place.value or 0, *(malloc(size) for size in AFTER)]
        most = max(most, taken())
    return most - begun


if __name__ == "__main__":
    print(replay(*(list(map(int, line.split())) for line in sys.stdin)))
