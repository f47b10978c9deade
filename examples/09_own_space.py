"""A space of one's own, in a page of TOML, with an operation of one's own in two functions."""

from pathlib import Path

import torch

import tutelage
from tutelage.run.cost.count import describe
from tutelage.run.networks.files import space_of
from tutelage.spaces.base import Size

PAGE = Path(__file__).parent / "own_space" / "cells.toml"

if __name__ == "__main__":
    toy = {"channels": 4, "cells": 3, "epochs": 1, "limit_batches": 2, "batch_size": 8}
    found = tutelage.search(space=str(PAGE), out="own", via="first-order", **toy)
    print(found.genotype.as_text())

    # the genotype holds the whole space, so it builds its network without the page
    size = Size(channels=4, cells=3, classes=10, image_channels=1)
    network = space_of(found.genotype).network(found.genotype, size)
    print("logits:", tuple(network.eval()(torch.zeros(2, 1, 8, 8)).shape))
    print(describe(found.genotype, size, side=8).as_text().splitlines()[1])

    # another process must be told that the operation's code may be imported
    tutelage.trust("involution")
    short = {"channels": 4, "cells": 3, "epochs": 1, "limit_batches": 2, "batch_size": 8}
    settings = tutelage.Retrain(auxiliary=0.0, **short)
    tutelage.retrain(found.genotype, tutelage.Data(), settings, Path("retrained"))
    print("loaded:", tuple(tutelage.load("retrained")(torch.zeros(2, 1, 8, 8)).shape))
