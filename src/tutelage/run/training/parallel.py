"""A network whose gradients are averaged over ranks while the backward pass goes on."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tutelage import ranks
from tutelage.shares import average


def parallel(network: nn.Module) -> nn.Module:
    """Return the network, or with several ranks torch's wrapper of it, which shares its weights.

    Running statistics are those of the whole batch on every rank, so none are sent.
    """
    if ranks.count() == 1:
        return network
    # of kernels of size 1, whose strides in those dimensions mean nothing
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    kind: Any = DistributedDataParallel
    with ranks.exchanging():
        wrapped = kind(network, gradient_as_bucket_view=True)
    wrapped.broadcast_buffers = False  # as an argument, torch 2.13 warns of it
    return wrapped


@torch.no_grad()
def average_statistics(network: nn.Module) -> None:
    """Average running statistics over ranks of which each normalises by its own images.

    Both means and variances are averaged. They are means over steps already, so the average of
    every step is that of the last one, and a checkpoint changes nothing.
    """
    own = [x for x in network.buffers() if x.is_floating_point()]
    if own and ranks.count() > 1:
        torch._foreach_copy_(own, average(own))
