"""Operations of one's own: a function that builds a module, and one that says what it costs.

    module(inputs, outputs, stride, style) -> torch.nn.Module
    cost(inputs, outputs, stride, height, width) -> FLOPs of one image

The module maps (B, inputs, H, W) to (B, outputs, H / stride, W / stride), rounded up. Both are
named by their import paths and imported when a network is built. Without the second function, FLOPs
are counted from the module's convolutions and matrix products. Parameters always are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tutelage import trusted
from tutelage.checks import LARGEST
from tutelage.spaces.headed import Probability
from tutelage.spaces.style import Style

SIDES = (7, 8)
"""Height and width of the map on which a module is tried; an odd side tells how it rounds."""


class Foreign(nn.Module):
    """A module that another package, or the user, has built."""

    cost: Callable[[int, int], int] | None = None
    """Gives its FLOPs for a map's height and width; None: they are counted."""
    tally: list[int] | None = None
    """Where declared costs go while they are counted."""

    def __init__(self, inner: nn.Module, outputs: int, stride: int) -> None:
        super().__init__()
        self.inner, self.outputs, self.stride = inner, outputs, stride

    def forward(self, x: Tensor, drop_path: Probability = 0.0) -> Tensor:
        """Map x (B, C, H, W); what is a residual in it is not known, so no path is dropped."""
        if self.tally is not None and self.cost is not None:
            height, width = x.shape[2:]
            self.tally.append(self.cost(height, width))
            return x.new_empty(len(x), self.outputs, *shrunk((height, width), self.stride))
        mapped: Tensor = self.inner(x)
        return mapped


class Operation(NamedTuple):
    """An operation of one's own, in two functions."""

    name: str
    module: str
    """Import path of the function that builds a module, `module:function`."""
    cost: str = ""
    """Import path of the function that gives the FLOPs; empty: they are counted."""
    where: str = ""
    """Which file or part names it, for errors."""

    def build(self, inputs: int, outputs: int, stride: int, style: Style) -> Foreign:
        """Import the functions, and build the module for maps of `inputs` channels.

        Raises:
            ValueError: A function cannot be imported or fails, or the module's output is wrong.
            TrustError: The functions are named by a run, a genotype or a network of others.
        """
        make = self._function("module")
        what = self._named("module")
        built = checked(make, what, inputs, outputs, stride, style)
        if self.cost:
            built.cost = partial(self.flops, inputs, outputs, stride)
        return built

    def flops(self, inputs: int, outputs: int, stride: int, height: int, width: int) -> int:
        """Return the declared FLOPs for one image whose map has this height and width.

        Raises:
            ValueError: The function fails, or what it gives is no number of operations.
        """
        given = (inputs, outputs, stride, height, width)
        names = ("inputs", "outputs", "stride", "height", "width")
        call = ", ".join(f"{name} = {value}" for name, value in zip(names, given, strict=True))
        cost = self._function("cost")
        try:
            found = float(cost(*given))
        except Exception as error:  # of the user's function
            raise ValueError(
                f"{self._named('cost')} fails for {call}: {_told(error)}; it must take these five "
                "whole numbers and return FLOPs"
            ) from error
        if not 0 <= found <= LARGEST:  # also where it is no number
            raise ValueError(
                f"{self._named('cost')} gives {found} for {call}: must be the FLOPs of one image, "
                f"a number between 0 and {LARGEST:,}"
            )
        return round(found)

    def _named(self, key: str) -> str:
        return f"{self.where}.{key} = {getattr(self, key)!r}"

    def _function(self, key: str) -> Callable[..., Any]:
        target = getattr(self, key)
        trusted.require(target, f"{self.where}.{key} = {target!r}")
        try:
            found = trusted.imported(target)
        except ValueError as error:
            raise ValueError(f"{self.where}.{key} = {error}") from error
        if not callable(found):
            raise ValueError(f"{self._named(key)} is no function: it is a {type(found).__name__}")
        return found


class Page(NamedTuple):
    """What a page of TOML says of a space, beside the settings that the space itself has."""

    table: Mapping[str, Any]
    """Its settings, as plain data."""
    operations: tuple[Operation, ...] = ()
    """Operations of one's own."""


class Paged:
    """A space that a page may describe."""

    page: Page | None

    @property
    def own(self) -> tuple[Operation, ...]:
        """Operations of one's own."""
        return self.page.operations if self.page else ()

    @property
    def layout(self) -> Mapping[str, Any]:
        """The page's settings; empty: there is none."""
        return self.page.table if self.page else {}


def named(operations: Iterable[Operation], name: str) -> Operation | None:
    """Find an operation by its name; None: there is none."""
    return next((each for each in operations if each.name == name), None)


def checked(
    make: Callable[..., Any], what: str, inputs: int, outputs: int, stride: int, style: Style
) -> Foreign:
    """Build a module by a function of others, whose output is tried first.

    Args:
        make: The function.
        what: Its name in errors.
        inputs: Channels of the input.
        outputs: Channels of the output.
        stride: Factor by which height and width shrink.
        style: The properties of the network's parts.

    Raises:
        ValueError: The function fails, its module has another output than asked for, or keeps
            running statistics in a supernet.
    """
    _try(make, what, inputs, outputs, stride, style)
    return Foreign(make(inputs, outputs, stride, style), outputs, stride)


@lru_cache(maxsize=4096)
def _try(
    make: Callable[..., Any], what: str, inputs: int, outputs: int, stride: int, style: Style
) -> None:
    place = f"{inputs} channels to {outputs}, stride {stride}"
    with torch.device("meta"):  # without memory or computation
        seen = torch.empty(2, inputs, *SIDES)
        try:
            built = make(inputs, outputs, stride, style)
            found = built(seen) if isinstance(built, nn.Module) else None
        except Exception as error:
            raise ValueError(f"{what} fails for {place}: {_told(error)}") from error
    if not isinstance(built, nn.Module):
        raise ValueError(f"{what} returns {built!r:.60}: must be a torch.nn.Module")
    shape = tuple(found.shape) if isinstance(found, Tensor) else f"a {type(found).__name__}"
    wanted = (2, outputs, *shrunk(SIDES, stride))
    if shape != wanted:
        raise ValueError(
            f"{what} maps {tuple(seen.shape)} to {shape}: must be {wanted}, for {outputs} channels "
            f"and stride {stride}"
        )
    if not style.track and any(_keeps(module) for module in built.modules()):
        raise ValueError(
            f"{what} keeps running statistics in a supernet, which evaluates a batch more than "
            "once: build its norms by style.norm(channels)"
        )


def _keeps(module: nn.Module) -> bool:
    """Tell whether a module is a normalisation that keeps running statistics."""
    return getattr(module, "running_mean", None) is not None


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def shrunk(sides: Iterable[int], stride: int) -> tuple[int, ...]:
    """Return the sides of a map after a stride."""
    return tuple(-(-side // stride) for side in sides)


@contextmanager
def declared(network: nn.Module) -> Iterator[list[int]]:
    """Collect the FLOPs for one image that operations declare; these do not compute meanwhile."""
    own = [each for each in network.modules() if isinstance(each, Foreign) and each.cost]
    tally: list[int] = []
    for each in own:
        each.tally = tally
    try:
        yield tally
    finally:
        for each in own:
            each.tally = None
