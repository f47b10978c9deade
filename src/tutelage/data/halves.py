"""The images that train weights and those that train alphas, in every way to choose them."""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.config import Run
from tutelage.data.folder import validation_images
from tutelage.data.images import Labelled
from tutelage.data.read import named
from tutelage.data.splits import stratified
from tutelage.data.streams import halves_of


def halves(settings: Run, train: Labelled) -> tuple[Tensor, Tensor]:
    """Return the indices of the images for weights and of those for alphas, int64.

    Args:
        settings: Of the search.
        train: The images that are searched on; a validation part of their own stands at the end.

    Raises:
        DataError: A part would hold fewer than two images.
    """
    data = settings.data
    if data.validation == "folder":
        places = torch.arange(len(train.images))
        own = validation_images(named(data))
        return places[:-own], places[-own:]
    if data.stratified:
        return stratified(train.images.labels, data.train_fraction, settings.seed)
    return halves_of(settings, train)
