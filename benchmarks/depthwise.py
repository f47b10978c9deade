"""Time the forms of a depthwise kernel's gradient on a CPU: by which `convolution.py` chooses.

    OMP_NUM_THREADS=1 python benchmarks/depthwise.py [--rounds 5]
    OMP_NUM_THREADS=1 ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/depthwise.py   # as without AVX-512

The forms take turns in every round; a figure is the lowest of all rounds, in milliseconds a call.
Kernels here are whole: taps that never leave the padding are left out before a form is chosen.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from itertools import product

import torch
from torch import Tensor

from tutelage.spaces.convolution import channels_last, images_as_channels, windows

MAPS = [(100, 20, 8), (100, 8, 8), (100, 40, 4), (100, 16, 4), (64, 80, 16), (64, 48, 32)]
"""Batch, channels and side."""
CALLS = 10


def torchs(x: Tensor, g: Tensor, size: int, dilation: int) -> Tensor:
    padding = [dilation * (size // 2)] * 2
    kernel = x.new_empty(x.shape[1], 1, size, size)
    form = (None, [1, 1], padding, [dilation] * 2, False, [0, 0], x.shape[1])
    mask = [False, True, False]
    return torch.ops.aten.convolution_backward(g, x, kernel, *form, mask)[1]


def milliseconds(function: Callable[[], Tensor]) -> float:
    function()
    began = time.perf_counter()
    for _ in range(CALLS):
        function()
    return (time.perf_counter() - began) / CALLS * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| batch, channels, side | kernel, dilation | windows | images as channels | torch |")
    print("|---|---|---|---|---|")
    for (batch, channels, side), (size, dilation) in product(MAPS, product((3, 5), (1, 2))):
        x, g = (channels_last(torch.randn(batch, channels, side, side)) for _ in range(2))
        pair, padding = (size, size), (dilation * (size // 2),) * 2
        forms: list[Callable[[], Tensor]] = [
            partial(windows, x, g, pair, dilation),
            partial(images_as_channels, x, g, pair, padding, dilation),
            partial(torchs, x, g, size, dilation),
        ]
        for form in forms[1:]:
            torch.testing.assert_close(form(), forms[0](), rtol=1e-3, atol=1e-2)
        each = [[milliseconds(form) for form in forms] for _ in range(rounds)]
        best = " | ".join(f"{min(times):.2f}" for times in zip(*each, strict=True))
        print(f"| {batch}, {channels}, {side} | {size}, {dilation} | {best} |", flush=True)


if __name__ == "__main__":
    main()
