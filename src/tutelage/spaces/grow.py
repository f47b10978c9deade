"""A supernet with wider or fewer operations, from one that has learnt.

A new channel of an operation is a copy of a random old one, in everything that the channel is made
of: the kernels that write it and the weights that read it. That is the widening of Net2Net (Chen,
Goodfellow, Shlens: Net2Net: accelerating learning via knowledge transfer. ICLR 2016,
arXiv:1511.05641) as DrNAS uses it between its phases (Chen et al., ICLR 2021, arXiv:2006.10355),
with a map g from new to old channels, the identity on those that were there:

    W'[o, i] = W[g(o), g(i)]

Net2Net divides W'[o, i] by the number of copies of g(i), so that the function stays the same where
new inputs repeat old ones. DrNAS does not, and nor do we: with partial channels the new inputs are
not copies but channels that passed by so far, and after the BatchNorm that follows every product
only the relative weight of its inputs counts. If all channels are copied equally often, the two are
the same function (but for the BatchNorm's epsilon).

Deviations: in the release every tensor draws copies of its own, save that the 1x1 convolution after
a depthwise one follows it; here all operations of a node share one map, so that a copied channel
has the same past in each of them. Only the halves of a strided skip, which write channels of
different pixels, each keep to themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.spaces.mixed import MixedNode

Weights = Mapping[str, Tensor]
"""Tensors by the names of a module's parameters."""


def grow(old: nn.Module, new: nn.Module) -> Callable[[Weights], dict[str, Tensor]]:
    """Make the function that turns what belongs to one supernet into what belongs to another.

    Draws which channels are copied from torch's global generator, here and not in the function, so
    that weights, momentum and drafts all get the same copies.

    Args:
        old: A supernet.
        new: One of the same space and size whose operations are among those of the former, at
            least as wide.

    Returns:
        A function of tensors by the old parameters' names, which gives them by the new ones'. What
        lies outside of the mixed nodes it hands through.

    Raises:
        ValueError: The new operations are narrower.
    """
    before = dict(_nodes(old))
    changes = {
        f"{place}.{name}": change
        for place, node in _nodes(new)
        for name, change in _changes(before[place], node)
    }
    names = [name for name, _ in new.named_parameters()]

    def grown(weights: Weights) -> dict[str, Tensor]:
        return {
            name: changes[name](weights[name]) if name in changes else weights[name]
            for name in names
        }

    return grown


def _nodes(supernet: nn.Module) -> Iterator[tuple[str, MixedNode]]:
    """List the mixed nodes that have parameters, and their names."""
    for name, module in supernet.named_modules():
        if isinstance(module, MixedNode) and any(True for _ in module.parameters()):
            yield name, module


def _changes(old: MixedNode, new: MixedNode) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """List the new node's parameters, and what makes each of the old node's."""
    channels = _copies(_width(old), _width(new))
    for kind in new.stacks:
        before: Any = old.stacks[kind]  # nn.ModuleDict is not typed for what it holds
        after: Any = new.stacks[kind]
        rows = [before.edges.index(edge) for edge in after.edges]
        take = partial(_taken, count=len(before.edges), rows=rows, outputs=channels)
        for name, _ in after.named_parameters():
            inputs = None if name.startswith("depthwise") else channels
            yield f"stacks.{kind}.{name}", partial(take, inputs=inputs)
    for name, weight in new.named_parameters():
        if not name.startswith("stacks"):
            outputs = _copies(len(old.get_parameter(name)), len(weight))
            yield name, partial(_taken, count=1, rows=[0], outputs=outputs, inputs=channels)


def _width(node: MixedNode) -> int:
    """Return how many channels the node's operations read; depthwise kernels say 1."""
    return max(parameter.shape[1] for parameter in node.parameters())


def _copies(old: int, new: int) -> Tensor:
    """Draw which old channel each new one copies, (new,); the first are the old ones."""
    if new < old:
        raise ValueError(
            f"operations with {new} channels cannot follow ones with {old}: a phase that carries "
            "on may see more channels (a smaller partial), not fewer"
        )
    return torch.cat([torch.arange(old), torch.randint(old, (new - old,))])


def _taken(
    parameter: Tensor, count: int, rows: Sequence[int], outputs: Tensor, inputs: Tensor | None
) -> Tensor:
    """Take channels of some of the `count` blocks, one an edge, that a first dimension holds."""
    blocks = parameter.unflatten(0, (count, -1))[rows]
    taken = blocks[:, outputs.to(parameter.device)].flatten(0, 1)
    return taken if inputs is None else taken[:, inputs.to(parameter.device)]
