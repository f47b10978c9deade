"""Chains: layers one after the other, each a choice among blocks.

These are the spaces of one-shot search: EnNAS' (MBConv, with identity for depth, with
ShuffleNetV2's blocks), Single Path One-Shot's, Cream's, DNA's and NAS-Bench-Macro's; and ResNets.
All are one class with different settings, which a genotype stores as its layout.

    stem: convolution 3x3 · fixed first block (mbconv1_3x3) · stages of searched layers ·
    convolution 1x1 · global pooling · classifier

The stem `imagenet` halves the image, ResNet's twice; the stem `cifar` keeps its size. The first
layer of a stage has the stage's stride and changes the width. If a network's channels differ from
its space's, all widths change in proportion.

Deviations: EnNAS does not print depths, widths, activation or squeeze-and-excitation; s1 has
Cream's, without squeeze-and-excitation. Cream chooses depths by a table from a target of FLOPs;
here identity blocks do. DNA doubles the width at the end of a stage to match its teacher's; here
all layers of a stage have one width, and the method maps features to the teacher's width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

from torch import Tensor

from tutelage.checks import at_least, known_choices, listed, nearest
from tutelage.renamed import keywords
from tutelage.spaces.base import (
    PLAIN,
    SETTING,
    ArchWeights,
    Edges,
    Image,
    Size,
    Sizes,
    Slot,
    Variant,
    check_space,
    halved,
    narrow,
)
from tutelage.spaces.blocks import ALLOWED, block, is_block
from tutelage.spaces.chain_network import GROUP, Layer, Network, Outline, Supernet
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.own import Page, Paged, named
from tutelage.spaces.style import Activation, Style

LAYERS = 8
"""Layers that a quick look does not change: a benchmark's table has no other depths."""


def shallow(chain: Chain) -> tuple[int, ...]:
    """Return the depths of a quick look: one layer for each stage if the chain is long."""
    stages = len(chain.depths)
    return (1,) * stages if sum(chain.depths) > LAYERS else chain.depths


