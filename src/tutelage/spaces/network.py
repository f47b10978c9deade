"""The stand-alone network of a genotype of cells, with DARTS' CIFAR or ImageNet stem.

It has ordinary modules: BatchNorm has an affine part and running statistics. In training mode the
network returns (logits, auxiliary logits or None), unless `logits_alone` is set; in evaluation mode
only logits, as an export needs. `network.drop_path` and `network.dropout` are plain numbers that a
trainer may set; the first may also be a tensor (), for a step whose operations do not change with
it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage import shares
from tutelage.spaces.base import Size, Stem
from tutelage.spaces.fused import BatchNorm
from tutelage.spaces.genotype import Cell, Genotype, Node
from tutelage.spaces.headed import Headed, Probability
from tutelage.spaces.ops import (
    FactorizedReduce,
    Place,
    ReluConvolution,
    layout,
    operation,
    stem,
)
from tutelage.spaces.own import Operation

WINDOWS: dict[Stem, tuple[int, int, int]] = {"cifar": (8, 5, 3), "imagenet": (7, 5, 2)}
"""Side of the input map of DARTS' auxiliary head; size and stride of its pooling window."""


def drop(x: Tensor, probability: Probability) -> Tensor:
    """Zero whole images of x (B, C, H, W) at random and scale up the others (drop-path)."""
    keep = 1 - probability
    mask = shares.random_like(x[:, :1, :1, :1], lambda empty: empty.bernoulli_(keep))
    return x / keep * mask


def never(probability: Probability) -> bool:
    """Tell whether a probability is the number 0; the value of a tensor is not read."""
    return not isinstance(probability, Tensor) and probability == 0


class NodeNetwork(nn.Module):
    """A node of a genotype's cell: the sum of its operations."""

    def __init__(self, node: Node, place: Place, own: Sequence[Operation]) -> None:
        """Build the node in a cell at this place."""
        super().__init__()
        strides = [place.stride if source < 2 else 1 for _, source in node]
        pairs = list(zip(node, strides, strict=True))
        self.sources = [source for _, source in node]
        self.identity = [name == "skip_connect" and stride == 1 for (name, _), stride in pairs]
        self.operations = nn.ModuleList(
            operation(name, place.channels, stride, own) for (name, _), stride in pairs
        )

    def forward(self, states: Sequence[Tensor], drop_path: Probability) -> Tensor:
        """Sum the operations on the states that they read; drop-path except on identities."""
        paths = []
        for module, source, identity in zip(
            self.operations, self.sources, self.identity, strict=True
        ):
            x = module(states[source])
            paths.append(x if identity or never(drop_path) else drop(x, drop_path))
        return sum(paths[1:], start=paths[0])


class CellNetwork(nn.Module):
    """One cell of a genotype."""

    def __init__(self, cell: Cell, place: Place, own: Sequence[Operation]) -> None:
        """Build the cell at its place."""
        super().__init__()
        before, last = place.inputs
        preprocess = FactorizedReduce if place.reduced else ReluConvolution
        self.before = preprocess(before, place.channels)
        self.last = ReluConvolution(last, place.channels)
        self.nodes = nn.ModuleList(NodeNetwork(node, place, own) for node in cell.nodes)
        self.concat = cell.concat

    def forward(self, before: Tensor, last: Tensor, drop_path: Probability) -> Tensor:
        """Map two inputs to the concatenated nodes, with this probability of drop-path."""
        states = [self.before(before), self.last(last)]
        for node in self.nodes:
            states.append(node(states, drop_path))
        return torch.cat([states[state] for state in self.concat], dim=1)


def quarters(x: Tensor) -> Tensor:
    """Average the quarters of x (B, C, H, W), which overlap by the middle of odd sides: (.., 2, 2).

    It equals `F.adaptive_avg_pool2d(x, 2)`, whose derivative has no deterministic form on CUDA.
    """
    height, width = x.shape[-2:]
    x = x.expand(-1, -1, max(2, height), max(2, width))  # of a single row both halves are this row
    height, width = x.shape[-2:]
    window, stride = (-(-height // 2), -(-width // 2)), (height // 2, width // 2)
    return F.avg_pool2d(x, window, stride)


class AuxiliaryHead(nn.Module):
    """A second classifier, on the output of the cell at two thirds of the depth."""

    def __init__(self, channels: int, size: Size) -> None:
        """Build the head for maps of `channels` channels."""
        super().__init__()
        self.side, self.window, self.stride = WINDOWS[size.stem]
        self.first = nn.Sequential(nn.Conv2d(channels, 128, 1, bias=False), BatchNorm(128))
        self.second = nn.Sequential(nn.Conv2d(128, 768, 2, bias=False))
        if size.stem == "cifar":
            # DARTS' ImageNet head has no BatchNorm here, and its published figures depend on it
            self.second.append(BatchNorm(768))
        self.classifier = nn.Linear(768, size.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, C, H, W) to logits (B, classes)."""
        x = x.relu()
        own = x.shape[-2:] == (self.side, self.side)
        x = F.avg_pool2d(x, self.window, self.stride) if own else quarters(x)
        x = self.second(self.first(x).relu()).relu()
        return self.classifier(x.flatten(1))


class Network(Headed):
    """Stem, cells, classifier."""

    def __init__(
        self,
        genotype: Genotype,
        size: Size,
        *,
        auxiliary: bool = False,
        drop_path: float = 0.0,
        own: Sequence[Operation] = (),
    ) -> None:
        """Build the network, with an auxiliary head if `auxiliary`.

        The genotype may have operations of the user's `own`.
        """
        super().__init__()
        self._begin(drop_path)
        self.stem = stem(size)
        widths = {group: len(cell.concat) for group, cell in genotype.cells.items()}
        plan = layout(size, widths)
        self.cells = nn.ModuleList(
            CellNetwork(genotype.cells[place.group], place, own) for place in plan
        )
        self.tap = 2 * size.cells // 3
        groups = [place.group for place in plan]
        self.ends = [k for k, after in enumerate([*groups[1:], "reduce"]) if after == "reduce"]
        self.auxiliary = AuxiliaryHead(plan[self.tap].outputs, size) if auxiliary else None
        self.classifier = nn.Linear(plan[-1].outputs, size.classes)
        self._end()

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor | None]:
        """Map images (B, C, H, W) to logits (B, classes), in training with auxiliary logits."""
        last, states = self._run(x)
        logits = self.forward_head(last)
        if not self.training or self.logits_alone:
            return logits
        return logits, None if self.auxiliary is None else self.auxiliary(states[self.tap])

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to the output (B, D, h, w) of the last cell."""
        return self._run(x)[0]

    def maps(self, x: Tensor) -> list[Tensor]:
        """List the feature maps (B, C, H, W) before every reduction, and the last one."""
        states = self._run(x)[1]
        return [states[end] for end in self.ends]

    def _run(self, x: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """Return the output of the last cell, and those of some cells."""
        before = last = self.stem[0](x)
        for part in self.stem[1:]:
            last = part(before)
        drop_path = self.drop_path if self.training else 0.0
        states = {}
        for index, cell in enumerate(self.cells):
            before, last = last, cell(before, last, drop_path)
            if index == self.tap or index in self.ends:
                states[index] = last
        return last, states
