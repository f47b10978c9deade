"""The states of a supernet's cell: an input, or a node's sum, and what its edges share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage import shares
from tutelage.spaces.base import Variant
from tutelage.spaces.convolution import convolve, subsample
from tutelage.spaces.fused import normalised, side_by_side
from tutelage.spaces.ops import POOLS, pool, shifted


def shuffle(x: Tensor, shares: int) -> Tensor:
    """Interleave the channels of x (B, C, H, W), which consist of equal shares.

    Channel i of share k moves to place i * shares + k.
    """
    dealt = x.permute(0, 2, 3, 1).unflatten(3, (shares, -1)).transpose(3, 4).flatten(3)
    return dealt.permute(0, 3, 1, 2)


class State:
    """The maps that the edges leaving one state share, computed when first needed."""

    def __init__(self, x: Tensor, stride: int, variant: Variant) -> None:
        """Hold x (B, C, H, W), which every edge reads with the same stride."""
        seen = x.shape[1] // variant.partial
        self.whole = x
        self.x = self.rest = x
        if seen < x.shape[1]:
            # not two slices: the derivative of each would be a whole map with zeros
            self.x, self.rest = x.split([seen, x.shape[1] - seen], dim=1)
        self.stride = stride
        self.normalised = variant.normalised_pools

    @property
    def bypass(self) -> Tensor:
        """The channels that no operation sees."""
        return self.rest if self.stride == 1 else F.max_pool2d(self.rest, 2, 2, ceil_mode=True)

    @cached_property
    def active(self) -> Tensor:
        """ReLU of x."""
        return self.x.relu()

    @cached_property
    def halves(self) -> tuple[Tensor, Tensor]:
        """The even and the odd pixels of `active`."""
        return halves(self.active)

    def pooled(self, names: Sequence[str]) -> list[Tensor]:
        """Return the pools of these names."""
        maps = [pool(name, self.x, self.stride) for name in names]
        return normalised(maps, self.x.shape[1]) if maps and self.normalised else maps

    def maps(self, names: Sequence[str]) -> list[Tensor]:
        """Return pools and identities, in the order of their names."""
        pools = iter(self.pooled([name for name in names if name in POOLS]))
        return [next(pools) if name in POOLS else self.x for name in names]

    def noise(self) -> Tensor:
        """Sample a map of standard normal values, of a strided map's size."""
        return shares.random_like(self.x[:, :, :: self.stride, :: self.stride], Tensor.normal_)

    def zeros(self) -> Tensor:
        """Return the output of `none`."""
        return torch.zeros_like(self.x[:, :, :: self.stride, :: self.stride])


def dense(state: State, kernel: Tensor) -> Tensor:
    """Convolve all channels of an activated state with a kernel (O, C, k, k)."""
    return convolve(state.active, kernel, state.stride)


def gather(states: Sequence[State], times: int = 1) -> list[tuple[Tensor, int]]:
    """Concatenate the channels of activated states of equal stride, each group several times."""
    return [
        (side_by_side([state.active for state in group] * times, copied=False), stride)
        for stride, group in groupby(states, key=lambda state: state.stride)
    ]


def halves(active: Tensor) -> tuple[Tensor, Tensor]:
    """Return the even and the odd pixels of a map (B, C, H, W), each (B, C, H / 2, W / 2)."""
    return subsample(active, 2), subsample(shifted(active), 2)
