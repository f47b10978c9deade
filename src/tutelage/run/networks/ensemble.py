"""An ensemble of learners: how its members are selected, and the file that names them.

The ensemble's prediction is the mean of its members' probabilities.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

from torch import Tensor

from tutelage.formats import read_json
from tutelage.spaces.genotype import Genotype

FILE: Final = "ensemble.json"
FORMAT, VERSION = "tutelage ensemble", 1
MARKS: Final = ("valid_loss", "valid_accuracy")


def forward_selection(probabilities: Tensor, y: Tensor, members: int) -> list[int]:
    """Select the members of an ensemble one after another, without replacement.

    The first has the lowest cross-entropy. Each further member is the one that gives the members'
    mean probabilities the lowest cross-entropy (Caruana et al., ICML 2004; Zaidi et al., NeurIPS
    2021).

    Args:
        probabilities: Probabilities of K learners, (K, N, C).
        y: Labels (N,).
        members: How many to select.

    Raises:
        ValueError: `members` is below 1, or there are fewer learners.
    """
    if not 1 <= members <= len(probabilities):
        raise ValueError(
            f"members = {members} of {len(probabilities)} learners: an ensemble has at least 1 "
            "and at most all of them"
        )
    own = probabilities.double().gather(2, y.expand(len(probabilities), -1).unsqueeze(2))
    own = own.squeeze(2)  # (K, N): each learner's probability of the true class
    chosen: list[int] = []
    rest = list(range(len(own)))
    for count in range(1, members + 1):
        losses = (-((own[chosen].sum(0) + own) / count).log().mean(1)).tolist()
        chosen.append(min(rest, key=losses.__getitem__))
        rest.remove(chosen[-1])
    return chosen


def scores(probabilities: Tensor, y: Tensor) -> dict[str, float]:
    """Return loss and accuracy of an ensemble on validation data.

    Args:
        probabilities: Probabilities of its members, (M, N, C).
        y: Labels (N,).
    """
    mean = probabilities.double().mean(0)
    loss = -mean.gather(1, y.unsqueeze(1)).log().mean()
    return {
        "valid_loss": float(loss),
        "valid_accuracy": float((mean.argmax(1) == y).double().mean()),
    }


@final
@dataclass(frozen=True)
class Ensemble:
    """The learners that a search keeps together."""

    learners: tuple[int, ...]
    """Their numbers, in the order of selection: the first is the best one alone."""
    genotypes: tuple[Genotype, ...]
    """The architecture of each."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """The ensemble's `valid_loss` and `valid_accuracy`; empty where nothing was trained."""

    def to_row(self) -> dict[str, Any]:
        """Return its entries in the last row of metrics.jsonl."""
        return {"members": list(self.learners), **self.scores}

    def to_json(self) -> str:
        """Write versioned JSON."""
        pairs = zip(self.learners, self.genotypes, strict=True)
        members = [{"learner": k, "genotype": genotype.to_dict()} for k, genotype in pairs]
        head = {"format": FORMAT, "version": VERSION}
        return json.dumps({**head, "members": members, **self.scores}, indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> Ensemble:
        """Read what `to_json` wrote.

        Raises:
            ValueError: The file is damaged, not an ensemble, or of a newer release.
        """
        data = read_json(path)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f'{path} is no ensemble: its "format" must be "{FORMAT}"')
        if data.get("version") != VERSION:
            raise ValueError(
                f"{path} has version {data.get('version')!r} and this release reads {VERSION}: "
                "use the release that wrote it"
            )
        try:
            members = data["members"]
            learners = tuple(int(each["learner"]) for each in members)
            genotypes = tuple(Genotype.from_dict(each["genotype"]) for each in members)
            found = {name: float(data[name]) for name in MARKS if name in data}
        except KeyError as error:
            raise ValueError(f"{path} is damaged: it lacks {error}") from None
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged: {error}") from None
        if not learners:
            raise ValueError(f"{path} is damaged: it has no members")
        return cls(learners, genotypes, found)

    def as_text(self) -> str:
        """Describe its members and its scores in one sentence."""
        who = f"ensemble of learners {', '.join(map(str, self.learners))}"
        if not self.scores:
            return f"{who}, the first: nothing was trained, so there is nothing to select by"
        return (
            f"{who}: validation loss {self.scores['valid_loss']:.4f}, "
            f"accuracy {100 * self.scores['valid_accuracy']:.2f} %"
        )
