"""Run directories of searches that sample paths, as they leave them, without the work."""

import json

import numpy as np
import tomli_w

from tutelage.benchmark.ranking import compare
from tutelage.spaces.genotype import Genotype
from written_runs import session, write_rows

OPERATIONS = ("identity", "mbconv3_3x3", "mbconv6_5x5")
LAYOUT = {"widths": [64, 128, 256], "depths": [2, 3, 3], "strides": [2, 2, 2], "stem_channels": 32}
LAYOUT |= {"first": 0, "last": 1280}
DRAWS = 120
"""Of a layer in an epoch."""


def genotype(encoding):
    return Genotype.of_chain("nasbench-macro", [OPERATIONS[gene] for gene in encoding], LAYOUT)


def cost(encoding):
    """Costs that can be told from encoding by hand."""
    total = sum(encoding)
    costs = {"params": 1_000_000 + 10_000 * total, "flops": 10_000_000 * total}
    return {**costs, "latency": 1.5 + total / 8}


TEACHER = "Their teacher is the one that this run was given."


def epoch_row(epoch, epochs, taught, generator):
    """Students that get better, their teacher 4 points above and 10 on what it is fitted to."""
    accuracy = 0.2 + 0.5 * epoch / epochs
    probe = {"students_accuracy": accuracy, "logit_distance": 2 + epoch / 10}
    row = {
        "event": "epoch",
        "epoch": epoch,
        "step": 40,
        "loss": {"learn": 2 - accuracy},
        "learners": [{"train_loss": 2 - accuracy, "train_accuracy": accuracy}],
        "gradient": {},
        "phase": 0,
        "operations": [{"chain": list(OPERATIONS)}],
        "sampled": [{"chain": (generator.multinomial(DRAWS, [1 / 3] * 3, 8) / DRAWS).tolist()}],
        "samples": [{"chain": [DRAWS] * 8}],
        "probe": probe,
    }
    if taught:
        row["taught_by"] = TEACHER
        probe |= {"teacher_accuracy": accuracy + 0.04, "gap": 0.04}
        known = {"teacher_accuracy": accuracy + 0.1, "gap": 0.1, "logit_distance": 3.0}
        row["teaching"] = known
    return row


def ranking_rows(count, generator):
    """Architectures whose accuracies in the supernet know something of the truth."""
    for place in range(count):
        true = 85 + 8 * generator.random()
        encoding = generator.integers(3, size=8).tolist()
        yield {
            "event": "step",
            "epoch": 0,
            "step": place + 1,
            "encoding": encoding,
            "accuracy": (true - 60 + 4 * generator.random()) / 100,
            "flops": cost(encoding)["flops"],
            "table": {"cifar10_test": true, "rank": place + 1},
        }


def evolution_rows(generations, population, generator):
    """Generations of architectures that get better; every one ends with the best so far."""
    scored = []
    for generation in range(generations):
        for place in range(population):
            encoding = generator.integers(3, size=8).tolist()
            accuracy = round(0.4 + 0.02 * generation + 0.1 * generator.random(), 3)
            scored.append({"encoding": encoding, "accuracy": accuracy, **cost(encoding)})
            yield {"event": "step", "epoch": generation, "step": place + 1, **scored[-1]}
        best = max(scored, key=lambda each: each["accuracy"])
        yield {"event": "epoch", "epoch": generation, "step": population, **best}


def write_sampled(
    path,
    *,
    method="ennas",
    seed=0,
    epochs=12,
    done=12,
    ranked=20,
    scored=20,
    generations=4,
    population=6,
    candidates=24,
    objectives="accuracy",
    end=True,
    **changed,
):
    """Write a run that got so far: `done` epochs, `scored` ranked, `candidates` evolved."""
    path.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    evolution = {"population": population, "generations": generations, "objectives": objectives}
    settings = {
        "method": {"name": method, "students": 3, "warmup": 1 / 6},
        "search": {"name": "diverse-paths"},
        "space": {"name": "nasbench-macro"},
        "data": {"name": "digits"},
        "epochs": epochs,
        "ranked": ranked,
        "evolution": evolution,
        "seed": seed,
        "retrain": {"epochs": 600},
        **changed,
    }
    taught = method in ("ennas", "cream")
    rows = [epoch_row(epoch, epochs, taught, generator) for epoch in range(done)]
    drawn = list(ranking_rows(ranked, generator))
    evolved = list(evolution_rows(generations, population, generator))
    best = evolved[-1]
    if scored:
        write_folder(path / "ranking", settings, drawn[:scored], scored == ranked)
    if candidates:
        until = [at for at, row in enumerate(evolved) if row["event"] == "step"][candidates - 1]
        write_folder(path / "evolution", settings, evolved[: until + 1 + end], done=False)
    if end:
        found = {key: best[key] for key in ("encoding", "accuracy", "params", "flops")}
        table = [{"cifar10_test": 91.25 + seed, "rank": 2500 + seed}]
        rows.append({"event": "end", "learners": [{"valid_accuracy": 0.7}], "kept": 0})
        rows[-1] |= {"evolution": found, "table": table, "ranking": judged(drawn)}
        about = {"learner": 0, "epoch": epochs, "supernet_accuracy": best["accuracy"]}
        (path / "genotype.json").write_text(genotype(best["encoding"]).to_json(about))
    (path / "run.toml").write_text(tomli_w.dumps(settings))
    (path / "environment.json").write_text(json.dumps({"sessions": [session(90.0)]}))
    write_rows(path, rows)
    return path


def judged(drawn):
    """What the row that ends a search says of its ranking."""
    true = [row["table"]["cifar10_test"] for row in drawn]
    by_cost = compare([row["flops"] for row in drawn], true)
    found = compare([row["accuracy"] for row in drawn], true)
    return vars(found) | {"by_flops": vars(by_cost)}


def write_folder(path, settings, rows, done):
    """Write what works in a folder of its own."""
    path.mkdir()
    (path / "run.toml").write_text(tomli_w.dumps(settings))
    ends = [{"event": "epoch", "epoch": 0, "step": len(rows)}] if done else []
    write_rows(path, [*rows, *ends])
