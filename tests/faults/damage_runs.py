"""Tiny runs to damage, each as it stands at one moment, and the commands that read it.

    python tests/faults/damage_runs.py [--scene NAME] [--most N] [--seed N]

damages the files of every scene in every way, or of each scene in a sample of N ways, calls every
command on each, and prints counts. A command may refuse in one sentence, or end as it would have
without the damage.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from damage import Damage, Outcome, call, damages

from tutelage.benchmark.build import build
from tutelage.run.job import checkpoint
from tutelage.study import process

SMALL = "--channels 2 --cells 3 --batch-size 4 --device cpu --limit-batches 2 --epochs 2"
TINY = f"{SMALL} --via first-order --save-every 0"
RETRAINING = " ".join(
    f"--retrain.{each}"
    for each in "epochs 2,limit-batches 2,channels 2,cells 1,batch-size 32,device cpu".split(",")
)
SEARCH = f"search {TINY} {RETRAINING} --space nasbench201"
POOL = f"search {TINY} {RETRAINING} --method nes --learners 2 --members 2 --space nasbench201"
CHAIN = (
    "search --method ennas --students 2 --search diverse-paths --space nasbench-macro --channels 2 "
    "--data digits --batch-size 16 --device cpu --epochs 1 --limit-batches 1 --ranked 2 "
    "--save-every 0 --evolution.population 3 --evolution.generations 2 --evolution.parents 2 "
    "--evolution.images 20 --evolution.judged 20"
)
STUDY = """
[study]
seeds = [1, 2]
[base]
epochs = 1
limit_batches = 1
channels = 2
cells = 3
batch_size = 4
via = "first-order"
device = "cpu"
space.name = "nasbench201"
retrain = {epochs = 1, limit_batches = 1, channels = 2, cells = 1, device = "cpu"}
[configurations.a]
then = ["retrain", "query"]
[configurations.b]
then = []
weights.lr = 0.05
"""
SKIPPED = (".lock", "report.html", "report.json")
"""Files that no command reads."""


@dataclass(frozen=True)
class Command:
    """A command on a scene: {run} is its folder, {root} the folder of what is beside it."""

    line: str
    same: tuple[str, ...] = ()
    """Files that have to be the same afterwards as without the damage."""


@dataclass(frozen=True)
class Scene:
    """A folder as it stands at one moment, and what reads it."""

    name: str
    folder: Path
    commands: tuple[Command, ...]
    whole: Path | None = None
    """The same folder at the end, without any damage."""
    files: tuple[str, ...] = ()
    """The files to damage; all, if not given."""
    slow: frozenset[str] = field(default=frozenset())

    def paths(self) -> list[str]:
        """List the files to damage."""
        if self.files:
            return list(self.files)
        every = (x for x in self.folder.rglob("*") if x.is_file() and x.name not in SKIPPED)
        return sorted(x.relative_to(self.folder).as_posix() for x in every)

    def cases(self) -> list[tuple[str, Damage | None]]:
        """List every file with every damage; None: it is removed."""
        every: list[tuple[str, Damage | None]] = []
        for name in self.paths():
            every += [(name, None), *((name, each) for each in damages(self.folder / name))]
        return every


@dataclass(frozen=True)
class Verdict:
    """What one command made of one damage."""

    scene: str
    file: str
    damage: str
    command: str
    outcome: Outcome
    other: str = ""
    """A file that differs from that of a run without damage."""

    @property
    def wrong(self) -> bool:
        """Whether it is neither a sentence nor the same result."""
        return self.outcome.kind not in ("done", "refused") or bool(self.other)

    @property
    def kind(self) -> str:
        """Count it as this."""
        return "other result" if self.other else self.outcome.kind

    def __str__(self) -> str:
        end = f": {self.other} differs" if self.other else ""
        last = self.outcome.text.strip().splitlines()[-1:] or [""]
        return (
            f"{self.scene} {self.file} [{self.damage}] {self.command}: {self.kind}{end}: {last[0]}"
        )


def tried(scene: Scene, file: str, damage: Damage | None, command: Command, place: Path) -> Verdict:
    """Damage a copy of a scene in `place`, call a command, and judge how it ends."""
    shutil.rmtree(place, ignore_errors=True)
    run = Path(shutil.copytree(scene.folder, place / "run"))
    if damage is None:
        (run / file).unlink()
    else:
        (run / file).write_bytes(damage.make())
    outcome = call(
        *(each.format(run=run, root=scene.folder.parent) for each in command.line.split())
    )
    other = ""
    if outcome.kind == "done" and scene.whole:
        other = next((x for x in command.same if x != file and differs(run, scene.whole, x)), "")
    return Verdict(
        scene.name, file, damage.name if damage else "removed", command.line, outcome, other
    )


def differs(run: Path, whole: Path, name: str) -> bool:
    """Tell whether a file of a run differs from that of the whole one, or is missing."""
    mine, other = run / name, whole / name
    return not mine.is_file() or mine.read_bytes() != other.read_bytes()


def sampled(scene: Scene, most: int | None, seed: int) -> list[tuple[str, Damage | None]]:
    """Choose damages: of each file the same number, as far as it has them."""
    cases = scene.cases()
    if most is None or len(cases) <= most:
        return cases
    draw = random.Random(seed)
    by_file = [list(each) for _, each in itertools.groupby(cases, lambda case: case[0])]
    for each in by_file:
        draw.shuffle(each)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*by_file))
    return [each for each in turns if each is not None][:most]


def campaign(
    scene: Scene, place: Path, most: int | None = None, seed: int = 0
) -> Iterator[Verdict]:
    """Try damages of a scene, or a sample of so many, with every command."""
    with patch.object(process, "COMMAND", (sys.executable, "-S", "-c", "exit('tutelage: no')")):
        for file, damage in sampled(scene, most, seed):
            for command in scene.commands:
                yield tried(scene, file, damage, command, place)


# Making the scenes ------------------------------------------------------------------------------


def done(line: str, *more: Any) -> None:
    """Call a command that has to succeed."""
    outcome = call(*line.split(), *more)
    if outcome.kind != "done":
        raise AssertionError(f"{line}: {outcome.text}")


@contextlib.contextmanager
def kept_at(run: Path, inside: str, count: int, copy: Path) -> Iterator[None]:
    """Copy a run when a folder in it has been saved so many times."""
    save, saved = checkpoint.save, itertools.count(1)

    def saving(directory: Path, state: dict[str, Any]) -> None:
        save(directory, state)
        if directory == run / inside and next(saved) == count:
            shutil.copytree(run, copy)

    with patch.object(checkpoint, "save", saving):
        yield


RESUME = Command("search --resume {run}", ("genotype.json", "metrics.jsonl"))
RETRAIN = Command("retrain {run}", ("retrain/result.json", "retrain/metrics.jsonl"))
REPORT = Command("report {run}")


def searches(root: Path) -> Iterator[Scene]:
    """A search in its second epoch, its retraining in its second epoch, and both at their end."""
    run = root / "search" / "whole"
    with kept_at(run, "", 3, root / "search" / "half"):
        done(SEARCH, "--out", run)
    yield Scene("search", root / "search" / "half", (RESUME,), run)
    retrained = root / "retraining" / "whole"
    shutil.copytree(run, retrained)
    with kept_at(retrained, "retrain", 3, root / "retraining" / "half"):
        done(f"retrain {retrained} --save-every 0")
    yield Scene(
        "retraining",
        root / "retraining" / "half",
        (Command("retrain {run} --save-every 0", RETRAIN.same),),
        retrained,
    )
    table(root / "retraining" / "table")
    yield Scene(
        "finished",
        retrained,
        (
            RESUME,
            Command("retrain {run} --save-every 0", RETRAIN.same),
            REPORT,
            Command("report {run} {root}/half --out {run}/compared.html"),
            Command("describe {run}"),
            Command("draw {run} --out {run}/drawn.svg"),
            Command("query {run} --table {root}/table"),
            Command("papers --runs {run}"),
        ),
        retrained,
    )


def pools(root: Path) -> Iterator[Scene]:
    """A search of an ensemble, and the retraining of its networks."""
    run = root / "pool" / "whole"
    with kept_at(run, "", 3, root / "pool" / "half"):
        done(POOL, "--out", run)
    same = (*RESUME.same, "ensemble.json")
    yield Scene("pool", root / "pool" / "half", (Command(RESUME.line, same),), run)
    with kept_at(run, "retrain/member-1", 2, root / "pool" / "training"):
        done(f"retrain {run} --save-every 0")
    retrain = Command("retrain {run} --save-every 0", ("retrain/result.json",))
    yield Scene("members", root / "pool" / "training", (retrain,), run)
    yield Scene("ensemble", run, (retrain, REPORT), run)


def chains(root: Path) -> Iterator[Scene]:
    """A search in a space of chains: in its ranking, in its evolution, and at its end."""
    macro = root / "chain" / "table.json"
    macro.parent.mkdir()
    macro.write_text(json.dumps(macro_table()))
    run = root / "chain" / "whole"
    with (
        kept_at(run, "evolution", 4, root / "chain" / "evolving"),
        kept_at(run, "ranking", 1, root / "chain" / "ranking"),
    ):
        done(CHAIN, "--table", macro, "--out", run)
    same = (*RESUME.same, "evolution/metrics.jsonl", "ranking/metrics.jsonl")
    resume = Command(RESUME.line, same)
    for name in ("ranking", "evolving"):
        yield Scene(name, root / "chain" / name, (resume,), run)
    commands = (resume, REPORT, Command("describe {run}"))
    yield Scene("evolved", run, commands, run)


def studies(root: Path) -> Iterator[Scene]:
    """A study at its end."""
    from tutelage.study.jobs import Outcome as Ended
    from tutelage.study.jobs import prepare
    from tutelage.study.plan import placed
    from tutelage.study.reading import read_study

    folder = root / "study"
    folder.mkdir()
    (folder / "study.toml").write_text(STUDY)
    table(folder / "table")
    study = placed(read_study(folder / "study.toml"), None, folder / "table")
    for job in prepare(study, folder / "whole"):
        while step := job.step():
            outcome = call(*step.words)
            assert outcome.kind == "done", outcome.text
            if step.answer:
                step.answer.write_text(outcome.text)
        job.write(Ended(memory={"search": 2**20}))
    commands = (
        Command("study --status {run}"),
        REPORT,
        Command("report {run} --baseline a"),
        Command("study {run}/study.toml --dry-run"),
        Command("study {root}/study.toml --out {run} --table {root}/table"),
    )
    files = ["study.toml", "b/search.toml", "a/retrain.toml", "a/seed-1.json", "b/seed-1.json"]
    own = ("run.toml", "metrics.jsonl", "genotype.json", "environment.json", "query.json")
    files += [f"a/seed-1/{name}" for name in (*own, "retrain/result.json", "retrain/run.toml")]
    files = [name for name in files if (folder / "whole" / name).exists()]
    yield Scene("study", folder / "whole", commands, files=tuple(files))


def inputs(root: Path) -> Iterator[Scene]:
    """Files that a user gives: a recipe, a study, genotypes, tables, a ledger."""
    folder = root / "inputs" / "whole"
    folder.mkdir(parents=True)
    run = root / "retraining" / "whole"
    (folder / "recipe.toml").write_bytes((run / "run.toml").read_bytes())
    (folder / "study.toml").write_text(STUDY)
    for name in ("genotype.json", "retrain/network.safetensors", "retrain/run.toml"):
        shutil.copy(run / name, folder / Path(name).name)
    shutil.copy(root / "retraining" / "table", folder / "table")
    shutil.copy(root / "chain" / "table.json", folder / "macro.json")
    done("papers --runs", run, "--ledger", folder / "ledger.md")
    pairs = {
        "recipe.toml": ("search --recipe {run}/recipe.toml --help",),
        "study.toml": ("study {run}/study.toml --dry-run",),
        "genotype.json": (
            "describe {run}/genotype.json",
            "draw {run}/genotype.json --out {run}/x.svg",
        ),
        "table": ("query {run}/genotype.json --table {run}/table",),
        "macro.json": ("query 01201201 --table {run}/macro.json",),
        "ledger.json": ("papers --runs {root}/.. --ledger {run}/ledger.md",),
    }
    for file, lines in pairs.items():
        if (folder / file).exists():
            commands = tuple(Command(line) for line in lines)
            yield Scene(f"given {file}", folder, commands, files=(file,))


def table(path: Path) -> Path:
    """Write a table of NAS-Bench-201 with invented figures."""
    import csv

    from test_nasbench201_table import synthetic

    rows = synthetic()
    with path.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    build([path.with_suffix(".csv")], path)
    return path


def macro_table() -> dict[str, Any]:
    """Return a table of NAS-Bench-Macro with invented figures."""
    entries = {}
    for place, digits in enumerate(itertools.product("012", repeat=8)):
        runs = [(8000 + place % 1500 + each) / 100 for each in range(3)]
        mean, std = statistics.fmean(runs), statistics.pstdev(runs)
        costs = {"params": 10_000 + place, "flops": 7_000_000 + place}
        entries["".join(digits)] = {"test_acc": runs, "mean_acc": mean, "std": std, **costs}
    return entries


def scenes(root: Path) -> list[Scene]:
    """Make all scenes in a folder."""
    made = []
    for make in (searches, pools, chains, studies, inputs):
        made += list(make(root))
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the campaign and print its counts, and what went wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scene", action="append")
    parser.add_argument("--most", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=20)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        root, total = Path(folder), Counter()
        for scene in scenes(root):
            if given.scene and scene.name not in given.scene:
                continue
            began, count, shown = time.process_time(), Counter(), Counter()
            for verdict in campaign(scene, root / "work", given.most, given.seed):
                count[verdict.kind] += 1
                key = str(verdict).rpartition(": ")[2][:60]
                shown[key] += verdict.wrong
                if verdict.wrong and shown[key] <= 3 and sum(shown.values()) <= 3 * given.show:
                    print("  ", str(verdict)[:400], flush=True)
            total += count
            seconds = time.process_time() - began
            print(
                f"{scene.name}: {len(scene.cases())} damages in all;",
                dict(count),
                f"{seconds:.0f} CPU seconds",
                flush=True,
            )
        print("all:", dict(total))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
