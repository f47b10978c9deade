"""Kernel and bias of a sum of normalised 1x1 convolutions, from the moments of their maps.

The small algebra of a folded sum. For terms k, outputs o and channels c, with projections P,
weights w, covariances and means of the maps:

    V_ko = p_ko cov_k p_ko^T    r = (max(V, 0) + eps)^(-1/2)
    K_koc = w_k r_ko P_koc      bias_o = -sum_kc K_koc mean_kc

Forward, gradient and the gradient's gradient are one kernel each. A third derivative is that of the
plain formula, by autograd.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tutelage.spaces.kernels.algebra import fold, fold_gradient, fold_second
from tutelage.spaces.kernels.asked import Closed
from tutelage.spaces.kernels.language import SIDE, accumulator, launch, power


def folded(
    pointwise: Tensor, weights: Tensor, mean: Tensor, covariance: Tensor, epsilon: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """Fold normalised 1x1 convolutions, and their weighted sum, to one convolution.

    Args:
        pointwise: The convolutions' kernels (terms, O, C).
        weights: One for every term (terms,).
        mean: Means of the terms' maps (terms, C).
        covariance: Their covariances (terms, C, C).
        epsilon: What is added to a variance.

    Returns:
        The kernel (O, terms * C) and the bias (O,), of pointwise's type.
    """
    return _Fold.apply(pointwise, weights, mean, covariance, epsilon)


def plain(
    pointwise: Tensor, weights: Tensor, mean: Tensor, covariance: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Return what `folded` does, by torch's operations: differentiable any number of times."""
    variance = ((pointwise @ covariance) * pointwise).sum(2).clamp(min=0)
    scaled = pointwise * (weights.unsqueeze(1) * (variance + epsilon).rsqrt()).unsqueeze(2)
    return scaled.transpose(0, 1).flatten(1), -(scaled @ mean.unsqueeze(2)).sum((0, 2))


class _Fold(Closed):
    """The kernel and the bias."""

    @staticmethod
    def forward(
        ctx: Any, P: Tensor, weights: Tensor, mean: Tensor, covariance: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(P, weights, mean, covariance)
        ctx.epsilon = epsilon
        terms, outputs, channels = P.shape
        kernel = P.new_empty(outputs, terms * channels)
        shares = mean.new_empty(terms, outputs)
        _run(fold, (P, weights, mean, covariance), (kernel, shares), P, epsilon)
        return kernel, shares.sum(0).to(P.dtype)

    @staticmethod
    def backward(ctx: Any, gK: Tensor, gb: Tensor) -> tuple[Tensor | None, ...]:
        return *_FoldGradient.apply(gK, gb, *ctx.saved_tensors, ctx.epsilon), None


class _FoldGradient(Closed):
    """Gradients of the four arguments."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor, ...]:
        *tensors, ctx.epsilon = given
        ctx.save_for_backward(*tensors)
        found = tuple(_like(x) for x in tensors[2:])
        _run(fold_gradient, tensors, found, tensors[2], ctx.epsilon)
        return found

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        if torch.is_grad_enabled():  # a third derivative
            return *_plain_second(cotangents, tensors, ctx.epsilon), None
        gK, gb, P, weights, mean, covariance = tensors
        shares = mean.new_empty(len(P), len(gb))
        found = [_like(gK), shares, *(_like(x) for x in (P, weights, mean, covariance))]
        _run(fold_second, (*cotangents, *tensors), found, P, ctx.epsilon)
        found[1] = shares.sum(0).to(gb.dtype)
        return *found, None


def _plain_second(
    cotangents: tuple[Tensor, ...], tensors: tuple[Tensor, ...], epsilon: float
) -> tuple[Tensor, ...]:
    """Differentiate the plain gradient, so that the result can be differentiated again."""
    # leaves, or views: a tensor may depend on another one, and that path is not this function's
    given = [x.view_as(x) if x.requires_grad else x.detach().requires_grad_() for x in tensors]
    P, weights, mean, covariance = given[2:]
    outputs = plain(P, weights, mean, covariance, epsilon)
    found = torch.autograd.grad(outputs, given[2:], given[:2], create_graph=True)
    return torch.autograd.grad(found, given, cotangents, create_graph=True)


def _like(x: Tensor) -> Tensor:
    """Allocate a contiguous tensor of the shape and type of x."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _run(kernel: Any, read: Any, written: Any, P: Tensor, epsilon: float) -> None:
    """Run a kernel for every term of P (terms, O, C)."""
    terms, outputs, channels = P.shape
    tensors = [x.contiguous() for x in read]
    tile = accumulator(P), SIDE, max(SIDE, power(channels))
    warps = 4 if tile[-1] < 32 else 8
    launch(kernel, (terms,), warps, *tensors, *written, outputs, channels, epsilon, *tile)
