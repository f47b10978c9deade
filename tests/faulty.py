"""The command line in several processes, of which one has a fault: for the tests of ranks.

FAULT is RANK:STEP:KIND. The process of that rank does it before the step of that number, counted
from 1 over all its work, or before all work for 0; with RANK * every process does. After a restart
by torchrun there is no fault. PIDS is a folder in which every process notes its number. With
FAULT_UNDER there are the faults of tests/faults/inject.py for rank 0, the only one to write. With
FLOAT64 the command computes in double precision, so that rounding cannot be taken for an error.

Run as a file, it is what torchrun starts. `together` starts such processes without torchrun and
its seconds of imports, and ends all when one has failed, as torchrun does.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

from tutelage.trees import leaves

SIGNALS = {
    "kill": signal.SIGKILL,
    "term": signal.SIGTERM,
    "int": signal.SIGINT,
    "stop": signal.SIGSTOP,
}
LOST = "another process of this run has ended or does not answer"
"""How the sentence begins of those whose fellow was killed."""
FULL = 10_000
"""The size in bytes that no file exceeds on a full disk; a checkpoint does."""
PRELOADED = (
    *("torch", "torch._dynamo", "tutelage.cli", "tutelage.run.search", "tutelage.run.retrain"),
    *("tutelage.methods", "tutelage.searches", "tutelage.spaces", "tutelage.data.read"),
)
"""What a process imports before it is forked: torch's optimisers import _dynamo, for 2 s."""
LATE = 1.0
"""Seconds that a slow disk takes."""
_taken = [0]
_all_along = contextlib.ExitStack()
"""What is so until the process ends."""


def fail(kind, work):
    """Let this process have its fault."""
    if kind in SIGNALS:
        os.kill(os.getpid(), SIGNALS[kind])
    elif kind == "raise":
        raise ValueError("this process has no data")
    elif kind == "bug":
        raise TypeError("a mistake of the program")
    elif kind == "full":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (FULL, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        )
    elif kind == "bit":  # the least one of the first alpha
        leaves(work.phase.variables["A"])[0].detach().view(torch.int32).view(-1)[0] ^= 1


def faulty(advance, step, kind):
    def with_fault(work):
        _taken[0] += 1
        if _taken[0] == step:
            fail(kind, work)
        return advance(work)

    return with_fault


def late(write):
    def written(*given):
        time.sleep(LATE)
        return write(*given)

    return written


def prepare():
    """Note the process's number, and put the fault into every kind of work."""
    from tutelage import ranks, tables
    from tutelage.run import retrain
    from tutelage.run.job import agreement, opened
    from tutelage.run.one_shot.evolution import Evolve
    from tutelage.run.supernet.state import Searching
    from tutelage.run.training.training import Training

    if folder := os.environ.get("PIDS"):
        Path(folder, str(os.getpid())).touch()
    if patience := os.environ.get("PATIENCE"):
        ranks.PATIENCE = timedelta(seconds=float(patience))
        opened.VISIBLE = 0.3
    if "FLOAT64" in os.environ:
        from launched import computing

        _all_along.enter_context(computing(torch.float64))
    if "FAULT_UNDER" in os.environ:
        import inject

        inject.install()
    rank, step, kind = os.environ.get("FAULT", "-:0:").split(":")
    if rank in ("*", os.environ["RANK"]) and not ranks.again():
        if kind == "version":
            agreement.version = lambda name: "9.9"
        if kind == "late":  # as on a slow disk
            retrain.save_network = late(retrain.save_network)
        if kind == "early":  # while a table within another is read
            of_table = tables.from_table
            tables.from_table = lambda *given: fail("term", None) or of_table(*given)
        for each in (Searching, Training, Evolve):
            each.advance = faulty(each.advance, int(step), kind)


class End(NamedTuple):
    """The end of a process."""

    status: int
    """Its exit status; negative: the signal that ended it."""
    said: list[str]
    """What it says on standard error, without `tutelage: `, except what torch says."""
    error: str
    """All of it."""


def said(error):
    """Return the lines of ours on standard error."""
    return [x.removeprefix("tutelage: ") for x in error.splitlines() if x.startswith("tutelage: ")]


