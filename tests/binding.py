"""Searches bound to spaces, as a supernet needs them."""

from __future__ import annotations

from functools import partial
from math import nan

import torch

from tutelage.run.networks.relaxation import BoundAlphas, BoundPaths


def binder(search, flops=lambda genotype: nan):
    """What binds a search to the space of a supernet, on the CPU."""
    cpu = torch.device("cpu")
    if search.kind == "one-shot":
        return partial(BoundPaths, search, device=cpu, flops=flops)
    return partial(BoundAlphas, search, device=cpu)
