"""NAS-Bench-201's space: one cell of six edges, repeated at three resolutions.

Dong, Yang: NAS-Bench-201: extending the scope of reproducible neural architecture search. ICLR
2020, arXiv:2001.00326. A cell has an input and three nodes; every node sums one operation of five
on each state before it: 5^6 = 15,625 cells. A network has three stages of N cells. Each stage is
twice as wide as the previous one, with a residual block of stride 2 between them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.spaces.base import (
    ArchWeights,
    Edges,
    Image,
    Size,
    Sizes,
    Slot,
    Variant,
    check_shares,
    check_space,
    halved,
    narrow,
)
from tutelage.spaces.convolution import Convolution, channels_last, pixel_mean
from tutelage.spaces.fused import BatchNorm
from tutelage.spaces.genotype import NASBENCH201_OPERATIONS, Cell, Genotype
from tutelage.spaces.headed import Headed, Probability
from tutelage.spaces.mixed import MixedNode
from tutelage.spaces.mixed_cell import OperationOutput, operation_outputs, run_cell
from tutelage.spaces.network import drop, never
from tutelage.spaces.ops import ReluConvolution, check_operations, operation
from tutelage.spaces.own import Operation, Page, Paged
from tutelage.spaces.plan import Layout, Weights, weights_of
from tutelage.spaces.states import State

GROUP = "cell"
PLAIN_201 = Variant(normalised_pools=False)
NODES = 3
"""Nodes of a cell; node i reads the cell's input and the i nodes before it."""
EDGES = sum(node + 1 for node in range(NODES))
LAYOUT = Layout(tuple(range(1, 1 + NODES)))
SIZES = Sizes(16, 5, 16, 5, auxiliary=0.0, fewest=1)
"""The sizes of the benchmark's networks."""


