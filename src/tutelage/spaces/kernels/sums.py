"""Weighted sums of maps, several at once, and their gradients.

With maps x (n, N), weights W (n, m) and outputs y (m, N), two functions are closed under
differentiation, any number of times:

    combine(x, W)[j]      = sum_i W[i, j] x[i]     d/dx: combine(g, W^T)   d/dW: correlate(x, g)
    correlate(x, g)[i, j] = <x[i], g[j]>           d/dx: combine(g, V^T)   d/dg: combine(x, V)

Every map is read once, however many sums it is in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tutelage.spaces.kernels.asked import Closed, asked
from tutelage.spaces.kernels.language import (
    PROGRAMS,
    SIDE,
    accumulator,
    blocks,
    jit,
    launch,
    power,
    tl,
)

TILE = 2048
"""Values of all outputs that one program computes at a time."""
LENGTH = 128
"""Values of every map that one program of a reduction reads at a time."""


def products(maps: Tensor, weights: Tensor) -> Tensor:
    """Sum weights[i, j] * maps[i] over i, for every j.

    Args:
        maps: Maps (n, *shape).
        weights: Weights (n, m), of any type.

    Returns:
        The sums (m, *shape), of the maps' type.
    """
    return _Combine.apply(maps.flatten(1), weights, None).unflatten(1, maps.shape[1:])


def mix(weights: Tensor, stacks: Sequence[Tensor], base: Tensor | None = None) -> Tensor:
    """Add m weighted sums of the same maps, each with its own weights.

    Args:
        weights: One for every map and sum (maps, m).
        stacks: Stacks (n, B, H, W, C) of maps, in the order of the weights.
        base: What the sums are added to (m, B, H, W, C); None: 0.

    Returns:
        The sums (m, B, H, W, C), of the widest of the types of a stack and of what it is added to.
    """
    total: Any = None if base is None else base.flatten(1)
    for stack, share in zip(stacks, weights.split([len(each) for each in stacks]), strict=True):
        total = _Combine.apply(stack.flatten(1), share, total)
    return total.unflatten(1, stacks[0].shape[1:])


class _Combine(Closed):
    """Maps (n, N) and weights (n, m) to (m, N), added to a base (m, N) or to none."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weights: Tensor, base: Tensor | None) -> Tensor:
        ctx.save_for_backward(maps, weights)
        ctx.kind = None if base is None else base.dtype
        maps, outputs, count = maps.contiguous(), weights.shape[1], maps.shape[1]
        wide = power(outputs)
        block = max(SIDE, TILE // wide)
        kind = maps.dtype if base is None else torch.promote_types(maps.dtype, base.dtype)
        found = maps.new_empty(outputs, count, dtype=kind)
        start = maps if base is None else base.contiguous()
        sizes = (len(maps), outputs, count, *weights.stride())
        grid, tile = (-(-count // block),), (base is not None, accumulator(found), wide, block)
        launch(_combine, grid, 4, weights, maps, start, found, *sizes, *tile)
        return found

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        maps, weights = ctx.saved_tensors
        wanted = asked(ctx)
        dx = _Combine.apply(g, weights.t(), None).to(maps.dtype) if wanted[0] else None
        dw = _Correlate.apply(maps, g).to(weights.dtype) if wanted[1] else None
        return dx, dw, None if ctx.kind is None else g.to(ctx.kind)


class _Correlate(Closed):
    """Maps (n, N) and (m, N) to their scalar products (n, m), in at least float32."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, others: Tensor) -> Tensor:
        ctx.save_for_backward(maps, others)
        maps, others, count = maps.contiguous(), others.contiguous(), maps.shape[1]
        programs, span = blocks(count, LENGTH, PROGRAMS)
        kind = torch.promote_types(maps.dtype, torch.float32)
        parts = maps.new_empty(programs, len(maps), len(others), dtype=kind)
        tile = max(SIDE, power(len(maps))), max(SIDE, power(len(others))), LENGTH
        sizes = len(maps), len(others), count, span
        launch(_correlate, (programs,), 4, maps, others, parts, *sizes, accumulator(maps), *tile)
        return parts.sum(0)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, Tensor | None]:
        maps, others = ctx.saved_tensors
        wanted = asked(ctx)
        dx = _Combine.apply(others, v.t(), None).to(maps.dtype) if wanted[0] else None
        dg = _Combine.apply(maps, v, None).to(others.dtype) if wanted[1] else None
        return dx, dg


@jit
def _combine(  # out[j] = base[j] + sum_i weights[i, j] maps[i]
    weights, maps, base, out, terms, outputs, count, row, column,
    BASED: tl.constexpr, ACC: tl.constexpr, J: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    j = tl.arange(0, J)
    place = j.to(tl.int64)[:, None] * count + at[None, :]
    inside = (j < outputs)[:, None] & (at < count)[None, :]
    total = tl.full((J, BLOCK), 0, ACC)
    if BASED:
        total = tl.load(base + place, mask=inside, other=0).to(ACC)
    for _ in tl.range(0, terms, loop_unroll_factor=4):
        w = tl.load(weights + j * column, mask=j < outputs, other=0).to(ACC)
        x = tl.load(maps + at, mask=at < count, other=0).to(ACC)
        total += w[:, None] * x[None, :]
        weights += row
        maps += count
    tl.store(out + place, total, mask=inside)


@jit
def _correlate(  # parts[p, i, j] = <maps[i], others[j]> over the values of program p
    maps, others, parts, terms, outputs, count, span, ACC: tl.constexpr,
    N: tl.constexpr, J: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i, j = tl.arange(0, N), tl.arange(0, J)
    total = tl.full((N, J), 0, ACC)
    first = tl.program_id(0) * span
    for offset in range(0, span, BLOCK):
        at = first + offset + tl.arange(0, BLOCK)
        inside = (at < count)[None, :]
        rows = i.to(tl.int64)[:, None] * count + at[None, :]
        x = tl.load(maps + rows, mask=inside & (i < terms)[:, None], other=0).to(ACC)
        rows = j.to(tl.int64)[:, None] * count + at[None, :]
        y = tl.load(others + rows, mask=inside & (j < outputs)[:, None], other=0).to(ACC)
        total += tl.dot(x, tl.trans(y), input_precision="ieee", out_dtype=ACC)
    place = tl.program_id(0) * terms * outputs + i[:, None] * outputs + j[None, :]
    tl.store(parts + place, total, mask=(i < terms)[:, None] & (j < outputs)[None, :])
