"""Learning rates of the recipes, epoch by epoch and step by step, against the releases' rules.

Each rule is a plain loop over epochs and steps as the release's training script has it: `release`
below names the script. A rule yields the rate of every step.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest

from test_search import TINY, work_of
from tutelage.config import Retrain, Run, Weights
from tutelage.methods.single import Single
from tutelage.multilevel import Level
from tutelage.parts import from_table, make_part
from tutelage.recipes import read_recipe, recipe_names
from tutelage.run.supernet.phase import PhaseState
from tutelage.run.supernet.setup import stretches
from tutelage.run.training.optimizer import rate
from tutelage.run.training.training import Training
from tutelage.searches.needs import fit

STEPS = 3
"""Steps of an epoch in these tests."""
OURS = ("digits-demo", "digits-study", "ennas-digits")
"""Recipes that follow no release."""


def half_cosine(gone):
    return (1 + math.cos(math.pi * gone)) / 2


# Rules of searches ------------------------------------------------------------------------------


def darts(lr, lr_min, epochs):
    """quark0/darts, PC-DARTS, DARTS-, SGL: CosineAnnealingLR stepped once an epoch.

    Also what xiangning-chen/DrNAS asks for, over both of its phases.
    """
    for epoch in range(epochs):
        for _ in range(STEPS):
            yield lr_min + (lr - lr_min) * half_cosine(epoch / epochs)


def pdarts(lr):
    """chenxin061/pdarts train_search.py: three stages, each with a schedule of 25 epochs."""
    for _ in range(3):
        yield from darts(lr, 0.0, 25)


def autodl(lr, eta_min, epochs):
    """D-X-Y/AutoDL-Projects and salesforce/PR-DARTS, whose scheduler is a copy of it.

    `update(epoch, 0.0)` before an epoch, `update(None, step / steps)` before a step. The cosine
    reads the epoch alone; only a warm-up, which no recipe has, reads the share of the epoch.
    """
    scheduler = SimpleNamespace(epoch=0, share=0.0)
    for epoch in range(epochs):
        scheduler.epoch = epoch
        for step in range(STEPS):
            scheduler.share = step / STEPS
            yield eta_min + (lr - eta_min) * half_cosine(scheduler.epoch / epochs)


def pcdarts_imagenet_search():
    """yuhuixu1993/PC-DARTS train_search_imagenet.py, batches of more than 256."""
    lr, epochs = 0.5, 50
    for epoch in range(epochs):
        current = lr * half_cosine(epoch / epochs)
        if epoch < 5:
            current = lr * (epoch + 1) / 5.0
        for _ in range(STEPS):
            yield current


def spos(lr, epochs):
    """megvii-model/SinglePathOneShot: a line over iterations; Cream's supernet too, for lr = 1."""
    total = epochs * STEPS
    for iteration in range(total):
        yield lr * (1.0 - iteration / total)


SEARCHES = [
    (r"(darts[12]|darts-minus|sd-darts)-cifar100?", lambda: darts(0.025, 0.001, 50)),
    (r"(pamkd|lbt)-(darts[12]|s1)-cifar100?(-release)?", lambda: darts(0.025, 0.001, 50)),
    (r"sgl-darts(-minus)?-cifar100?(-release)?", lambda: darts(0.025, 0.001, 50)),
    (r"((pamkd|lbt|sgl)-)?pdarts-cifar100?", lambda: pdarts(0.025)),
    (r"(pamkd-)?pcdarts-(cifar100?|nasbench201)", lambda: darts(0.1, 0.0, 50)),
    (r"(lbt|sgl)-pcdarts-cifar100?", lambda: darts(0.025, 0.0, 50)),
    (r"pcdarts-imagenet", pcdarts_imagenet_search),
    (r"drnas-cifar100?", lambda: darts(0.1, 0.0, 50)),
    (r"(pamkd-)?drnas-nasbench201(-progressive)?", lambda: darts(0.025, 0.001, 100)),
    (r"(darts[12]|darts-minus|sd-darts)-nasbench201", lambda: autodl(0.025, 0.001, 50)),
    (r"gdas-(cifar100?|nasbench201)", lambda: autodl(0.025, 0.001, 250)),
    (r"prdarts-cifar100?", lambda: autodl(0.025, 0.001, 200)),
    (r"pamkd-prdarts-cifar100?", lambda: autodl(0.025, 0.001, 50)),
    (r"(spos|cream|dna|ennas(-[a-z]+)?)-(s[123]-)?imagenet", lambda: spos(0.5, 120)),
    (r"(spos|cream|ennas(-[a-z]+)?)-nasbench-macro", lambda: spos(0.125, 120)),
]