def _child(rank, environment, line, folder):
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(folder / f"{name}-{rank}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
        os.dup2(file, number)
    os.environ.update(environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
    torch.set_num_threads(1)
    from tutelage.cli import main

    prepare()
    main(line)


def new_store():
    """Return a store as torchrun's; builds of torch without libuv, as Debian's, have another."""
    where = ("127.0.0.1", 0)
    try:
        return dist.TCPStore(*where, is_master=True, wait_for_workers=False)
    except RuntimeError:
        os.environ["USE_LIBUV"] = "0"  # of this process and of those that it starts
        return dist.TCPStore(*where, is_master=True, wait_for_workers=False, use_libuv=False)


def together(folder, count, line, *, each=None, limit=90.0, after=30.0, store=None, **environment):
    """Run a command line in several processes; return the `End` of each, by rank.

    Args:
        folder: Where they write what they say.
        count: How many.
        line: The arguments, as one text.
        each: Further arguments of some ranks.
        limit: Seconds after which the test fails.
        after: Seconds after which those that a failure should end are killed, 30 with torchrun.
        store: That of earlier processes, as torchrun keeps it; None: a new one.
        environment: Environment variables, as FAULT.
    """
    folder.mkdir(exist_ok=True)
    store = store or new_store()
    fixed = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    fixed |= {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    fixed |= {"USE_LIBUV": os.environ.get("USE_LIBUV", "1"), "GLOO_SOCKET_IFNAME": "lo"}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED])
    processes = []
    for rank in range(count):
        own = [*line.split(), *(each or {}).get(rank, "").split()]
        process = context.Process(target=_child, args=(rank, fixed | environment, own, folder))
        process.start()
        processes.append(process)
    try:
        end = time.monotonic() + limit
        while any(process.is_alive() for process in processes) and time.monotonic() < end:
            wait([process.sentinel for process in processes if process.is_alive()], 0.1)
            if any(process.exitcode for process in processes):
                break
        failed = [process for process in processes if process.exitcode]
        for process in processes:
            process.is_alive() and process.terminate()
        until = time.monotonic() + (after if failed else 0)
        for process in processes:
            process.join(max(0, until - time.monotonic()))
        hung = [rank for rank, process in enumerate(processes) if process.is_alive()]
    finally:
        for process in processes:
            process.kill()
            process.join()
    assert failed or not hung, f"ranks {hung} hang"
    texts = [(folder / f"err-{rank}").read_text() for rank in range(count)]
    return [
        End(process.exitcode, said(text), text)
        for process, text in zip(processes, texts, strict=True)
    ]


class Torchrun:
    """A command line under torchrun. As a context, it ends all processes at the end."""

    def __init__(self, folder, count, line, *, restarts=0, **environment):
        """Start it; `folder` takes what the processes say, and their numbers."""
        folder.mkdir(exist_ok=True)
        self.folder = folder
        how = f"--standalone --nproc-per-node {count} --max-restarts {restarts}"
        command = [sys.executable, "-m", "torch.distributed.run", *how.split(), __file__]
        own = {"PIDS": str(folder), "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        with (folder / "out").open("w") as output, (folder / "err").open("w") as error:
            self._process = subprocess.Popen(
                [*command, *line.split()],
                env=os.environ | own | environment,
                stdout=output,
                stderr=error,
                start_new_session=True,
            )

    @property
    def alive(self):
        """Those of them that have not ended."""
        return [pid for pid in self.pids if Path(f"/proc/{pid}/exe").exists()]

    def until(self, done, limit=100.0):
        """Wait until something is so."""
        end = time.monotonic() + limit
        while not done():
            assert time.monotonic() < end, (self.folder / "err").read_text()
            time.sleep(0.02)

    @property
    def pids(self):
        """The numbers of all processes of the run so far, without torchrun's own."""
        return [int(path.name) for path in self.folder.iterdir() if path.name.isdigit()]

    def signal(self, number):
        """Send a signal to torchrun."""
        self._process.send_signal(number)

    def end(self, limit=120.0):
        """Wait for the end; all processes must have ended then."""
        self._process.wait(limit)
        assert not self.alive, f"{self.alive} outlive torchrun"
        text = (self.folder / "err").read_text()
        return End(self._process.returncode, said(text), text)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for pid in (*self.pids, self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()


if __name__ == "__main__":
    from tutelage.cli import main

    prepare()
    main()