class Halve(nn.Module):
    """A residual block of stride 2 that doubles the channels."""

    def __init__(self, channels: int, *, affine: bool, track: bool) -> None:
        super().__init__()
        self.first = ReluConvolution(channels, 2 * channels, 3, 2)
        self.second = ReluConvolution(2 * channels, 2 * channels, 3)
        self.shortcut = Convolution(channels, 2 * channels, 1)
        for block in (self.first, self.second):
            block[2] = BatchNorm(2 * channels, affine=affine, track_running_stats=track)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, C, H, W) to (B, 2 C, H / 2, W / 2), rounded up."""
        return self.shortcut(F.avg_pool2d(x, 2, 2, ceil_mode=True)) + self.second(self.first(x))


class CellNetwork(nn.Module):
    """The cell of a genotype: every node sums one operation on each state before it."""

    def __init__(self, cell: Cell, channels: int, own: Sequence[Operation]) -> None:
        super().__init__()
        self.nodes = cell.nodes
        self.operations = nn.ModuleDict(
            {
                f"{source}-{node}": operation(name, channels, 1, own)
                for node, pairs in enumerate(cell.nodes, start=1)
                for name, source in pairs
            }
        )

    def forward(self, x: Tensor, drop_path: Probability) -> Tensor:
        """Map x (B, C, H, W) to the last node, with drop-path except on identities."""
        states = [x]
        for node, pairs in enumerate(self.nodes, start=1):
            total: Any = 0
            for name, source in pairs:
                y = self.operations[f"{source}-{node}"](states[source])
                whole = name == "skip_connect" or never(drop_path)
                total = total + (y if whole else drop(y, drop_path))
            states.append(total)
        return states[-1]


class MixedCell(nn.Module):
    """A cell of the supernet."""

    def __init__(
        self, edges: Edges, channels: int, variant: Variant, own: Sequence[Operation]
    ) -> None:
        super().__init__()
        self.variant = variant
        self.nodes = nn.ModuleList()
        start = 0
        for sources in range(1, 1 + NODES):
            rows = edges[start : start + sources]
            self.nodes.append(MixedNode(rows, [1] * sources, channels, variant, own))
            start += sources

    def forward(self, x: Tensor, weights: Weights) -> Tensor:
        """Map x (B, C, H, W) to the last node."""
        inputs = [State(x, 1, self.variant)]
        return run_cell(list(self.nodes), inputs, weights, self.variant)[-1].whole

    def outputs(self, x: Tensor) -> Generator[OperationOutput, None, Tensor]:
        """Yield the outputs of all operations of every edge, and return the last node."""
        states = yield from operation_outputs(
            GROUP, self.nodes, [State(x, 1, self.variant)], self.variant
        )
        return states[-1].whole


class Skeleton(nn.Module):
    """A network around its cells: stem, stages with halving blocks between, classifier."""

    def __init__(self, cell: Callable[[int], nn.Module], size: Size, *, track: bool) -> None:
        """Build it, with cells made from their channels; `track` is for stand-alone networks.

        Raises:
            ValueError: The stem is not cifar.
        """
        super().__init__()
        if size.stem != "cifar":
            raise ValueError(f"stem = {size.stem!r}: networks of nasbench201 have only 'cifar'")
        channels = size.channels
        convolution = Convolution(size.image_channels, channels, 3)
        norm = BatchNorm(channels, track_running_stats=track)
        self.stem = nn.Sequential(convolution, norm)
        widths = [channels, 2 * channels, 4 * channels]
        self.cells = nn.ModuleList(cell(width) for width in widths for _ in range(size.cells))
        self.halves = nn.ModuleList(Halve(width, affine=track, track=track) for width in widths[:2])
        self.per_stage = size.cells
        self.norm = BatchNorm(widths[-1], track_running_stats=track)
        self.classifier = nn.Linear(widths[-1], size.classes)

    def steps(self) -> Iterator[tuple[nn.Module, Any]]:
        """Yield every cell and the block before it: at a new stage, the halving block."""
        for index, cell in enumerate(self.cells):
            stage, place = divmod(index, self.per_stage)
            yield self.halves[stage - 1] if stage and not place else nn.Identity(), cell

    def last(self, x: Tensor, through: Any) -> Tensor:
        """Map images (B, C, H, W) to the last map (B, D, h, w); `through` goes to cells."""
        x = self.stem(x)
        for halve, cell in self.steps():
            x = cell(halve(x), through())
        return self.norm(x).relu()

    def maps(self, x: Tensor) -> list[Tensor]:
        """List the feature maps (B, C, H, W) of a stand-alone network after every stage."""
        x, found = self.stem(x), []
        for index, (halve, cell) in enumerate(self.steps()):
            x = cell(halve(x), 0.0)
            if index % self.per_stage == self.per_stage - 1:
                found.append(x)
        return found


class Network(Headed):
    """The stand-alone network of a genotype; in training mode it gives (logits, None)."""

    home = "skeleton"

    def __init__(
        self, cell: Cell, size: Size, drop_path: float = 0.0, own: Sequence[Operation] = ()
    ) -> None:
        super().__init__()
        self._begin(drop_path)
        self.skeleton = Skeleton(
            lambda channels: CellNetwork(cell, channels, own), size, track=True
        )
        self._end()

    @property
    def classifier(self) -> Any:
        """The linear map from features to logits."""
        return self.skeleton.classifier

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to the last feature map (B, D, h, w)."""
        drop_path = self.drop_path if self.training else 0.0
        return self.skeleton.last(x, lambda: drop_path)

    def maps(self, x: Tensor) -> list[Tensor]:
        """List the feature maps (B, C, H, W) after every stage."""
        return self.skeleton.maps(x)


