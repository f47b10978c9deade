"""The virtual step, the only differentiable primitive of multilevel optimisation.

    w' = w - lr * (momentum * velocity + g + weight_decay * w),    g = dL(w, u)/dw

Autograd cannot cheaply differentiate through g. This is done here: for a cotangent v on g,

    w_bar = d<g, v>/dw        u_bar = d<g, v>/du

by a rule that the caller passes: `Exact()`, `FiniteDifference(radius)` or `FirstOrder()`.
Everything else is ordinary autograd, so any number of levels, learners and virtual steps, momentum,
decay and clipping need no further formula. All cotangents of a step are added before its single
product is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd import grad

from tutelage.shares import average
from tutelage.trees import Tree, leaves, norm, rebuild

Product = Callable[[Sequence[Tensor]], "list[Tensor | None]"]


class Rate(NamedTuple):
    """SGD's settings of a variable, for both virtual and real steps."""

    lr: float | Tensor
    """A number, or a tensor () on the variable's device, which a recorded step reads anew."""
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip: float = 0.0
    """Largest norm of one learner's gradient; 0: no clipping."""
    nesterov: bool = False
    """Nesterov's rule: step by the gradient plus momentum times the new velocity."""


_held: list[Iterator[Tensor] | list[Tensor]] = []
"""The values that `hold` stores or repeats for the loss in evaluation; innermost last."""


def hold(x: Tensor) -> Tensor:
    """Detach a value and hold it fixed: in a loss, to treat a model's output as data.

    A finite difference evaluates the loss again at shifted weights. A value that is only detached
    would change with them, and its change would count in the derivative. A held value is constant.
    """
    if not _held:
        return x.detach()
    memory = _held[-1]
    if isinstance(memory, list):
        memory.append(x.detach())
        return memory[-1]
    return next(memory)


@contextmanager
def _holding(memory: Iterator[Tensor] | list[Tensor]) -> Iterator[None]:
    _held.append(memory)
    try:
        yield
    finally:
        _held.pop()


# Rules: how d<g, v> is evaluated ----------------------------------------------------------------


class Via(Protocol):
    """A rule for the derivative of a gradient."""

    unrolls: ClassVar[bool]
    """Whether a derivative passes through the virtual step."""

    def gradient(
        self, loss: Callable[..., Tensor], w: list[Tensor], u: list[Tensor], needed: Sequence[bool]
    ) -> tuple[list[Tensor], Product]:
        """Return g = d loss(w, u)/dw and the product v -> d<g, v>/d(w, u).

        The product has one entry for every tensor of w, then u; None if not needed or zero.
        """


@dataclass(frozen=True)
class Exact:
    """Double backward: the exact gradient of the unrolled objective."""

    recompute: bool = False
    """Evaluate the loss again for the product instead of keeping its graph; saves memory."""

    unrolls: ClassVar[bool] = True

    def gradient(
        self, loss: Callable[..., Tensor], w: list[Tensor], u: list[Tensor], needed: Sequence[bool]
    ) -> tuple[list[Tensor], Product]:
        """See `Via`."""
        # views of leaves: of those the engine can say whether a pass asks their gradient
        w, u = (
            [x.view_as(x) for x in each] for each in (_require(w), _require(u, needed[len(w) :]))
        )
        replay = _Replay()
        g = gradient_at(loss(w, u), w, create_graph=not self.recompute)

        def product(v: Sequence[Tensor]) -> list[Tensor | None]:
            wanted = [x for x, need in zip([*w, *u], needed, strict=True) if need]
            held = g
            if self.recompute:
                with replay():
                    held = gradient_at(loss(w, u), w, create_graph=True)
            pairs = [(x, y) for x, y in zip(held, v, strict=True) if x.requires_grad]
            found = iter(
                grad([x for x, _ in pairs], wanted, [y for _, y in pairs], allow_unused=True)
                if pairs
                else [None] * len(wanted)
            )
            return [next(found) if need else None for need in needed]

        return [x.detach() for x in g], product


