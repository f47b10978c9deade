"""Batch normalisation by the images of all ranks, each of which computes a share of the batch.

Every rank measures its own images about their own mean, which loses no digit where a mean is large
against its deviation. Parts of n_r values are merged (Chan, Golub, LeVeque 1983) by

    mean = Σ_r n_r mean_r / n,   cov = Σ_r n_r [cov_r + d_r d_r^T] / n,   d_r = mean_r - mean.

All of a map's statistics are exchanged at once, and so are all of their derivative. Everything here
consists of operations that have derivatives, so it is differentiable any number of times.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tutelage import shares
from tutelage.ranks import rank
from tutelage.shares import Share
from tutelage.spaces import kernels
from tutelage.spaces.convolution import convolve

DIMENSIONS = (0, 2, 3)
"""Dimensions of a map (B, C, H, W) over which a channel's mean is taken."""


def normalise(x: Tensor, own: Share, epsilon: float) -> Tensor:
    """Normalise each channel of a share x (b, C, H, W) of a batch by the whole batch."""
    centred, _, variance = centre(x, own)
    return (centred * (variance + epsilon).rsqrt()[:, None, None]).to(x.dtype)


def centre(x: Tensor, own: Share) -> tuple[Tensor, Tensor, Tensor]:
    """Return a share x (b, C, H, W) less the batch's mean, that mean and the variance (C,).

    All are in float32 or wider.
    """
    with _exactly(x):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = wide.mean(DIMENSIONS)
        apart = wide - mean[:, None, None]
        mine = torch.stack([mean, apart.square().mean(DIMENSIONS)])
        means, variances = shares.placed(mine).unbind(1)
        parts = _parts(own, mean)[:, None]
        whole = (parts * means).sum(0)
        variance = (parts * (variances + (means - whole).square())).sum(0)
        return apart + (mean - whole)[:, None, None], whole, variance


def folded_sum(
    maps: Sequence[Tensor], pointwise: Tensor, weights: Tensor, own: Share, epsilon: float
) -> Tensor:
    """Sum weights[i] * normalise(pointwise[i] z[i]) by the whole batch.

    The z[i] are the channels of all `maps` (b, n * C, H, W) in their order, pointwise (terms, O, C)
    and weights (terms,).
    """
    counts = [z.shape[1] // pointwise.shape[2] for z in maps]
    parts = zip(maps, pointwise.split(counts), weights.split(counts), strict=True)
    first, *others = (_folded(z, P, w, own, epsilon) for z, P, w in parts)
    return sum(others, start=first)


def _folded(z: Tensor, P: Tensor, w: Tensor, own: Share, epsilon: float) -> Tensor:
    """Compute `folded_sum` of the terms of one map z (b, terms * C, H, W)."""
    with _exactly(z):
        wide = z.to(torch.promote_types(z.dtype, torch.float32))
        mean, covariance = _moments(wide, len(P))
        parts = _parts(own, mean)
        # one exchange: every rank's mean in a place of its own, and the sum of the covariances
        means, share = shares.own_place(mean), covariance * parts[rank()]
        sent = shares.total(torch.cat([means.flatten(), share.flatten()]))
        means, share = sent[: means.numel()].view_as(means), sent[means.numel() :].view_as(share)
        whole = (parts[:, None, None] * means).sum(0)
        d = means - whole
        covariance = share + torch.einsum("r,rkc,rkd->kcd", parts, d, d)
        P_wide = P.to(covariance.dtype)
        variance = (torch.bmm(P_wide, covariance) * P_wide).sum(2).clamp_min(0)
        scale = w.unsqueeze(1) * (variance + epsilon).rsqrt()
        kernel = (P_wide * scale.unsqueeze(2)).transpose(0, 1).flatten(1)
        centred = (wide - whole.flatten()[:, None, None]).to(z.dtype)
    return convolve(centred, kernel[..., None, None].to(P.dtype))


def _moments(z: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean (groups, C) and covariance (groups, C, C) of z (b, groups * C, H, W)."""
    if kernels.usable(z, z.shape[1] // groups):
        return kernels.moments(z, groups)
    rows = z.permute(0, 2, 3, 1).flatten(0, 2).unflatten(1, (groups, -1))
    mean = rows.mean(0)
    apart = (rows - mean).transpose(0, 1)
    return mean, torch.bmm(apart.transpose(1, 2), apart) / len(rows)


def _parts(own: Share, like: Tensor) -> Tensor:
    """Return the part of the batch that every rank has, (ranks,)."""
    each = [(one.stop - one.start) / own.total for one in shares.shares(own.total)]
    return torch.tensor(each, dtype=like.dtype, device=like.device)


def _exactly(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)
