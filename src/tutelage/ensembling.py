"""The best ensemble of several models' logits on a batch: a small convex problem.

    min_w  f(w) = CE(Σ_i w_i z_i, y)   s.t.  Σ_i w_i = 1                          EnNAS, Eq. 1, 2

    z_i    logits of member i of m, (B, C)
    w      weights (m,); at least 0 in KDCL's linear ensemble (Guo et al., CVPR 2020)
    a_i    margins z_i - z_i[y] over the label, (B, C): f is the mean of log Σ_c exp(Σ_i w_i a_i)
    p      softmax(Σ_i w_i a_i), (B, C)
    g_i    mean of E_p a_i, the gradient (m,)
    H_ij   mean of Cov_p(a_i, a_j), the Hessian (m, m)

It takes damped Newton steps. A pass over the batch computes f, g and H on the device of the logits.
The host gets these m² + m + 1 numbers and minimises their quadratic on the simplex exactly. Three
passes are usual. All is in float64, since float32 loses 2e-7 of f.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Sign = Literal["nonnegative", "any"]
LOWEST: dict[Sign, float] = {"nonnegative": 0.0, "any": -10.0}
"""Least weight of a member. It is needed: if the logits separate the batch, f falls towards 0 as
the weights grow without limit."""
MEMBERS = 12
"""Most members: the time for a quadratic doubles with each."""
MILD = 100.0
"""Widest range of margins that needs no decreasing temperatures."""
ON_A_FACE = 1e-9
"""How far above its bound a weight counts as free to move."""
FLAT = 1e-9
"""Curvature of f, as a share of its scale, below which a direction counts as flat."""
TOLERANCE = 5e-13
"""Decrease of f below which no further step is taken."""


@torch.no_grad()
def ensemble_weights(logits: Tensor, y: Tensor, sign: Sign = "nonnegative") -> Tensor:
    """Return weights (m,) with sum 1 of the ensemble with the lowest cross-entropy on a batch.

    It is at most the best member's cross-entropy. Weights are equal if a logit is not finite.

    Args:
        logits: Logits of m members, (m, B, C).
        y: Labels (B,).
        sign: Weights from 0, or any from -10.

    Raises:
        ValueError: There are more than 12 members.
    """
    m = len(logits)
    if m > MEMBERS:
        raise ValueError(f"the best ensemble of {m} members takes too long: give at most {MEMBERS}")
    margins = logits.to(torch.float64, copy=True)
    margins -= margins.gather(2, y.expand(m, -1).unsqueeze(2))
    least, largest = margins.aminmax()
    spread = float(largest - least)
    w = torch.full((m,), 1 / m, dtype=torch.float64, device="cpu")
    if not math.isfinite(spread):
        return w.to(logits)
    expand = partial(_expand, margins, torch.empty_like(margins))
    descend = partial(_descend, lowest=LOWEST[sign], spread=spread)
    temperature = max(1.0, spread / MILD)
    while temperature > 1:  # f of peaked logits has kinks; a temperature smooths them
        w = descend(w, partial(expand, temperature), tolerance=1e-2 * temperature)
        temperature = max(1.0, temperature / 4)
    return descend(w, partial(expand, 1.0), tolerance=TOLERANCE).to(logits)


def differentiable_weights(logits: Tensor, y: Tensor, sign: Sign = "nonnegative") -> Tensor:
    """Return the same weights as a function of the logits, differentiable once.

    On the face of the weights above their bound the optimum has g_i = μ and Σ w_i = 1, so

        H dw + dg = dμ 1,  Σ dw_i = 0,    dg the change of g with w held.

    Weights at their bound stay there, so a vertex has no derivative. A direction in which f is flat
    has none either: members with equal logits share their weight in any way.

    Args:
        logits: Logits of m members, (m, B, C).
        y: Labels (B,).
        sign: As in `ensemble_weights`.
    """
    found = ensemble_weights(logits.detach(), y, sign)
    if not logits.requires_grad:
        return found
    w, z = found.double(), logits.double()
    error = torch.einsum("m,mbc->bc", w, z).softmax(1) - F.one_hot(y, z.shape[2])
    g = torch.einsum("bc,mbc->m", error, z) / len(y)
    hessian = _expand(z.detach(), torch.empty_like(z), 1.0, w).hessian.to(w)
    if not torch.isfinite(hessian).all():
        return found
    free = (w > LOWEST[sign] + ON_A_FACE).double()
    along = torch.diag(free) - torch.outer(free, free) / free.sum()
    flat = FLAT * (1 + float(hessian.trace()))
    inverse = torch.linalg.pinv(along @ hessian @ along, atol=flat, hermitian=True)
    moved = -(inverse @ g)
    return found + (moved - moved.detach()).to(found)


def _descend(
    w: Tensor,
    expand: Callable[[Tensor], Quadratic],
    *,
    lowest: float,
    spread: float,
    tolerance: float,
) -> Tensor:
    """Take Newton steps from w until f can fall by at most the tolerance.

    If a step changes differences of logits by at most r < 1, the remaining decrease is at most
    about a share r of the step's decrease. If that is small, no further pass has to check it.
    """
    here = expand(w)
    for _ in range(100):
        step = _simplex_minimum(w - lowest, here) + lowest - w
        fall = -float(here.gradient @ step)
        little = tolerance + 1e-14 * here.value
        if fall <= little:
            break
        if fall * spread * float(step.abs().sum()) <= little:
            return w + step
        share = 1.0
        while (there := expand(w + share * step)).value > here.value - 1e-4 * share * fall:
            share /= 2
        w, here = w + share * step, there
    return w


def _expand(margins: Tensor, scratch: Tensor, temperature: float, w: Tensor) -> Quadratic:
    """Expand the mean of T log Σ_c exp(Σ_i w_i a_i / T) about w.

    Args:
        margins: a, (m, B, C).
        scratch: A buffer of the same size.
        temperature: T; in f it is 1.
        w: Weights (m,).
    """
    m, images, _ = margins.shape
    rows = margins.flatten(1)
    mixed = ((w / temperature).to(rows.device) @ rows).view_as(margins[0])
    peak = mixed.amax(1, keepdim=True)
    p = mixed.sub_(peak).exp_()
    total = p.sum(1, keepdim=True)
    p /= total
    value = temperature * (peak + total.log()).mean()
    expected = torch.mul(margins, p, out=scratch).sum(2)
    hessian = (scratch.flatten(1) @ rows.T).addmm_(expected, expected.T, alpha=-1)
    hessian /= temperature * images
    numbers = torch.cat([value.view(1), expected.mean(1), hessian.flatten()]).cpu()
    return Quadratic(float(numbers[0]), numbers[1 : m + 1], numbers[m + 1 :].view(m, m))


def _simplex_minimum(x: Tensor, about: Quadratic) -> Tensor:
    """Minimise a quadratic about x (m,) over points t >= 0 with x's sum: the best of all faces.

    On a face H t + μ = H x - g and Σ t = Σ x. Up to a constant, the quadratic is minus half the
    product of (t, μ) and the right-hand sides.
    """
    m = len(x)
    on, both_on, off = _faces(m)
    system = on.new_ones(m + 1, m + 1)
    system[:m, :m] = about.hessian
    system.diagonal().add_(1e-12 * (1 + float(about.hessian.trace())))  # members may be equal
    system[m, m] = 0
    right = torch.cat([about.hessian @ x - about.gradient, x.sum().view(1)])
    found = torch.linalg.solve_ex(torch.addcmul(off, system, both_on), on * right)[0]
    inside = found[:, :m].amin(1) >= 0
    best = found[torch.where(inside, found @ right, -torch.inf).argmax(), :m]
    return best * (right[m] / best.sum())  # rounding loses 1e-12 of it if H is large


@cache
def _faces(m: int) -> tuple[Tensor, Tensor, Tensor]:
    """List the faces of the simplex of m vertices, with the constraint on the sum as one more row.

    Returns:
        1 for a vertex on the face (F, m + 1); for two on it; for one off it, on the diagonal
        (F, m + 1, m + 1); else 0.
    """
    each = torch.arange(m + 1, device="cpu")
    faces = torch.arange(2**m + 1, 2 ** (m + 1), device="cpu")
    on = (faces.unsqueeze(1) >> each & 1).double()
    return on, on.unsqueeze(1) * on.unsqueeze(2), torch.diag_embed(1 - on)


class Quadratic(NamedTuple):
    """A function of the weights about a point to second order, on the host."""

    value: float
    gradient: Tensor
    hessian: Tensor
