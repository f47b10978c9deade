"""A network sees a rank's share of a batch, and what ranks exchange has derivatives.

Every rank holds all variables and makes the whole batch. A network sees the rank's share of the
images, and its output is gathered, so that every rank computes the same loss of the whole batch:
losses know nothing of ranks. With s_r the loss that rank r computes, derivatives are those of the
mean of s_r over ranks, and three functions are closed under differentiation:

    total(x)       Σ_r x_r on every rank                  derivative: total
    gathered(x)    the ranks' rows below one another      derivative: N times a rank's own rows
    own(g)         N times a rank's own rows of g         derivative: gathered

The factor is N because all ranks compute the same of what was gathered: Σ_r g_r = N g. A gradient
in a variable is complete after `average`, one exchange for all its tensors.

In one process nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.ranks import add, count, rank


def average(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Average tensors over the ranks, by one exchange; all ranks get the same bits."""
    if count() == 1 or not tensors:
        return list(tensors)
    flat = torch.cat([x.detach().flatten() for x in tensors])
    add(flat)
    parts = flat.div_(count()).split([x.numel() for x in tensors])
    return [part.view_as(x).to(x.dtype) for part, x in zip(parts, tensors, strict=True)]


class Share(NamedTuple):
    """The images of a batch that a rank computes: rows `start` to `stop` of `total`."""

    start: int
    stop: int
    total: int

    @property
    def empty(self) -> bool:
        """Whether this rank computes none."""
        return self.start == self.stop

    @property
    def rows(self) -> slice:
        """Its rows of a batch."""
        return slice(self.start, self.stop)

    def whole(self, numbers: int) -> int:
        """Count the numbers of all images, given those of this rank's."""
        return numbers // (self.stop - self.start) * self.total

    def largest(self, numbers: int) -> int:
        """Count the numbers of a map on the rank with most images, given those of this rank's.

        What depends on the size of a map is decided by this, so that ranks decide alike.
        """
        return numbers // (self.stop - self.start) * -(-self.total // count())


_present: list[Share | None] = [None]
"""The share of the network in progress; innermost last. None: the network sees all images."""
_learners = [False]
"""Whether ranks compute whole learners each, instead of a share of the images."""
_together = [True]
"""Whether batch statistics are those of all ranks' images."""


def shares(total: int) -> list[Share]:
    """Divide the images of a batch among the ranks, as evenly as possible."""
    ends = [total * r // count() for r in range(count() + 1)]
    return [Share(start, stop, total) for start, stop in pairwise(ends)]


def of(images: int) -> Share | None:
    """Return this rank's share of a batch; None: it computes all of it.

    That is so in one process, and where a batch has fewer images than there are ranks.
    """
    return shares(images)[rank()] if 1 < count() <= images else None


def exchanged(x: Tensor, images: int) -> Tensor:
    """Return the rows of all ranks as they are, given this rank's own by `of`; no derivative."""
    own = of(images)
    if own is None:
        return x
    whole = _empty_for(x, images).zero_()
    whole[own.rows] = x
    return add(whole)


def _empty_for(x: Tensor, images: int) -> Tensor:
    """Return an empty tensor like x, a share of a batch, for all of its images."""
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    form = torch.channels_last if last else torch.contiguous_format
    shape = (images, *x.shape[1:])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=form)


@contextmanager
def share(images: int, learner: int | None = None) -> Iterator[Share | None]:
    """Let networks see this rank's share of a batch, as from `of`; None: all of it.

    Where learners are divided, a learner's rank sees all images, and the
    others none.

    Args:
        images: Images of the batch.
        learner: The network's number among all; None: it is divided by images in any case.
    """
    found, whole = of(images), False
    if learner is not None and _learners[0] and count() > 1:
        found, whole = Share(0, images if learner % count() == rank() else 0, images), True
    _present.append(None if whole else found)
    before = _random_state() if whole else None
    try:
        yield found
    finally:
        _present.pop()
    if before is not None and not before.equal(_random_state()):
        raise ValueError(
            "divide = 'learners': the network draws random numbers while it computes (noise, or "
            "dropout on skip connections), which the other processes would not draw: use --divide "
            "images"
        )


def _random_state() -> Tensor:
    """Return the states of the generators that a network draws from: the CPU's, and its GPU's."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states.append(torch.cuda.get_rng_state())
    return torch.cat(states)


def present() -> Share | None:
    """Return the share of the network in progress; None: it sees all images."""
    return _present[-1]


def normalised_together() -> Share | None:
    """Return the share of the network in progress, if its statistics are those of all ranks."""
    return _present[-1] if _together[0] else None


def by_learners(divide: bool) -> AbstractContextManager[None]:
    """Let each rank compute whole learners, or a share of every batch."""
    return _set(_learners, divide)


def statistics(together: bool) -> AbstractContextManager[None]:
    """Normalise by the images of all ranks, or each rank by its own."""
    return _set(_together, together)


@contextmanager
def _set(choice: list[bool], value: bool) -> Iterator[None]:
    before, choice[0] = choice[0], value
    try:
        yield
    finally:
        choice[0] = before


def gathered(x: Tensor, own: Share | None) -> Tensor:
    """Return the rows (B, ...) of all ranks, given this rank's share of them (b, ...)."""
    return x if own is None else _Gathered.apply(x, own)


def shared(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return a network's output (B, ...) for images, of which each rank computes its share."""
    with share(len(x)) as own:
        return gathered(network(x if own is None else x[own.rows]), own)


def placed(x: Tensor) -> Tensor:
    """Return the x of every rank, stacked (ranks, ...), where ranks go on differently."""
    return total(own_place(x))


def own_place(x: Tensor) -> Tensor:
    """Return zeros (ranks, ...) with x in this rank's place: their `total` is `placed`."""
    return torch.stack([x if r == rank() else torch.zeros_like(x) for r in range(count())])


def total(x: Tensor) -> Tensor:
    """Add the x of all ranks."""
    return _Total.apply(x)


def random_like(x: Tensor, fill: Callable[[Tensor], Tensor]) -> Tensor:
    """Return random numbers of the shape of x, the same as in one process.

    Ranks have equal generators. So where x (b, ...) is of a share of a batch, each rank draws the
    numbers of all images and keeps its own.

    Args:
        x: Gives shape, type, device and layout.
        fill: Fills an empty tensor with random numbers, in place.
    """
    own, empty = _present[-1], torch.empty_like(x)
    return fill(empty) if own is None else fill(_empty_for(empty, own.total))[own.rows]


def dropout(x: Tensor, probability: float, training: bool = True) -> Tensor:
    """Zero numbers of x (B, ...) with a probability, and scale the others up."""
    if not (probability and training and _present[-1]):
        return F.dropout(x, probability, training)
    kept = random_like(x, lambda empty: empty.bernoulli_(1 - probability))
    return x * kept.div_(1 - probability)


class _Total(torch.autograd.Function):
    """The sum over ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return add(x.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return _Total.apply(g)


class _Gathered(torch.autograd.Function):
    """The rows of all ranks, of which every rank computes the same."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, own: Share) -> Tensor:
        ctx.own = own
        whole = _empty_for(x, own.total).zero_()
        whole[own.rows] = x
        return add(whole)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return _Own.apply(g, ctx.own), None


class _Own(torch.autograd.Function):
    """A rank's own rows of a cotangent that is the same on all ranks, times their number."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, own: Share) -> Tensor:
        ctx.own = own
        return g[own.rows] * count()

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None]:
        return _Gathered.apply(v, ctx.own), None
