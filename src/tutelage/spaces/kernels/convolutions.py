"""Depthwise convolutions, with or without a ReLU before them, and their gradients.

With a gate m = [x > 0] of the map that ReLU reads, three functions are closed under
differentiation, any number of times, as those of `convolution.py` are (t: taps, p: pixels):

    convolve(v, k)[p]  = sum_t k[t] m v[p + t]     d/dv: transpose(g, k)   d/dk: correlate(v, g)
    transpose(g, k)    = d<convolve(v, k), g>/dv   d/dg: convolve(u, k)    d/dk: correlate(u, g)
    correlate(v, g)    = d<convolve(v, k), g>/dk   d/dv: transpose(g, u)   d/dg: convolve(v, u)

relu(x) = m x is never written to memory, and the gate has no derivative.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from tutelage.spaces.kernels.asked import Closed, asked
from tutelage.spaces.kernels.language import (
    PROGRAMS,
    Laid,
    accumulator,
    blocks,
    jit,
    launch,
    power,
    tl,
)

CHANNELS = 16
"""Most channels of a tile: 64 bytes of a pixel, two whole sectors of memory."""
TILE = 1024
"""Values of a map that one program computes. The loop over taps is not unrolled: many programs in
flight hide the latency of its loads, where unrolled ones run out of registers."""
TAPS = 4096
"""Products of a value and a gradient, over all taps, that a program adds at a time."""


def depthwise(x: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """Convolve each channel of x (B, C, H, W) with its own kernel (C, 1, k, k), k odd, padded."""
    return _Convolve.apply(x, None, kernel, Form(stride, dilation, *kernel.shape[2:]))


def relu_depthwise(x: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """Convolve relu(x) as `depthwise` does."""
    return _Convolve.apply(x, x.detach(), kernel, Form(stride, dilation, *kernel.shape[2:]))


class Form(NamedTuple):
    """Stride, dilation, and the kernel's height and width."""

    stride: int
    dilation: int
    down: int
    across: int

    def sides(self, x: Tensor) -> tuple[int, int]:
        """Height and width of the output for x (B, C, H, W)."""
        return -(-x.shape[2] // self.stride), -(-x.shape[3] // self.stride)


class _Convolve(Closed):
    """A map v and a gate x or none (B, C, H, W), and a kernel, to an output."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, x: Tensor | None, kernel: Tensor, form: Form) -> Tensor:
        ctx.save_for_backward(v, x, kernel)
        ctx.form = form
        out = _empty((*v.shape[:2], *form.sides(v)), v)
        _map(_convolve, out, v, x, kernel.contiguous(), form)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        v, x, kernel = ctx.saved_tensors
        first, *_, last = asked(ctx)
        dv = _Transpose.apply(g, x, kernel, v.shape[2:], ctx.form) if first else None
        dk = _Correlate.apply(v, x, g, ctx.form, kernel.dtype) if last else None
        return dv, None, dk, None


class _Transpose(Closed):
    """Gradient of a convolution in its map, whose height and width are `sides`."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor | None, kernel: Tensor, sides: torch.Size, form: Form
    ) -> Tensor:
        ctx.save_for_backward(g, x, kernel)
        ctx.form = form
        out = _empty((*g.shape[:2], *sides), g)
        _map(_transpose, out, g, x, kernel.contiguous(), form)
        return out

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
        g, x, kernel = ctx.saved_tensors
        first, *_, last = asked(ctx)
        dg = _Convolve.apply(u, x, kernel, ctx.form) if first else None
        dk = _Correlate.apply(u, x, g, ctx.form, kernel.dtype) if last else None
        return dg, None, dk, None, None


