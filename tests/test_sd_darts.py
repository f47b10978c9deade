"""SD-DARTS: what the past of every image teaches."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from toys import CLASSES, INPUTS, ToyBatches, ToyMake, epoch_of
from tutelage.batch import Batch
from tutelage.extras import AfterStep
from tutelage.methods.sd_darts import SDDarts
from tutelage.methods.single import Single
from tutelage.multilevel import hypergradient, search_step
from tutelage.transfer import EPSILON, cross_entropy, distances
from tutelage.trees import leaves
from tutelage.virtual import Exact, FiniteDifference, FirstOrder, Rate
from unrolled import unrolled

FORMS = ("kl", "kl-reverse", "euclidean", "manhattan", "cosine")
RATE = Rate(0.05, 0.9, 3e-4, 5.0)


def test_distances_by_hand():
    teacher = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]], dtype=torch.float64)
    student = torch.tensor([[0.25, 0.25, 0.5], [0.5, 0.25, 0.25]], dtype=torch.float64)
    log2, most = math.log(2), -math.log(EPSILON)
    expected = {
        "kl": [0.25 * log2, -1.5 * log2 + 0.5 * most],
        "kl-reverse": [0.25 * log2, log2],
        "euclidean": [math.sqrt(0.125), math.sqrt(0.25 + 0.125)],
        "manhattan": [0.5, 1.0],
        "cosine": [1 - 0.3125 / 0.375, 1 - 0.5 / math.sqrt(0.375)],
    }
    assert set(expected) == set(FORMS)
    for form, values in expected.items():
        found = distances(form, student.log() + 3, teacher)  # logits: up to a constant
        torch.testing.assert_close(found, torch.tensor(values).double(), rtol=1e-7, atol=1e-9)


def batch_at(train, valid):
    """A batch of images that are functions of their positions."""

    def part(position, shift):
        x = torch.sin(torch.outer(position.double() + shift, torch.arange(1.0, INPUTS + 1)))
        return Batch(x, (position + shift) % CLASSES, position)

    return ToyBatches(part(train, 1), part(valid, 2), part(train, 3))


def taught_for(method, epochs, learners_step=RATE, size=6):
    """A problem whose past is filled by real steps of some epochs, the clock at the next."""
    make = ToyMake(epochs=4)
    problem = method(make)
    variables, velocities = dict(problem.variables), {}

    def move(name, gradient):
        for x, g in zip(leaves(variables[name]), leaves(gradient), strict=True):
            x.sub_(0.1 * g)

    for epoch in range(epochs):
        make.clock.epoch = epoch
        pairs = zip(epoch_of(20, size), epoch_of(20, size), strict=True)
        for train, valid in pairs:
            batch = batch_at(train, valid)
            report = search_step(
                [level for level in problem.levels if level.trains(epoch)],
                variables,
                velocities,
                batch,
                rates={"W": learners_step},
                virtual={"W": learners_step},
                via=FirstOrder(),
                order=problem.order,
                move=move,
            )
            problem.extra(AfterStep).call(variables, batch, report.notes)
    make.clock.epoch = epochs
    return problem, variables


def losses(problem, variables, batch):
    """Value and notes of both levels' losses."""
    return [level.loss(SimpleNamespace(**variables), batch) for level in problem.levels]


def test_nothing_is_taught_in_the_warm_up():
    problem, variables = taught_for(SDDarts(), 1)  # epoch 1 of 4, two of them warm up
    batch = batch_at(torch.arange(5), torch.arange(3, 9))
    assert all(bool((x["count"] == 1).all()) for x in [*variables["P"]["train"]])
    (learn, noted), (validate, seen) = losses(problem, variables, batch)
    assert set(noted) == {"train"} and set(seen) == {"valid"}
    assert torch.equal(learn, cross_entropy(noted["train"][0], batch.train.y))
    assert torch.equal(validate, cross_entropy(seen["valid"][0], batch.valid.y))


