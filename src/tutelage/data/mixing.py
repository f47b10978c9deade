"""Mixed images: each batch is mixed with itself in another order, and so are its labels.

Mixup (Zhang et al.: mixup: Beyond Empirical Risk Minimization. ICLR 2018, arXiv:1710.09412,
section 2) adds two images with the shares s and 1 - s. CutMix (Yun et al.: CutMix: Regularization
Strategy to Train Strong Classifiers. ICCV 2019, arXiv:1905.04899, section 3.1, Eq. 1 and 2) puts a
rectangle of one on the other, whose area is 1 - s of it as far as it is inside. The loss is that of
either label with its share.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from torch import Tensor

from tutelage.batch import Batch
from tutelage.data.device import onto


@dataclass(frozen=True)
class Mixing:
    """How batches are mixed: with both, each batch has one of them, at equal chances."""

    mixup: float = 0.0
    """Both parameters of the beta distribution of mixup's shares; 0: no mixup."""
    cutmix: float = 0.0
    """The same of CutMix."""

    def __bool__(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0


def mix(batch: Batch, how: Mixing, random: np.random.Generator) -> tuple[Batch, Batch]:
    """Combine the images of a batch in pairs; return it and its partner.

    The partner has the share (B,) of the batch's own labels as `x`, the other labels (B,) as `y`,
    and their positions. All random numbers are sampled on the host.

    Args:
        batch: Normalised images (B, C, H, W), which stay as they are.
        how: The settings; at least one of them is above 0.
        random: Of numpy, so that a CPU and a GPU do the same.
    """
    x, y, position = batch
    order = onto(torch.from_numpy(random.permutation(len(x))), x.device)
    chance, down, across = random.random(3)
    cuts = how.cutmix > 0 and (how.mixup == 0 or chance < 0.5)
    beta = how.cutmix if cuts else how.mixup
    share = float(random.beta(beta, beta))
    other = x.index_select(0, order)
    if cuts:
        top, bottom, left, right = rectangle(x.shape[2], x.shape[3], share, down, across)
        mixed = x.clone(memory_format=torch.preserve_format)
        mixed[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (x.shape[2] * x.shape[3])
    else:
        mixed = torch.lerp(other, x, share)
    shares = torch.full((len(x),), share, device=x.device)
    return Batch(mixed, y, position), Batch(shares, y[order], position[order])


def rectangle(
    height: int, width: int, share: float, down: float, across: float
) -> tuple[int, int, int, int]:
    """Return top, bottom, left and right of a rectangle, cut off at the image's border.

    Args:
        height: Of the image.
        width: Of the image.
        share: Of the image that stays; the sides are sqrt(1 - share) of the image's.
        down: Place of its centre, from 0 to 1 of the height.
        across: The same of the width.
    """
    part = sqrt(1 - share)
    tall, wide = int(height * part), int(width * part)
    row, column = int(down * height), int(across * width)
    top, left = max(0, row - tall // 2), max(0, column - wide // 2)
    bottom, right = min(height, row - tall // 2 + tall), min(width, column - wide // 2 + wide)
    return top, bottom, left, right


def shared(own: Tensor, other: Tensor, partner: Batch) -> Tensor:
    """Return the loss of a mixed batch, from those of its own and of its partner's labels."""
    return torch.lerp(other, own, partner.x[0])
