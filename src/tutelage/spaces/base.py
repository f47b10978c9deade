"""The interface of spaces and searches: sizes, architecture weights, and a space's protocol."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from tutelage.renamed import keywords, old_name
from tutelage.spaces.genotype import Genotype

Stem = Literal["cifar", "imagenet"]


@keywords(form="stem")
@dataclass(frozen=True)
class Size:
    """The size of a network, its classes and its image channels."""

    channels: int = 16
    """Channels of the first cell, C."""
    cells: int = 8
    """Number of cells, L."""
    classes: int = 10
    """Number of classes."""
    image_channels: int = 3
    """Channels of an image: 1 for grey, 3 for colour."""
    stem: Stem = "cifar"
    """Stem and head: cifar keeps the image's resolution, imagenet divides it by 8, in chains by
    2, in resnet by 4."""

    def __post_init__(self) -> None:
        for name in ("channels", "cells", "classes", "image_channels"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} = {value}: must be at least 1")
        if self.stem not in ("cifar", "imagenet"):
            raise ValueError(f"stem = {self.stem!r}: must be 'cifar' or 'imagenet'")


SETTING = {"setting": True}
"""Metadata of the fields of a ready space that a user may set, as `--widths` of a chain."""

Edges = tuple[tuple[str, ...], ...]
"""Operation names of every edge of a cell, edges ordered by node, then by predecessor."""


Allowed = Mapping[str, Tensor]
"""For every group of choices, which operations may be derived, (edges, ops), bool."""


@dataclass(frozen=True)
class ArchWeights:
    """A relaxed architecture: the weight of every operation on every edge."""

    operations: Mapping[str, Tensor]
    """For every group of choices (normal, reduce), weights (edges, ops) of all its cells; or, to
    differentiate in those of each, (cells, edges, ops)."""
    chosen: Mapping[str, Sequence[Sequence[int]]] | None = None
    """For every group and edge, the operations that run, as ints; None: all of them."""
    edges: Mapping[str, Tensor] | None = None
    """For every group, a weight (edges,) of each whole edge; None: 1."""
    auxiliary: float = 0.0
    """Weight of a skip beside the operations of every edge, in spaces that have it (DARTS-)."""
    skip_dropout: float = 0.0
    """Share of the values of identity skips that dropout zeroes (P-DARTS)."""
    penalty: Tensor | None = None
    """A term that is added to the loss of the alphas, ()."""
    offsets: Mapping[str, Tensor] | None = None
    """For every group of cells, a number (edges,) added to all values of an edge's map; None: 0."""

    def without_zeros(self) -> ArchWeights:
        """Skip the operations whose weight is exactly zero (reads the values: one device sync)."""
        chosen = {
            group: [
                [op for op, weight in enumerate(row) if weight != 0] for row in weights.tolist()
            ]
            for group, weights in self.operations.items()
        }
        return replace(self, chosen=chosen)

    def only(self, allowed: Allowed | None) -> ArchWeights:
        """Return weights of -1, less than all others, for operations that are not allowed.

        Such an operation is derived only if there is no other. The other weights do not change, so
        the comparison of edges stays the same. None: all operations are allowed.
        """
        if allowed is None:
            return self
        left = {g: w.masked_fill(~allowed[g], -1.0) for g, w in self.operations.items()}
        return replace(self, operations=left)

    def products(self) -> dict[str, Tensor]:
        """Return every operation's weight times its edge's, (edges, ops) for each group."""
        if self.edges is None:
            return dict(self.operations)
        return {g: w * self.edges[g].unsqueeze(-1) for g, w in self.operations.items()}


@dataclass(frozen=True)
class Variant:
    """How a supernet differs from the space's default one, as a search needs it."""

    partial: int = 1
    """Operations see the first of so many shares of the channels (PC-DARTS' K)."""
    auxiliary_skip: bool = False
    """Whether every edge has a skip beside its operations (DARTS-)."""
    normalised_pools: bool = True
    """Whether pools are followed by a BatchNorm, in spaces that do so."""
    final_norm: bool = False
    """Whether a BatchNorm and a ReLU come before the global pooling."""


PLAIN = Variant()


class Sizes(NamedTuple):
    """Sizes of a space's networks in its papers."""

    channels: int
    """Channels of the supernet's first cell."""
    cells: int
    """Cells of the supernet."""
    final_channels: int
    """Channels of the first cell of the final network."""
    final_cells: int
    """Cells of the final network."""
    auxiliary: float
    """Weight of the loss of the final network's auxiliary head; 0: it has none."""
    fewest: int = 1
    """Fewest cells in which every choice of the space has a place."""


Image = tuple[int, int]
"""Height and width."""


def halved(image: Image) -> Image:
    """Return the size of an image after a stride of 2."""
    return (image[0] + 1) // 2, (image[1] + 1) // 2


class Slot(NamedTuple):
    """A place in a network where an operation is chosen."""

    group: str
    edge: int
    make: Callable[..., nn.Module]
    """Builds an operation from its name and the arguments."""
    arguments: tuple[Hashable, ...]
    shape: tuple[int, int, int]
    """Channels, height and width of the operation's input."""


