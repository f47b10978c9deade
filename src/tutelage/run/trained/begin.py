"""Weights of a trained network, with which the training of another one begins."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from tutelage.config import Data, Retrain
from tutelage.data.collection import COLLECTIONS
from tutelage.data.images import Labelled
from tutelage.data.read import named
from tutelage.run.networks.files import About, about, build, find, read_network
from tutelage.spaces.base import Size
from tutelage.spaces.genotype import Genotype


def begun(genotype: Genotype, settings: Retrain, data: Labelled) -> dict[str, Tensor] | None:
    """Return the weights that a training begins with, and say so; None: random ones.

    All weights are those of the network that `settings.start` names; but those of the classifier
    only if its classes are the data's, in the same order. A second head is not stored, so it is
    always new.

    Args:
        genotype: Of the network to train.
        settings: Of its training, with its size.
        data: Its images.

    Raises:
        ValueError: There is no such network, it has another architecture, or weights of other
            shapes.
    """
    if settings.start is None:
        return None
    details, tensors = read_network(find(settings.start))
    size = Size(
        channels=cast(int, settings.channels),
        cells=cast(int, settings.cells),
        classes=len(data.classes),
        image_channels=data.images.shape[0],
        stem=settings.stem,
    )
    if _layers(details.genotype) != _layers(genotype):
        raise ValueError(
            f"--from {settings.start}: its network has another architecture, so its weights do not "
            "fit; give the genotype that it was trained with"
        )
    with torch.device("meta"):
        network: Any = build(genotype, size)
    head = f"{network.home}.classifier.".removeprefix(".")
    same = details.classes == data.classes
    chosen = tensors if same else {k: x for k, x in tensors.items() if not k.startswith(head)}
    needed = {k: x for k, x in network.state_dict().items() if same or not k.startswith(head)}
    if wrong := next(_differing(chosen, needed), None):
        raise ValueError(f"--from {settings.start}: {wrong}; {_remedy(details, size)}")
    print(_sentence(settings, details, data, same))
    return chosen


def fitted(data: Data, settings: Retrain) -> Data:
    """Read a folder's images, where nothing else is set, in the shape that the weights know.

    Raises:
        ValueError: There is no such network, or no such data.
    """
    if settings.start is None or named(data).name not in COLLECTIONS:
        return data
    channels, height, width = about(settings.start).shape
    return replace(
        data,
        resolution=data.resolution or (height if height == width else None),
        colour=("grey" if channels == 1 else "rgb") if data.colour == "auto" else data.colour,
    )


def _layers(genotype: Genotype) -> str:
    """Return what of a genotype makes a network, whatever the name of its space."""
    found = genotype.to_dict()
    return json.dumps([found.get("cells"), found.get("layout")], sort_keys=True)


def _differing(given: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield how weights differ in name or shape."""
    for name in dict.fromkeys((*needed, *given)):
        there, here = (tuple(x[name].shape) if name in x else "missing" for x in (given, needed))
        if there != here:
            yield f"its weight {name} is {there}, and the network to train has {here}"


def _remedy(details: About, size: Size) -> str:
    """Say which setting would make the weights fit."""
    theirs = details.size
    if theirs.image_channels != size.image_channels:
        return f"it takes images of {theirs.image_channels} channels, as --data.colour gives them"
    return f"give --channels {theirs.channels} --cells {theirs.cells} --stem {theirs.stem}"


def _sentence(settings: Retrain, details: About, data: Labelled, same: bool) -> str:
    count = f"{len(data.classes)} classes"
    kept = f"its classifier too, for the same {count}" if same else f"a new classifier for {count}"
    second = ", and a new auxiliary head" if settings.auxiliary else ""
    known = f"trained for {len(details.classes)} classes"
    return f"begins with the weights of {settings.start}, {known}: {kept}{second}"
