"""The memory that a CPU's allocator takes for tensors, beyond their bytes.

glibc's allocator keeps small and large objects in one heap. A freed tensor's place goes to small
objects and smaller tensors, and a part of it stays empty while these live. What is empty grows with
the batch: with DARTS' supernet at 16 channels and 8 cells it is 0.5 GiB at 16 images, and 2 GiB at
64, a sixth of the process. So the sequence of allocations is replayed at the size that is asked,
in a process of its own (`replay.py`).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

REPLAY: Final = Path(__file__).with_name("replay.py")
SECONDS: Final = 120
"""Time after which a replay is given up."""


def taken(sizes: Sequence[int], moves: Sequence[int]) -> int | None:
    """Return the most bytes that the allocator takes for a sequence of tensors.

    Args:
        sizes: Bytes of every tensor.
        moves: The tensors, by their place in `sizes`, each when it is allocated and when it is
            freed.

    Returns:
        The bytes; None: the allocator does not say, or the system does not reserve so much.
    """
    text = "\n".join(" ".join(map(str, each)) for each in (sizes, moves))
    command = [sys.executable, "-I", str(REPLAY)]
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, check=True, text=True, timeout=SECONDS
        )
        return int(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
