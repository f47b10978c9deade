"""Which gradients a backward pass asks of a Function."""

from __future__ import annotations

from typing import Any

import torch

_executes = getattr(torch._C, "_will_engine_execute_node", None)


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
