"""What an ensemble's best weights cost beside ECOS and Clarabel through CVXPY.

    pip install cvxpy ecos clarabel
    python benchmarks/ensemble_weights.py [--members 4] [--rounds 5] [--sizes 512x10 128x100]

The problem is Eq. 2 of EnNAS with weights from 0. The logits are random: what the members share,
noise of their own, and more of the label from one member to the next. In every round each solver
takes the same new batch in turn, on one thread: CVXPY's once, with the building of its problem,
which a new batch needs; ours 20 times in a row, the mean, and once before that, right after another
solver has had the processor's caches. Times are the processor's, which other work on a machine
disturbs less. A gap is how far the cross-entropy is above the least that any solver found, at
weights put back on the simplex.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.ensembling import ensemble_weights

try:
    import clarabel  # noqa: F401
    import cvxpy
    import ecos  # noqa: F401
except ImportError:
    sys.exit("This compares with CVXPY's solvers: pip install cvxpy ecos clarabel")

SIZES = ["512x10", "128x100", "1024x100", "128x1000"]
ROW = 20
"""Solutions of ours in a row."""

Solver = Callable[[Tensor, Tensor], Tensor | None]
"""Weights (m,) from logits (m, B, C) and labels (B,); None where it fails."""


def main() -> None:
    """Measure by turns, and print a table for every size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="images x classes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, torch {torch.__version__}, cvxpy {cvxpy.__version__}; {options}")
    solvers = {"ECOS": conic("ECOS"), "Clarabel": conic("CLARABEL")}
    for size in options.sizes:
        images, classes = map(int, size.split("x"))
        compare(solvers, options.members, images, classes, options.rounds)


def conic(name: str) -> Solver:
    """Solve by one of CVXPY's solvers of exponential cones, with its own settings."""

    def solve(logits: Tensor, y: Tensor) -> Tensor | None:
        members, images, classes = logits.shape
        own = logits.gather(2, y.expand(members, -1).unsqueeze(2)).mean((1, 2)).double().numpy()
        w = cvxpy.Variable(members, nonneg=True)
        rows = logits.double().flatten(1).T.numpy()
        mixed = cvxpy.reshape(rows @ w, (images, classes), order="C")
        loss = cvxpy.sum(cvxpy.log_sum_exp(mixed, axis=1)) / images - own @ w
        problem = cvxpy.Problem(cvxpy.Minimize(loss), [cvxpy.sum(w) == 1])
        try:
            problem.solve(solver=name)
        except cvxpy.SolverError:
            return None
        return torch.from_numpy(w.value)

    return solve


def compare(
    solvers: dict[str, Solver], members: int, images: int, classes: int, rounds: int
) -> None:
    """Let all solve the same batches by turns; print times, ratios and gaps where they succeed."""
    turns = [(name, solve, 1) for name, solve in solvers.items()]
    turns += [("at first", ensemble_weights, 1), ("tutelage", ensemble_weights, ROW)]
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name, _, _ in turns}
    for seed in range(rounds):
        logits, y = batch(members, images, classes, seed)
        seconds, losses = {}, {}
        for name, solve, times in turns:
            began = time.process_time()
            for _ in range(times):
                weights = solve(logits, y)
            seconds[name] = (time.process_time() - began) / times
            if weights is not None:
                losses[name] = cross_entropy(weights, logits, y)
        for name, loss in losses.items():
            ratio, gap = seconds[name] / seconds["tutelage"], loss / min(losses.values()) - 1
            rows[name].append((1e3 * seconds[name], ratio, gap))
    print(f"\n{images} images, {classes} classes, {members} members, {rounds} rounds")
    print("              milliseconds          times ours         largest")
    print("            median   minimum     median     least     gap      failed")
    for name, row in rows.items():
        text = f"{name:9}"
        if row:
            times, ratios, gaps = zip(*row, strict=True)
            text += f" {median(times):8.2f} {min(times):9.2f}"
            text += f" {median(ratios):10.1f} {min(ratios):9.1f}     {max(gaps):.1e}"
        print(f"{text:61}  {rounds - len(row)} of {rounds}", flush=True)


def batch(members: int, images: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw logits (members, images, classes) and labels (images,)."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (images,), generator=generator)
    shared = torch.randn(images, classes, generator=generator)
    noise = torch.randn(members, images, classes, generator=generator)
    skill = torch.linspace(1, 3, members).view(-1, 1, 1)
    return shared + noise + skill * F.one_hot(y, classes), y


def cross_entropy(weights: Tensor, logits: Tensor, y: Tensor) -> float:
    """Cross-entropy of the ensemble at the nearest weights on the simplex, in float64."""
    weights = weights.double().clamp_min(0)
    mixed = torch.einsum("m,mbc->bc", weights / weights.sum(), logits.double())
    return float(F.cross_entropy(mixed, y))


if __name__ == "__main__":
    main()
