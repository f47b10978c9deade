"""Run every method with every search in every space, as `tutelage search --quick` does.

    python benchmarks/combinations.py --out combinations.csv
    python benchmarks/combinations.py --out some.csv --methods single ennas --searches single-path
    python benchmarks/combinations.py --out combinations.csv --summary combinations.md

Every combination runs in a process of its own, forked from one that has imported the library and
has computed nothing, under glibc's heap checker (MALLOC_CHECK_=3) where it is installed. It adds a
row to the CSV file as it ends; a sweep that is stopped resumes with the same command. What a
combination came to is told by what it leaves, not by what it prints:

    ran       exit code 0, and a genotype.json that is a genotype of the space
    refused   exit code 1 or 2, one line on stderr, a sentence, and no run directory
    too long  as ran, but over --limit seconds of the processor; or killed, unfinished, after five
              times as many seconds on the clock, which on a busy machine are more
    crashed   anything else, such as a signal, which is told as a negative exit code
"""

from __future__ import annotations

import argparse
import csv
import importlib
import itertools
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

CHECKER = "libc_malloc_debug.so.0"
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_CHECK_": "3"}
PATIENCE = 5
"""Times the limit, on the clock, after which a process is killed."""
OUTCOMES = ("ran", "refused", "too long", "crashed")
SENTENCE = re.compile(r"tutelage: [^\n]+\n")


class Combination(NamedTuple):
    """What is joined."""

    method: str
    search: str
    space: str


@dataclass(frozen=True)
class Row:
    """What a combination came to."""

    method: str
    search: str
    space: str
    outcome: str
    seconds: float
    megabytes: int
    """Most memory of the process, of which the imports take some hundreds."""
    code: int
    message: str
    """The sentence that refused it, or the last line on stderr."""
    cpu_seconds: float = 0.0
    """Time of the processor, which others on the machine hardly change; 0: not known."""

    @property
    def combination(self) -> Combination:
        """What was joined."""
        return Combination(self.method, self.search, self.space)


@dataclass(frozen=True)
class Child:
    """A combination in progress."""

    combination: Combination
    folder: Path
    began: float


# One combination --------------------------------------------------------------------------------


def start(combination: Combination, data: str) -> tuple[int, Child]:
    """Fork a process that searches; return its number, and what is known of it."""
    child = Child(combination, Path(tempfile.mkdtemp(prefix="combination-")), time.monotonic())
    sys.stdout.flush()
    process = os.fork()
    if not process:
        work(combination, child.folder, data)
    return process, child


def work(combination: Combination, folder: Path, data: str) -> None:
    """Search as the command line does, and end the process."""
    from tutelage.cli import main

    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    method, search, space = combination
    line = f"search --quick --method {method} --search {search} --space {space} --data {data}"
    code = 0
    try:
        main([*line.split(), "--out", str(folder / "run")])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def judged(child: Child, status: int, usage: resource.struct_rusage, limit: float) -> Row:
    """Say what a process that has ended came to, by what it left."""
    seconds, worked = time.monotonic() - child.began, usage.ru_utime + usage.ru_stime
    code = os.waitstatus_to_exitcode(status)
    error = (child.folder / "stderr").read_text(encoding="utf-8", errors="replace")
    run, message = child.folder / "run", ""
    if code == 0:
        message = wrong(run, child.combination.space)
        outcome = "crashed" if message else "too long" if worked > limit else "ran"
    elif code in (1, 2) and SENTENCE.fullmatch(error) and not run.exists():
        outcome, message = "refused", error.removeprefix("tutelage: ").strip()
    else:
        outcome = (
            "too long" if code == -signal.SIGKILL and seconds > PATIENCE * limit else "crashed"
        )
        message = (error.strip().splitlines() or [f"exit code {code}, and nothing on stderr"])[-1]
    shutil.rmtree(child.folder)
    size = usage.ru_maxrss // 1024
    times = round(seconds, 1), round(worked, 1)
    return Row(*child.combination, outcome, times[0], size, code, message, times[1])


def wrong(run: Path, space: str) -> str:
    """Say what is wrong with the genotype that a search wrote; nothing where it is right."""
    from tutelage.spaces.genotype import Genotype

    file = run / "genotype.json"
    if not file.is_file():
        return "exit code 0, and no genotype.json"
    try:
        found = Genotype.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        return f"genotype.json: {error}"
    return "" if found.space == space else f"genotype.json is of the space {found.space}"


# All of them ------------------------------------------------------------------------------------


def swept(todo: Sequence[Combination], workers: int, data: str, limit: float) -> Iterator[Row]:
    """Run combinations, so many at a time, and yield what each came to as it ends."""
    running: dict[int, Child] = {}
    waiting = list(reversed(todo))
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                process, child = start(waiting.pop(), data)
                running[process] = child
            process, status, usage = os.wait4(-1, os.WNOHANG)
            if process:
                yield judged(running.pop(process), status, usage, limit)
                continue
            for number, child in running.items():
                if time.monotonic() - child.began > PATIENCE * limit:
                    os.kill(number, signal.SIGKILL)
            time.sleep(0.02)
    finally:
        for number, child in running.items():
            os.kill(number, signal.SIGKILL)
            os.waitpid(number, 0)
            shutil.rmtree(child.folder)


