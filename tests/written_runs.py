"""Run directories as searches and retrainings leave them, without the work."""

import json
import math

import numpy as np
import tomli_w

from tutelage.records.metrics import HEAD
from tutelage.records.results import RESULT
from tutelage.report.runs.read import read_run
from tutelage.spaces.genotype import DARTS_OPERATIONS, NASBENCH201_OPERATIONS, Genotype
from tutelage.spaces.published import PUBLISHED

EPOCHS = 50

SPACES = {
    "darts": ({"normal": 14, "reduce": 14}, DARTS_OPERATIONS),
    "nasbench201": ({"cell": 6}, NASBENCH201_OPERATIONS),
}
"""Edges of every cell, and the operations on them."""

NASBENCH201 = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|",
    "|skip_connect~0|+|skip_connect~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|",
)
"""What a search in nasbench201 finds in even and in odd epochs."""

NARROWED = (8, 5, 3)
"""Operations of an edge in the phases of a progressive search."""


def softmax(values):
    weights = np.exp(values)
    return weights / weights.sum(-1, keepdims=True)


def found(space, epoch, learners):
    """The genotype of every learner after an epoch."""
    if space == "nasbench201":
        return [Genotype.from_nasbench201(NASBENCH201[(epoch + k) % 2]) for k in range(learners)]
    return [PUBLISHED[name] for name in ("PDARTS", "DARTS_V2")][:learners]


def operations(space, phase, learner):
    """Names of every group: of all edges in the first phase, of each edge later."""
    edges, names = SPACES[space]
    if phase == 0:
        return {group: list(names) for group in edges}
    draw = np.random.default_rng([phase, learner])
    return {
        group: [
            [names[i] for i in sorted(draw.choice(len(names), NARROWED[phase], replace=False))]
            for _ in range(count)
        ]
        for group, count in edges.items()
    }