@keywords(stem="stem_channels")
@dataclass(frozen=True)
class Chain(Paged):
    """Layers one after the other, each a choice among blocks."""

    name: str
    candidates: tuple[str, ...] = field(metadata=SETTING)
    """Blocks that every layer chooses from: identity, mbconvE_KxK for an expansion E and a kernel
    of K x K, shuffle_KxK, shuffle_xception, basic_KxK, bottleneck_KxK (K odd), or a block of a
    package or of a page of TOML."""
    widths: tuple[int, ...] = field(metadata=SETTING)
    """Channels of every stage."""
    depths: tuple[int, ...] = field(metadata={**SETTING, "quick": shallow})
    """Layers of every stage."""
    strides: tuple[int, ...] = field(metadata=SETTING)
    """Stride of every stage's first layer."""
    stem_channels: int = field(default=32, metadata=SETTING)
    """Channels of the stem."""
    first: int = field(default=0, metadata=SETTING)
    """Channels of a fixed first block, mbconv1_3x3; 0: there is none."""
    pooled_stem: bool = field(default=False, metadata=SETTING)
    """Whether the `imagenet` stem is ResNet's: 7x7, and a pooling that halves again."""
    last: int = field(default=1280, metadata=SETTING)
    """Channels of the last 1x1 convolution; 0: there is none."""
    squeeze: float = field(default=0.0, metadata=SETTING)
    """Width of the squeeze-and-excitation in MBConv, as a share of a block's input; 0: none."""
    activation: Activation = field(default="relu", metadata=SETTING)
    """Activation after a BatchNorm: relu or swish."""
    affine: bool = field(default=True, metadata=SETTING)
    """Whether the supernet's BatchNorms scale and shift; those of networks always do."""
    variant: Variant = PLAIN
    """Always the default: chains have no variants."""
    left: Edges | None = None
    """The blocks of every layer after narrowing; None: the candidates."""
    page: Page | None = None
    """The page of TOML that describes the space; None: it has a name instead."""
    group: ClassVar[str] = GROUP

    def __post_init__(self) -> None:
        lengths = {len(self.widths), len(self.depths), len(self.strides)}
        if len(lengths) != 1 or not self.widths:
            raise ValueError(
                f"{len(self.widths)} widths, {len(self.depths)} depths and {len(self.strides)} "
                "strides: give one of each for every stage"
            )
        if not self.candidates or len(set(self.candidates)) < len(self.candidates):
            raise ValueError(f"candidates = {', '.join(self.candidates)}: name each block once")
        for name in self.candidates:
            if not (is_block(name) or named(self.own, name)):
                raise ValueError(f"candidates = {name}: {ALLOWED}")
        at_least(1, stem_channels=self.stem_channels)
        at_least(0, first=self.first, last=self.last, squeeze=self.squeeze)
        if any(width < 2 or width % 2 for width in self.widths):
            raise ValueError(f"widths = {listed(self.widths)}: each must be even, at least 2")
        if min(self.depths) < 1:
            raise ValueError(f"depths = {listed(self.depths)}: each must be at least 1")
        if any(stride not in (1, 2) for stride in self.strides):
            raise ValueError(f"strides = {listed(self.strides)}: each must be 1 or 2")
        known_choices(self)

    @property
    def operations(self) -> Mapping[str, Edges]:
        """The blocks of every layer."""
        return {GROUP: self.left or (self.candidates,) * sum(self.depths)}

    @property
    def nodes(self) -> tuple[int, ...]:
        """One edge enters each node: the layer itself."""
        return (1,) * sum(self.depths)

    @property
    def stages(self) -> int:
        """Count the stages, which can run separately."""
        return len(self.depths)

    @property
    def sizes(self) -> Sizes:
        """Default sizes: cells are layers here, and channels are the stem's."""
        layers = sum(self.depths)
        return Sizes(
            self.stem_channels, layers, self.stem_channels, layers, auxiliary=0.0, fewest=layers
        )

    @property
    def choices(self) -> Mapping[str, tuple[int, int]]:
        """The (layers, blocks) of the chain."""
        edges = self.operations[GROUP]
        return {GROUP: (len(edges), len(edges[0]))}

    @property
    def layout(self) -> dict[str, Any]:
        """The settings, as plain data."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.metadata}
        table = {k: list(x) if isinstance(x, tuple) else x for k, x in values.items()}
        return {**super().layout, **table}

    def varied(self, **changes: Any) -> Chain:
        """Return the space with fields of its variant changed.

        Raises:
            ValueError: Only cells have such fields.
        """
        variant = replace(self.variant, **changes)
        if variant.partial > 1 or variant.auxiliary_skip or variant.final_norm:
            raise ValueError(
                f"space {self.name!r}: a chain has neither partial channels nor auxiliary skips "
                "nor a last BatchNorm: use a space of cells, or a search that needs none of them"
            )
        return replace(self, variant=variant)

    def narrowed(self, kept: Mapping[str, Sequence[Sequence[int]]]) -> Chain:
        """Return the space with only some blocks of every layer, by their columns."""
        return replace(self, left=narrow(self.operations, kept)[GROUP])

    def scaled(self, size: Size) -> Callable[[int], int]:
        """Return a function that scales the space's widths to a network with other channels.

        Scaled widths are even, for the halves of ShuffleNetV2's blocks.
        """
        if size.channels == self.stem_channels:
            return lambda width: width
        return lambda width: max(2, 2 * round(width * size.channels / self.stem_channels / 2))

    def style(self, *, track: bool) -> Style:
        """Return the blocks' style; `track` is for stand-alone networks."""
        return Style(self.squeeze, self.activation, self.affine or track, track)

    def layers(self, size: Size) -> list[Layer]:
        """List the places of all searched blocks.

        Raises:
            ValueError: The size has another number of layers.
        """
        if size.cells != sum(self.depths):
            raise ValueError(
                f"cells = {size.cells}: the chain {self.name} has {sum(self.depths)} layers, by "
                f"its depths {listed(self.depths)}; change those instead"
            )
        scaled = self.scaled(size)
        found: list[Layer] = []
        width = scaled(self.first) if self.first else size.channels
        stages = zip(self.widths, self.depths, self.strides, strict=True)
        for stage, (outputs, depth, stride) in enumerate(stages):
            for place in range(depth):
                found.append(Layer(width, scaled(outputs), 1 if place else stride, stage))
                width = scaled(outputs)
        return found

    def outline(self, size: Size) -> Outline:
        """Return the chain's channels at a size.

        Raises:
            ValueError: as `layers`.
        """
        scaled = self.scaled(size)
        first, last = (scaled(width) if width else 0 for width in (self.first, self.last))
        return Outline(self.layers(size), first, last, self.pooled_stem, self.own)

    def slots(self, size: Size, image: Image) -> Iterator[Slot]:
        """Yield every layer."""
        style = self.style(track=True)
        for _ in range(1 + self.pooled_stem if size.stem == "imagenet" else 0):
            image = halved(image)
        for edge, layer in enumerate(self.layers(size)):
            arguments = (layer.inputs, layer.outputs, layer.stride, style, self.own)
            yield Slot(GROUP, edge, block, arguments, (layer.inputs, *image))
            image = halved(image) if layer.stride == 2 else image

    def supernet(self, size: Size) -> Supernet:
        """Build the network whose forward (x, arch) gives logits (B, classes), features (B, D)."""
        edges = self.operations[GROUP]
        return Supernet(self.outline(size), edges, size, self.style(track=False))

    def genotype(self, arch: ArchWeights) -> Genotype:
        """Derive the strongest block of every layer."""
        columns = arch.products()[GROUP].argmax(-1).tolist()
        pairs = zip(self.operations[GROUP], columns, strict=True)
        return Genotype.of_chain(self.name, [names[c] for names, c in pairs], self.layout)

    def network(
        self, genotype: Genotype, size: Size, *, auxiliary: bool = False, drop_path: float = 0.0
    ) -> Network:
        """Build the stand-alone network of a genotype.

        Raises:
            ValueError: The genotype has another space, layout or other blocks, or an auxiliary
                head is requested.
        """
        check_space(genotype, self.name, self.layout)
        if auxiliary:
            raise ValueError("networks of chains have no auxiliary head: give --auxiliary 0")
        names = genotype.names
        if len(names) != sum(self.depths):
            raise ValueError(
                f"a genotype of {len(names)} layers: the chain {self.name} has "
                f"{sum(self.depths)}, by its depths {listed(self.depths)}"
            )
        for name in names:
            if name not in self.candidates:
                raise ValueError(
                    f"block {name!r} in the space {self.name}: {nearest(name, self.candidates)}"
                )
        return Network(self.outline(size), names, size, self.style(track=True), drop_path)

    def inherited(self, weights: Mapping[str, Tensor], genotype: Genotype) -> dict[str, Tensor]:
        """Return the weights of a genotype's network from a supernet's, under its names."""
        found = {name: x for name, x in weights.items() if name.startswith("frame.")}
        for layer, name in enumerate(genotype.names):
            theirs = f"layers.{layer}.blocks.{name}."
            for key in weights:
                if key.startswith(theirs):
                    found[f"layers.{layer}.{key.removeprefix(theirs)}"] = weights[key]
        return found


