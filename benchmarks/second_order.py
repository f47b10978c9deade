"""Compare a search's steps with its authors' own, of first and of second order, in float64.

    python benchmarks/second_order.py --original FOLDER

FOLDER is a checkout of github.com/quark0/darts. Ours are the steps of the recipes darts1-cifar10
and darts2-cifar10, taken as a search takes them. The original's are its `Architect.step`, with a
central difference at 0.01 / ||v|| on both sides, then the weights' update in its script. Three
steps start from equal weights and alphas and read equal random images, others for the alphas than
for the weights. Then the first gradient of the alphas is compared for every `--virtual`.

With `--search pcdarts`, FOLDER is a checkout of yuhuixu1993/PC-DARTS, whose code has that step too,
and with `--search nasbench201` of D-X-Y/AutoDL-Projects, whose script DARTS-V2 is the recipe
darts2-nasbench201. Those of DARTS- and DrNAS have it as well, but cannot copy their own networks.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import torch

import originals
from originals import Original, import_from, plain
from search_step import PAIRS, Pair, draw, equal_original, whole
from tutelage.config import Run
from tutelage.spaces.base import Size
from tutelage.trees import detach, leaves, rebuild

ours = import_from(Path(__file__).parent.parent / "tests", "search_steps")
CIFAR = {"first": "darts1-cifar10", "second": "darts2-cifar10"}
BENCHMARK = {"second": "darts2-nasbench201"}
SEARCHES = {
    "darts": (PAIRS["darts"]._replace(small=Size(4, 8)), CIFAR),
    "pcdarts": (PAIRS["pcdarts"], CIFAR),
    "nasbench201": (
        PAIRS["nasbench201"]._replace(original=originals.nasbench201_second, small=Size(8, 3)),
        BENCHMARK,
    ),
}
"""Pairs and recipes by order. But for PC-DARTS, gradients are beyond the limit of clipping."""
STEPS = 3


class Both(NamedTuple):
    """Our search and the original, before their first step."""

    pair: Pair
    settings: Run
    state: Any
    theirs: Original

    def step(self, number: int, batches: Any) -> float:
        """Take a step of both; return the relative difference of the alphas' gradients."""
        ours.take_step(self.settings, self.state, number, batches)
        unrolled = self.settings.via != "first-order"
        theirs = self.theirs.step(*batches.train[:2], batches.valid[:2], unrolled)
        alphas = self.state.variables["A"]
        mine = rebuild(alphas, iter([x.grad for x in leaves(alphas)]))
        found, expected = (torch.cat([x.flatten() for x in y]) for y in (whole(mine), theirs))
        return float((found - expected).norm() / expected.norm())

    def error(self) -> float:
        """Return the largest difference of a weight or an alpha."""
        net = self.state.problem.learners[0].net.module
        with torch.no_grad():
            for name, p in net.named_parameters():
                p.copy_(self.state.variables["w"][name])
        mine = plain(net, self.pair.space, self.pair.small) + whole(self.state.variables["A"])
        theirs = self.theirs.weights + self.theirs.alphas
        pairs = zip(mine, theirs, strict=True)
        return max(float((x - y).detach().abs().max()) for x, y in pairs)


def begin(pair: Pair, folder: Path, settings: Run) -> Both:
    """Build both from the same weights and alphas."""
    torch.manual_seed(settings.seed)
    module, alphas = pair.space.supernet(pair.small).double(), draw(pair, torch.float64)
    theirs = equal_original(pair, folder, module, alphas)
    state = ours.begun(settings, ours.single_problem(module, pair.search, detach(alphas)))
    return Both(pair, settings, state, theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--search", choices=SEARCHES, default="darts")
    parser.add_argument("--original", type=Path, required=True, help="a checkout of its code")
    parser.add_argument("--channels", type=int)
    parser.add_argument("--cells", type=int, help="of NAS-Bench-201: in each of three stages")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--side", type=int, default=16, help="of an image, in pixels")
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)  # the originals build a copy of their network
    torch.set_num_threads(1)
    pair, recipes = SEARCHES[options.search]
    small = Size(options.channels or pair.small.channels, options.cells or pair.small.cells)
    pair = pair._replace(small=small)
    torch.manual_seed(0)
    batches = ours.draw_batches(STEPS, options.batch_size, options.side)
    for order, recipe in recipes.items():
        both = begin(pair, options.original, ours.settings_of(recipe))
        gradients, rest = max(both.step(*each) for each in enumerate(batches)), both.error()
        print(
            f"{order} order, {recipe}: in {STEPS} steps the gradients of the alphas differ by at "
            f"most {gradients:.1e} of their norm, weights and alphas then by {rest:.1e}"
        )
        assert gradients < 1e-8 and rest < 1e-10, f"{recipe}: not the steps of the original"
    for virtual in ("sgd", "plain"):
        settings = ours.settings_of(recipes["second"], virtual=virtual)
        first = begin(pair, options.original, settings).step(0, batches[0])
        print(f"with --virtual {virtual}: in the first step by {first:.2g} of their norm")


if __name__ == "__main__":
    main()
