"""Pieces of a fast supernet: the same functions as torch's own, with cheaper derivatives.

Everything here is differentiable any number of times, because hypergradients differentiate
gradients: every backward pass is written in operations that have derivatives themselves.

Depthwise convolution, its gradient in the input and its gradient in the kernel are one trilinear
form seen from three sides, so two functions close under differentiation:

    convolve(x, k)[p]  = sum_t k[t] x[p + t]    d/dx: convolve(g, flip k)   d/dk: correlate(x, g)
    correlate(x, g)[t] = sum_p g[p] x[p + t]    d/dx: convolve(g, flip v)   d/dg: convolve(x, v)

On a CPU, torch's forward kernel is fast for every size and its kernel gradient only for kernels at
most three columns wide and not dilated: `_correlate` takes a wider one in windows of three columns,
and a dilated one on the even and odd phases of the image, where its taps are neighbours. On other
devices torch's own convolution is used as it is.

Normalising y = P z without scale and shift needs only the mean and variance of y, and those are
P mean(z) and diag(P cov(z) P^T): `moments` reads z once, y is never written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

EPSILON = 1e-5


def normalise(x: Tensor, scale: Tensor | None = None) -> Tensor:
    """Normalise each channel of x (B, C, H, W) by its own batch, times scale (): no memory."""
    weight = None if scale is None else scale.repeat(x.shape[1])
    return F.batch_norm(x, None, None, weight, training=True, eps=EPSILON)


def channels_last(x: Tensor) -> Tensor:
    """Lay x (B, C, H, W) out with its channels innermost."""
    return x.contiguous(memory_format=torch.channels_last)


def subsample(x: Tensor, stride: int) -> Tensor:
    """Read every `stride`-th row and column of x (B, C, H, W): (B, C, H / stride, W / stride)."""
    # a mean over windows of one pixel: one kernel forward and one backward, where two slices have
    # two maps of zeros to fill
    return x if stride == 1 else F.avg_pool2d(x, 1, stride)


class Convolution(nn.Conv2d):
    """A padded convolution without a bias; a strided 1x1 one reads its pixels first.

    The mathematics is the same. Torch's own kernel for the weight gradient of a strided 1x1
    convolution (oneDNN on processors without AVX-512) writes past the end of its buffer.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            inputs, outputs, kernel, stride, padding, dilation, groups=groups, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, inputs, H, W) to (B, outputs, H / stride, W / stride), rounded up."""
        if self.kernel_size == (1, 1):
            return F.conv2d(subsample(x, self.stride[0]), self.weight, groups=self.groups)
        return super().forward(x)


class Depthwise(Convolution):
    """A depthwise convolution; while it trains on a CPU, by the faster kernels."""

    def __init__(self, channels: int, kernel: int, stride: int, dilation: int = 1) -> None:
        super().__init__(channels, channels, kernel, stride, dilation, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, C, H, W) to (B, C, H / stride, W / stride), rounded up."""
        if self.training:
            return depthwise(x, self.weight, self.stride[0], self.dilation[0])
        return super().forward(x)


