"""EnNAS' step by hand in float64: Eq. 1 to 3 in plain loops, with the weights that scipy finds."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from binding import binder
from test_search import run_toml
from toys import EDGES, OPS, ToyMake, ToyRelaxation, toy_batch
from tutelage.batch import Batch
from tutelage.clock import Clock
from tutelage.data.streams import halves_of
from tutelage.extras import Probe, Share
from tutelage.methods.ennas import EnNAS
from tutelage.multilevel import evaluate, search_step
from tutelage.problem import Net
from tutelage.recipes import read_recipe, recipe_names
from tutelage.run.networks.factory import Maker
from tutelage.run.search import search_run
from tutelage.run.strategies.assemble import joined
from tutelage.run.supernet.penalty import without_alphas
from tutelage.run.supernet.state import Searching
from tutelage.searches.darts import Darts
from tutelage.searches.diverse_paths import DiversePaths
from tutelage.searches.single_path import SinglePath
from tutelage.spaces.base import ArchWeights, Size
from tutelage.spaces.chain import NASBENCH_MACRO
from tutelage.virtual import FirstOrder, Rate

PATHS = ((0, 1), (2, 0), (1, 2), (0, 0))
"""Columns of sub-networks in the two layers of the toy."""


class ToyPaths(ToyRelaxation):
    """Draws the same sub-networks every time."""

    def alphas(self):
        return {}

    def paths(self, count):
        found = []
        for columns in PATHS[:count]:
            weights = torch.zeros(EDGES, OPS, dtype=torch.float64)
            weights[range(EDGES), columns] = 1
            found.append(ArchWeights({"normal": weights}))
        return found


class ToySampling(ToyMake):
    def supernet(self):
        return Net(lambda: self.module().double(), ToyPaths(), self.clock)


def made(method, epoch=5, epochs=10, images=7):
    """A method on toys at a moment of its search: its problem, level, variables and batch."""
    torch.manual_seed(0)
    make = ToySampling()
    make.clock.epoch, make.clock.epochs = epoch, epochs
    problem = without_alphas(method(make))
    (level,) = problem.levels
    return problem, level, problem.variables, toy_batch(images)


def softmax(z):
    exponentials = [z_c.exp() for z_c in z]
    return [e / sum(exponentials) for e in exponentials]


def solved(z, y):
    """Weights of least cross-entropy on the simplex, by scipy."""
    z, y = z.detach().numpy(), y.numpy()

    def loss(w):
        t = np.einsum("m,mbc->bc", w, z)
        return float((np.log(np.exp(t).sum(1)) - t[np.arange(len(y)), y]).mean())

    m = len(z)
    found = minimize(
        loss,
        np.full(m, 1 / m),
        method="SLSQP",
        bounds=[(0, 1)] * m,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    return torch.from_numpy(found.x)


def by_hand(net, W, batch, m, temperature, teaching_weight, w=None):
    """Σ_i CE(z_i, y) + λ τ² KL(p ‖ q_i), image by image and class by class; w, and the teacher."""
    x, y, _ = batch.train
    z = [torch.func.functional_call(net.module, W, (x, path))[0] for path in ToyPaths().paths(m)]
    w = solved(torch.stack(z), y) if w is None else w
    total, teacher = 0, []
    for image, label in enumerate(y.tolist()):
        t = [
            sum(float(w_i) * float(z_i.detach()[image, c]) for w_i, z_i in zip(w, z, strict=True))
            for c in range(z[0].shape[1])
        ]
        teacher.append(t)
        p = [math.exp(t_c / temperature) for t_c in t]
        p = [p_c / sum(p) for p_c in p]
        for z_i in z:
            total = total - softmax(z_i[image])[label].log()
            q = softmax(z_i[image] / temperature)
            taught = sum(p_c * (math.log(p_c) - q_c.log()) for p_c, q_c in zip(p, q, strict=True))
            total = total + teaching_weight * temperature**2 * taught
    return total / len(y), w, torch.tensor(teacher, dtype=torch.float64)


@pytest.mark.parametrize(
    "method",
    [
        EnNAS(students=4),
        EnNAS(students=4, temperature=3.0, teaching_weight=0.7),
        EnNAS(students=3, temperature=0.5, teaching_weight=2.0),
    ],
)
def test_a_step_by_hand(method):
    problem, level, variables, batch = made(method)
    net, W = problem.learners[0].net, variables["W"]
    loss, notes = evaluate(level, variables, batch)
    m, settings = method.students, (method.temperature, method.teaching_weight)
    leaves = {name: x.clone().requires_grad_() for name, x in W.items()}
    expected, w, teacher = by_hand(net, leaves, batch, m, *settings)
    assert float(w.max()) < 0.999 and float(w.min()) > -1e-9  # the ensemble is one
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(notes["teacher"], teacher, rtol=0, atol=1e-4)
    # from here on by our own weights, so that all but the solver is compared to the last digits
    known = torch.linalg.lstsq(notes["students"].flatten(1).T, notes["teacher"].flatten()).solution
    torch.testing.assert_close(known, w, rtol=0, atol=1e-4)
    expected, _, _ = by_hand(net, leaves, batch, m, *settings, w=known)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-11, atol=0)
    gradient = torch.autograd.grad(expected, list(leaves.values()))
    rates = {"W": Rate(0.3)}
    before = {name: x.clone() for name, x in W.items()}
    search_step(
        [level],
        variables,
        {},
        batch,
        rates=rates,
        virtual=rates,
        via=FirstOrder(),
        order=problem.order,
        move=None,
    )
    for (name, x), g in zip(before.items(), gradient, strict=True):
        torch.testing.assert_close(variables["W"][name], x - 0.3 * g, rtol=1e-9, atol=1e-11)


def test_a_clip_is_of_the_sum_and_no_imagenet_recipe_clips():
    """The decision of docs/methods/ennas.md: one step, one gradient."""
    problem, level, variables, batch = made(EnNAS(students=3, warmup=1.0), epoch=0)
    (x, y, _), module = batch.train, problem.learners[0].net.module
    names, each = list(variables["W"]), []
    for path in ToyPaths().paths(3):
        w = {name: value.clone().requires_grad_() for name, value in variables["W"].items()}
        z = torch.func.functional_call(module, w, (x, path))[0]
        loss = torch.nn.functional.cross_entropy(z, y)
        each.append(torch.autograd.grad(loss, list(w.values()), materialize_grads=True))
    whole = [sum(same) for same in zip(*each, strict=True)]
    length = sum(float(g.square().sum()) for g in whole) ** 0.5
    before = {name: value.clone() for name, value in variables["W"].items()}
    rates = {"W": Rate(0.3, clip=length / 2)}
    search_step(
        [level],
        variables,
        {},
        batch,
        rates=rates,
        virtual=rates,
        via=FirstOrder(),
        order=problem.order,
        move=None,
    )
    for name, g in zip(names, whole, strict=True):
        expected = before[name] - 0.3 * g / 2
        torch.testing.assert_close(variables["W"][name], expected, rtol=1e-5, atol=1e-7)
    rows = [x for x in recipe_names() if x.endswith("imagenet") and not x.startswith("pc")]
    assert len(rows) == 18
    assert all(read_recipe(name)[0]["weights"]["clip"] == 0 for name in rows)


def test_the_mean_ensemble_by_hand():
    method = EnNAS(students=3, ensemble="mean", temperature=2.0)
    problem, level, variables, batch = made(method)
    loss, _ = evaluate(level, variables, batch)
    mean = torch.full((3,), 1 / 3)
    expected, _, _ = by_hand(problem.learners[0].net, variables["W"], batch, 3, 2.0, 1.0, mean)
    torch.testing.assert_close(loss, expected, rtol=1e-7, atol=0)  # 1 / 3 in float32


def test_weights_of_any_sign_fit_the_batch_better_where_one_would_be_negative():
    fits = {}
    for sign in ("nonnegative", "any"):
        _, level, variables, batch = made(EnNAS(students=2, sign=sign))
        teacher = evaluate(level, variables, batch)[1]["teacher"]
        fits[sign] = float(torch.nn.functional.cross_entropy(teacher, batch.train.y))
    assert fits["any"] < fits["nonnegative"] - 1e-3


@pytest.mark.parametrize(
    ("warmup", "epochs", "first"), [(1 / 6, 120, 20), (1 / 6, 6, 1), (0.0, 5, 0), (1.0, 5, 5)]
)
def test_the_ensemble_teaches_from_its_epoch_on(warmup, epochs, first):
    method = EnNAS(students=2, warmup=warmup)
    for epoch in {0, max(0, first - 1), min(first, epochs - 1), epochs - 1}:
        problem, level, variables, batch = made(method, epoch, epochs)
        loss, notes = evaluate(level, variables, batch)
        weight = float(epoch >= first)
        net = problem.learners[0].net
        expected, _, _ = by_hand(net, variables["W"], batch, 2, 1.0, weight)
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
        assert notes["teacher"].shape == (7, 3)  # it is shown from the start


def test_a_single_student_learns_alone():
    method = EnNAS(students=1, warmup=0.0, teaching_weight=5.0)
    problem, level, variables, batch = made(method)
    loss, notes = evaluate(level, variables, batch)
    net = problem.learners[0].net
    expected, _, _ = by_hand(net, variables["W"], batch, 1, 1.0, 0.0, torch.ones(1))
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    assert torch.equal(notes["teacher"], notes["students"][0])
    assert problem.extra(Share).of_images == 1


def test_the_teacher_is_fitted_to_some_images_and_judged_by_others():
    problem, _, variables, batch = made(EnNAS(students=3))
    fitted, judged = batch.train, batch.valid
    assert "their ensemble" in problem.extra(Probe).teacher
    taught = problem.extra(Probe).ask(variables, fitted, judged)
    module, W = problem.learners[0].net.module, variables["W"]
    z = [
        torch.stack([torch.func.functional_call(module, W, (part.x, p))[0] for p in paths])
        for part, paths in ((fitted, ToyPaths().paths(3)), (judged, ToyPaths().paths(3)))
    ]
    torch.testing.assert_close(taught.students, z[1])
    expected = torch.einsum("m,mbc->bc", solved(z[0], fitted.y), z[1])
    torch.testing.assert_close(taught.teacher, expected, rtol=0, atol=1e-4)


# One at a time ----------------------------------------------------------------------------------


def on_a_chain(one_at_a_time, search, images=8):
    """EnNAS in float64 on a small chain: loss, gradient, and bytes that the forward pass keeps."""
    torch.manual_seed(2)
    maker = Maker(
        binder(search), [NASBENCH_MACRO], Size(2, 8, 3), Clock(), 1, torch.device("cpu"), None
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        problem = EnNAS(students=3, warmup=0.0, one_at_a_time=one_at_a_time)(maker)
        W = {name: x.requires_grad_() for name, x in problem.variables["W"].items()}
    finally:
        torch.set_default_dtype(before)
    x = torch.randn(images, 3, 16, 16, dtype=torch.float64)
    part = Batch(x, torch.randint(3, (images,)), torch.arange(images))
    held = {}

    def keep(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    level = problem.levels[0]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = level.loss(SimpleNamespace(W=W), SimpleNamespace(train=part))
    owned = {x.untyped_storage().data_ptr() for x in W.values()}
    kept = sum(count for pointer, count in held.items() if pointer not in owned)
    gradient = torch.autograd.grad(loss, list(W.values()), allow_unused=True)
    return loss, dict(zip(W, gradient, strict=True)), kept


@pytest.mark.parametrize("search", [DiversePaths(), SinglePath()], ids=["diverse", "single"])
def test_one_at_a_time_is_all_at_once_in_less_memory(search):
    loss, gradient, kept = on_a_chain(False, search)
    alone, gradient_alone, kept_alone = on_a_chain(True, search)
    torch.testing.assert_close(alone, loss, rtol=1e-12, atol=0)
    for name, g in gradient.items():
        if g is None:
            assert gradient_alone[name] is None
        else:
            torch.testing.assert_close(gradient_alone[name], g, rtol=1e-12, atol=1e-12)
    assert any(g is not None and g.abs().max() > 0 for g in gradient.values())
    assert kept_alone < kept / 20


# What is refused, and how many steps there are ----------------------------------------------------


def sampled(search, **settings):
    """Settings of EnNAS on digits."""
    space = {"name": "nasbench-macro"}
    return run_toml("ennas", search={"name": search}, space=space, cells=None, **settings)


def make_with(search):
    return Maker(
        binder(search), [NASBENCH_MACRO], Size(2, 8), Clock(), 1, torch.device("cpu"), None
    )


@pytest.mark.parametrize(
    ("method", "search", "message"),
    [
        (
            EnNAS(),
            Darts(),
            "this search samples no sub-networks, .* --search diverse-paths or single",
        ),
        (EnNAS(students=4), DiversePaths(), "4 sub-networks in a layer of 3 operations"),
    ],
)
def test_what_does_not_fit_is_refused(method, search, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        method(make_with(search))
    assert "\n" not in str(caught.value)
    name = {Darts: "darts", DiversePaths: "diverse-paths"}[type(search)]
    with pytest.raises(ValueError, match=message):
        search_run(sampled(name), tmp_path / "run")
    assert not list(tmp_path.iterdir())
    assert EnNAS(students=4)(make_with(SinglePath())).extra(Share).of_images == 1 / 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"students": 0}, "students = 0: must be a number of at least 1"),
        ({"temperature": 0.0}, r"temperature = 0\.0: must be a number above 0"),
        ({"teaching_weight": -1.0}, r"teaching_weight = -1\.0"),
        ({"warmup": 1.5}, r"warmup = 1\.5: must be between 0 and 1"),
        ({"share": -0.1}, r"share = -0\.1: must be between 0 and 1"),
        ({"ensemble": "best"}, "ensemble = 'best': must be one of optimal, mean"),
        ({"sign": "negative"}, "sign = 'negative': must be one of nonnegative, any"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EnNAS(**settings)


@pytest.mark.parametrize(
    ("settings", "batch_size", "steps"),
    [
        ({"students": 3}, 20, 10),  # a third of 30
        ({"students": 2, "share": 1.0}, 20, 30),
        ({"students": 2, "share": 0.28}, 24, 7),  # 0.28 * 25 is a little more than 7
        ({"students": 3}, 30, 7),  # a third of 20, rounded up
        ({"students": 3, "share": 0.001}, 30, 1),
    ],
)
def test_an_epoch_goes_through_a_share_of_the_images(settings, batch_size, steps):
    """Of 599 images, the half that trains weights."""
    own = sampled("diverse-paths", batch_size=batch_size, limit_batches=None)
    own = replace(own, method={"name": "ennas", **settings})
    parts = joined(own)
    setup = parts.setup(halves_of(own, parts.train))
    assert Searching(setup, parts.strategy(setup)).steps == steps
