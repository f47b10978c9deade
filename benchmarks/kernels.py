"""Time every fused kernel against its plain form, at the sizes of a DARTS supernet.

    python benchmarks/kernels.py           # on a GPU
    python benchmarks/kernels.py --tiny    # toy sizes by Triton's interpreter: shows that all runs

The two are compared first, in all derivatives, without TF32. Then each is captured in a CUDA graph,
as a step is, and the graphs are replayed by turns; a figure is the lowest of all rounds, in
milliseconds. An order is what is computed: 0 the values, 1 their gradient too, 2 the gradient of a
gradient as well. Both are timed as in `--precision fp32`, in which convolutions of cuDNN round
their factors to TF32, and the plain form as in `--precision ieee` too. The ratio is that of the
first two.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tutelage.run.machine.device import arithmetic
from tutelage.spaces import convolution, folding, fused, kernels

ROUNDS = 5
CALLS = 20
FULL = [(64, 16, 32), (64, 32, 16), (64, 64, 8)]
"""Images, channels of one edge, side: the three resolutions of a supernet of 16 channels."""
TINY = [(2, 3, 4)]
EDGES = 5
"""Edges of a cell's last node, which its convolutions compute together."""


class Pair(NamedTuple):
    """A kernel, its plain form, and what both read."""

    name: str
    fast: Callable[..., Any]
    plain: Callable[..., Any]
    inputs: list[Tensor]


def plain_products(maps: Tensor, weights: Tensor) -> Tensor:
    return (weights.t() @ maps.flatten(1)).unflatten(1, maps.shape[1:])


