"""NES: neural ensemble search.  Zaidi, Zela, Elsken, Holmes, Hutter, Teh, NeurIPS 2021.

    for every k   min_A_k  L(W_k*, A_k; D_val)
                  s.t.     W_k* = argmin_W  L(W, A_k; D_train)
    S_1           {argmin_k  L(p_k; D_val)}
    S_m+1         S_m ∪ {argmin_{k ∉ S_m}  L(mean of p_j over S_m ∪ {k}; D_val)}       ForwardSelect

    W_k, A_k   weights and alphas of learner k, independent of the other learners
    p_k        its probabilities          S_M   the ensemble, which is evaluated

Deviations:
    arXiv:2006.08573. The paper's pool consists of architectures sampled at random or evolved, each
    trained from scratch, and its ensemble consists of these networks. Here the pool consists of
    supernets that are searched side by side. Members are selected by the supernets, and their
    networks are then trained from scratch.
    `--search random` samples the paper's random pool, but nothing trains before the retraining, so
    no selection is possible and the first M learners are the members.
    A finite difference has one radius for all learners together, so learners are completely
    independent only with the other rules.
    PAMKD compares with NES, but does not say how it adapted it or whether its figures are those of
    ensembles.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tutelage.checks import at_least, known_choices
from tutelage.extras import Members
from tutelage.methods.group import Group
from tutelage.multilevel import Level, Order
from tutelage.problem import Make, Problem


@dataclass(frozen=True)
class NES:
    """Learners search independently; the best together are kept as an ensemble."""

    learners: int = field(default=5, metadata={"quick": 3})
    """Size of the pool, K."""
    members: int = field(default=3, metadata={"quick": 2})
    """Learners in the ensemble, M, selected on the validation half."""
    order: Order = "alphas-first"
    """What trains first in an iteration: levels-first or alphas-first."""

    def __post_init__(self) -> None:
        at_least(1, learners=self.learners, members=self.members)
        known_choices(self)
        if self.members > self.learners:
            raise ValueError(
                f"members = {self.members} with learners = {self.learners}: an ensemble has at "
                "most as many members as there are learners"
            )

    def __call__(self, make: Make) -> Problem:
        """Make a two-level problem for every learner, all in one."""
        group = Group.of(make, self.learners)

        def learn(s, batch):  # the pool
            x, y, _ = batch.train
            logits = group(s.W, s.A, x)
            return group.total(logits, y), {"train": logits}

        return Problem(
            variables={"W": group.weights(), "A": group.alphas()},
            levels=[Level("W", learn), Level("A", group.validate, optimiser="alphas")],
            learners=group.learners("W", "A"),
            order=self.order,
            extras=[Members(self.members)],
        )