@pytest.mark.parametrize("form", FORMS)
def test_both_losses_by_hand(form):
    problem, variables = taught_for(SDDarts(divergence=form, weight=0.7), 2)
    batch = batch_at(torch.tensor([4, 0, 13]), torch.tensor([19, 7]))
    for half, (loss, noted) in zip(
        ("train", "valid"), losses(problem, variables, batch), strict=True
    ):
        part = getattr(batch, half)
        stored = variables["P"][half][0]["probabilities"].double()
        total = 0.0
        for z, y, position in zip(noted[half][0], part.y, part.position, strict=True):
            s, t = z.exp() / z.exp().sum(), (stored[position, :, 0] + stored[position, :, 1]) / 2
            total -= s[y].log()
            total += (
                0.7
                * {
                    "kl": sum(a * math.log(a / b) for a, b in zip(s, t, strict=True)),
                    "kl-reverse": sum(b * math.log(b / a) for a, b in zip(s, t, strict=True)),
                    "euclidean": math.sqrt(sum((a - b) ** 2 for a, b in zip(s, t, strict=True))),
                    "manhattan": sum(abs(a - b) for a, b in zip(s, t, strict=True)),
                    "cosine": 1 - s @ t / math.sqrt((s @ s) * (t @ t)),
                }[form]
            )
        assert float(loss) == pytest.approx(float(total) / len(part.y), rel=1e-12)
        assert float(noted[f"{half}_divergence"]) > 1e-6


def test_an_image_without_a_past_is_not_taught():
    problem, variables = taught_for(SDDarts(), 2)
    variables["P"]["train"][0]["count"][[2, 3]] = 0
    batch = batch_at(torch.tensor([2, 3]), torch.tensor([2, 3]))
    (learn, noted), (_, seen) = losses(problem, variables, batch)
    assert torch.equal(learn, cross_entropy(noted["train"][0], batch.train.y))
    assert float(noted["train_divergence"]) == 0 and float(seen["valid_divergence"]) > 0
    whole = batch_at(torch.tensor([2, 3, 5, 6]), torch.tensor([2, 3]))
    part = torch.tensor([0.0, 0.0, 1.0, 1.0])
    (_, noted), _ = losses(problem, variables, whole)
    past = variables["P"]["train"][0]["probabilities"][[2, 3, 5, 6]].double().mean(2)
    expected = (part * distances("kl", noted["train"][0], past)).sum() / 4
    torch.testing.assert_close(noted["train_divergence"][0], expected)


@pytest.mark.parametrize(
    ("settings", "counts"),
    [
        ({}, [1, 2, 3]),
        ({"warmup": 0.75}, [0, 1, 2]),
        ({"warmup": 0.75, "first_teacher": "growing"}, [0, 0, 1]),
        ({"window": 1}, [0, 1, 2]),
        ({"warmup": 0.0}, [1, 2, 3]),
    ],
)
def test_the_last_epochs_of_the_warm_up_are_recorded(settings, counts):
    for epochs, count in enumerate(counts, start=1):
        _, variables = taught_for(SDDarts(**settings), epochs, size=7)
        for half in ("train", "valid"):
            assert set(variables["P"][half][0]["count"].tolist()) == {count}


def test_answers_are_those_of_the_ordinary_pass():
    """At the weights before the update, after the alphas have moved; of second order too."""
    for via in (FirstOrder(), Exact()):
        make = ToyMake(epochs=2)
        problem = SDDarts(warmup=0.0)(make)
        variables = dict(problem.variables)
        before = [x.clone() for x in leaves(variables["W"])]

        def move(name, gradient, variables=variables):
            for x, g in zip(leaves(variables[name]), leaves(gradient), strict=True):
                x.sub_(g)

        batch = batch_at(torch.arange(6), torch.arange(6))
        settings = {"rates": {"W": RATE}, "virtual": {"W": RATE}, "via": via}
        report = search_step(
            problem.levels, variables, {}, batch, order=problem.order, move=move, **settings
        )
        problem.extra(AfterStep).call(variables, batch, report.notes)
        net = problem.learners[0].net
        names = net.weights().keys()
        z = net(dict(zip(names, before, strict=True)), variables["A"][0], batch.train.x)
        stored = variables["P"]["train"][0]["probabilities"][:6, :, 0]
        torch.testing.assert_close(stored, z.softmax(1).float(), rtol=1e-6, atol=1e-7)


METHODS = [
    SDDarts(),
    SDDarts(learners=2, divergence="kl-reverse", memory="average"),
    SDDarts(divergence="euclidean", memory="weights", order="levels-first"),
    SDDarts(divergence="cosine", memory_dtype="bf16", memory_top=2),
    SDDarts(divergence="manhattan", valid="plain", window=3),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.memory}-{m.divergence}")
