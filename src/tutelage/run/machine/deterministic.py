"""Deterministic algorithms on CUDA: the same seed and the same card give the same bits.

Some CUDA kernels add numbers in the order in which threads come, and cuDNN chooses a convolution's
algorithm by measuring. Torch has a switch for both. Nothing of this is needed on a CPU, where runs
repeat to the bit with the same number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import torch

WORKSPACE: Final = "CUBLAS_WORKSPACE_CONFIG"
"""The variable by which cuBLAS promises repeatable sums; it is read before the first product."""
REPEATABLE: Final = (":4096:8", ":16:8")
"""Its values that do; the first one is set if there is none."""

_memory: Any = torch.utils.deterministic
_present: ContextVar[bool | None] = ContextVar("determinism of the present run", default=None)


@contextmanager
def required(asked: bool | None, device: torch.device, *, default: bool) -> Iterator[None]:
    """Require deterministic algorithms of a GPU, and restore the caller's settings at the end.

    On a CPU nothing changes. The context must begin before the run's first work on the GPU.

    Args:
        asked: The setting; None: as `default`.
        device: The device of the run.
        default: Whether runs of this kind are deterministic by default.

    Raises:
        ValueError: An operation has no deterministic form.
    """
    if device.type != "cuda":
        yield
        return
    on = default if asked is None else asked
    recorded, restore = _present.set(on), _restorer() if on else None
    try:
        if on:
            _switch_on()
        yield
    except RuntimeError as error:
        operation, found, _ = str(error).partition(" does not have a deterministic implementation")
        if not (on and found):
            raise
        raise ValueError(
            f"{operation} has no deterministic form on CUDA: give --no-deterministic"
        ) from error
    finally:
        if restore:
            restore()
        _present.reset(recorded)


def present() -> bool | None:
    """Tell whether the present run is deterministic on its GPU; None: it runs on a CPU."""
    return _present.get()


def _switch_on() -> None:
    value = os.environ.setdefault(WORKSPACE, REPEATABLE[0])
    if value not in REPEATABLE:
        print(
            f"{WORKSPACE} is {value}, with which matrix products may differ from run to run: "
            f"{REPEATABLE[0]} is used",
            flush=True,
        )
        os.environ[WORKSPACE] = REPEATABLE[0]
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    # else every new tensor is filled with NaN, at the cost of a kernel; nothing here reads it first
    _memory.fill_uninitialized_memory = False


def _restorer() -> Callable[[], None]:
    """Return what restores the present settings."""
    workspace, fill = os.environ.get(WORKSPACE), _memory.fill_uninitialized_memory
    algorithms = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark

    def restore() -> None:
        if workspace is None:
            os.environ.pop(WORKSPACE, None)
        else:
            os.environ[WORKSPACE] = workspace
        torch.use_deterministic_algorithms(algorithms, warn_only=warns)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
        _memory.fill_uninitialized_memory = fill

    return restore
