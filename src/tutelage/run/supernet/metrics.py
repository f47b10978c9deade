"""Measurements of an epoch's steps, collected without waiting for the device, then averaged."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final, final

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.multilevel import Notes, Report
from tutelage.records.rows import LearnerScores, Teaching
from tutelage.records.typed import typed
from tutelage.transfer import logit_distance

Place = tuple[str | int, ...]
"""The place of a value among all measurements.

    ("loss", level)                       a level's loss
    ("gradient", top, part)               the norm of a part of the alphas' gradient
    ("learners", learner, score)          a field of `LearnerScores`
    ("teaching", what)                    a field of `Teaching` that is a number
    ("matrices", what, learner, peer)     an entry of one that is a matrix
"""

STILL: Final = 20
"""Steps without any gradient after which a search stops; with a sampled path, one may have none."""
_INDEPENDENT: Final = (
    "with these settings their loss does not depend on them; --via first-order lets no gradient "
    "pass a lower level, so use --via exact"
)
_SATURATED: Final = (
    "it was not zero before, so the networks' outputs no longer depend on the images; a lower "
    "--weights.lr, larger batches or a smaller weight of teaching may help"
)


@final
class Meter:
    """Losses, scores of learners and gradients' norms, of the last step and of the epoch so far."""

    def __init__(self) -> None:
        self.last: dict[Place, float] = {}
        self._sums: dict[Place, float] = defaultdict(float)
        self._counts: dict[Place, int] = defaultdict(int)
        self._unchecked: list[tuple[Sequence[Place], Tensor]] = []
        self._still, self._moved = 0, False

    def add(self, places: Sequence[Place], values: Tensor) -> None:
        """Store what one step measured, as `measured` returns it; the device may still compute."""
        self._unchecked.append((places, values))

    def check(self, epoch: int, step: int) -> None:
        """Wait for the device and read what was stored, all at once.

        Args:
            epoch: The present epoch.
            step: The step that was done last.

        Raises:
            ValueError: A loss is not finite, or the alphas have had no gradient for too long.
        """
        stored = self._unchecked
        vectors = [values for places, values in stored if places]
        rest = iter(torch.cat(vectors).tolist() if vectors else ())
        for at, (places, _) in enumerate(stored, start=step - len(stored) + 1):
            self.last = dict(zip(places, islice(rest, len(places)), strict=True))
            self.last = {p: x for p, x in self.last.items() if not _unknown(p, x)}
            for place, number in self.last.items():
                if place[0] == "loss" and not math.isfinite(number):
                    raise ValueError(
                        f"the loss of level {place[1]!r} is {number} at epoch {epoch}, step {at}, "
                        "and the step is not saved; a lower --weights.lr or --precision fp32 may "
                        "help"
                    )
                self._sums[place] += number
                self._counts[place] += 1
            terms = [x for place, x in self.last.items() if place[0] == "gradient"]
            self._still = 0 if not terms or any(terms) else self._still + 1
            self._moved |= any(terms)
            if self._still == STILL:
                raise ValueError(
                    f"the alphas' gradient has been zero for {STILL} steps at epoch {epoch}, step "
                    f"{at}: {_SATURATED if self._moved else _INDEPENDENT}"
                )
        self._unchecked = []

    @property
    def means(self) -> dict[Place, float]:
        """Every value's mean over the epoch so far."""
        return {place: total / self._counts[place] for place, total in self._sums.items()}

    def clear(self) -> None:
        """Clear the values at the start of an epoch."""
        self.last = {}
        self._sums.clear()
        self._counts.clear()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def zeros(self) -> dict[str, Any]:
        """Return what a checkpoint holds of the alphas' gradient: it outlasts an epoch."""
        return {"still": self._still, "moved": self._moved}

    def restore(self, state: Mapping[str, Any], zeros: Mapping[str, Any] | None = None) -> None:
        """Resume from a checkpoint; those of earlier releases have no zeros."""
        sums = typed(state["sums"], dict[tuple[str | int, ...], float], strict=True)
        counts = typed(state["counts"], dict[tuple[str | int, ...], int], strict=True)
        wrong = next((x for x in sums if not _place(x) or counts.get(x, 0) < 1), None)
        if wrong or sums.keys() != counts.keys():
            raise ValueError(f"meter has no sum and count of the same values, as of {wrong}")
        self._sums.update(sums)
        self._counts.update(counts)
        moved = any(total for place, total in sums.items() if place[0] == "gradient")
        zeros = {"still": 0, "moved": moved} if zeros is None else zeros
        self._still = typed(zeros["still"], int, strict=True)
        self._moved = typed(zeros["moved"], bool, strict=True)
        if not 0 <= self._still < STILL:
            raise ValueError(f"still is {self._still}: must be from 0 to {STILL - 1}")
        entries(self.means)  # refuses scores of other names


def measured(report: Report, batch: Any) -> tuple[list[Place], Tensor]:
    """Return what one step reports, as places and one vector of values (places,), float64."""
    values: dict[Place, Tensor] = {("loss", name): x for name, x in report.losses.items()}
    values |= {
        ("gradient", top, part): value
        for top, terms in report.terms.items()
        for part, value in terms.items()
    }
    values |= _marks(report.notes, batch)
    if not values:
        return [], torch.empty(0, dtype=torch.float64)
    return list(values), torch.stack([x.detach().double() for x in values.values()])


def entries(values: Mapping[Place, float]) -> dict[str, Any]:
    """Sort values into a row's entries: losses, learners' scores, norms, and teaching."""
    found = nested(values)
    return {
        "loss": found.get("loss", {}),
        "learners": learners(values),
        "gradient": found.get("gradient", {}),
        "teaching": teaching(values),
    }


