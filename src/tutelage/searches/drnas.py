"""DrNAS: Dirichlet neural architecture search.

Chen, Wang, Cheng, Tang, Hsieh. ICLR 2021, arXiv:2006.10355.

The weights of an edge's operations are random, and the search optimises their distribution:

    min_alpha  E_theta[L_val(w*, theta)] + lambda d(beta, 1)
    theta ~ Dirichlet(beta),   beta = ELU(alpha) + 1

Every forward pass samples again, once for all cells of a group. Its gradient passes through the
sample (pathwise derivatives). The distance d from the uniform Dirichlet(1) is the squared norm of
the alphas, which is Adam's weight decay, or a Kullback-Leibler divergence.

A search of large networks is progressive. In a first phase operations see few of the channels. In a
second phase only the strongest operations remain, and they see more channels (`spaces.grow` widens
their weights). If some entries of a Dirichlet sample are removed and the others rescaled, the
result is a Dirichlet sample of the other concentrations. So removing operations does not change the
distribution of the others.

Deviations: the architecture is derived from the means of the distributions, as the authors describe
it; their code ranks edges by softmax(alpha), which is `score = "softmax"`. On a single edge both
agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

from tutelage.checks import at_least, known_choices, within
from tutelage.clock import Clock
from tutelage.searches.base import (
    NORMAL_AND_REDUCTION,
    Kind,
    Needs,
    Phase,
    fewest,
    near_zero,
    softmax,
)
from tutelage.spaces.base import Allowed, ArchWeights, Space, keeps_none
from tutelage.spaces.genotype import Genotype


class Progress(NamedTuple):
    """The settings of a progressive search in the paper, for one space."""

    partial: tuple[int, int]
    """In each of the two phases, operations see one in so many channels."""
    operations: int
    """Operations of an edge in the second phase."""
    frozen: float
    """Share of a phase's epochs in which only weights train."""


CELLS = Progress(partial=(6, 4), operations=4, frozen=0.4)
"""For cells of DARTS' shape: alphas are frozen for 10 of 25 epochs."""
KEEPING_NONE = Progress(partial=(4, 2), operations=3, frozen=0.2)
"""If `none` is a choice, as in NAS-Bench-201's cell: alphas are frozen for 10 of 50 epochs."""


def may_be_none(space: Space) -> bool:
    """Tell whether `none` is a choice like others: edges have it, and networks keep it."""
    offered = {name for edges in space.operations.values() for names in edges for name in names}
    return "none" in offered and keeps_none(space)


