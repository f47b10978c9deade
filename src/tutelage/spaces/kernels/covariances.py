"""Means and covariances of maps, and their gradients.

With R rows u, z (R, C) and centred rows u_c = u - mean(u), two functions are closed under
differentiation, any number of times:

    cross(u, z)  = u_c^T z_c / R     d/du: spread(z, S^T)   d/dz: spread(u, S)
    spread(z, S) = z_c S / R         d/dz: spread(v, S^T)   d/dS: cross(z, v)

A mean comes with a covariance, as a bias comes with a spread, at no further reading of the rows.

Every program sums products of its own rows about their mean as it is rounded, to P_n, and keeps the
mean m_n of what is left over. With a_n the difference of that rounded mean to the one of all rows,
which is exact, parts of n rows each are merged (Chan, Golub, LeVeque 1983) by

    R d = sum_n n (a_n + m_n)
    R cov = sum_n [P_n + n (a_n a_n^T + a_n m_n^T + m_n a_n^T)] - R d d^T,

so that no digit is lost where a mean is large against its deviation.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from tutelage.spaces.kernels.asked import Closed, asked
from tutelage.spaces.kernels.language import (
    PROGRAMS,
    SIDE,
    Laid,
    accumulator,
    blocks,
    jit,
    launch,
    power,
    tl,
)

ROWS = 64
"""Rows of a tile."""
ENTRIES = 64
"""Entries of a covariance that one program merges."""
PARTS = 16
"""Parts that a program merges at a time."""


def moments(z: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean (groups, C) and covariance (groups, C, C) of z (B, groups * C, H, W)."""
    return _Moments.apply(z, groups)


class Both(NamedTuple):
    """Means (groups, C) of two maps, and their covariance (groups, C, C)."""

    first: Tensor
    second: Tensor
    covariance: Tensor


class _Moments(Closed):
    """Mean and covariance of one map."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        found = _moments(z, z, groups)
        ctx.save_for_backward(z, found.first)
        return found.first, found.covariance

    @staticmethod
    def backward(ctx: Any, g: Tensor, S: Tensor) -> tuple[Tensor, None]:
        z, mean = ctx.saved_tensors
        return _Spread.apply(z, mean.detach(), S, g, True), None


class _Cross(Closed):
    """Mean of z, and covariance of u and z."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, z: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        found = _moments(u, z, groups)
        ctx.save_for_backward(u, z, found.first, found.second)
        return found.second, found.covariance

    @staticmethod
    def backward(ctx: Any, g: Tensor, S: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        u, z, *means = ctx.saved_tensors
        first, second = (mean.detach() for mean in means)
        wanted = asked(ctx)
        du = _Spread.apply(z, second, S.mT, None, False) if wanted[0] else None
        dz = _Spread.apply(u, first, S, g, False) if wanted[1] else None
        return du, dz, None


class _Spread(Closed):
    """Centred rows of z times S (groups, C, C), and a bias (groups, C), over their number.

    `mean` is that of z, known to the caller: a derivative in z has the path through it. With `both`
    the factor is S + S^T.
    """

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, mean: Tensor, S: Tensor, bias: Tensor | None, both: bool
    ) -> Tensor:
        ctx.save_for_backward(z, S, bias)
        ctx.both = both
        return _spread(z, mean, S, bias, both)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        z, S, bias = ctx.saved_tensors
        mean, found = _Cross.apply(z, v, len(S))
        dz = None
        if asked(ctx)[0]:
            dz = _Spread.apply(v, mean.detach(), S if ctx.both else S.mT, None, ctx.both)
        found = (found + found.mT if ctx.both else found).to(S.dtype)
        return dz, None, found, None if bias is None else mean.to(bias.dtype), None


