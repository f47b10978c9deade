"""What the optimisers of a retraining share: few calls for all weights, a rate that may move.

Each operation is one call for all weights, since a GPU would wait for Python with a call for each.
A learning rate may be a number or a tensor (). A tensor stays in place while its value changes, so
the operations of a step are always the same and nothing of it is read back.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Descent(torch.optim.Optimizer):
    """An optimiser that moves all weights of a group at once.

    Attributes:
        kept: Names of the tensors that it keeps for every weight.
    """

    kept: tuple[str, ...]
    resumed: bool = False
    """Whether weights that were trained before must have their tensors already."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; return the value of the closure, which computes gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                gradients: Any = [weight.grad for weight in weights]
                if group["weight_decay"]:
                    decay = group["weight_decay"]
                    gradients = torch._foreach_add(gradients, weights, alpha=decay)
                self.descend(group, weights, gradients)
        return loss

    @abstractmethod
    def descend(self, group: dict[str, Any], weights: list[Tensor], gradients: Any) -> None:
        """Move weights, given their gradients with the decay."""

    def buffers(self, weights: list[Tensor], name: str, start: float) -> Any:
        """Return the tensors of this name that belong to weights, filled with `start` at first."""
        for weight in weights:
            if name not in self.state[weight]:
                self._refuse_lost(weight, name)
                self.state[weight][name] = torch.full_like(weight, start)
        return [self.state[weight][name] for weight in weights]

    def _refuse_lost(self, weight: Tensor, name: str) -> None:
        """Raise ValueError if a weight's tensor is missing though the weight was trained before.

        A weight that no image reaches has never had one; its gradient is missing or 0.
        """
        if self.resumed and weight.grad is not None and bool(weight.grad.any()):
            raise ValueError(
                f"the checkpoint lacks {name} of a weight of shape {tuple(weight.shape)} that was "
                "trained before, so it is damaged: restore it, or start the training again"
            )

    def rates(self, lr: Tensor) -> None:
        """Use one tensor () as the learning rate of all groups; its value may change."""
        for group in self.param_groups:
            group["lr"] = lr
