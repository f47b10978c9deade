"""The stages of a chain, by the layout in its genotype.

Nothing in this file imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

PLACES = ("widths", "depths", "strides")
"""Settings of a layout with a whole number for every stage."""


class Stage(NamedTuple):
    """Layers whose outputs have one size."""

    blocks: tuple[str, ...]
    """Their names, first layer first."""
    channels: int | None = None
    """Channels of their outputs; None: the layout does not give them."""
    stride: int = 1
    """Stride of the first layer."""

    @property
    def note(self) -> str:
        """Describe the channels and the stride, as far as they are known."""
        parts = [f"{self.channels} channels"] if self.channels else []
        return ", ".join([*parts, f"stride {self.stride}"] if self.stride > 1 else parts)


def stages_of(names: Sequence[str], layout: Mapping[str, Any]) -> list[Stage]:
    """Divide the layers of a chain, given their blocks' names; without a layout, one stage.

    Raises:
        ValueError: The layout's widths, depths and strides are not equally many whole numbers, or
            the depths do not add up to the layers.

    >>> stages_of("abc", {"widths": [8, 16], "depths": [1, 2], "strides": [1, 2]})[1]
    Stage(blocks=('b', 'c'), channels=16, stride=2)
    """
    given = [layout.get(place) for place in PLACES]
    if given == [None, None, None]:
        return [Stage(tuple(names))]
    lists = [list(each) if isinstance(each, (list, tuple)) else [] for each in given]
    widths, depths, strides = lists
    whole = all(type(value) is int and value > 0 for each in lists for value in each)
    if not whole or not len(widths) == len(depths) == len(strides) or sum(depths) != len(names):
        raise ValueError(
            f"a chain of {len(names)} layers whose layout has widths {given[0]}, depths {given[1]} "
            f"and strides {given[2]}: they must be whole numbers, one of each for every stage, and "
            "the depths add up to the layers"
        )
    ends = list(accumulate(depths))
    parts = [tuple(names[end - depth : end]) for end, depth in zip(ends, depths, strict=True)]
    return [Stage(*stage) for stage in zip(parts, widths, strides, strict=True)]


def as_text(stages: Sequence[Stage]) -> str:
    """Write a chain for a terminal, one line for each stage, and - for an identity.

    >>> print(as_text(stages_of(["mbconv6_5x5", "identity", "identity"],
    ...                         {"widths": [8, 16], "depths": [2, 1], "strides": [1, 2]})))
    chain
      8 channels             mbconv6_5x5 -
      16 channels, stride 2  -
    """
    width = max(len(stage.note) for stage in stages)
    lines = []
    for stage in stages:
        blocks = " ".join("-" if name == "identity" else name for name in stage.blocks)
        lines.append(f"  {stage.note:{width}}  {blocks}" if width else f"  {blocks}")
    return "\n".join(["chain", *lines])
