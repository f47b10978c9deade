"""Time one first-order search step: ours, and the original code's beside it.

    python benchmarks/search_step.py --search darts --original FOLDER

FOLDER is a checkout of the code that the search was published with:

    darts        github.com/quark0/darts
    pcdarts      github.com/yuhuixu1993/PC-DARTS
    nasbench201  github.com/D-X-Y/AutoDL-Projects: DARTS in NAS-Bench-201's space
    gdas         the same: GDAS in NAS-Bench-201's space
    pdarts       github.com/chenxin061/pdarts: first phase, all operations
    pdarts-next  the same: second phase, five operations an edge (give it 11 cells)
    darts-minus  github.com/Meituan-AutoML/DARTS-
    drnas        github.com/xiangning-chen/DrNAS: DARTS' space, first phase (channels in sixes)

Both run in this process by turns, with the same threads and allocator, on the same random images;
before that, both are compared in float64 at a small size, P-DARTS without dropout: masks of one
seed differ where maps lie differently in memory. A step is Adam on the alphas, then SGD with
momentum, decay and clipping on the weights. The original differentiates everything in both halves,
as it was written; ours asks for the gradients that are used. Without --original only ours is timed.
"""

from __future__ import annotations

import argparse
import ctypes
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

import originals
from originals import Build, Original, Step, optimisers, plain
from tutelage.clock import Clock
from tutelage.searches.base import Search
from tutelage.searches.darts import Darts
from tutelage.searches.darts_minus import DartsMinus
from tutelage.searches.drnas import DrNas
from tutelage.searches.gdas import Gdas
from tutelage.searches.needs import fit
from tutelage.searches.pcdarts import PcDarts
from tutelage.searches.pdarts import PDarts
from tutelage.spaces.base import Size, Space
from tutelage.spaces.cells import DARTS
from tutelage.spaces.nb201 import NASBENCH201
from tutelage.trees import leaves


def reuse_memory() -> None:
    """Keep freed memory in the process instead of returning it to the kernel (glibc only)."""
    trim_threshold, mmap_threshold = -1, -3
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, 1 << 30)


def ours(net: nn.Module, search: Search, alphas: dict[str, Any]) -> Step:
    weights, choices = list(net.parameters()), leaves(alphas)
    sgd, adam = optimisers(weights, choices)

    def step(x: Tensor, y: Tensor) -> None:
        detached = {name: p.detach() for name, p in net.named_parameters()}
        arch = search.relax(alphas, Clock())
        loss = F.cross_entropy(functional_call(net, detached, (x, arch), tie_weights=False)[0], y)
        loss = loss + 0 * sum(a.sum() for a in choices)  # a sample of `none` alone reads no alphas
        for a, gradient in zip(choices, torch.autograd.grad(loss, choices), strict=True):
            a.grad = gradient
        adam.step()
        with torch.no_grad():
            fixed = search.relax(alphas, Clock())
        loss = F.cross_entropy(net(x, fixed)[0], y)
        # weights of operations that were not sampled have no gradient
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        for p, gradient in zip(weights, gradients, strict=True):
            p.grad = gradient
        nn.utils.clip_grad_norm_(weights, 5)
        sgd.step()

    return step


class Pair(NamedTuple):
    """A search of ours and the function that builds its original."""

    search: Search
    space: Space
    original: Build
    small: Size
    """Where the two are compared."""
    compared: Search | None = None
    """What is compared in place of the search; None: the search."""


KEPT = {g: [sorted(Random(i).sample(range(8), 5)) for i in range(14)] for g in DARTS.choices}
"""Five operations on every edge, as a first phase of P-DARTS may leave them."""

PAIRS = {
    "darts": Pair(Darts(), DARTS, originals.darts, Size(4, 3)),
    "pcdarts": Pair(PcDarts(), DARTS.varied(partial=4), originals.pcdarts, Size(8, 3)),
    "nasbench201": Pair(Darts(), NASBENCH201, originals.nasbench201, Size(4, 2)),
    "gdas": Pair(Gdas(), NASBENCH201, originals.gdas, Size(4, 2)),
    "pdarts": Pair(
        PDarts(skip_dropout=(0.1, 0.4, 0.7)),
        DARTS,
        partial(originals.pdarts, rate=0.1),
        Size(4, 3),
        compared=PDarts(),
    ),
    "pdarts-next": Pair(
        PDarts(skip_dropout=(0.4, 0.4, 0.7)),  # the clock stands in the first phase
        DARTS.narrowed(KEPT),
        partial(originals.pdarts, rate=0.4),
        Size(4, 3),
        compared=PDarts(),
    ),
    "darts-minus": Pair(DartsMinus(), fit(DartsMinus(), DARTS), originals.darts_minus, Size(4, 3)),
    "drnas": Pair(DrNas(), fit(DrNas(), DARTS).varied(partial=6), originals.drnas, Size(12, 3)),
}


