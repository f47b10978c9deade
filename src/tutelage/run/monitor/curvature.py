"""Probes of collapse: what the alphas of a search tell before its architecture is trained.

A search collapses when its validation loss keeps falling while its architectures get worse, mostly
because skip connections crowd out everything else. The probes here are pure functions; `signs` says
in words when they point that way, and `stopping` has the rules that act on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import grad

from tutelage.problem import Part
from tutelage.run.monitor.early_stopping import by_eigenvalue
from tutelage.spaces.base import Mix
from tutelage.spaces.genotype import Genotype
from tutelage.virtual import Tree, gradient_at, leaves, norm, rebuild, tree_map

MOST_SKIPS = 2
"""Skip connections of a normal cell that are no sign of collapse: P-DARTS keeps as many."""

LANCZOS = 20
"""Vectors that Lanczos holds; up to this size, a dense Hessian takes no more products."""


def skips(genotype: Genotype) -> dict[str, int]:
    """Count the skip connections of every cell."""
    return {
        group: sum(name == "skip_connect" for node in cell.nodes for name, _ in node)
        for group, cell in genotype.cells.items()
    }


def entropy(operations: Mapping[str, Tensor]) -> dict[str, float]:
    """Return how undecided the edges of every group are: 0, one operation each, to 1, uniform.

    mean over edges of -sum_o p_o log p_o / log(ops), p the edge's weights (edges, ops) as shares of
    their sum. An edge without weight, or with one operation, is decided.
    """
    values = {}
    for group, weights in operations.items():
        weights = weights.detach().double()
        shares = weights / weights.sum(1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
        most = math.log(max(weights.shape[1], 2))
        values[group] = float(torch.special.entr(shares).sum(1).mean()) / most
    return values


def signs(skips: Mapping[str, int], eigenvalues: Sequence[float | None]) -> list[str]:
    """Say in plain sentences what points to collapse; an empty list where nothing does.

    More than two skip connections in a cell other than `reduce`: P-DARTS (arXiv:1904.12760) keeps
    two at most, and DARTS+ stops at the second. An eigenvalue that grows too fast: see
    `stopping.by_eigenvalue`. Entropy and alignment have no published threshold, so none is made up.

    Args:
        skips: Of every cell, now.
        eigenvalues: The dominant eigenvalue after every epoch; None where it was not measured.
    """
    found = [
        f"the {f'{group} cell'.replace('cell cell', 'cell')} has {count} skip connections, more "
        f"than {MOST_SKIPS}"
        for group, count in skips.items()
        if count > MOST_SKIPS and group != "reduce"
    ]
    stop = by_eigenvalue(eigenvalues)
    return found if stop is None else [*found, stop.reason]


# Curvature --------------------------------------------------------------------------------------


def dominant_eigenvalue(
    loss: Callable[[Tree], Tensor],
    alphas: Tree,
    *,
    which: Literal["algebraic", "magnitude"] = "algebraic",
    tolerance: float = 1e-3,
    iterations: int = 100,
) -> float:
    """Return the dominant eigenvalue of the Hessian of a loss in the alphas.

    Zela et al., ICLR 2020, arXiv:1909.09656, section 4: that of the validation loss, at fixed
    weights, rises with the test error of the architectures found. Lanczos' method needs only
    products of the Hessian with vectors. The loss is evaluated once: its gradient's graph is kept
    for all products, so they see the same random draws; that takes about the memory of an `Exact`
    step. The caller's generators are left as they were.

    Deviations: "dominant" is the algebraically largest, the paper's lambda_max, as in the release
    (automl/RobustDARTS), so that its growth can be told; the largest in magnitude can be negative
    at fresh weights. The release has the alphas' weight decay on the Hessian's diagonal: not here.

    Args:
        loss: A scalar function () of the alphas, twice differentiable.
        alphas: Where; a tree of tensors.
        which: Algebraically largest, or largest in magnitude, sign kept.
        tolerance: Bound of the relative error. Products in float32 agree with one another to about
            1e-7, so ask for no less than 1e-6 there; that the network itself is in float32 moves
            the value by up to 1e-3. In float64, 0 is machine precision.
        iterations: Restarts of Lanczos' method before it is given up.

    Returns:
        The eigenvalue; nan where the method has not converged or the loss is no finite number,
        since a guess of unknown error would mislead a rule that stops searches.
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
    """Return the product of a loss's Hessian with float64 vectors that are as long as the tree."""
    at = tree_map(lambda x: x.detach().requires_grad_(), at)
    tensors = leaves(at)
    with torch.random.fork_rng(sorted({x.get_device() for x in tensors if x.is_cuda})):
        gradients = gradient_at(loss(at), tensors, create_graph=True)
    curved = [x.requires_grad for x in gradients]
    outputs = [x for x, needed in zip(gradients, curved, strict=True) if needed]

    def product(vector: np.ndarray) -> np.ndarray:
        if not outputs:
            return np.zeros_like(vector)
        parts = torch.from_numpy(vector.reshape(-1)).split([x.numel() for x in tensors])
        v = [p.view(x.shape).to(x) for p, x, c in zip(parts, tensors, curved, strict=True) if c]
        found = grad(outputs, tensors, v, retain_graph=True, materialize_grads=True)
        # torch 2.6: a zero that stands for a missing gradient requires a gradient of its own
        return torch.cat([x.detach().flatten() for x in found]).double().cpu().numpy()

    return product


