"""What a sampled search computes: the operations of its sample, and no others."""

from collections import defaultdict
from fractions import Fraction

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from test_cells import Calls
from tutelage.clock import Clock
from tutelage.searches.gdas import Gdas
from tutelage.spaces import convolution, ops
from tutelage.spaces.base import Size
from tutelage.spaces.genotype import NASBENCH201_OPERATIONS
from tutelage.spaces.nb201 import NASBENCH201


class Convolved(TorchDispatchMode):
    """Sum the outputs of convolutions over their inputs, by the kernel's side."""

    def __init__(self) -> None:
        super().__init__()
        self.count: dict[int, Fraction] = defaultdict(Fraction)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ == "convolution":
            outputs, inputs, side, _ = args[1].shape
            self.count[side] += Fraction(outputs, inputs)
        return function(*args, **(kwargs or {}))


SOURCES = (0, 0, 1, 0, 1, 2)  # of the six edges


@pytest.mark.parametrize("seed", range(4))
def test_gdas_runs_only_what_it_sampled(seed, monkeypatch):
    monkeypatch.setattr(convolution, "PRODUCT", 0)  # no convolution is a product
    monkeypatch.setattr(ops, "tiny", lambda x: True)  # and no pool a convolution
    torch.manual_seed(seed)
    net = NASBENCH201.supernet(Size(channels=2, cells=2))
    arch = Gdas().relax(Gdas().alphas(NASBENCH201), Clock())
    with torch.no_grad(), Calls() as mode, Convolved() as convolved:
        net(torch.randn(2, 3, 8, 8), arch)
    names = [NASBENCH201_OPERATIONS[column] for (column,) in arch.chosen["cell"]]
    pooled = {s for s, name in zip(SOURCES, names, strict=True) if name == "avg_pool_3x3"}
    cells, halvings = 3 * 2, 2

    # outputs over inputs: one call computes all edges of a kind that leave a state
    assert convolved.count[3] == Fraction(2, 3) + 3 * halvings + cells * names.count("nor_conv_3x3")
    assert convolved.count[1] == 2 * halvings + cells * names.count("nor_conv_1x1")
    assert mode.count["avg_pool2d"] == halvings + cells * len(pooled)
