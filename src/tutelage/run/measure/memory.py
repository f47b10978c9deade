"""The memory that a process uses, and the memory that it may use."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import torch

PROCESS = Path("/proc/self")
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files with a container's limit, by version of control groups."""


def available(device: torch.device) -> int:
    """Return how many bytes this process may use in total on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    free = _kilobytes(Path("/proc/meminfo"), "MemAvailable")
    if free is None:  # not Linux: all memory of the machine
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [path.read_text().strip() for path in map(Path, LIMITS) if path.is_file()]
    mine = _kilobytes(PROCESS / "status", "VmRSS") or 0
    return min([free + mine, *(int(limit) for limit in limits if limit.isdigit())])


def reset_peak(device: torch.device) -> None:
    """Measure the peak from now on, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif (PROCESS / "clear_refs").exists():
        (PROCESS / "clear_refs").write_text("5")  # 5: the resident set's high-water mark


def peak(device: torch.device) -> int:
    """Return the most bytes that this process has used on a device since the last reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    mark = _kilobytes(PROCESS / "status", "VmHWM")
    if mark is not None:
        return mark
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _kilobytes(path: Path, name: str) -> int | None:
    """Read one entry of a file under /proc, in bytes; None: there is none."""
    if not path.is_file():
        return None
    for line in path.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None
