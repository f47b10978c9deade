"""The conditions under which a run computes: its device, threads, arithmetic and kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tutelage import ranks, shares
from tutelage.config import Retrain, Run
from tutelage.run.job import agreement
from tutelage.run.machine import deterministic, threads
from tutelage.run.machine.device import arithmetic, device_named
from tutelage.spaces import kernels


@contextmanager
def conditions(settings: Run | Retrain, *, repeatable: bool) -> Iterator[torch.device]:
    """Set the conditions of a run, and restore the caller's at the end; yield the device.

    Args:
        settings: Those of the run.
        repeatable: Whether runs of this kind are deterministic on a GPU by default.

    Raises:
        ValueError: There is no such device, an operation has no deterministic form, or torchrun
            has started processes with different settings.
    """
    device = device_named(settings.device)
    with (
        threads.restored(settings.threads),
        arithmetic(settings.precision),
        deterministic.required(settings.deterministic, device, default=repeatable),
        kernels.allowed(settings.kernels == "auto"),
        ranks.joined(device),
        shares.statistics(settings.statistics == "batch"),
    ):
        agreement.same_start(settings, device)
        yield device
