"""SD-DARTS: a supernet taught by its own past.  Zhu, Li, Liu, Wang, 2023, arXiv:2302.05629.

    min_A   L(w*(A), A; D_val)  + λ H(f(x), f_T(x))                                     Eq. 2
    s.t.    w*(A) = argmin_w  L(w, A; D_train) + λ H(f(x), f_T(x))

    f, f_T   probabilities of the supernet, and of its teacher       H    a divergence
    f_T(x) = 1/K Σ_{i=1..K} f_{t-i}(x)                               t    the epoch
    W_k, A_k   weights and alphas of learner k (one, in the paper)   P    its recent probabilities
    ξ   epochs of warm-up, in which λ is 0                           T    averaged weights

The probabilities of a learner in the ordinary pass of a step are stored by the image's position,
for K epochs. The teacher is a look-up, so it needs no second pass and no second set of weights.

The paper leaves some points open. Here:
    Stored probabilities are those of training: with that epoch's crop and flip, before the update,
    and with the weights of the validation loss. (SAF, NeurIPS 2022, records in this way.)
    Alphas train in the warm-up as in DARTS. Its last K epochs are recorded, so that K teachers are
    averaged from the first epoch after it. Both halves are recorded. H is a mean over a batch, with
    0 for an image without a past. The teacher is detached, and its probabilities are at least 1e-8.
    ξ is a share of the epochs, so that shorter searches warm up too: 0.5 is 25 of 50.
    Each of K learners has its own past; they do not teach one another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from tutelage.checks import at_least, known_choices, within
from tutelage.extras import AfterStep, Notice
from tutelage.methods.group import Group
from tutelage.methods.past import Past
from tutelage.multilevel import Level, Order
from tutelage.problem import Make, Problem
from tutelage.transfer import Distance, distances
from tutelage.trees import Tree, detach, leaves, tree_map


@dataclass(frozen=True)
class SDDarts:
    """Each learner is taught by its own past."""

    learners: int = 1
    """Learners, each with its own past."""
    warmup: float = field(default=0.5, metadata={"quick": 0.5})
    """Share of the epochs without teaching, ξ: 25 of 50."""
    weight: float = 1.0
    """Weight of the teaching loss, λ."""
    window: int = 2
    """Epochs that are averaged, K; with another memory, epochs of the warm-up that it has."""
    divergence: Distance = "kl"
    """Distance: kl (student first, as printed), kl-reverse, euclidean, manhattan, cosine."""
    memory: Literal["window", "average", "weights"] = "window"
    """Teacher: the mean of the last probabilities, a decayed average of them, or a network of
    averaged weights on the same batch (Mean Teacher)."""
    decay: float = 0.5
    """Share of the past that an average keeps over an epoch."""
    first_teacher: Literal["full", "growing"] = "full"
    """After the warm-up start with its last K epochs, or only with the last one."""
    warmup_alphas: Literal["train", "frozen"] = "train"
    """How alphas are treated in the warm-up."""
    valid: Literal["distilled", "plain"] = "distilled"
    """Whether the loss of the alphas has the divergence too."""
    memory_dtype: Literal["fp32", "bf16"] = "fp32"
    """Number type of the stored probabilities."""
    memory_device: Literal["device", "host"] = "device"
    """Device of the stored probabilities; host: the processor's memory."""
    memory_top: int = 0
    """Most probable classes that are stored of each image, the others uniform; 0: all."""
    order: Order = "alphas-first"
    """What trains first in an iteration: levels-first or alphas-first (Algorithm 1)."""

    def __post_init__(self) -> None:
        at_least(1, learners=self.learners, window=self.window)
        at_least(0, weight=self.weight, memory_top=self.memory_top)
        within(0, 1, warmup=self.warmup)
        known_choices(self)
        if not 0 < self.decay < 1:
            raise ValueError(f"decay = {self.decay}: must be strictly between 0 and 1")

    def __call__(self, make: Make) -> Problem:
        """Make the two-level problem."""
        warm, clock = round(self.warmup * make.epochs), make.clock
        if warm >= make.epochs:
            raise ValueError(
                f"warmup = {self.warmup} of {make.epochs} epochs leaves no epoch for teaching: "
                "give a smaller share, or more epochs"
            )
        first = max(0, warm - (self.window if self.first_teacher == "full" else 1))
        group = Group.of(make, self.learners)
        halves = ("train", "valid") if self.valid == "distilled" else ("train",)
        pasts = {half: self.past(make, half, group.like.device) for half in halves}

        def teachers(s, batch, half, logits):  # f_T, and which images have one
            x, _, position = getattr(batch, half)
            if self.memory == "weights":
                with torch.no_grad():
                    found = group(s.T, detach(s.A), x)
                return [(z.softmax(1), 1) for z in found]
            pairs = zip(s.P[half], logits, strict=True)
            return [pasts[half].mean(past, position, z) for past, z in pairs]

        def teaching(s, batch, half):  # Eq. 2, either line
            x, y, _ = getattr(batch, half)
            logits = group(s.W, s.A, x)
            loss, notes = group.total(logits, y), {half: logits}
            if clock.epoch < warm or half not in halves:
                return loss, notes
            found = zip(logits, teachers(s, batch, half, logits), strict=True)
            apart = [
                (known * distances(self.divergence, z, teacher.detach())).mean()
                for z, (teacher, known) in found
            ]
            divergence = torch.stack(apart)
            return loss + self.weight * divergence.sum(), notes | {f"{half}_divergence": divergence}

        def learn(s, batch):
            return teaching(s, batch, "train")

        def validate(s, batch):
            return teaching(s, batch, "valid")

        def remember(variables, batch, notes):
            if clock.epoch < first:
                return
            # the last pass of a step is the ordinary one; earlier ones are of virtual steps
            passes = {h: z for noted in notes for h, z in noted.items() if h in halves}
            for half, logits in passes.items():
                position = getattr(batch, half).position
                for past, z in zip(variables["P"][half], logits, strict=True):
                    pasts[half].record(past, position, z.softmax(1))

        def average(variables, batch, notes):  # Mean Teacher, of the weights after the step
            step = len(batch.train.y) / make.images["train"]
            share = 1 - self.decay**step if clock.epoch >= first else 1.0
            for mean, now in zip(leaves(variables["T"]), leaves(variables["W"]), strict=True):
                mean.lerp_(now, share)

        weights = self.memory == "weights"
        variables: dict[str, Tree] = {"W": group.weights(), "A": group.alphas()}
        if weights:
            variables["T"] = tree_map(Tensor.clone, variables["W"])
        else:
            empty = {half: [past.empty() for _ in group.nets] for half, past in pasts.items()}
            variables["P"] = empty
        thawed = range(warm, make.epochs) if self.warmup_alphas == "frozen" else None
        return Problem(
            variables,
            levels=[
                Level("W", learn),
                Level("A", validate, epochs=thawed, optimiser="alphas"),
            ],
            learners=[
                each._replace(averages=(("T", k),) if weights else ())
                for k, each in enumerate(group.learners("W", "A"))
            ],
            order=self.order,
            extras=[AfterStep(average)]
            if weights
            else [AfterStep(remember), Notice(self.plan(list(pasts.values())))],
        )

    def past(self, make: Make, half: str, device: torch.device) -> Past:
        """Make one learner's past for a half of the images."""
        return Past(
            images=make.images[half],
            classes=make.classes,
            window=self.window,
            decay=self.decay if self.memory == "average" else 0.0,
            top=self.memory_top,
            dtype=torch.bfloat16 if self.memory_dtype == "bf16" else torch.float32,
            device=torch.device("cpu") if self.memory_device == "host" else device,
        )

    def plan(self, pasts: list[Past]) -> str:
        """Describe the memory of the pasts of all learners in a sentence."""
        megabytes = self.learners * sum(past.bytes for past in pasts) / 1e6
        images = " and ".join(f"{past.images:,}" for past in pasts)
        _, kept, slots = pasts[0].shape
        return (
            f"probabilities for {images} images are stored, {slots} x {kept} each: "
            f"{megabytes:,.1f} MB on {pasts[0].device.type}"
        )
