"""Parts of a fast supernet: the same functions as torch's, with fewer operations.

Everything here is differentiable any number of times, because hypergradients differentiate
gradients. Every backward pass consists of operations that have derivatives. The functions take
their context as an argument: with `setup_context` torch inspects a signature at every call, which
on small maps takes longer than the computation.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, reduce
from typing import Any

import torch
from torch import Tensor, nn

from tutelage import shares
from tutelage.spaces import kernels, together
from tutelage.spaces.convolution import autocasts, elements
from tutelage.spaces.kernels.asked import Closed, asked

EPSILON = 1e-5
MOMENTUM = 0.1
"""Share of a batch in the running statistics of a BatchNorm."""
JOINED = 1 << 16
"""Elements of a map on a CPU up to which maps are joined, so that one call computes all of them.
For larger maps the copy takes more time than the calls."""
DIMENSIONS = (0, 2, 3)
"""Dimensions of a map (B, C, H, W) over which a channel's mean is taken."""


def normalise(x: Tensor) -> Tensor:
    """Normalise each channel of x (B, C, H, W) by its batch, without running statistics."""
    if own := shares.normalised_together():
        return together.normalise(x, own, EPSILON)
    return _Normalise.apply(x)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation; without running statistics, as in a supernet, by `normalise`."""

    def __init__(
        self, channels: int, *, affine: bool = True, track_running_stats: bool = True
    ) -> None:
        super().__init__(channels, EPSILON, MOMENTUM, affine, track_running_stats)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, C, H, W)."""
        own = shares.normalised_together() if self.training else None
        if own:
            return self._together(x, own)
        if self.running_mean is not None or autocasts(x):
            return super().forward(x)
        if not self.affine:
            return normalise(x)
        return _NormalisedSum.apply(self.weight.unsqueeze(0), self.bias, x)

    def _together(self, x: Tensor, own: shares.Share) -> Tensor:
        """Map a share x (b, C, H, W) of a batch by the statistics of the whole batch."""
        centred, mean, variance = together.centre(x, own)
        y = centred * (variance + EPSILON).rsqrt()[:, None, None]
        if self.running_mean is not None and self.running_var is not None:
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            count = own.whole(x.numel() // x.shape[1])
            unbiased = variance.detach() * (count / (count - 1))
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), MOMENTUM)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), MOMENTUM)
        if self.affine:
            y = y * self.weight[:, None, None] + self.bias[:, None, None]
        return y.to(x.dtype)


def joins(x: Tensor) -> bool:
    """Tell whether maps of this size are joined; on a GPU all are, since calls dominate there."""
    return x.device.type != "cpu" or elements(x) <= JOINED


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate tensors; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def side_by_side(maps: Sequence[Tensor], copied: bool = True) -> Tensor:
    """Concatenate channels of maps (B, n, H, W); a single map is not copied.

    Args:
        maps: The maps.
        copied: Whether the gradient of each is laid out on its own, as a convolution needs it;
            False: it is a view, which is enough for an operation on single values.
    """
    return maps[0] if len(maps) == 1 else _SideBySide.apply(copied, *maps)


def stacked(terms: Sequence[Tensor]) -> list[Tensor]:
    """Stack maps (B, C, H, W) as (terms, B, H, W, C); large ones are separate stacks."""
    maps = [term.permute(0, 2, 3, 1) for term in terms]
    if len(maps) > 1 and joins(maps[0]):
        return [_Stacked.apply(*maps)]
    return [each.unsqueeze(0) for each in maps]


def normalised(terms: Sequence[Tensor], channels: int) -> list[Tensor]:
    """Normalise maps (B, n * C, H, W), and split them into maps of C channels.

    One call normalises all small ones.
    """
    joined = [side_by_side(terms)] if joins(terms[0][:, :channels]) else terms
    return [part for x in joined for part in normalise(x).split(channels, dim=1)]


def normalised_sum(weights: Tensor, terms: Sequence[Tensor]) -> Tensor:
    """Sum weights[i] * normalise(terms[i]) over large maps (B, C, H, W)."""
    if shares.normalised_together():
        first, *others = (w * normalise(x) for w, x in zip(weights, terms, strict=True))
        return sum(others, start=first)
    scales = weights.unsqueeze(1).expand(-1, terms[0].shape[1])
    return _NormalisedSum.apply(scales, None, *terms)


def weighted_sum(weights: Tensor, stacks: Sequence[Tensor]) -> Tensor:
    """Sum weights[i] * term[i] over the terms of all stacks, in their order.

    Args:
        weights: One for every term (terms,).
        stacks: Stacks as from `stacked`, (n, B, H, W, C) each.

    Returns:
        A map (B, C, H, W), channels innermost.
    """
    return mix(weights.unsqueeze(1), stacks).squeeze(0).permute(0, 3, 1, 2)


