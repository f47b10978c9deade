"""Small smooth learners in float64, for which gradients can be compared to the last digits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from tutelage.batch import Batch
from tutelage.clock import Clock
from tutelage.problem import Net
from tutelage.spaces.base import ArchWeights
from tutelage.transfer import cross_entropy

INPUTS, CLASSES, EDGES, OPS = 5, 3, 2, 3


class ToySupernet(nn.Module):
    """Two mixed layers of three smooth operations with batch normalisation, then a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList(nn.Linear(INPUTS, INPUTS) for _ in range(OPS)) for _ in range(EDGES)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(INPUTS, track_running_stats=False) for _ in range(EDGES)
        )
        self.classifier = nn.Linear(INPUTS, CLASSES)

    def forward(self, x, arch):
        smooth = (torch.tanh, nn.functional.softplus, torch.sin)
        for weights, layer, norm in zip(
            arch.operations["normal"], self.layers, self.norms, strict=True
        ):
            x = norm(sum(a * f(op(x)) for a, f, op in zip(weights, smooth, layer, strict=True)))
        return self.classifier(x), x


class ToyStudent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(INPUTS, 4)
        self.classifier = nn.Linear(4, CLASSES)

    def forward(self, x):
        features = torch.tanh(self.body(x))
        return self.classifier(features), features


class ToyRelaxation:
    def alphas(self):
        return {"normal": torch.randn(EDGES, OPS, dtype=torch.float64)}

    def relax(self, alphas, clock):
        return ArchWeights({group: a.softmax(-1) for group, a in alphas.items()})


class ToyMake:
    """Hands out toy learners."""

    def __init__(self, epochs: int = 10, supernet=ToySupernet) -> None:
        self.clock = Clock()
        self.epochs = epochs
        self.module = supernet
        self.images = {"train": 20, "valid": 20}
        self.classes = CLASSES
        self.cross_entropy = cross_entropy

    def supernet(self) -> Net:
        return Net(lambda: self.module().double(), ToyRelaxation(), self.clock)

    def fixed(self, architecture: str) -> Net:
        return Net(lambda: ToyStudent().double(), None, self.clock)


class ToyBatches(NamedTuple):
    train: Batch
    valid: Batch
    unlabelled: Batch


def toy_batch(images: int = 7) -> ToyBatches:
    def part() -> Batch:
        x = torch.randn(images, INPUTS, dtype=torch.float64)
        return Batch(x, torch.randint(CLASSES, (images,)), torch.arange(images))

    return ToyBatches(part(), part(), part())


def epoch_of(images, size):
    """Shuffled positions in batches, the last one partial."""
    return torch.randperm(images).split(size)
