"""Submit what is missing of a study to SLURM, one job a run, by submitit."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.study.jobs import Job
from tutelage.study.process import Running

SHARED = (
    *("name", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb"),
    *("timeout_min", "stderr_to_stdout"),
)
"""Options that submitit has for every kind of cluster; others are SLURM's own."""
SECONDS_BETWEEN_POLLS = 0.5


class OnNode:
    """One run, as a job calls it on its node."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._running: Running | None = None

    def __call__(self) -> str:
        """Run what is missing of this run, and return how it ended.

        Raises:
            ValueError: It failed.
        """
        log = self.job.claim()
        if log is None:
            return f"{self.job.name}: another job works on it"
        self._running = Running(self.job, log, {})
        while not self._running.poll():
            time.sleep(SECONDS_BETWEEN_POLLS)
        if self._running.outcome.failed:
            raise ValueError(f"{self.job.name}: {self._running.outcome.failed}")
        return f"{self.job.name}: {'stopped, and saved' if self.job.step() else 'done'}"

    def checkpoint(self) -> Any:
        """Save before the time limit or a preemption ends the job, and queue it again."""
        from submitit.helpers import DelayedSubmission

        if self._running is not None:
            self._running.interrupt()
            while not self._running.poll():
                time.sleep(SECONDS_BETWEEN_POLLS)
        return DelayedSubmission(OnNode(self.job))


def options(given: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Read options as KEY=VALUE; return the kind of cluster, and the options for submitit.

    >>> options(["timeout_min=60", "partition=gpu"])
    ('slurm', {'timeout_min': 60, 'slurm_partition': 'gpu'})

    Raises:
        ValueError: One is no KEY=VALUE, or there is no time limit.
    """
    found: dict[str, Any] = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not (key and equals and value):
            raise ValueError(f"--slurm {each}: must be KEY=VALUE, such as partition=gpu")
        found[key] = int(value) if value.isdecimal() else value
    cluster = str(found.pop("cluster", "slurm"))
    if "timeout_min" not in found:
        raise ValueError("--slurm needs timeout_min=MINUTES: submitit's default is 5 minutes")
    prefix = f"{cluster}_"
    return cluster, {
        key if key in SHARED or key.startswith(prefix) else prefix + key: value
        for key, value in found.items()
    }


def submit(jobs: Sequence[Job], out: Path, given: Sequence[str]) -> Sequence[Any]:
    """Submit every run that is not done and that no process works on.

    Args:
        jobs: All runs of the study.
        out: The study's folder; the jobs' own files go to `.jobs` in it.
        given: Options as KEY=VALUE.

    Returns:
        The jobs of submitit.

    Raises:
        ValueError: submitit is not installed, or refuses an option.
    """
    cluster, settings = options(given)
    missing = [job for job in jobs if job.step() and not job.claimed()]
    if not missing:
        print(f"nothing to submit: all {len(jobs)} runs are done, or at work")
        return []
    executor = _executor(cluster, out / ".jobs", {"name": out.resolve().name, **settings})
    with executor.batch():
        sent = [executor.submit(OnNode(job)) for job in missing]
    print(f"{len(sent)} runs submitted as {sent[0].job_id} to {sent[-1].job_id}")
    print(f"How far they are: tutelage study --status {out}")
    return sent


def _executor(cluster: str, folder: Path, settings: Mapping[str, Any]) -> Any:
    try:
        from submitit import AutoExecutor
    except ImportError:
        raise ValueError(
            "--slurm needs submitit: pip install 'tutelage[study]', or run here with --jobs"
        ) from None
    try:
        executor = AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**settings)
    except (NameError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"--slurm: {' '.join(str(error).split())}") from error
    return executor