def mix(weights: Tensor, stacks: Sequence[Tensor], base: Tensor | None = None) -> Tensor:
    """Add m weighted sums of the same maps, each with its own weights.

    Args:
        weights: One for every map and sum (maps, m).
        stacks: Stacks as from `stacked`, (n, B, H, W, C) each, in the order of the weights.
        base: What the sums are added to (m, B, H, W, C); None: 0.

    Returns:
        The sums (m, B, H, W, C).
    """
    if kernels.usable(stacks[0]):
        return kernels.mix(weights, stacks, base)
    return _Mix.apply(weights, base, *stacks)


class _SideBySide(Closed):
    """torch.cat with one concatenation as second derivative, where torch's is a sum of slices.

    Maps of several types get the widest of them, as with torch.cat.
    """

    @staticmethod
    def forward(ctx: Any, copied: bool, *maps: Tensor) -> Tensor:
        ctx.copied = copied
        ctx.types = [x.dtype for x in maps]
        ctx.sizes = [x.shape[1] for x in maps]
        return torch.cat(maps, dim=1)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.copied:  # by one call for all, channels innermost
            parts = torch.ops.aten.split_with_sizes_copy(g.permute(0, 2, 3, 1), ctx.sizes, 3)
            parts = [x.permute(0, 3, 1, 2) for x in parts]
        else:
            parts = g.split(ctx.sizes, dim=1)
        return None, *(x.to(kind) for x, kind in zip(parts, ctx.types, strict=True))


class _Stacked(Closed):
    """torch.stack with one stack as second derivative."""

    @staticmethod
    def forward(ctx: Any, *maps: Tensor) -> Tensor:
        ctx.types = [x.dtype for x in maps]
        return torch.stack(maps)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.to(kind) for x, kind in zip(g.unbind(), ctx.types, strict=True))


class _Normalise(Closed):
    """Batch normalisation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y, mean, scale = _torchs(x)
        ctx.save_for_backward(x, mean, scale)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return _NormaliseGradient.apply(g, *ctx.saved_tensors)[0]


class _NormaliseGradient(Closed):
    """Gradient of a normalisation, and the sum of g y over every channel (C,).

    With r = 1 / deviation and y = r (x - mean) the gradient is r P(g), where

        P(g) = g - mean(g) - y mean(g y).

    P is a projection and its own transpose, so that for a cotangent v on r P(g) and a on the sum

        g_bar = r P(v) + a y
        x_bar = -r [mean(g y) r P(v) + mean(v y) r P(g) + y mean(v r P(g))] + a r P(g),

    where the last summand in the brackets is the path through r.
    """

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, mean: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        found, along = _norm_backward(g, x, mean, scale)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(g, x, mean, scale, found, along)
        return found, along

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, a: Tensor | None) -> tuple[Tensor | None, ...]:
        g, x, mean, scale, found, along = ctx.saved_tensors
        v = torch.zeros_like(x) if v is None else v
        if torch.is_grad_enabled():  # a third derivative: torch's formula is wrong there
            # leaves, or views: g may depend on x, and that path is not this function's
            g, x = (
                t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in (g, x)
            )
            y = _plain(x)
            outputs, given = list(torch.autograd.grad(y, x, g, create_graph=True)), [v]
            if a is not None:
                outputs.append((g * y).sum(DIMENSIONS))
                given.append(a)
            return *torch.autograd.grad(outputs, (g, x), given, create_graph=True), None, None
        dg, across = _norm_backward(v, x, mean, scale)
        factor, centred = scale * (-x.shape[1] / x.numel()), x - mean[:, None, None]
        through = factor * scale * (v * found).sum(DIMENSIONS)
        dx = dg * (factor * along)[:, None, None]
        dx.addcmul_(found, (factor * across)[:, None, None])
        dx.addcmul_(centred, through[:, None, None])
        if a is not None:
            dg.addcmul_(centred, (a * scale)[:, None, None])
            dx.addcmul_(found, a[:, None, None])
        return dg, dx, None, None


def _plain(x: Tensor) -> Tensor:
    """Normalise by the plain formula: differentiable any number of times, and slow."""
    centred = x - x.mean(DIMENSIONS, keepdim=True)
    return centred * (centred.square().mean(DIMENSIONS, keepdim=True) + EPSILON).rsqrt()


def _torchs(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Torch's normalisation, and the mean and the inverse deviation of every channel (C,)."""
    if x.numel() == x.shape[1]:
        raise ValueError(
            f"a batch's map of {' x '.join(map(str, x.shape))} has one value a channel, which "
            "normalisation makes 0: give a --batch-size of 2 or more"
        )
    return torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, EPSILON)


