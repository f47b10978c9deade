"""The rows of metrics.jsonl: of a search, of a retraining, of a ranking and of an evolution.

Attributes have the names and the order of the file's keys. A field that is None, or empty by
default, is not written, unless it is marked as `WRITTEN`. Lists have an entry for every learner,
unless documented otherwise. Accuracies are fractions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

WRITTEN: Final = {"written": True}
"""The metadata of a field that is written even if it is None or empty."""


# Parts of rows ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class LearnerScores:
    """Losses and accuracies of one learner; None if they were not measured."""

    train_loss: float | None = None
    train_accuracy: float | None = None
    train_divergence: float | None = None
    """Divergence from its teacher on training images."""
    label_accuracy: float | None = None
    """Accuracy of the labels that it gives to its peers."""
    label_entropy: float | None = None
    """Entropy of the same labels, in nats."""
    valid_loss: float | None = None
    valid_accuracy: float | None = None
    valid_divergence: float | None = None
    first_loss: float | None = None
    """Accuracy with the weights of its first stage, on validation images."""
    first_accuracy: float | None = None


Matrix = list[list[float | None]]
"""A number for every learner and peer, [learner][peer]; for `stages`, [learner][stage]."""


@dataclass(frozen=True)
class Teaching:
    """How learners teach one another on training batches; None if it was not measured."""

    gate: Matrix | None = None
    transfer: Matrix | None = None
    attention: Matrix | None = None
    stages: Matrix | None = None
    """Distances of a learner's stages from a teacher's."""
    agreement: float | None = None
    """Share of validation images for which two learners predict the same class."""
    students_accuracy: float | None = None
    """Mean accuracy of sampled sub-networks."""
    logit_distance: float | None = None
    """Mean Euclidean distance between the logits of two of them."""
    teacher_accuracy: float | None = None
    gap: float | None = None
    """The teacher's accuracy minus that of its students."""


@dataclass(frozen=True)
class Probe:
    """Scores of sampled sub-networks and their teacher on a few validation batches."""

    students_accuracy: float | None = None
    logit_distance: float | None = None
    teacher_accuracy: float | None = None
    gap: float | None = None
    score: float | None = None
    """The method's own score, in place of all others."""


@dataclass(frozen=True)
class Cost:
    """The cost of a network."""

    params: float | None = None
    """Parameters, without an auxiliary head."""
    flops: float | None = None
    """FLOPs of convolutions and the classifier for one image."""
    latency: float | None = None
    """Milliseconds of a forward pass, predicted by a table of latencies."""


@dataclass(frozen=True)
class Costs:
    """The cost of a learner's final network."""

    expected: Cost = field(default_factory=Cost)
    """The expected cost of its architecture weights."""
    derived: Cost = field(default_factory=Cost)
    """The cost of the architecture that would be derived now."""


Measured = dict[str, int | float | dict[str, int | float] | None]
"""Measurements of monitors for a learner, by their entries: numbers, or one for every cell.

None: it was not measured. `skips`, `entropy` and `alignment` of cells, `eigenvalue`, `sharpness`,
`gap`, `one_hot_accuracy`; and those of a user's monitors.
"""


@dataclass(frozen=True)
class StageAccuracies:
    """Accuracy of a learner before its peers taught it, and after."""

    first: float | None = None
    taught: float | None = None


@dataclass(frozen=True)
class Stopped:
    """An early stop."""

    reason: str = "no reason is recorded"
    epoch: int | None = None
    """The epoch whose architecture is kept, counted from 0."""


Answer = dict[str, float]
"""A table's entry for an architecture: percent by data set, and its `rank`."""


# Rows -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """An architecture scored in a supernet; in an evolution and a ranking, a row.

    The row of an evolution's epoch has the best architecture so far, that of a ranking none.
    """

    warnings: ClassVar[Sequence[str]] = ()

    event: str | None = None
    """step or epoch; None: this is not a row."""
    epoch: int | None = None
    """The generation, counted from 0."""
    step: int | None = None
    encoding: list[int] = field(default_factory=list)
    """The number of the chosen operation, for every choice."""
    accuracy: float | None = None
    """Accuracy with the supernet's weights."""
    score: float | None = None
    """The method's own score, in place of the accuracy."""
    params: int | None = None
    flops: int | None = None
    latency: float | None = None
    """As in `Cost`."""
    table: Answer = field(default_factory=dict)
    given: bool | None = None
    """True: the method gave it to the first generation."""
    front: list[Candidate] = field(default_factory=list)
    """The Pareto front so far, in an epoch's row."""


