"""Small trained networks as files: what a method needs that is given a teacher."""

from __future__ import annotations

import tempfile
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from tutelage.parts import make_part
from tutelage.run.networks.files import FILE, About, build, save_network
from tutelage.spaces.base import ArchWeights, Size
from tutelage.spaces.genotype import Genotype


def chain(name="dna", **settings):
    """A chain of six stages of one layer, unless settings say otherwise."""
    small = {
        "widths": (4, 4, 6, 6, 8, 8),
        "depths": (1,) * 6,
        "stem_channels": 4,
        "first": 0,
        "last": 0,
    }
    return make_part("space", {"name": name, **(settings or small)})


def even(space) -> Genotype:
    return space.genotype(
        ArchWeights({group: torch.ones(shape) for group, shape in space.choices.items()})
    )


def saved(
    folder: Path,
    genotype: Genotype,
    size: Size,
    mean: tuple[float, ...] = (0.0,),
    std: tuple[float, ...] = (1.0,),
) -> nn.Module:
    """Write a network with running statistics that have seen something; return it."""
    network = build(genotype, size).train()
    side = 16
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(8, size.image_channels, side, side))
    classes = tuple(map(str, range(size.classes)))
    shape = (size.image_channels, side, side)
    save_network(folder / FILE, network, About(genotype, size, classes, mean, std, shape))
    return network.eval()


@cache
def teacher_file() -> str:
    """Write a teacher of six stages for grey images, once; return where it is."""
    folder, space = Path(tempfile.mkdtemp(prefix="teacher-")), chain()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        saved(folder, even(space), Size(channels=4, cells=6, classes=10, image_channels=1))
    return str(folder)


class FakeTimm:
    """What is asked of timm, without its networks: one model, with a stage of each width."""

    def __init__(self, model, widths=(4, 5)):
        self.model, self.widths, self.asked = model, widths, []

    def create_model(self, name, **settings):
        if name != self.model:
            raise RuntimeError(f"Unknown model ({name})")
        self.asked.append(settings)
        inputs = (3, *self.widths)
        stages = [nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(inputs)]
        network = nn.Sequential()
        network.add_module("blocks", nn.Sequential(*stages))
        network.add_module("head", nn.Sequential(nn.Flatten()))
        if settings["features_only"]:
            network.forward = lambda x: [x, 2 * x]
        network.pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5)}
        self.network = network
        return network
