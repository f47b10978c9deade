"""What models teach one another, against plain loops in float64."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest
import torch

from tutelage.transfer import (
    Answer,
    Distance,
    Knowledge,
    cosines,
    distances,
    divergence,
    group_similarity,
    knowledge,
    order_hinges,
    pair_labels,
    partition,
)
from tutelage.virtual import FiniteDifference, hold, pass_gradient


def probabilities(logits, temperature=1.0):
    exponentials = [math.exp(float(z) / temperature) for z in logits]
    return [e / sum(exponentials) for e in exponentials]


def cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b))


@pytest.fixture
def answers():
    """A student's and a teacher's answer to 11 images."""
    torch.manual_seed(0)

    def answer():
        logits, features = torch.randn(11, 4).double(), torch.randn(11, 6).double()
        weights = {"same": torch.randn(3).double(), "other": torch.randn(2).double()}
        return Answer(logits, features, weights)

    student, teacher = answer(), answer()
    student.weights["other"] = torch.randn(5).double()
    return student, teacher


def test_divergence_against_loops(answers):
    student, teacher = answers
    for temperature in (1.0, 3.0):
        rows = []
        for s, t in zip(student.logits, teacher.logits, strict=True):
            q, p = probabilities(s, temperature), probabilities(t, temperature)
            rows.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
        expected = temperature**2 * sum(rows) / len(rows)
        assert float(divergence(student.logits, teacher.logits, temperature)) == pytest.approx(
            expected, rel=1e-12
        )


def smallest(features, group):
    return min(cosine(features[i], features[j]) for i, j in itertools.combinations(group, 2))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_groups_against_loops_over_pairs(answers, reduction):
    student, teacher = answers
    torch.manual_seed(3)
    loss = knowledge("groups", 11, group_size=3, margin=0.2, reduction=reduction)(student, teacher)
    torch.manual_seed(3)
    groups = torch.randperm(11)[:9].view(3, 3).tolist()
    hinges = []
    for one, two in itertools.permutations(groups, 2):
        ordered = smallest(teacher.features, one) - smallest(teacher.features, two)
        if ordered > 0:
            fitted = smallest(student.features, one) - smallest(student.features, two)
            hinges.append(max(0.0, 0.2 - ordered * fitted))
    assert len(hinges) == 3
    expected = sum(hinges) / (len(hinges) if reduction == "mean" else 1)
    assert float(loss) == pytest.approx(expected, rel=1e-12)
    assert expected > 0


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_triples_against_loops(answers, reduction):
    student, teacher = answers
    loss = knowledge("triples", 11, margin=0.1, reduction=reduction)(student, teacher)
    hinges = []
    for anchor, one, two in itertools.permutations(range(11), 3):
        t, s = teacher.features, student.features
        ordered = cosine(t[anchor], t[one]) - cosine(t[anchor], t[two])
        if ordered > 0:
            fitted = cosine(s[anchor], s[one]) - cosine(s[anchor], s[two])
            hinges.append(max(0.0, 0.1 - ordered * fitted))
    assert len(hinges) == 11 * 10 * 9 // 2
    expected = sum(hinges) / (len(hinges) if reduction == "mean" else 1)
    assert float(loss) == pytest.approx(expected, rel=1e-12)


def test_pairs_against_loops(answers):
    student, teacher = answers
    places = list(itertools.combinations(range(11), 2))
    theirs = [cosine(teacher.features[i], teacher.features[j]) for i, j in places]
    middle = sorted(theirs)[(len(theirs) - 1) // 2]  # of an even count torch takes the lower
    losses = []
    for (i, j), alike in zip(places, theirs, strict=True):
        mine = cosine(student.features[i], student.features[j])
        losses.append(1 - mine if alike > middle else max(0.0, mine))
    assert float(pair_labels(student.features, teacher.features)) == pytest.approx(
        sum(losses) / len(losses), rel=1e-12
    )


def test_labels_features_and_weights_against_loops(answers):
    student, teacher = answers
    images = range(11)
    q = [probabilities(z) for z in student.logits]
    p = [probabilities(z) for z in teacher.logits]
    labels = sum(-p[i][c] * math.log(q[i][c]) for i in images for c in range(4)) / 11
    distance = sum(
        (float(student.features[i, d]) - float(teacher.features[i, d])) ** 2
        for i in images
        for d in range(6)
    )
    weights = sum(
        (float(a) - float(b)) ** 2
        for a, b in zip(student.weights["same"], teacher.weights["same"], strict=True)
    )
    for form, expected in (("labels", labels), ("features", distance / 11), ("weights", weights)):
        found = float(knowledge(form, 11)(student, teacher))
        assert found == pytest.approx(expected, rel=1e-12)


def test_group_similarity_on_hand_made_embeddings():
    """Two images at 60 degrees, two at 90; and lengths do not matter."""
    features = torch.tensor(
        [[2.0, 0.0], [0.5, math.sqrt(3) / 2], [0.0, 3.0], [1.0, 0.0]], dtype=torch.float64
    )
    found = group_similarity(cosines(features), torch.tensor([[0, 1], [2, 3]]))
    torch.testing.assert_close(found, torch.tensor([0.5, 0.0], dtype=torch.float64))
    both = group_similarity(cosines(features), torch.tensor([[0, 1, 2]]))
    torch.testing.assert_close(both, torch.zeros(1, dtype=torch.float64))


def test_nothing_is_left_to_teach_where_the_student_agrees_beyond_the_margin():
    teacher = torch.tensor([0.9, 0.1, 0.5], dtype=torch.float64)
    agreed = torch.tensor([0.8, 0.0, 0.4], dtype=torch.float64, requires_grad=True)
    loss = order_hinges(agreed, teacher, 0.01).sum()
    (gradient,) = torch.autograd.grad(loss, agreed)
    assert float(loss.detach()) == 0.0
    assert gradient.tolist() == [0.0, 0.0, 0.0]
    reversed_ = agreed.detach().flip(0).requires_grad_()  # 0.4, 0.0, 0.8
    (gradient,) = torch.autograd.grad(order_hinges(reversed_, teacher, 0.01).sum(), reversed_)
    # X > Y of (0, 1) is agreed on; of (0, 2) and (2, 1) by 0.4 each: (0, 2) is the wrong way
    torch.testing.assert_close(gradient, torch.tensor([-0.4, 0.0, 0.4], dtype=torch.float64))


def test_groups_divide_a_batch_and_shrink_with_it():
    groups = partition(64, 5)
    assert groups.shape == (12, 5)
    assert len(set(groups.flatten().tolist())) == 60
    assert partition(7, 5).shape == (2, 3)
    assert partition(4, 5).shape == (2, 2)
    assert [partition(images, 5).shape for images in (1, 2, 3)] == [(0, 2)] * 3
    lonely = Answer(torch.zeros(2, 3), torch.randn(2, 3), {})
    assert float(knowledge("groups", 2)(lonely, lonely)) == 0.0


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize(("form", "least"), [("groups", 4), ("triples", 3), ("pairs", 2)])
def test_a_batch_too_small_to_compare_has_a_loss_and_a_gradient_of_zero(form, least, reduction):
    for images in range(1, least + 1):
        torch.manual_seed(images)
        features = [torch.randn(images, 6, requires_grad=True) for _ in range(2)]
        student, teacher = (Answer(x, x, {}) for x in features)
        loss = knowledge(form, images, margin=4.0, reduction=reduction)(student, teacher)
        (gradient,) = torch.autograd.grad(loss, features[:1])
        if images < least:
            assert loss == 0 and not gradient.any()
        else:  # the largest hinge there is exceeds every difference of cosines
            assert (loss > 0 or form == "pairs") and gradient.isfinite().all()


@pytest.mark.parametrize("form", get_args(Distance))
def test_distances_in_half_precision_are_numbers(form):
    """A teacher that is sure of itself: its other probabilities are 0 in float16."""
    teacher = torch.tensor([[1.0, 0.0, 0.0], [0.25, 0.25, 0.5]])
    student = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, -1.0]])
    expected = distances(form, student, teacher)
    for kind in (torch.float16, torch.bfloat16):
        found = distances(form, student.to(kind), teacher.to(kind))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_every_form_of_knowledge_has_a_loss(answers):
    assert len(get_args(Knowledge)) == 7
    for form in get_args(Knowledge):
        assert knowledge(form, 11)(*answers).shape == ()


# What is held -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sides", [1, 2])
def test_a_held_answer_does_not_shift_with_a_finite_difference(sides):
    """L = a w² h, h = hold(w): g = 2 a w h and dg/dw = 2 a h; were h to move with w, twice that."""
    w = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    a = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    rule = FiniteDifference(1e-4, sides)
    for cut, factor in ((hold, 2.0), (torch.Tensor.detach, 4.0)):
        g = pass_gradient(lambda w, a, cut=cut: a * w**2 * cut(w), w, a, rule)
        (found,) = torch.autograd.grad(g, w)
        assert not found.requires_grad
        assert float(found) == pytest.approx(factor * 0.7 * 1.5, rel=1e-3)