def depthwise(x: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """Convolve each channel of x (B, C, H, W) with its own kernel (C, 1, k, k), k odd, padded."""
    if stride == dilation == 2 or kernel.shape[-1] == 1:
        # every tap then falls on an even pixel: an ordinary convolution of a quarter of the image
        x, stride, dilation = subsample(x, stride), 1, 1
    plain = stride > 1 or kernel.shape[-1] > 5
    if plain or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        padding = dilation * (kernel.shape[-1] // 2)
        return F.conv2d(x, kernel, None, stride, padding, dilation, groups=x.shape[1])
    return _Convolve.apply(x, kernel, dilation)


def moments(z: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean (groups, C) and second moment (groups, C, C) of z (B, groups * C, H, W)."""
    return _Moments.apply(z, groups)


def folded_sum(maps: Sequence[Tensor], pointwise: Tensor, weights: Tensor) -> Tensor:
    """Sum weights[i] * normalise(pointwise[i] z[i]), with no term of the sum ever written.

    The z[i] (B, C, H, W) are the channels of all `maps` (B, n * C, H, W) in their order, pointwise
    (terms * C, C, 1, 1) holds their 1x1 convolutions and weights is (terms,). The sum is one 1x1
    convolution of all maps, kernel and bias from the moments of z. That small algebra is done in
    float64: a variance is a difference of second moments.
    """
    channels = pointwise.shape[1]
    each = [moments(z, z.shape[1] // channels) for z in maps]
    mean, second = (torch.cat(moment).double() for moment in zip(*each, strict=True))
    P = pointwise.view(len(weights), -1, channels).double()
    covariance = second - mean.unsqueeze(2) * mean.unsqueeze(1)
    variance = ((P @ covariance) * P).sum(2).clamp(min=0)
    scaled = P * (weights.double().unsqueeze(1) * (variance + EPSILON).rsqrt()).unsqueeze(2)
    kernel = scaled.transpose(0, 1).flatten(1)[..., None, None].to(pointwise.dtype)
    kernels = kernel.split([z.shape[1] for z in maps], dim=1)
    bias = -torch.einsum("eoi,ei->o", scaled, mean).to(pointwise.dtype)
    total = F.conv2d(maps[0], kernels[0], bias)
    for z, part in zip(maps[1:], kernels[1:], strict=True):
        total = total + F.conv2d(z, part)
    return total


def weighted_sum(weights: Tensor, terms: Sequence[Tensor]) -> Tensor:
    """Sum weights[i] * terms[i], with weights (terms,) and every term (B, C, H, W)."""
    return _WeightedSum.apply(weights, *terms)


def _kernel_gradient(x: Tensor, g: Tensor, size: tuple[int, int], padding: list[int]) -> Tensor:
    """Torch's gradient in a depthwise kernel (C, 1, *size), stride 1."""
    kernel = x.new_empty(x.shape[1], 1, *size)
    ones, mask = [1, 1], [False, True, False]
    return torch.ops.aten.convolution_backward(
        g, x, kernel, None, ones, padding, ones, False, [0, 0], x.shape[1], mask
    )[1]


def _phases(x: Tensor) -> Tensor:
    """Split x (B, C, H, W) into its even and odd rows and columns: (4 B, C, H / 2, W / 2)."""
    x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
    x = x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2))
    # one copy, channels innermost
    return x.permute(3, 5, 0, 2, 4, 1).flatten(0, 2).permute(0, 3, 1, 2)


def _correlate(x: Tensor, g: Tensor, size: int, dilation: int) -> Tensor:
    """Gradient in a kernel (C, 1, size, size) of a padded depthwise convolution of stride 1."""
    if dilation == 2:
        x, g = _phases(x), _phases(g)
    half, parts = size // 2, []
    for start in range(0, size, 3):
        columns = min(3, size - start)
        window = F.pad(x, (half - start, start + columns - 1 - half)) if size > 3 else x
        padding = [half, 0 if size > 3 else half]
        parts.append(_kernel_gradient(window, g, (size, columns), padding))
    return torch.cat(parts, dim=3)


class _Convolve(Function):
    """Depthwise convolution of stride 1, kernel 3 or 5, dilation 1 or 2."""

    @staticmethod
    def forward(x: Tensor, kernel: Tensor, dilation: int) -> Tensor:
        padding = dilation * (kernel.shape[-1] // 2)
        return F.conv2d(x, kernel, None, 1, padding, dilation, groups=x.shape[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.dilation = inputs[2]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, kernel = ctx.saved_tensors
        g, dilation = channels_last(g), ctx.dilation
        wanted = ctx.needs_input_grad
        dx = _Convolve.apply(g, kernel.flip(2, 3), dilation) if wanted[0] else None
        dk = _Correlate.apply(x, g, kernel.shape[-1], dilation) if wanted[1] else None
        return dx, dk, None


class _Correlate(Function):
    """Gradient of a depthwise convolution in its kernel."""

    @staticmethod
    def forward(x: Tensor, g: Tensor, size: int, dilation: int) -> Tensor:
        return _correlate(x, g, size, dilation)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, int], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.dilation = inputs[3]

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, g = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        dx = _Convolve.apply(g, v.flip(2, 3), ctx.dilation) if wanted[0] else None
        dg = _Convolve.apply(x, v, ctx.dilation) if wanted[1] else None
        return dx, dg, None, None


class _Moments(Function):
    """First and second moments over batch and space; one product forward, one backward."""

    @staticmethod
    def forward(z: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(z.dtype, torch.float32)
        rows = z.permute(0, 2, 3, 1).flatten(1, 2).unflatten(2, (groups, -1)).to(wide)
        count = rows.shape[0] * rows.shape[1]
        with torch.autocast(z.device.type, enabled=False):
            # a product a sample, then their sum: parallel over samples, and rounding stays small
            products = [torch.bmm(each.transpose(1, 2), each).sum(0) for each in rows.unbind(2)]
        return rows.mean((0, 1)), torch.stack(products) / count

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Any) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.groups = inputs[1]

    @staticmethod
    def backward(ctx: Any, mean: Tensor, second: Tensor) -> tuple[Tensor, None]:
        (z,) = ctx.saved_tensors
        count = z.numel() // z.shape[1]
        # d/dz of <second, z^T z> is z (second + second^T): a 1x1 convolution; the mean gives a bias
        kernel = (second + second.transpose(1, 2)).flatten(0, 1)[..., None, None] / count
        bias = mean.flatten() / count
        return F.conv2d(z, kernel.to(z.dtype), bias.to(z.dtype), groups=ctx.groups), None


class _WeightedSum(Function):
    """Sum of scaled maps, accumulated in place."""

    @staticmethod
    def forward(weights: Tensor, *terms: Tensor) -> Tensor:
        total = terms[0] * weights[0]
        for weight, term in zip(weights[1:], terms[1:], strict=True):
            total.addcmul_(term, weight.to(term.dtype))
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        weights, *terms = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        dw = torch.stack([(g * term).sum() for term in terms]) if wanted[0] else None
        scaled = (
            g * weight if want else None for weight, want in zip(weights, wanted[1:], strict=True)
        )
        return (dw, *scaled)
