"""LBT: learning by teaching.  Sheth, Jiang, Xie, arXiv:2103.07009.

    min_A   L(T*(A), A; D_val)  +  γ L(S*(T*(A)); D_val)                    Eq. 2
    s.t.    S*(T*(A)) = argmin_S  L(S; D_train) + λ L(S; D_pl(D_u, T*(A)))
            T*(A)     = argmin_T  L(A, T; D_train)                          Eq. 1

    A    the teacher's alphas            D_u    unlabelled images
    T    the teacher's weights           D_pl   D_u with the teacher's predictions as labels
    S    weights of a fixed student

Deviations:
    The printed expansion (Eq. 9 to 12) omits that A affects the labels directly, not only
    through T'. `paths = "all"` is the gradient of the printed objective; "printed" the expansion.
    The authors' later code takes two Adam steps, first on the teacher's validation loss, then on
    the student's (`joint = false`), trains alphas first, updates the student on pseudo-labels and
    then on labels without weights, schedule or clipping (`student_update = "in-turn"`), and in
    first-order mode keeps the student's term (`own_term = "first-order"`): recipe
    `lbt-darts2-cifar10-release`. It labels the virtual student's data by the current teacher's hard
    labels, and that student takes one step on both losses; here the labels are the virtual
    teacher's, and the virtual student takes the steps of the real one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from tutelage.checks import at_least, known_choices
from tutelage.multilevel import Level, Order
from tutelage.problem import Learner, Make, Problem
from tutelage.renamed import keywords
from tutelage.transfer import pseudo_label
from tutelage.trees import detach


@keywords(teacher_exam="validate_teacher")
@dataclass(frozen=True)
class LBT:
    """A searched teacher teaches a fixed student and learns from the student's loss."""

    # in a quick look the student is a chain of identities, the smallest of NAS-Bench-Macro
    student: str = field(default="resnet18", metadata={"quick": "00000000"})
    """The student's genotype: resnet18, resnet50, or another name, text or file."""
    pseudo_weight: float = 1.0
    """Weight of the teacher's labels in the student's loss, λ."""
    student_weight: float = 1.0
    """Weight of the student's validation loss in the loss of the alphas, γ."""
    labels: Literal["soft", "hard"] = "soft"
    """Pseudo-labels: the teacher's probabilities, or its most likely class."""
    human_labels: bool = True
    """Train the student on labelled images too; without: on pseudo-labels only (ablation 2)."""
    validate_teacher: bool = True
    """Include the teacher's own validation loss; without: only the student's (ablation 1)."""
    own_term: Literal["second-order", "first-order"] = "second-order"
    """Whether the teacher's own validation loss is differentiated through T'; the student's is
    always. With first-order and alphas-first it is that of T before its step (release)."""
    student_update: Literal["joint", "in-turn"] = "joint"
    """The student's step: on the weighted sum, or on pseudo-labels and then on labels (release)."""
    joint: bool = True
    """One step of the alphas on both validation losses' sum; without: one step for each
    (release)."""
    paths: Literal["all", "printed"] = "all"
    """All paths of the hypergradient, or those of the paper's expansion."""
    order: Order = "levels-first"
    """What trains first in an iteration: levels-first (Algorithm 1) or alphas-first (release)."""

    def __post_init__(self) -> None:
        at_least(0, pseudo_weight=self.pseudo_weight, student_weight=self.student_weight)
        known_choices(self)
        if not self.validate_teacher and not self.student_weight:
            raise ValueError(
                "validate_teacher = false with student_weight = 0: no loss remains; set one of them"
            )

    def __call__(self, make: Make) -> Problem:
        """Make the three-level problem."""
        teacher, student = make.supernet(), make.fixed(self.student)
        cross_entropy = make.cross_entropy

        def learn(s, batch):  # Eq. 1
            x, y, _ = batch.train
            logits = teacher(s.T, s.A, x)
            return cross_entropy(logits, y), {"train": [logits]}

        def pseudo_labels(s, batch):  # L(S; D_pl(D_u, T))
            u = batch.unlabelled.x
            alphas = s.A_labels if self.paths == "all" else detach(s.A_labels)
            labels = teacher(s.T, alphas, u)
            return pseudo_label(student(s.S, {}, u), labels, hard=self.labels == "hard")

        def human_labels(s, batch):  # L(S; D_train)
            x, y, _ = batch.train
            return cross_entropy(student(s.S, {}, x), y)

        def practise(s, batch):  # the student's stage
            loss = self.pseudo_weight * pseudo_labels(s, batch)
            return loss + human_labels(s, batch) if self.human_labels else loss

        def validate_teacher(s, batch):  # Eq. 2, first term
            x, y, _ = batch.valid
            weights = detach(s.T) if first_order else s.T
            logits = teacher(weights, s.A, x)
            return cross_entropy(logits, y), {"valid": [logits]}

        def validate_student(s, batch):  # Eq. 2, second term
            x, y, _ = batch.valid
            return self.student_weight * cross_entropy(student(s.S, {}, x), y)

        first_order = self.own_term == "first-order"
        before = first_order and self.order == "alphas-first"  # as the release
        aliases = {"A_labels": "A"}
        if self.student_update == "joint":
            student_levels = [Level("S", practise, aliases=aliases)]
        else:
            student_levels = [
                Level("S", pseudo_labels, aliases=aliases, schedule="constant", clip=False)
            ]
            if self.human_labels:
                student_levels.append(Level("S", human_labels, schedule="constant", clip=False))
        validations = []
        if self.validate_teacher:
            own = Level("A", validate_teacher, optimiser="alphas")
            validations.append(replace(own, reads="present") if before else own)
        if self.student_weight:
            validations.append(Level("A", validate_student, optimiser="alphas"))
        return Problem(
            variables={"T": teacher.weights(), "S": student.weights(), "A": teacher.alphas()},
            levels=[Level("T", learn), *student_levels, *validations],
            learners=[Learner(teacher, ("T",), ("A",))],
            order=self.order,
            joint=self.joint,
        )
