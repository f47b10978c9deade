"""What the tests of chains share: a small chain of all kinds of blocks, and drawn genotypes."""

from __future__ import annotations

import random
from collections.abc import Iterable

from tutelage.spaces.base import Size
from tutelage.spaces.chain import (
    CREAM,
    DNA,
    ENNAS_S1,
    ENNAS_S2,
    ENNAS_S3,
    NASBENCH_MACRO,
    RESNET,
    SHUFFLE,
    Chain,
)
from tutelage.spaces.genotype import Genotype

SPACES = [NASBENCH_MACRO, ENNAS_S1, ENNAS_S2, ENNAS_S3, SHUFFLE, CREAM, DNA, RESNET]
SMALL = Chain(
    "nasbench-macro",
    candidates=("identity", "mbconv3_3x3", "shuffle_5x5", "shuffle_xception"),
    widths=(6, 8),
    depths=(2, 1),
    strides=(1, 2),
    stem_channels=4,
    first=2,
    last=10,
    squeeze=0.5,
    activation="swish",
)


def genotype(space: Chain, names: Iterable[str]) -> Genotype:
    return Genotype.of_chain(space.name, list(names), space.layout)


def chosen(space: Chain, columns: Iterable[int]) -> Genotype:
    return genotype(space, (space.candidates[column] for column in columns))


def drawn(space: Chain, seed: int) -> Genotype:
    draws = random.Random(seed)
    return genotype(space, (draws.choice(space.candidates) for _ in range(sum(space.depths))))


def own_size(space: Chain, classes: int = 10, stem: str = "cifar", channels: int = 0) -> Size:
    return Size(channels or space.stem_channels, sum(space.depths), classes, 3, stem)
