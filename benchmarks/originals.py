"""Build the networks and the steps of the code that searches were published with.

Nothing of that code is here: it is imported from a checkout and runs as it is. It expects a GPU,
and packages that serve the data and the logs of its scripts; both are stood in for.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.spaces.base import Size, Space

Step = Callable[..., Any]
"""From images and labels; that of an `architect` may have others for the alphas, may unroll, and
returns the alphas' gradients."""


class Original(NamedTuple):
    """What the original's code builds."""

    net: nn.Module
    weights: list[Tensor]
    """Those that our supernet has too, in the order of `plain`."""
    alphas: list[Tensor]
    step: Step


Build = Callable[[Path, Size, Space], Original]
"""Build the original in a checkout, of a size and with a space's operations."""


def optimisers(weights: Iterable[Tensor], alphas: Iterable[Tensor], **settings: Any) -> tuple:
    # not fused: on a CPU that takes gradients laid out unlike their weights in the wrong order
    return (
        torch.optim.SGD(weights, 0.025, **{"momentum": 0.9, "weight_decay": 3e-4, **settings}),
        torch.optim.Adam(alphas, 3e-4, betas=(0.5, 0.999), weight_decay=1e-3),
    )


def import_from(folder: Path, module: str) -> Any:
    sys.path.insert(0, str(folder))
    return importlib.import_module(module)


def stand_in(*modules: str) -> None:
    """Answer imports that no step calls."""
    for name in modules:
        sys.modules.setdefault(name, MagicMock())


def plain(net: nn.Module, space: Space, size: Size) -> list[Tensor]:
    """Return our weights edge by edge, in the order of the original's."""
    reference = import_from(Path(__file__).parent.parent / "tests", "reference")
    kind = {"darts": reference.NaiveCells, "nasbench201": reference.NaiveBenchmark}[space.name]
    names = dict(kind(space.operations, size, space.variant).named_parameters())
    outside = {"stem": -1, "norm": 1000, "classifier": 1001}

    def place(name: str) -> tuple[int, bool]:
        part, *rest = name.split(".")
        if part in outside:
            return outside[part], False
        index = int(rest[0])
        if part == "halves":
            return (index + 1) * (size.cells + 1) - 1, False
        if space.name == "nasbench201":
            index += index // size.cells
        return index, rest[1] == "edges"

    renamed = reference.unstack(net, dict(net.named_parameters()))
    return [renamed[name] for name in sorted(names, key=place)]


def architect(net: Any, kind: Any) -> Original:
    """Build what DARTS and its descendants share: only the update of the weights is a script's."""
    settings = SimpleNamespace(
        momentum=0.9,
        weight_decay=3e-4,
        arch_learning_rate=3e-4,
        arch_weight_decay=1e-3,
        reg_type="l2",  # DrNAS' name for the same decay
        reg_scale=1e-3,
    )
    alphas = kind(net, settings)
    sgd, _ = optimisers(net.parameters(), net.arch_parameters())

    def step(x: Tensor, y: Tensor, valid: Any = None, unrolled: bool = False) -> list[Tensor]:
        alphas.step(x, y, *(valid or (x, y)), 0.025, sgd, unrolled=unrolled)
        gradients = [a.grad.clone() for a in net.arch_parameters()]  # the next line adds to them
        sgd.zero_grad()
        net._loss(x, y).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5)
        sgd.step()
        return gradients

    return Original(net, list(net.parameters()), net.arch_parameters(), step)


def script(logits: Callable[[Tensor], Tensor], weights: list[Tensor], alphas: list[Tensor]) -> Step:
    """Do what a script does whose repository has no class for the alphas' half."""
    sgd, adam = optimisers(weights, alphas)

    def step(x: Tensor, y: Tensor) -> None:
        adam.zero_grad()
        F.cross_entropy(logits(x), y).backward()
        adam.step()
        sgd.zero_grad()
        F.cross_entropy(logits(x), y).backward()
        nn.utils.clip_grad_norm_(weights, 5)
        sgd.step()

    return step


def on_cpu() -> None:
    """Leave alphas where they are; the originals move them to a GPU."""
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]


def cells(folder: Path, size: Size, **settings: Any) -> Original:
    """Build what a checkout's `model_search` and `architect` hold."""
    on_cpu()
    network = import_from(folder, "model_search").Network
    net = network(size.channels, size.classes, size.cells, nn.CrossEntropyLoss(), **settings)
    return architect(net, importlib.import_module("architect").Architect)


def darts(folder: Path, size: Size, space: Space) -> Original:
    return cells(folder / "cnn", size)


def pcdarts(folder: Path, size: Size, space: Space) -> Original:
    return cells(folder, size)


def drnas(folder: Path, size: Size, space: Space) -> Original:
    stand_in("torchvision", "torchvision.transforms")
    sys.path.insert(0, str(folder))
    return cells(folder / "DARTS-space", size, k=space.variant.partial)


