"""A network whose gradients are averaged over ranks while the backward pass goes on."""

from __future__ import annotations

import warnings
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tutelage import ranks
from tutelage.shares import average


def parallel(network: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """Return the network, or with several ranks torch's wrapper of it, which shares its weights.

    The wrapper waits for a gradient of every parameter that requires one. Parameters that no output
    depends on, such as an operation's before a `none`, therefore cease to require one. As in one
    process they have none, and stay as they are.

    Running statistics are those of the whole batch on every rank, so none are sent.

    Args:
        network: In training mode.
        shape: Of its images (C, H, W).
    """
    if ranks.count() == 1:
        return network
    for name in unused(network, shape):
        network.get_parameter(name).requires_grad_(False)
    # of kernels of size 1, whose strides in those dimensions mean nothing
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    kind: Any = DistributedDataParallel
    with ranks.exchanging():
        wrapped = kind(network, gradient_as_bucket_view=True)
    wrapped.broadcast_buffers = False  # as an argument, torch 2.13 warns of it
    return wrapped


def unused(network: nn.Module, shape: tuple[int, int, int]) -> list[str]:
    """Name the parameters that no output depends on, for images (C, H, W), without computing."""
    copy = deepcopy(network).to("meta")
    with ranks.apart():
        outputs = copy(torch.empty(2, *shape, device="meta"))
    nodes: list[Any] = [x.grad_fn for x in outputs if x is not None]
    seen = set(nodes)
    for node in nodes:  # grows as the graph is walked
        following = {each for each, _ in node.next_functions if each is not None} - seen
        seen |= following
        nodes += following
    reached = {id(node.variable) for node in nodes if hasattr(node, "variable")}
    return [name for name, x in copy.named_parameters() if id(x) not in reached]


@torch.no_grad()
def average_statistics(network: nn.Module) -> None:
    """Average running statistics over ranks of which each normalises by its own images.

    Both means and variances are averaged. They are means over steps already, so the average of
    every step is that of the last one, and a checkpoint changes nothing.
    """
    own = [x for x in network.buffers() if x.is_floating_point()]
    if own and ranks.count() > 1:
        torch._foreach_copy_(own, average(own))
