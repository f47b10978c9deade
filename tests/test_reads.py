"""How often a step, a score and a validation wait for the device: a number that does not grow."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reads import reading
from test_live import searching
from test_search import run_toml
from tutelage import ensembling
from tutelage.data.streams import LazyBatches
from tutelage.run.one_shot.conclusion import scorer_of
from tutelage.run.strategies.validation import validate
from tutelage.spaces.paths import genotype, sample
from tutelage.trees import leaves


def test_reads_are_counted():
    x, y = torch.ones(3), torch.zeros(2)
    with reading(x) as reads:
        float((x + 1).sum())
        int(y[0])  # not of the device
        held = x.cpu()
        float(held.sum())
        x.tolist()
    assert reads.counts == {"_local_scalar_dense": 1, "cpu": 1, "tolist": 1}
    with reading(x) as reads:
        assert (x * 2).sum() > 0
    assert reads.total == 1
    assert float(held.sum()) == 3


SPACE = {"name": "nasbench-macro", "widths": (4, 6), "depths": (2, 1), "strides": (2, 1)}
SPACE |= {"stem_channels": 2, "last": 8}
NB201 = {"name": "nasbench201"}


def one_shot(method, search="single-path", **own):
    settings = run_toml(method, search={"name": search}, space=SPACE, channels=None, cells=None)
    settings = replace(settings, method=settings.method | own, batch_size=8, limit_batches=None)
    return searching(settings, 8)


def on_device(work):
    """The tensors of a search that are on its device: weights, and the next step's images."""
    found = [x for name in ("W", "w") for x in leaves(work.phase.variables.get(name, []))]
    batches = LazyBatches(work.setup.streams, work.epoch, work.step)
    return [*found, *batches.train[:2], *batches.valid[:2]], batches


def reads_of_a_step(work, monkeypatch):
    work.advance()
    tensors, batches = on_device(work)
    monkeypatch.setattr("tutelage.run.supernet.state.LazyBatches", lambda *_: batches)
    with reading(*tensors) as reads:
        work.advance()
    return reads


def test_a_step_of_spos_reads_nothing(monkeypatch):
    assert reads_of_a_step(one_shot("single"), monkeypatch).total == 0


@pytest.mark.parametrize("search", ["single-path", "diverse-paths"])
def test_a_step_of_ennas_reads_once_a_pass_of_its_ensemble(search, monkeypatch):
    work, passes, expand = one_shot("ennas", search, students=3), [], ensembling._expand

    def counted(*given):
        passes.append(given)
        return expand(*given)

    work.advance()
    monkeypatch.setattr(ensembling, "_expand", counted)
    tensors, batches = on_device(work)
    monkeypatch.setattr("tutelage.run.supernet.state.LazyBatches", lambda *_: batches)
    with reading(*tensors) as reads:
        work.advance()
    assert 1 <= len(passes) <= 20
    assert reads.total == len(passes) + 1  # the spread of the logits first


def test_a_step_of_cream_reads_its_loss_and_the_chosen_teacher(monkeypatch):
    work = one_shot("cream", warmup=0.0)
    for _ in range(3):
        work.advance()
    assert int(work.phase.variables["board"]["filled"]) > 1
    assert reads_of_a_step(work, monkeypatch).total == 2


@pytest.mark.parametrize("batches", [2, 5])
def test_a_score_reads_once(batches):
    """However many batches set its statistics, and however many judge it."""
    work = one_shot("single")
    scorer = scorer_of(work.view(), work.view().learners[0])

    def few(half):
        return lambda: [work.setup.streams.__dict__[half].batch(0, k) for k in range(batches)]

    fitted, judged = few("train")(), few("valid")()
    scorer = replace(scorer, fitted=lambda: fitted, judged=lambda: judged)
    found = genotype(work.setup.space, sample(work.setup.space))
    images = [x for batch in (*fitted, *judged) for x in batch[:2]]
    with reading(*scorer.weights.values(), *images) as reads:
        scorer.score(found)
    assert reads.total == 1


def test_the_reads_of_a_validation_do_not_grow_with_its_batches(monkeypatch):
    work, counts = searching(run_toml("sgl", space=NB201, cells=1, limit_batches=None), 32), []
    view = work.view()
    for size in (32, 128):
        streams = view.setup.streams.of(size)
        other = replace(view, setup=replace(view.setup, streams=streams))
        batches = list(other.validation())
        monkeypatch.setattr(type(view), "validation", lambda _, batches=batches: batches)
        with reading(*(x for batch in batches for x in batch[:2])) as reads:
            validate(other)
        counts.append(reads.total)
        monkeypatch.undo()
    assert counts[0] == counts[1] == 2  # the labels, and all sums together


@pytest.mark.parametrize("size", [50, 300])
def test_the_reads_of_a_test_do_not_grow_with_its_batches(size, monkeypatch):
    from retraining import DIGITS, GENOTYPE, SIZE
    from tutelage.data.batches import in_order
    from tutelage.data.read import read
    from tutelage.run.networks.files import build
    from tutelage.run.trained import measure

    tested, network = read(DIGITS, "test"), build(GENOTYPE, SIZE)
    every, cpu = torch.arange(len(tested.images)), torch.device("cpu")
    batches = list(in_order(tested, every, size, cpu))
    monkeypatch.setattr(measure, "in_order", lambda *_: batches)
    with reading(*network.parameters(), *(x for batch in batches for x in batch[:2])) as reads:
        found = measure.measured(network, tested, size, cpu)
    assert reads.counts["tolist"] == 1  # all sums together
    assert reads.total == 1 + 3  # probabilities, confidence, classes
    assert 0 < found.entries()["test_accuracy"] < 1