@dataclass(frozen=True)
class FiniteDifference:
    """DARTS' rule (Eq. 7 and 8 there): a difference of two gradients along v.

    d<g, v>/du = (dL(w + e v, u)/du - dL(w - e v, u)/du) / 2e with e = radius / ||v||, and the same
    for w. On networks with ReLU this is a different estimator from `Exact`. Its error grows as the
    radius shrinks, because the gradient jumps where a unit switches.
    """

    radius: float = 0.01
    """Length of the step in weight space, over all learners of the variable together."""
    sides: Literal[1, 2] = 2
    """2: a central difference; 1: a forward one, which reuses the gradient at w and takes half."""

    unrolls: ClassVar[bool] = True

    def gradient(
        self, loss: Callable[..., Tensor], w: list[Tensor], u: list[Tensor], needed: Sequence[bool]
    ) -> tuple[list[Tensor], Product]:
        """See `Via`."""
        w, u = _require(w), _require(u, needed[len(w) :])
        replay = _Replay()
        wanted = [x for x, need in zip([*w, *u], needed, strict=True) if need]
        held: list[Tensor] = []
        with _holding(held):
            value = loss(w, u)
        if self.sides == 1:
            found = gradient_at(value, [*w, *wanted])
            # g becomes part of the outer graph; a tensor requested twice is returned once
            g, centre = found[: len(w)], [x.detach() for x in found[len(w) :]]
        else:
            g, centre = gradient_at(value, w), []

        def shifted(v: Sequence[Tensor], step: Tensor) -> list[Tensor]:
            moved = _require([x + step * y for x, y in zip(w, v, strict=True)])
            at = [x for x, need in zip([*moved, *u], needed, strict=True) if need]
            with replay(), _holding(iter(held)):
                return gradient_at(loss(moved, u), at)

        def product(v: Sequence[Tensor]) -> list[Tensor | None]:
            step = self.radius / norm(v).clamp_min(torch.finfo(v[0].dtype).tiny)
            upper = shifted(v, step)
            lower, width = (shifted(v, -step), 2 * step) if self.sides == 2 else (centre, step)
            found = iter([(p - n) / width for p, n in zip(upper, lower, strict=True)])
            return [next(found) if need else None for need in needed]

        return g, product


@dataclass(frozen=True)
class FirstOrder:
    """No unrolling: the virtual step's derivative is left out."""

    unrolls: ClassVar[bool] = False

    def gradient(
        self, loss: Callable[..., Tensor], w: list[Tensor], u: list[Tensor], needed: Sequence[bool]
    ) -> tuple[list[Tensor], Product]:
        """See `Via`."""
        w = _require(w)
        return gradient_at(loss(w, u), w), lambda v: [None] * len(needed)


def _require(tensors: Sequence[Tensor], needed: Sequence[bool] | None = None) -> list[Tensor]:
    flags = [True] * len(tensors) if needed is None else needed
    return [x.detach().requires_grad_(flag) for x, flag in zip(tensors, flags, strict=True)]


def gradient_at(value: Tensor, at: Sequence[Tensor], create_graph: bool = False) -> list[Tensor]:
    """Differentiate a scalar () at tensors; zeros for those that it does not depend on."""
    if not value.requires_grad:  # a sampled path of only `none` depends on nothing
        return [torch.zeros_like(x) for x in at]
    found = grad(value, at, create_graph=create_graph, allow_unused=True, materialize_grads=True)
    # torch 2.6: a zero that stands for a missing gradient requires a gradient of its own
    return list(found) if create_graph else [x.detach() for x in found]


_repeating = [0]
"""How many repetitions of random numbers are in progress, one inside the other."""


def repeats() -> bool:
    """Tell whether a rule evaluates a loss again, with the same random numbers as before."""
    return _repeating[0] > 0


