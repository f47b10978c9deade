"""Time one first-order search step of DARTS: ours, and the original code's beside it.

    python benchmarks/search_step.py --original FOLDER

FOLDER is a checkout of github.com/quark0/darts. Both run in this process by turns, with the same
threads and allocator, on the same random images; before that, one step of both is compared in
float64. A step is DARTS' own: Adam on the alphas, then SGD with momentum, decay and clipping on the
weights. The original differentiates everything in both halves, as it was written; ours asks for
the gradients that are used. Without --original only ours is timed.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from tutelage.spaces.base import Mix, Size
from tutelage.spaces.cells import DARTS

Step = Callable[[Tensor, Tensor], None]
GROUPS = ("normal", "reduce")


def reuse_memory() -> None:
    """Keep freed memory in the process instead of returning it to the kernel (glibc only)."""
    trim_threshold, mmap_threshold = -1, -3
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, 1 << 30)


def optimisers(weights: list[Tensor], alphas: list[Tensor]) -> tuple:
    # not fused: on a CPU that takes gradients laid out unlike their weights in the wrong order
    return (
        torch.optim.SGD(weights, 0.025, momentum=0.9, weight_decay=3e-4),
        torch.optim.Adam(alphas, 3e-4, betas=(0.5, 0.999), weight_decay=1e-3),
    )


def ours(net: nn.Module, alphas: list[Tensor]) -> Step:
    weights = list(net.parameters())
    sgd, adam = optimisers(weights, alphas)

    def mix() -> Mix:
        return Mix({name: a.softmax(-1) for name, a in zip(GROUPS, alphas, strict=True)})

    def step(x: Tensor, y: Tensor) -> None:
        detached = {name: p.detach() for name, p in net.named_parameters()}
        loss = F.cross_entropy(functional_call(net, detached, (x, mix()))[0], y)
        for a, gradient in zip(alphas, torch.autograd.grad(loss, alphas), strict=True):
            a.grad = gradient
        adam.step()
        with torch.no_grad():
            fixed = mix()
        loss = F.cross_entropy(net(x, fixed)[0], y)
        for p, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            p.grad = gradient
        nn.utils.clip_grad_norm_(weights, 5)
        sgd.step()

    return step


def load_original(folder: Path, size: Size) -> nn.Module:
    """Build the original's supernet; its code assumes a GPU."""
    if not torch.cuda.is_available():
        torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    sys.path.insert(0, str(folder / "cnn"))
    network = importlib.import_module("model_search").Network
    return network(size.channels, size.classes, size.cells, nn.CrossEntropyLoss())


def original(net: nn.Module) -> Step:
    """Take the original's step; only the update of the weights stands in a script there."""
    settings = SimpleNamespace(
        momentum=0.9, weight_decay=3e-4, arch_learning_rate=3e-4, arch_weight_decay=1e-3
    )
    architect = importlib.import_module("architect").Architect(net, settings)
    sgd, _ = optimisers(list(net.parameters()), net.arch_parameters())

    def step(x: Tensor, y: Tensor) -> None:
        architect.step(x, y, x, y, 0.025, sgd, unrolled=False)
        sgd.zero_grad()
        net._loss(x, y).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5)
        sgd.step()

    return step


def assert_identical(folder: Path) -> None:
    """Compare three steps from equal weights and alphas in float64, at a small size."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    reference = importlib.import_module("reference")
    size = Size(channels=4, cells=3)
    net = DARTS.supernet(size).double()
    names = dict(reference.NaiveSupernet(DARTS.operations["normal"][0], size).named_parameters())
    theirs = load_original(folder, size).double()
    alphas = [(1e-3 * torch.randn(14, 8).double()).requires_grad_() for _ in GROUPS]

    def plain() -> list[Tensor]:
        renamed = reference.unstack(net, dict(net.named_parameters()))
        return [renamed[name] for name in names]

    with torch.no_grad():
        for mine, their in zip(plain(), theirs.parameters(), strict=True):
            their.copy_(mine)
    for mine, their in zip(alphas, theirs.arch_parameters(), strict=True):
        their.data = mine.detach().clone()
    x, y = torch.randn(8, 3, 16, 16).double(), torch.randint(10, (8,))
    steps = ours(net, alphas), original(theirs)
    for _ in range(3):
        for step in steps:
            step(x, y)
    pairs = [*zip(plain(), theirs.parameters(), strict=True)]
    pairs += zip(alphas, theirs.arch_parameters(), strict=True)
    error = max((mine - their).abs().max().item() for mine, their in pairs)
    assert error < 1e-10, f"weights or alphas differ by {error} after three steps"
    print(f"identity: after three steps in float64 weights and alphas differ by {error:.1e}")


def seconds(step: Step, x: Tensor, y: Tensor) -> float:
    start = time.perf_counter()
    step(x, y)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--original", type=Path, help="a checkout of quark0/darts")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reuse-memory", action="store_true", help="high allocator thresholds")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    if options.reuse_memory:
        reuse_memory()
    size = Size(options.channels, options.cells)
    alphas = [(1e-3 * torch.randn(14, 8)).requires_grad_() for _ in GROUPS]
    steps = {"ours": ours(DARTS.supernet(size), alphas)}
    if options.original:
        assert_identical(options.original)
        steps["original"] = original(load_original(options.original, size))
    x = torch.randn(options.batch_size, 3, 32, 32)
    y = torch.randint(10, (options.batch_size,))
    print(f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}; {options}")
    for step in steps.values():
        step(x, y)  # the first step allocates and chooses kernels
    rounds = []
    for _ in range(options.rounds):
        rounds.append({name: seconds(step, x, y) for name, step in steps.items()})
        text = "  ".join(f"{name} {time:.2f} s" for name, time in rounds[-1].items())
        ratio = rounds[-1].get("original", 0) / rounds[-1]["ours"]
        print(text + (f"  ratio {ratio:.2f}" if options.original else ""), flush=True)
    if options.original:
        ratios = [each["original"] / each["ours"] for each in rounds]
        print(f"median ratio of {len(ratios)} alternating rounds: {median(ratios):.2f}")


if __name__ == "__main__":
    main()
