"""RMSProp as TensorFlow computes it, which the papers of MBConv networks train with.

Tieleman & Hinton, Lecture 6.5 of "Neural networks for machine learning", 2012; used by
MobileNetV2, EfficientNet, Cream and DNA. With a gradient g that includes the weight decay,

    s <- decay s + (1 - decay) g^2,   b <- momentum b + lr g / sqrt(s + epsilon),   w <- w - b.

Deviations: `torch.optim.RMSprop` starts s at 0 where TensorFlow starts at 1, adds epsilon outside
the root, and multiplies the whole buffer b by the present learning rate. At the papers'
epsilon = 0.001 the two are different optimisers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

import torch
from torch import Tensor

from tutelage.run.training.descent import Descent


@final
class RMSProp(Descent):
    """TensorFlow's RMSProp with momentum."""

    kept = ("square", "buffer")

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        *,
        momentum: float = 0.9,
        decay: float = 0.9,
        epsilon: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "decay": decay,
            "epsilon": epsilon,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    def descend(self, group: dict[str, Any], weights: list[Tensor], gradients: Any) -> None:
        """Move weights, given their gradients with the decay."""
        squares = self.buffers(weights, "square", 1.0)
        buffers = self.buffers(weights, "buffer", 0.0)
        torch._foreach_mul_(squares, group["decay"])
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - group["decay"])
        roots = torch._foreach_add(squares, group["epsilon"])
        torch._foreach_sqrt_(roots)
        moves = torch._foreach_div(gradients, roots)
        torch._foreach_mul_(moves, group["lr"])
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, moves)
        torch._foreach_sub_(weights, buffers)
