"""A method, a search, a space and images, joined as the settings of a run say."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch

from tutelage.config import Run
from tutelage.data.images import Labelled
from tutelage.data.read import read
from tutelage.parts import make_part, part_settings
from tutelage.problem import Method
from tutelage.run.job.device import device_named
from tutelage.run.job.threads import elements
from tutelage.searches.base import Search
from tutelage.searches.needs import fit, size_of
from tutelage.spaces.base import Size, Space


class Joined(NamedTuple):
    """Everything that a search is made of."""

    settings: Run
    """Every setting of the parts too, so that later defaults change nothing."""
    method: Method
    search: Search
    space: Space
    """With what the search asks of it."""
    size: Size
    """Of the first phase's supernets."""
    train: Labelled
    """The images, of both halves."""
    device: torch.device


def joined(settings: Run) -> Joined:
    """Make the parts that settings name, and read the images.

    Raises:
        ValueError: A setting or the data cannot be used, or the parts do not fit together.
    """
    device = device_named(settings.device)
    search: Search = make_part("search", settings.search)
    method = make_part("method", settings.method)
    asked = make_part("space", settings.space)
    space = fit(search, asked)
    check_kind(settings, search)
    settings = replace(
        settings,
        method=part_settings("method", method),
        search=part_settings("search", search),
        space=part_settings("space", asked),
    )
    train = read(settings.data, "train")
    channels, cells = size_of(search, space)
    size = Size(
        channels=settings.channels or channels,
        cells=settings.cells or cells,
        classes=len(train.classes),
        image_channels=train.images.shape[0],
        form=settings.form,
    )
    return Joined(settings, method, search, space, size, train, device)


def elements_of(parts: Joined) -> int | None:
    """Count the numbers in a batch's maps of the first cell; None: a GPU computes them."""
    if parts.device.type != "cpu":
        return None
    return elements(parts.settings.batch_size, parts.size, parts.train.images.shape)


OF_ALPHAS = ("eigenvalue_every", "sharpness_every", "gap_every", "stop")
"""Settings that watch alphas."""


def check_kind(settings: Run, search: Search) -> None:
    """Refuse settings that would do nothing in this kind of search.

    Raises:
        ValueError: There are such.
    """
    if search.kind != "samples" and settings.ranked:
        raise ValueError(
            f"ranked = {settings.ranked}: only searches that sample paths rank architectures in "
            "the supernet, single-path and diverse-paths"
        )
    for name in OF_ALPHAS if search.kind == "samples" else ():
        if (value := getattr(settings, name)) not in (0, "never"):
            raise ValueError(
                f"{name} = {value!r}: it watches alphas, and this search samples paths and has none"
            )
