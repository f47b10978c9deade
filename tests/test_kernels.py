"""Fused kernels against their plain forms, in values and derivatives.

The checks run where there is a CUDA device, and by Triton's interpreter on the CPU in a process of
its own: a kernel that was imported for the interpreter is never compiled.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from tutelage.config import Data, Retrain, Run
from tutelage.run.networks.ensemble import Ensemble
from tutelage.spaces import convolution, kernels
from tutelage.spaces.base import ArchWeights, Size
from tutelage.spaces.cells import DARTS
from tutelage.spaces.kernels import convolutions, covariances, folding, sums
from tutelage.spaces.kernels.language import Laid, tl
from tutelage.spaces.published import resolve

search, dry_run, retrain = (
    import_module(f"tutelage.run.{name}") for name in ("search", "dry_run", "retrain")
)
DATA = Data()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
TRITON = tl is not None
DEVICE = "cpu" if INTERPRETED else "cuda"
needs_triton = pytest.mark.skipif(not TRITON, reason="there is no Triton for this Python and torch")


def check(test: Callable) -> Callable:
    """Run a test by the interpreter, or on a CUDA device."""
    ready = TRITON and (INTERPRETED or torch.cuda.is_available())
    why = "needs Triton and a CUDA device, or the interpreter (test_the_interpreter_agrees)"
    return pytest.mark.cuda(pytest.mark.skipif(not ready, reason=why)(test))


@pytest.fixture(autouse=True)
def plain_forms_are_plain(monkeypatch):
    """On a GPU a plain form would itself ask for kernels."""
    monkeypatch.setattr(kernels, "_allowed", [False])


class Case(NamedTuple):
    """A kernel, its plain form, and the shapes of what both read."""

    name: str
    fast: Callable
    plain: Callable
    shapes: Sequence[tuple[int, ...]]

    def __str__(self) -> str:
        return self.name

    def inputs(self, kind: torch.dtype, device: str = DEVICE) -> list[Tensor]:
        torch.manual_seed(1)
        tensors = [torch.randn(shape, dtype=torch.float64) for shape in self.shapes]
        if self.name.startswith("folding"):  # covariances; one is no covariance and is clamped
            tensors[3] = tensors[3] @ tensors[3].mT / self.shapes[3][1]
            tensors[3][0] *= -1
        return [x.to(device, kind).requires_grad_() for x in tensors]


def summed(maps: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("n...,nm->m...", maps, weights)


def mixed(weights: Tensor, x: Tensor, y: Tensor, base: Tensor) -> Tensor:
    return base + summed(torch.cat([x, y]), weights)


def plain_moments(z: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    rows = z.permute(0, 2, 3, 1).flatten(0, 2).unflatten(1, (groups, -1)).transpose(0, 1)
    centred = rows - rows.mean(1, keepdim=True)
    return rows.mean(1), centred.mT @ centred / rows.shape[1]


def convolved(size: int, stride: int, dilation: int, shape: tuple[int, ...]) -> list[Case]:
    def plain(x: Tensor, kernel: Tensor) -> Tensor:
        return convolution.depthwise(x, kernel, stride, dilation)

    name = f"{size} x {size}, stride {stride}, dilation {dilation}, {shape}"
    shapes = [shape, (shape[1], 1, size, size)]
    return [
        Case(
            f"relu and depthwise {name}",
            lambda x, kernel: kernels.relu_depthwise(x, kernel, stride, dilation),
            lambda x, kernel: plain(x.relu(), kernel),
            shapes,
        ),
        Case(
            f"depthwise {name}",
            lambda x, kernel: kernels.depthwise(x, kernel, stride, dilation),
            plain,
            shapes,
        ),
    ]


def moments(groups: int, shape: tuple[int, ...]) -> Case:
    return Case(
        f"moments of {groups} groups, {shape}",
        lambda z: kernels.moments(z, groups),
        lambda z: plain_moments(z, groups),
        [shape],
    )


def folded(terms: int, outputs: int, channels: int) -> Case:
    return Case(
        f"folding of {terms} x {outputs} x {channels}",
        kernels.folded,
        lambda *given: folding.plain(*given, 1e-5),
        [(terms, outputs, channels), (terms,), (terms, channels), (terms, channels, channels)],
    )


CASES = [
    Case("products", lambda x, w: kernels.products(x, w), summed, [(5, 2, 4, 3, 7), (5, 3)]),
    Case("long products", lambda x, w: kernels.products(x, w), summed, [(2, 1030), (2, 2)]),
    Case("one product", lambda x, w: kernels.products(x, w), summed, [(1, 1, 9), (1, 1)]),
    Case(
        "several sums added to others",
        lambda w, x, y, base: kernels.mix(w, [x, y], base),
        mixed,
        [(3, 2), (2, 1, 3, 2, 4), (1, 1, 3, 2, 4), (2, 1, 3, 2, 4)],
    ),
    *convolved(1, 1, 1, (1, 3, 2, 3)),
    *convolved(1, 2, 1, (2, 5, 5, 4)),
    *convolved(3, 1, 1, (2, 20, 5, 4)),
    *convolved(3, 2, 1, (1, 6, 7, 6)),
    *convolved(5, 1, 2, (2, 4, 6, 3)),
    *convolved(3, 2, 2, (1, 3, 4, 5)),
    *convolved(7, 1, 1, (1, 3, 3, 4))[:1],
    moments(1, (1, 3, 2, 2)),
    moments(2, (2, 10, 7, 5)),
    moments(3, (1, 51, 3, 1)),
    folded(3, 5, 4),
    folded(2, 17, 20),
]
"""Sides and channels that are no powers of two, one image, maps smaller than a kernel."""
SMALL = [case for case in CASES if sum(torch.Size(shape).numel() for shape in case.shapes) < 100]
LONG = [(case, 2) for case in CASES if "(2, " in case.name or case.name == "long products"]
ONE_OF_EACH = [CASES[1], *(case for case in CASES if case.name.endswith("(2, 20, 5, 4)"))]
ONE_OF_EACH += [case for case in CASES if case.name.startswith(("moments of 2", "folding of 2"))]
every = pytest.mark.parametrize("case", CASES, ids=str)


def tuple_of(found: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


def derivatives(function: Callable, inputs: list[Tensor], orders: int) -> list[Tensor]:
    """Values, and derivatives of a scalar of them, of every order up to the last."""
    results = [*tuple_of(function(*inputs))]
    shares = [torch.linspace(-1, 1, y.numel(), device=y.device) for y in results]
    # reshape: both forms are weighed in the order of their indices, whatever lies where in memory
    scalar = sum((y.sin().reshape(-1) * w).sum() for y, w in zip(results, shares, strict=True))
    for order in range(orders):
        further = order + 1 < orders
        found = torch.autograd.grad(scalar, inputs, create_graph=further, materialize_grads=True)
        results += found
        scalar = sum((x**3).sum() for x in found)
    return results


def assert_close(ours: list[Tensor], theirs: list[Tensor], digits: float) -> None:
    """Compare tensors, each by its own largest value."""
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        a, b = a.detach().double().cpu(), b.detach().double().cpu()
        assert a.shape == b.shape
        bound = digits * float(b.abs().max())
        torch.testing.assert_close(a, b, rtol=0, atol=bound, msg=lambda m, i=index: f"{i}: {m}")


# By the interpreter, or on a CUDA device ----------------------------------------------------------


@check
@pytest.mark.skipif(not INTERPRETED, reason="float64 is for the interpreter")
@pytest.mark.parametrize(("case", "programs"), [*((case, None) for case in CASES), *LONG], ids=str)
def test_equals_the_plain_form_and_its_derivatives(case, programs, monkeypatch):
    if programs:  # longer loops, as large maps have them
        for module in (sums, convolutions, covariances):
            monkeypatch.setattr(module, "PROGRAMS", programs)
    orders = 3 if case in SMALL else 2
    ours, theirs = (
        derivatives(f, case.inputs(torch.float64), orders) for f in (case.fast, case.plain)
    )
    assert_close(ours, theirs, 1e-12)


@check
@every
def test_float32_is_within_its_rounding(case):
    inputs = case.inputs(torch.float32, "cpu")
    exact = derivatives(case.plain, [x.detach().double().requires_grad_() for x in inputs], 2)
    plain = derivatives(case.plain, inputs, 2)
    ours = derivatives(case.fast, case.inputs(torch.float32), 2)
    for found, rounded, value in zip(ours, plain, exact, strict=True):
        error, bound = ((x.detach().cpu() - value).norm() for x in (found, rounded))
        assert error <= max(3 * bound, 2e-6 * value.norm())


@check
@pytest.mark.parametrize("case", ONE_OF_EACH, ids=str)
def test_repeats_are_equal_to_the_bit(case):
    first, second = (derivatives(case.fast, case.inputs(torch.float32), 2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@check
@pytest.mark.skipif(not INTERPRETED, reason="float64 is for the interpreter")
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_gradients_are_gradients(case):
    inputs = case.inputs(torch.float64)
    assert torch.autograd.gradcheck(case.fast, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(case.fast, inputs, fast_mode=True)


@check
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", [CASES[0], *ONE_OF_EACH[1:4]], ids=str)
def test_half_precision_is_read_and_summed_in_float32(case, kind):
    """Maps are of the type, weights and kernels in float32; a gradient has its argument's type."""
    maps, *others = case.inputs(torch.float32)
    inputs = [maps.detach().to(kind).requires_grad_(), *others]
    results = tuple_of(case.fast(*inputs))
    found = torch.autograd.grad(sum(x.float().sum() for x in results), inputs)
    assert [x.dtype for x in found] == [x.dtype for x in inputs]
    assert all(x.dtype in (kind, torch.float32) for x in results)
    given = [x.detach().double().cpu().requires_grad_() for x in inputs]
    expected = tuple_of(case.plain(*given))
    expected += torch.autograd.grad(sum(x.sum() for x in expected), given)
    assert_close([*results, *found], list(expected), torch.finfo(kind).eps)


