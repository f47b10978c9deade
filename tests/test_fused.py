"""Pieces of the fast supernet against torch's own, in values and two derivatives."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.spaces import convolution, folding, fused, ops
from tutelage.spaces.convolution import (
    Convolution,
    channels_last,
    convolve,
    depthwise,
    images_as_channels,
    pixel_mean,
    windows,
)
from tutelage.spaces.folding import folded_sum
from tutelage.spaces.fused import (
    BatchNorm,
    mix,
    normalise,
    normalised,
    normalised_sum,
    side_by_side,
    stacked,
    weighted_sum,
)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_pixel_means_are_torchs_to_the_bit_with_a_gradient_pixel_by_pixel(kind):
    x = channels_last(torch.randn(3, 5, 4, 6, dtype=kind)).requires_grad_()
    cotangent, found = torch.randn(3, 5, dtype=kind), []
    for y in (pixel_mean(x), x.mean((2, 3))):
        found.append((y, *torch.autograd.grad(y, x, cotangent)))
    (y, gradient), (expected, other) = found
    assert torch.equal(y, expected) and torch.equal(gradient, other)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    assert not other.is_contiguous(memory_format=torch.channels_last)


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


@pytest.mark.parametrize("joined", [True, False])
def test_gradients_of_pieces_are_gradients(joined, monkeypatch):
    monkeypatch.setattr(fused, "JOINED", 1 << 16 if joined else 0)
    x = torch.randn(2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    k = torch.randn(4, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    p = torch.randn(4, 2, 1, 1, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, dtype=torch.float64, requires_grad=True)
    m = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(3, 2, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    checks = [
        (lambda x, k: depthwise(x, k, 1, 2), (x, k)),
        (lambda x, p, w: folded_sum([x[:, :2], x[:, 2:]], p, w), (x, p, w)),
        (lambda w, b, x: mix(w, stacked([x, x**2]), b), (m, b, x)),
        (lambda w, x: mix(w, stacked([x, x.sin()])), (m, x)),
        (normalise, (x,)),
        (lambda w, x: weighted_sum(w, stacked(normalised([x[:, :2], x[:, 2:]], 2))), (w, x)),
        (lambda w, x: normalised_sum(w, [x[:, :2], x[:, 2:]]), (w, x)),
        (lambda w, x: weighted_sum(w, [*stacked([x]), *stacked([x**2])]), (w, x)),
        (lambda w, x: weighted_sum(w, stacked([x, x**2])), (w, x)),
        (lambda x, p: convolve(x, p, groups=2), (x, p)),
        (lambda x, p: convolve(x, p, stride=2), (x, torch.randn(3, 4, 3, 3).double())),
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


@pytest.mark.parametrize("ratio", [1, 100, 10_000])
@pytest.mark.parametrize("side", [4, 24])
def test_folding_keeps_its_digits_where_means_are_large(ratio, side):
    """In float32, of maps whose mean is so many deviations, beside torch's own operations.

    Either way a digit is lost for each power of ten, since the map itself is stored with its mean.
    """
    torch.manual_seed(0)
    means = ratio * torch.randn(1, 12, 1, 1, dtype=torch.float64).sign()
    z = (torch.randn(8, 12, side, side, dtype=torch.float64) + means).float()
    p, w, g = torch.randn(12, 4, 1, 1) / 2, torch.rand(3), torch.randn(8, 4, side, side)

    def results(sum_of, kind):
        inputs = [x.to(kind).requires_grad_() for x in (z, p, w)]
        y = sum_of(*inputs)
        return [y.detach(), *torch.autograd.grad((y * g.to(kind)).sum(), inputs)]

    def pieces(z, p, w):
        terms = zip(z.split(4, 1), p.split(4, 0), w, strict=True)
        return sum(a * F.batch_norm(F.conv2d(x, q), None, None, training=True) for x, q, a in terms)

    def errors(sum_of):
        pairs = zip(results(sum_of, torch.float32), exact, strict=True)
        return [float((x.double() - y).norm() / y.norm()) for x, y in pairs]

    exact = results(pieces, torch.float64)
    ours, theirs = errors(lambda z, p, w: folded_sum([z], p, w)), errors(pieces)
    assert all(x <= max(5e-6 * ratio, 5 * y) for x, y in zip(ours, theirs, strict=True))


def test_a_folded_sum_equals_its_pieces_in_three_derivatives():
    z = torch.randn(3, 6, 4, 3, dtype=torch.float64, requires_grad=True)
    p = torch.randn(6, 2, 1, 1, dtype=torch.float64, requires_grad=True)
    w = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    y = plain(F.conv2d(z, p, groups=3)).unflatten(1, (3, 2))
    theirs = derivatives((w.view(3, 1, 1, 1) * y).sum(1), (z, p, w))
    assert_all_close(derivatives(folded_sum([z], p, w), (z, p, w)), theirs)


def test_a_pass_that_asks_one_gradient_computes_no_other(monkeypatch):
    """The product of an exact hypergradient asks none of the weights."""
    x, k = (torch.randn(s, dtype=torch.float64) for s in ((2, 3, 5, 5), (3, 1, 3, 3)))
    x, k = (t.requires_grad_().view_as(t) for t in (x, k))
    found: list[str] = []
    kernels = convolution._in_kernel
    monkeypatch.setattr(convolution, "_in_kernel", lambda *a: found.append("kernel") or kernels(*a))
    (first,) = torch.autograd.grad(depthwise(x, k).sin().sum(), x, create_graph=True)
    assert not found
    torch.autograd.grad(first.square().sum(), x, retain_graph=True)
    assert not found
    torch.autograd.grad(first.square().sum(), k)
    assert found


def test_a_fold_that_is_asked_for_the_weights_alone_computes_no_map(monkeypatch):
    z, p = (torch.randn(s) for s in ((2, 4, 5, 5), (4, 2, 1, 1)))
    w = torch.rand(2, requires_grad=True).view_as(torch.rand(2))
    z.requires_grad_()
    y = folded_sum([z.view_as(z)], p, w)
    expected = torch.autograd.grad(y.sin().sum(), (w, z), retain_graph=True)[0]
    monkeypatch.setattr(folding, "convolve", None)
    (found,) = torch.autograd.grad(y.sin().sum(), w)
    torch.testing.assert_close(found, expected)


def test_folded_sum_of_a_constant_map_is_finite():
    z = torch.full((2, 2, 4, 4), 3.0, requires_grad=True)
    y = folded_sum([z], torch.ones(2, 2, 1, 1), torch.ones(1))
    (gradient,) = torch.autograd.grad(y.square().sum(), z)
    assert y.abs().max() < 1e-2
    assert gradient.isfinite().all()


@pytest.mark.parametrize("shape", [(3, 4, 8, 8), (2, 4, 5, 7), (2, 6, 2, 2), (2, 2, 1, 1)])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("size", [(3, 3), (5, 5), (3, 5), (1, 3)])
def test_forms_of_a_depthwise_kernels_gradient_agree_with_torch(shape, dilation, size):
    x, g = (torch.randn(shape, dtype=torch.float64) for _ in range(2))
    padding = tuple(dilation * (side // 2) for side in size)
    kernel = torch.randn(shape[1], 1, *size, dtype=torch.float64, requires_grad=True)
    y = F.conv2d(x, kernel, None, 1, padding, dilation, shape[1])
    (expected,) = torch.autograd.grad(y, kernel, g)
    for found in (
        images_as_channels(x, g, size, padding, dilation),
        windows(x, g, size, dilation),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sides", [(8, 8), (5, 7), (2, 1)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", ops.POOLS)
def test_a_large_pool_is_torchs(name, stride, sides, monkeypatch):
    monkeypatch.setattr(convolution, "PRODUCT", 0)
    x = torch.randn(2, 3, *sides, dtype=torch.float64, requires_grad=True)
    found, expected = (
        derivatives(form(x), (x,), 2)
        for form in (lambda x: ops.pool(name, x, stride), lambda x: ops.POOLS[name](x, stride))
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def derivatives(y: Tensor, inputs: tuple[Tensor, ...], last: int = 3) -> list[Tensor]:
    """A function's values, and derivatives of each order of a curved function of the one before."""
    found, values = [y], y
    for order in range(1, last + 1):
        found += torch.autograd.grad(values.sin().sum(), inputs, create_graph=order < last)
        values = torch.cat([each.flatten() for each in found[-len(inputs) :]])
    return found