def _norm_backward(
    g: Tensor,
    x: Tensor,
    mean: Tensor,
    scale: Tensor,
    weight: Tensor | None = None,
    wanted: tuple[bool, bool] = (True, True),
) -> tuple[Any, Any]:
    """Torch's gradient of a weighted normalisation, and the sum of g y over a channel (C,).

    Those that are not wanted are None.
    """
    form = (weight, None, None, mean, scale, True, EPSILON, [*wanted, False])
    dx, along, _ = torch.ops.aten.native_batch_norm_backward(g, x, *form)
    return dx, along


class _NormalisedSum(Closed):
    """Sum of normalisations, each with its scales (terms, C), and a shift (C,)."""

    @staticmethod
    def forward(ctx: Any, scales: Tensor, shift: Tensor | None, *maps: Tensor) -> Tensor:
        first, *others = _wide(scales, maps[0])
        total, *statistics = _torchs(
            maps[0], first, None if shift is None else _wide(shift, maps[0])
        )
        for x, scale in zip(maps[1:], others, strict=True):
            y, *both = _torchs(x, scale)
            total.add_(y)
            statistics += both
        ctx.save_for_backward(scales, *maps, *statistics)
        return total

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        scales, *rest = ctx.saved_tensors
        maps, statistics = rest[: len(scales)], rest[len(scales) :]
        each = zip(maps, statistics[::2], statistics[1::2], _wide(scales, g), strict=True)
        wanted = asked(ctx)
        if torch.is_grad_enabled():  # to be differentiated again
            found = [(s, *_NormaliseGradient.apply(g, *one)) for *one, s in each]
            pairs = [(s[:, None, None] * dx, along) for s, dx, along in found]
        else:
            own = zip(each, wanted[-len(maps) :], strict=True)
            pairs = [_norm_backward(g, *one, wanted=(want, wanted[0])) for one, want in own]
        shifted = g.sum(DIMENSIONS) if ctx.needs_input_grad[1] else None
        along = torch.stack([along for _, along in pairs]).to(scales.dtype) if wanted[0] else None
        return along, shifted, *(dx for dx, _ in pairs)


def _wide(scales: Tensor, x: Tensor) -> Tensor:
    """Convert scales to the type of the statistics of x."""
    return scales.to(widest(x.dtype, torch.float32)).contiguous()


def exactly(x: Tensor) -> AbstractContextManager[Any]:
    """Return a context without autocast on the device of x."""
    return torch.autocast(x.device.type, enabled=False) if autocasts(x) else nullcontext()


@cache
def widest(*kinds: torch.dtype) -> torch.dtype:
    """Return the widest of the types."""
    return reduce(torch.promote_types, kinds)


class _Mix(Closed):
    """Weighted sums of maps, each stack by one matrix product.

    Stacks of several types get the widest of them.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, base: Tensor | None, *stacks: Tensor) -> Tensor:
        ctx.save_for_backward(weights, *stacks)
        ctx.base = None if base is None else base.dtype
        kind = widest(*(stack.dtype for stack in stacks))
        if base is not None:
            kind = widest(kind, base.dtype)
        shares = weights.to(kind).t().split([len(stack) for stack in stacks], dim=1)
        maps = [stack.flatten(1).to(kind) for stack in stacks]
        with exactly(weights):
            if base is None:
                total = _product(shares[0], maps[0])
            else:
                total = torch.addmm(base.flatten(1).to(kind), shares[0], maps[0])
            for share, flat in zip(shares[1:], maps[1:], strict=True):
                if share.numel() == 1:
                    total.addcmul_(share, flat)
                else:
                    total.addmm_(share, flat)
        return total.view(-1, *stacks[0].shape[1:])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        weights, *stacks = ctx.saved_tensors
        flat, wanted = g.flatten(1), iter(asked(ctx))
        dw = base = None
        if next(wanted):
            each = [torch.mm(stack.flatten(1).to(g.dtype), flat.t()) for stack in stacks]
            dw = (each[0] if len(each) == 1 else torch.cat(each)).to(weights.dtype)
        if ctx.base is not None and next(wanted):
            base = g.to(ctx.base)
        shares = weights.to(g.dtype).split([len(stack) for stack in stacks])
        return (
            dw,
            base,
            *(
                _product(share, flat).view_as(stack).to(stack.dtype) if want else None
                for share, stack, want in zip(shares, stacks, wanted, strict=True)
            ),
        )


def _product(x: Tensor, y: Tensor) -> Tensor:
    """Return the matrix product of x and y, which for a single number is faster value by value."""
    return x * y if x.numel() == 1 else torch.mm(x, y)
