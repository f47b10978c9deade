"""Run directories as searches and retrainings leave them, without the work."""

import json
import math

import numpy as np
import tomli_w

from tutelage.spaces.published import PUBLISHED

EPOCHS = 50


def softmax(values):
    weights = np.exp(values)
    return weights / weights.sum(-1, keepdims=True)


def rows(epochs, learners, seed):
    """A search's metrics with curves as real searches have them."""
    generator = np.random.default_rng(seed)
    drift = generator.normal(size=(learners, 2, 14, 8)) * 0.05
    for epoch in range(epochs):
        progress = (epoch + 1) / EPOCHS
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
        mix = softmax(drift * (epoch + 1))
        norm = 1e-2 * math.exp(-progress)
        common = {
            "epoch": epoch,
            "loss": {"V": 2.3 - progress, "W": 3.1 - progress, "A": 2 - progress},
        }
        yield common | {"event": "step", "step": 50, "learners": states}
        yield common | {
            "event": "epoch",
            "step": 391,
            "learners": states,
            "mix": [{"normal": m[0].tolist(), "reduce": m[1].tolist()} for m in mix],
            "genotype": [PUBLISHED[name].to_dict() for name in ("PDARTS", "DARTS_V2")][:learners],
            "gradient": {
                "validate": {"direct": norm, "V": norm / 80, "W": norm / 3, "W labels": norm / 40}
            },
        }


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
    path, *, seed=0, method="sgl", epochs=EPOCHS, learners=2, end=True, seconds=5000.0, **changed
):
    path.mkdir(parents=True)
    settings = {
        "method": {"name": method, "learners": learners, "peer_weight": 1.0},
        "search": {"name": "pcdarts"},
        "space": {"name": "darts"},
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
    found = list(rows(epochs, learners, seed))
    if end:
        found.append({"event": "end", "learners": found[-1]["learners"], "kept": learners - 1})
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    sessions = {"sessions": [session(seconds - 1000), session(1000.0)]}
    (path / "environment.json").write_text(json.dumps(sessions))
    about = found[-1]["learners"][-1] | {"learner": learners - 1, "epoch": epochs - 1}
    (path / "genotype.json").write_text(PUBLISHED["DARTS_V2"].to_json(about))
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
    found = [
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
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    if done:
        result = {
            "test_error": error,
            "test_loss": 0.11,
            "parameters": parameters,
            "multiply_adds": 528_000_000,
            "epochs": epochs,
            "seed": seed,
            "genotype": genotype.to_dict(),
        }
        (path / "result.json").write_text(json.dumps(result))
    return path
