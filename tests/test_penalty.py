"""A search's penalty is of the sample that the loss of the alphas runs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from test_contracts import batch, join, refusal
from tutelage.multilevel import evaluate, tops
from tutelage.parts import PARTS
from tutelage.problem import pick
from tutelage.run.supernet.penalty import with_penalty
from tutelage.searches.prdarts import PrDarts
from tutelage.trees import leaves, tree_map

METHODS = [method for method in PARTS["method"] if refusal(method, "prdarts", "darts") is None]


def far(variables):
    """Move alphas away from 0, so that samples have unlike penalties."""
    variables["A"] = tree_map(
        lambda x: (2 * torch.randn_like(x) - 1).requires_grad_(), variables["A"]
    )


def test_by_hand_for_one_learner():
    """Sample once, run the sample, add its own penalty; samples differ in theirs."""
    problem, _, _ = join("single", "prdarts", "darts")
    far(problem.variables)
    (learner,), images, seen = problem.learners, batch(), set()
    w, alphas = problem.variables["w"], problem.variables["A"]
    for seed in range(4):
        torch.manual_seed(seed)
        value, _ = evaluate(with_penalty(problem).levels[-1], problem.variables, images)
        torch.manual_seed(seed)
        with_penalty(problem)  # samples once, as above
        arch = learner.net.relax(alphas)
        logits, _ = learner.net.under(w, arch, images.valid.x)
        expected = F.cross_entropy(logits, images.valid.y) + arch.penalty
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
        found, slow = (torch.autograd.grad(x, leaves(alphas)) for x in (value, expected))
        torch.testing.assert_close(found, slow, rtol=1e-9, atol=1e-15)
        seen.add(float(arch.penalty.detach()))
    assert len(seen) == 4


@pytest.mark.parametrize("method", METHODS)
def test_every_learner_pays_for_what_it_ran(method, monkeypatch):
    """With the same random numbers the loss grows by the mean penalty of each learner's samples."""
    problem, _, _ = join(method, "prdarts", "darts")
    far(problem.variables)
    images, made, relax = batch(), [], PrDarts.relax

    def noted(self, alphas, clock):
        made.append((alphas, relax(self, alphas, clock)))
        return made[-1][1]

    monkeypatch.setattr(PrDarts, "relax", noted)
    values, calls = [], []
    for levels in (problem.levels, with_penalty(problem).levels):
        made.clear()
        torch.manual_seed(5)
        top = levels[len(levels) - tops(levels)]
        values.append(evaluate(top, problem.variables, images)[0])
        calls.append(len(made))
    expected = 0
    for learner in problem.learners:
        own = [x.penalty for alphas, x in made if alphas is pick(problem.variables, learner.alphas)]
        expected = expected + sum(own) / len(own)
    assert calls[0] == calls[1] > 0  # no sample is drawn for a penalty alone
    torch.testing.assert_close(values[1] - values[0], expected, rtol=1e-9, atol=1e-12)
