"""Stand-alone networks of DARTS' cells: the supernet's functions, image sizes, what drops out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from darts_cells import NAMES, SPACE, alphas, genotype
from reference import batch_norm, unstack
from tutelage.spaces.base import ArchWeights, Size, one_hot
from tutelage.spaces.genotype import Genotype
from tutelage.spaces.network import drop
from tutelage.spaces.ops import operation
from tutelage.spaces.published import PUBLISHED

DARTS_V2 = PUBLISHED["DARTS_V2"]
# every operation in both kinds of cell, on the inputs (stride 2 in a reduction) and inside
ALL = genotype(
    "max 0, avg 1 · skip 0, sep3 1 · sep5 0, dil3 2 · dil5 3, max 2",
    "max 0, avg 1 · skip 0, sep3 1 · sep5 0, dil3 1 · dil5 0, skip 2",
)
INSIDE = genotype(
    "dil5 0, dil3 1 · sep5 1, skip 2 · avg 3, sep3 2 · sep5 4, skip 1",
    "dil5 1, sep3 0 · dil3 2, max 2 · avg 3, sep3 2 · sep5 4, dil5 3",
)


def copy_weights(fast: nn.Module, network: nn.Module, genotype: Genotype) -> None:
    """Give a network the weights that its operations have in the supernet.

    The network's BatchNorms stay at scale 1 and shift 0. The supernet normalises after its pools
    and DARTS' network does not: this appends that.
    """
    plain = unstack(fast, dict(fast.named_parameters()))
    copied = {name: p for name, p in plain.items() if name.startswith("classifier")}
    copied |= {name.replace("stem.", "stem.0."): p for name, p in plain.items() if "stem" in name}
    for place, body in enumerate(network.cells):
        inputs = (f"cells.{place}.before", f"cells.{place}.last")
        copied |= {name: p for name, p in plain.items() if name.startswith(inputs)}
        first = 0
        for index, node in enumerate(genotype.cells[fast.plan[place].group].nodes):
            modules = body.nodes[index].operations
            for position, (name, source) in enumerate(node):
                old = f"cells.{place}.edges.{first + source}.{NAMES.index(name)}."
                new = f"cells.{place}.nodes.{index}.operations.{position}."
                copied |= {n.replace(old, new): p for n, p in plain.items() if n.startswith(old)}
                if "pool" in name:
                    modules[position] = nn.Sequential(modules[position], batch_norm(1))
            first += index + 2
    missing, unexpected = network.load_state_dict(copied, strict=False)
    affine = {n for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert not unexpected
    assert {name.rpartition(".")[0] for name in missing} <= affine


@pytest.mark.parametrize("genotype", [ALL, INSIDE])
def test_one_hot_mix_equals_network_with_copied_weights(genotype):
    size = Size(channels=4, cells=4, classes=5)
    fast = SPACE.supernet(size).double()
    network = SPACE.network(genotype, size).double().train()  # BatchNorms use their batch
    copy_weights(fast, network, genotype)
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    logits, features = fast(x, one_hot(SPACE, genotype, like=x))
    theirs, auxiliary = network(x)
    assert auxiliary is None
    torch.testing.assert_close(logits, theirs, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(features, network.features(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("image_channels", [1, 3])
@pytest.mark.parametrize(
    "side", [8, 28, 32, *(pytest.param(side, marks=pytest.mark.slow) for side in (64, 224))]
)
def test_image_sizes(side, image_channels, stem):
    size = Size(channels=2, cells=3, classes=4, image_channels=image_channels, stem=stem)
    x = torch.randn(2, image_channels, side, side)
    network = SPACE.network(ALL, size, auxiliary=True, drop_path=0.2)
    logits, auxiliary = network(x)
    assert logits.shape == auxiliary.shape == (2, 4)
    assert network.eval()(x).shape == (2, 4)
    arch = ArchWeights({group: a.softmax(1) for group, a in alphas(torch.float32).items()})
    logits, features = SPACE.supernet(size)(x, arch)
    assert logits.shape == (2, 4)
    assert features.shape == (2, 4 * 8)
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    "stem, side, pool", [("cifar", 32, (5, 3)), ("imagenet", 224, (5, 2)), ("cifar", 48, None)]
)
def test_auxiliary_head_pools_as_darts_do(stem, side, pool):
    size = Size(channels=2, cells=3, stem=stem)
    network = SPACE.network(DARTS_V2, size, auxiliary=True)
    seen = {}
    network.auxiliary.register_forward_pre_hook(lambda _, args: seen.update(map=args[0]))
    network.auxiliary.first.register_forward_pre_hook(lambda _, args: seen.update(pooled=args[0]))
    network(torch.randn(2, 3, side, side))
    x = seen["map"].relu()
    expected = F.avg_pool2d(x, *pool) if pool else F.adaptive_avg_pool2d(x, 2)
    assert expected.shape[-2:] == (2, 2)
    torch.testing.assert_close(seen["pooled"], expected)


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    x = torch.rand(4000, 2, 1, 1) + 0.5
    y = drop(x, 0.25)
    kept = (y != 0).flatten(1)
    assert torch.equal(kept[:, 0], kept[:, 1])
    assert abs(kept[:, 0].float().mean() - 0.75) < 0.035
    torch.testing.assert_close(y[kept[:, 0]], (x / 0.75)[kept[:, 0]])


def test_drop_path_spares_identities_and_evaluation():
    skips = "skip 0, skip 1 · skip 0, skip 1 · skip 0, skip 2 · skip 3, skip 4"
    network = SPACE.network(genotype(skips, skips), Size(channels=2, cells=3))
    normal, reduce = network.cells[0], network.cells[1]
    before, last = torch.randn(2, 8, 6, 8, 8)
    assert torch.equal(normal(before, last, 0.9), normal(before, last, 0.0))
    last = torch.randn(8, 8, 8, 8)
    assert not torch.equal(reduce(before, last, 0.9), reduce(before, last, 0.0))
    network.drop_path = 0.9
    x = torch.randn(8, 3, 8, 8)
    assert not torch.equal(network(x)[0], network(x)[0])
    network.eval()
    assert torch.equal(network(x), network(x))


def test_network_keeps_running_statistics_with_scale_and_shift():
    network = SPACE.network(ALL, Size(channels=2, cells=3), auxiliary=True)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    network(torch.randn(4, 3, 32, 32))
    assert all(norm.affine and norm.num_batches_tracked == 1 for norm in norms)
    assert not any(torch.equal(n.running_mean, torch.zeros_like(n.running_mean)) for n in norms)


def test_foreign_genotypes_and_operations_are_refused():
    foreign = Genotype("mine", DARTS_V2.cells)
    with pytest.raises(ValueError, match="'mine'"):
        SPACE.network(foreign, Size())
    with pytest.raises(ValueError, match="did you mean sep_conv_3x3"):
        operation("sep_conv_3x4", 4, 1)
