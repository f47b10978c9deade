"""Cream: distilling prioritised paths.  Peng, Du et al., NeurIPS 2020, arXiv:2010.15821.

    min_{A, θ}  L(w*(A, θ), A; D_val)                                             Eq. 6
    s.t.        w* = argmin_w  ½ [ρ KD(p_w, p_b) + (2 - ρ) L(w, A; D_train)]       Eq. 4, 5
                b  = argmax_{b ∈ B} ρ_b,   ρ_b = σ(θ · (z_b - z_w))                 Eq. 3

    w, A        the supernet's weights and alphas
    B           the board: the paths of the lowest validation loss so far
    z_b, z_w    logits of a path of the board, with the same weights, and of the supernet
    θ           the matching: how well a path teaches, judged by what it would say otherwise
    KD          cross-entropy with the path's probabilities

Deviations:
    The paper samples paths uniformly and has no alphas; how PAMKD made it a differentiable search
    it does not say. Here the student is the supernet under its mix, a path takes one operation an
    edge by its weight in the mix, and θ descends with the alphas on the same loss, every iteration
    where the paper does every 200. With first-order derivatives θ stays as it was drawn.
    A path enters the board by its loss on one validation batch; the paper also asks that it has no
    more multiply-adds than the one it replaces.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from tutelage.checks import at_least, one_of, within
from tutelage.methods.group import Group
from tutelage.multilevel import Level, Order
from tutelage.problem import Learner, Make, Net, Problem
from tutelage.transfer import cross_entropy, pseudo_label
from tutelage.virtual import hold


@dataclass(frozen=True)
class Cream:
    """A supernet is taught by the best of its own paths."""

    board: int = 10
    """Paths of the board, |B|."""
    warmup: float = 1 / 6
    """Share of the epochs before the board teaches (the paper's 20 of 120)."""
    judged: float = 0.25
    """Share of a batch by which the teacher is chosen."""
    order: Order = "alphas-first"
    """Which move first in an iteration: levels-first or alphas-first."""

    def __post_init__(self) -> None:
        at_least(1, board=self.board)
        within(0, 1, warmup=self.warmup, judged=self.judged)
        one_of(("levels-first", "alphas-first"), order=self.order)

    def __call__(self, make: Make) -> Problem:
        """Make the two-level problem."""
        group = Group.of(make, 1)
        (net,) = group.nets

        def teacher(s, mix, x, z):
            """Logits of the best-matching path, as data, and its ρ."""
            paths = [
                {name: rows[place] for name, rows in s.board["paths"].items()}
                for place in range(int(s.board["filled"]))
            ]
            part = max(1, int(self.judged * len(x)))
            with torch.no_grad():
                z_b = [under(net, s.w, mix, path, x[:part]) for path in paths]
            rho = torch.stack([match(s.A["match"], hold(b - z[:part])) for b in z_b])  # Eq. 3
            best = int(hold(rho.argmax()))
            with torch.no_grad():
                answer = under(net, s.w, mix, paths[best], x)
            return hold(answer), rho[best]

        def learn(s, batch):  # Eq. 4, 5
            x, y, _ = batch.train
            mix = net.mix(s.A["alphas"])
            z, _ = net.under(s.w, mix, x)
            loss = cross_entropy(z, y)
            if int(s.board["filled"]) and make.clock.epoch >= self.warmup * make.clock.epochs:
                z_b, rho = teacher(s, mix, x, z)
                loss = 0.5 * (rho * pseudo_label(z, z_b) + (2 - rho) * loss)
                return loss, {"train": [z], "labels": ([z_b], y)}
            return loss, {"train": [z]}

        def validate(s, batch):  # Eq. 6
            x, y, _ = batch.valid
            z = net(s.w, s.A["alphas"], x)
            return cross_entropy(z, y), {"valid": [z]}

        @torch.no_grad()
        def prioritise(variables, batch, notes):
            x, y, _ = batch.valid
            mix = net.mix(variables["A"]["alphas"])
            path = {name: sampled(weights) for name, weights in mix.operations.items()}
            loss = cross_entropy(under(net, variables["w"], mix, path, x), y)
            variables["board"] = entered(variables["board"], path, loss)

        alphas = net.alphas()
        shapes = {name: a.shape for name, a in net.mix(alphas).operations.items()}
        board = {
            "paths": {n: group.like.new_zeros(self.board, *shape) for n, shape in shapes.items()},
            "loss": group.like.new_zeros(self.board),
            "filled": torch.zeros((), dtype=torch.int64),
        }
        return Problem(
            variables={
                "w": net.weights(),
                "A": {"alphas": alphas, "match": group.linear(make.classes, 1)},
                "board": board,
            },
            levels=[Level("w", learn), Level("A", validate, optimiser="alphas")],
            learners=[Learner(net, ("w",), ("A", "alphas"))],
            order=self.order,
            after_step=prioritise,
        )


def match(theta, difference):
    """How well a path teaches, ρ () in (0, 1), by the difference of logits (B, C) (Eq. 3)."""
    return torch.nn.functional.linear(difference, theta["weight"], theta["bias"]).mean().sigmoid()


def under(net: Net, w, mix, path, x):
    """Logits (B, C) of a path (one-hot weights of every group); only its operations run."""
    return net.under(w, replace(mix, operations=path).without_zeros(), x)[0]


def sampled(weights):
    """Draw one operation for every edge, by its weight: one-hot rows (edges, ops)."""
    drawn = weights.clamp_min(torch.finfo(weights.dtype).tiny).multinomial(1)
    return torch.zeros_like(weights).scatter_(1, drawn, 1.0)


def entered(board, path, loss):
    """Let a path in where there is a free place, or in place of the worst if it is better."""
    filled = int(board["filled"])
    places = board["loss"].shape[0]
    place = filled if filled < places else int(board["loss"].argmax())
    same = [(rows == path[name]).flatten(1).all(1) for name, rows in board["paths"].items()]
    known = torch.stack(same).all(0)[:filled].any()
    if known or (filled == places and loss >= board["loss"][place]):
        return board
    paths = {name: rows.clone() for name, rows in board["paths"].items()}
    losses = board["loss"].clone()
    losses[place] = loss
    for name, rows in paths.items():
        rows[place] = path[name]
    count = torch.tensor(min(filled + 1, places))
    return {"paths": paths, "loss": losses, "filled": count}
