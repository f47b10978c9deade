"""What networks of chains cost, against their authors' code, published figures and a table."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from itertools import product
from math import inf
from pathlib import Path

import pytest
import torch
from torch import nn

from chains import SPACES, chosen, drawn, genotype, own_size
from tutelage.benchmark.nasbench_macro import LAYOUT, Table, architecture
from tutelage.config import Run
from tutelage.run.cost.budget import Budget
from tutelage.run.cost.count import describe, flops, params
from tutelage.run.cost.limits import Limits
from tutelage.run.cost.table import Cost, Costs, costs_of
from tutelage.run.monitor.relaxed import Diagnostics
from tutelage.searches.darts import Darts
from tutelage.spaces.chain import ENNAS_S2, NASBENCH_MACRO, SHUFFLE, Chain

FILE = Path(os.environ.get("TUTELAGE_TEST_TABLES", ""), "nas-bench-macro_cifar10.json.xz")
real_data = pytest.mark.skipif(
    not FILE.is_file(), reason="TUTELAGE_TEST_TABLES names no folder with NAS-Bench-Macro's JSON"
)
EVERY = ["".join(digits) for digits in product("012", repeat=8)]


SPOS_BLOCKS = {
    0: (2736, 3504, 4656, 4192),
    1: (2336, 2848, 3616, 3936),
    4: (18192, 20496, 23952, 25888),
    5: (13520, 14800, 16720, 21360),
    8: (79680, 84800, 92480, 108160),
    9: (52640, 55200, 59040, 81120),
    16: (312960, 323200, 338560, 421120),
    17: (207680, 212800, 220480, 315840),
}
"""Weights of the four blocks of a layer in SPOS' code, without scale and shift; layers between
them are as the one before."""
SPOS_FOUND = (0, 0, 3, 1, 1, 1, 0, 0, 2, 0, 2, 1, 1, 0, 2, 0, 2, 1, 3, 2)
SPOS_MULTIPLY_ADDS = {
    (0,) * 20: 295_842_496,
    (1,) * 20: 313_654_976,
    (2,) * 20: 340_373_696,
    (3,) * 20: 358_825_920,
    SPOS_FOUND: 318_729_024,
}
"""Of its networks for 224 x 224 images, by the numbers of their blocks."""


def test_spos_supernet_and_networks_cost_what_its_code_counts():
    size = own_size(SHUFFLE, 1000, "imagenet")
    biases = 1000  # its classifier has none
    with torch.device("meta"):
        supernet = SHUFFLE.supernet(size)
    assert params(supernet) == 8_388_176 + biases
    for layer, mixed in enumerate(supernet.layers):
        expected = SPOS_BLOCKS[max(first for first in SPOS_BLOCKS if first <= layer)]
        assert tuple(params(each) for each in mixed.blocks.values()) == expected, layer
    costs = costs_of(SHUFFLE, size, (224, 224))
    for columns, expected in SPOS_MULTIPLY_ADDS.items():
        assert costs.of(chosen(SHUFFLE, columns)).flops == expected
    with torch.device("meta"):
        network = SHUFFLE.network(chosen(SHUFFLE, SPOS_FOUND), size)
    norms = [m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    scales = 2 * sum(norms)  # which the supernet does not have
    searched = zip(supernet.layers, SPOS_FOUND, strict=True)
    layers = sum(params(mixed.blocks[SHUFFLE.candidates[column]]) for mixed, column in searched)
    fixed = 27 * 16 + 640 * 1024 + 1024 * 1000
    assert params(network) == fixed + layers + biases + scales
    assert flops(network.eval(), (3, 224, 224)) == SPOS_MULTIPLY_ADDS[SPOS_FOUND]


def test_networks_of_mbconv_have_the_weights_that_others_publish():
    """MobileNetV2 and EfficientNet-B0 are chains of these blocks."""
    v2 = Chain(
        "ennas-s1",
        candidates=("mbconv6_3x3",),
        widths=(24, 32, 64, 96, 160, 320),
        depths=(2, 3, 4, 3, 3, 1),
        strides=(2, 2, 2, 1, 2, 1),
        first=16,
    )
    size = own_size(v2, 1000, "imagenet")
    with torch.device("meta"):
        network = v2.network(genotype(v2, ["mbconv6_3x3"] * 16), size)
    assert params(network) == 3_504_872
    assert flops(network.eval(), (3, 224, 224)) == 300_774_272
    b0 = replace(
        v2,
        candidates=("mbconv6_3x3", "mbconv6_5x5"),
        widths=(24, 40, 80, 112, 192, 320),
        depths=(2, 2, 3, 3, 4, 1),
        squeeze=0.25,
        activation="swish",
    )
    kernels = zip((3, 5, 3, 5, 5, 3), b0.depths, strict=True)
    names = [f"mbconv6_{k}x{k}" for k, depth in kernels for _ in range(depth)]
    with torch.device("meta"):
        network = b0.network(genotype(b0, names), own_size(b0, 1000, "imagenet"))
    assert params(network) == 5_288_548


def parity(names: list[str]) -> None:
    """Compare sums of costs, which other tests compare with built networks."""
    table = Table(FILE)
    costs = costs_of(NASBENCH_MACRO, own_size(NASBENCH_MACRO), (32, 32))
    for name in names:
        found = chosen(NASBENCH_MACRO, map(int, name))
        answer = table.query(found)
        assert costs.of(found) == Cost(answer.parameters, answer.flops), name


@real_data
def test_some_networks_cost_what_nas_bench_macro_says():
    names = random.Random(0).sample(EVERY, 64)
    parity(names)
    for name in names[:3]:  # built, not added up
        found = chosen(NASBENCH_MACRO, map(int, name))
        answer, message = Table(FILE).query(found), describe(found, own_size(NASBENCH_MACRO))
        assert (message.params, message.flops) == (answer.parameters, answer.flops)


@real_data
@pytest.mark.slow
def test_all_networks_cost_what_nas_bench_macro_says():
    parity(EVERY)


COSTS = [
    pytest.param(space, stem, side, id=f"{space.name}-{side}", marks=marks)
    for space in SPACES
    for stem, side in (("cifar", 32), ("imagenet", 224), ("cifar", 45))
    for marks in [() if space in (NASBENCH_MACRO, ENNAS_S2) and side < 45 else pytest.mark.slow]
]


@pytest.mark.parametrize(("space", "stem", "side"), COSTS)
def test_prices_add_up_to_the_network_and_slots_are_what_layers_read(space, stem, side):
    size, found = own_size(space, 10, stem), drawn(space, side)
    with torch.device("meta"):
        network = space.network(found, size).eval()
    seen = []
    for layer in (*network.layers, network.frame.end):
        layer.register_forward_pre_hook(lambda _, x: seen.append(tuple(x[0].shape[1:])))
    costs = Cost(params(network), flops(network, (3, side, side)))
    assert costs_of(space, size, (side, side)).of(found) == costs
    assert seen[:-1] == [slot.shape for slot in space.slots(size, (side, side))]
    before = 1 + space.pooled_stem if stem == "imagenet" else 0
    for _ in range(space.strides.count(2) + before):
        side = (side + 1) // 2
    assert seen[-1][1:] == (side, side)


# Its table --------------------------------------------------------------------------------------


def test_the_tables_layout_is_the_spaces():
    assert LAYOUT.items() <= NASBENCH_MACRO.layout.items()
    assert set(NASBENCH_MACRO.layout) - set(LAYOUT) == {"candidates", "affine", "pooled_stem"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"widths": (8, 16, 32)},
            r"a chain with widths = \[8, 16, 32\]: the table's networks have",
        ),
        ({"depths": (1, 1, 1)}, "a chain of 3 layers: NAS-Bench-Macro's has 8"),
        ({"last": 0}, "a chain with last = 0: the table's networks have 1280"),
        ({"squeeze": 0.25}, "a chain with squeeze = 0.25"),
    ],
)
def test_a_chain_laid_out_otherwise_is_in_no_table(changed, message):
    space = replace(NASBENCH_MACRO, **changed)
    with pytest.raises(ValueError, match=message):
        architecture(drawn(space, 0))


def test_fewer_candidates_or_no_scales_are_still_the_tables():
    space = replace(NASBENCH_MACRO, candidates=("mbconv6_5x5", "identity"), affine=False)
    assert architecture(genotype(space, ["mbconv6_5x5", "identity"] * 4)) == "20202020"


@real_data
def test_a_search_with_a_table_of_another_layout_is_refused_before_it_begins():
    diagnostics = Diagnostics(Run(table=FILE), NASBENCH_MACRO)
    assert diagnostics.looked_up([chosen(NASBENCH_MACRO, [2] * 8)])[0]["cifar10_test"] > 92
    with pytest.raises(ValueError, match="a chain with stem_channels = 16"):
        Diagnostics(Run(table=FILE), replace(NASBENCH_MACRO, stem_channels=16))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ((0.9, inf), "max_params = 0.9: the cheapest .* nasbench-macro has 1 million; raise"),
        ((inf, 0.5), "max_flops = 0.5: the cheapest .* nasbench-macro has 1 million; raise"),
        ((8.0, 0.5), "max_flops = 0.5: the cheapest .* nasbench-macro has 1 million; raise"),
        (
            (8.0, 7.0),
            "max_params = 8 with max_flops = 7: .* 9 million parameters and 1 million FLOP",
        ),
        ((1.0, 9.0), None),
    ],
)
def test_a_refused_limit_says_the_least_that_there_is(limits, message):
    """Of two blocks one has few weights, the other few FLOPs."""
    space = replace(
        NASBENCH_MACRO, candidates=("mbconv3_3x3", "identity"), widths=(8,), depths=(1,),
        strides=(1,),
    )  # fmt: skip
    priced = {"mbconv3_3x3": Cost(9_000_000, 1_000_000), "identity": Cost(1_000_000, 9_000_000)}
    costs = Costs(Cost(0, 0), {"chain": [priced]}, [(1, 1)], keeps_none=True)
    budget = Budget(Darts(), costs, Limits(*(1e6 * limit for limit in limits)), weight=1.0)
    if message is None:
        budget.check(space)
    else:
        with pytest.raises(ValueError, match=message):
            budget.check(space)