def plain(x: Tensor) -> Tensor:
    """Normalise as it is written down."""
    centred = x - x.mean((0, 2, 3), keepdim=True)
    return centred / (centred.square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()


def assert_all_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 3])
def test_a_convolution_equals_torchs_in_three_derivatives(groups, stride, dilation):
    x = torch.randn(2, 4, 9, 10, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(8, 4 // groups, 3, 3, dtype=torch.float64, requires_grad=True)
    ours = convolve(x, kernel, stride, dilation, groups)
    theirs = F.conv2d(x, kernel, None, stride, dilation, dilation, groups)
    assert_all_close(derivatives(ours, (x, kernel)), derivatives(theirs, (x, kernel)))


@pytest.mark.parametrize("product", [True, False])
def test_a_1x1_convolution_equals_torchs_in_three_derivatives(product, monkeypatch):
    monkeypatch.setattr(convolution, "PRODUCT", (1 << 16) * product)
    x = torch.randn(2, 4, 5, 3, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(6, 4, 1, 1, dtype=torch.float64, requires_grad=True)
    for given in (x, channels_last(x)):
        ours, theirs = convolve(given, kernel), F.conv2d(given, kernel)
        assert_all_close(derivatives(ours, (x, kernel)), derivatives(theirs, (x, kernel)))


def test_a_depthwise_convolution_of_any_dilation_has_its_kernels_gradient():
    x = torch.randn(2, 3, 12, 11, dtype=torch.float64)
    for dilation in (1, 2, 3, 4):
        kernel = torch.randn(3, 1, 3, 3, dtype=torch.float64, requires_grad=True)
        ours = depthwise(x, kernel, 1, dilation)
        theirs = F.conv2d(x, kernel, None, 1, dilation, dilation, 3)
        assert_all_close(derivatives(ours, (kernel,), 1), derivatives(theirs, (kernel,), 1))


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match="kernel = 4: padding keeps a map's size with odd ones"):
        Convolution(2, 2, 4)


def test_normalisations_equal_the_plain_ones_in_three_derivatives():
    """Torch's own third derivative of it holds mean and deviation fixed, and so is wrong."""
    x, other = (torch.randn(3, 2, 4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    still = torch.randn(3, 2, 4, 3, dtype=torch.float64)
    w = torch.tensor([0.5, -2.0], dtype=torch.float64, requires_grad=True)
    norm = BatchNorm(2, track_running_stats=False).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.5, -0.5]))
        norm.bias.copy_(torch.tensor([0.25, 2.0]))
    scale, shift = norm.weight[:, None, None], norm.bias[:, None, None]
    pairs = [
        (normalise(x), plain(x), (x,)),
        (normalised_sum(w, [x, other]), w[0] * plain(x) + w[1] * plain(other), (w, x, other)),
        (normalised_sum(w, [still, x]), w[0] * plain(still) + w[1] * plain(x), (w, x)),
        (norm(x), plain(x) * scale + shift, (x, norm.weight, norm.bias)),
        (norm(still), plain(still) * scale + shift, (norm.weight, norm.bias)),
    ]
    for ours, theirs, inputs in pairs:
        assert_all_close(derivatives(ours, inputs), derivatives(theirs, inputs))


def test_a_constant_cotangent_has_a_third_derivative():
    x = torch.randn(3, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    c = torch.randn(3, 2, 4, 3, dtype=torch.float64)

    def third(y: Tensor) -> Tensor:
        (first,) = torch.autograd.grad((y * c).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
        return torch.autograd.grad(second.square().sum(), x)[0]

    ours, theirs = third(normalise(x)), third(plain(x))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_one_value_a_channel_is_refused():
    """Its normalisation is 0 whatever it is: nothing could be learnt from it."""
    x, norm = torch.randn(1, 4, 1, 1), BatchNorm(4, track_running_stats=False)
    for function in (normalise, norm, lambda x: normalised_sum(torch.ones(1), [x])):
        with pytest.raises(
            ValueError, match=r"1 x 4 x 1 x 1 has one value a channel.*--batch-size"
        ):
            function(x)
        function(torch.cat([x, x]))


def test_a_normalisation_in_bfloat16_takes_weights_of_its_type():
    norm = BatchNorm(4, track_running_stats=False)
    x = torch.randn(3, 4, 5, 5)
    torch.testing.assert_close(
        norm.bfloat16()(x.bfloat16()).float(), plain(x).float(), rtol=0.05, atol=0.05
    )


def test_sums_of_two_types_have_the_wider():
    one, two = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 3, 4, 4).bfloat16()
    two.requires_grad_()
    w = torch.tensor([0.5, 2.0], requires_grad=True)
    total = weighted_sum(w, [*stacked([one]), *stacked([two])])
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, 0.5 * one + 2 * two.float())
    gradients = torch.autograd.grad(total.sum(), (w, one, two))
    assert [each.dtype for each in gradients] == [torch.float32, torch.float32, torch.bfloat16]


def test_maps_of_two_types_are_joined_as_torch_joins_them():
    x, y = torch.randn(2, 1, 3, 3, requires_grad=True), torch.randn(2, 2, 3, 3).bfloat16()
    y.requires_grad_()
    for joined, expected in (
        (side_by_side([x, y]), torch.cat([x, y], 1)),
        (stacked([x, y[:, :1]])[0], torch.stack([x, y[:, :1]]).permute(0, 1, 3, 4, 2)),
    ):
        assert joined.dtype == torch.float32
        assert torch.equal(joined, expected)
        gradients = torch.autograd.grad(joined.sum(), (x, y))
        assert [each.dtype for each in gradients] == [torch.float32, torch.bfloat16]