@check
@pytest.mark.parametrize("ratio", [1e2, 1e4])
def test_moments_keep_their_digits_where_means_are_large(ratio):
    z = torch.randn(2, 6, 9, 11, dtype=torch.float64) + ratio
    z = z.float().to(DEVICE)
    ours, theirs = kernels.moments(z, 2), plain_moments(z.double().cpu(), 2)
    assert_close(list(ours), list(theirs), 1e-5)


@check
def test_relu_is_that_of_torch_at_zero_and_for_no_number():
    values = torch.tensor([-1.0, 0.0, 2.0, float("nan")], device=DEVICE)
    x = values.view(1, 4, 1, 1).requires_grad_()
    y = kernels.relu_depthwise(x, torch.ones(4, 1, 1, 1, device=DEVICE))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert y[0, :3].flatten().tolist() == [0, 0, 2]
    assert y.isnan().flatten().tolist() == [False, False, False, True]
    assert gradient.flatten().tolist() == [0, 0, 1, 1]


@check
def test_arguments_may_lie_anyhow_in_memory():
    x = torch.randn(2, 5, 4, 6, device=DEVICE)
    kernel = torch.randn(3, 3, 1, 6, device=DEVICE).permute(3, 2, 0, 1)
    ours = kernels.depthwise(x.permute(0, 3, 2, 1), kernel)
    theirs = convolution.depthwise(x.cpu().permute(0, 3, 2, 1), kernel.cpu())
    assert_close([ours], [theirs], 1e-5)
    weights = torch.randn(3, 4, device=DEVICE)[:, ::2]
    maps = torch.randn(4, 3, device=DEVICE).t()
    assert_close([kernels.products(maps, weights)], [summed(maps, weights)], 1e-5)


