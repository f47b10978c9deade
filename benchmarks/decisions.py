"""Measurements behind two decisions that papers leave open, on the embedded digits.

    python benchmarks/decisions.py clip [--seeds 0 1] [--epochs 6] [--students 3] [--lr 0.2]
    python benchmarks/decisions.py own-term [--seeds 0 1 2] [--steps 60]

`clip` trains EnNAS' small chain (recipe `ennas-digits`) with the sum of the sub-networks' gradients
clipped at 5, with each of them clipped, and without. `own-term` compares the alphas' gradient of
the validation loss at a supernet's present weights and at those after the next step of SGD.
"""

from __future__ import annotations

import argparse
from statistics import mean, median
from typing import NamedTuple

import torch
from torch import Tensor

from precision import searching
from radius import TRAINED, batches, setting
from tutelage.config import Data, Run, Weights
from tutelage.data.streams import LazyBatches
from tutelage.ensembling import ensemble_weights
from tutelage.multilevel import own_gradient
from tutelage.recipes import read_recipe
from tutelage.transfer import cross_entropy, divergence
from tutelage.trees import Tree, detach, leaves, norm, rebuild, tree_map
from tutelage.virtual import Rate, descend

LIMIT = 5.0
Vector = list[Tensor]


class Step(NamedTuple):
    """Norms of a step's gradients."""

    whole: float
    each: list[float]
    cosine: float
    """Of the clipped sum and the sum of clipped gradients."""
    loss: float
    """Mean cross-entropy of the sub-networks."""


def clipped(g: Vector) -> Vector:
    """Scale a gradient to the limit if it is longer."""
    share = min(1.0, LIMIT / (float(norm(g)) + 1e-6))
    return [share * x for x in g]


def summed(gradients: list[Vector]) -> Vector:
    """Add gradients of the same tensors."""
    return [torch.stack(same).sum(0) for same in zip(*gradients, strict=True)]


def train(rule: str, seed: int, arguments: argparse.Namespace) -> list[Step]:
    """Train with the sum clipped, each clipped or none."""
    own = read_recipe("ennas-digits")[0]
    weights = Weights(**{**own["weights"], "lr": arguments.lr})
    method = {**own["method"], "students": arguments.students}
    common = {"method": method, "search": own["search"], "space": own["space"]}
    common |= {"data": Data("digits"), "epochs": arguments.epochs, "batch_size": own["batch_size"]}
    made = searching(Run(**common, weights=weights, seed=seed))
    net, W = made.phase.problem.learners[0].net, made.phase.variables["W"]
    velocity: Tree | None = None
    steps, total = [], made.steps * arguments.epochs
    for k in range(total):
        made.epoch, made.step = divmod(k, made.steps)
        made.set_clock()
        torch.manual_seed(100_000 * seed + k)
        x, y, _ = LazyBatches(made.setup.streams, made.epoch, made.step).train
        w = tree_map(Tensor.requires_grad_, detach(W))
        z = [net.under(w, path, x)[0] for path in net.paths(arguments.students)]
        known = torch.stack(z).detach()
        t = torch.einsum("m,mbc->bc", ensemble_weights(known, y), known)
        taught = made.epoch >= arguments.epochs / 6
        losses = [cross_entropy(z_i, y) + (divergence(z_i, t) if taught else 0) for z_i in z]
        found = [
            list(
                torch.autograd.grad(
                    each, leaves(w), retain_graph=True, allow_unused=True, materialize_grads=True
                )
            )
            for each in losses
        ]
        whole, one, each = (
            summed(found),
            clipped(summed(found)),
            summed([clipped(g) for g in found]),
        )
        flat = [torch.cat([x.flatten() for x in g]) for g in (one, each)]
        cosine = float(torch.cosine_similarity(*flat, dim=0))
        loss = mean(float(cross_entropy(z_i, y)) for z_i in known)
        steps.append(Step(float(norm(whole)), [float(norm(g)) for g in found], cosine, loss))
        g = {"sum": one, "each": each, "none": whole}[rule]
        rate = Rate(arguments.lr * (1 - k / total), weights.momentum, weights.weight_decay)
        W, velocity = descend(detach(W), rebuild(W, iter(g)), velocity, rate)
    return steps


def compare_clips(arguments: argparse.Namespace) -> None:
    """Print a row for every seed and rule."""
    print("| seed | clip | sum: norm | longer than 5 | each: longer | cosine | last epoch | most |")
    print("|---|---|---|---|---|---|---|---|")
    for seed in arguments.seeds:
        for rule in ("sum", "each", "none"):
            steps = train(rule, seed, arguments)
            cells = [
                f"{median(x.whole for x in steps):.2f}",
                f"{mean(x.whole > LIMIT for x in steps):.1%}",
                f"{mean(n > LIMIT for x in steps for n in x.each):.1%}",
                f"{min(x.cosine for x in steps):.3f}",
                f"{mean(x.loss for x in steps[-len(steps) // arguments.epochs :]):.3f}",
                f"{max(x.loss for x in steps):.2f}",
            ]
            print(f"| {seed} | {rule} | {' | '.join(cells)} |", flush=True)


def compare_weights(arguments: argparse.Namespace) -> None:
    """Print a row for every seed, before training and after."""
    print("| steps | seed | relative difference | cosine | cosine with another batch |")
    print("|---|---|---|---|---|")
    for steps in (0, arguments.steps):
        for seed in arguments.seeds:
            size = argparse.Namespace(channels=4, cells=3, batch_size=32, steps=steps)
            at = setting(seed, size)
            lower, top = at.problem.levels

            def direct(w: Tree, batch: object, at=at, top=top) -> Tensor:
                g, _, _ = own_gradient(top, {**at.variables, "w": w}, batch)
                return torch.cat([x.flatten() for x in leaves(g)])

            g, _, _ = own_gradient(lower, at.variables, at.batch)
            w, _ = descend(at.variables["w"], g, None, TRAINED)
            now, then = direct(at.variables["w"], at.batch), direct(w, at.batch)
            other = at._replace(batch=next(batches(32, 999 + seed))).to(torch.float64).batch
            cosines = [
                float(torch.cosine_similarity(now, x, 0))
                for x in (then, direct(at.variables["w"], other))
            ]
            far = float((then - now).norm() / now.norm())
            print(f"| {steps} | {seed} | {far:.3f} | {cosines[0]:.3f} | {cosines[1]:.3f} |")


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("decision", choices=["clip", "own-term"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60, help="own-term: of training before")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--students", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.2)
    arguments = parser.parse_args()
    (compare_clips if arguments.decision == "clip" else compare_weights)(arguments)


if __name__ == "__main__":
    main()
