"""Teaching losses from one model to another: pure functions of tensors.

Shapes: B images, C classes, D features, G groups of R images. Losses are means over the batch
unless documented otherwise. Nothing is detached here; a method detaches explicitly where its paper
does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """Convert numbers of half precision to float32; leave float32 and float64 as they are."""
    return x if x.dtype == torch.float64 else x.float()


def cross_entropy(
    logits: Tensor, y: Tensor, smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Return the cross-entropy () of logits with labels, with label smoothing.

    Args:
        logits: Logits (B, C).
        y: Labels (B,).
        smoothing: Share of the label spread over all classes.
        weights: Of the classes (C,), for a mean over the batch weighted by its labels; None: equal.
    """
    z = wide(logits)
    weights = None if weights is None else weights.to(z)
    return F.cross_entropy(z, y, weights, label_smoothing=smoothing)


def pseudo_label(student: Tensor, teacher: Tensor, *, hard: bool = False) -> Tensor:
    """Return the cross-entropy () of a student's logits (B, C) with a teacher's labels.

    Args:
        student: Logits (B, C).
        teacher: Logits (B, C); its probabilities are the soft labels.
        hard: Use the teacher's most likely class instead (no gradient reaches the teacher).
    """
    labels = teacher.argmax(-1) if hard else teacher.softmax(-1)
    return F.cross_entropy(student, labels)


def divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the Kullback-Leibler divergence () of a student's probabilities from a teacher's.

    T² KL(softmax(teacher / T) ‖ softmax(student / T)): with the square, the gradient's size does
    not depend on the temperature (Hinton, Vinyals, Dean, 2015).

    Args:
        student: Logits (B, C).
        teacher: Logits (B, C).
        temperature: T; a larger one makes probabilities more uniform.
    """
    log_q = (student / temperature).log_softmax(-1)
    log_p = (teacher / temperature).log_softmax(-1)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


# Relations between images -----------------------------------------------------------------------


def cosines(features: Tensor) -> Tensor:
    """Return the cosines (B, B) between all pairs of features (B, D)."""
    units = F.normalize(features, dim=1)
    return units @ units.T


def partition(images: int, size: int, device: torch.device | None = None) -> Tensor:
    """Divide a batch at random into groups, int64 (G, R); remaining images are in no group.

    Args:
        images: Images in the batch, B.
        size: Images in a group, R, at least 2; fewer if the batch is too small for two groups of
            that size. A batch of less than 4 images has no groups.
        device: Where the groups are sampled; None: the CPU.
    """
    size = min(size, images // 2)
    if size < 2:
        return torch.empty(0, 2, dtype=torch.int64, device=device)
    return torch.randperm(images, device=device)[: images // size * size].view(-1, size)


def group_similarity(cosine: Tensor, groups: Tensor) -> Tensor:
    """Return the smallest cosine (G,) between two images of a group (PAMKD, Eq. 2).

    Args:
        cosine: Cosines of all pairs of images, (B, B).
        groups: Indices of images (G, R).
    """
    return cosine[groups.unsqueeze(2), groups.unsqueeze(1)].amin((1, 2))


def order_hinges(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """Return hinges (..., n, n) on every two of n similarities that the teacher orders.

    max(0, ε - (t_X - t_Y) (s_X - s_Y)) where t_X > t_Y, and 0 elsewhere (PAMKD, Eq. 7).

    Args:
        student: Similarities s (..., n).
        teacher: Similarities t (..., n).
        margin: ε.
    """
    ordered = teacher.unsqueeze(-1) - teacher.unsqueeze(-2)
    fitted = student.unsqueeze(-1) - student.unsqueeze(-2)
    return (margin - ordered * fitted).relu() * (ordered > 0)


# Forms of knowledge (PAMKD's Figure 2) ----------------------------------------------------------


class Answer(NamedTuple):
    """A model's logits and features for a batch, and its weights."""

    logits: Tensor
    """Logits (B, C)."""
    features: Tensor
    """Embeddings (B, D) before the classifier."""
    weights: Mapping[str, Tensor]
    """The model's weights by name."""


Transfer = Callable[[Answer, Answer], Tensor]
"""A teaching loss () of (student, teacher)."""
Knowledge = Literal["groups", "labels", "divergence", "triples", "pairs", "features", "weights"]