# Rules of retrainings ---------------------------------------------------------------------------


def evaluation(lr, epochs):
    """quark0/darts and all after it, NAS-Bench-201, xiusu/NAS-Bench-Macro: a cosine by epoch."""
    yield from darts(lr, 0.0, epochs)


def adjust_lr(lr, epoch, epochs):
    """The line of chenxin061/pdarts, which falls less in the last five epochs."""
    if epochs - epoch > 5:
        return lr * (epochs - 5 - epoch) / (epochs - 5)
    return lr * (epochs - epoch) / ((epochs - 5) * 5)


def pcdarts_imagenet():
    """yuhuixu1993/PC-DARTS and xiangning-chen/DrNAS train_imagenet.py, batches above 256."""
    lr, epochs = 0.5, 250
    for epoch in range(epochs):
        current = adjust_lr(lr, epoch, epochs)
        if epoch < 5:
            current = lr * (epoch + 1) / 5.0
        for _ in range(STEPS):
            yield current


def pdarts_imagenet():
    """chenxin061/pdarts, DARTS-, PR-DARTS, SGL-darts train_imagenet.py, batches above 256."""
    lr, epochs = 0.5, 250
    for epoch in range(epochs):
        current = adjust_lr(lr, epoch, epochs)
        if epoch < 5:
            current = current * (epoch + 1) / 5.0
        for _ in range(STEPS):
            yield current