def concentrations(alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the parameters of every edge's distribution, ELU(alpha) + 1, (edges, ops)."""
    # below 0 that is exp(alpha), which elu(alpha) + 1 rounds to 0
    return {group: torch.where(a > 0, a + 1, a.clamp(max=0).exp()) for group, a in alphas.items()}


def divergence(concentration: Tensor) -> Tensor:
    """Sum KL(Dirichlet(concentration) || Dirichlet(1)) over edges, ()."""
    uniform = Dirichlet(torch.ones_like(concentration), validate_args=False)
    return kl_divergence(Dirichlet(concentration, validate_args=False), uniform).sum()


@dataclass(frozen=True)
class DrNas:
    """Sample the weights of operations from Dirichlet distributions."""

    progressive: bool | None = None
    """Whether a second phase has more channels, fewer operations; not set: yes if normal and
    reduction cells have more than 4 operations besides none on every edge, as in darts."""
    partial: int | None = None
    """Operations see one in so many channels at first, K; not set: 6, or 4 where
    none is a choice, as in nasbench201."""
    partial_end: int | None = None
    """The same in the second phase: 4 on CIFAR and 3 on ImageNet; not set: 4, or 2 where none is
    a choice."""
    operations: int | None = None
    """Operations that every edge keeps in the second phase; not set: 4, or 3 where none
    is a choice."""
    frozen: float | None = None
    """Share of a phase's epochs in which only weights train; not set: 0.4 in two phases (0.2 where
    none is a choice), 0 in one."""
    regulariser: Literal["decay", "kl"] = "decay"
    """What keeps concentrations near 1: decay, that of the alphas, or kl (then set decay to 0)."""
    kl_weight: float = 1e-3
    """Weight of the divergence from the uniform distribution, lambda; used only with kl."""
    score: Literal["mean", "softmax"] = "mean"
    """What ranks edges: the mean of their distribution, or the softmax of alphas (the release)."""
    init: float = 1e-3
    """Standard deviation of the initial alphas."""

    def __post_init__(self) -> None:
        for name in ("partial", "partial_end", "operations"):
            if getattr(self, name) is not None:
                at_least(1, **{name: getattr(self, name)})
        within(0, 1, frozen=self.frozen or 0)
        known_choices(self)
        at_least(0, kl_weight=self.kl_weight, init=self.init)

    kind: ClassVar[Kind] = "relaxed"

    def needs(self, space: Space) -> Needs:
        """Leave `none` out if networks never keep it; search in one phase, or in two.

        The second has more channels and fewer operations.

        Raises:
            ValueError: The settings are for a second phase and there is none, or it has fewer
                channels than the first.
        """
        left_out = frozenset() if may_be_none(space) else frozenset({"none"})
        spares = set(space.operations) == NORMAL_AND_REDUCTION
        spares = spares and fewest(space, left_out) > CELLS.operations
        if not (spares if self.progressive is None else self.progressive):
            self._check_alone(space)
            only = Phase(self.frozen or 0.0, partial=self.partial)
            return Needs(left_out=left_out, phases=(only,))
        (first, second), operations, frozen = self._progress(CELLS if left_out else KEEPING_NONE)
        return Needs(
            least=operations + 1,
            why=f"the second phase keeps {operations} and drops the others (with progressive = "
            "false there is none)",
            left_out=left_out,
            channels=36 if spares else None,
            cells=20 if spares else None,
            phases=(
                Phase(frozen, partial=first),
                Phase(frozen, operations=operations, partial=second, carries=True),
            ),
        )

    def alphas(self, space: Space) -> dict[str, Tensor]:
        """Sample alphas (edges, ops) near zero for every group: concentrations near 1."""
        return near_zero(space, self.init)

    def relax(self, alphas: dict[str, Tensor], clock: Clock) -> ArchWeights:
        """Sample the weights of every edge's operations; they are differentiable."""
        beta = concentrations(alphas)
        # Unchecked: a check here would wait for the device; alphas are checked with the losses.
        sampled = {g: Dirichlet(b, validate_args=False).rsample() for g, b in beta.items()}
        if self.regulariser == "decay":
            return ArchWeights(sampled)
        divergences = [divergence(b) for b in beta.values()]
        return ArchWeights(sampled, penalty=self.kl_weight * torch.stack(divergences).sum())

    def expected(self, alphas: dict[str, Tensor]) -> ArchWeights:
        """Return the means of the distributions, beta / sum(beta), or the softmax by `score`."""
        if self.score == "softmax":
            return ArchWeights(softmax(alphas))
        # beta / sum(beta), which no concentration near 0 makes 0 / 0
        logarithms = {g: torch.where(a > 0, a.clamp(min=0).log1p(), a) for g, a in alphas.items()}
        return ArchWeights(softmax(logarithms))

    def derive(
        self, space: Space, alphas: dict[str, Tensor], allowed: Allowed | None = None
    ) -> Genotype:
        """Derive the strongest operations and edges, by the space's rule."""
        return space.genotype(self.expected(alphas).only(allowed))

    def _check_alone(self, space: Space) -> None:
        if self.operations or self.partial_end:
            raise ValueError(
                "operations and partial_end are for a second phase, which the space "
                f"{space.name} does not have by default: give progressive too"
            )

    def _progress(self, usual: Progress) -> Progress:
        first, second = usual.partial
        found = Progress(
            partial=(self.partial or first, self.partial_end or second),
            operations=self.operations or usual.operations,
            frozen=usual.frozen if self.frozen is None else self.frozen,
        )
        first, second = found.partial
        if second > first:
            raise ValueError(
                f"partial_end = {second}: must be at most partial = {first}, since the second "
                "phase sees as many channels or more"
            )
        return found