@dataclass(frozen=True)
class RankingScores:
    """How well scores order architectures, as in `tutelage.benchmark.ranking.Ranking`."""

    count: int | None = None
    tau: float | None = field(default=None, metadata=WRITTEN)
    rho: float | None = field(default=None, metadata=WRITTEN)
    accuracy: float | None = None
    rank: int | None = None
    top: int | None = None
    precision: float | None = None
    best_rank: int | None = None
    regret: float | None = None
    by_flops: RankingScores | None = None
    """The same for an order by FLOPs, which needs no training."""


@dataclass(frozen=True)
class EnsembleScores:
    """The learners of an ensemble, and its scores on validation images."""

    members: list[int] = field(default_factory=list)
    valid_loss: float | None = None
    valid_accuracy: float | None = None


@dataclass(frozen=True)
class StepRow:
    """A logged step of a search: the values of this step."""

    event: str = "step"
    epoch: int = 0
    """Counted from 0."""
    step: int = 0
    """Steps done in the epoch."""
    loss: dict[str, float] = field(default_factory=dict, metadata=WRITTEN)
    """Losses by level."""
    learners: list[LearnerScores] = field(default_factory=list, metadata=WRITTEN)
    gradient: dict[str, dict[str, float]] = field(default_factory=dict, metadata=WRITTEN)
    """For every loss of the alphas, norms of its gradient's parts."""
    teaching: Teaching = field(default_factory=Teaching)
    lr: dict[str, float] = field(default_factory=dict, metadata=WRITTEN)
    """Learning rate by variable."""


@dataclass(frozen=True)
class EpochRow(StepRow):
    """An epoch of a search: means over its steps, and diagnostics after it."""

    event: str = "epoch"
    phase: int = 0
    """Counted from 0."""
    operations: list[dict[str, list[str | list[str]]]] = field(default_factory=list)
    """By group: the names of all edges' operations, or those of each edge."""
    sampled: list[dict[str, list[list[float]]]] = field(default_factory=list)
    """By group: how often each operation was sampled, as shares of its edge's, (edges, ops)."""
    samples: list[dict[str, list[float]]] = field(default_factory=list)
    """By group: how many operations of an edge were sampled."""
    arch_weights: list[dict[str, list[list[float]]]] = field(default_factory=list)
    """By group: expected weights of the operations, (edges, ops)."""
    genotype: list[dict[str, Any]] = field(default_factory=list)
    """The architecture that would be derived now, as `Genotype.from_dict` reads it."""
    cost: list[Costs] = field(default_factory=list)
    collapse: list[Measured] = field(default_factory=list)
    warnings: list[str] | None = None
    """Warnings of collapse, plain sentences; None: not measured."""
    stages: list[StageAccuracies] = field(default_factory=list)
    table: list[Answer] = field(default_factory=list)
    table_caveat: str | None = None
    """What must be said wherever figures of `table` are shown; None: they were measured."""
    stopped: Stopped | None = None
    probe: Probe = field(default_factory=Probe)
    taught_by: str | None = None
    """A sentence that describes the teacher of sampled sub-networks."""


@dataclass(frozen=True)
class EndRow:
    """The end of a search: the kept learner."""

    event: str = "end"
    learners: list[LearnerScores] = field(default_factory=list, metadata=WRITTEN)
    """Scores on the whole validation half."""
    kept: int | None = None
    """The kept learner."""
    ensemble: EnsembleScores | None = None
    ranking: RankingScores | None = None
    evolution: Candidate | None = None
    """The found architecture."""
    table: list[Answer] = field(default_factory=list)
    """The table's entry for the kept architecture, or for all learners if no epoch has it."""
    table_caveat: str | None = None
    """As in an epoch's row."""


@dataclass(frozen=True)
class TrainingRow:
    """A logged step or an epoch of a retraining: means over the epoch so far."""

    warnings: ClassVar[Sequence[str]] = ()

    event: str = "epoch"
    epoch: int = 0
    step: int = 0
    train_loss: float | None = None
    train_accuracy: float | None = None
    valid_loss: float | None = None
    """On images that it does not train on, after the epoch."""
    valid_accuracy: float | None = None
    lr: float | None = None
    drop_path: float | None = None


SearchRow = StepRow | EpochRow | EndRow
Row = SearchRow | TrainingRow | Candidate

SEARCH: Final[Mapping[str, type[Row]]] = {"step": StepRow, "epoch": EpochRow, "end": EndRow}
TRAINING: Final[Mapping[str, type[Row]]] = {"step": TrainingRow, "epoch": TrainingRow}
CANDIDATES: Final[Mapping[str, type[Row]]] = {"step": Candidate, "epoch": Candidate}
"""The types of a file's rows by event: for a search, a retraining, and scores of paths."""
