"""Draw nearest neighbours of test images, as retrained networks see them (PAMKD, Figure 2, right).

    python benchmarks/neighbours.py RUN RUN... --out neighbours.png [--queries 6] [--seed 0]

A row is a test image; for every run, beside it the four test images whose features before the
classifier have the largest cosine with its own. An image of another class has a red frame. The
share of neighbours of the query's class, over all test images, is printed and stands above each
column. The runs must have been retrained on the same data, such as those of the rows
`pamkd/figure-2-right/groups` and `pamkd/figure-2-right/pl`.
"""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.config import Data
from tutelage.data.images import Labelled
from tutelage.data.pictures import pictures
from tutelage.data.read import read
from tutelage.parts import from_table
from tutelage.run.networks.files import about, find, load

COUNT = 4
BATCH = 256


def test_images(run: Path) -> Labelled:
    """Read the test part of the data that a retrained run was trained on."""
    settings = tomllib.loads((find(run).parent / "run.toml").read_text(encoding="utf-8"))
    return read(from_table(Data, settings["data"], "the data"), "test")


def features(run: Path, data: Labelled) -> Tensor:
    """Return the features (N, D) of all images before a network's classifier, of length 1."""
    network, details = load(run), about(run)
    if not hasattr(network, "features"):
        raise SystemExit(f"{run}: an ensemble has no features of its own; give one of its members")
    mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (details.mean, details.std))
    found = []
    with torch.inference_mode():
        for index in torch.arange(len(data.images)).split(BATCH):
            pixels = data.images.take(index).float() / 255
            found.append(F.normalize(network.features((pixels - mean) / std).flatten(1)))
    return torch.cat(found)


def neighbours(z: Tensor) -> Tensor:
    """Return the indices (N, COUNT) of the nearest other images of every image, nearest first."""
    found = []
    for index in torch.arange(len(z)).split(BATCH):
        cosines = z[index] @ z.t()
        cosines[torch.arange(len(index)), index] = -2  # not itself
        found.append(cosines.topk(COUNT).indices)
    return torch.cat(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = test_images(options.runs[0])
    labels = data.images.labels
    torch.manual_seed(options.seed)
    queries = torch.randperm(len(labels))[: options.queries].tolist()
    columns = 1 + len(options.runs) * (COUNT + 1)
    figure, axes = plt.subplots(
        len(queries), columns, figsize=(columns * 0.7, len(queries) * 0.95), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for row, query in enumerate(queries):
        show(axes[row, 0], data, query, data.classes[labels[query]], "0.2")
    for place, run in enumerate(options.runs):
        nearest = neighbours(features(run, data))
        share = (labels[nearest] == labels[:, None]).double().mean().item()
        print(f"{run}: {100 * share:.2f} % of {COUNT} neighbours have the query's class")
        first = 2 + place * (COUNT + 1)
        axes[0, first].text(
            0, 1.45, f"{run.name}: {100 * share:.1f} %", transform=axes[0, first].transAxes
        )
        for row, query in enumerate(queries):
            for at, other in enumerate(nearest[query].tolist()):
                same = labels[other] == labels[query]
                name = data.classes[labels[other]]
                show(axes[row, first + at], data, other, name, "0.8" if same else "tab:red")
    figure.savefig(options.out, dpi=160, bbox_inches="tight")
    print(f"Figure: {options.out}")


def show(axis: plt.Axes, data: Labelled, index: int, name: str, colour: str) -> None:
    """Draw an image with its class above it and a frame around it."""
    (picture,) = pictures(data.images.take(torch.tensor([index])))
    axis.imshow(picture, cmap="gray")
    axis.axis("on")
    axis.set(xticks=[], yticks=[])
    axis.set_title(name, fontsize=6, loc="center", pad=2)
    for spine in axis.spines.values():
        spine.set(visible=True, color=colour, linewidth=1.5)


if __name__ == "__main__":
    main()