class Space(Protocol):
    """A search space: builds supernets, and the networks of genotypes."""

    name: str
    operations: Mapping[str, Edges]
    """For every group of choices, the operations of every edge, in the order of the columns."""
    nodes: tuple[int, ...]
    """How many edges enter each node of a cell; edges are ordered by node."""
    variant: Variant
    """How supernets differ from the default, as the search needs it."""
    sizes: Sizes
    """Default sizes."""
    stages: int
    """Stages of a supernet that can run separately, forward (x, arch, stage); 0: none."""

    @property
    def choices(self) -> Mapping[str, tuple[int, int]]:
        """The (edges, ops) of every group of choices."""

    def varied(self, **changes: Any) -> Space:
        """Return the space with fields of its variant changed."""

    def narrowed(self, kept: Mapping[str, Sequence[Sequence[int]]]) -> Space:
        """Return the space with only some operations of every edge, by their columns."""

    def slots(self, size: Size, image: Image) -> Iterator[Slot]:
        """Yield every place of a stand-alone network where an operation is chosen."""

    def supernet(self, size: Size) -> nn.Module:
        """Build the network whose forward (x, arch) gives logits (B, classes), features (B, D).

        Where several cells share a group, its `counts` say how many do: the alignment of cells is
        measured from them.
        """

    def genotype(self, arch: ArchWeights) -> Genotype:
        """Derive the architecture of the largest weights."""

    def inherited(
        self, weights: Mapping[str, Tensor], genotype: Genotype
    ) -> dict[str, Tensor] | None:
        """Return the weights of a genotype's network from a supernet's, under the network's names.

        None: the supernet computes operations together, so its weights have other names.
        """

    def network(
        self, genotype: Genotype, size: Size, *, auxiliary: bool = False, drop_path: float = 0.0
    ) -> nn.Module:
        """Build the stand-alone network of a genotype."""


def __getattr__(name: str) -> Any:
    """Give the names that 0.1 had."""
    return old_name(__name__, name, {"Mix": "ArchWeights", "Form": "Stem"})


def nodes(genotype: Genotype) -> Iterator[tuple[str, range, list[tuple[int, str]]]]:
    """Yield group, entering edges and kept (edge, operation)s of every node of a genotype."""
    for group, cell in genotype.cells.items():
        start = 0
        for state, node in enumerate(cell.nodes, start=cell.inputs):
            entering, first = (1, state - 1) if cell.chained else (state, 0)
            rows = range(start, start + entering)
            yield group, rows, [(start + source - first, name) for name, source in node]
            start = rows.stop


def one_hot(space: Space, genotype: Genotype, like: Tensor) -> ArchWeights:
    """Return the architecture weights of a genotype: 1 for kept operations; no others run.

    With a supernet's weights it gives the function of the genotype's network, whose pools and
    skips the supernet may normalise. Its weights have the type and the device of `like`.
    """
    operations = {group: like.new_zeros(shape) for group, shape in space.choices.items()}
    edges = {group: like.new_zeros(count) for group, (count, _) in space.choices.items()}
    for group, _, kept in nodes(genotype):
        for edge, name in kept:
            operations[group][edge, space.operations[group][edge].index(name)] = 1
            edges[group][edge] = name != "none"  # `none` zeroes bypassed channels too
    return ArchWeights(operations, edges=edges).without_zeros()


def keeps_none(space: Space) -> bool:
    """Tell whether a network can keep `none`: its nodes keep all edges that enter them."""
    zeros = ArchWeights({group: torch.zeros(shape) for group, shape in space.choices.items()})
    return all(len(kept) == len(edges) for _, edges, kept in nodes(space.genotype(zeros)))


def narrow(operations: Mapping[str, Edges], kept: Mapping[str, Sequence[Sequence[int]]]) -> Any:
    """Keep some columns of every edge's operations."""
    return {
        group: tuple(
            tuple(names[column] for column in columns)
            for names, columns in zip(edges, kept[group], strict=True)
        )
        for group, edges in operations.items()
    }


def check_space(genotype: Genotype, name: str, layout: Mapping[str, Any] | None = None) -> None:
    """Refuse a genotype of another space, or of another layout if there is one.

    Raises:
        ValueError: It is.
    """
    if genotype.space != name:
        raise ValueError(
            f"a genotype of the space {genotype.space!r}: the space {name!r} builds only its own"
        )
    if layout is not None and any(layout.get(k) != x for k, x in genotype.layout.items()):
        raise ValueError(f"a genotype of {name} with another layout: build it by its own layout")


def check_shares(size: Size, variant: Variant) -> None:
    """Refuse channels that do not divide into the shares of a variant.

    Raises:
        ValueError: They do not divide.
    """
    if size.channels % variant.partial:
        raise ValueError(
            f"channels = {size.channels}: must be a multiple of {variant.partial}, since "
            f"operations see one in {variant.partial} of the channels"
        )
