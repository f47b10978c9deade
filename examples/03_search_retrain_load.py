"""From images to a trained network: search on the digits, retrain, load. Toy settings throughout.

For a result rather than a tour, take `tutelage search --recipe digits-demo`.
"""

from pathlib import Path

import torch

import tutelage
from tutelage.config import Data, Retrain
from tutelage.run.networks.files import about
from tutelage.run.retrain import retrain

TOY = {"channels": 2, "cells": 3, "epochs": 1, "limit_batches": 2, "batch_size": 8}


def main() -> None:
    found = tutelage.search("sgl", data="digits", out="run", log_every=1, **TOY)
    print(found.genotype.as_text())
    print(f"kept learner {found.learner}: {found.scores[found.learner]}")

    recipe = Retrain(**{**TOY, "channels": 4}, lr=0.05, cutout=0, auxiliary=0.0)
    out = Path("run/retrain")
    result = retrain(found.genotype, Data("digits"), recipe, out)
    print(f"{result['params']:,} weights, test error {100 * result['test_error']:.1f} %")

    network, details = tutelage.load("run"), about("run")
    pixels = torch.rand(1, *details.shape)
    mean = torch.tensor(details.mean)[:, None, None]
    std = torch.tensor(details.std)[:, None, None]
    logits = network((pixels - mean) / std)
    print("noise is taken for", details.classes[int(logits.argmax())])


if __name__ == "__main__":
    main()
