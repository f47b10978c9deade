"""Curvature of the validation loss in the alphas: its dominant eigenvalue, and its sharpness."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.autograd import grad

from tutelage.trees import Tree, leaves, norm, rebuild, tree_map
from tutelage.virtual import gradient_at

LANCZOS = 20
"""Vectors that Lanczos' method holds. Up to this size, a dense Hessian takes no more products."""


def dominant_eigenvalue(
    loss: Callable[[Tree], Tensor],
    alphas: Tree,
    *,
    which: Literal["algebraic", "magnitude"] = "algebraic",
    tolerance: float = 1e-3,
    iterations: int = 100,
) -> float:
    """Return the dominant eigenvalue of the Hessian of a loss in the alphas.

    Zela et al., ICLR 2020, arXiv:1909.09656, section 4: the eigenvalue of the validation loss, at
    fixed weights, rises with the test error of the architectures found. Lanczos' method needs only
    products of the Hessian with vectors. The loss is evaluated once. Its gradient's graph is kept
    for all products, so that they use the same random numbers; this takes about the memory of an
    `Exact` step. The state of the caller's random generators does not change.

    Deviations: "dominant" is the algebraically largest, the paper's lambda_max, as in the release
    (automl/RobustDARTS), so that its growth can be measured; the largest in magnitude can be
    negative at initial weights. The release adds the alphas' weight decay to the Hessian's
    diagonal; here it is not added.

    Args:
        loss: A scalar function () of the alphas, twice differentiable.
        alphas: The point of evaluation; a tree of tensors.
        which: Algebraically largest, or largest in magnitude, with its sign.
        tolerance: Bound of the relative error. Products in float32 agree with one another to about
            1e-7, so use 1e-6 or more there. A network in float32 itself changes the value by up to
            1e-3. In float64, 0 is machine precision.
        iterations: Restarts of Lanczos' method before it counts as not converged.

    Returns:
        The eigenvalue; nan where the method has not converged or the loss is not finite, since a
        value of unknown error would mislead a rule that stops searches.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh  # slow to import

    product = hessian(loss, alphas)
    size = sum(x.numel() for x in leaves(alphas))
    if size <= LANCZOS:
        dense = np.stack([product(row) for row in np.eye(size)])
        if not np.isfinite(dense).all():
            return math.nan
        values = np.linalg.eigvalsh((dense + dense.T) / 2)
        return float(values[-1] if which == "algebraic" else max(values, key=abs))
    start = np.random.default_rng(0).standard_normal(size)
    first = product(start)
    if not np.isfinite(first).all():
        return math.nan
    if not first.any():
        return 0.0
    try:
        (value,) = eigsh(
            LinearOperator((size, size), matvec=product, dtype=np.float64),
            k=1,
            which="LA" if which == "algebraic" else "LM",
            v0=start,
            ncv=LANCZOS,
            maxiter=iterations,
            tol=tolerance,
            return_eigenvectors=False,
        )
    except ArpackNoConvergence:
        return math.nan
    return float(value)


@torch.enable_grad()
def hessian(loss: Callable[[Tree], Tensor], at: Tree) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function: product of a loss's Hessian with a float64 vector of the tree's size."""
    at = tree_map(lambda x: x.detach().requires_grad_(), at)
    tensors = leaves(at)
    with torch.random.fork_rng(sorted({x.get_device() for x in tensors if x.is_cuda})):
        gradients = gradient_at(loss(at), tensors, create_graph=True)
    curved = [x.requires_grad for x in gradients]
    outputs = [x for x, needed in zip(gradients, curved, strict=True) if needed]

    def product(vector: np.ndarray) -> np.ndarray:
        if not outputs:
            return np.zeros_like(vector)
        pieces = torch.from_numpy(vector.reshape(-1)).split([x.numel() for x in tensors])
        v = [p.view(x.shape).to(x) for p, x, c in zip(pieces, tensors, curved, strict=True) if c]
        found = grad(outputs, tensors, v, retain_graph=True, materialize_grads=True)
        # torch 2.6: a zero that stands for a missing gradient requires a gradient of its own
        return torch.cat([x.detach().flatten() for x in found]).double().cpu().numpy()

    return product


def sharpness(loss: Callable[[Tree], Tensor], alphas: Tree, radius: float) -> float:
    """Return by how much a loss rises at a distance from the alphas, along its gradient.

    L(A + e) - L(A) with e = radius ∇L / ‖∇L‖: the sharpness of SAM (Foret et al., ICLR 2021,
    arXiv:2010.01412) in the alphas, at fixed weights, with the maximum located to first order.
    SD-DARTS' Eq. 3 (arXiv:2302.05629) is the same. Both evaluations use the same random numbers,
    and the state of the caller's random generators does not change.

    Args:
        loss: A scalar function () of the alphas.
        alphas: The point of evaluation; a tree of tensors.
        radius: Distance in the space of all alphas, rho.

    Returns:
        The rise; 0 where there is no gradient.
    """
    at = tree_map(lambda x: x.detach().requires_grad_(), alphas)
    devices = sorted({x.get_device() for x in leaves(at) if x.is_cuda})
    with torch.random.fork_rng(devices), torch.enable_grad():
        here = loss(at)
        gradients = gradient_at(here, leaves(at))
    step = radius / norm(gradients).clamp_min(torch.finfo(here.dtype).tiny)
    moved = [x.detach() + step * g for x, g in zip(leaves(at), gradients, strict=True)]
    with torch.random.fork_rng(devices), torch.no_grad():
        there = loss(rebuild(at, iter(moved)))
    return float(there - here.detach())
