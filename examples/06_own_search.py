"""A search of one's own: DARTS' softmax with a temperature that falls as the search goes on."""

from dataclasses import dataclass
from typing import ClassVar

import torch

import tutelage
from tutelage.spaces.base import Mix


@dataclass(frozen=True)
class Cooling:
    """Relax the choice to a softmax that grows harder."""

    end: float = 0.1
    """Temperature at the end of the search; it starts at 1."""

    trains: ClassVar[bool] = True

    def fit(self, space):
        """Take any space of mixed operations."""
        return space

    def alphas(self, space):
        """Draw alphas (edges, ops) near zero for every group of choices."""
        return {group: 1e-3 * torch.randn(shape) for group, shape in space.choices.items()}

    def mix(self, alphas, progress):
        """Turn alphas into weights; progress goes from 0 to 1."""
        return Mix({g: (a / self.end**progress).softmax(-1) for g, a in alphas.items()})

    def derive(self, space, alphas):
        """Read off the strongest operations, by the space's rule."""
        return space.genotype(self.mix(alphas, 1.0))


if __name__ == "__main__":
    toy = {"channels": 2, "cells": 3, "epochs": 1, "limit_batches": 2, "batch_size": 8}
    print(tutelage.search("single", Cooling(), out="cooling", **toy).genotype.as_text())
