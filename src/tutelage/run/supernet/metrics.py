"""What the steps of an epoch measure: collected without waiting for the device, then averaged."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.multilevel import Notes, Report
from tutelage.transfer import logit_distance

STILL: Final = 20
"""Steps without any gradient after which a search stops; a sampled path may have none for one."""


@final
class Meter:
    """Losses, marks of learners and gradients' norms, of the last step and of the epoch so far."""

    def __init__(self) -> None:
        self.last: dict[str, float] = {}
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)
        self._unchecked: list[dict[str, Tensor]] = []
        self._still = 0

    def add(self, report: Report, batch: Any) -> None:
        """Take what one step reports; the device may still be at it."""
        values = {f"loss/{name}": value for name, value in report.losses.items()}
        values |= {
            f"gradient/{exam}/{part}": value
            for exam, terms in report.terms.items()
            for part, value in terms.items()
        }
        values |= _marks(report.notes, batch)
        self._unchecked.append({name: x.detach().double() for name, x in values.items()})

    def check(self, epoch: int, step: int) -> None:
        """Wait for the device and read what came in.

        Args:
            epoch: The present epoch.
            step: The step that is done last.

        Raises:
            ValueError: A loss is no number, or the alphas have had no gradient for too long.
        """
        for at, values in enumerate(self._unchecked, start=step - len(self._unchecked) + 1):
            numbers = torch.stack(list(values.values())).tolist() if values else []
            self.last = dict(zip(values, numbers, strict=True))
            self.last = {n: x for n, x in self.last.items() if not _unknown(n, x)}
            for name, number in self.last.items():
                if name.startswith("loss/") and not math.isfinite(number):
                    raise ValueError(
                        f"the loss of level {name[5:]!r} is {number} at epoch {epoch}, step {at}, "
                        "and nothing of it is saved; a lower --weights.lr or --precision fp32 may "
                        "help"
                    )
                self._sums[name] += number
                self._counts[name] += 1
            terms = [x for name, x in self.last.items() if name.startswith("gradient/")]
            self._still = 0 if not terms or any(terms) else self._still + 1
            if self._still == STILL:
                raise ValueError(
                    f"the alphas' gradient has been zero for {STILL} steps at epoch {epoch}, step "
                    f"{at}: with these settings no loss of theirs depends on them; with --via "
                    "first-order nothing passes a lower level, so use --via exact"
                )
        self._unchecked = []

    @property
    def means(self) -> dict[str, float]:
        """Every value's mean over the epoch so far."""
        return {name: total / self._counts[name] for name, total in self._sums.items()}

    def clear(self) -> None:
        """Begin an epoch."""
        self.last = {}
        self._sums.clear()
        self._counts.clear()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._sums.update(state["sums"])
        self._counts.update(state["counts"])


def entries(values: Mapping[str, float]) -> dict[str, Any]:
    """Sort values into the entries of a row: losses, learners' marks, norms of gradients' terms."""
    gradient: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        if name.startswith("gradient/"):
            _, exam, part = name.split("/")
            gradient.setdefault(exam, {})[part] = value
    found = {
        "loss": {name[5:]: x for name, x in values.items() if name.startswith("loss/")},
        "learners": learners(values),
        "gradient": gradient,
    }
    teaching = _teaching(values)
    return found | ({"teaching": teaching} if teaching else {})


def learners(values: Mapping[str, float]) -> list[dict[str, float]]:
    """Group the marks of learners by their number."""
    found: dict[int, dict[str, float]] = {}
    for name, value in values.items():
        if name.startswith("learner/"):
            _, k, mark = name.split("/")
            found.setdefault(int(k), {})[mark] = value
    return [found[k] for k in sorted(found)]


def teaching_line(values: Mapping[str, float]) -> str:
    """Say in a few words who teaches whom; nothing where nobody does.

    >>> gate = {"0/0": 0.0, "0/1": 0.25, "1/0": 0.0, "1/1": 0.0}
    >>> teaching_line({f"teaching/gate/{pair}": value for pair, value in gate.items()})
    'gate 0 from 1 0.250'
    """
    teaching = _teaching(values)
    words = []
    for what in ("gate", "attention", "transfer"):
        pairs = [
            f"{k} from {j} {value:.3f}"
            for k, row in enumerate(teaching.get(what, ()))
            for j, value in enumerate(row)
            if k != j and value
        ]
        if pairs:
            words.append(f"{what} {', '.join(pairs)}")
            break  # one line
    for row in teaching.get("stages", ()):
        words.append(f"stages {' '.join(f'{value:.3f}' for value in row)}")
    if "gap" in teaching:
        words.append(f"teacher {100 * teaching['teacher_accuracy']:.1f} %")
    if "agreement" in teaching:
        words.append(f"agreement {100 * teaching['agreement']:.1f} %")
    return "; ".join(words)


