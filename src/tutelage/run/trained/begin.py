"""Weights of a trained network, with which the training of another one begins."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from tutelage import ranks
from tutelage.config import Data, Retrain
from tutelage.data.collection import COLLECTIONS
from tutelage.data.images import Labelled
from tutelage.data.read import named
from tutelage.parts import from_table
from tutelage.run.job import checkpoint
from tutelage.run.job.directory import RunDirectory
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


def fitted(data: Data, settings: Retrain, out: Path) -> tuple[Data, Retrain]:
    """Return data and settings with what the weights know, where nothing else is set.

    That is the size of the network, and the shape in which a folder's images are read. Once the
    training in `out` has a checkpoint or a result it needs the weights no more. Then run.toml knows
    all this, and the weights may have moved: their path is that of run.toml.

    Raises:
        ValueError: There is no such network, or no such data; or run.toml is damaged.
    """
    start = settings.start
    if start is None:
        return data, settings
    if stored := ranks.first(lambda: _stored(out)):
        own = from_table(Retrain, stored["retrain"], f"{out / 'run.toml'}")
        was = from_table(Data, stored["data"], f"{out / 'run.toml'}")
        start, channels, cells = own.start, own.channels, own.cells
        resolution, colour = was.resolution, was.colour
        shaped = data.name == was.name
    else:
        details = about(start)
        channels, cells = details.size.channels, details.size.cells
        depth, height, width = details.shape
        resolution, colour = height if height == width else None, "grey" if depth == 1 else "rgb"
        shaped = named(data).name in COLLECTIONS
    if shaped:
        colour = colour if data.colour == "auto" else data.colour
        data = replace(data, resolution=data.resolution or resolution, colour=colour)
    channels, cells = settings.channels or channels, settings.cells or cells
    return data, replace(settings, start=start, channels=channels, cells=cells)


def _stored(out: Path) -> dict[str, Any] | None:
    """Return run.toml of a training with weights, which it no longer needs; None: it needs them."""
    trained = checkpoint.exists(out) or (out / "result.json").exists()
    if not trained or not (out / "run.toml").exists():
        return None
    found = RunDirectory.open(out).settings()
    return found if "data" in found and "start" in found.get("retrain", {}) else None


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
