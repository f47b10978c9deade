"""What one model can teach another: pure functions of tensors.

Shapes: B images, C classes. Losses are means over the batch. Nothing is detached here; a method
detaches where its paper does, in sight.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy () of logits (B, C) with labels (B,)."""
    return F.cross_entropy(logits.float() if logits.dtype != torch.float64 else logits, y)


def pseudo_label(student: Tensor, teacher: Tensor, *, hard: bool = False) -> Tensor:
    """Cross-entropy () of a student's logits (B, C) with the labels that a teacher gives.

    Args:
        student: Logits (B, C).
        teacher: Logits (B, C); its probabilities are the soft labels.
        hard: Take the teacher's most likely class instead (no gradient reaches the teacher).
    """
    labels = teacher.argmax(-1) if hard else teacher.softmax(-1)
    return F.cross_entropy(student, labels)