def read(path: Path) -> list[Row]:
    """Read what an earlier call found, without a last row that is only half written."""
    if not path.is_file():
        return []
    names = [field.name for field in fields(Row)]
    with path.open(newline="", encoding="utf-8") as file:
        whole = [line for line in file if line.endswith("\n")]
    rows = [row for row in csv.DictReader(whole) if None not in row.values()]
    return [
        Row(
            **{name: row[name] for name in names[:4]},
            seconds=float(row["seconds"]),
            megabytes=int(row["megabytes"]),
            code=int(row["code"]),
            message=row["message"],
            cpu_seconds=float(row.get("cpu_seconds", 0)),
        )
        for row in rows
    ]


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write all rows, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(row) for row in rows)
    partial.replace(path)


def summary(rows: Sequence[Row]) -> str:
    """Write counts by method and search as Markdown, the slowest, and all that failed."""
    searches = list(dict.fromkeys(row.search for row in rows))
    counts = Counter((row.method, row.search, row.outcome) for row in rows)
    total = Counter(row.outcome for row in rows)
    lines = [
        f"{len(rows):,} combinations: " + ", ".join(f"{total[x]:,} {x}" for x in OUTCOMES),
        "",
        "Entries: ran / refused / too long / crashed, over the spaces.",
        "",
        "| | " + " | ".join(f"`{search}`" for search in searches) + " |",
        "| --- |" + " --- |" * len(searches),
    ]
    for method in dict.fromkeys(row.method for row in rows):
        entries = [" / ".join(str(counts[method, s, x]) for x in OUTCOMES) for s in searches]
        lines.append(f"| `{method}` | " + " | ".join(entries) + " |")
    lines += ["", "| slowest | CPU seconds | seconds | MiB |", "| --- | --- | --- | --- |"]
    for row in sorted(rows, key=lambda row: -(row.cpu_seconds or row.seconds))[:10]:
        times = f"{row.cpu_seconds:.1f} | {row.seconds:.1f}"
        lines.append(f"| {named(row)} | {times} | {row.megabytes} |")
    failed = [row for row in rows if row.outcome in ("crashed", "too long")]
    if failed:
        lines += ["", "| failed | outcome | exit code | message |", "| --- | --- | --- | --- |"]
        lines += [f"| {named(x)} | {x.outcome} | {x.code} | {x.message} |" for x in failed]
    return "\n".join(lines) + "\n"


def named(row: Row) -> str:
    """Name a combination."""
    return " ".join(f"`{part}`" for part in row.combination)


# The command ------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    from tutelage.methods import METHODS
    from tutelage.searches import SEARCHES
    from tutelage.spaces import SPACES

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="CSV file, a row a combination")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--searches", nargs="+", choices=SEARCHES, default=list(SEARCHES))
    parser.add_argument("--spaces", nargs="+", choices=SPACES, default=list(SPACES))
    parser.add_argument("--data", default="digits")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds that are too long")
    parser.add_argument("--no-check", action="store_true", help="leave the heap checker out")
    parser.add_argument("--summary", type=Path, help="file to write the summary to")
    return parser.parse_args()


def checked_heap() -> None:
    """Start again under the heap checker, which a process must be started with."""
    if os.environ.get("MALLOC_CHECK_") == "3" or "--no-check" in sys.argv:
        return
    found = [
        folder / CHECKER
        for folder in map(
            Path,
            (
                "/usr/lib/x86_64-linux-gnu",
                "/usr/lib64",
                "/lib/x86_64-linux-gnu",
                "/lib64",
                "/usr/lib/aarch64-linux-gnu",
            ),
        )
    ]
    library = next((path for path in found if path.exists()), None)
    if library is None:
        print(f"{CHECKER} is not installed: the heap is not checked", flush=True)
    preload = {"LD_PRELOAD": str(library)} if library else {}
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ENVIRONMENT, **preload})


def main() -> None:
    """Run what is not done yet, and print the summary."""
    asked = arguments()
    checked_heap()
    combinations = [
        Combination(*each)
        for each in itertools.product(asked.methods, asked.searches, asked.spaces)
    ]
    rows = read(asked.out)
    known = {row.combination for row in rows}
    todo = [each for each in combinations if each not in known]
    warm()
    began = time.monotonic()
    for done, row in enumerate(swept(todo, asked.workers, asked.data, asked.limit), start=1):
        rows.append(row)
        write(asked.out, rows)
        left = (time.monotonic() - began) / done * (len(todo) - done) / 60
        progress = f"{done}/{len(todo)} | {left:.0f} min left | {' '.join(row.combination)}"
        print(f"{progress} | {row.outcome} | {row.seconds} s | {row.message}", flush=True)
    told = summary([row for row in rows if row.combination in set(combinations)])
    print(told)
    if asked.summary:
        asked.summary.write_text(told, encoding="utf-8")


def warm() -> None:
    """Import what searches need, so that processes forked from this one need not."""
    from tutelage.parts import PARTS, part_named

    for module in ("torch._dynamo", "tutelage.run.search", "tutelage.cli"):  # first: for optimisers
        importlib.import_module(module)
    for kind, names in PARTS.items():
        for name in names:
            part_named(kind, name)


if __name__ == "__main__":
    main()
