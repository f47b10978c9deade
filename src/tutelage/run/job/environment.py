"""The environment of a run: versions, commit and hardware."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tutelage.cpus import cpu_name
from tutelage.records.results import Session

PACKAGES = ("tutelage", "torch", "numpy")


def session(
    epoch: int,
    step: int,
    gpu: str | None = None,
    threads: int | None = None,
    threads_because: str | None = None,
    deterministic: bool | None = None,
    graph: str | None = None,
    processes: int | None = None,
) -> Session:
    """Return the record of a session that begins now at an epoch and a step."""
    return Session(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        from_epoch=epoch,
        from_step=step,
        versions={"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        commit=git_commit(),
        hardware={"cpu": cpu_name(), "cores": os.cpu_count(), "gpu": gpu},
        threads=threads,
        threads_because=threads_because,
        deterministic=deterministic,
        graph=graph,
        system=platform.platform(),
        processes=processes,
    )


def git_commit() -> str | None:
    """Return the commit of the package's checkout, -dirty if changed; None: not a checkout."""
    source = Path(__file__).resolve().parents[3]
    root = source.parent
    if source.name != "src" or not (root / ".git").exists():  # a copy in another repository
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):  # no git, no commit yet, a foreign owner
        return None
    return done.stdout.strip()
