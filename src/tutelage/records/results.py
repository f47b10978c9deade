"""The files beside metrics.jsonl: result.json, environment.json, and parts of two others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tutelage.records import lift
from tutelage.records.rows import WRITTEN
from tutelage.records.typed import known_version, present, typed

RESULT: Final = {"format": "tutelage result", "version": 2}
"""The first entries of result.json; release 0.1 wrote none of them."""


@dataclass(frozen=True)
class Result:
    """The content of result.json: a trained network or ensemble on the test set."""

    data: str | None = None
    epochs: int | None = None
    seed: int | None = None
    params: int | None = None
    """Parameters, without an auxiliary head; for an ensemble their sum."""
    flops: int | None = None
    """FLOPs for one image; for an ensemble their sum."""
    genotype: dict[str, Any] = field(default_factory=dict)
    """The trained genotype, as `Genotype.from_dict` reads it; None for an ensemble."""
    test_error: float | None = None
    """A fraction of the test images."""
    test_accuracy: float | None = None
    test_loss: float | None = None
    test_images: int | None = None
    ensemble: list[float] = field(default_factory=list)
    """The test error of every single network of an ensemble."""

    @classmethod
    def read(cls, found: Any) -> Result:
        """Read the content of result.json.

        Raises:
            ValueError: It is not a result, or of a newer release.
        """
        version = known_version(found, RESULT["version"])
        return typed(lift.result(found, version), cls)

    def as_dict(self) -> dict[str, Any]:
        """Return all values that are not None, by name."""
        return present(self)

    def as_file(self) -> dict[str, Any]:
        """Return the content of result.json."""
        return {**RESULT, **self.as_dict()}


@dataclass(frozen=True)
class Origin:
    """The origin of a genotype: the `about` of genotype.json."""

    learner: int | None = None
    """The learner of the architecture."""
    epoch: int | None = None
    """Epochs after which it was derived."""
    valid_loss: float | None = None
    """Scores of the learner, on the whole validation half."""
    valid_accuracy: float | None = None
    first_loss: float | None = None
    first_accuracy: float | None = None
    supernet_accuracy: float | None = None
    """Accuracy of the path that evolution found, with the supernet's weights."""
    supernet_score: float | None = None
    """The same with the method's own score."""


@dataclass(frozen=True)
class Session:
    """A process that worked on a run: an entry of environment.json."""

    started: str | None = field(default=None, metadata=WRITTEN)
    """In UTC, as ISO 8601."""
    seconds: float | None = field(default=None, metadata=WRITTEN)
    from_epoch: int | None = field(default=None, metadata=WRITTEN)
    from_step: int | None = field(default=None, metadata=WRITTEN)
    versions: Mapping[str, str | None] = field(default_factory=dict, metadata=WRITTEN)
    """Versions of Python and packages, by name."""
    commit: str | None = field(default=None, metadata=WRITTEN)
    """None: it did not run from a checkout."""
    hardware: Mapping[str, str | int | None] = field(default_factory=dict, metadata=WRITTEN)
    threads: int | None = field(default=None, metadata=WRITTEN)
    threads_because: str | None = field(default=None, metadata=WRITTEN)
    graph: str | None = field(default=None, metadata=WRITTEN)
    """Whether steps may run as CUDA graphs, and why not."""
    programs: list[str] = field(default_factory=list, metadata=WRITTEN)
    """Sentences: which steps ran as one program, and why others did not."""
    system: str | None = field(default=None, metadata=WRITTEN)
    deterministic: bool | None = field(default=None, metadata=WRITTEN)
    """Whether deterministic algorithms were required of the GPU; None: it ran on a CPU."""
    processes: int | None = field(default=None, metadata=WRITTEN)
    """Processes that computed together; None: not recorded."""
    gpu_memory: int | None = field(default=None, metadata=WRITTEN)
    """Most bytes that tensors had on the GPU at once; None: it ran on a CPU, or an earlier release
    wrote this."""


@dataclass(frozen=True)
class Environment:
    """environment.json."""

    sessions: list[Session] = field(default_factory=list, metadata=WRITTEN)

    @classmethod
    def read(cls, found: Any) -> Environment:
        """Read the content of environment.json; raise ValueError if it is of another kind."""
        return typed(found, cls)


@dataclass(frozen=True)
class Member:
    """A learner of an ensemble."""

    learner: int


@dataclass(frozen=True)
class Members:
    """The entries of ensemble.json for a report; `tutelage.run.networks.ensemble` writes it."""

    members: list[Member] = field(default_factory=list)
    valid_loss: float | None = None
    valid_accuracy: float | None = None

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Members:
        """Read the content of ensemble.json; raise ValueError if it is of another kind."""
        return typed(found, cls)
