"""Time one first-order search step: ours, and the original code's beside it.

    python benchmarks/search_step.py --search darts --original FOLDER

FOLDER is a checkout of the code that the search was published with:

    darts        github.com/quark0/darts
    pcdarts      github.com/yuhuixu1993/PC-DARTS
    nasbench201  github.com/D-X-Y/AutoDL-Projects: DARTS in NAS-Bench-201's space
    gdas         the same: GDAS in NAS-Bench-201's space

Both run in this process by turns, with the same threads and allocator, on the same random images;
before that, both are compared in float64 at a small size. A step is Adam on the alphas, then SGD
with momentum, decay and clipping on the weights. The original differentiates everything in both
halves, as it was written; ours asks for the gradients that are used. Without --original only ours
is timed.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import platform
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from tutelage.clock import Clock
from tutelage.searches.base import Search
from tutelage.searches.darts import Darts
from tutelage.searches.gdas import Gdas
from tutelage.searches.pcdarts import PcDarts
from tutelage.spaces.base import Size, Space
from tutelage.spaces.cells import DARTS
from tutelage.spaces.nb201 import NASBENCH201
from tutelage.virtual import leaves

Step = Callable[[Tensor, Tensor], None]


class Original(NamedTuple):
    """What the original's code builds."""

    net: nn.Module
    weights: list[Tensor]
    """Those that our supernet has too, in the order of the naive one's names."""
    alphas: list[Tensor]
    step: Step


def reuse_memory() -> None:
    """Keep freed memory in the process instead of returning it to the kernel (glibc only)."""
    trim_threshold, mmap_threshold = -1, -3
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, 1 << 30)


def optimisers(weights: Iterable[Tensor], alphas: Iterable[Tensor]) -> tuple:
    # not fused: on a CPU that takes gradients laid out unlike their weights in the wrong order
    return (
        torch.optim.SGD(weights, 0.025, momentum=0.9, weight_decay=3e-4),
        torch.optim.Adam(alphas, 3e-4, betas=(0.5, 0.999), weight_decay=1e-3),
    )


def ours(net: nn.Module, search: Search, alphas: dict[str, Any]) -> Step:
    weights, choices = list(net.parameters()), leaves(alphas)
    sgd, adam = optimisers(weights, choices)

    def step(x: Tensor, y: Tensor) -> None:
        detached = {name: p.detach() for name, p in net.named_parameters()}
        mix = search.mix(alphas, Clock())
        loss = F.cross_entropy(functional_call(net, detached, (x, mix))[0], y)
        loss = loss + 0 * sum(a.sum() for a in choices)  # a sample of `none` alone reads no alphas
        for a, gradient in zip(choices, torch.autograd.grad(loss, choices), strict=True):
            a.grad = gradient
        adam.step()
        with torch.no_grad():
            fixed = search.mix(alphas, Clock())
        loss = F.cross_entropy(net(x, fixed)[0], y)
        # weights of operations that were not sampled have no gradient
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        for p, gradient in zip(weights, gradients, strict=True):
            p.grad = gradient
        nn.utils.clip_grad_norm_(weights, 5)
        sgd.step()

    return step


def import_from(folder: Path, module: str) -> Any:
    sys.path.insert(0, str(folder))
    return importlib.import_module(module)


def architect(folder: Path, size: Size) -> Original:
    """Build what DARTS and PC-DARTS share; only the update of the weights is a script's there."""
    if not torch.cuda.is_available():  # their code assumes a GPU
        torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    network = import_from(folder, "model_search").Network
    net = network(size.channels, size.classes, size.cells, nn.CrossEntropyLoss())
    settings = SimpleNamespace(
        momentum=0.9, weight_decay=3e-4, arch_learning_rate=3e-4, arch_weight_decay=1e-3
    )
    alphas = importlib.import_module("architect").Architect(net, settings)
    sgd, _ = optimisers(net.parameters(), net.arch_parameters())

    def step(x: Tensor, y: Tensor) -> None:
        alphas.step(x, y, x, y, 0.025, sgd, unrolled=False)
        sgd.zero_grad()
        net._loss(x, y).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5)
        sgd.step()

    return Original(net, list(net.parameters()), net.arch_parameters(), step)


def darts(folder: Path, size: Size) -> Original:
    return architect(folder / "cnn", size)


def benchmark(folder: Path, size: Size, algorithm: str) -> Original:
    """Build AutoDL-Projects' network; a whole step is a script's there.

    The script moves the weights first, and counts the alphas' gradient in the norm that it clips.
    """
    space = import_from(folder, "xautodl.models").get_search_spaces("cell", "nas-bench-201")
    network = importlib.import_module("xautodl.models.cell_searchs").nas201_super_nets[algorithm]
    net = network(size.channels, size.cells, 4, size.classes, space, False, False)
    sgd, adam = optimisers(net.get_weights(), net.get_alphas())

    def step(x: Tensor, y: Tensor) -> None:
        adam.zero_grad()
        F.cross_entropy(net(x)[1], y).backward()
        adam.step()
        sgd.zero_grad()
        F.cross_entropy(net(x)[1], y).backward()
        nn.utils.clip_grad_norm_(net.get_weights(), 5)
        sgd.step()

    # beyond ours: biases that a BatchNorm removes, and the scales and shifts of the halving blocks
    named = [(name, p) for name, p in net.named_parameters() if name != "arch_parameters"]
    weights = [p for name, p in named if p.ndim > 1 or not name.startswith("cells")]
    return Original(net, weights, net.get_alphas(), step)


