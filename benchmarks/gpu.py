"""Measure on a GPU all that needs one, in order of worth, within a number of minutes.

    python benchmarks/gpu.py --device cuda --minutes 8 [--data ROOT] [--darts CHECKOUT] [--out FILE]
    python benchmarks/gpu.py --device cpu --tiny

The parts are those of `gpu_parts.py`, in their order. They run in a process of their own; a part
that fails or exceeds its time is recorded, and the next one runs in a new process. The file is
written after every row, and a table of Markdown is printed at the end, with the bars and what was
measured. ROOT holds CIFAR-10; without it the images are random numbers of the same shape, and the
file says so. With `--tiny` every part runs at toy size, to see that it works: no figure of such a
run means anything. `gpu.md` says what every part measures.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before the first product
os.environ.setdefault("DISABLE_CUPTI_LAZY_REINIT", "1")  # else a profile may break live graphs
os.environ.setdefault("TEARDOWN_CUPTI", "0")

import torch  # noqa: E402

import gpu_bars  # noqa: E402
import gpu_images  # noqa: E402
import gpu_parts  # noqa: E402
from tutelage.files import write_bytes  # noqa: E402
from tutelage.run.job.environment import cpu_name, git_commit  # noqa: E402

GRACE = 20.0
"""Seconds for a part to end by itself once its time is up: a search saves what it has."""


@dataclass
class Part:
    """What one part has measured."""

    state: str = "not begun: the time was up"
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""


class Conduct(NamedTuple):
    """The parts of a run, and where they are recorded."""

    options: argparse.Namespace
    parts: dict[str, Part]
    about: dict[str, Any]
    """The hardware, the versions and the settings."""
    ends: float
    """When the minutes are over, on the monotonic clock."""

    def save(self) -> None:
        """Write the file."""
        write_bytes(self.options.out, (json.dumps(self.content(), indent=2) + "\n").encode())

    def content(self) -> dict[str, Any]:
        """Return what the file holds."""
        rows = {name: part.rows for name, part in self.parts.items()}
        counts = self.options.device == "cuda" and not self.options.tiny
        return {
            "about": self.about,
            "parts": {name: asdict(part) for name, part in self.parts.items()},
            "bars": [bar._asdict() for bar in gpu_bars.judged(rows if counts else {})],
        }


def about(options: argparse.Namespace) -> dict[str, Any]:
    """Return the hardware, the versions and the settings of the run."""
    cuda = options.device == "cuda"
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(),
        "device": torch.cuda.get_device_name() if cuda else cpu_name(),
        "capability": torch.cuda.get_device_capability() if cuda else None,
        "memory_gib": round(torch.cuda.mem_get_info()[1] / 2**30, 1) if cuda else None,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version() if cuda else None,
        },
        "images": options.images,
        "minutes": options.minutes,
        "tiny": options.tiny,
    }


def work(options: argparse.Namespace, names: list[str], ends: float, send: Connection) -> None:
    """Run parts one after another; report what they do. An error ends the process."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):  # progress of searches
        for name in names:
            part = gpu_parts.PARTS[name]
            seconds = min(part.share * 60 * options.minutes, ends - GRACE - time.monotonic())
            send.send(("begin" if seconds > 0 else "late", name, None))
            if seconds <= 0:
                return
            try:
                for row in part.measure(options, seconds):
                    send.send(("row", name, row))
            except Exception as error:  # whatever it is, the other parts run
                send.send(("failed", name, f"{type(error).__name__}: {error}"))
                return
            send.send(("done", name, None))


def conduct(run: Conduct) -> None:
    """Run every part within its time."""
    left = list(run.parts)
    context = multiprocessing.get_context("spawn")
    while left and time.monotonic() < run.ends:
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(run.options, list(left), run.ends, send))
        process.start()
        send.close()
        try:
            follow(run, left, receive)
        finally:
            stop(process)


