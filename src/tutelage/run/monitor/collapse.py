"""Diagnostics of collapse, measured before an architecture is trained.

A search collapses when its validation loss keeps falling while its architectures get worse, mostly
because skip connections displace all other operations. These are pure functions. `warnings_of`
describes what points to collapse, and `early_stopping` has the rules that act on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.run.monitor.early_stopping import by_eigenvalue
from tutelage.spaces.base import ArchWeights
from tutelage.spaces.genotype import Genotype
from tutelage.trees import leaves
from tutelage.virtual import gradient_at

MOST_SKIPS = 2
"""The most skip connections of a normal cell without a warning: P-DARTS keeps this many."""


def skips(genotype: Genotype) -> dict[str, int]:
    """Count the skip connections of every cell."""
    return {
        group: sum(name == "skip_connect" for node in cell.nodes for name, _ in node)
        for group, cell in genotype.cells.items()
    }


def entropy(operations: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the entropy of the edges of every group, from 0 (one operation each) to 1 (uniform).

    mean over edges of -sum_o p_o log p_o / log(ops), p the edge's weights (edges, ops) as shares of
    their sum. An edge without weight, or with one operation, has entropy 0.
    """
    values = {}
    for group, weights in operations.items():
        weights = weights.detach().double()
        shares = weights / weights.sum(1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
        most = math.log(max(weights.shape[1], 2))
        values[group] = float(torch.special.entr(shares).sum(1).mean()) / most
    return values


def warnings_of(skips: Mapping[str, int], eigenvalues: Sequence[float | None]) -> list[str]:
    """Describe in plain sentences what points to collapse; an empty list if nothing does.

    More than two skip connections in a cell other than `reduce`: P-DARTS (arXiv:1904.12760) keeps
    two at most, and DARTS+ stops at the second. An eigenvalue that grows too fast: see
    `early_stopping.by_eigenvalue`. Entropy and alignment have no published threshold, so they give
    no warning.

    Args:
        skips: The present number of skip connections of every cell.
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


@torch.enable_grad()
def cell_gradients(
    loss: Callable[[ArchWeights], Tensor], arch: ArchWeights, cells: Mapping[str, int]
) -> dict[str, list[Tensor]]:
    """Differentiate a loss () in the weights (edges, ops) of every single cell.

    Args:
        loss: A function of architecture weights.
        arch: Where it is differentiated.
        cells: How many cells each group has.

    Returns:
        For every group, one gradient for each cell, in the order of the cells.
    """
    several = {group for group, count in cells.items() if count > 1}
    operations = {
        group: w.detach().expand(cells[group], *w.shape) if group in several else w.detach()
        for group, w in arch.operations.items()
    }
    operations = {group: w.clone().requires_grad_() for group, w in operations.items()}
    devices = {x.get_device() for x in operations.values() if x.is_cuda}
    with torch.random.fork_rng(sorted(devices)):
        value = loss(replace(arch, operations=operations))
    found = dict(zip(operations, gradient_at(value, leaves(operations)), strict=True))
    return {g: list(x.unbind()) if g in several else [x] for g, x in found.items()}


def layer_alignment(gradients: Sequence[Tensor]) -> float:
    """Return how far the gradients of a group's cells agree, from -1 to 1.

    Movahedi et al., "Lambda-DARTS: mitigating performance collapse by harmonizing operation
    selection among cells", ICLR 2023, arXiv:2210.07998: the mean over pairs of cells of the cosine
    between their gradients of the validation loss. As in the release (dr-faustus/Lambda-DARTS) the
    gradients are those in the architecture weights, after the softmax; the release measures normal
    cells.

    Args:
        gradients: One (edges, ops) for each cell. The cosines of a zero gradient are 0.

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
