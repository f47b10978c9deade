"""What a sampled search computes: the operations of its sample, and no others."""

import pytest
import torch

from test_cells import Calls
from tutelage.clock import Clock
from tutelage.searches.gdas import Gdas
from tutelage.spaces.base import Size
from tutelage.spaces.genotype import NASBENCH201_OPERATIONS
from tutelage.spaces.nb201 import NASBENCH201

SOURCES = (0, 0, 1, 0, 1, 2)  # of the six edges


@pytest.mark.parametrize("seed", range(4))
def test_gdas_runs_only_what_it_sampled(seed):
    torch.manual_seed(seed)
    net = NASBENCH201.supernet(Size(channels=2, cells=2))
    arch = Gdas().relax(Gdas().alphas(NASBENCH201), Clock())
    with torch.no_grad(), Calls() as mode:
        net(torch.randn(2, 3, 8, 8), arch)
    names = [NASBENCH201_OPERATIONS[column] for (column,) in arch.chosen["cell"]]
    pooled = {s for s, name in zip(SOURCES, names, strict=True) if name == "avg_pool_3x3"}
    cells, halvings = 3 * 2, 2

    def convolutions(kernel: int) -> int:
        return sum(n for name, n in mode.count.items() if name.startswith(f"conv {kernel}"))

    assert convolutions(3) == 1 + 2 * halvings + cells * names.count("nor_conv_3x3")
    assert convolutions(1) == halvings + cells * names.count("nor_conv_1x1")
    assert mode.count["avg_pool2d"] == halvings + cells * len(pooled)