def nasbench201(folder: Path, size: Size) -> Original:
    return benchmark(folder, size, "DARTS-V1")


def gdas(folder: Path, size: Size) -> Original:
    return benchmark(folder, size, "GDAS")


class Pair(NamedTuple):
    """A search of ours and the function that builds its original."""

    search: Search
    space: Space
    original: Callable[[Path, Size], Original]
    small: Size
    """Where the two are compared."""


PAIRS = {
    "darts": Pair(Darts(), DARTS, darts, Size(4, 3)),
    "pcdarts": Pair(PcDarts(), DARTS.varied(partial=4), architect, Size(8, 3)),
    "nasbench201": Pair(Darts(), NASBENCH201, nasbench201, Size(4, 2)),
    "gdas": Pair(Gdas(), NASBENCH201, gdas, Size(4, 2)),
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


def plain(net: nn.Module, space: Space, size: Size) -> list[Tensor]:
    """Return our weights edge by edge, in the order of the original's."""
    reference = import_from(Path(__file__).parent.parent / "tests", "reference")
    kind = {"darts": reference.NaiveCells, "nasbench201": reference.NaiveBenchmark}[space.name]
    names = dict(kind(space.operations, size, space.variant).named_parameters())
    outside = {"stem": -1, "norm": 1000, "classifier": 1001}

    def place(name: str) -> tuple[int, bool]:
        part, *rest = name.split(".")
        if part in outside:
            return outside[part], False
        index = int(rest[0])
        if part == "halves":
            return (index + 1) * (size.cells + 1) - 1, False
        if space.name == "nasbench201":
            index += index // size.cells
        return index, rest[1] == "edges"

    renamed = reference.unstack(net, dict(net.named_parameters()))
    return [renamed[name] for name in sorted(names, key=place)]


def assert_identical(pair: Pair, folder: Path) -> None:
    """Compare three steps from equal weights and alphas in float64; of GDAS, three samples.

    Its original adds what was not sampled as numbers, whose values are zero: that gives the alphas
    gradients which are not the paper's.
    """
    net, alphas = pair.space.supernet(pair.small).double(), draw(pair, torch.float64)
    theirs = pair.original(folder, pair.small)
    theirs.net.double()
    with torch.no_grad():
        for mine, their in zip(plain(net, pair.space, pair.small), theirs.weights, strict=True):
            their.copy_(mine)
    for mine, their in zip(whole(alphas), theirs.alphas, strict=True):
        their.data = mine.detach().clone()
    shared = {id(p) for p in theirs.weights}
    for p in theirs.net.parameters():
        p.requires_grad_(id(p) in shared or any(p is each for each in theirs.alphas))
    x, y = torch.randn(8, 3, 16, 16).double(), torch.randint(10, (8,))
    if isinstance(pair.search, Gdas):
        pairs = []
        for seed in range(3):
            torch.manual_seed(seed)
            mine = net(x, pair.search.mix(alphas, Clock()))[0]
            torch.manual_seed(seed)
            pairs.append((mine, theirs.net(x)[1]))
        compared = "logits of three samples"
    else:
        for step in [ours(net, pair.search, alphas), theirs.step]:
            for _ in range(3):
                step(x, y)
        pairs = [*zip(plain(net, pair.space, pair.small), theirs.weights, strict=True)]
        pairs += zip(whole(alphas), theirs.alphas, strict=True)
        compared = "weights and alphas after three steps"
    error = max((mine - their).abs().max().item() for mine, their in pairs)
    assert error < 1e-10, f"{compared} differ by {error}"
    print(f"identity: {compared} in float64 differ by {error:.1e}")


def seconds(step: Step, x: Tensor, y: Tensor) -> float:
    start = time.perf_counter()
    step(x, y)
    return time.perf_counter() - start


def alternate(steps: dict[str, Step], rounds: int, x: Tensor, y: Tensor) -> None:
    """Time the steps by turns and print the ratios."""
    for step in steps.values():
        step(x, y)  # the first step allocates and chooses kernels
    ratios = []
    for index in range(rounds):
        times = {}
        for name, step in steps.items():
            torch.manual_seed(index)  # GDAS: both sample the same
            times[name] = seconds(step, x, y)
        text = "  ".join(f"{name} {time:.2f} s" for name, time in times.items())
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
        steps["original"] = pair.original(options.original, size).step
    x = torch.randn(options.batch_size, 3, 32, 32)
    y = torch.randint(10, (options.batch_size,))
    print(f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}; {options}")
    alternate(steps, options.rounds, x, y)


if __name__ == "__main__":
    main()