def mbconvs(expansions: Sequence[int]) -> tuple[str, ...]:
    """Return the names of MBConv with kernels 3, 5 and 7 at these expansions."""
    return tuple(f"mbconv{e}_{k}x{k}" for e in expansions for k in (3, 5, 7))


SHUFFLES = ("shuffle_3x3", "shuffle_5x5", "shuffle_7x7", "shuffle_xception")
MOBILE = Chain(
    "ennas-s1",
    candidates=(*mbconvs((1, 3, 6)), "identity"),
    widths=(24, 40, 80, 96, 192, 320),
    depths=(4, 4, 4, 4, 4, 1),
    strides=(2, 2, 2, 1, 2, 1),
    first=16,
    activation="swish",
)

ENNAS_S1 = MOBILE
"""EnNAS' first chain: MBConv of kernels 3, 5, 7 and expansions 1, 3, 6, and identity."""

ENNAS_S2 = replace(MOBILE, name="ennas-s2", candidates=(*MOBILE.candidates, *SHUFFLES))
"""EnNAS' second chain: the blocks of ennas-s1 and ShuffleNetV2's."""

ENNAS_S3 = replace(ENNAS_S2, name="ennas-s3", depths=(5, 5, 5, 5, 5, 1))
"""EnNAS' third chain: ennas-s2 with 26 layers instead of 21."""

CREAM = replace(MOBILE, name="cream", candidates=(*mbconvs((4, 6)), "identity"), squeeze=0.25)
"""Cream's chain: MBConv of expansions 4 and 6 with squeeze-and-excitation, and identity."""

DNA = replace(
    MOBILE,
    name="dna",
    candidates=mbconvs((3, 6)),
    widths=(24, 40, 80, 112, 192, 320),
    depths=(2, 4, 4, 4, 4, 1),
    squeeze=0.25,
)
"""DNA's chain: MBConv of kernels 3, 5, 7, expansions 3, 6; six stages for a teacher."""

SHUFFLE = Chain(
    "shuffle",
    candidates=SHUFFLES,
    widths=(64, 160, 320, 640),
    depths=(4, 4, 8, 4),
    strides=(2, 2, 2, 2),
    stem_channels=16,
    last=1024,
    affine=False,
)
"""Single Path One-Shot's chain: ShuffleNetV2's blocks of three kernels, and Xception's."""

NASBENCH_MACRO = Chain(
    "nasbench-macro",
    candidates=("identity", "mbconv3_3x3", "mbconv6_5x5"),
    widths=(64, 128, 256),
    depths=(2, 3, 3),
    strides=(2, 2, 2),
)
"""NAS-Bench-Macro's chain: 6,561 networks, whose accuracies on CIFAR-10 are known.

Su et al.: Prioritized architecture sampling. CVPR 2021.
"""

RESNET = Chain(
    "resnet",
    candidates=("basic_3x3", "basic_5x5", "bottleneck_3x3", "bottleneck_5x5", "identity"),
    widths=(64, 128, 256, 512),
    depths=(2, 2, 2, 2),
    strides=(1, 2, 2, 2),
    stem_channels=64,
    pooled_stem=True,
    last=0,
)
"""ResNets: basic and bottleneck blocks, at the widths of ResNet-18.

He, Zhang, Ren, Sun: Deep residual learning for image recognition. CVPR 2016. The named genotypes
resnet18 and resnet50 are of this space; the layout of the latter is wider and deeper.
"""
