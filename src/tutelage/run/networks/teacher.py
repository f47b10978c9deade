"""Pretrained networks that teach by their feature maps."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, final

import torch
from torch import Tensor, nn

from tutelage.problem import UNTRAINED
from tutelage.run.networks.files import about, load
from tutelage.run.networks.fixed import Fixed
from tutelage.spaces.base import Size, Space
from tutelage.spaces.paths import genotype, sample

TIMM: Final = "timm:"


class Pictures(NamedTuple):
    """The shape of a search's images, and how they were normalised."""

    shape: tuple[int, int, int] = (3, 32, 32)
    """Channels, height and width."""
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Mean of every channel, which was subtracted."""
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Standard deviation of every channel, by which it was divided."""


@final
@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained network with fixed weights, as a function of images to its feature maps."""

    maps: Callable[[Tensor], Sequence[Tensor]]
    scale: Tensor
    """Scale from the images' normalisation to that of the network's training, (C, 1, 1)."""
    shift: Tensor
    """Shift, added after the scale, (C, 1, 1)."""
    amp: torch.dtype | None = None
    """Type of autocast; None: none."""

    @torch.no_grad()
    def __call__(self, x: Tensor) -> list[Tensor]:
        """List the feature maps (B, C, H, W) of images, stage by stage, without gradients."""
        with torch.autocast(x.device.type, self.amp, enabled=self.amp is not None):
            found = self.maps(self.scale * x + self.shift)
        return [each.to(torch.promote_types(each.dtype, torch.float32)) for each in found]


def trained(
    name: str, pictures: Pictures, device: torch.device, amp: torch.dtype | None = None
) -> Teacher:
    """Return a trained network as a teacher; it normalises by its own running statistics.

    Args:
        name: A network that `tutelage retrain` wrote, as `load` takes it; timm:NAME, for the maps
            of timm's `features_only`, one for each resolution; or timm:NAME#PART, for the output of
            every child of a part, such as the stages of timm:tf_efficientnet_b7#blocks.
        pictures: The images that it will see.
        device: Where the teacher computes.
        amp: Type of autocast; None: none.

    Raises:
        ValueError: There is no such network, it is for images of other channels, or the extra that
            it needs is not installed.
    """
    if not name:
        raise ValueError(
            "teacher = '': give --teacher, the directory of a `tutelage retrain`, its "
            f"network.safetensors, or {TIMM}NAME or {TIMM}NAME#PART for one of timm's, such as "
            f"{TIMM}resnet18; or {UNTRAINED}, for a look only"
        )
    if name.startswith(TIMM):
        network, maps = _from_timm(name, device)
        mean, std = network.pretrained_cfg["mean"], network.pretrained_cfg["std"]
    else:
        details = about(name)
        mean, std = details.mean, details.std
        own: Any = load(name, device)  # nn.Module does not type `maps`
        network, maps = own, own.maps
    if len(mean) != pictures.shape[0]:
        raise ValueError(
            f"teacher {name!r}: takes images of {len(mean)} channels, and these have "
            f"{pictures.shape[0]}: give a network that was trained on such images"
        )
    network.requires_grad_(False)

    def column(values: Sequence[float]) -> Tensor:
        dtype = next(network.parameters()).dtype
        return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)

    theirs, ours = (column(mean), column(std)), (column(pictures.mean), column(pictures.std))
    return Teacher(maps, ours[1] / theirs[1], (ours[0] - theirs[0]) / theirs[1], amp)


def untrained(
    space: Space, size: Size, device: torch.device, amp: torch.dtype | None = None
) -> Teacher:
    """Sample a network of a space as a teacher, with a feature map for each stage of a supernet.

    It is always the same network. It normalises by the batch, since it has no running statistics.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = space.network(genotype(space, sample(space)), size)
    fixed = Fixed(network).requires_grad_(False).to(device)
    one = torch.ones(size.image_channels, 1, 1, device=device)
    return Teacher(fixed.network.maps, one, torch.zeros_like(one), amp)


def _from_timm(name: str, device: torch.device) -> tuple[Any, Callable[[Tensor], list[Tensor]]]:
    """Return a pretrained network, and a function of images to its feature maps."""
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise ValueError(
            f"teacher {name!r} needs an extra: pip install 'tutelage[timm]'"
        ) from error
    model, _, part = name.removeprefix(TIMM).partition("#")
    try:
        network = timm.create_model(model, pretrained=True, features_only=not part)
    except RuntimeError as error:  # timm raises this for an unknown name
        raise ValueError(f"teacher {name!r}: {error}") from error
    network = network.to(device).eval()
    return network, _tapped(name, network, part) if part else network


def _tapped(name: str, network: nn.Module, part: str) -> Callable[[Tensor], list[Tensor]]:
    """Return a function of images to the outputs of a part's children, in their order."""
    try:
        children = list(network.get_submodule(part).children())
    except AttributeError as error:
        parts = ", ".join(name for name, _ in network.named_children())
        raise ValueError(f"teacher {name!r}: has no {part!r}, but {parts}") from error
    found: list[Tensor] = []
    for child in children:
        child.register_forward_hook(lambda _, __, output: found.append(output))

    def maps(x: Tensor) -> list[Tensor]:
        found.clear()
        network(x)
        if not found or any(each.dim() != 4 for each in found):
            raise ValueError(
                f"teacher {name!r}: {part!r} gives no feature maps (B, C, H, W), stage by stage"
            )
        return list(found)

    return maps