def follow(run: Conduct, left: list[str], receive: Connection) -> None:
    """Record what a process reports until all is done, it ends, or a part's time is up."""
    part, begun = run.parts[left[0]], time.monotonic()
    limit = GRACE + 60 * run.options.minutes  # until the process has begun
    ended = ""
    while left and ended in ("", "done"):
        event, name, value = next_event(receive, min(begun + limit, run.ends))
        ended = ""
        if event == "begin":
            part, begun, limit = run.parts[name], time.monotonic(), _limit(run, name)
            part.state = "running"
        elif event == "row":
            part.rows.append(value)
            print(f"{name}: {json.dumps(value)}", flush=True)
        elif event == "late":  # all the others stay as they are
            left.clear()
        else:
            ended, part.error = event, value or ""
        if event != "late":
            part.seconds = round(time.monotonic() - begun, 1)
        if ended:
            part.state = ended
            left.pop(0)
        run.save()


def next_event(receive: Connection, until: float) -> tuple[str, str, Any]:
    """Return the next event of a process, a part's name, and a value."""
    try:
        if receive.poll(max(0.0, until - time.monotonic())):
            return receive.recv()
    except EOFError:
        return "failed", "", "its process ended"
    return "stopped", "", "its time was up"


def _limit(run: Conduct, name: str) -> float:
    """Return the seconds after which a part is stopped, with a margin for it to end by itself."""
    return gpu_parts.PARTS[name].share * 60 * run.options.minutes + GRACE


def stop(process: Any) -> None:
    """End a process."""
    if process.is_alive():
        process.terminate()
        process.join(GRACE)
    if process.is_alive():
        process.kill()
    process.join()


def table(content: dict[str, Any]) -> str:
    """Write the content of the file as Markdown."""
    known = content["about"]
    title = "a toy run" if known["tiny"] else f"{known['minutes']:g} minutes"
    lines = [
        f"{known['device']}, torch {known['versions']['torch']}, {known['commit']}, {title}; "
        f"images: {known['images']}",
        "",
        "| part | what | value |",
        "|---|---|---|",
    ]
    for name, part in content["parts"].items():
        for row in part["rows"]:
            lines.append(f"| {name} | {row['what']} | {gpu_bars.written(row)} |")
        if part["state"] != "done":
            state = f"{part['state']} {part['error']}".strip().replace("\n", " ")
            lines.append(f"| {name} | | {state[:300]} |")
    lines += ["", "| bar | limit | measured | |", "|---|---|---|---|"]
    for bar in content["bars"]:
        lines.append(f"| {bar['what']} | {bar['limit']} | {bar['measured']} | {bar['verdict']} |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    made.add_argument("--minutes", type=float, default=8.0, help="all parts together")
    made.add_argument("--tiny", action="store_true", help="every part at toy size")
    made.add_argument("--data", type=Path, help="folder that holds CIFAR-10")
    made.add_argument("--darts", type=Path, help="a checkout of github.com/quark0/darts")
    made.add_argument("--table", type=Path, help="table of NAS-Bench-201, for true accuracies")
    made.add_argument("--parts", nargs="+", choices=gpu_parts.PARTS, help="only these parts")
    made.add_argument("--out", type=Path, default=Path("gpu.json"))
    return made


def main() -> int:
    """Run the parts; print the table."""
    made = parser()
    options = made.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        made.error("there is no CUDA device here; give --device cpu --tiny")
    if options.device == "cpu" and not options.tiny:
        made.error("--device cpu is for a toy run: give --tiny")
    ends = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        options.scratch = Path(folder)
        options.images = gpu_images.prepare(options)
        chosen = options.parts or gpu_parts.PARTS
        parts = {name: Part() for name in gpu_parts.PARTS if name in chosen}
        run = Conduct(options, parts, about(options), ends)
        run.save()
        conduct(run)
        run.save()
    print(table(run.content()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