def knowledge(
    form: Knowledge,
    images: int,
    *,
    group_size: int = 5,
    margin: float = 0.01,
    reduction: Literal["sum", "mean"] = "sum",
    temperature: float = 1.0,
    device: torch.device | None = None,
) -> Transfer:
    """Return the teaching loss of a form of knowledge; groups are sampled here, once.

    The loss is 0 for a batch of less than 4 images by groups, less than 3 by triples, or of one by
    pairs. The last batch of an epoch may be so small.

    - groups: which of two groups has more similar images (PAMKD, Eq. 7);
    - labels: the teacher's probabilities as labels;
    - divergence: the same minus the labels' entropy, as in mutual learning;
    - triples: which of two images is more similar to a third (You et al., KDD 2017);
    - pairs: whether two images are more similar than its median pair, as labels;
    - features: squared distance of the embeddings;
    - weights: squared distance of all weights that share a name and a shape.

    Args:
        form: The form of knowledge.
        images: Images in the batch, B.
        group_size: Images in a group, R.
        margin: Margin of the hinges of groups and triples, ε.
        reduction: Sum or mean over pairs of groups, over triples.
        temperature: Temperature of the divergence, T.
        device: Where groups are sampled, that of the answers; None: the CPU.
    """
    groups = partition(images, group_size, device) if form == "groups" else torch.empty(0, 0)

    def reduced(hinges: Tensor, ordered: int) -> Tensor:
        return hinges.sum() / (max(1, ordered) if reduction == "mean" else 1)

    def relate_groups(student: Answer, teacher: Answer) -> Tensor:
        s, t = (group_similarity(cosines(each.features), groups) for each in (student, teacher))
        return reduced(order_hinges(s, t, margin), len(s) * (len(s) - 1) // 2)

    def relate_triples(student: Answer, teacher: Answer) -> Tensor:
        hinges = order_hinges(cosines(student.features), cosines(teacher.features), margin)
        others = ~torch.eye(
            images, dtype=torch.bool, device=hinges.device
        )  # three different images
        hinges = hinges * (others.unsqueeze(2) & others.unsqueeze(1))
        return reduced(hinges, images * (images - 1) * (images - 2) // 2)

    forms: dict[str, Transfer] = {
        "groups": relate_groups,
        "labels": lambda s, t: pseudo_label(s.logits, t.logits),
        "divergence": lambda s, t: divergence(s.logits, t.logits, temperature),
        "triples": relate_triples,
        "pairs": lambda s, t: pair_labels(s.features, t.features),
        "features": lambda s, t: feature_distance(s.features, t.features),
        "weights": lambda s, t: weight_distance(s.weights, t.weights),
    }
    return forms[form]


def pair_labels(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the cosine embedding loss () of features (B, D) on pairs that a teacher labels.

    Two images are similar if the teacher's cosine is above the median of all pairs. Then the loss
    is 1 - cosine, otherwise max(0, cosine). No gradient reaches the teacher. One image has no pair,
    and a loss of 0.
    """
    first, second = torch.triu_indices(len(student), len(student), 1).to(student.device)
    theirs, mine = cosines(teacher)[first, second], cosines(student)[first, second]
    alike = theirs > theirs.median()
    return torch.where(alike, 1 - mine, mine.relu()).sum() / max(1, len(mine))


def feature_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared distance () between features (B, D), mean over images."""
    return (student - teacher).square().sum(1).mean()


def weight_distance(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """Return the squared distance () between the weights that share a name and a shape."""
    shared = [n for n, x in student.items() if n in teacher and teacher[n].shape == x.shape]
    return torch.stack([(student[n] - teacher[n]).square().sum() for n in shared]).sum()


# Ensembles --------------------------------------------------------------------------------------


def logit_distance(logits: Tensor) -> Tensor:
    """Return the mean Euclidean distance () of two of m members' logits (m, B, C); 0 for one."""
    count = len(logits)
    images = logits.transpose(0, 1).double()
    apart = torch.cdist(images, images, compute_mode="donot_use_mm_for_euclid_dist")
    return apart.sum((1, 2)).mean() / max(1, count * (count - 1))


# Distances from probabilities -------------------------------------------------------------------

Distance = Literal["kl", "kl-reverse", "euclidean", "manhattan", "cosine"]
EPSILON = 1e-8
"""The least probability of a teacher in a logarithm."""


def distances(form: Distance, student: Tensor, teacher: Tensor) -> Tensor:
    """Return the distance (B,) of a student's probabilities s from a teacher's t for each image.

    - kl: Σ s log(s / t), the student first (SD-DARTS as printed);
    - kl-reverse: Σ t log(t / s), the teacher first (Hinton, Vinyals, Dean, 2015);
    - euclidean: ‖s - t‖₂;
    - manhattan: ‖s - t‖₁;
    - cosine: 1 - <s, t> / ‖s‖ ‖t‖.

    Args:
        form: The distance.
        student: Logits (B, C).
        teacher: Probabilities (B, C).
    """
    student, teacher = wide(student), wide(teacher)  # EPSILON is 0 in float16
    log_s = student.log_softmax(1)
    s, log_t = log_s.exp(), teacher.clamp_min(EPSILON).log()
    if form == "kl":
        return (s * (log_s - log_t)).sum(1)
    if form == "kl-reverse":
        return (teacher * (log_t - log_s)).sum(1)
    if form == "cosine":
        return 1 - F.cosine_similarity(s, teacher, dim=1)
    return torch.linalg.vector_norm(s - teacher, ord=2 if form == "euclidean" else 1, dim=1)
