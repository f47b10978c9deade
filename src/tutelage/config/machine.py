"""Settings that a search and a retraining share: how they compute, and how often they are saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tutelage.checks import at_least, known_choices, within

Precision = Literal["fp32", "ieee", "bf16"]
Device = Literal["auto", "cpu", "cuda"]
Stem = Literal["cifar", "imagenet"]
Graph = Literal["auto", "on", "off"]
Kernels = Literal["auto", "off"]
Statistics = Literal["batch", "rank"]
Divide = Literal["images", "learners"]
Log = tuple[Literal["tensorboard", "csv", "wandb", "mlflow"], ...]
MOST_THREADS = 1024
"""More than the CPUs of any machine; OpenMP ends the process if the system refuses threads."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """How a machine does a search or a retraining, and what it writes meanwhile."""

    device: Device = "auto"
    """Device; auto: CUDA if there is one."""
    precision: Precision = "fp32"
    """Precision of the forward passes: fp32, in which convolutions on CUDA may round their factors
    to TF32; ieee, fp32 without that; or bf16, too coarse for a finite difference."""
    kernels: Kernels = "auto"
    """Fused kernels on a GPU: auto, where Triton compiles for it; off, torch's operations alone."""
    graph: Graph = "auto"
    """Run steps whose operations never change as one CUDA graph; auto: on CUDA, if a step can be
    recorded; on: refuse a CPU; off: run one operation at a time."""
    deterministic: bool | None = None
    """Require deterministic algorithms of a GPU, so that equal runs on the same card have equal
    files; not set: yes for a search, no for a retraining; on a CPU it changes nothing."""
    statistics: Statistics = "batch"
    """With several processes, what batch normalisation measures: batch, the images of all, so that
    a run equals that of one process; rank, each process's own, which exchanges less."""
    threads: int | None = None
    """Threads that compute, and that decode images; not set: the number of usable idle CPUs, and
    fewer for small feature maps; a run that resumes keeps its number."""
    log_every: int = 50
    """Steps between two logged ones."""
    save_every: float = 5.0
    """Minutes between two checkpoints; every epoch ends with one."""
    log: Log = ()
    """Trackers that get the rows of metrics.jsonl too: tensorboard, csv, wandb, mlflow."""

    def __post_init__(self) -> None:
        known_choices(self)
        at_least(1, log_every=self.log_every)
        at_least(0, save_every=self.save_every)
        if self.threads is not None:
            within(1, MOST_THREADS, threads=self.threads)