def draw(pair: Pair, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    alphas = pair.search.alphas(pair.space)
    for name, value in alphas.items():
        alphas[name] = [each.to(dtype) for each in value] if "betas" in name else value.to(dtype)
    for each in leaves(alphas):
        each.requires_grad_()
    return alphas


def whole(alphas: dict[str, Any]) -> list[Tensor]:
    """Join the betas of a group's nodes, as the original holds them."""
    return [torch.cat(a) if "betas" in name else a for name, a in alphas.items()]


def assert_identical(pair: Pair, folder: Path) -> None:
    """Compare three steps from equal weights, alphas and seeds in float64; of GDAS, three samples.

    Its original adds what was not sampled as numbers, whose values are zero: that gives the alphas
    gradients which are not the paper's.
    """
    net, alphas = pair.space.supernet(pair.small).double(), draw(pair, torch.float64)
    search = pair.compared or pair.search
    theirs = equal_original(pair, folder, net, alphas)
    x, y = torch.randn(8, 3, 16, 16).double(), torch.randint(10, (8,))
    if isinstance(search, Gdas):
        pairs = []
        for seed in range(3):
            torch.manual_seed(seed)
            mine = net(x, search.relax(alphas, Clock()))[0]
            torch.manual_seed(seed)
            pairs.append((mine, theirs.net(x)[1]))
        compared = "logits of three samples"
    else:
        for step in [ours(net, search, alphas), theirs.step]:
            torch.manual_seed(0)  # DrNAS: both sample the same
            for _ in range(3):
                step(x, y)
        pairs = [*zip(plain(net, pair.space, pair.small), theirs.weights, strict=True)]
        pairs += zip(whole(alphas), theirs.alphas, strict=True)
        compared = "weights and alphas after three steps"
    error = max((mine - their).abs().max().item() for mine, their in pairs)
    assert error < 1e-10, f"{compared} differ by {error}"
    print(f"identity: {compared} in float64 differ by {error:.1e}")


def equal_original(pair: Pair, folder: Path, net: nn.Module, alphas: dict[str, Any]) -> Original:
    """Build the original in float64 with our weights and alphas; nothing else of it trains."""
    theirs = pair.original(folder, pair.small, pair.space)
    theirs.net.double()
    with torch.no_grad():
        for mine, their in zip(plain(net, pair.space, pair.small), theirs.weights, strict=True):
            their.copy_(mine)
    for mine, their in zip(whole(alphas), theirs.alphas, strict=True):
        their.data = mine.detach().clone()
    trained = {id(p) for p in theirs.weights + theirs.alphas}
    for p in theirs.net.parameters():
        p.requires_grad_(id(p) in trained)
    for module in theirs.net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return theirs


def alternate(
    steps: dict[str, Step], rounds: int, x: Tensor, y: Tensor, clock: Callable[[], float]
) -> None:
    """Time the steps by turns and print the ratios."""
    for step in steps.values():
        step(x, y)  # the first step allocates and chooses kernels
    ratios = []
    for index in range(rounds):
        times = {}
        for name, step in steps.items():
            torch.manual_seed(index)  # GDAS, DrNAS: both sample the same
            start = clock()
            step(x, y)
            times[name] = clock() - start
        text = "  ".join(f"{name} {spent:.2f} s" for name, spent in times.items())
        if "original" in times:
            ratios.append(times["original"] / times["ours"])
            text += f"  ratio {ratios[-1]:.2f}"
        print(text, flush=True)
    if ratios:
        print(f"median ratio of {len(ratios)} alternating rounds: {median(ratios):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--search", choices=PAIRS, default="darts")
    parser.add_argument("--original", type=Path, help="a checkout of the original's code")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, help="of NAS-Bench-201: in each of three stages")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="CPU instead of wall time")
    parser.add_argument("--reuse-memory", action="store_true", help="high allocator thresholds")
    options = parser.parse_args()
    pair = PAIRS[options.search]
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    if options.reuse_memory:
        reuse_memory()
    size = Size(options.channels, options.cells or pair.space.sizes.cells)
    steps = {"ours": ours(pair.space.supernet(size), pair.search, draw(pair))}
    if options.original:
        assert_identical(pair, options.original)
        steps["original"] = pair.original(options.original, size, pair.space).step
    x = torch.randn(options.batch_size, 3, 32, 32)
    y = torch.randint(10, (options.batch_size,))
    print(f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}; {options}")
    clock = time.process_time if options.cpu_time else time.perf_counter
    alternate(steps, options.rounds, x, y, clock)


if __name__ == "__main__":
    main()
