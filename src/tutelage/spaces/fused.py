"""Parts of a fast supernet: the same functions as torch's, with fewer operations.

Everything here is differentiable any number of times, because hypergradients differentiate
gradients. Every backward pass consists of operations that have derivatives. The functions take
their context as an argument: with `setup_context` torch inspects a signature at every call, which
on small maps takes longer than the computation.

Normalising y = P z without scale and shift needs only the mean and variance of y, which are
P mean(z) and diag(P cov(z) P^T). `moments` reads z alone, and y is never written to memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache, reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from tutelage.spaces.convolution import autocasts

EPSILON = 1e-5
JOINED = 1 << 16
"""Elements of a map on a CPU up to which maps are joined, so that one call computes all of them.
For larger maps the copy takes more time than the calls."""
DIMENSIONS = (0, 2, 3)
"""Dimensions of a map (B, C, H, W) over which a channel's mean is taken."""


def normalise(x: Tensor) -> Tensor:
    """Normalise each channel of x (B, C, H, W) by its batch, without running statistics."""
    return _Normalise.apply(x)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation; without running statistics, as in a supernet, by `normalise`."""

    def __init__(
        self, channels: int, *, affine: bool = True, track_running_stats: bool = True
    ) -> None:
        super().__init__(channels, EPSILON, 0.1, affine, track_running_stats)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, C, H, W)."""
        if self.running_mean is not None or autocasts(x):
            return super().forward(x)
        if not self.affine:
            return normalise(x)
        return _NormalisedSum.apply(self.weight.unsqueeze(0), self.bias, x)


