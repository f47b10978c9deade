"""A supernet with wider or fewer operations, from a trained one.

A new channel of an operation is a copy of a random old one: the kernels that write the channel and
the weights that read it are copied. This is the widening of Net2Net (Chen,
Goodfellow, Shlens: Net2Net: accelerating learning via knowledge transfer. ICLR 2016,
arXiv:1511.05641) as DrNAS uses it between its phases (Chen et al., ICLR 2021, arXiv:2006.10355),
with a map g from new to old channels, the identity on the old ones:

    W'[o, i] = W[g(o), g(i)]

Net2Net divides W'[o, i] by the number of copies of g(i), so that the function stays the same where
new inputs repeat old ones. DrNAS does not, and neither does this file. With partial channels the
new inputs are not copies but channels that bypassed the operations before, and after the BatchNorm
that follows every product only the relative weight of its inputs counts. If all channels are copied
equally often, both give the same function, up to the BatchNorm's epsilon.

Deviations: in the release every tensor samples its own copies, except that a 1x1 convolution uses
those of the depthwise convolution before it. Here all operations of a node share one map, so that a
copied channel has the same origin in each of them. Only the halves of a strided skip, which write
channels of different pixels, are copied within each half.
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
    """Make a function that maps one supernet's tensors to those of another.

    The copied channels are sampled from torch's global generator here and not in the function, so
    that weights, momentum and averages get the same copies.

    Args:
        old: A supernet.
        new: A supernet of the same space and size, with some of the operations of `old`, at least
            as wide.

    Returns:
        A function of tensors by the old parameters' names, which returns them by the new names.
        Tensors outside of the mixed nodes are returned as they are.

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
    """List the new node's parameters, each with a function of the old node's parameter."""
    channels = _copies(old.seen, new.seen)
    maps = {(old.seen, new.seen): channels}
    for kind in new.stacks:
        before: Any = old.stacks[kind]  # nn.ModuleDict does not type its items
        after: Any = new.stacks[kind]
        rows = [before.edges.index(edge) for edge in after.edges]
        take = partial(_taken, count=len(before.edges), rows=rows, outputs=channels)
        for name, _ in after.named_parameters():
            inputs = None if name.startswith("depthwise") else channels
            yield f"stacks.{kind}.{name}", partial(take, inputs=inputs)
    for name, weight in new.named_parameters():
        if name.startswith("own."):
            before = old.get_parameter(name).shape
            for sizes in zip(before, weight.shape, strict=True):
                if sizes not in maps:
                    maps[sizes] = _copies(*sizes)
            yield name, partial(_spread, before, weight.shape, maps)
        elif not name.startswith("stacks."):
            outputs = _copies(len(old.get_parameter(name)), len(weight))
            yield name, partial(_taken, count=1, rows=[0], outputs=outputs, inputs=channels)


def _copies(old: int, new: int) -> Tensor:
    """Sample which old channel each new one copies, (new,); the first are the old channels."""
    if new < old:
        raise ValueError(
            f"operations with {new} channels cannot follow operations with {old}: a phase that "
            "continues may see more channels (a smaller partial), not fewer"
        )
    return torch.cat([torch.arange(old), torch.randint(old, (new - old,))])


def _spread(
    old: Sequence[int], new: Sequence[int], maps: dict[tuple[int, int], Tensor], parameter: Tensor
) -> Tensor:
    """Widen a parameter of one's own operation in every dimension that has grown.

    `maps` has for an old and a new size which entry is copied; one for all dimensions of these
    sizes, so that a channel has the same origin in all parameters of the node.
    """
    for dimension, sizes in enumerate(zip(old, new, strict=True)):
        if sizes[0] != sizes[1]:
            parameter = parameter.index_select(dimension, maps[sizes].to(parameter.device))
    return parameter


def _taken(
    parameter: Tensor, count: int, rows: Sequence[int], outputs: Tensor, inputs: Tensor | None
) -> Tensor:
    """Select channels of some of the `count` blocks of a first dimension, one for each edge."""
    blocks = parameter.unflatten(0, (count, -1))[rows]
    taken = blocks[:, outputs.to(parameter.device)].flatten(0, 1)
    return taken if inputs is None else taken[:, inputs.to(parameter.device)]