@check
@pytest.mark.parametrize("shape", [(2, 8, 3, 5), (1, 8, 3, 5), (2, 8, 3, 1), (2, 8, 1, 1)])
def test_channels_of_a_larger_map_are_read_where_they_are(shape):
    whole = torch.randn(shape, device=DEVICE).contiguous(memory_format=torch.channels_last)
    part = whole[:, 2:5]
    laid = Laid.out(part)
    assert laid.map.data_ptr() == part.data_ptr()
    kernel = torch.randn(3, 1, 3, 3, device=DEVICE)
    given = [part.detach().requires_grad_(), kernel.requires_grad_()]
    alike = [x.detach().cpu().clone().requires_grad_() for x in given]
    ours, theirs = kernels.relu_depthwise(*given), convolution.depthwise(alike[0].relu(), alike[1])
    g = torch.randn(shape, device=DEVICE).contiguous(memory_format=torch.channels_last)[:, 4:7]
    ours = [ours, *torch.autograd.grad(ours, given, g)]
    theirs = [theirs, *torch.autograd.grad(theirs, alike, g.cpu())]
    ours += kernels.moments(part, 3)
    theirs += plain_moments(part.detach().cpu(), 3)
    assert_close(ours, theirs, 1e-5)


# In this process, without the interpreter ---------------------------------------------------------