def watch(space, epoch, learners, seed):
    """What is measured after every epoch; the eigenvalue in every second one."""
    collapse = [
        {
            "skips": {group: epoch // 10 + place for place, group in enumerate(SPACES[space][0])},
            "entropy": dict.fromkeys(SPACES[space][0], 1 - epoch / 100),
            "alignment": {group: 0.2 * math.cos(epoch + k) for group in SPACES[space][0]},
            "eigenvalue": 0.1 + epoch**2 / 1000 + k / 10 if epoch % 2 else None,
        }
        for k in range(learners)
    ]
    name = "learner 1: " if learners > 1 else ""
    group, skips = next(iter(collapse[-1]["skips"].items()))
    sentence = f"{name}the {group} cell has {skips} skip connections, more than 2"
    row = {"collapse": collapse, "warnings": [sentence] if skips > 2 else []}
    if space == "nasbench201":
        row["table"] = [answer(epoch, k, seed) for k in range(learners)]
    return row


def answer(epoch, learner, seed):
    """What a table says: figures that can be told from each other by hand."""
    return {
        "cifar10_valid_200": 50.0,
        "cifar10_test_200": 90 + epoch / 10 + learner + seed / 2,
        "cifar100_test_200": 70 + epoch / 10 + learner + seed,
        "imagenet16_test_200": 40 + epoch / 10 + learner + seed,
        "rank": 5000 - 100 * epoch + learner + 10 * seed,
    }


def rows(epochs, learners, seed, space, phases):
    """A search's metrics with curves as real searches have them."""
    generator = np.random.default_rng(seed)
    edges, names = SPACES[space]
    drift = {
        group: generator.normal(size=(learners, count, len(names))) * 0.05
        for group, count in edges.items()
    }
    for epoch in range(epochs):
        progress = (epoch + 1) / EPOCHS
        phase = epoch * phases // epochs
        states = []
        for learner in range(learners):
            loss = 0.35 + 1.7 * math.exp(-4 * progress) + 0.05 * learner + generator.normal() * 0.02
            states.append(
                {
                    "train_loss": loss,
                    "train_accuracy": 1 - 0.35 * loss,
                    "valid_loss": loss + 0.15 * progress,
                    "valid_accuracy": 0.98 - 0.35 * loss - 0.05 * progress,
                }
            )
        width = NARROWED[phase] if phases > 1 else len(names)
        arch = [
            {group: softmax(x[k, :, :width] * (epoch + 1)).tolist() for group, x in drift.items()}
            for k in range(learners)
        ]
        norm = 1e-2 * math.exp(-progress)
        common = {
            "epoch": epoch,
            "loss": {"V": 2.3 - progress, "W": 3.1 - progress, "A": 2 - progress},
        }
        yield common | {"event": "step", "step": 50, "learners": states}
        yield (
            common
            | {
                "event": "epoch",
                "step": 391,
                "learners": states,
                "phase": phase,
                "operations": [operations(space, phase, k) for k in range(learners)],
                "arch_weights": arch,
                "genotype": [each.to_dict() for each in found(space, epoch, learners)],
                "gradient": {
                    "validate": {
                        "direct": norm,
                        "V": norm / 80,
                        "W": norm / 3,
                        "W labels": norm / 40,
                    }
                },
            }
            | watch(space, epoch, learners, seed)
        )


def session(seconds):
    return {
        "started": "2026-11-22T02:02:11+00:00",
        "seconds": seconds,
        "from_epoch": 0,
        "from_step": 0,
        "versions": {"python": "3.11.7", "tutelage": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
        "commit": None,
        "hardware": {"cpu": "A Processor With a Long Name @ 2.20GHz", "cores": 2, "gpu": None},
    }


def write_search(
    path,
    *,
    seed=0,
    method="sgl",
    space="darts",
    epochs=EPOCHS,
    learners=2,
    phases=1,
    stopped=None,
    end=True,
    seconds=5000.0,
    **changed,
):
    path.mkdir(parents=True)
    settings = {
        "method": {"name": method, "learners": learners, "peer_weight": 1.0},
        "search": {"name": "pcdarts"},
        "space": {"name": space},
        "data": {"name": "cifar10", "root": f"/data/{seed}", "train_fraction": 0.5},
        "weights": {"lr": 0.1, "lr_min": 0.0, "momentum": 0.9, "weight_decay": 3e-4, "clip": 5.0},
        "alphas": {"lr": 6e-4, "beta1": 0.5, "beta2": 0.999, "weight_decay": 1e-3},
        "epochs": EPOCHS,
        "batch_size": 256,
        "via": "finite-difference",
        "seed": seed,
        "retrain": {"epochs": 600, "seed": seed},
    }
    (path / "run.toml").write_text(tomli_w.dumps(settings | changed))
    written = list(rows(epochs, learners, seed, space, phases))
    last = epochs - 1
    if stopped:
        written[-1]["stopped"] = stopped
        last = stopped["epoch"]
    if end:
        written.append({"event": "end", "learners": written[-1]["learners"], "kept": learners - 1})
    write_rows(path, written)
    sessions = {"sessions": [session(seconds - 1000), session(1000.0)]}
    (path / "environment.json").write_text(json.dumps(sessions))
    about = written[-1]["learners"][-1] | {"learner": learners - 1, "epoch": epochs}
    (path / "genotype.json").write_text(found(space, last, learners)[-1].to_json(about))
    return path


def read_rows(path):
    """The rows of a run's metrics.jsonl."""
    _, *lines = (path / "metrics.jsonl").read_text().splitlines()  # the first is the version
    return [json.loads(line) for line in lines]


def write_rows(path, written):
    """Write a run's metrics.jsonl."""
    (path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in (HEAD, *written)))


def as_before(path):
    """Make a run's metrics those of the first release, without what later ones log."""
    later = ("phase", "operations", "collapse", "warnings", "table", "stopped")
    write_rows(path, [{k: x for k, x in row.items() if k not in later} for row in read_rows(path)])
    return path


def write_retraining(path, *, error=0.0265, seed=0, epochs=40, done=True, parameters=3_349_342):
    path.mkdir(parents=True)
    genotype = PUBLISHED["DARTS_V2"]
    settings = {
        "genotype": genotype.to_json(),
        "data": {"name": "cifar10", "root": f"/data/{seed}"},
        "retrain": {"epochs": epochs, "channels": 36, "cells": 20, "seed": seed},
    }
    (path / "run.toml").write_text(tomli_w.dumps(settings))
    (path / "genotype.json").write_text(genotype.to_json())
    (path / "environment.json").write_text(json.dumps({"sessions": [session(7200.0)]}))
    written = [
        {
            "event": "epoch",
            "epoch": epoch,
            "step": 521,
            "train_loss": 0.1 + 2 * math.exp(-epoch / 8),
            "train_accuracy": 1 - 0.6 * math.exp(-epoch / 8),
            "lr": 0.025,
            "drop_path": 0.2 * epoch / epochs,
        }
        for epoch in range(epochs if done else epochs // 2)
    ]
    write_rows(path, written)
    if done:
        result = {
            **RESULT,
            "test_error": error,
            "test_loss": 0.11,
            "params": parameters,
            "flops": 528_000_000,
            "epochs": epochs,
            "seed": seed,
            "genotype": genotype.to_dict(),
        }
        (path / "result.json").write_text(json.dumps(result))
    return path


def stage_of(path):
    return read_run(path).search


def change(path, edit):
    """Edit every row of a metrics.jsonl."""
    rows = read_rows(path)
    for row in rows:
        edit(row)
    write_rows(path, rows)
