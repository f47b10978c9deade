"""Compare three search steps of GDAS and PR-DARTS with their authors' own, in float64.

    python benchmarks/sampled_steps.py --search SEARCH --original FOLDER

FOLDER is a checkout of the code that the search was published with:

    gdas              github.com/D-X-Y/AutoDL-Projects: DARTS' cells, recipe gdas-cifar10
    gdas-nasbench201  the same: NAS-Bench-201, recipe gdas-nasbench201 with `unsampled = "added"`
    prdarts           github.com/salesforce/PR-DARTS: recipe prdarts-cifar10

Ours are steps of the engine on a recipe's problem, with the rates of its settings in their first
epoch. The original's are its networks, with the two updates of its script: SGD on the weights, then
Adam on the alphas. Both start from equal weights and alphas, read equal images, those of the alphas
others than those of the weights, and draw equal random numbers. The derived architectures of 1,000
random alphas are compared too.

Two things of the script are left out. It counts the alphas' gradients, those of the weights' loss
and of the step before, in the norm of the weights' that it clips: `--whole-norm` does. It also does
not decay weights that were never sampled; here they have gradients of 0, as in ours.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from originals import import_from, plain
from tutelage.batch import Batch
from tutelage.clock import Clock
from tutelage.config import Run
from tutelage.multilevel import search_step
from tutelage.parts import from_table, make_part
from tutelage.problem import Problem
from tutelage.recipes import read_recipe
from tutelage.run.networks.factory import Maker
from tutelage.run.networks.relaxation import BoundAlphas
from tutelage.run.networks.teacher import Pictures
from tutelage.run.supernet import optimizers
from tutelage.run.supernet.penalty import with_penalty
from tutelage.searches.needs import fit
from tutelage.spaces.base import Size, Space
from tutelage.spaces.cells import DARTS
from tutelage.spaces.nb201 import NASBENCH201
from tutelage.trees import tree_map

NAMES = {
    "none": "none",
    "skip_connect": "skip_connect",
    "dua_sepc_3x3": "sep_conv_3x3",
    "dua_sepc_5x5": "sep_conv_5x5",
    "dil_sepc_3x3": "dil_conv_3x3",
    "dil_sepc_5x5": "dil_conv_5x5",
    "avg_pool_3x3": "avg_pool_3x3",
    "max_pool_3x3": "max_pool_3x3",
}
"""The originals' operations of DARTS' cells in the order of their columns, and our names."""
COLUMNS = [DARTS.operations["normal"][0].index(name) for name in NAMES.values()]
"""Our columns in their order."""


class Original(NamedTuple):
    """A network of the original's code."""

    net: Any
    loss: Callable[[Tensor, Tensor], Tensor]
    """Of images and labels, for the weights."""
    alphas_loss: Callable[[Tensor, Tensor], Tensor]
    weights: list[Tensor]
    """Those that our supernet has too, in the order of `plain`."""


