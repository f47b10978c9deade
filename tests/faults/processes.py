"""Commands as processes that may be killed: forked from a server that has imported torch once."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from pathlib import Path
from typing import NamedTuple

from faulty import PRELOADED

SECONDS = 900
"""A command that takes longer hangs."""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    """The exit status; negative: the number of the signal."""
    said: str
    """What it wrote to the standard output."""
    error: str
    """What it wrote to the standard error."""

    @property
    def sentence(self) -> bool:
        """Whether the error is one sentence, as for a user's mistake."""
        return re.fullmatch(r"tutelage: [^\n]+\n", self.error) is not None

    @property
    def traceback(self) -> bool:
        """Whether the error is one of the program."""
        return "Traceback" in self.error


class Command:
    """A command that runs."""

    def __init__(
        self, words: list[str], folder: Path, faults: Mapping[str, object] | None = None
    ) -> None:
        """Start it.

        Args:
            words: The command, without `tutelage`.
            folder: Where it works and where its output goes.
            faults: Variables that `inject` reads.
        """
        self.words, self.out, self.err = words, folder / ".out", folder / ".err"
        variables = {name: str(value) for name, value in (faults or {}).items()}
        context = server()
        self.process = context.Process(target=work, args=(words, str(folder), variables))
        self.process.start()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, unless it has ended."""
        if self.process.is_alive():
            os.kill(self.process.pid or 0, number)

    def end(self, seconds: float = SECONDS) -> Ended:
        """Wait for its end.

        Raises:
            TimeoutError: It hangs.
        """
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"{' '.join(self.words)} hangs: {self.error()[-500:]}")
        return Ended(self.process.exitcode, self.out.read_text(), self.error())

    def error(self) -> str:
        """What it has written to the standard error so far."""
        return self.err.read_text() if self.err.exists() else ""

    def waits_for(self, ready: Callable[[], bool], seconds: float = 60.0) -> bool:
        """Wait until something is so, or the command has ended."""
        end = time.monotonic() + seconds
        while not ready() and self.process.is_alive() and time.monotonic() < end:
            time.sleep(0.002)
        return ready()


def run(
    words: list[str],
    folder: Path,
    faults: Mapping[str, object] | None = None,
    seconds: float = SECONDS,
) -> Ended:
    """Run a command to its end."""
    return Command(words, folder, faults).end(seconds)


def server() -> multiprocessing.context.ForkServerContext:
    """Return the server of processes; it imports what commands need, without working."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def spent() -> float:
    """Return the CPU seconds of this process, of the server, and of all that they have started."""
    own = os.times()
    total = own.user + own.system + own.children_user + own.children_system
    pid = forkserver._forkserver._forkserver_pid
    if pid is None:
        return total
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
    return total + sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


def work(words: list[str], folder: str, variables: Mapping[str, str]) -> None:
    """Be the command, in its own process."""
    import torch

    from tutelage.cli import main

    torch.set_num_threads(1)
    os.chdir(folder)
    for number, name in ((1, ".out"), (2, ".err")):
        descriptor = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        os.dup2(descriptor, number)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    os.environ.update(variables)
    import inject

    inject.install()
    sys.argv = ["tutelage", *words]
    main()