def _unknown(name: str, value: float) -> bool:
    """Tell whether a label's truth could not be known, which makes no row."""
    return name.endswith("/label_accuracy") and math.isnan(value)


def _teaching(values: Mapping[str, float]) -> dict[str, Any]:
    """Collect what learners do to one another: numbers, and matrices [learner][peer]."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name.startswith("teaching/"):
            _, what, *places = name.split("/")
            if not places:
                found[what] = value
            elif places[1] == "0":
                found.setdefault(what, []).append([value])
            else:
                found[what][int(places[0])].append(value)
    return found


def _marks(notes: Sequence[Notes], batch: Any) -> dict[str, Tensor]:
    """Name what the losses noted.

    - train, valid: logits of every learner on that half: its loss and accuracy, and how often two
      learners agree on the validation half;
    - train_divergence, valid_divergence: of every learner from what taught it there;
    - labels: logits of every teacher and the true labels, -1 where unknown: how right and how
      decided the labels are that it gives;
    - gate, transfer, attention: matrices (K, K), of every learner and every peer;
    - stages: a matrix (K, n), of how far every learner's stages are from a teacher's;
    - students, teacher: logits of sampled sub-networks on the training half, (m, B, C), and of
      what teaches them, (B, C).
    """
    values = {}
    for noted in notes:
        for half in ("train", "valid"):
            for k, logits in enumerate(noted.get(half, ())):
                y = getattr(batch, half).y
                values[f"learner/{k}/{half}_loss"] = F.cross_entropy(logits, y)
                values[f"learner/{k}/{half}_accuracy"] = _share(logits.argmax(1) == y)
            for k, x in enumerate(noted.get(f"{half}_divergence", ())):
                values[f"learner/{k}/{half}_divergence"] = x
        if len(noted.get("valid", ())) > 1:
            said = torch.stack([logits.argmax(1) for logits in noted["valid"]])
            values["teaching/agreement"] = _agreement(said)
        answers, truth = noted.get("labels", ((), None))
        for k, logits in enumerate(answers):
            log_p = logits.log_softmax(1)
            known = truth >= 0
            right = (logits.argmax(1) == truth) & known
            values[f"learner/{k}/label_accuracy"] = right.double().sum() / known.sum()
            values[f"learner/{k}/label_entropy"] = -(log_p.exp() * log_p).sum(1).mean()
        for what in ("gate", "transfer", "attention", "stages"):
            for k, row in enumerate(noted.get(what, ())):
                values |= {f"teaching/{what}/{k}/{j}": x for j, x in enumerate(row)}
        if "students" in noted:
            values |= _sampled(noted["students"], noted.get("teacher"), batch.train.y)
    return values


def _sampled(students: Tensor, teacher: Tensor | None, y: Tensor) -> dict[str, Tensor]:
    """Mark sampled sub-networks (m, B, C), as one learner, and their teacher (B, C)."""
    right = _share(students.argmax(2) == y)
    values = {
        "learner/0/train_loss": F.cross_entropy(students.flatten(0, 1), y.repeat(len(students))),
        "learner/0/train_accuracy": right,
        "teaching/logit_distance": logit_distance(students),
    }
    if teacher is not None:
        values["teaching/teacher_accuracy"] = _share(teacher.argmax(1) == y)
        values["teaching/gap"] = values["teaching/teacher_accuracy"] - right
    return values


def _share(hits: Tensor) -> Tensor:
    return hits.double().mean()


def _agreement(said: Tensor) -> Tensor:
    """Share () of images on which two learners name one class, from classes (K, B)."""
    count = len(said)
    same = _share(said.unsqueeze(0) == said.unsqueeze(1))  # with itself each agrees
    return (same * count - 1) / (count - 1)
