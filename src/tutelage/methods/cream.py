"""Cream: distilling prioritised paths.  Peng, Du et al., NeurIPS 2020, arXiv:2010.15821.

    min_θ   L(w*(θ), a; D_val)                                                      Eq. 6
    s.t.    w* = argmin_w  ½ [ρ KD(p_w, p_b) + (2 - ρ) L(w, a; D_train)]             Eq. 4, 5
            b  = argmax_{b ∈ B} ρ_b,   ρ_b = σ(θ · (z_b - z_w))                      Eq. 3

    w, a        the supernet's weights, and the path that is sampled for the step
    B           the board: the best paths so far
    z_b, z_w    logits of a path of the board, with the same weights, and of the sampled one
    θ           the matching: how well a path teaches, by the difference of its logits
    KD          cross-entropy with the path's probabilities

A trained path enters the board in place of the worst path that has a higher loss and at least as
many FLOPs. In a search with alphas the student is the supernet with its architecture weights, A
replaces a and is trained with θ, and paths for the board have one operation on every edge, sampled
by its architecture weight. PAMKD compares with this and does not describe it.

Deviations:
    A path is scored once, by its loss on one validation batch; the paper uses accuracy. Its release
    uses the training batch, and adds a path with more FLOPs if it is better by five points.
    θ is one linear map of the mean difference, and is trained by Adam like alphas. With first-order
    derivatives, or `every = 0`, it keeps its initial value.
    The paper chooses among the board; here the board is in the evolution's first generation.
    With alphas, θ is trained in every iteration, and FLOPs do not count.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from types import SimpleNamespace

import torch

from tutelage.checks import at_least, known_choices, within
from tutelage.extras import AfterStep, Answers, Probe, Seeds
from tutelage.methods.board import empty, entered, paths_of
from tutelage.methods.group import Group
from tutelage.multilevel import Level, Order
from tutelage.problem import Learner, Make, Problem
from tutelage.transfer import pseudo_label
from tutelage.trees import leaves, tree_map
from tutelage.virtual import hold

TEACHER = "Their teacher is the path of the board that the matching chooses for them."
STUDENTS = 2
"""Paths that the diagnostics compare with the board."""


@dataclass(frozen=True)
class Cream:
    """Paths are taught by the best paths that were trained before."""

    board: int = 10
    """Paths of the board, |B|."""
    warmup: float = 1 / 6
    """Share of the epochs before the board teaches (20 of 120 in the paper)."""
    judged: float = 0.25
    """Share of a batch on which the teacher is chosen."""
    every: int = 200
    """Iterations between two steps of the matching, if paths are sampled; 0: it is not trained."""
    order: Order = "alphas-first"
    """What trains first in an iteration: levels-first or alphas-first."""

    def __post_init__(self) -> None:
        at_least(1, board=self.board)
        at_least(0, every=self.every)
        within(0, 1, warmup=self.warmup, judged=self.judged)
        known_choices(self)

    def __call__(self, make: Make) -> Problem:
        """Make the two-level problem."""
        group = Group.of(make, 1)
        (net,), cross_entropy = group.nets, group.cross_entropy
        alphas = net.alphas()
        samples = not leaves(alphas)
        start = net.paths(1)[0] if samples else net.relax(alphas)

        def student(s):  # the path that learns in this step
            return under(start, s.path) if samples else net.relax(s.A["alphas"])

        def logits_of(s, arch, x):
            return net.under(s.w, arch, x)[0]

        def ratings(s, arch, x, z):  # Eq. 3
            with torch.no_grad():
                answers = [logits_of(s, under(arch, path), x) for path in paths_of(s.board)]
            return torch.stack([match(s.A["match"], hold(z_b - z)) for z_b in answers])

        def learn(s, batch):  # Eq. 4, 5
            x, y, _ = batch.train
            arch = student(s)
            z = logits_of(s, arch, x)
            loss = cross_entropy(z, y)
            notes = {"students": z.unsqueeze(0)} if samples else {"train": [z]}
            if int(s.board["filled"]) and make.clock.epoch >= self.warmup * make.clock.epochs:
                part = max(2, int(self.judged * len(x)))  # a single image has no batch statistics
                rho = ratings(s, arch, x[:part], z[:part])
                best = int(hold(rho.argmax()))
                with torch.no_grad():
                    z_b = logits_of(s, under(arch, paths_of(s.board)[best]), x)
                teaching = pseudo_label(z, hold(z_b))
                loss = 0.5 * (rho[best] * teaching + (2 - rho[best]) * loss)
                notes |= {"teacher": z_b} if samples else {"labels": ([z_b], y)}
            return loss, notes

        def validate(s, batch):  # Eq. 6
            x, y, _ = batch.valid
            z = logits_of(s, student(s), x)
            return cross_entropy(z, y), {"valid": [z]}

        @torch.no_grad()
        def prioritise(variables, batch, notes):
            s = SimpleNamespace(**variables)
            x, y, _ = batch.valid
            arch = student(s)
            path = s.path if samples else {"operations": tree_map(one_of_each, arch.operations)}
            loss = cross_entropy(logits_of(s, under(arch, path), x), y)
            cost = make.flops_of(under(arch, path)) if samples else 0.0
            variables["board"] = entered(s.board, path, float(loss), cost)
            if samples:
                variables["path"] = trail(net.paths(1)[0])

        @torch.no_grad()
        def probe(variables, fitted, valid):
            s, x = SimpleNamespace(**variables), fitted.x
            students = net.paths(STUDENTS)
            z = torch.stack([logits_of(s, arch, valid.x) for arch in students])
            if not int(s.board["filled"]):
                return Answers(z, None)
            rho = torch.stack(
                [ratings(s, arch, x, logits_of(s, arch, x)) for arch in students]
            ).mean(0)
            best = paths_of(s.board)[int(rho.argmax())]
            return Answers(z, logits_of(s, under(start, best), valid.x))

        path = trail(start) if samples else {"operations": start.operations}
        variables = {
            "w": net.weights(),
            "A": {"alphas": alphas, "match": group.linear(make.classes, 1)},
            "board": empty(path, self.board),
        }
        top = Level("A", validate, optimiser="alphas")
        problem = Problem(
            variables,
            levels=[Level("w", learn), top],
            learners=[Learner(net, ("w",), ("A", "alphas"))],
            order=self.order,
            extras=[AfterStep(prioritise)],
        )
        if not samples:
            return problem
        first = ceil(self.warmup * make.epochs) if self.every else make.epochs
        sparse = replace(top, epochs=range(first, make.epochs), every=max(1, self.every))
        best = Seeds(lambda s: [under(start, path) for path in paths_of(s["board"])])
        return problem._replace(
            variables=variables | {"path": path},
            levels=[Level("w", learn), sparse],
            extras=[*problem.extras, Probe(probe, TEACHER), best],
        )


def match(theta, difference):
    """Rate how well a path teaches, ρ () in (0, 1), by a difference of logits (B, C) (Eq. 3)."""
    return torch.nn.functional.linear(difference, theta["weight"], theta["bias"]).mean().sigmoid()


def trail(arch):
    """Return the tensors of a sampled path, to be stored among the variables."""
    return tree_map(torch.Tensor.cpu, {"operations": arch.operations, "edges": arch.edges})


def under(arch, path):
    """Return the architecture weights that run exactly a path's operations."""
    device = leaves(arch.operations)[0].device
    placed = tree_map(lambda x: x.to(device, non_blocking=True), path)
    return replace(replace(arch, **path).without_zeros(), **placed)


def one_of_each(weights):
    """Sample one operation for every edge, by its weight: one-hot rows (edges, ops)."""
    sampled = weights.clamp_min(torch.finfo(weights.dtype).tiny).multinomial(1)
    return torch.zeros_like(weights).scatter_(1, sampled, 1.0).cpu()
