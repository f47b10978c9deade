"""DNA: blockwisely supervised neural architecture search with knowledge distillation.

Li, Peng, Yuan, Wang, Liang, Lin, Chang. CVPR 2020, arXiv:1911.13053.

    W_i* = argmin_W  E_{a_i} [ ‖N_i(Y_{i-1}; W, a_i) - Y_i‖²₂ / K ]      for every stage i
    a*   = argmin_{a: cost(a) <= limit}  Σ_i ‖N_i(Y_{i-1}; W_i*, a_i) - Y_i‖₁ / (K σ(Y_i))

    N_i, W_i, a_i   a stage of the supernet, its weights, and a path through it
    Y_i             the teacher's feature map after its i-th stage, of K numbers; Y_0 are the images
    σ               standard deviation, which makes distances of stages comparable

A trained teacher gives every stage its input and its target output. So the stages train at the same
time and independently, and an architecture is scored stage by stage. No label is used, and the
supernet's classifier is not trained.

Deviations:
    The paper's stages end with the teacher's width. Here, if widths differ, 1x1 convolutions that
    train with a stage map the teacher's maps to the stage's width, and the stage's output back.
    Average pooling maps them to the stage's size. Every channel of a map is normalised over the
    batch.
    The paper trains stages one after the other, by Adam and each at its own rate. Here one step
    minimises the sum of their losses by the settings of the run. They are still independent, except
    that gradients are clipped together.
    The teacher normalises by its running statistics. Paths are scored with the statistics of the
    batch; the release measures statistics again for each path.
    The paper ranks all paths of a stage and searches their combinations. Here evolution searches
    for the optimum of the same sum with the same limits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from tutelage.checks import at_least
from tutelage.extras import Notice, Score
from tutelage.multilevel import Level
from tutelage.problem import UNTRAINED, Learner, Make, Problem

NOTHING = "the teacher is untrained: the architecture that this run finds has no meaning"


@dataclass(frozen=True)
class DNA:
    """A trained network supervises every stage of the supernet."""

    teacher: str = field(default="", metadata={"quick": UNTRAINED})
    """The trained network: the directory of a retraining, its network.safetensors, timm:NAME, or
    timm:NAME#PART for the maps of a part's children (timm:tf_efficientnet_b7#blocks); untrained: a
    network of the space with random weights, which teaches nothing and is only for trying out."""
    maps: tuple[int, ...] = field(default=(), metadata={"quick": ()})
    """The teacher's feature maps, counted from 0, that supervise the stages in turn; not given:
    the last ones."""

    def __post_init__(self) -> None:
        for place in self.maps:
            at_least(0, maps=place)

    def __call__(self, make: Make) -> Problem:
        """Make the problem of one level.

        Raises:
            ValueError: The search samples no paths, the space has no stages, or the teacher does
                not fit.
        """
        net = make.supernet()
        (start,) = net.paths(1)
        if not make.stages:
            raise ValueError(
                "this space has no stages, and the method supervises them one by one: use a chain, "
                "--space dna, ennas-s1 or nasbench-macro"
            )
        teacher, weights = make.teacher(self.teacher), net.weights()
        like = next(iter(weights.values()))
        with torch.no_grad():
            x = like.new_zeros(2, *make.shape)
            maps = teacher(x)
            chosen = self.chosen(len(maps), make.stages)
            sizes = []  # output of every stage: channels, height, width
            for stage in range(make.stages):
                x = net.stage(weights, start, x, stage)
                sizes.append(x.shape[1:])

        def guides(x):  # Y_i
            maps = teacher(x)
            pooled = [
                F.adaptive_avg_pool2d(maps[at], size[1:])
                for at, size in zip(chosen, sizes, strict=True)
            ]
            return [F.batch_norm(y, None, None, training=True) for y in pooled]

        def answers(s, path, x, y):  # N_i(Y_{i-1})
            for stage in range(make.stages):
                before = fitted(s.W["into"][stage - 1], y[stage - 1]) if stage else x
                answer = net.stage(s.W["net"], path, before, stage)
                yield fitted(s.W["out"][stage], answer)

        def learn(s, batch):
            x, (path,) = batch.train.x, net.paths(1)
            y = guides(x)
            pairs = zip(answers(s, path, x, y), y, strict=True)
            losses = torch.stack([F.mse_loss(answer, wanted) for answer, wanted in pairs])
            return losses.sum(), {"stages": losses.unsqueeze(0)}

        @torch.no_grad()
        def score(variables, path, batch):
            y = guides(batch.x)
            pairs = zip(answers(SimpleNamespace(**variables), path, batch.x, y), y, strict=True)
            apart = [(answer - wanted).abs().mean() / wanted.std() for answer, wanted in pairs]
            return -torch.stack(apart).sum()

        theirs, ours = [maps[at].shape[1] for at in chosen], [size[0] for size in sizes]
        into = [adapter(a, b, like) for a, b in zip(theirs[:-1], ours[:-1], strict=True)]
        out = [adapter(b, a, like) for a, b in zip(theirs, ours, strict=True)]
        return Problem(
            variables={"W": {"net": weights, "into": into, "out": out}, "A": net.alphas()},
            levels=[Level("W", learn)],
            learners=[Learner(net, ("W", "net"), ("A",))],
            extras=[Score(score), *([Notice(NOTHING)] if self.teacher == UNTRAINED else [])],
        )

    def chosen(self, maps: int, stages: int) -> tuple[int, ...]:
        """Return the teacher's maps that supervise the stages.

        Raises:
            ValueError: There are too few maps, or the settings name maps that do not exist.
        """
        if self.maps:
            if len(self.maps) != stages or max(self.maps) >= maps:
                raise ValueError(
                    f"maps = {' '.join(map(str, self.maps))}: give one for each of the {stages} "
                    f"stages, from 0 to {maps - 1}, the maps of the teacher"
                )
            return self.maps
        if maps < stages:
            raise ValueError(
                f"teacher {self.teacher!r} has {maps} feature maps for {stages} stages: use "
                "another, or a space with fewer stages (--widths, --depths, --strides)"
            )
        return tuple(range(maps - stages, maps))


def adapter(inputs, outputs, like):
    """Initialise a 1x1 convolution between maps of different channels, on the device of `like`.

    For equal numbers of channels, return an empty tree.
    """
    if inputs == outputs:
        return {}
    return {"weight": nn.Conv2d(inputs, outputs, 1, bias=False).weight.detach().to(like)}


def fitted(adapter, x):
    """Map x (B, C, H, W) to other channels by the adapter, if there is one."""
    return F.conv2d(x, adapter["weight"]) if adapter else x