def timm(lr, first, epochs, warm_up, every, factor):
    """StepLRScheduler of timm 0.1.20, stepped by microsoft/Cream and changlin31/DNA per epoch."""
    for epoch in range(epochs):
        current = lr * factor ** (epoch // every)
        if epoch < warm_up:
            current = first + epoch * (lr - first) / warm_up
        for _ in range(STEPS):
            yield current


RETRAININGS = [
    (r".*-nasbench201(-progressive)?", lambda: evaluation(0.1, 200)),
    (r".*-nasbench-macro", lambda: evaluation(0.1, 50)),
    (r"pcdarts-imagenet", pcdarts_imagenet),
    (r"spos-imagenet", lambda: spos(0.5, 240)),
    (r".*-s[123]-imagenet", lambda: timm(0.064, 1e-6, 500, 3, 2.4, 0.973)),
    (r".*-cifar100?(-release)?", lambda: evaluation(0.025, 600)),
]


# Ours -------------------------------------------------------------------------------------------


def rule_of(name, rules):
    (found,) = [rule for pattern, rule in rules if re.fullmatch(pattern, name)]
    return list(found())


def of_search(settings, level=None):
    """The rate of every step of a search, by the phases of its search."""
    search, space = make_part("search", settings.search), make_part("space", settings.space)
    phases = search.needs(fit(search, space)).phases
    level = level or Level("w", lambda s, batch: None)
    for stretch in stretches(phases, settings.epochs):
        phase = PhaseState(stretch, [], [], [], None, {}, {})
        for epoch in range(stretch.start, stretch.start + stretch.epochs):
            for step in range(STEPS):
                yield phase.rate(level, settings.weights, epoch, step / STEPS).lr


def of_retraining(settings):
    for epoch in range(settings.epochs):
        for step in range(STEPS):
            now = SimpleNamespace(settings=settings, epoch=epoch, step=step, steps=STEPS)
            yield Training.rate(now)


def recipe(name):
    return from_table(Run, read_recipe(name)[0], "a recipe")


@pytest.mark.parametrize("name", [name for name in recipe_names() if name not in OURS])
def test_the_search_of_a_recipe_has_its_releases_rates(name):
    assert list(of_search(recipe(name))) == pytest.approx(rule_of(name, SEARCHES), rel=1e-12)


@pytest.mark.parametrize("name", [name for name in recipe_names() if name not in OURS])
def test_the_retraining_of_a_recipe_has_its_releases_rates(name):
    settings = recipe(name).retrain
    found, expected = list(of_retraining(settings)), rule_of(name, RETRAININGS)
    assert found == pytest.approx(expected, rel=1e-12)


def test_learners_of_sgls_release_have_schedules_of_their_own():
    """V's cosine has all epochs; W's has the 45 after the first five, which train V alone."""
    settings = recipe("sgl-darts-cifar10-release")
    w = Level("W", lambda s, batch: None, epochs=range(5, 50))
    v = Level("V", lambda s, batch: None)
    assert list(of_search(settings, v)) == pytest.approx(list(darts(0.025, 0.001, 50)), rel=1e-12)
    assert list(of_search(settings, w))[5 * STEPS :] == pytest.approx(
        list(darts(0.025, 0.001, 45)), rel=1e-12
    )


def test_lbts_release_has_no_schedule_for_its_student():
    """abhibha1807/learning-by-teaching LBT-DARTS/arch_search.py: one scheduler, the teacher's."""
    student = Level("S", lambda s, batch: None, schedule="constant")
    found = set(of_search(recipe("lbt-darts2-cifar10-release"), student))
    warmed = replace(recipe("lbt-darts2-cifar10-release"), weights=Weights(warm_up=5))
    assert found == set(of_search(warmed, student)) == {0.025}


def test_the_warm_up_of_pdarts_is_a_share_of_its_line():
    settings = Retrain(
        epochs=250, lr=0.5, schedule="linear", linear_tail=5, warm_up=5, warm_up_rule="scaled"
    )
    found = list(of_retraining(settings))
    assert found == pytest.approx(list(pdarts_imagenet()), rel=1e-12)
    assert found[STEPS] == 0.5 * 244 / 245 * 2 / 5


def test_dnas_retraining_and_darts_on_imagenet():
    """changlin31/DNA retraining/run_example.sh; quark0/darts train_imagenet.py: x 0.97 an epoch."""
    dna = Retrain(
        epochs=500,
        lr=0.064,
        schedule="step",
        step_factor=0.963,
        step_epochs=3,
        warm_up=5,
        warm_up_lr=1e-4,
    )
    found = list(of_retraining(dna))
    assert found == pytest.approx(list(timm(0.064, 1e-4, 500, 5, 3, 0.963)), rel=1e-12)
    darts_v2 = Retrain(epochs=250, lr=0.1, schedule="step", step_factor=0.97, step_epochs=1)
    expected = [0.1 * 0.97**epoch for epoch in range(250) for _ in range(STEPS)]
    assert list(of_retraining(darts_v2)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("tail", [0, 1, 5])
def test_a_line_with_a_tail_falls_between_epochs_too(tail):
    """By steps it never rises, jumps by no more than one step of the line, and ends at 0."""
    settings = Retrain(epochs=20, lr=1.0, schedule="linear", linear_tail=tail)
    found = [rate(settings, i / 8) for i in range(20 * 8 + 1)]
    falls = [before - after for before, after in pairwise(found)]
    assert found[0] == 1.0 and found[-1] == 0.0
    assert min(falls) >= -1e-12 and max(falls) <= 1 / (20 - tail) / 8 + 1e-12
    if tail:
        whole = [rate(settings, epoch) for epoch in range(20)]
        line = 20 - tail
        by_hand = [1 - e / line if e < line else (20 - e) / (line * tail) for e in range(20)]
        assert whole == pytest.approx(by_hand, abs=1e-12)


def test_warm_ups_by_shares_do_not_change_within_an_epoch_nor_exceed_the_rate():
    settings = Retrain(epochs=9, lr=1.0, warm_up=2.5, warm_up_rule="shares", anneal="step")
    found = [rate(settings, epoch) for epoch in (0, 0.9, 1, 1.9, 2, 2.4)]
    assert found == pytest.approx([0.4, 0.4, 0.8, 0.8, 1.0, 1.0])
    search = Run(epochs=6, weights=Weights(lr=1.0, lr_min=0.0, warm_up=4, anneal="step"))
    assert list(of_search(search))[: 4 * STEPS] == [
        x / 4 for x in (1, 2, 3, 4) for _ in range(STEPS)
    ]


def test_a_search_in_progress_warms_up(tmp_path, monkeypatch):
    weights = Weights(lr=1.0, lr_min=0.0, warm_up=2)
    work = work_of({**TINY, "epochs": 4, "weights": weights}, tmp_path, monkeypatch, Single())
    found = []
    for work.epoch in range(4):
        for work.step in range(2):
            found.append(work.rates()["w"].lr)
    expected = [0.5, 1.0, half_cosine(2 / 4), half_cosine(3 / 4)]
    assert found == pytest.approx([rate for rate in expected for _ in range(2)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"linear_tail": 5}, "linear_tail = 5 with schedule = 'cosine': only 'linear' has a tail"),
        ({"linear_tail": -1}, "linear_tail = -1: must be a number of at least 0"),
        (
            {"schedule": "linear", "linear_tail": 600},
            "linear_tail = 600: must be below the 600 epochs in all",
        ),
        ({"warm_up_rule": "cosine"}, "warm_up_rule = 'cosine'"),
    ],
)
def test_bad_schedules_of_a_retraining_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Retrain(**settings)


def test_a_bad_warm_up_of_a_search_is_refused():
    with pytest.raises(ValueError, match="warm_up = -1: must be a number of at least 0"):
        Weights(warm_up=-1)
