"""Pieces of the fast supernet against torch's own, in values and two derivatives."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.spaces.fused import depthwise, folded_sum, normalise, weighted_sum


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("side", [(6, 8), (7, 5), (2, 1)])
def test_depthwise_equals_torch_in_two_derivatives(stride, dilation, kernel, side):
    x = torch.randn(2, 3, *side, dtype=torch.float64, requires_grad=True)
    k = torch.randn(3, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    padding = dilation * (kernel // 2)
    expected = F.conv2d(x, k, None, stride, padding, dilation, groups=3)
    weigh = torch.randn_like(expected)

    def derivatives(y: Tensor) -> list[Tensor]:
        first = torch.autograd.grad((y.sin() * weigh).sum(), (x, k), create_graph=True)
        second = torch.autograd.grad(sum((each**2).sum() for each in first), (x, k))
        return [y, *first, *second]

    for ours, theirs in zip(
        derivatives(depthwise(x, k, stride, dilation)), derivatives(expected), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_gradients_of_pieces_are_gradients():
    x = torch.randn(2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    k = torch.randn(4, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    p = torch.randn(4, 2, 1, 1, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, dtype=torch.float64, requires_grad=True)
    checks = [
        (lambda x, k: depthwise(x, k, 1, 2), (x, k)),
        (lambda x, p, w: folded_sum([x[:, :2], x[:, 2:]], p, w), (x, p, w)),
        (normalise, (x, w.detach()[0].requires_grad_())),
        (lambda w, x, y: weighted_sum(w, [x, y]), (w, x, x.detach() ** 2)),
    ]
    for function, inputs in checks:
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


def test_folded_sum_equals_normalised_products():
    z = torch.randn(3, 6, 5, 5, dtype=torch.float64) + 2
    p = torch.randn(6, 2, 1, 1, dtype=torch.float64)
    w = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    y = normalise(F.conv2d(z, p, groups=3)).unflatten(1, (3, 2))
    expected = (w.view(3, 1, 1, 1) * y).sum(1)
    for maps in ([z], [z[:, :4], z[:, 4:]]):
        torch.testing.assert_close(folded_sum(maps, p, w), expected, rtol=1e-10, atol=1e-10)


def test_folded_sum_of_a_constant_map_is_finite():
    z = torch.full((2, 2, 4, 4), 3.0, requires_grad=True)
    y = folded_sum([z], torch.ones(2, 2, 1, 1), torch.ones(1))
    (gradient,) = torch.autograd.grad(y.square().sum(), z)
    assert y.abs().max() < 1e-2
    assert gradient.isfinite().all()
