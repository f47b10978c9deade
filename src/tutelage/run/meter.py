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
    return {
        "loss": {name[5:]: x for name, x in values.items() if name.startswith("loss/")},
        "learners": learners(values),
        "gradient": gradient,
    }


def learners(values: Mapping[str, float]) -> list[dict[str, float]]:
    """Group the marks of learners by their number."""
    found: dict[int, dict[str, float]] = {}
    for name, value in values.items():
        if name.startswith("learner/"):
            _, k, mark = name.split("/")
            found.setdefault(int(k), {})[mark] = value
    return [found[k] for k in sorted(found)]


def _marks(notes: Sequence[Notes], batch: Any) -> dict[str, Tensor]:
    """Loss and accuracy of every learner on the halves that the losses noted logits of.

    Where they noted it (`train_divergence`), its divergence from what taught it there as well.
    """
    values = {}
    for noted in notes:
        for half in ("train", "valid"):
            for k, logits in enumerate(noted.get(half, ())):
                logits, y = logits.detach(), getattr(batch, half).y
                values[f"learner/{k}/{half}_loss"] = F.cross_entropy(logits, y)
                values[f"learner/{k}/{half}_accuracy"] = (logits.argmax(1) == y).double().mean()
            for k, x in enumerate(noted.get(f"{half}_divergence", ())):
                values[f"learner/{k}/{half}_divergence"] = x
    return values
