"""Tables of latencies without a clock: times that add up exactly, from FLOPs."""

from __future__ import annotations

import torch

from tutelage.records.latencies import Place, Timing
from tutelage.run.cost.count import flops
from tutelage.run.cost.latency import Target, names
from tutelage.run.measure import latency_table
from tutelage.run.measure.latency_table import Measurement

OVERHEAD = 0.01
"""Milliseconds of every call."""
RATE = 1e-5
"""Milliseconds of a FLOP."""


def by_flops(make, shape, device, timer):
    """Stands in for `latency_of`: a call takes a moment, and time by its FLOPs."""
    with torch.device("meta"):
        module = make().eval()
    time = OVERHEAD + RATE * shape[0] * flops(module, tuple(shape[1:]))
    return Timing(time, (0.9 * time, 1.1 * time), 50)


def place(**changed):
    """This machine's CPU as a place of measurements, with changes."""
    found = {"device": "cpu", "name": names("cpu")[0], "threads": 1, "batch": 1, "torch": "2"}
    return Place(**{**found, **changed})


def made(monkeypatch, path, space, size, image, **changed):
    """Write a table whose times are those of `by_flops`; return its target."""
    target = Target(space, size, image)
    with monkeypatch.context() as patch:
        patch.setattr(latency_table, "latency_of", by_flops)
        Measurement(path, target, place(**changed)).run(3, torch.device("cpu"), None)
    return target
