"""How far finite differences are from exact products on a supernet with ReLU; see docs/engine.md.

Float64, part of DARTS' gradient that comes through the virtual step, median of five seeds.
"""

from functools import partial
from statistics import median
from types import SimpleNamespace

import torch

from tutelage import DARTS, Darts, Exact, FiniteDifference, FirstOrder, Single, Size
from tutelage.batch import Batch
from tutelage.clock import Clock
from tutelage.multilevel import hypergradient
from tutelage.run.networks.factory import Maker
from tutelage.run.networks.relaxation import BoundAlphas
from tutelage.trees import leaves, tree_map
from tutelage.virtual import Rate, Via

RADII = (0.1, 0.01, 0.001)


def errors(seed: int) -> list[float]:
    torch.manual_seed(seed)
    size = Size(channels=4, cells=3, image_channels=1)
    cpu = torch.device("cpu")
    bind = partial(BoundAlphas, Darts(), device=cpu)
    problem = Single()(Maker(bind, [DARTS], size, Clock(), 1, cpu, None))
    variables = {name: tree_map(torch.Tensor.double, x) for name, x in problem.variables.items()}
    x, y = torch.randn(2, 8, 1, 8, 8).double(), torch.randint(10, (2, 8))
    batch = SimpleNamespace(train=Batch(x[0], y[0], y[0]), valid=Batch(x[1], y[1], y[1]))

    def gradient(via: Via) -> torch.Tensor:
        found = hypergradient(problem.levels, variables, batch, {"w": Rate(0.025)}, via)
        return torch.cat([g.flatten() for g in leaves(found.gradient)])

    direct = gradient(FirstOrder())
    exact = gradient(Exact()) - direct
    finite = [gradient(FiniteDifference(radius)) - direct for radius in RADII]
    return [float((each - exact).norm() / exact.norm()) for each in finite]


if __name__ == "__main__":
    for radius, found in zip(RADII, zip(*map(errors, range(5)), strict=True), strict=True):
        print(f"radius {radius:5}: relative error {median(found):.2f}")