def _moments(u: Tensor, z: Tensor, groups: int) -> Both:
    """Compute the means and the covariance of u and z (B, groups * C, H, W), or of one twice."""
    same = u is z
    first = Laid.out(u)
    second = first if same else Laid.out(z)
    channels, rows = z.shape[1] // groups, z.numel() // z.shape[1]
    programs, span = blocks(rows, ROWS, max(1, PROGRAMS // groups))
    kind = torch.promote_types(torch.promote_types(u.dtype, z.dtype), torch.float32)
    wide = max(SIDE, power(channels))

    def empty(*shape: int) -> Tensor:
        return z.new_empty(groups, *shape, dtype=kind)

    means, products = (programs, 2, channels), (programs, channels, channels)
    partly = Both(empty(*means), empty(*means), empty(*products))
    found = Both(empty(channels), empty(channels), empty(channels, channels))
    tile = same, accumulator(found.first)
    read, pitches = zip(first, second, strict=True)
    sizes = rows, channels, *pitches, span
    launch(_partly, (programs, groups), 4, *read, *partly, *sizes, *tile, ROWS, wide)
    grid = -(-(channels**2) // ENTRIES), groups
    shape = programs, rows, channels, span
    launch(_merged, grid, 4, *partly, *found, *shape, *tile, PARTS, ENTRIES)
    return Both(found.first, found.first, found.covariance) if same else found


def _spread(z: Tensor, mean: Tensor, S: Tensor, bias: Tensor | None, both: bool) -> Tensor:
    """Compute what `_Spread` does; a map of the type and the size of z."""
    laid, out = Laid.out(z), torch.empty_like(z, memory_format=torch.channels_last)
    groups, channels = S.shape[:2]
    rows, wide = z.numel() // z.shape[1], max(SIDE, power(channels))
    shift = mean if bias is None else bias.contiguous()
    sizes = rows, groups, channels, laid.pitch, *S.stride()
    tile = both, bias is not None, accumulator(mean), ROWS, wide, SIDE
    launch(_spreads, (-(-rows // ROWS), groups), 4, laid.map, mean, S, shift, out, *sizes, *tile)
    return out


@jit
def _partly(
    u, z, first, second, products, rows, channels, pitch_u, pitch_z, span,
    SAME: tl.constexpr, ACC: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    part, group = tl.program_id(0), tl.program_id(1)
    c = tl.arange(0, C)
    start = part * span
    count = tl.minimum(span, rows - start)
    column = (group * channels + c)[None, :]
    sum_u, sum_z = tl.full((C,), 0, ACC), tl.full((C,), 0, ACC)
    for offset in range(0, span, R):
        r = offset + tl.arange(0, R)
        mask = (r < count)[:, None] & (c < channels)[None, :]
        at = (start + r)[:, None]
        sum_u += tl.sum(tl.load(u + at * pitch_u + column, mask=mask, other=0).to(ACC), axis=0)
        if not SAME:
            y = tl.load(z + at * pitch_z + column, mask=mask, other=0).to(ACC)
            sum_z += tl.sum(y, axis=0)
    mean_u = sum_u / count
    mean_z = mean_u if SAME else sum_z / count
    sum_u, sum_z, total = tl.full((C,), 0, ACC), tl.full((C,), 0, ACC), tl.full((C, C), 0, ACC)
    for offset in range(0, span, R):
        r = offset + tl.arange(0, R)
        mask = (r < count)[:, None] & (c < channels)[None, :]
        at = (start + r)[:, None]
        x = tl.load(u + at * pitch_u + column, mask=mask, other=0).to(ACC)
        x = tl.where(mask, x - mean_u[None, :], 0)
        y = x
        if not SAME:
            y = tl.load(z + at * pitch_z + column, mask=mask, other=0).to(ACC)
            y = tl.where(mask, y - mean_z[None, :], 0)
            sum_z += tl.sum(y, axis=0)
        sum_u += tl.sum(x, axis=0)
        total += tl.dot(tl.trans(x), y, input_precision="ieee", out_dtype=ACC)
    place = group * tl.num_programs(0) + part
    at = place * 2 * channels + c
    tl.store(first + at, mean_u, mask=c < channels)
    tl.store(first + at + channels, sum_u / count, mask=c < channels)
    if not SAME:
        tl.store(second + at, mean_z, mask=c < channels)
        tl.store(second + at + channels, sum_z / count, mask=c < channels)
    mask = (c < channels)[:, None] & (c < channels)[None, :]
    at = place * channels * channels + c[:, None] * channels + c[None, :]
    tl.store(products + at, total, mask=mask)


@jit
def _merged(
    first, second, products, mean_u, mean_z, covariance, parts, rows, channels, span,
    SAME: tl.constexpr, ACC: tl.constexpr, N: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(1)
    e = tl.program_id(0) * E + tl.arange(0, E)
    i, j = e // channels, e % channels
    there = e < channels * channels
    if SAME:
        second = first
    start = group * parts * 2 * channels
    sum_u, sum_z, total = tl.full((N, E), 0, ACC), tl.full((N, E), 0, ACC), tl.full((N, E), 0, ACC)
    for offset in range(0, parts, N):
        n = offset + tl.arange(0, N)
        mask = (n < parts)[:, None] & there[None, :]
        count = tl.minimum(span, rows - n * span).to(ACC)[:, None]
        at = start + (n * 2 * channels)[:, None]
        sum_u += count * tl.load(first + at + i[None, :], mask=mask, other=0)
        sum_z += count * tl.load(second + at + j[None, :], mask=mask, other=0)
    u, z = tl.sum(sum_u, axis=0) / rows, tl.sum(sum_z, axis=0) / rows
    sum_u, sum_z = tl.full((N, E), 0, ACC), tl.full((N, E), 0, ACC)
    for offset in range(0, parts, N):
        n = offset + tl.arange(0, N)
        mask = (n < parts)[:, None] & there[None, :]
        count = tl.minimum(span, rows - n * span).to(ACC)[:, None]
        at = start + (n * 2 * channels)[:, None]
        a = tl.load(first + at + i[None, :], mask=mask, other=0) - u[None, :]
        b = tl.load(second + at + j[None, :], mask=mask, other=0) - z[None, :]
        p = tl.load(first + at + channels + i[None, :], mask=mask, other=0)
        q = tl.load(second + at + channels + j[None, :], mask=mask, other=0)
        at = ((group * parts + n) * channels * channels)[:, None]
        inside = tl.load(products + at + e[None, :], mask=mask, other=0)
        sum_u += tl.where(mask, count * (a + p), 0)
        sum_z += tl.where(mask, count * (b + q), 0)
        total += tl.where(mask, inside + count * (a * b + a * q + p * b), 0)
    over_u, over_z = tl.sum(sum_u, axis=0) / rows, tl.sum(sum_z, axis=0) / rows
    found = tl.sum(total, axis=0) / rows - over_u * over_z
    tl.store(covariance + group * channels * channels + e, found, mask=there)
    tl.store(mean_u + group * channels + i, u + over_u, mask=there & (j == 0))
    if not SAME:
        tl.store(mean_z + group * channels + j, z + over_z, mask=there & (i == 0))


@jit
def _spreads(
    z, mean, S, bias, out, rows, groups, channels, pitch, apart, down, across,
    BOTH: tl.constexpr, BIASED: tl.constexpr, ACC: tl.constexpr,
    R: tl.constexpr, C: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    group, c = tl.program_id(1), tl.arange(0, C)
    r = tl.program_id(0) * R + tl.arange(0, R)
    S += group * apart
    total = tl.full((R, C), 0, ACC)
    for first in range(0, channels, K):
        k = first + tl.arange(0, K)
        mask = (r < rows)[:, None] & (k < channels)[None, :]
        at = r[:, None] * pitch + (group * channels + k)[None, :]
        m = tl.load(mean + group * channels + k, mask=k < channels, other=0).to(ACC)
        x = tl.load(z + at, mask=mask, other=0).to(ACC) - m[None, :]
        mask = (k < channels)[:, None] & (c < channels)[None, :]
        s = tl.load(S + k[:, None] * down + c[None, :] * across, mask=mask, other=0).to(ACC)
        if BOTH:
            s += tl.load(S + c[None, :] * down + k[:, None] * across, mask=mask, other=0).to(ACC)
        total += tl.dot(x, s, input_precision="ieee", out_dtype=ACC)
    if BIASED:
        total += tl.load(bias + group * channels + c, mask=c < channels, other=0).to(ACC)[None, :]
    mask = (r < rows)[:, None] & (c < channels)[None, :]
    at = r[:, None] * (groups * channels) + (group * channels + c)[None, :]
    tl.store(out + at, total / rows, mask=mask)
