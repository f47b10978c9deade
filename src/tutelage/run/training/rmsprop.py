"""RMSProp as TensorFlow computes it, which the papers of MBConv networks train with.

Tieleman & Hinton, Lecture 6.5 of "Neural networks for machine learning", 2012; used by
MobileNetV2, EfficientNet, Cream and DNA. With a gradient g that includes the weight decay,

    s <- decay s + (1 - decay) g^2,   b <- momentum b + lr g / sqrt(s + epsilon),   w <- w - b.

Deviations: `torch.optim.RMSprop` starts s at 0 where TensorFlow starts at 1, adds epsilon outside
the root, and multiplies the whole buffer b by the present learning rate. At the papers'
epsilon = 0.001 the two are different optimisers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor


@final
class RMSProp(torch.optim.Optimizer):
    """TensorFlow's RMSProp with momentum."""

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

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; return the value of the closure, which computes gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._descend(group)
        return loss

    def _descend(self, group: dict[str, Any]) -> None:
        weights = [weight for weight in group["params"] if weight.grad is not None]
        if not weights:
            return
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["square"] = torch.ones_like(weight)
                self.state[weight]["buffer"] = torch.zeros_like(weight)
        squares = [self.state[weight]["square"] for weight in weights]
        buffers = [self.state[weight]["buffer"] for weight in weights]
        gradients: Any = [weight.grad for weight in weights]
        # Few calls for all weights: with a call for each, a GPU would wait for Python.
        if group["weight_decay"]:
            gradients = torch._foreach_add(gradients, weights, alpha=group["weight_decay"])
        torch._foreach_mul_(squares, group["decay"])
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - group["decay"])
        roots = torch._foreach_add(squares, group["epsilon"])
        torch._foreach_sqrt_(roots)
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_addcdiv_(buffers, gradients, roots, group["lr"])
        torch._foreach_sub_(weights, buffers)
