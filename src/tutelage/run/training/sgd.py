"""SGD with momentum, as `torch.optim.SGD` computes it.

With a gradient g that includes the weight decay,

    b <- momentum b + g,   w <- w - lr b,   or by Nesterov's rule   w <- w - lr (g + momentum b).

`torch.optim.SGD` reads a learning rate that is a tensor back from the GPU, except in a fused form
that exists on some devices only. Its checkpoints can be loaded here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

import torch
from torch import Tensor

from tutelage.run.training.descent import Descent


@final
class SGD(Descent):
    """SGD with momentum."""

    kept = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults | {"nesterov": nesterov})

    def descend(self, group: dict[str, Any], weights: list[Tensor], gradients: Any) -> None:
        """Move weights, given their gradients with the decay."""
        step, momentum = gradients, group["momentum"]
        if momentum:
            step = self.buffers(weights, "momentum_buffer", 0.0)
            torch._foreach_mul_(step, momentum)
            torch._foreach_add_(step, gradients)
        if momentum and group["nesterov"]:
            step = torch._foreach_add(gradients, step, alpha=momentum)
        torch._foreach_sub_(weights, torch._foreach_mul(step, group["lr"]))
