"""The images that a training is measured on after every epoch, for its learning curves.

They are not trained on, and they are not the test images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from tutelage.config import Data
from tutelage.data import DataError
from tutelage.data.folder import read_validation
from tutelage.data.images import Labelled
from tutelage.data.read import named
from tutelage.data.subsets import hold_out
from tutelage.run.trained.measure import measured


@final
@dataclass(frozen=True, eq=False)
class Validation:
    """Images of a set, normalised as those that are trained on."""

    data: Labelled
    subset: Tensor
    """Their indices, int64 (N,); empty: nothing is measured."""

    def scores(self, network: nn.Module, batch_size: int, device: torch.device) -> dict[str, Any]:
        """Return the entries of an epoch's row, measured in fp32; none without images."""
        count = len(self.subset)
        if not count:
            return {}
        found = measured(network, self.data, batch_size, device, self.subset)
        return {"valid_loss": found.loss, "valid_accuracy": found.right / count}


def divided(train: Labelled, data: Data, validate: int) -> tuple[Tensor, Validation]:
    """Return the indices of the images to train on, int64, and the images to measure.

    Args:
        train: The training images.
        data: Where `validation` is "folder", its val part is measured, and all of `train` trains.
        validate: Otherwise the number of training images that are measured instead.

    Raises:
        DataError: Both are asked for, fewer than two images would train, or the val part cannot be
            used.
    """
    count = len(train.images)
    if data.validation == "folder":
        if validate:
            raise DataError(
                f"validate = {validate} with data.validation = 'folder': the val part is measured "
                "already, give one of them"
            )
        own = read_validation(named(data), train)
        return torch.arange(count), Validation(own, torch.arange(len(own.images)))
    valid, rest = hold_out(count, validate, "validate")
    if len(rest) < 2:
        raise DataError(f"validate = {validate:,} leaves {len(rest)} image to train on: 2 at least")
    return rest, Validation(train, valid)