def autodl(folder: Path, size: Size, *, cells: bool) -> Original:
    """Build AutoDL-Projects' network of GDAS."""
    spaces = import_from(folder, "xautodl.models").get_search_spaces
    kinds = import_from(folder, "xautodl.models.cell_searchs")
    if cells:
        make = partial(kinds.nasnet_super_nets["GDAS"], size.channels, size.cells // 3, 4, 4, 3)
        net = make(size.classes, spaces("cell", "darts"), False, False)
    else:
        make = partial(kinds.nas201_super_nets["GDAS"], size.channels, size.cells, 4)
        net = make(size.classes, spaces("cell", "nas-bench-201"), False, False)
    net.set_tau(10)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(net(x)[1], y)

    return Original(net, loss, loss, shared(net))


def shared(net: nn.Module) -> list[Tensor]:
    """List the weights that ours have too: not biases that a BatchNorm removes, nor its scales."""
    named = [(name, p) for name, p in net.named_parameters() if not name.startswith("arch")]
    return [p for name, p in named if p.ndim > 1 or not name.startswith("cells")]


def salesforce(folder: Path, size: Size) -> Original:
    """Build PR-DARTS' network, with the settings of its documented script."""
    module = import_from(folder / "PRDARTS_search", "search_model_prdarts_nasnet")
    with patch("builtins.print"):
        net = module.NASNetworkPRDARTS(
            size.channels, size.cells // 3, 4, 4, 3, size.classes, list(NAMES), False, False
        )
    net.set_tau(1)
    net.set_k(2)
    net.set_ab(-0.1, 1.1)
    net.set_dropout(0.4)
    net.set_threshold(0.2)
    net.set_regular_lambda(0.01, 0.005, 0.005)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(net(x)[1], y)

    def alphas_loss(x: Tensor, y: Tensor) -> Tensor:
        _, logits, penalty = net(x)
        return F.cross_entropy(logits, y) + penalty

    return Original(net, loss, alphas_loss, shared(net))


@contextmanager
def our_columns() -> Iterator[None]:
    """Let PR-DARTS' code draw numbers as ours does, which orders the columns otherwise.

    Of equal gates its `topk` keeps any; here it keeps the first in the random order, as ours does.
    """
    rand_like, bernoulli, randperm = torch.rand_like, torch.bernoulli, torch.randperm

    def topk(x: Tensor, dim: int, k: int) -> tuple[Tensor, Tensor]:
        found = x.sort(dim=dim, descending=True, stable=True)
        return found.values[:, :k], found.indices[:, :k]

    with (
        patch.object(torch, "rand_like", lambda x: rand_like(x)[:, COLUMNS]),
        patch.object(torch, "bernoulli", lambda x, p: bernoulli(x, p)[:, COLUMNS]),
        patch.object(torch, "randperm", lambda n: torch.tensor(COLUMNS).argsort()[randperm(n)]),
        patch.object(torch, "topk", topk),
    ):
        yield


class Case(NamedTuple):
    """A search of ours and its original."""

    recipe: str
    space: Space
    size: Size
    original: Callable[[Path, Size], Original]
    draws: Callable[[], AbstractContextManager[Any]] = nullcontext
    """The condition under which the original draws the numbers that ours does."""
    columns: Sequence[int] = COLUMNS
    """Our columns in the original's order."""
    search: Mapping[str, Any] = MappingProxyType({})
    """Settings of the search beyond the recipe's."""


CASES = {
    "gdas": Case("gdas-cifar10", DARTS, Size(4, 6), partial(autodl, cells=True)),
    "gdas-nasbench201": Case(
        "gdas-nasbench201",
        NASBENCH201,
        Size(4, 2),
        partial(autodl, cells=False),
        columns=range(5),
        search={"unsampled": "added"},
    ),
    "prdarts": Case("prdarts-cifar10", DARTS, Size(4, 6), salesforce, our_columns),
}


class Ours(NamedTuple):
    """A recipe's problem in float64, and what trains it."""

    settings: Run
    search: Any
    space: Space
    problem: Problem
    velocities: dict[str, Any]
    adam: torch.optim.Adam

    def parameters(self, size: Size) -> list[Tensor]:
        """List the weights edge by edge, in the order of the original's."""
        net = self.problem.learners[0].net.module
        with torch.no_grad():
            for name, p in net.named_parameters():
                p.copy_(self.problem.variables["w"][name])
        return plain(net, self.space, size)

    def step(self, batch: Any) -> None:
        """Take one step of the engine."""
        levels, variables = self.problem.levels, self.problem.variables
        weights, epochs = self.settings.weights, self.settings.epochs
        rates = {"w": optimizers.rate(weights, levels[0], 0, epochs)}
        search_step(
            levels,
            variables,
            self.velocities,
            batch,
            rates=rates,
            virtual=rates,
            via=optimizers.rule(self.settings),
            order=self.problem.order,
            move=lambda name, gradient: optimizers.move(
                self.adam, variables[name], gradient, self.settings.alphas.clip
            ),
        )


def ours(case: Case) -> Ours:
    """Build the problem of a recipe at a small size."""
    settings = from_table(Run, read_recipe(case.recipe)[0], "a recipe")
    search = make_part("search", {**settings.search, **case.search})
    # the columns of GDAS' samples in the order of the original's; PR-DARTS has them fixed
    space, free = case.space, "gdas" in case.recipe and case.space is DARTS
    if free:
        space = space.narrowed({g: [list(case.columns)] * n for g, (n, _) in space.choices.items()})
    space = fit(search, space)
    device = torch.device("cpu")
    maker = Maker(
        partial(BoundAlphas, search, device=device),
        [space],
        case.size,
        Clock(epochs=settings.epochs),
        settings.epochs,
        device,
        None,
        {"train": 8, "valid": 8},
        pictures=Pictures((3, 16, 16), (0.0,) * 3, (1.0,) * 3),
    )
    problem = with_penalty(make_part("method", settings.method)(maker))
    velocities = {"w": tree_map(torch.zeros_like, problem.variables["w"])}
    adam = optimizers.adams(settings.alphas, problem.levels, problem.variables)["A"]
    return Ours(settings, search, space, problem, velocities, adam)


def in_order(alphas: Tensor, case: Case, space: Space) -> Tensor:
    """Return our alphas with the original's order of columns."""
    same = space.operations.get("normal", space.operations.get("cell"))[0][1] != "max_pool_3x3"
    return alphas if same else alphas[:, list(case.columns)]


def script(case: Original, whole_norm: bool) -> Callable[[Any], float]:
    """Return a step of the original's script; it gives the norm that was clipped at 5."""
    alphas = case.net.get_alphas()
    sgd = torch.optim.SGD(case.weights, 0.025, momentum=0.9, weight_decay=5e-4, nesterov=True)
    adam = torch.optim.Adam(alphas, 3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    clipped = [*case.weights, *alphas] if whole_norm else case.weights
    for p in case.net.parameters():
        p.requires_grad_(False)
    for p in (*case.weights, *alphas):
        p.requires_grad_().grad = torch.zeros_like(p)

    def step(batch: Any) -> float:
        sgd.zero_grad(set_to_none=False)
        case.loss(batch.train.x, batch.train.y).backward()
        norm = nn.utils.clip_grad_norm_(clipped, 5)
        sgd.step()
        adam.zero_grad(set_to_none=False)
        case.alphas_loss(batch.valid.x, batch.valid.y).backward()
        adam.step()
        return float(norm)

    return step


def images() -> SimpleNamespace:
    """Draw a batch for each half."""
    halves = [
        Batch(torch.randn(8, 3, 16, 16), torch.randint(10, (8,)), torch.arange(8)) for _ in range(2)
    ]
    return SimpleNamespace(train=halves[0], valid=halves[1])


def compare_steps(case: Case, mine: Ours, theirs: Original, whole_norm: bool) -> None:
    """Take three steps on both sides and print how far they differ."""
    size, variables = case.size, mine.problem.variables
    with torch.no_grad():
        for own, their in zip(mine.parameters(size), theirs.weights, strict=True):
            their.copy_(own)
        for own, their in zip(variables["A"].values(), theirs.net.get_alphas(), strict=True):
            their.copy_(in_order(own, case, mine.space))
    compare_logits(case, mine, theirs)
    step = script(theirs, whole_norm)
    before = [p.detach().clone() for p in (*theirs.weights, *theirs.net.get_alphas())]
    for index in range(3):
        batch = images()
        torch.manual_seed(index)
        mine.step(batch)
        torch.manual_seed(index)
        with case.draws():
            norm = step(batch)
        own = [*mine.parameters(size)]
        after = [*theirs.weights, *theirs.net.get_alphas()]
        own += [in_order(a, case, mine.space) for a in variables["A"].values()]
        error = max(float((a - b).detach().abs().max()) for a, b in zip(own, after, strict=True))
        moved = max(float((a - b).detach().abs().max()) for a, b in zip(after, before, strict=True))
        print(f"step {index + 1}: differ by {error:.1e}; moved by {moved:.1e}; norm {norm:.2f}")


def compare_logits(case: Case, mine: Ours, theirs: Original) -> None:
    """Compare the logits of ten samples."""
    x, errors = images().train.x, []
    net, variables = mine.problem.learners[0].net, mine.problem.variables
    for seed in range(10):
        torch.manual_seed(seed)
        own = net(variables["w"], variables["A"], x)
        torch.manual_seed(seed)
        with case.draws():
            errors.append(float((own - theirs.net(x)[1]).detach().abs().max()))
    print(f"logits of 10 samples: differ by {max(errors):.1e}")


def compare_derived(case: Case, mine: Ours, theirs: Original) -> None:
    """Derive from 1,000 random alphas on both sides and count the equal architectures."""
    equal = 0
    for _ in range(1000):
        alphas = {group: torch.randn_like(a) for group, a in mine.problem.variables["A"].items()}
        with torch.no_grad():
            for own, their in zip(alphas.values(), theirs.net.get_alphas(), strict=True):
                their.copy_(in_order(own, case, mine.space))
        found, other = mine.search.derive(mine.space, alphas), theirs.net.genotype()
        if "cell" in found.cells:
            equal += found.to_nasbench201() == other.tostr()
            continue
        equal += all(
            [*cell.nodes] == [tuple((NAMES[n], j) for n, j, _ in node) for node in other[group]]
            for group, cell in found.cells.items()
        )
    print(f"derived: {equal} of 1000 architectures are equal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--search", choices=CASES, required=True)
    parser.add_argument("--original", type=Path, required=True)
    parser.add_argument("--whole-norm", action="store_true", help="clip as the script does")
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    case = CASES[options.search]
    mine, theirs = ours(case), case.original(options.original, case.size)
    compare_steps(case, mine, theirs, options.whole_norm)
    compare_derived(case, mine, theirs)


if __name__ == "__main__":
    main()
