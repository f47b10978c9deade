"""Types of settings that a search and a retraining share."""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp32", "ieee", "bf16"]
Device = Literal["auto", "cpu", "cuda"]
Graph = Literal["auto", "on", "off"]
Kernels = Literal["auto", "off"]
Statistics = Literal["batch", "rank"]
Divide = Literal["images", "learners"]
Log = tuple[Literal["tensorboard", "csv", "wandb", "mlflow"], ...]
MOST_THREADS = 1024
"""More than the CPUs of any machine; OpenMP ends the process if the system refuses threads."""