def learners(values: Mapping[Place, float]) -> list[LearnerScores]:
    """Collect the scores of learners, in the order of their numbers."""
    found = nested(values).get("learners", {})
    return [LearnerScores(**found[k]) for k in sorted(found)]


def teaching(values: Mapping[Place, float]) -> Teaching:
    """Collect how learners teach one another: numbers, and matrices [learner][peer]."""
    found = nested(values)
    measured = dict(found.get("teaching", {}))
    for what, matrix in found.get("matrices", {}).items():
        measured[what] = [list(row.values()) for row in matrix.values()]
    return Teaching(**measured)


def nested(values: Mapping[Place, float]) -> dict[Any, Any]:
    """Make nested dictionaries of places.

    >>> nested({("loss", "V"): 1.0, ("loss", "W"): 2.0, ("learners", 0, "train_loss"): 3.0})
    {'loss': {'V': 1.0, 'W': 2.0}, 'learners': {0: {'train_loss': 3.0}}}
    """
    found: dict[Any, Any] = {}
    for (*outer, last), value in values.items():
        inner = found
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return found


def teaching_line(found: Teaching) -> str:
    """Summarise which learners teach which; empty if there is no teaching.

    >>> teaching_line(Teaching(gate=[[0.0, 0.25], [0.0, 0.0]]))
    'gate 0 from 1 0.250'
    """
    words = []
    for what in ("gate", "attention", "transfer"):
        pairs = [
            f"{k} from {j} {value:.3f}"
            for k, row in enumerate(getattr(found, what) or ())
            for j, value in enumerate(row)
            if k != j and value
        ]
        if pairs:
            words.append(f"{what} {', '.join(pairs)}")
            break  # one line
    for row in found.stages or ():
        words.append(f"stages {' '.join(f'{value:.3f}' for value in row)}")
    if found.gap is not None and found.teacher_accuracy is not None:
        words.append(f"teacher {100 * found.teacher_accuracy:.1f} %")
    if found.agreement is not None:
        words.append(f"agreement {100 * found.agreement:.1f} %")
    return "; ".join(words)


def _place(place: Place) -> bool:
    """Tell whether this is the place of a value."""
    match place:
        case ("loss" | "teaching", str()) | ("gradient", str(), str()) | ("learners", int(), str()):
            return True
        case ("matrices", str(), int(), int()):
            return True
    return False


def _unknown(place: Place, value: float) -> bool:
    """Tell whether a value could not be computed, because the true label is unknown."""
    return place[-1] == "label_accuracy" and math.isnan(value)


def _marks(notes: Sequence[Notes], batch: Any) -> dict[Place, Tensor]:
    """Name the values that the losses noted.

    - train, valid: logits of every learner on that half: its loss and accuracy, and how often two
      learners agree on the validation half;
    - train_divergence, valid_divergence: divergence of every learner from its teacher there;
    - labels: logits of every teacher and the true labels, -1 where unknown: the accuracy and the
      confidence of the labels that it gives;
    - gate, transfer, attention: matrices (K, K), of every learner and every peer;
    - stages: a matrix (K, n), the distances of every learner's stages from a teacher's;
    - students, teacher: logits of sampled sub-networks on the training half, (m, B, C), and of
      their teacher, (B, C).
    """
    values: dict[Place, Tensor] = {}
    for noted in notes:
        for half in ("train", "valid"):
            for k, logits in enumerate(noted.get(half, ())):
                y = getattr(batch, half).y
                values["learners", k, f"{half}_loss"] = F.cross_entropy(logits, y)
                values["learners", k, f"{half}_accuracy"] = _share(logits.argmax(1) == y)
            for k, x in enumerate(noted.get(f"{half}_divergence", ())):
                values["learners", k, f"{half}_divergence"] = x
        if len(noted.get("valid", ())) > 1:
            classes = torch.stack([logits.argmax(1) for logits in noted["valid"]])
            values["teaching", "agreement"] = _agreement(classes)
        answers, truth = noted.get("labels", ((), None))
        for k, logits in enumerate(answers):
            log_p = logits.log_softmax(1)
            known = truth >= 0
            right = (logits.argmax(1) == truth) & known
            values["learners", k, "label_accuracy"] = right.double().sum() / known.sum()
            values["learners", k, "label_entropy"] = -(log_p.exp() * log_p).sum(1).mean()
        for what in ("gate", "transfer", "attention", "stages"):
            for k, row in enumerate(noted.get(what, ())):
                values |= {("matrices", what, k, j): x for j, x in enumerate(row)}
        if "students" in noted:
            values |= _sampled(noted["students"], noted.get("teacher"), batch.train.y)
    return values


def _sampled(students: Tensor, teacher: Tensor | None, y: Tensor) -> dict[Place, Tensor]:
    """Score sampled sub-networks (m, B, C), as one learner, and their teacher (B, C)."""
    right = _share(students.argmax(2) == y)
    loss = F.cross_entropy(students.flatten(0, 1), y.repeat(len(students)))
    values: dict[Place, Tensor] = {
        ("learners", 0, "train_loss"): loss,
        ("learners", 0, "train_accuracy"): right,
        ("teaching", "logit_distance"): logit_distance(students),
    }
    if teacher is not None:
        taught = _share(teacher.argmax(1) == y)
        values["teaching", "teacher_accuracy"] = taught
        values["teaching", "gap"] = taught - right
    return values


def _share(hits: Tensor) -> Tensor:
    return hits.double().mean()


def _agreement(classes: Tensor) -> Tensor:
    """Return the share () of images with one class predicted by two learners, classes (K, B)."""
    count = len(classes)
    same = _share(classes.unsqueeze(0) == classes.unsqueeze(1))  # each agrees with itself
    return (same * count - 1) / (count - 1)