def moments(z: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean (groups, C) and covariance (groups, C, C) of z (B, groups * C, H, W)."""
    return _Moments.apply(z, groups)


def joins(x: Tensor) -> bool:
    """Tell whether maps of this size are joined; on a GPU all are, since calls dominate there."""
    return x.device.type != "cpu" or x.numel() <= JOINED


def folded_sum(maps: Sequence[Tensor], pointwise: Tensor, weights: Tensor) -> Tensor:
    """Sum weights[i] * normalise(pointwise[i] z[i]), without writing any term to memory.

    The z[i] (B, C, H, W) are the channels of all `maps` (B, n * C, H, W) in their order, pointwise
    (terms * C, C, 1, 1) holds their 1x1 convolutions and weights is (terms,). The sum is one 1x1
    convolution of all maps, with kernel and bias from their moments.
    """
    channels = pointwise.shape[1]
    maps = [side_by_side(maps)] if joins(maps[0]) else maps
    each = [moments(z, z.shape[1] // channels) for z in maps]
    mean, covariance = each[0] if len(each) == 1 else map(torch.cat, zip(*each, strict=True))
    P = pointwise.view(len(weights), -1, channels)
    variance = ((P @ covariance) * P).sum(2).clamp(min=0)
    scaled = P * (weights.unsqueeze(1) * (variance + EPSILON).rsqrt()).unsqueeze(2)
    kernel = scaled.transpose(0, 1).flatten(1)
    bias = kernel.mv(mean.flatten()).neg()
    kernel, bias = kernel[..., None, None].to(pointwise.dtype), bias.to(pointwise.dtype)
    kernels = kernel.split([z.shape[1] for z in maps], dim=1)
    total = F.conv2d(maps[0], kernels[0], bias)
    for z, part in zip(maps[1:], kernels[1:], strict=True):
        total = total + F.conv2d(z, part)
    return total


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


def normalised(terms: Sequence[Tensor]) -> Tensor:
    """Normalise small maps (B, C, H, W) and stack them: (terms, B, H, W, C)."""
    y = normalise(side_by_side(terms)).permute(0, 2, 3, 1).unflatten(3, (len(terms), -1))
    return y.permute(3, 0, 1, 2, 4).contiguous()


def normalised_sum(weights: Tensor, terms: Sequence[Tensor]) -> Tensor:
    """Sum weights[i] * normalise(terms[i]) over large maps (B, C, H, W)."""
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
    return _WeightedSum.apply(weights, *stacks).permute(0, 3, 1, 2)


class _SideBySide(Function):
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


class _Stacked(Function):
    """torch.stack with one stack as second derivative."""

    @staticmethod
    def forward(ctx: Any, *maps: Tensor) -> Tensor:
        ctx.types = [x.dtype for x in maps]
        return torch.stack(maps)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.to(kind) for x, kind in zip(g.unbind(), ctx.types, strict=True))


class _Normalise(Function):
    """Batch normalisation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y, mean, scale = _torchs(x)
        ctx.save_for_backward(x, mean, scale)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return _NormaliseGradient.apply(g, *ctx.saved_tensors)[0]


class _NormaliseGradient(Function):
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
    g: Tensor, x: Tensor, mean: Tensor, scale: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Torch's gradient of a weighted normalisation, and the sum of g y over a channel (C,)."""
    form = (weight, None, None, mean, scale, True, EPSILON, [True, True, False])
    dx, along, _ = torch.ops.aten.native_batch_norm_backward(g, x, *form)
    return dx, along


class _NormalisedSum(Function):
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
        if torch.is_grad_enabled():  # to be differentiated again
            found = [(s, *_NormaliseGradient.apply(g, *one)) for *one, s in each]
            pairs = [(s[:, None, None] * dx, along) for s, dx, along in found]
        else:
            pairs = [_norm_backward(g, *one) for one in each]
        shifted = g.sum(DIMENSIONS) if ctx.needs_input_grad[1] else None
        along = torch.stack([along for _, along in pairs])
        return along.to(scales.dtype), shifted, *(dx for dx, _ in pairs)


def _wide(scales: Tensor, x: Tensor) -> Tensor:
    """Convert scales to the type of the statistics of x."""
    return scales.to(_widest(x.dtype, torch.float32)).contiguous()


@cache
def _widest(*kinds: torch.dtype) -> torch.dtype:
    """Return the widest of the types."""
    return reduce(torch.promote_types, kinds)


class _Moments(Function):
    """Mean and covariance over batch and space; one product forward, one backward.

    The maps are centred first: a difference of second moments would lose digits where a mean is
    large against its deviation.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        rows = z.permute(0, 2, 3, 1).flatten(0, 2).to(_widest(z.dtype, torch.float32))
        mean = rows.mean(0)
        centred = (rows - mean).unflatten(1, (groups, -1))
        with torch.autocast(z.device.type, enabled=False) if autocasts(z) else nullcontext():
            covariance = torch.bmm(centred.permute(1, 2, 0), centred.transpose(0, 1))
        mean = mean.view(groups, -1)
        ctx.save_for_backward(z, mean)
        return mean, covariance.div_(len(rows))

    @staticmethod
    def backward(ctx: Any, g_mean: Tensor, g_covariance: Tensor) -> tuple[Tensor, None]:
        z, mean = ctx.saved_tensors
        count = z.numel() // z.shape[1]
        # d/dz of <S, cov(z)> is (z - mean) (S + S^T): a 1x1 convolution; the mean gives a bias
        kernel = (g_covariance + g_covariance.transpose(1, 2)) / count
        centred = z - mean.view(-1, 1, 1).to(z.dtype)
        kernel = kernel.flatten(0, 1)[..., None, None].to(z.dtype)
        bias = (g_mean / count).flatten().to(z.dtype)
        return F.conv2d(centred, kernel, bias, groups=len(mean)), None


class _WeightedSum(Function):
    """Sum of scaled maps, by a matrix-vector product for every stack.

    Stacks of several types get the widest of them.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, *stacks: Tensor) -> Tensor:
        ctx.save_for_backward(weights, *stacks)
        kind = _widest(*(stack.dtype for stack in stacks))
        shares = weights.to(kind).split([len(stack) for stack in stacks])
        first, *others = (stack.flatten(1).to(kind) for stack in stacks)
        total = first[0] * shares[0] if len(first) == 1 else torch.mv(first.t(), shares[0])
        for share, stack in zip(shares[1:], others, strict=True):
            total.addmv_(stack.t(), share)
        return total.view(stacks[0].shape[1:])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        weights, *stacks = ctx.saved_tensors
        wanted, flat = ctx.needs_input_grad, g.flatten()
        shares = weights.to(g.dtype).split([len(stack) for stack in stacks])
        dw = None
        if wanted[0]:
            dw = torch.cat([torch.mv(stack.flatten(1).to(g.dtype), flat) for stack in stacks])
            dw = dw.to(weights.dtype)
        return dw, *(
            torch.outer(share, flat).view_as(stack).to(stack.dtype) if want else None
            for share, stack, want in zip(shares, stacks, wanted[1:], strict=True)
        )