# Sharpness --------------------------------------------------------------------------------------


def sharpness(loss: Callable[[Tree], Tensor], alphas: Tree, radius: float) -> float:
    """Return by how much a loss rises at a distance from the alphas, where it rises fastest.

    L(A + e) - L(A) with e = radius ∇L / ‖∇L‖: the sharpness of SAM (Foret et al., ICLR 2021,
    arXiv:2010.01412) to first order in where the maximum lies, in the alphas, at fixed weights.
    SD-DARTS' Eq. 3 (arXiv:2302.05629) is the same. Both evaluations see the same random draws, and
    the caller's generators are left as they were.

    Args:
        loss: A scalar function () of the alphas.
        alphas: Where; a tree of tensors.
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


@torch.no_grad()
def accuracy(logits: Callable[[Tensor], Tensor], parts: Iterable[Part]) -> float:
    """Return the share of images whose label is the class with the largest logit."""
    right = [(logits(part.x).argmax(1) == part.y) for part in parts]
    return float(torch.cat(right).double().mean())


# Agreement of cells -----------------------------------------------------------------------------


class PerCell(Mapping[str, Tensor]):
    """Weights of a mix of which every access hands out a copy of its own.

    A supernet reads a group once for each of its cells, so in the place of a mix's operations this
    gives every cell its own leaf of the graph.
    """

    def __init__(self, operations: Mapping[str, Tensor]) -> None:
        self.operations = operations
        self.copies: dict[str, list[Tensor]] = {group: [] for group in operations}

    def __getitem__(self, group: str) -> Tensor:
        copy = self.operations[group].detach().requires_grad_()
        self.copies[group].append(copy)
        return copy

    def __iter__(self) -> Iterator[str]:
        return iter(self.operations)

    def __len__(self) -> int:
        return len(self.operations)


@torch.enable_grad()
def cell_gradients(loss: Callable[[Mix], Tensor], mix: Mix) -> dict[str, list[Tensor]]:
    """Differentiate a loss () in the weights (edges, ops) that every single cell reads.

    Returns:
        For every group, one gradient a cell, in the order of the cells.
    """
    cells = PerCell(mix.operations)
    devices = {x.get_device() for x in mix.operations.values() if x.is_cuda}
    with torch.random.fork_rng(sorted(devices)):
        value = loss(replace(mix, operations=cells))
    return rebuild(cells.copies, iter(gradient_at(value, leaves(cells.copies))))


def layer_alignment(gradients: Sequence[Tensor]) -> float:
    """Return how far the cells of a group agree on what to change, from -1 to 1.

    Movahedi et al., "Lambda-DARTS: mitigating performance collapse by harmonizing operation
    selection among cells", ICLR 2023, arXiv:2210.07998: the mean over pairs of cells of the cosine
    between their gradients of the validation loss. As in the release (dr-faustus/Lambda-DARTS) the
    gradients are those in the mix, after the softmax, and normal cells are what is looked at.

    Args:
        gradients: One (edges, ops) a cell. A zero one agrees with none: its cosines are 0.

    Returns:
        The mean cosine; 1 for a single cell.
    """
    count = len(gradients)
    if count == 1:
        return 1.0
    rows = torch.stack([g.detach().double().flatten() for g in gradients])
    units = F.normalize(rows, dim=1, eps=torch.finfo(rows.dtype).tiny)
    # the squared length of their sum is every pair's cosine twice, and every unit's own square
    return float((units.sum(0).square().sum() - units.square().sum()) / (count * (count - 1)))
