"""Convolutions by torch's functions, with derivatives that can be differentiated again.

A convolution and its two gradients belong to one trilinear form, so three functions are closed
under differentiation, any number of times, at one kernel call each:

    convolve(x, k)[p]  = sum_t k[t] x[p + t]    d/dx: transpose(g, k)   d/dk: correlate(x, g)
    transpose(g, k)    = d<convolve(x, k), g>/dx   d/dg: convolve(v, k)    d/dk: correlate(v, g)
    correlate(x, g)    = d<convolve(x, k), g>/dk   d/dx: transpose(g, v)   d/dg: convolve(x, v)

Torch's second derivative of a convolution takes about twenty calls, and some calls for each group
of a grouped convolution.

On a CPU `_depthwise_correlate` computes a depthwise kernel's gradient in one of several forms, each
the fastest at some sizes (`benchmarks/depthwise.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage import shares
from tutelage.spaces import kernels
from tutelage.spaces.kernels.asked import Closed, asked

PRODUCT = 1 << 16
"""Elements of a map on a CPU up to which a 1x1 convolution is a matrix product."""
SMALL = 8
"""Side of a map, in pixels, up to which a kernel's gradient uses images as channels."""


class Convolution(nn.Conv2d):
    """A padded convolution without a bias; with stride and a 1x1 kernel, it subsamples first.

    The result is the same. Torch's kernel for the weight gradient of a strided 1x1 convolution
    (oneDNN on processors without AVX-512) writes past the end of its buffer.
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
        if kernel % 2 == 0:
            raise ValueError(f"kernel = {kernel}: padding keeps a map's size with odd ones only")
        padding = dilation * (kernel // 2)
        super().__init__(
            inputs, outputs, kernel, stride, padding, dilation, groups=groups, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, inputs, H, W) to (B, outputs, H / stride, W / stride), rounded up."""
        stride = self.stride[0]
        if self.training:
            return convolve(x, self.weight, stride, self.dilation[0], self.groups)
        # only torch's operations here, for exports
        if self.kernel_size == (1, 1):
            x, stride = subsample(x, stride), 1
        padding = (self.dilation[0] * (self.kernel_size[0] // 2),) * 2
        return F.conv2d(x, self.weight, None, stride, padding, self.dilation, self.groups)


class Depthwise(Convolution):
    """A depthwise convolution, computed by `depthwise` in training."""

    def __init__(self, channels: int, kernel: int, stride: int, dilation: int = 1) -> None:
        super().__init__(channels, channels, kernel, stride, dilation, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, C, H, W) to (B, C, H / stride, W / stride), rounded up."""
        if self.training:
            return depthwise(x, self.weight, self.stride[0], self.dilation[0])
        return super().forward(x)


def channels_last(x: Tensor) -> Tensor:
    """Return x (B, C, H, W) in memory with its channels innermost."""
    return x.contiguous(memory_format=torch.channels_last)


def pixel_mean(x: Tensor) -> Tensor:
    """Mean (B, C) over the pixels of x (B, C, H, W).

    The bits are those of torch's mean over two dimensions. Its gradient is laid out pixel by pixel,
    in which operations on channels-last maps take five times as long.
    """
    return x.permute(0, 2, 3, 1).flatten(1, 2).mean(1)


def subsample(x: Tensor, stride: int) -> Tensor:
    """Read every `stride`-th row and column of x (B, C, H, W): (B, C, H / stride, W / stride)."""
    # a mean over windows of one pixel takes one kernel forward and one backward; the backward pass
    # of two slices fills two maps of zeros
    return x if stride == 1 else F.avg_pool2d(x, 1, stride)


def autocasts(x: Tensor) -> bool:
    """Tell whether autocast chooses the type of operations on x; never for meta tensors."""
    kind = x.device.type
    return _available(kind) and torch.is_autocast_enabled(kind)


_available = cache(torch.amp.is_autocast_available)


def convolve(
    x: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1, groups: int = 1
) -> Tensor:
    """Convolve x (B, C, H, W) with a kernel (O, C / groups, k, k), k odd, padded."""
    size = (kernel.shape[2], kernel.shape[3])
    if size == (1, 1):
        x, stride = subsample(x, stride), 1
    form = Form(stride, (dilation * (size[0] // 2), dilation * (size[1] // 2)), dilation, groups)
    return _along(*cast(x, kernel), form)


def cast(x: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Convert a map and a kernel to the type that autocast chooses for convolutions."""
    if not autocasts(x):
        return x, kernel
    kind = torch.get_autocast_dtype(x.device.type)
    return x.to(kind), kernel.to(kind)


def depthwise(x: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """Convolve each channel of x (B, C, H, W) with its own kernel (C, 1, k, k), k odd, padded."""
    x, kernel = cast(x, kernel)
    if kernels.usable(x):
        return kernels.depthwise(x, kernel, stride, dilation)
    if stride == dilation == 2:
        # every tap is on an even pixel: an ordinary convolution of a quarter of the image
        x, stride, dilation = subsample(x, 2), 1, 1
    kernel = _reached(kernel, x, dilation)
    if kernel.shape[2:] == (1, 1):
        return subsample(x, stride) * kernel.view(-1, 1, 1)
    return convolve(x, kernel, stride, dilation, x.shape[1])


def relu_depthwise(x: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """Convolve each channel of ReLU of x (B, C, H, W) with its own kernel, as `depthwise`."""
    if kernels.usable(x):
        return kernels.relu_depthwise(*cast(x, kernel), stride, dilation)
    return depthwise(x.relu(), kernel, stride, dilation)


def _reached(kernel: Tensor, x: Tensor, dilation: int) -> Tensor:
    """Leave out the taps that are in the padding at every position of the kernel (C, 1, k, k).

    Torch's fast kernels do not take a kernel that is larger than the padded map.
    """
    half = kernel.shape[-1] // 2
    down, across = (min(half, (side - 1) // dilation) - half for side in x.shape[2:])
    return F.pad(kernel, (across, across, down, down)) if down or across else kernel


# Three functions that are closed under differentiation -------------------------------------------


class Form(NamedTuple):
    """Stride, padding, dilation and groups of a convolution."""

    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    dilation: int = 1
    groups: int = 1

    def own(self, x: Tensor) -> bool:
        """Tell whether a depthwise kernel's gradient is computed by a form of this file."""
        plain = self.stride == 1 and self.dilation <= 2 and x.device.type == "cpu"
        return plain and self.groups == x.shape[1]


POINT = Form()
"""The form of an ordinary 1x1 convolution."""


class _Convolve(Closed):
    """x (B, C, H, W) and a kernel to (B, O, H, W)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, form: Form) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.form = form
        return plain(x, kernel, form)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, kernel = ctx.saved_tensors
        return *gradients(x, kernel, g, ctx.form, asked(ctx)), None


class _Transpose(Closed):
    """Gradient of a convolution in its map, whose height and width are `sides`."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, kernel: Tensor, sides: torch.Size, form: Form) -> Tensor:
        ctx.save_for_backward(g, kernel)
        ctx.form = form
        return _in_map(g, kernel, sides, form)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        g, kernel = ctx.saved_tensors
        v, (map_asked, kernel_asked) = channels_last(v), asked(ctx)
        dg = _along(v, kernel, ctx.form) if map_asked else None
        dk = _correlate(v, g, kernel.shape[2:], ctx.form) if kernel_asked else None
        return dg, dk, None, None


class _Correlate(Closed):
    """Gradient of a convolution in its kernel, whose height and width are `size`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, size: torch.Size, form: Form) -> Tensor:
        ctx.save_for_backward(x, g)
        ctx.form = form
        return _in_kernel(x, g, size, form)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, g = ctx.saved_tensors
        map_asked, g_asked = asked(ctx)
        dx = _transpose(g, v, x.shape[2:], ctx.form) if map_asked else None
        dg = _along(x, v, ctx.form) if g_asked else None
        return dx, dg, None, None


def gradients(
    x: Tensor, kernel: Tensor, g: Tensor, form: Form, wanted: Sequence[bool] = (True, True)
) -> tuple[Any, Any]:
    """Gradients of a convolution in its map and its kernel, for a cotangent g of its output.

    Those that are not wanted are None.
    """
    g = channels_last(g)
    small = form == POINT and kernel.shape[2:] == (1, 1) and tiny(x) and tiny(g)
    if not (torch.is_grad_enabled() or form.own(x) or small):  # not differentiated again: one call
        both = _torchs(x, kernel, g, form, (wanted[0], wanted[1], False))
        return both[0] if wanted[0] else None, both[1] if wanted[1] else None
    dx = _transpose(g, kernel, x.shape[2:], form) if wanted[0] else None
    dk = _correlate(x, g, kernel.shape[2:], form) if wanted[1] else None
    return dx, dk


def plain(x: Tensor, kernel: Tensor, form: Form) -> Tensor:
    """Convolve without a derivative of this file's; small maps with a 1x1 kernel as a product."""
    if form == POINT and kernel.shape[2:] == (1, 1) and tiny(x):
        rows, weight = x.permute(0, 2, 3, 1), kernel.flatten(1)
        found = torch.mm(rows.flatten(0, 2), weight.t())
        return found.view(*rows.shape[:3], len(weight)).permute(0, 3, 1, 2)
    return F.conv2d(x, kernel, None, *form)


def tiny(x: Tensor) -> bool:
    """Tell whether a map is so small that a convolution's call takes longer than its work."""
    return x.device.type == "cpu" and elements(x) <= PRODUCT and not autocasts(x)


def elements(x: Tensor) -> float:
    """Count the elements of a map by which its form is chosen."""
    own = shares.present()
    return (own.largest(x.numel()) if own else x.numel()) * _times[-1]


_times = [1.0]


@contextmanager
def chosen_for_batch(times: float) -> Iterator[None]:
    """Choose the forms of a batch so many times as large, which a small one stands for."""
    _times.append(times)
    try:
        yield
    finally:
        _times.pop()


# Each of the three: with a derivative only where one is recorded, since a Function takes time


def _along(x: Tensor, kernel: Tensor, form: Form) -> Tensor:
    recorded = torch.is_grad_enabled()
    return (_Convolve.apply if recorded else plain)(x, kernel, form)


def _transpose(g: Tensor, kernel: Tensor, sides: torch.Size, form: Form) -> Tensor:
    recorded = torch.is_grad_enabled()
    return (_Transpose.apply if recorded else _in_map)(g, kernel, sides, form)


def _correlate(x: Tensor, g: Tensor, size: torch.Size, form: Form) -> Tensor:
    recorded = torch.is_grad_enabled()
    return (_Correlate.apply if recorded else _in_kernel)(x, g, size, form)


def _in_map(g: Tensor, kernel: Tensor, sides: torch.Size, form: Form) -> Tensor:
    """Gradient of a convolution in its map, whose height and width are `sides`."""
    if form.stride == 1:
        return plain(g, _turned(kernel, form.groups), form)
    shape = (len(g), form.groups * kernel.shape[1], *sides)
    x = torch.empty(  # only its shape is used
        shape, dtype=g.dtype, device=g.device, memory_format=torch.channels_last
    )
    return _torchs(x, kernel, g, form, (True, False, False))[0]


def _in_kernel(x: Tensor, g: Tensor, size: torch.Size, form: Form) -> Tensor:
    """Gradient of a convolution in its kernel, whose height and width are `size`."""
    if form == POINT and size == (1, 1) and tiny(x):
        rows = [each.permute(0, 2, 3, 1).flatten(0, 2) for each in (g, x)]
        return torch.mm(rows[0].t(), rows[1])[..., None, None]
    if form.own(x) and g.shape[1] == form.groups:
        return _depthwise_correlate(x, g, (size[0], size[1]), form)
    kernel = x.new_empty(g.shape[1], x.shape[1] // form.groups, *size)
    return _torchs(x, kernel, g, form, (False, True, False))[1]


def _torchs(
    x: Tensor, kernel: Tensor, g: Tensor, form: Form, mask: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Torch's gradients of a convolution in its map and its kernel."""
    stride, padding, dilation, groups = form
    pairs = [stride] * 2, padding, [dilation] * 2
    return torch.ops.aten.convolution_backward(
        g, x, kernel, None, *pairs, False, [0, 0], groups, mask
    )


def _turned(kernel: Tensor, groups: int) -> Tensor:
    """Rotate a kernel (O, I, k, k) by 180 degrees; exchange inputs and outputs in each group."""
    if kernel.shape[1] > 1 or len(kernel) > groups:
        kernel = kernel.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    return kernel if kernel.shape[2:] == (1, 1) else kernel.flip(2, 3)


# The gradient of a depthwise kernel on a CPU ------------------------------------------------------


def _depthwise_correlate(x: Tensor, g: Tensor, size: tuple[int, int], form: Form) -> Tensor:
    """Gradient in a kernel (C, 1, *size) of a padded depthwise convolution of stride 1.

    Torch's function is fast for kernels of at most three columns without dilation. A wider kernel
    is computed in windows of three columns. A dilated one is computed on the even and odd phases of
    the image, where its taps are neighbours. On small maps all images of a batch are channels of
    one forward convolution, whose kernel is the output's gradient.
    """
    narrow = max(size) <= 3 and form.dilation == 1  # torch's function, from maps of 3 x 3 on
    largest = max(x.shape[2:])
    if largest <= SMALL and not (narrow and largest > 2):
        return images_as_channels(x, g, size, form.padding, form.dilation)
    return windows(x, g, size, form.dilation)


def images_as_channels(
    x: Tensor, g: Tensor, size: tuple[int, int], padding: tuple[int, int], dilation: int
) -> Tensor:
    """Gradient in a depthwise kernel (C, 1, *size): g slides over x, image by image."""
    count = x.shape[0] * x.shape[1]
    rows = x.transpose(0, 1).contiguous().view(1, count, *x.shape[2:])
    kernels = g.transpose(0, 1).contiguous().view(count, 1, *g.shape[2:])
    if kernels.shape[2:] == (1, 1):  # a dilation becomes a stride here
        down, across = padding
        rows = subsample(F.pad(rows, (across, across, down, down)), dilation)
        padding, dilation = (0, 0), 1
    found = F.conv2d(rows, kernels, None, dilation, padding, 1, count)
    return found.view(x.shape[1], x.shape[0], *size).sum(1, keepdim=True)


def windows(x: Tensor, g: Tensor, size: tuple[int, int], dilation: int) -> Tensor:
    """Gradient in a depthwise kernel (C, 1, *size) of dilation 1 or 2, three columns at a time."""
    if dilation == 2:
        x, g = _phases(x), _phases(g)
    (rows, columns), parts = size, []
    half = columns // 2
    for start in range(0, columns, 3):
        wide = min(3, columns - start)
        window = F.pad(x, (half - start, start + wide - 1 - half)) if columns > 3 else x
        form = Form(1, (rows // 2, 0 if columns > 3 else half), 1, x.shape[1])
        kernel = x.new_empty(x.shape[1], 1, rows, wide)
        parts.append(_torchs(window, kernel, g, form, (False, True, False))[1])
    return torch.cat(parts, dim=3)


def _phases(x: Tensor) -> Tensor:
    """Split x (B, C, H, W) into its even and odd rows and columns: (4 B, C, H / 2, W / 2)."""
    x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
    x = x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2))
    # one copy, channels innermost
    return x.permute(3, 5, 0, 2, 4, 1).flatten(0, 2).permute(0, 3, 1, 2)