class Supernet(nn.Module):
    """Stages of mixed cells between a stem and a classifier."""

    def __init__(
        self, edges: Edges, size: Size, variant: Variant, own: Sequence[Operation] = ()
    ) -> None:
        super().__init__()
        check_operations((name for names in edges for name in names), own)
        check_shares(size, variant)
        self.edges = edges
        self.skeleton = Skeleton(
            lambda channels: MixedCell(edges, channels, variant, own), size, track=False
        )
        self.auxiliary = variant.auxiliary_skip
        self.counts = {GROUP: len(self.skeleton.cells)}

    def forward(self, x: Tensor, arch: ArchWeights) -> tuple[Tensor, Tensor]:
        """Map images (B, C, H, W) to logits (B, classes) and features (B, D)."""
        shape = (self.edges, LAYOUT, self.counts[GROUP])
        weights = iter(weights_of(arch, GROUP, *shape, auxiliary=self.auxiliary))
        features = pixel_mean(self.skeleton.last(channels_last(x), lambda: next(weights)))
        return self.skeleton.classifier(features), features

    def outputs(self, x: Tensor) -> Iterator[OperationOutput]:
        """Yield the outputs of all operations of every edge for images (B, C, H, W)."""
        x = self.skeleton.stem(channels_last(x))
        for halve, cell in self.skeleton.steps():
            x = yield from cell.outputs(halve(x))


@dataclass(frozen=True)
class NasBench201(Paged):
    """NAS-Bench-201's space."""

    operations: Mapping[str, Edges]
    """The operations of the six edges: by node, then by predecessor."""
    name: str = "nasbench201"
    variant: Variant = PLAIN_201
    """How supernets differ from the default, as the search needs it."""
    sizes: Sizes = SIZES
    """Default sizes; cells are counted for each of the three stages."""
    page: Page | None = None
    """The page of TOML that describes the space; None: it has a name instead."""
    nodes: ClassVar[tuple[int, ...]] = tuple(range(1, 1 + NODES))
    stages: ClassVar[int] = 0

    @property
    def choices(self) -> Mapping[str, tuple[int, int]]:
        """The (edges, ops) of the cell."""
        return {GROUP: (EDGES, len(self.operations[GROUP][0]))}

    def varied(self, **changes: Any) -> NasBench201:
        """Return the space with fields of its variant changed."""
        return replace(self, variant=replace(self.variant, **changes))

    def narrowed(self, kept: Mapping[str, Sequence[Sequence[int]]]) -> NasBench201:
        """Return the space with only some operations of every edge, by their columns."""
        return replace(self, operations=narrow(self.operations, kept))

    def slots(self, size: Size, image: Image) -> Iterator[Slot]:
        """Yield every edge of every cell."""
        for stage in range(3):
            channels = size.channels << stage
            arguments = (channels, 1, self.own)
            for _ in range(size.cells):
                for edge in range(EDGES):
                    yield Slot(GROUP, edge, operation, arguments, (channels, *image))
            image = halved(image)

    def supernet(self, size: Size) -> Supernet:
        """Build the network whose forward (x, arch) gives logits (B, classes), features (B, D)."""
        return Supernet(self.operations[GROUP], size, self.variant, self.own)

    def genotype(self, arch: ArchWeights) -> Genotype:
        """Derive the strongest operation of every edge, `none` included."""
        columns = arch.products()[GROUP].argmax(-1).tolist()
        names = iter(
            edge[column] for edge, column in zip(self.operations[GROUP], columns, strict=True)
        )
        nodes = tuple(
            tuple((next(names), source) for source in range(node + 1)) for node in range(NODES)
        )
        return Genotype(self.name, {GROUP: Cell(nodes, concat=(NODES,), inputs=1)}, self.layout)

    def inherited(self, weights: Mapping[str, Tensor], genotype: Genotype) -> None:
        """Return None: the supernet computes operations together."""

    def network(
        self, genotype: Genotype, size: Size, *, auxiliary: bool = False, drop_path: float = 0.0
    ) -> Network:
        """Build the stand-alone network of a genotype.

        Raises:
            ValueError: The genotype is of another space, or an auxiliary head is requested.
        """
        check_space(genotype, self.name, self.layout)
        if auxiliary:
            raise ValueError(f"networks of {self.name} have no auxiliary head: give --auxiliary 0")
        return Network(genotype.cells[GROUP], size, drop_path, self.own)


NASBENCH201 = NasBench201({GROUP: (NASBENCH201_OPERATIONS,) * EDGES})
"""NAS-Bench-201's cell: six edges with five operations each, at three resolutions."""
