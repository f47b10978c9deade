"""Scores of learners on the whole validation half when a search ends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tutelage.data.seeding import generator
from tutelage.extras import Members
from tutelage.problem import Learner, pick
from tutelage.run.supernet.view import View


class Validated(NamedTuple):
    """Scores of learners on the whole validation half; all tensors are on the CPU."""

    scores: list[dict[str, float]]
    """Loss and accuracy of every learner; those of a first stage are `first_loss`, ..."""
    probabilities: list[Tensor]
    """Probabilities of every batch, (K, B, C); empty if no ensemble is to be selected."""
    y: Tensor
    """Labels (N,)."""


@torch.no_grad()
def validate(view: View) -> Validated:
    """Measure every learner on the whole validation half."""
    sums: dict[tuple[int, str], list[Tensor]] = defaultdict(list)
    probabilities, labels, selects = [], [], view.problem.extra(Members)
    for logits, y in _answers(view):
        for k, stages in enumerate(logits):
            for stage, z in zip(("valid", "first"), stages, strict=False):
                loss = nn.functional.cross_entropy(z, y, reduction="sum")
                sums[k, f"{stage}_loss"].append(loss)
                sums[k, f"{stage}_accuracy"].append((z.argmax(1) == y).sum())
        labels.append(y)
        if selects:
            each = torch.stack([own.double().softmax(1) for own, *_ in logits])
            probabilities.append(each.cpu())  # those of all images may be too many for a GPU
    # but for them, the device is waited for only here, not in every batch
    y = torch.cat(labels).cpu()
    totals = torch.stack([torch.stack(values).double().sum() for values in sums.values()])
    scores: list[dict[str, float]] = [{} for _ in view.learners]
    for (k, score), total in zip(sums, totals.tolist(), strict=True):
        scores[k][score] = total / len(y)
    return Validated(scores, probabilities, y)


def _answers(view: View) -> Iterator[tuple[list[list[Tensor]], Tensor]]:
    """Yield batches of the validation half, not augmented: all learners' logits, and labels (B,).

    Where a learner has weights of a first stage, their logits (B, C) follow its own. All have the
    same random numbers in a batch: where paths are sampled, no learner is better by its path.
    """
    seeds = generator(view.setup.settings.seed, "search/validate")

    def answers(learner: Learner, x: Tensor, seed: int) -> Iterator[Tensor]:
        alphas = pick(view.variables, learner.alphas)
        for path in (learner.weights, *learner.drafts[:1]):
            torch.manual_seed(seed)
            yield learner.net(pick(view.variables, path), alphas, x)

    for x, y, _ in view.validation():
        seed = int(seeds.integers(2**63))
        yield [list(answers(learner, x, seed)) for learner in view.learners], y
