"""Methods as problems on toys: what tests of the engine and of losses share."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from toys import ToyMake, toy_batch
from tutelage.methods.afd import AFD
from tutelage.methods.kdcl import KDCL
from tutelage.methods.lbt import LBT
from tutelage.methods.mkd import MKD
from tutelage.methods.okddip import OKDDip
from tutelage.methods.one import ONE
from tutelage.methods.pamkd import PAMKD
from tutelage.methods.sgl import SGL
from tutelage.methods.single import Single
from tutelage.trees import leaves, rebuild
from tutelage.virtual import Exact, FiniteDifference, Rate

METHODS = {
    "darts": Single(),
    "sgl-1": SGL(learners=1),
    "sgl-2": SGL(learners=2),
    "sgl-3": SGL(learners=3, peer_weight=0.7),
    "sgl-mean": SGL(learners=3, peers="mean"),
    "sgl-no-first-stage": SGL(first_stage="none"),
    "sgl-no-human-labels": SGL(human_labels=False),
    "sgl-printed": SGL(paths="printed"),
    "sgl-first-order-own-term": SGL(own_term="first-order"),
    "lbt": LBT(pseudo_weight=0.8, student_weight=1.3),
    "lbt-student-only": LBT(validate_teacher=False),
    "lbt-pseudo-labels-only": LBT(human_labels=False),
    "lbt-printed": LBT(paths="printed"),
    "lbt-first-order-own-term": LBT(own_term="first-order"),
    "lbt-first-order-before-the-step": LBT(own_term="first-order", order="alphas-first"),
    "lbt-in-turn": LBT(student_update="in-turn"),
    "pamkd-1": PAMKD(learners=1),
    "pamkd-2": PAMKD(group_size=2, margin=0.3, peer_weight=20.0),
    "pamkd-3": PAMKD(learners=3, group_size=2, margin=0.3, peer_weight=10.0),
    "pamkd-no-first-stage": PAMKD(first_stage="none", group_size=2, margin=0.3, peer_weight=9.0),
    "pamkd-first-order-own-term": PAMKD(group_size=2, margin=0.3, own_term="first-order"),
    "pamkd-triples": PAMKD(knowledge="triples", margin=0.3, reduction="mean", peer_weight=9.0),
    "pamkd-labels": PAMKD(knowledge="labels"),
    "pamkd-weights": PAMKD(knowledge="weights", peer_weight=0.01),
    "pamkd-2nd-mkd": PAMKD(second_stage="mkd"),
    "pamkd-2nd-kdcl": PAMKD(second_stage="kdcl", learners=3),
    "pamkd-2nd-afd": PAMKD(second_stage="afd"),
    "mkd-2": MKD(),
    "mkd-3": MKD(learners=3, temperature=3.0),
    "mkd-mean": MKD(learners=3, target="mean"),
    "kdcl": KDCL(),
    "kdcl-minimum": KDCL(ensemble="minimum"),
    "one": ONE(ramp=0),
    "okddip-2": OKDDip(ramp=0),
    "okddip-3": OKDDip(learners=3, ramp=0),
    "afd": AFD(hidden=4),
}
RATES = {
    "plain": Rate(0.3),
    "sgd": Rate(0.3, momentum=0.9, weight_decay=0.03),
    "clipped": Rate(0.3, momentum=0.9, weight_decay=0.03, clip=0.2),
    "nesterov": Rate(0.3, momentum=0.9, weight_decay=0.03, nesterov=True),
}
RULES = {
    "exact": (Exact(), 1e-8),
    "exact-recompute": (Exact(recompute=True), 1e-8),
    "finite-difference": (FiniteDifference(1e-4), 1e-3),
    "one-sided": (FiniteDifference(1e-5, sides=1), 1e-3),
}


def setting(method, rate=RATES["plain"], steps=1, seed=0):
    """Levels, variables, batch, rates and velocities of a method on toy learners."""
    torch.manual_seed(seed)
    problem = method(ToyMake())
    levels = [replace(x, steps=steps) if x.optimiser == "weights" else x for x in problem.levels]
    lower = [level.variable for level in levels if level.optimiser == "weights"]
    velocities = {
        name: rebuild(
            problem.variables[name],
            iter([0.1 * torch.randn_like(x) for x in leaves(problem.variables[name])]),
        )
        for name in lower
        if rate.momentum
    }
    return levels, problem.variables, toy_batch(), dict.fromkeys(lower, rate), velocities


def relative(found, expected):
    return float(
        torch.cat([(a - b).flatten() for a, b in zip(found, expected, strict=True)]).norm()
        / torch.cat([b.flatten() for b in expected]).norm()
    )


def made(method, images=7):
    """A method on toys: its problem, a batch, the losses by name, and all that they read."""
    torch.manual_seed(0)
    make = ToyMake()
    problem = method(make)
    levels = {level.name: level for level in problem.levels}
    seen = SimpleNamespace(
        **problem.variables,
        **{a: problem.variables[of] for x in problem.levels for a, of in x.aliases.items()},
    )
    return problem, toy_batch(images), levels, seen, make


def kl(p, q):
    """KL(p ‖ q) of two lists of rows, mean over rows."""
    rows = zip(p.tolist(), q.tolist(), strict=True)
    sums = [sum(a * math.log(a / b) for a, b in zip(*row, strict=True)) for row in rows]
    return sum(sums) / len(sums)


def answers(problem, seen, x, weights="W"):
    return [
        learner.net.forward(w, a, x)
        for learner, w, a in zip(problem.learners, getattr(seen, weights), seen.A, strict=False)
    ]


def alone(found, y):
    return sum(float(F.cross_entropy(logits, y)) for logits, _ in found)