def darts_minus(folder: Path, size: Size, space: Space) -> Original:
    """Build DARTS-; what its command line gives is the auxiliary skip, at its full weight."""
    stand_in("yaml", "torchvision", "torchvision.transforms")
    settings = SimpleNamespace(
        auxiliary_skip=True, auxiliary_operation="skip", disable_cuda=True, drop_path_prob=0.0
    )
    scheduler = SimpleNamespace(decay_rate=1.0)
    sys.modules["src.search.args"] = SimpleNamespace(  # type: ignore[assignment]
        args=settings, beta_decay_scheduler=scheduler
    )
    operations = import_from(folder, "src.spaces").spaces_dict["s5"]
    net = importlib.import_module("src.search.model_search").Network(
        size.channels, size.classes, size.cells, nn.CrossEntropyLoss(), operations, args=settings
    )
    return architect(net, importlib.import_module("src.search.architect").Architect)


def pdarts(folder: Path, size: Size, space: Space, *, rate: float) -> Original:
    """Build P-DARTS with a dropout rate of skips; its script also clips the alphas' gradient.

    That gradient is far below the limit, so it is not clipped here.
    """
    primitives = import_from(folder, "genotypes").PRIMITIVES
    switches = {
        f"switches_{group}": [[name in names for name in primitives] for names in edges]
        for group, edges in space.operations.items()
    }
    network = importlib.import_module("model_search").Network
    loss = nn.CrossEntropyLoss()
    net = network(size.channels, size.classes, size.cells, loss, p=rate, **switches)
    alphas = net.arch_parameters()
    weights = [p for name, p in net.named_parameters() if "alphas" not in name]
    return Original(net, weights, alphas, script(net, weights, alphas))


def benchmark(folder: Path, size: Size, algorithm: str) -> Original:
    """Build AutoDL-Projects' network; a whole step is a script's there.

    The script moves the weights first, and counts the alphas' gradient in the norm that it clips.
    """
    space = import_from(folder, "xautodl.models").get_search_spaces("cell", "nas-bench-201")
    network = importlib.import_module("xautodl.models.cell_searchs").nas201_super_nets[algorithm]
    net = network(size.channels, size.cells, 4, size.classes, space, False, False)
    step = script(lambda x: net(x)[1], net.get_weights(), net.get_alphas())
    # beyond ours: biases that a BatchNorm removes, and the scales and shifts of the halving blocks
    named = [(name, p) for name, p in net.named_parameters() if name != "arch_parameters"]
    weights = [p for name, p in named if p.ndim > 1 or not name.startswith("cells")]
    return Original(net, weights, net.get_alphas(), step)


def nasbench201(folder: Path, size: Size, space: Space) -> Original:
    return benchmark(folder, size, "DARTS-V1")


def gdas(folder: Path, size: Size, space: Space) -> Original:
    return benchmark(folder, size, "GDAS")


def nasbench201_second(folder: Path, size: Size, space: Space) -> Original:
    """Build DARTS of second order: a function of its script, which wraps the network.

    As in `benchmark`, the weights' step is written here, and clips the weights' gradient alone.
    """
    found = nasbench201(folder, size, space)
    served = ("datasets", "procedures", "utils", "log_utils", "config_utils")
    stand_in("nas_201_api", *(f"xautodl.{name}" for name in served))
    path = folder / "exps" / "NAS-Bench-201-algos" / "DARTS-V2.py"
    spec = importlib.util.spec_from_file_location("darts_v2", path)
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    class Trained(type(found.net)):  # type: ignore[misc]
        """The network, with only those weights that ours has too; the others do not train."""

        def get_weights(self) -> list[Tensor]:
            return [p for p in super().get_weights() if p.requires_grad]

    class Wrapped(nn.Module):
        """What the script calls a network."""

        def __init__(self) -> None:
            super().__init__()
            self.module = found.net

        def named_parameters(self, *_: Any, **__: Any) -> Any:
            return [(name, p) for name, p in super().named_parameters() if p.requires_grad]

        def forward(self, x: Tensor) -> Any:
            return self.module(x)

    found.net.__class__ = Trained
    network, loss = Wrapped(), nn.CrossEntropyLoss()
    sgd, adam = optimisers(found.weights, found.alphas, weight_decay=5e-4, nesterov=True)

    def step(x: Tensor, y: Tensor, valid: Any, unrolled: bool) -> list[Tensor]:
        assert unrolled
        adam.zero_grad()
        script.backward_step_unrolled(network, loss, x, y, sgd, *valid)
        adam.step()
        gradients = [a.grad.clone() for a in found.alphas]
        sgd.zero_grad()
        loss(network(x)[1], y).backward()
        nn.utils.clip_grad_norm_(found.weights, 5)
        sgd.step()
        return gradients

    return found._replace(step=step)
