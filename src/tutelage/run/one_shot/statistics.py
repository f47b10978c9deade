"""The running statistics of BatchNorm, measured again for an architecture.

They are means over batches of the batches' means and variances. On a GPU several batches run at
once: each is still normalised by its own statistics, so the result does not depend on how many.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

from tutelage.batch import Batch


@torch.no_grad()
def recalibrate(
    network: nn.Module, batches: Iterable[Batch], batch_size: int | None = None
) -> None:
    """Set the BatchNorm statistics of a network to their mean over batches, weighted by images.

    Args:
        network: It is in training mode afterwards.
        batches: Images of one batch, or of several whole ones.
        batch_size: Images of a batch; None: each of `batches` is one.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
    network.train()
    done = 0  # images
    for x, _, _ in batches:
        count = max(1, len(x) // (batch_size or len(x)))
        for norm in norms:
            # a plain mean; torch's own (None) would read its counter back in every layer
            norm.momentum = len(x) / (done + len(x))
            if count > 1:
                norm.forward = partial(normalised, norm, count, done)  # type: ignore[method-assign]
        network(x)
        for norm in norms if count > 1 else ():
            del norm.forward
        done += len(x)


def normalised(norm: nn.BatchNorm2d, count: int, done: int, x: Tensor) -> Tensor:
    """Normalise x (count * B, C, H, W), each batch by itself, and update the running means.

    Args:
        norm: The layer.
        count: How many batches x has.
        done: How many images the running statistics have seen before.
        x: Maps.
    """
    parts = x.unflatten(0, (count, -1))
    variance, mean = torch.var_mean(parts, dim=(1, 3, 4), correction=0)  # (count, C)
    size = parts.numel() // mean.numel()
    weight = len(x) / (done + len(x))
    for running, values in (
        (norm.running_mean, mean),
        (norm.running_var, variance * (size / (size - 1))),
    ):
        running.lerp_(values.mean(0), weight)  # type: ignore[union-attr]
    scale = (variance + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    across = (slice(None), None, slice(None), None, None)
    y = (parts - mean[across]) * scale[across]
    y = y if norm.bias is None else y + norm.bias[:, None, None]
    return y.flatten(0, 1)