def plain_moments(z: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    rows = z.permute(0, 2, 3, 1).flatten(0, 2)
    mean = rows.mean(0)
    centred = (rows - mean).unflatten(1, (groups, -1)).transpose(0, 1)
    return mean.view(groups, -1), centred.mT @ centred / len(rows)


def fused_sum(z: Tensor, pointwise: Tensor, weights: Tensor) -> Tensor:
    P = pointwise.view(len(weights), -1, pointwise.shape[1])
    kernel, bias = kernels.folded(P, weights, *kernels.moments(z, len(P)))
    return convolution.convolve(z, kernel[..., None, None]) + bias[:, None, None]


def plain_sum(z: Tensor, pointwise: Tensor, weights: Tensor) -> Tensor:
    return folding.folded_sum([z], pointwise, weights)


def plain_folded(P: Tensor, weights: Tensor, mean: Tensor, cov: Tensor) -> tuple[Tensor, Tensor]:
    variance = ((P @ cov) * P).sum(2).clamp(min=0)
    scaled = P * (weights.unsqueeze(1) * (variance + fused.EPSILON).rsqrt()).unsqueeze(2)
    kernel = scaled.transpose(0, 1).flatten(1)
    return kernel, kernel.mv(mean.flatten()).neg()


def pairs(images: int, channels: int, side: int, device: str) -> Iterator[Pair]:
    """Yield what a node of a supernet computes at one resolution."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device=device).requires_grad_()

    def activated(x: Tensor, kernel: Tensor, dilation: int) -> Tensor:
        return convolution.depthwise(x.relu(), kernel, 1, dilation)

    def a_map(wide: int) -> Tensor:
        return convolution.channels_last(normal(images, wide, side, side)).detach().requires_grad_()

    maps = normal(3, images, side, side, channels)
    yield Pair("3 maps in 4 sums", kernels.products, plain_products, [maps, normal(3, 4)])
    for size, dilation in ((3, 1), (5, 2)):
        x, kernel = a_map(EDGES * channels), normal(EDGES * channels, 1, size, size)
        fast = partial(kernels.relu_depthwise, dilation=dilation)
        slow = partial(activated, dilation=dilation)
        name = f"relu, depthwise {size} x {size}, dilation {dilation}"
        yield Pair(name, fast, slow, [x, kernel])
    terms = 4 * EDGES
    fast, slow = (partial(form, groups=terms) for form in (kernels.moments, plain_moments))
    yield Pair(f"moments of {terms} groups", fast, slow, [a_map(terms * channels)])
    rows = normal(terms, 4 * channels, channels).detach()
    covariance = (rows.mT @ rows / rows.shape[1]).requires_grad_()
    P, mean = normal(terms, channels, channels), normal(terms, channels)
    given = [a_map(terms * channels), normal(terms * channels, channels, 1, 1), normal(terms)]
    yield Pair(f"folded sum of {terms} terms", fused_sum, plain_sum, given)
    given = [P, normal(terms), mean, covariance]
    yield Pair(f"folding of {terms} terms", kernels.folded, plain_folded, given)


def computed(form: Callable[..., Any], inputs: list[Tensor], order: int) -> list[Tensor]:
    """Compute values and their derivatives up to an order."""
    found = form(*inputs)
    results = list(found) if isinstance(found, tuple) else [found]
    for level in range(order):
        # a square of the values: a sum alone would have a constant gradient
        scalar = torch.stack([x.square().sum() for x in results[-len(inputs) :]]).sum()
        results += torch.autograd.grad(scalar, inputs, create_graph=level + 1 < order)
    return results


def disagreement(pair: Pair) -> float:
    """Return the largest relative difference of any result, in the Euclidean norm."""
    both = []
    for form in (pair.fast, pair.plain):
        with kernels.allowed(form is pair.fast):  # a plain form, and its derivatives, ask for them
            both.append(computed(form, pair.inputs, 2))
    with torch.no_grad():
        return max(float((a - b).norm() / b.norm()) for a, b in zip(*both, strict=True))


def replayed(form: Callable[..., Any], inputs: list[Tensor], order: int) -> Callable[[], Any]:
    """Capture a computation in a CUDA graph; on a CPU there is none."""
    call = partial(computed, form, inputs, order)
    if not inputs[0].is_cuda:
        return call
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # compiles the kernels
        call()
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def milliseconds(call: Callable[[], Any], calls: int, device: str) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        call()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / calls * 1000


def measure(device: str, tiny: bool) -> Iterator[dict[str, Any]]:
    """Time all kernels, one after another.

    Args:
        device: cuda, or cpu for Triton's interpreter, which needs a process of its own.
        tiny: Toy sizes, one round; always so on a CPU.

    Raises:
        RuntimeError: A kernel disagrees with its plain form, or the interpreter's process fails.
    """
    if device == "cpu" and not _interpreted():
        line = [sys.executable, __file__, "--tiny", "--json"]
        variables = os.environ | {"TRITON_INTERPRET": "1"}
        done = subprocess.run(line, env=variables, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the interpreter's process failed: {done.stderr[-1000:]}")
        yield from map(json.loads, done.stdout.splitlines())
        return
    torch.manual_seed(0)
    small = tiny or device == "cpu"
    for images, channels, side in TINY if small else FULL:
        size = f"{images} x {channels} x {side} x {side}"
        for pair in pairs(images, channels, side, device):
            with arithmetic("ieee"):
                apart = disagreement(pair)
            if not apart <= 1e-3:
                raise RuntimeError(f"{pair.name}: the forms differ by {apart:.1e}")
            for order in range(3):
                row = {"kernel": pair.name, "size": size, "order": order, "difference": apart}
                yield row | timed(pair, order, device, small)


def timed(pair: Pair, order: int, device: str, small: bool) -> dict[str, float]:
    """Time both forms of a kernel by turns, and the plain one without TF32 as well."""
    calls = {}
    for name, form, precision in (
        ("fused_ms", pair.fast, "fp32"),
        ("plain_ms", pair.plain, "fp32"),
        ("plain_ieee_ms", pair.plain, "ieee"),
    ):
        # a graph keeps the kernels that it was captured with
        with arithmetic(precision), kernels.allowed(form is pair.fast):
            calls[name] = replayed(form, pair.inputs, order)
    rounds = [
        [milliseconds(call, 1 if small else CALLS, device) for call in calls.values()]
        for _ in range(1 if small else ROUNDS)
    ]
    found = dict(zip(calls, map(min, zip(*rounds, strict=True)), strict=True))
    return found | {"ratio": found["plain_ms"] / found["fused_ms"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="toy sizes")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() and not _interpreted() else "cpu"
    if device == "cpu" and not options.tiny:
        parser.error("there is no CUDA device: --tiny runs toy sizes by the interpreter")
    rows = measure(device, options.tiny)
    if options.json:
        for row in rows:
            print(json.dumps(row), flush=True)
        return
    print(f"torch {torch.__version__}, {device}\n")
    print(
        "| kernel | size | order | fused, ms | plain, ms | plain in ieee, ms | ratio | difference |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        times = (row[name] for name in ("fused_ms", "plain_ms", "plain_ieee_ms"))
        figures = " | ".join([*(f"{ms:.3f}" for ms in times), f"{row['ratio']:.2f}"])
        print(f"| {row['kernel']} | {row['size']} | {row['order']} | {figures} | ", end="")
        print(f"{row['difference']:.0e} |", flush=True)


def _interpreted() -> bool:
    """Tell whether this is the process of the interpreter."""
    return os.environ.get("TRITON_INTERPRET") == "1"


if __name__ == "__main__":
    main()