class _Replay:
    """Store the generators' states; a call repeats the random numbers from this point.

    No generator's state can be read or set while a CUDA graph records. A step is only recorded if
    nothing was random in its repeated evaluations, so then the states do not matter.
    """

    def __init__(self) -> None:
        self.records = torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
        if self.records:
            return
        self.cpu = torch.get_rng_state()
        self.devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
        self.cuda = [torch.cuda.get_rng_state(device) for device in self.devices]

    @contextmanager
    def __call__(self) -> Iterator[None]:
        _repeating[0] += 1
        try:
            with nullcontext() if self.records else self._repeated():
                yield
        finally:
            _repeating[0] -= 1

    @contextmanager
    def _repeated(self) -> Iterator[None]:
        with torch.random.fork_rng(self.devices):
            torch.set_rng_state(self.cpu)
            for device, state in zip(self.devices, self.cuda, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield


# The primitive ----------------------------------------------------------------------------------


class _PassGradient(torch.autograd.Function):
    """g = dL(w, u)/dw, whose derivative is computed by a rule."""

    @staticmethod
    def forward(
        ctx: Any, loss: Callable[..., Tensor], via: Via, count: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        w, u = list(tensors[:count]), list(tensors[count:])
        with torch.enable_grad():
            g, ctx.product = via.gradient(loss, w, u, ctx.needs_input_grad[3:])
        ctx.unrolls = via.unrolls
        return tuple(average(g))

    @staticmethod
    def backward(ctx: Any, *v: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a virtual step is differentiable once: its backward pass was called with "
                "create_graph=True, which would need third derivatives; unroll the inner problem "
                "with torch.autograd.grad(..., create_graph=True) instead"
            )
        product, ctx.product = ctx.product, None  # frees the inner graph with the outer one
        # every rank's product, of its own images, is with that of all; without one none is needed
        whole = average(v) if ctx.unrolls else v
        with torch.enable_grad():
            found = product(whole)
        return (None, None, None, *found)


def descend(w: Tree, g: Tree, velocity: Tree | None, rate: Rate) -> tuple[Tree, Tree]:
    """Take SGD's step; return the new variable and the new velocity.

    d = clip(g) + weight_decay * w;  velocity' = momentum * velocity + d;  w' = w - lr * velocity'
    or, by Nesterov's rule,  w' = w - lr * (d + momentum * velocity').

    Clipping scales each learner's gradient to norm `clip` if its norm is larger.
    """
    if not isinstance(w, list):
        return _descend(w, g, velocity, rate)
    velocities = [None] * len(w) if velocity is None else velocity
    steps = [_descend(*learner, rate) for learner in zip(w, g, velocities, strict=True)]
    return [new for new, _ in steps], [moved for _, moved in steps]


def _descend(w: Tree, g: Tree, velocity: Tree | None, rate: Rate) -> tuple[Tree, Tree]:
    """Take one learner's step, with its tensors concatenated: one operation for all of them."""
    if not leaves(w):
        return w, w
    x, dx = _flat(w), _flat(g)
    if rate.clip:
        # torch.nn.utils.clip_grad_norm_'s own constant
        length = torch.linalg.vector_norm(dx) + 1e-6
        dx = dx * (rate.clip / length).clamp_max(1.0)
    step = decayed = torch.add(dx, x, alpha=rate.weight_decay) if rate.weight_decay else dx
    if velocity is not None:
        step = torch.add(step, _flat(velocity), alpha=rate.momentum)
    moved = step
    if rate.nesterov:
        step = torch.add(decayed, moved, alpha=rate.momentum)
    # one operation for a number and for a tensor, so that both give the same bits
    lr = rate.lr.to(x.dtype) if isinstance(rate.lr, Tensor) else x.new_full((), rate.lr)
    return _split(torch.addcmul(x, step, lr, value=-1), w), _split(moved, w)


def _flat(tree: Tree) -> Tensor:
    """Concatenate all entries of a tree, (n,)."""
    return torch.cat([leaf.flatten() for leaf in leaves(tree)])


def _split(flat: Tensor, tree: Tree) -> Tree:
    """Split a vector (n,) into a tree with the shapes and types of another."""
    like = leaves(tree)
    parts = flat.split([leaf.numel() for leaf in like])
    pairs = zip(parts, like, strict=True)
    return rebuild(tree, (x.view(leaf.shape).to(leaf.dtype) for x, leaf in pairs))


def virtual_step(
    loss: Callable[[Tree, Tree], Tensor],
    w: Tree,
    u: Tree,
    *,
    lr: float,
    via: Via,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    clip: float = 0.0,
    velocity: Tree | None = None,
) -> Tree:
    """Take one SGD step on loss(w, u) in w that is differentiable in w and u, once.

    Args:
        loss: A scalar function () of two trees.
        w: The variable that steps.
        u: The other variables of the loss.
        lr: Learning rate.
        via: The rule for the derivative of the gradient.
        momentum: Factor on `velocity` (DARTS' convention; no effect without one).
        weight_decay: Factor on w, added to the gradient.
        clip: Largest norm of one learner's gradient; 0: no clipping.
        velocity: SGD's momentum buffer, a tree like w.

    Returns:
        w', a tree like w.

    Raises:
        RuntimeError: A derivative of the backward pass itself is requested.
    """
    g = pass_gradient(loss, w, u, via)
    return descend(w, g, velocity, Rate(lr, momentum, weight_decay, clip))[0]


def pass_gradient(loss: Callable[[Tree, Tree], Tensor], w: Tree, u: Tree, via: Via) -> Tree:
    """Return d loss(w, u)/dw, a tree like w, differentiable in w and u by the rule `via`."""
    flat_w, flat_u = leaves(w), leaves(u)

    def flat_loss(w_: list[Tensor], u_: list[Tensor]) -> Tensor:
        return loss(rebuild(w, iter(w_)), rebuild(u, iter(u_)))

    return rebuild(w, iter(_PassGradient.apply(flat_loss, via, len(flat_w), *flat_w, *flat_u)))
