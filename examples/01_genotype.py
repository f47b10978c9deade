"""A genotype as a value: read DARTS' text, count, draw, build."""

from pathlib import Path

import torch

from tutelage import Genotype, Size
from tutelage.report.figures.draw import save_drawing
from tutelage.run.cost.count import describe
from tutelage.run.networks.files import build

TEXT = """Genotype(
    normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1),
            ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)],
    normal_concat=[2, 3, 4, 5],
    reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1),
            ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)],
    reduce_concat=[2, 3, 4, 5])"""


def main() -> None:
    genotype = Genotype.from_darts(TEXT)
    print(describe(genotype, Size(channels=36, cells=20, classes=10)).as_text())
    Path("cells.json").write_text(genotype.to_json(), encoding="utf-8")
    assert Genotype.read("cells.json") == genotype
    save_drawing(genotype, "cells.svg")
    network = build(genotype, Size(channels=4, cells=3, classes=5)).eval()
    print("logits:", tuple(network(torch.zeros(2, 3, 32, 32)).shape))


if __name__ == "__main__":
    main()
