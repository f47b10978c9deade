"""The CPUs that this process may use, those that are idle, and their name.

Nothing here imports torch.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path, PurePosixPath

ROOT = Path("/")
SECONDS = 0.2
"""Seconds for which idle CPUs are observed. Linux counts in hundredths of a second, so the
precision is 5 % of a CPU."""

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Environment variables by which a caller sets how OpenMP's threads wait."""
SPINS = "10000"
"""How often a waiting thread of GNU's OpenMP polls before it sleeps; the default of 300,000 takes
milliseconds. Beside a busy process, two threads took 10.4 s for a step with the default and 2.3 s
with this number. On two idle cores they took 0.90 and 0.95 s, and 0.98 s if threads sleep at
once."""

asked: ContextVar[int | None] = ContextVar("threads that the settings ask for", default=None)
"""The number for `decoders`; None: the settings do not set it."""


def mine() -> list[int]:
    """Return the CPUs that this process may run on, by number."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores(root: Path = ROOT) -> int:
    """Count the cores of these CPUs: two CPUs of one core share its arithmetic."""
    siblings = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    return len({_read(root / siblings.format(cpu)) or str(cpu) for cpu in mine()})


def usable(root: Path = ROOT) -> int:
    """Return how many CPUs this process may use: by affinity, and by its control groups' quotas.

    A part of a CPU does not count, because all threads wait for a thread that waits for its quota.
    """
    return max(1, int(min([len(mine()), *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """Yield, in CPUs, every quota of this process's control groups and of the groups above."""
    groups = root / "sys/fs/cgroup"
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, name = (*line.split(":", 2), "", "")[:3]
        path = PurePosixPath(name.lstrip("/"))
        for place in (path, *path.parents):
            if line.startswith("0::"):  # version 2: one file, "QUOTA PERIOD" or "max PERIOD"
                yield from _quota(_read(groups / place / "cpu.max"))
            elif "cpu" in controllers.split(","):
                for folder in (groups / controllers / place, groups / "cpu" / place):
                    quota, period = (_read(folder / f"cpu.cfs_{x}_us") for x in ("quota", "period"))
                    yield from _quota(f"{quota} {period}")


def _quota(text: str | None) -> Iterator[float]:
    """Yield quota / period, unless there is none (max, -1, or no file)."""
    match (text or "").split():
        case [quota, period] if quota.isdecimal() and period.isdecimal():
            if int(quota) and int(period):
                yield int(quota) / int(period)


def idle(seconds: float = SECONDS, root: Path = ROOT) -> float | None:
    """Measure how many of this process's CPUs are idle while it sleeps; None: unknown.

    The load average covers the last minute, which includes this process, or an earlier one of the
    same script.
    """
    before, start = _counted(root), time.monotonic()
    time.sleep(seconds)
    after, passed = _counted(root), time.monotonic() - start
    if not before or before.keys() != after.keys() or before == after:  # some sandboxes count none
        return None
    ticks = passed * os.sysconf("SC_CLK_TCK")
    return sum(min(1.0, (after[cpu][0] - before[cpu][0]) / ticks) for cpu in before)


def _counted(root: Path) -> dict[str, tuple[int, int]]:
    """Read the idle and the total time of each of these CPUs, in clock ticks."""
    names = {f"cpu{number}" for number in mine()}
    counted = {}
    for line in (_read(root / "proc/stat") or "").splitlines():
        name, *numbers = line.split()
        if name in names and len(numbers) > 4 and all(map(str.isdecimal, numbers)):
            user, nice, system, idle, waiting, *others = map(int, numbers)
            counted[name] = (idle + waiting, sum((user, nice, system, idle, waiting, *others)))
    return counted


def wait_asleep() -> None:
    """Let waiting threads of OpenMP sleep soon, unless the caller has set how they wait.

    It sets an environment variable, which is read when torch is imported, so only the command line
    uses it.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in WAITING):
        os.environ["GOMP_SPINCOUNT"] = SPINS


def decoders() -> int:
    """Return the number of threads that decode images: by the settings, or one for each CPU.

    They sleep while they wait, so other processes or small feature maps do not reduce the number.
    """
    return asked.get() or usable()


def cpu_name() -> str:
    """Return the processor's name as the system gives it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _read(path: Path) -> str | None:
    """Read a small file of the system; None: it is missing or not readable."""
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return None