@check
@pytest.mark.skipif(not INTERPRETED, reason="float64 is for the interpreter")
def test_a_supernet_of_kernels_equals_a_plain_one_in_two_derivatives(monkeypatch):
    torch.manual_seed(0)
    net = DARTS.supernet(Size(channels=3, cells=1, classes=3)).double()
    x, y = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.tensor([0, 2])
    weights = {name: p.detach().requires_grad_() for name, p in net.named_parameters()}
    arch = {
        group: torch.rand(shape, dtype=torch.float64, requires_grad=True)
        for group, shape in DARTS.choices.items()
    }
    inputs = [*weights.values(), arch["reduce"]]
    found = []
    for used in (False, True):
        monkeypatch.setattr(kernels, "usable", lambda x, channels=0, used=used: used)
        logits, _ = functional_call(net, weights, (x, ArchWeights(arch)))
        loss = torch.nn.functional.cross_entropy(logits, y)
        first = torch.autograd.grad(loss, inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        found.append([loss, *first, *second])
    assert_close(*found, 1e-9)


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter's process")
def test_the_interpreter_agrees():
    line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__]
    variables = {name: x for name, x in os.environ.items() if not name.startswith("PYTEST_")}
    variables |= {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.slow
@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter's process")
def test_every_kernel_compiles_for_an_h100_and_uses_no_atomic_operation(monkeypatch, tmp_path):
    """Where there is no such card too: the interpreter takes what the compiler refuses."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile
    from triton.runtime.jit import JITFunction

    names = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}
    programs = {}

    def compiled(kernel: JITFunction, *given: object, grid: object, warmup: bool, **options: int):
        signature, constants = {}, {}
        for place, (parameter, value) in enumerate(zip(kernel.params, given, strict=True)):
            pointer = names[value.dtype] if isinstance(value, Tensor) else "i32"
            signature[parameter.name] = "constexpr" if parameter.is_constexpr else pointer
            if parameter.is_constexpr:
                constants[(place,)] = value
        key = kernel.__name__, str(signature), str(constants)
        if key not in programs:
            source = ASTSource(kernel, signature, constants)
            programs[key] = compile(source, GPUTarget("cuda", 90, 32), options).asm["ptx"]

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(JITFunction, "run", compiled)
    for kind in names:
        for case in ONE_OF_EACH:
            maps, *others = case.inputs(torch.float32, "cpu")
            inputs = [maps.detach().to(kind).requires_grad_(), *others]
            results = tuple_of(case.fast(*inputs))
            found = torch.autograd.grad(sum(x.sum() for x in results), inputs, create_graph=True)
            torch.autograd.grad(sum(x.sum() for x in found), inputs, allow_unused=True)
    assert len({name for name, *_ in programs}) == 10
    assert not [name for (name, *_), ptx in programs.items() if re.search(r"\b(atom|red)\.", ptx)]


def test_kernels_are_not_used_on_a_cpu():
    assert not kernels.usable(torch.ones(2))


def test_a_tensor_without_data_is_refused(monkeypatch):
    monkeypatch.setattr(kernels, "_compiles", lambda device: True)
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(2, device="cuda")
    assert x.is_cuda
    assert not kernels.usable(x)


@pytest.mark.parametrize(("setting", "allowed"), [("off", False), ("auto", True)])
def test_the_setting_reaches_the_kernels(setting, allowed, monkeypatch, tmp_path):
    """And what held before holds again, also where the run ends with an error."""
    said: list[bool] = []

    def ended(*given):
        said.append(kernels._allowed[0])
        raise ValueError("an error of the run")

    monkeypatch.setattr(kernels, "_allowed", [not allowed])
    searching, training = Run(kernels=setting), Retrain(kernels=setting)
    genotype, together = resolve("DARTS_V2"), Ensemble((0, 1), (resolve("DARTS_V2"),) * 2)
    for module, name, call in (
        (search, "_searched", lambda: search.search_run(searching, tmp_path)),
        (dry_run, "_measured", lambda: dry_run.dry_run(searching)),
        (retrain, "_retrained", lambda: retrain.retrain(genotype, DATA, training, tmp_path)),
        (
            retrain,
            "_ensemble_retrained",
            lambda: retrain.retrain_ensemble(together, DATA, training, tmp_path),
        ),
    ):
        monkeypatch.setattr(module, name, ended)
        with pytest.raises(ValueError, match="an error of the run"):
            call()
        assert kernels._allowed == [not allowed]
    assert said == [allowed] * 4


def test_another_setting_is_refused():
    with pytest.raises(ValueError, match="kernels = 'on'"):
        Run(kernels="on")


@check
@pytest.mark.skipif(INTERPRETED, reason="needs a CUDA device")
def test_what_is_usable_on_a_gpu():
    x = torch.ones(2, device="cuda")
    assert not kernels.usable(x)
    with kernels.allowed(True):
        assert kernels.usable(x)
        assert kernels.usable(x, 64)
        assert not kernels.usable(x, 65)
        assert not kernels.usable(x.double())
    assert not kernels.usable(x)


@pytest.mark.skipif(TRITON, reason="Triton is there")
def test_without_triton_the_files_can_be_imported_and_nothing_is_usable():
    assert not kernels._compiles(torch.device("cuda"))
    assert kernels.products


def test_a_name_that_is_none_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'convolve'"):
        kernels.convolve  # noqa: B018