class _Correlate(Closed):
    """Gradient of a convolution in its kernel, of type `kind`."""

    @staticmethod
    def forward(
        ctx: Any, v: Tensor, x: Tensor | None, g: Tensor, form: Form, kind: torch.dtype
    ) -> Tensor:
        ctx.save_for_backward(v, x, g)
        ctx.form = form
        maps = *_with_gate(v, x), Laid.out(g)
        channels, taps = v.shape[1], form.down * form.across
        wide, width = power(taps), min(CHANNELS, power(channels))
        columns, length = -(-channels // width), max(1, TAPS // (wide * width))
        count = g.numel() // channels
        programs, span = blocks(count, length, max(1, PROGRAMS // columns))
        kinds = torch.promote_types(v.dtype, torch.float32)
        parts = v.new_empty(programs, channels, taps, dtype=kinds)
        read, pitches = zip(*maps, strict=True)
        sizes = (count, channels, *pitches, *v.shape[2:], *g.shape[2:], span, *form)
        tile = x is not None, maps[0] is maps[1], accumulator(v), wide, length, width
        launch(_correlate, (programs, columns), 4, *read, parts, *sizes, *tile)
        return parts.sum(0).view(channels, 1, form.down, form.across).to(kind)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
        v, x, g = ctx.saved_tensors
        first, *_, last = asked(ctx)
        dv = _Transpose.apply(g, x, u, v.shape[2:], ctx.form) if first else None
        dg = _Convolve.apply(v, x, u, ctx.form) if last else None
        return dv, None, dg, None, None


def _map(kernel: Any, out: Tensor, v: Tensor, x: Tensor | None, taps: Tensor, form: Form) -> None:
    """Fill a map by `_convolve` or `_transpose`."""
    laid, gate = _with_gate(v, x)
    channels, width = v.shape[1], min(CHANNELS, power(v.shape[1]))
    length, count = TILE // width, out.numel() // out.shape[1]
    grid = -(-count // length), -(-channels // width)
    sizes = (count, channels, laid.pitch, gate.pitch, *v.shape[2:], *out.shape[2:], *form)
    tile = x is not None, laid is gate, accumulator(v), length, width
    launch(kernel, grid, 4, laid.map, gate.map, taps, out, *sizes, *tile)


def _with_gate(v: Tensor, x: Tensor | None) -> tuple[Laid, Laid]:
    """Lay out a map and its gate; one memory is laid out, and read, once."""
    laid = Laid.out(v)
    if x is None or (x.data_ptr() == v.data_ptr() and x.stride() == v.stride()):
        return laid, laid
    return laid, Laid.out(x)


def _empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Allocate a map with its channels innermost."""
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


@jit
def _convolve(
    v, gate, kernel, out, count, channels, pitch, gate_pitch, height, width, rows, columns,
    STRIDE: tl.constexpr, DILATION: tl.constexpr, DOWN: tl.constexpr, ACROSS: tl.constexpr,
    GATED: tl.constexpr, SAME: tl.constexpr, ACC: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0) * P + tl.arange(0, P)
    c = tl.program_id(1) * C + tl.arange(0, C)
    top = p // columns % rows * STRIDE - DOWN // 2 * DILATION
    left = p % columns * STRIDE - ACROSS // 2 * DILATION
    image = p // (rows * columns) * height
    total = tl.full((P, C), 0, ACC)
    for t in range(DOWN * ACROSS):
        h = top + t // ACROSS * DILATION
        w = left + t % ACROSS * DILATION
        inside = (h >= 0) & (h < height) & (w >= 0) & (w < width) & (p < count)
        mask = inside[:, None] & (c < channels)[None, :]
        at = ((image + h) * width + w)[:, None]
        value = tl.load(v + at * pitch + c[None, :], mask=mask, other=0).to(ACC)
        if GATED:
            x = value
            if not SAME:
                x = tl.load(gate + at * gate_pitch + c[None, :], mask=mask, other=0).to(ACC)
            value = tl.where(x <= 0, 0, value)
        k = tl.load(kernel + c * (DOWN * ACROSS) + t, mask=c < channels, other=0).to(ACC)
        total += k[None, :] * value
    mask = (p < count)[:, None] & (c < channels)[None, :]
    tl.store(out + p[:, None] * channels + c[None, :], total, mask=mask)


@jit
def _transpose(  # height and width are those of v, the gradient of an output
    v, gate, kernel, out, count, channels, pitch, gate_pitch, height, width, rows, columns,
    STRIDE: tl.constexpr, DILATION: tl.constexpr, DOWN: tl.constexpr, ACROSS: tl.constexpr,
    GATED: tl.constexpr, SAME: tl.constexpr, ACC: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0) * P + tl.arange(0, P)
    c = tl.program_id(1) * C + tl.arange(0, C)
    bottom = p // columns % rows + DOWN // 2 * DILATION
    right = p % columns + ACROSS // 2 * DILATION
    image = p // (rows * columns) * height
    total = tl.full((P, C), 0, ACC)
    for t in range(DOWN * ACROSS):
        h = bottom - t // ACROSS * DILATION
        w = right - t % ACROSS * DILATION
        inside = (h >= 0) & (h < height * STRIDE) & (w >= 0) & (w < width * STRIDE) & (p < count)
        if STRIDE > 1:
            inside = inside & (h % STRIDE == 0) & (w % STRIDE == 0)
        mask = inside[:, None] & (c < channels)[None, :]
        at = ((image + h // STRIDE) * width + w // STRIDE)[:, None] * pitch + c[None, :]
        value = tl.load(v + at, mask=mask, other=0).to(ACC)
        k = tl.load(kernel + c * (DOWN * ACROSS) + t, mask=c < channels, other=0).to(ACC)
        total += k[None, :] * value
    mask = (p < count)[:, None] & (c < channels)[None, :]
    if GATED:
        x = tl.load(gate + p[:, None] * gate_pitch + c[None, :], mask=mask, other=0).to(ACC)
        total = tl.where(x <= 0, 0, total)
    tl.store(out + p[:, None] * channels + c[None, :], total, mask=mask)


@jit
def _correlate(
    v, gate, g, parts, count, channels, pitch, gate_pitch, g_pitch,
    height, width, rows, columns, span,
    STRIDE: tl.constexpr, DILATION: tl.constexpr, DOWN: tl.constexpr, ACROSS: tl.constexpr,
    GATED: tl.constexpr, SAME: tl.constexpr, ACC: tl.constexpr,
    T: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    t = tl.arange(0, T)
    c = tl.program_id(1) * C + tl.arange(0, C)
    below = (t // ACROSS - DOWN // 2) * DILATION
    beside = (t % ACROSS - ACROSS // 2) * DILATION
    total = tl.full((T, P, C), 0, ACC)
    first = tl.program_id(0) * span
    for offset in range(0, span, P):
        p = first + offset + tl.arange(0, P)
        h = (p // columns % rows * STRIDE)[None, :] + below[:, None]
        w = (p % columns * STRIDE)[None, :] + beside[:, None]
        inside = (h >= 0) & (h < height) & (w >= 0) & (w < width)
        inside = inside & (p < count)[None, :] & (t < DOWN * ACROSS)[:, None]
        mask = inside[:, :, None] & (c < channels)[None, None, :]
        pixel = ((p // (rows * columns) * height)[None, :] + h) * width + w
        at = pixel[:, :, None]
        value = tl.load(v + at * pitch + c[None, None, :], mask=mask, other=0).to(ACC)
        if GATED:
            x = value
            if not SAME:
                x = tl.load(gate + at * gate_pitch + c[None, None, :], mask=mask, other=0).to(ACC)
            value = tl.where(x <= 0, 0, value)
        mask = (p < count)[:, None] & (c < channels)[None, :]
        y = tl.load(g + p[:, None] * g_pitch + c[None, :], mask=mask, other=0).to(ACC)
        total += value * y[None, :, :]
    found = tl.sum(total, axis=1)
    place = (tl.program_id(0) * channels + c)[None, :] * (DOWN * ACROSS) + t[:, None]
    tl.store(parts + place, found, mask=(t < DOWN * ACROSS)[:, None] & (c < channels)[None, :])
