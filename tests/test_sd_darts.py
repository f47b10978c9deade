"""SD-DARTS: what is remembered of every image, what it teaches, and the sharpness it is about."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from test_search import KilledError, killed_at, run_toml, same_runs
from toys import CLASSES, INPUTS, ToyBatch, ToyMake
from tutelage.methods.past import Past
from tutelage.methods.sd_darts import SDDarts
from tutelage.methods.single import Single
from tutelage.multilevel import hypergradient, search_step
from tutelage.problem import Part
from tutelage.report.plots import learner_lines
from tutelage.report.read import read_run
from tutelage.report.sections import learning
from tutelage.report.watched import collapse
from tutelage.run import checkpoint
from tutelage.run.dry import dry_run
from tutelage.run.probes import accuracy, sharpness
from tutelage.run.search import search_run
from tutelage.run.watch import gap
from tutelage.searches.darts import Darts
from tutelage.spaces.base import Mix, Size, one_hot
from tutelage.spaces.cells import DARTS
from tutelage.transfer import EPSILON, cross_entropy, distances
from tutelage.virtual import Exact, FiniteDifference, FirstOrder, Rate, leaves
from unrolled import unrolled

CPU = torch.device("cpu")
FORMS = ("kl", "kl-reverse", "euclidean", "manhattan", "cosine")
RATE = Rate(0.05, 0.9, 3e-4, 5.0)


def probabilities(images, classes=CLASSES):
    return (2 * torch.randn(images, classes, dtype=torch.float64)).softmax(1)


def epoch_of(images, size):
    """Shuffled positions in batches, the last one partial."""
    return torch.randperm(images).split(size)


# The past ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 4])
def test_a_row_is_the_mean_of_the_last_recorded_ones(window):
    """Under shuffling, partial batches, and epochs that leave images out."""
    past = Past(11, CLASSES, window, CPU)
    stored, seen = past.empty(), {image: [] for image in range(11)}
    for epoch in range(6):
        batches = epoch_of(11, 4)
        for position in batches[: 2 if epoch % 2 else None]:
            rows = probabilities(len(position))
            past.record(stored, position, rows)
            for image, row in zip(position.tolist(), rows.float().tolist(), strict=True):
                seen[image].append(row)
        shuffled = torch.randperm(11)
        found, known = past.mean(stored, shuffled, rows)
        for image, row, there in zip(shuffled.tolist(), found, known, strict=True):
            last = torch.tensor(seen[image][-window:], dtype=torch.float64)
            assert bool(there) == bool(seen[image])
            expected = last.mean(0) if len(last) else torch.zeros(CLASSES, dtype=torch.float64)
            torch.testing.assert_close(row, expected, rtol=1e-12, atol=0)
    assert {len(rows) for rows in seen.values()} != {6}  # some epochs did leave some out


def test_a_decayed_average_weighs_every_answer_by_its_age():
    past = Past(3, CLASSES, 2, CPU, decay=0.75)
    stored, rows = past.empty(), [probabilities(3) for _ in range(4)]
    assert stored["probabilities"].shape == (3, CLASSES, 1)
    for each in rows:
        past.record(stored, torch.arange(3), each)
    weights = [0.75**3, 0.25 * 0.75**2, 0.25 * 0.75, 0.25]  # the first one starts the average
    expected = sum(w * row for w, row in zip(weights, rows, strict=True))
    found, _ = past.mean(stored, torch.arange(3), rows[0])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_bf16_keeps_three_digits_in_half_the_memory():
    whole, half = (Past(50, 10, 2, CPU, dtype=x) for x in (torch.float32, torch.bfloat16))
    rows, stored = probabilities(50, 10), half.empty()
    half.record(stored, torch.arange(50), rows)
    found, _ = half.mean(stored, torch.arange(50), rows)
    assert not torch.equal(found, rows)
    torch.testing.assert_close(found, rows, rtol=2**-8, atol=0)
    assert whole.bytes == 50 * (10 * 2 * 4 + 4) and half.bytes == 50 * (10 * 2 * 2 + 4)


def test_some_classes_are_kept_and_the_others_are_even():
    past = Past(2, 5, 2, CPU, top=2, dtype=torch.float32)
    stored = past.empty()
    first = torch.tensor([[0.5, 0.25, 0.125, 0.125, 0.0], [0.0, 0.0, 0.25, 0.75, 0.0]])
    second = torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.0, 0.0, 0.0]])
    past.record(stored, torch.tensor([0, 1]), first)
    past.record(stored, torch.tensor([1, 0]), second[[1, 0]])
    found, _ = past.mean(stored, torch.tensor([0, 1]), first.double())
    one = torch.tensor([0.5, 0.25, 1 / 12, 1 / 12, 1 / 12], dtype=torch.float64)
    torch.testing.assert_close(found[0], (one + second[0]) / 2, rtol=0, atol=1e-7)
    torch.testing.assert_close(found[1], ((first + second)[1] / 2).double(), rtol=0, atol=1e-7)
    torch.testing.assert_close(found.sum(1), torch.ones(2).double(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("past", [Past(7, 5, 3, CPU), Past(7, 5, 3, CPU, top=2, decay=0.5)])
def test_the_memory_that_is_told_is_that_of_the_tensors(past):
    assert past.bytes == sum(x.numel() * x.element_size() for x in past.empty().values())


def test_more_than_memory_holds_is_refused_with_what_takes_less():
    with pytest.raises(ValueError, match=r"takes 3\.\d+ GiB|takes [\d,]+\.\d GiB.*memory-top"):
        Past(10**12, 1000, 2, CPU).empty()


# What it teaches --------------------------------------------------------------------------------


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
        return Part(x, (position + shift) % CLASSES, position)

    return ToyBatch(part(train, 1), part(valid, 2), part(train, 3))


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
            problem.after_step(variables, batch, report.notes)
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
        problem.after_step(variables, batch, report.notes)
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
    problem.after_step(variables, batch, [])
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
        ({"warmup": 0.9}, "warmup = 0.9 of 4 epochs leaves none"),
        ({"warmup": 1.5}, "warmup = 1.5: must lie between 0 and 1"),
        ({"decay": 1.0}, r"decay = 1\.0: must lie strictly between"),
        ({"memory_top": 3}, "memory_top = 3 of 3 classes"),
        ({"divergence": "mse"}, "divergence = 'mse': must be one of kl, kl-reverse"),
        ({"window": 0}, "window = 0"),
    ],
)
def test_mistakes_are_refused(settings, pattern):
    with pytest.raises(ValueError, match=pattern):
        SDDarts(**settings)(ToyMake(epochs=4))


# In a search ------------------------------------------------------------------------------------


def settings(**changed):
    """Whole epochs of the digits in three steps; the last two of four are taught."""
    own = {
        "method": {"name": "sd-darts"},
        "limit_batches": None,
        "batch_size": 256,
        "epochs": 4,
        "space": {"name": "nasbench201"},
        "cells": 1,
        "save_every": 0.0,
    }
    base = run_toml(**{name: x for name, x in (own | changed).items() if name != "method"})
    return replace(base, method=(own | changed)["method"])


def rows(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


KINDS = [
    {},
    {"memory_device": "host", "memory_dtype": "bf16", "memory_top": 3},
    {"memory": "average", "learners": 2},
    {"memory": "weights"},
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_killed_and_resumed_equals_uninterrupted_with_the_past_in_use(kind, tmp_path, monkeypatch):
    asked = settings(method={"name": "sd-darts", **kind})
    search_run(asked, tmp_path / "whole")
    for step in (4, 3, 4):  # of 3 in an epoch: while it records, when it has begun to teach
        with monkeypatch.context() as patch, pytest.raises(KilledError):
            killed_at(patch, step)
            search_run(asked, tmp_path / "killed", resume=(tmp_path / "killed").exists())
    search_run(asked, tmp_path / "killed", resume=True)
    same_runs(tmp_path / "whole", tmp_path / "killed")
    epochs = [row["learners"][0] for row in rows(tmp_path / "whole") if row["event"] == "epoch"]
    for half in ("train", "valid"):
        taught = [f"{half}_divergence" in marks for marks in epochs]
        assert taught == [False, False, True, True]
        assert all(marks[f"{half}_divergence"] > 0 for marks in epochs[2:])
    stored = checkpoint.load(tmp_path / "whole")["work"]["variables"]
    if "memory" not in kind:
        assert {x["count"].amin().item() for x in stored["P"]["train"]} == {4}


@pytest.mark.parametrize("memory", ["window", "weights"])
def test_the_past_goes_on_into_a_wider_phase(memory, tmp_path):
    asked = settings(
        method={"name": "sd-darts", "memory": memory},
        search={
            "name": "drnas",
            "progressive": True,
            "operations": 1,
            "partial": 2,
            "partial_end": 1,
        },
        channels=4,
        epochs=2,
    )
    search_run(asked, tmp_path / "run")
    stored = checkpoint.load(tmp_path / "run")["work"]["variables"]
    if memory == "window":
        assert stored["P"]["train"][0]["count"].tolist() == [2] * 599
    else:
        shapes = [[x.shape for x in leaves(stored[name])] for name in ("T", "W")]
        assert shapes[0] == shapes[1]
    (_, second) = [row for row in rows(tmp_path / "run") if row["event"] == "epoch"]
    assert second["phase"] == 1 and second["learners"][0]["train_divergence"] > 0


def test_the_size_is_told_before_the_run(tmp_path, capsys):
    asked = settings(limit_batches=1, epochs=2)
    search_run(asked, tmp_path / "run")
    said = "answers to 599 and 599 images are kept, 2 x 10 probabilities each: 0.1 MB on cpu"
    assert capsys.readouterr().out.startswith(said)
    assert f"of the method  {said}" in dry_run(asked).as_text()


# Sharpness --------------------------------------------------------------------------------------


def test_sharpness_of_a_quadratic_by_hand():
    """L = a² + 2 b² at (3, 2): its gradient (6, 8) has norm 10, so the step is (0.06, 0.08)."""

    def loss(alphas):
        return alphas["x"].square().sum() + 2 * alphas["y"].square().sum()

    at = {"x": torch.tensor([3.0]).double(), "y": torch.tensor([[2.0]]).double()}
    rise = 3.06**2 + 2 * 2.08**2 - 17
    assert sharpness(loss, at, 0.1) == pytest.approx(rise, rel=1e-12)
    assert sharpness(lambda a: 0 * loss(a), at, 0.1) == 0
    assert sharpness(lambda a: a["x"].new_ones(()), at, 0.1) == 0


def test_sharpness_sees_the_same_draws_and_leaves_the_generators():
    alphas = torch.tensor([1.0, 2.0], dtype=torch.float64)
    before = torch.get_rng_state()
    found = sharpness(lambda a: a.sum() + 100 * torch.randn(()), alphas, 0.5)
    assert found == pytest.approx(0.5 * math.sqrt(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_gap_of_a_one_hot_mix_is_zero_and_else_counts_images():
    supernet = DARTS.supernet(Size(channels=2, cells=3, image_channels=1))
    genotype = Darts().derive(DARTS, Darts().alphas(DARTS))
    x, y = torch.randn(12, 1, 8, 8), torch.randint(10, (12,))
    parts = [Part(x[:7], y[:7], y[:7]), Part(x[7:], y[7:], y[7:])]
    chosen = one_hot(DARTS, genotype, like=x)
    plain = Mix(chosen.operations)  # all operations run, most of them weighted 0

    def logits(mix):
        return lambda images: supernet(images, mix)[0]

    assert gap(logits(plain), logits(chosen), lambda: parts)["gap"] == 0
    right = torch.eye(10)[y]
    wrong = torch.eye(10)[torch.cat([y[:9], y[9:] + 1]) % 10]
    answers = {
        id(part.x): slice(start, start + len(part.y))
        for start, part in ((0, parts[0]), (7, parts[1]))
    }
    found = gap(
        lambda images: right[answers[id(images)]],
        lambda images: wrong[answers[id(images)]],
        lambda: parts,
    )
    assert found == {"gap": 0.25, "one_hot_accuracy": 0.75}
    assert accuracy(lambda images: right[answers[id(images)]], parts) == 1


def test_a_search_logs_sharpness_and_gap_every_so_many_epochs(tmp_path):
    asked = settings(
        method={"name": "single"}, epochs=2, sharpness_every=2, gap_every=1, limit_batches=2
    )
    search_run(asked, tmp_path / "run")
    search_run(run_toml(space=asked.space, cells=1, batch_size=256), tmp_path / "plain")
    first, second = (
        row["collapse"][0] for row in rows(tmp_path / "run") if row["event"] == "epoch"
    )
    assert first["sharpness"] is None and second["sharpness"] > 0
    for each in (first, second):
        assert -1 <= each["gap"] <= 1 and 0 <= each["one_hot_accuracy"] <= 1
    one, two = rows(tmp_path / "run"), rows(tmp_path / "plain")
    assert [row.get("loss") for row in one] == [row.get("loss") for row in two]  # nothing moves
    plain = next(row for row in two if row["event"] == "epoch")["collapse"][0]
    assert plain["gap"] is None and plain["eigenvalue"] is None


def test_the_warm_up_is_darts_to_the_bit_and_the_report_draws_what_follows(tmp_path):
    asked = settings(epochs=2, sharpness_every=1, gap_every=1)
    search_run(asked, tmp_path / "past")
    search_run(replace(asked, method={"name": "single"}), tmp_path / "single")
    (past, taught), (single, plain) = (
        [row for row in rows(tmp_path / name) if row["event"] == "epoch"]
        for name in ("past", "single")
    )
    same = ("loss", "learners", "mix", "collapse", "gradient")
    assert [past[name] for name in same] == [single[name] for name in same]
    assert taught["loss"] != plain["loss"]
    stage = read_run(tmp_path / "past").search
    assert [line.y[0] == line.y[0] for line in learner_lines(stage, "divergence")] == [False] * 2
    captions = [each.caption for each in (*learning(stage), *collapse(stage))]
    for drawn in ("Divergence of every learner", "Sharpness", "Discretisation gap"):
        assert any(caption.startswith(drawn) for caption in captions)
    assert not any(
        "Divergence" in x.caption for x in learning(read_run(tmp_path / "single").search)
    )