def test_hypergradient_equals_the_full_unroll_with_the_past_in_use(method):
    problem, variables = taught_for(method, 3)
    batch = batch_at(torch.arange(2, 9), torch.arange(11, 18))
    found = hypergradient(problem.levels, variables, batch, {"W": RATE}, Exact())
    expected = unrolled(problem.levels, variables, batch, {"W": RATE})
    assert max(float(x.abs().max()) for x in expected) > 0
    for a, b in zip(leaves(found.gradient), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    near = hypergradient(
        problem.levels, variables, batch, {"W": RATE}, FiniteDifference(radius=1e-4)
    )
    for a, b in zip(leaves(near.gradient), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert any(name.endswith("divergence") for noted in found.notes for name in noted)


def test_every_learner_is_taught_by_its_own_past():
    problem, variables = taught_for(SDDarts(learners=2), 2)
    batch = batch_at(torch.arange(5), torch.arange(5))
    first, second = losses(problem, variables, batch)[0][1]["train_divergence"].tolist()
    assert first != second
    variables["P"]["train"][1]["probabilities"].fill_(1 / CLASSES)
    now = losses(problem, variables, batch)[0][1]["train_divergence"].tolist()
    assert now[0] == first and now[1] != second


def test_averaged_weights_answer_the_same_batch():
    problem, variables = taught_for(SDDarts(memory="weights", decay=0.3), 2, size=5)
    assert "P" not in variables
    assert problem.learners[0].averages == (("T", 0),)
    batch = batch_at(torch.arange(5), torch.arange(5))
    (_, noted), _ = losses(problem, variables, batch)
    net = problem.learners[0].net
    z = net(variables["T"][0], variables["A"][0], batch.train.x)
    expected = distances("kl", noted["train"][0], z.softmax(1)).mean()
    torch.testing.assert_close(noted["train_divergence"][0], expected)
    before = [x.clone() for x in leaves(variables["T"])]
    problem.extra(AfterStep).call(variables, batch, [])
    share = 1 - 0.3 ** (5 / 20)  # four steps of 5 are an epoch
    pairs = zip(before, leaves(variables["W"]), leaves(variables["T"]), strict=True)
    for old, now, mean in pairs:
        torch.testing.assert_close(mean, (1 - share) * old + share * now)


def test_before_it_is_wanted_the_averaged_weights_are_the_present_ones():
    _, variables = taught_for(SDDarts(memory="weights", warmup=0.75, window=1), 2)
    pairs = zip(leaves(variables["T"]), leaves(variables["W"]), strict=True)
    assert all(torch.equal(a, b) and a is not b for a, b in pairs)


@pytest.mark.parametrize(
    ("method", "passes"), [(Single(), 2), (SDDarts(), 2), (SDDarts(memory="weights"), 4)]
)
def test_a_step_has_no_further_pass(method, passes):
    make = ToyMake(epochs=2)
    problem, count = method(make), []
    make.clock.epoch = 1
    handle = problem.learners[0].net.module.register_forward_hook(lambda *_: count.append(1))
    batch, variables = batch_at(torch.arange(5), torch.arange(5)), dict(problem.variables)
    name = problem.levels[0].variable
    search_step(
        problem.levels,
        variables,
        {},
        batch,
        rates={name: RATE},
        virtual={name: RATE},
        via=FirstOrder(),
        order=problem.order,
        move=lambda name, gradient: None,
    )
    handle.remove()
    assert len(count) == passes


def test_alphas_may_stand_still_in_the_warm_up():
    problem = SDDarts(warmup_alphas="frozen")(ToyMake(epochs=4))
    names = [[x.variable for x in problem.levels if x.trains(epoch)] for epoch in range(4)]
    assert names == [["W"]] * 2 + [["W", "A"]] * 2


@pytest.mark.parametrize(
    ("settings", "pattern"),
    [
        ({"warmup": 0.9}, "warmup = 0.9 of 4 epochs leaves no epoch"),
        ({"warmup": 1.5}, "warmup = 1.5: must be between 0 and 1"),
        ({"decay": 1.0}, r"decay = 1\.0: must be strictly between"),
        ({"memory_top": 3}, "memory_top = 3 of 3 classes"),
        ({"divergence": "mse"}, "divergence = 'mse': must be one of kl, kl-reverse"),
        ({"window": 0}, "window = 0"),
    ],
)
def test_mistakes_are_refused(settings, pattern):
    with pytest.raises(ValueError, match=pattern):
        SDDarts(**settings)(ToyMake(epochs=4))
