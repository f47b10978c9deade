"""One run of a study at work: its steps as processes of the command line, one after another."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from tutelage.run.job.signals import ENDING
from tutelage.study.jobs import Job, Outcome, Step

COMMAND = (sys.executable, "-m", "tutelage")
MEMORY_UNIT = 1024 if sys.platform != "darwin" else 1
"""Bytes of the unit in which the system gives resident memory."""


class Running:
    """A run whose log is locked; `poll` moves it on.

    Attributes:
        job: The run.
        outcome: How it stands: `failed` is its last sentence once it has failed.
        interrupted: Whether it was asked to stop.
    """

    def __init__(self, job: Job, log: BinaryIO, environment: Mapping[str, str]) -> None:
        self.job = job
        self.outcome = replace(job.outcome(), failed="", doing="")
        self.interrupted = False
        self._log = log
        self._environment = {**os.environ, **environment}
        self._begin()

    def poll(self) -> bool:
        """Start the next step if one has ended; return whether the run has ended."""
        if self._step is None:
            return True
        if self._process is None or not self._ended(self._process):
            return False
        code, step = self._process.returncode, self._step
        if code == 0 and step.answer:
            partial(step).replace(step.answer)
        if code == 0 and not self.interrupted and self.job.step() != step:
            self._begin()
            return self._step is None
        if code == 0 and not self.interrupted:
            self._end(f"{step.name} ended without its result")
        elif code and not self.interrupted and code - 128 not in ENDING:
            self._end(last_sentence(self.job, code))
        else:
            self._end("")
        return True

    def interrupt(self) -> None:
        """Ask the process to save and to end; twice: to end without saving, as Ctrl-C does.

        First by SIGTERM: where a shell's background processes ignore SIGINT, so do their children.
        """
        number = signal.SIGINT if self.interrupted else signal.SIGTERM
        self.interrupted = True
        self._signal(number)

    def _begin(self) -> None:
        self._step = self.job.step()
        self._process: subprocess.Popen[bytes] | None = None
        if self._step is None:
            self._end("")
            return
        self._write(f"$ tutelage {shlex.join(self._step.words)}\n")
        output = partial(self._step).open("wb") if self._step.answer else self._log
        self._process = subprocess.Popen(
            [*COMMAND, *self._step.words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=self._log,
            env=self._environment,
            start_new_session=True,  # Ctrl-C reaches it once, from `interrupt`
        )
        if output is not self._log:
            output.close()
        if self.interrupted:  # while it was started
            self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        """Send a signal to the process. Popen would reap one that has ended, as `_ended` must."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):  # of a signal between its reaping and its code
                os.kill(self._process.pid, number)

    def _ended(self, process: subprocess.Popen[bytes]) -> bool:
        """Reap the process if it has ended, and keep its largest memory."""
        found, status, usage = os.wait4(process.pid, os.WNOHANG)
        if found == 0:
            return False
        process.returncode = os.waitstatus_to_exitcode(status)
        assert self._step is not None
        memory = dict(self.outcome.memory)
        peak = MEMORY_UNIT * usage.ru_maxrss
        memory[self._step.name] = max(memory.get(self._step.name, 0), peak)
        self.outcome = replace(self.outcome, memory=memory)
        return True

    def _end(self, failed: str) -> None:
        doing = self._step.name if self._step and failed else ""
        self.outcome = replace(self.outcome, failed=failed, doing=doing)
        if self.outcome != Outcome():
            self.job.write(self.outcome)
        self._step = None
        self._log.close()

    def _write(self, text: str) -> None:
        self._log.write(text.encode())
        self._log.flush()


def partial(step: Step) -> Path:
    """Name the file that an answer is written to before it is whole."""
    assert step.answer is not None
    return step.answer.with_name(f".{step.answer.name}.partial")


def last_sentence(job: Job, code: int) -> str:
    """Return what a process that failed said last.

    Args:
        job: Its run, whose log is read.
        code: Its exit code; negative: it was ended by this signal.
    """
    if code < 0:
        name = signal.Signals(-code).name
        full = ", as the system does when memory is full" if -code == signal.SIGKILL else ""
        return f"ended by {name}{full}"
    text = job.log.read_bytes()[-100_000:].decode(errors="replace").rpartition("\n$ ")[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()][1:]
    said = [line for line in lines if line.startswith("tutelage: ")] or lines
    last = said[-1] if said else f"ended with exit code {code} and said nothing; see {job.log}"
    return re.sub(r"^tutelage: ", "", last)
