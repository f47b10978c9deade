"""Probes of collapse against dense Hessians, separate cells and numbers worked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from tutelage.run.monitor.collapse import (
    cell_gradients,
    entropy,
    layer_alignment,
    skips,
    warnings_of,
)
from tutelage.run.monitor.curvature import dominant_eigenvalue
from tutelage.spaces.base import ArchWeights, Size
from tutelage.spaces.cells import DARTS
from tutelage.spaces.genotype import Cell, Genotype
from tutelage.spaces.plan import weights_of
from tutelage.trees import Tree, leaves, rebuild


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """These maps are too small to share among threads."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def eigenvalues(loss: Callable[[Tree], Tensor], at: Tree) -> Tensor:
    """All eigenvalues of the dense Hessian, ascending."""
    sizes = [x.numel() for x in leaves(at)]

    def flat(vector: Tensor) -> Tensor:
        parts = zip(vector.split(sizes), leaves(at), strict=True)
        return loss(rebuild(at, iter([part.view(x.shape) for part, x in parts])))

    vector = torch.cat([x.flatten() for x in leaves(at)])
    return torch.linalg.eigvalsh(torch.autograd.functional.hessian(flat, vector))


def perceptron(sign: float) -> Callable[[Tree], Tensor]:
    """A tanh network of two learners' alphas, with noise on what it hides."""
    x = torch.randn(12, 5, dtype=torch.float64)

    def loss(alphas: Tree) -> Tensor:
        total = x.new_zeros(())
        for learner in alphas:
            hidden = torch.tanh(x @ learner["normal"].softmax(0))
            hidden = hidden + 0.5 * torch.randn_like(hidden) * hidden
            total = total + torch.tanh(3 * hidden @ learner["reduce"]).square().sum()
        return sign * total

    return loss


def two_learners(width: int) -> Tree:
    shapes = {"normal": (5, width), "reduce": (width, 2)}
    return [
        {group: torch.randn(shape, dtype=torch.float64) for group, shape in shapes.items()}
        for _ in range(2)
    ]


# Curvature


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("width", [1, 4], ids=["dense", "lanczos"])
def test_eigenvalue_equals_the_dense_hessian(width, sign):
    loss, alphas = perceptron(sign), two_learners(width)
    before = torch.get_rng_state()
    found = {
        which: dominant_eigenvalue(loss, alphas, which=which, tolerance=1e-9)
        for which in ("algebraic", "magnitude")
    }
    assert torch.equal(torch.get_rng_state(), before)  # so the reference has the same draws
    spectrum = eigenvalues(loss, alphas).tolist()
    assert found["algebraic"] == pytest.approx(spectrum[-1], rel=1e-6)
    assert found["magnitude"] == pytest.approx(max(spectrum, key=abs), rel=1e-6)


def test_eigenvalue_leaves_the_alphas_alone():
    alphas = two_learners(4)
    dominant_eigenvalue(perceptron(1.0), alphas)
    assert not any(x.requires_grad for x in leaves(alphas))
    with torch.no_grad():
        assert dominant_eigenvalue(lambda a: a.pow(2).sum(), torch.ones(3)) == 2.0


def quadratic(values: Tensor) -> Callable[[Tensor], Tensor]:
    """A loss whose Hessian has these eigenvalues."""
    axes = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64))[0]
    return lambda a: (axes @ a).square() @ values / 2


@pytest.mark.parametrize("size", [20, 21, 60])
def test_eigenvalue_of_a_known_hessian(size):
    values = torch.linspace(-3, 2, size, dtype=torch.float64)
    loss, at = quadratic(values), torch.randn(size, dtype=torch.float64)
    assert dominant_eigenvalue(loss, at, tolerance=0) == pytest.approx(2, rel=1e-9)
    assert dominant_eigenvalue(loss, at, which="magnitude", tolerance=0) == pytest.approx(-3)


def test_eigenvalue_is_as_near_as_its_tolerance_in_float32():
    values = torch.linspace(-1, 2, 60, dtype=torch.float64) ** 3
    axes = torch.linalg.qr(torch.randn(60, 60, dtype=torch.float64))[0].float()
    found = dominant_eigenvalue(
        lambda a: (axes @ a).square() @ values.float() / 2, torch.randn(60), tolerance=1e-3
    )
    assert found == pytest.approx(8, rel=1e-3)


@pytest.mark.parametrize("size", [3, 40])
def test_eigenvalue_of_flat_and_broken_losses(size):
    at = torch.randn(size)
    assert dominant_eigenvalue(lambda a: a.sum(), at) == 0
    assert dominant_eigenvalue(lambda a: a.square().sum() * 0, at) == 0
    assert dominant_eigenvalue(lambda a: at.sum().requires_grad_(), at) == 0
    assert math.isnan(dominant_eigenvalue(lambda a: a.square().sum() * math.inf, at))


def test_eigenvalue_that_does_not_converge_is_not_made_up():
    loss = quadratic(torch.linspace(1, 1.001, 200, dtype=torch.float64))
    at = torch.zeros(200, dtype=torch.float64)
    assert math.isnan(dominant_eigenvalue(loss, at, tolerance=0, iterations=1))


