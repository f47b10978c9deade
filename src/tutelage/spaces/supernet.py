"""The supernet of DARTS' cells: mixed nodes in cells, cells between a stem and a classifier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from tutelage.spaces.base import PLAIN, ArchWeights, Edges, Size, Variant, check_shares
from tutelage.spaces.convolution import channels_last, pixel_mean
from tutelage.spaces.fused import BatchNorm, side_by_side
from tutelage.spaces.mixed import MixedNode, Project, Reduce
from tutelage.spaces.mixed_cell import OperationOutput, operation_outputs, run_cell
from tutelage.spaces.ops import Place, check_operations, entering, layout, stem
from tutelage.spaces.own import Operation
from tutelage.spaces.plan import Layout, Weights, weights_of
from tutelage.spaces.states import State, halves


def layouts_of(nodes: Sequence[int]) -> dict[int, Layout]:
    """Return the layout of a cell by the stride with which its inputs are read.

    Args:
        nodes: How many states each node of the cell reads.
    """
    reads = tuple(nodes)
    return {1: Layout(reads), 2: Layout(reads, halved=frozenset({0, 1}))}


class MixedCell(nn.Module):
    """A cell of the supernet: each of its nodes reads all states before it."""

    def __init__(
        self, edges: Edges, place: Place, variant: Variant, own: Sequence[Operation]
    ) -> None:
        """Build the cell at its place from the operation names of every edge."""
        super().__init__()
        self.stride, self.reduced = place.stride, place.reduced
        self.variant = variant
        before, last = place.inputs
        self.before = (Reduce if place.reduced else Project)(before, place.channels)
        self.last = Project(last, place.channels)
        self.nodes = nn.ModuleList()
        start = 0
        for sources in entering(edges):
            strides = [place.stride] * 2 + [1] * (sources - 2)
            rows = edges[start : start + sources]
            self.nodes.append(MixedNode(rows, strides, place.channels, variant, own))
            start += sources

    def forward(self, before: Tensor, last: Tensor, weights: Weights) -> Tensor:
        """Map two activated inputs to the nodes' channels, concatenated."""
        states = run_cell(list(self.nodes), self._inputs(before, last), weights, self.variant)
        return side_by_side([state.whole for state in states[2:]])

    def _inputs(self, before: Tensor, last: Tensor) -> list[State]:
        """Map the two activated inputs to the cell's channels and size."""
        first = self.before(halves(before) if self.reduced else before)
        return [State(x, self.stride, self.variant) for x in (first, self.last(last))]

    def outputs(
        self, before: Tensor, last: Tensor, group: str
    ) -> Generator[OperationOutput, None, Tensor]:
        """Yield the outputs of all operations of every edge, and return the cell's output."""
        states = self._inputs(before, last)
        states = yield from operation_outputs(group, self.nodes, states, self.variant)
        return side_by_side([state.whole for state in states[2:]])


class Supernet(nn.Module):
    """Cells of mixed operations between a stem and a classifier."""

    def __init__(
        self,
        edges: Mapping[str, Edges],
        size: Size,
        variant: Variant = PLAIN,
        own: Sequence[Operation] = (),
    ) -> None:
        """Build the network for the operation names of every edge of every group.

        They may be of the user's `own`.

        Raises:
            ValueError: The channels do not divide into the variant's shares, or there is no
                operation of a name.
        """
        super().__init__()
        names = (name for group in edges.values() for edge in group for name in edge)
        check_operations(names, own)
        check_shares(size, variant)
        self.edges = edges
        self.stem = stem(size, track=False)
        nodes = entering(next(iter(edges.values())))
        self.layouts = layouts_of(nodes)
        self.plan = layout(size, dict.fromkeys(edges, len(nodes)))
        self.cells = nn.ModuleList(
            MixedCell(edges[place.group], place, variant, own) for place in self.plan
        )
        self.auxiliary = variant.auxiliary_skip
        self.counts = Counter(place.group for place in self.plan)
        width = self.plan[-1].outputs
        norm = BatchNorm(width, track_running_stats=False)
        self.norm = norm if variant.final_norm else nn.Identity()
        self.classifier = nn.Linear(width, size.classes)
        self.final_norm = variant.final_norm

    def forward(self, x: Tensor, arch: ArchWeights) -> tuple[Tensor, Tensor]:
        """Map images (B, C, H, W) to logits (B, classes) and features (B, D)."""
        before = last = self.stem[0](channels_last(x)).relu()
        for part in self.stem[1:]:
            last = part(before).relu()
        output, weights = last, self._weights(arch)
        for place, cell in zip(self.plan, self.cells, strict=True):
            output = cell(before, last, next(weights[place.group]))
            before, last = last, output.relu()
        features = pixel_mean(self.norm(output).relu() if self.final_norm else output)
        return self.classifier(features), features

    def _weights(self, arch: ArchWeights) -> dict[str, Iterator[Weights]]:
        """Return the architecture weights of every group's cells, in their order."""
        layouts = {place.group: self.layouts[place.stride] for place in self.plan}
        return {
            group: iter(
                weights_of(
                    arch, group, self.edges[group], layout, self.counts[group], self.auxiliary
                )
            )
            for group, layout in layouts.items()
        }

    def outputs(self, x: Tensor) -> Iterator[OperationOutput]:
        """Yield the outputs of all operations of every edge for images (B, C, H, W)."""
        before = last = self.stem[0](channels_last(x)).relu()
        for part in self.stem[1:]:
            last = part(before).relu()
        cell: Any
        for place, cell in zip(self.plan, self.cells, strict=True):
            output = yield from cell.outputs(before, last, place.group)
            before, last = last, output.relu()
