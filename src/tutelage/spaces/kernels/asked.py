"""Functions with derivatives of their own, and which of these a backward pass asks for."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import Function

_executes = getattr(torch._C, "_will_engine_execute_node", None)


class Closed(Function):
    """A Function whose derivatives are differentiable, called directly.

    Torch's own `apply` first looks for transforms of `torch.func`, which these Functions do not
    have. On small maps that takes a tenth of a step; where there is one, torch still refuses.
    """

    apply = torch._C._FunctionBase.__dict__["apply"]


def asked(ctx: Any) -> list[bool]:
    """Tell for each tensor that a Function took whether this backward pass asks its gradient.

    A Function's `needs_input_grad` says only that it could be asked. The product of an exact
    hypergradient asks no gradient of the weights, and its first pass none of the alphas. A gradient
    of a leaf counts as asked: the engine does not say.
    """
    nodes = [node for node, _ in ctx.next_functions]
    if _executes is None:
        return [node is not None for node in nodes]
    return [node is not None and (hasattr(node, "variable") or _executes(node)) for node in nodes]
