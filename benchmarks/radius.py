"""Error of the finite difference on a supernet with ReLU, over radii, precisions and training.

    python benchmarks/radius.py [--seeds 3] [--steps 60] [--secants 12]

The part of DARTS' gradient that comes through the virtual step, by a finite difference of every
radius and by the exact product in float64, on the embedded digits. Beside it stand differences of
the objective itself: with weights stepped from moved alphas, how much the validation loss changes
along random directions, at the distance that a step of the alphas' Adam has. A secant shows which
of the two is the better forecast of what such a step does.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from statistics import median
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tutelage import DARTS, Darts, Exact, FiniteDifference, FirstOrder, Single, Size
from tutelage.batch import Batch
from tutelage.clock import Clock
from tutelage.data.digits import stored
from tutelage.multilevel import evaluate, hypergradient, own_gradient, search_step
from tutelage.problem import Problem
from tutelage.run.networks.factory import Maker
from tutelage.run.networks.relaxation import BoundAlphas
from tutelage.trees import Tree, leaves, rebuild, tree_map
from tutelage.virtual import Rate, Via, descend

RATE = Rate(0.025)
TRAINED = Rate(0.025, 0.9, 3e-4, 5.0)
ALPHAS_LR = 3e-4
TINY = 1e-8
"""A distance at which hardly any unit switches."""


class Setting(NamedTuple):
    """A problem at its present weights and a batch."""

    problem: Problem
    variables: dict[str, Tree]
    batch: Any

    def to(self, dtype: torch.dtype) -> Setting:
        """Convert weights, alphas and images."""
        variables = {n: tree_map(lambda x: x.to(dtype), tree) for n, tree in self.variables.items()}
        parts = {name: part._replace(x=part.x.to(dtype)) for name, part in vars(self.batch).items()}
        return Setting(self.problem, variables, SimpleNamespace(**parts))

    def gradient(self, via: Via) -> Tensor:
        """Return the gradient (n,) of the alphas, in float64."""
        levels = self.problem.levels
        found = hypergradient(levels, self.variables, self.batch, {"w": RATE}, via).gradient
        return torch.cat([g.flatten() for g in leaves(found)]).double()


def batches(size: int, seed: int) -> Iterator[Any]:
    """Yield random batches of digits for training and validation."""
    images, order = stored("train"), torch.Generator().manual_seed(seed)
    x = images.pixels.double()
    x = (x - x.mean()) / x.std()
    while True:
        chosen = torch.randperm(len(x), generator=order)[: 2 * size].view(2, size)
        train, valid = (Batch(x[i].float(), images.labels[i], i) for i in chosen)
        yield SimpleNamespace(train=train, valid=valid)


def setting(seed: int, arguments: argparse.Namespace) -> Setting:
    """Train a supernet for some steps, with the alphas as they begin."""
    torch.manual_seed(seed)
    size = Size(channels=arguments.channels, cells=arguments.cells, image_channels=1)
    cpu = torch.device("cpu")
    bind = partial(BoundAlphas, Darts(), device=cpu)
    problem = Single()(Maker(bind, [DARTS], size, Clock(), 1, cpu, None))
    variables, velocities = dict(problem.variables), {}
    stream = batches(arguments.batch_size, seed)
    for _ in range(arguments.steps):
        search_step(
            problem.levels[:1],
            variables,
            velocities,
            next(stream),
            rates={"w": TRAINED},
            virtual={"w": TRAINED},
            via=FirstOrder(),
            order=problem.order,
            move=lambda name, gradient: None,
        )
    return Setting(problem, variables, next(stream)).to(torch.float64)


def secants(at: Setting, directions: Tensor, distance: float) -> Tensor:
    """Return slopes (directions,) of the validation loss at weights stepped from moved alphas.

    Args:
        at: The present weights and alphas.
        directions: Unit vectors (directions, n) of alphas.
        distance: How far the alphas are moved along each, to both sides.
    """
    lower, top = at.problem.levels
    name = top.variable
    alphas = leaves(at.variables[name])

    def objective(moved: Tensor) -> float:
        parts = moved.split([x.numel() for x in alphas])
        shifted = [x + y.view_as(x) for x, y in zip(alphas, parts, strict=True)]
        there = {**at.variables, name: rebuild(at.variables[name], iter(shifted))}
        g, _, _ = own_gradient(lower, there, at.batch)
        w, _ = descend(at.variables["w"], g, None, RATE)
        with torch.no_grad():
            return float(evaluate(top, {**at.variables, "w": w}, at.batch)[0])

    slopes = [objective(distance * d) - objective(-distance * d) for d in directions]
    return torch.tensor(slopes, dtype=torch.float64) / (2 * distance)


def measured(seed: int, arguments: argparse.Namespace) -> dict[tuple[str, str], list[float]]:
    """Return for every precision and rule how it compares with the exact one and with secants."""
    wide = setting(seed, arguments)
    exact = wide.gradient(Exact()) - wide.gradient(FirstOrder())
    directions = torch.randn(arguments.secants, len(exact), dtype=torch.float64)
    directions /= directions.norm(dim=1, keepdim=True)
    near = secants(wide, directions[:4], TINY)
    slopes = secants(wide, directions, ALPHAS_LR * len(exact) ** 0.5)
    rules: dict[str, Via] = {"exact": Exact()}
    rules |= {str(radius): FiniteDifference(radius) for radius in arguments.radii}
    found = {
        ("secants", "near"): compared(near, directions[:4] @ exact),
        ("secants", "of a step"): compared(slopes, directions @ exact),
    }
    for precision, dtype in (("float64", torch.float64), ("float32", torch.float32)):
        at = wide.to(dtype)
        direct = at.gradient(FirstOrder())
        for rule, via in rules.items():
            term = at.gradient(via) - direct
            forecast = float(torch.cosine_similarity(directions @ term, slopes, 0))
            found[precision, rule] = [*compared(term, exact), forecast]
    return found


def compared(x: Tensor, exact: Tensor) -> list[float]:
    """Return the relative error, the relative length and the cosine of a vector."""
    error, length = (x - exact).norm() / exact.norm(), x.norm() / exact.norm()
    return [float(error), float(length), float(torch.cosine_similarity(x, exact, 0))]


def arguments_of(text: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--channels", type=int, default=4)
    parser.add_argument("--cells", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=0, help="of training before")
    parser.add_argument("--secants", type=int, default=12)
    radii = [1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-6, 1e-8]
    parser.add_argument("--radii", type=float, nargs="+", default=radii)
    return parser.parse_args(text)


def main() -> None:
    """Print a table."""
    arguments = arguments_of()
    found = [measured(seed, arguments) for seed in arguments.seeds]
    print("| precision | rule | relative error | length | cosine | cosine with secants |")
    print("|---|---|---|---|---|---|")
    for precision, rule in found[0]:
        columns = zip(*(each[precision, rule] for each in found), strict=True)
        cells = " | ".join(f"{median(column):.3g}" for column in columns)
        print(f"| {precision} | {rule} | {cells} |")


if __name__ == "__main__":
    main()