def supernet(cells: int) -> tuple[nn.Module, Callable[[ArchWeights], Tensor]]:
    """A tiny supernet in float64, and its validation loss as a function of the architecture
    weights."""
    net = DARTS.supernet(Size(channels=4, cells=cells)).double()
    x, y = torch.randn(3, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 3, 7])
    weights = {name: parameter.detach() for name, parameter in net.named_parameters()}
    return net, lambda arch: F.cross_entropy(functional_call(net, weights, (x, arch))[0], y)


def softmax(alphas: dict[str, Tensor]) -> ArchWeights:
    return ArchWeights({group: each.softmax(-1) for group, each in alphas.items()})


def test_eigenvalue_of_a_supernet_equals_the_dense_hessian():
    _, validate = supernet(cells=1)
    fixed = torch.randn(14, 8, dtype=torch.float64)
    alphas = {"reduce": torch.randn(3, 8, dtype=torch.float64)}

    def loss(alphas: Tree) -> Tensor:
        return validate(softmax({"reduce": torch.cat([alphas["reduce"], fixed[3:]])}))

    spectrum = eigenvalues(loss, alphas).tolist()
    found = dominant_eigenvalue(loss, alphas, tolerance=1e-9)
    assert found == pytest.approx(spectrum[-1], rel=1e-6)
    strongest = dominant_eigenvalue(loss, alphas, which="magnitude", tolerance=1e-9)
    assert strongest == pytest.approx(max(spectrum, key=abs), rel=1e-6)


# Agreement of cells


def test_cell_gradients_equal_those_of_separate_tensors():
    net, validate = supernet(cells=5)
    arch = softmax({g: torch.randn(s, dtype=torch.float64) for g, s in DARTS.choices.items()})
    found = cell_gradients(validate, arch, net.counts)
    assert {group: len(each) for group, each in found.items()} == {"normal": 3, "reduce": 2}

    separate = [arch.operations[place.group].clone().requires_grad_() for place in net.plan]
    for cell, place, own in zip(net.cells, net.plan, separate, strict=True):
        group = place.group
        shape = (net.edges[group], net.layouts[place.stride])
        given = partial(weights_of, ArchWeights({group: own}), group, *shape, cells=1)
        cell.register_forward_pre_hook(lambda _, args, given=given: (*args[:2], *given()))
    expected = torch.autograd.grad(validate(arch), separate)
    for group in found:
        of_group = [g for g, at in zip(expected, net.plan, strict=True) if at.group == group]
        torch.testing.assert_close(found[group], of_group, rtol=1e-9, atol=1e-12)
    cosines = [
        F.cosine_similarity(expected[i].flatten(), expected[j].flatten(), dim=0)
        for i, j in ((0, 2), (0, 4), (2, 4))
    ]
    assert layer_alignment(found["normal"]) == pytest.approx(float(sum(cosines)) / 3, rel=1e-9)


def test_layer_alignment_by_hand():
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    assert layer_alignment([x, y]) == 0
    assert layer_alignment([x, 5 * x]) == pytest.approx(1)
    assert layer_alignment([x, -x]) == pytest.approx(-1)
    assert layer_alignment([x, y, 2 * x + y]) == pytest.approx((0 + 2 * math.sqrt(0.5)) / 3)
    assert layer_alignment([x, 0 * x, x]) == pytest.approx(1 / 3)
    assert layer_alignment([x]) == 1
    assert layer_alignment([1e-20 * x.double(), 1e-20 * x.double()]) == pytest.approx(1)


# What the alphas say


def test_entropy_by_hand():
    one_hot, uniform = torch.tensor([[0.0, 1.0, 0.0, 0.0]]), torch.full((1, 4), 0.25)
    half = torch.tensor([[3.0, 3.0, 0.0, 0.0]])  # a share of a half each: log 2 / log 4
    assert entropy({"a": one_hot, "b": uniform, "c": half}) == pytest.approx(
        {"a": 0, "b": 1, "c": 0.5}
    )
    assert entropy({"a": torch.cat([one_hot, uniform, half])}) == pytest.approx({"a": 0.5})
    assert entropy({"empty": torch.zeros(2, 4), "single": torch.ones(2, 1)}) == pytest.approx(
        {"empty": 0, "single": 0}
    )


def found(*normal: str) -> Genotype:
    pairs = [(name, 0) for name in normal]
    cell = Cell(tuple(tuple(pairs[i : i + 2]) for i in range(0, 8, 2)), (2, 3, 4, 5))
    reduce = Cell(((("skip_connect", 0), ("max_pool_3x3", 1)),) * 4, (2, 3, 4, 5))
    return Genotype("darts", {"normal": cell, "reduce": reduce})


def test_skips_are_counted_in_every_cell():
    genotype = found(*["skip_connect"] * 3, *["sep_conv_3x3"] * 5)
    assert skips(genotype) == {"normal": 3, "reduce": 4}


def test_signs_on_both_sides():
    assert warnings_of({"normal": 2, "reduce": 8}, []) == []
    assert warnings_of({"normal": 3, "reduce": 0}, [None] * 40) == [
        "the normal cell has 3 skip connections, more than 2"
    ]
    rising = [0.1] * 15 + [0.2] * 3
    assert warnings_of({"normal": 0}, rising[:-1]) == []
    assert warnings_of({"normal": 0}, rising) == [
        "the dominant eigenvalue grew from 0.1 to 0.16 between epochs 10 and 15"
    ]
