"""Folding: a weighted sum of normalised 1x1 convolutions as one 1x1 convolution.

Normalising y = P z without scale and shift needs only the mean and variance of y, which are
P mean(z) and diag(P cov(z) P^T). `folded_sum` reads z alone, and y is never written to memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage import shares
from tutelage.spaces import kernels, together
from tutelage.spaces.convolution import Form, convolve, gradients, plain
from tutelage.spaces.fused import DIMENSIONS, EPSILON, exactly, joins, side_by_side, widest
from tutelage.spaces.kernels.asked import Closed, asked


def folded_sum(maps: Sequence[Tensor], pointwise: Tensor, weights: Tensor) -> Tensor:
    """Sum weights[i] * normalise(pointwise[i] z[i]), without writing any term to memory.

    The z[i] (B, C, H, W) are the channels of all `maps` (B, n * C, H, W) in their order, pointwise
    (terms * C, C, 1, 1) holds their 1x1 convolutions and weights is (terms,).
    """
    channels = pointwise.shape[1]
    P = pointwise.view(len(weights), -1, channels)
    if own := shares.normalised_together():
        joined = [side_by_side(maps)] if joins(maps[0]) else maps
        return together.folded_sum(joined, P, weights, own, EPSILON)
    if joins(maps[0]):
        z = side_by_side(maps)
        if kernels.usable(z, channels):
            return _folded_by_kernels(z, P, weights)
        return _FoldedSum.apply(z, P, weights)[0]
    counts = [z.shape[1] // channels for z in maps]
    each = zip(maps, P.split(counts), weights.split(counts), strict=True)
    first, *others = (_FoldedSum.apply(*one)[0] for one in each)
    return sum(others, start=first)


def _folded_by_kernels(z: Tensor, P: Tensor, weights: Tensor) -> Tensor:
    """Compute `folded_sum` of joined maps z (B, terms * C, H, W) by fused kernels."""
    kernel, bias = kernels.folded(P, weights, *kernels.moments(z, len(P)))
    total = convolve(z, kernel[..., None, None])
    return total + bias[:, None, None].to(total.dtype)


class _FoldedSum(Closed):
    """Sum of w_k normalise(P_k z_k) over terms k, as one 1x1 convolution of the centred maps.

    With c = z - mean(z), S_k = mean(c_k c_k^T) and r_ko = (p_ko^T S_k p_ko + epsilon)^(-1/2), where
    p_ko is row o of P_k, the sum is K c with K_ko = w_k r_ko p_ko. Its cotangent g gives

        G = g c^T,   h_ko = G_ko p_ko,   w_bar_k = sum_o r_ko h_ko
        U_ko = w_k h_ko r_ko^3 p_ko,   P_bar = w r G - U S,   S_bar = -P^T U / 2
        c_bar = K^T g + 2 S_bar c / n,   z_bar = c_bar - mean(c_bar).

    The maps are centred first: a difference of second moments would lose digits where a mean is
    large against its deviation. What the backward pass reads is an output, so that a derivative of
    that pass finds the way back to z, P and w.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, P: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        wide = _less_mean(z.to(widest(z.dtype, torch.float32)))
        with exactly(z):
            rows = wide.permute(0, 2, 3, 1).flatten(0, 2).unflatten(1, (len(P), -1))
            S = _scaled_product(rows.permute(1, 2, 0), rows.transpose(0, 1), 1 / len(rows))
            variance = (torch.bmm(P.to(S.dtype), S) * P).sum(2)
        r = variance.clamp_(min=0).add_(EPSILON).rsqrt_()
        K = (P * (w.unsqueeze(1) * r).unsqueeze(2)).transpose(0, 1).contiguous()
        c, K = wide.to(z.dtype), K.view(len(K), -1, 1, 1).to(P.dtype)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(P, w, c, S, r, K)
        return plain(c, K, Form()), c, S, r, K

    @staticmethod
    def backward(
        ctx: Any,
        g: Tensor | None,
        c_bar: Tensor | None,
        S_bar: Tensor | None,
        r_bar: Tensor | None,
        K_bar: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        P, w, c, S, r, K = ctx.saved_tensors
        (z_asked, *others), count, z_bar = asked(ctx), c.numel() // c.shape[1], c_bar
        if g is not None:
            g = g.to(c.dtype)
            z_more, K_more = gradients(c, K.to(c.dtype), g, Form(), (z_asked, True))
            K_bar = K_more.to(K.dtype) if K_bar is None else K_bar + K_more
            z_bar = z_more if c_bar is None else z_more + c_bar if z_asked else None
        factor = -1 / count if z_asked else None
        P_bar, w_bar, through = _fold_gradients(P, w, S, r, (K_bar, r_bar), factor, others)
        if not z_asked:
            return None, P_bar, w_bar
        if S_bar is not None:
            symmetric = (S_bar + S_bar.transpose(1, 2)) / count
            through = symmetric if through is None else through + symmetric
        if through is None:
            return None if z_bar is None else _less_mean(z_bar), P_bar, w_bar
        kernel = through.flatten(0, 1)[..., None, None].to(c.dtype)
        if z_bar is None:
            return convolve(c, kernel, groups=len(P)), P_bar, w_bar
        if g is None or c_bar is not None or torch.is_grad_enabled():
            return convolve(c, kernel, groups=len(P)) + _less_mean(z_bar), P_bar, w_bar
        # the mean of K^T g from that of g, which has fewer channels
        mean = g.sum(DIMENSIONS).to(K.dtype)
        bias = K.flatten(1).t().mv(mean).mul_(-1 / count)
        return F.conv2d(c, kernel, bias.to(c.dtype), groups=len(P)).add_(z_bar), P_bar, w_bar


def _less_mean(x: Tensor) -> Tensor:
    """Centre each channel of x (B, C, H, W)."""
    return x - x.mean(DIMENSIONS, keepdim=True)


def _fold_gradients(
    P: Tensor,
    w: Tensor,
    S: Tensor,
    r: Tensor,
    cotangents: tuple[Tensor | None, Tensor | None],
    factor: float | None,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Differentiate K and r of `_FoldedSum` in P, w and S.

    Returns:
        P_bar (terms, O, C) and w_bar (terms,), None where they are not wanted, and the factor times
        P^T U (terms, C, C); None without a factor.
    """
    K_bar, r_bar = cotangents
    P_bar = w_bar = None
    if K_bar is not None:
        G = K_bar.view(P.shape[1], len(P), -1).transpose(0, 1)
        a, scale = (G * P).sum(2) * r, w.unsqueeze(1) * r
        w_bar = a.sum(1) if wanted[1] else None
        P_bar = G * scale.unsqueeze(2) if wanted[0] else None
        u = a * scale * r
        if r_bar is not None:
            u = u + r_bar * r * r * r
    elif r_bar is not None:
        u = r_bar * r * r * r
    else:
        return None, None, None
    if factor is None and not wanted[0]:
        return None, w_bar, None
    U = P * u.unsqueeze(2)
    if wanted[0]:
        P_bar = torch.bmm(U, S).neg() if P_bar is None else torch.baddbmm(P_bar, U, S, alpha=-1)
    through = None if factor is None else _scaled_product(P.transpose(1, 2), U, factor)
    return P_bar, w_bar, through


def _scaled_product(x: Tensor, y: Tensor, factor: float) -> Tensor:
    """Return factor * x y for batches of matrices."""
    return torch.baddbmm(x.new_empty(1, 1, 1), x, y, beta=0, alpha=factor)
