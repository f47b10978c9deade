"""NaN and infinity in images, losses, weights and alphas: a sentence, and nothing of it saved."""

from __future__ import annotations

import itertools
import math
import random
import re
from dataclasses import replace

import pytest
import runs
import torch

from tutelage import cli
from tutelage.data.batches import Stream
from tutelage.run.job import checkpoint
from tutelage.run.one_shot.scorer import Scorer
from tutelage.run.supernet.state import Searching
from tutelage.run.training.training import Training
from tutelage.trees import leaves

VALUES = (math.nan, math.inf, -math.inf)
EVERYWHERE = ("images", "loss")
SEARCHED = (*EVERYWHERE, "weights", "alphas", "momentum", "moments")
TRAINED = (*EVERYWHERE, "weights", "statistics", "momentum")
CASES = [
    *itertools.product(runs.SEARCHES, SEARCHED),
    *itertools.product(["retrain"], TRAINED),
    ("search dna", "scores"),
]
DEFAULT = [("retrain", "statistics"), ("search single", "moments")]
MARKED = [
    pytest.param(*each, marks=[] if each in DEFAULT else [pytest.mark.slow]) for each in CASES
]
AT = 2
"""Steps done before something is no number: an epoch."""


def tensors(value):
    """List all tensors of numbers in nested values."""
    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, dict):
        value = list(value.values())
    return [x for each in value for x in tensors(each)] if isinstance(value, (list, tuple)) else []


def places(work, place):
    """List the tensors of a kind that a search or a training holds."""
    if isinstance(work, Training):
        kept = [x for each in work.optimiser.state.values() for x in each.values()]
        return tensors(
            {
                "weights": list(work.network.parameters()),
                "statistics": list(work.network.buffers()),
                "momentum": kept,
            }.get(place, [])
        )
    phase = work.phase
    kinds = {level.variable: level.optimiser for level in phase.problem.levels}
    trees = {
        "weights": [x for name, x in phase.variables.items() if kinds.get(name) == "weights"],
        "alphas": [x for name, x in phase.variables.items() if kinds.get(name) == "alphas"],
        "momentum": list(phase.velocities.values()),
    }
    if place == "moments":
        return tensors([list(each.state.values()) for each in phase.optimisers.values()])
    return [x for tree in trees.get(place, []) for x in tensors(list(leaves(tree)))]


class Poison:
    """Puts a value that is no number into a place, once a run has done some steps."""

    def __init__(self, place, value, choose):
        self.place, self.value, self.choose = place, value, choose
        self.put, self.now = 0, False

    def into(self, patch):
        for kind in (Searching, Training):
            patch.setattr(kind, "advance", self.advancing(kind.advance))
        patch.setattr(Stream, "batch", self.loading(Stream.batch))
        real = torch.nn.functional.cross_entropy
        patch.setattr(torch.nn.functional, "cross_entropy", self.losing(real))
        patch.setattr(Scorer, "score", self.scoring(Scorer.score))

    def advancing(self, real):
        def advance(work):
            self.now = work.done == AT
            if self.now and (found := places(work, self.place)):
                one = self.choose.choice([x for x in found if x.numel()])
                with torch.no_grad():
                    one.view(-1)[self.choose.randrange(one.numel())] = self.value
                self.put += 1
            real(work)

        return advance

    def loading(self, real):
        def batch(stream, *moment):
            found = real(stream, *moment)
            if self.now and self.place == "images":
                found.x[:, 0, 0, 0] = self.value
                self.put += 1
            return found

        return batch

    def losing(self, real):
        def loss(*given, **more):
            found = real(*given, **more)
            if self.now and self.place == "loss":
                self.put += 1
                return found * self.value
            return found

        return loss

    def scoring(self, real):
        def score(scorer, genotype):
            if self.place == "scores":
                self.put += 1
                own = lambda *given: torch.tensor(self.value)  # noqa: E731
                scorer = replace(scorer, own=own)
            return real(scorer, genotype)

        return score


def called(words, capsys):
    """Call a command here; return its exit status and its error."""
    capsys.readouterr()
    try:
        cli.main(words)
        return 0, ""
    except SystemExit as end:
        return end.code or 0, capsys.readouterr().err


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "place"), MARKED)
def test_what_is_no_number_stops_a_run_and_is_not_saved(
    name, place, tmp_path, whole, given, amount, figures, capsys, monkeypatch
):
    choose = random.Random(f"{name} {place}")
    if len(CASES) * choose.random() > amount(12, 30, len(CASES)) and (name, place) not in DEFAULT:
        pytest.skip("not in this sample")
    undisturbed = whole(name, given)
    for value in choose.sample(VALUES, amount(1, 1, 3)):
        out = runs.fresh(tmp_path / "run")
        poison = Poison(place, value, choose)
        with monkeypatch.context() as patch:
            poison.into(patch)
            code, error = called(runs.words(name, out, given), capsys)
        if not poison.put:
            pytest.skip(f"{name} has no {place}")
        figures["values that are no numbers"] += 1
        assert (code, error.count("\n")) == (1, 1), error or "it went on"
        assert re.match(r"tutelage: .*(nan|inf|not finite|no number)", error), error
        stored = checkpoint.load(out)["work"]
        assert all(bool(x.isfinite().all()) for x in tensors(stored)), "it was saved"
        assert not (out / "genotype.json").exists() or name == "retrain"
        assert not list(out.glob("**/result.json"))
        assert called(runs.words(name, out, given), capsys)[0] == 0
        different = runs.differences(undisturbed, out)
        figures["lost"] += bool(different)
        assert not different
