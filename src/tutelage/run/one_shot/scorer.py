"""Scores of architectures with the weights of a supernet, without training of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from tutelage.batch import Batch
from tutelage.problem import Net
from tutelage.run.one_shot.statistics import recalibrate
from tutelage.spaces.base import ArchWeights, Size, Space, one_hot
from tutelage.spaces.genotype import Genotype


@final
@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores architectures with a supernet's weights.

    A chain's architecture becomes a stand-alone network with those weights. Its BatchNorm
    statistics are measured again: the supernet's statistics are those of all sampled paths.
    Cells of a supernet compute several operations in one. They are scored inside the supernet,
    with the statistics of the batch. A method's own score is measured there too.
    """

    net: Net
    weights: dict[str, Tensor]
    space: Space
    size: Size
    fitted: Callable[[], Iterable[Batch]]
    """Gives the images that set BatchNorm statistics."""
    judged: Callable[[], Iterable[Batch]]
    """Gives the images that accuracy is measured on."""
    batch_size: int | None = None
    """Images of a batch of BatchNorm statistics; `fitted` may give several batches at once. None:
    it gives one."""
    own: Callable[[ArchWeights, Batch], Tensor] | None = None
    """The method's own score () of a path on a batch; None: accuracy."""
    seed: int = 0
    """Seed of the operations' noise: the same for every architecture, and in a resumed run."""

    @property
    def quantity(self) -> str:
        """Name the measured quantity: accuracy, or the method's own score."""
        return "score" if self.own else "accuracy"

    def written(self, score: float) -> str:
        """Write a score for the progress display."""
        return f"{score:.4f}" if self.own else f"{100 * score:.2f} %"

    @torch.no_grad()
    def score(self, genotype: Genotype) -> float:
        """Score an architecture; higher is better.

        Raises:
            ValueError: The score is not finite.
        """
        torch.manual_seed(self.seed)
        if not self.own:
            return self.accuracy(genotype)
        path = one_hot(self.space, genotype, next(iter(self.weights.values())))
        batches = [(self.own(path, batch), len(batch.y)) for batch in self.judged()]
        found = float(sum(x * n for x, n in batches)) / sum(n for _, n in batches)
        if not math.isfinite(found):
            raise ValueError(
                f"the score of {genotype.to_json()} is {found}: the supernet's numbers are too "
                "large; search again with a lower --weights.lr"
            )
        return found

    @torch.no_grad()
    def accuracy(self, genotype: Genotype) -> float:
        """Measure an architecture's accuracy, as a share of the images."""
        answer = self._network(genotype)
        right = torch.cat([answer(x).argmax(1) == y for x, y, _ in self.judged()])
        return int(right.sum()) / len(right)  # read once, so that no batch waits for the device

    def _built(self, genotype: Genotype, inherited: Mapping[str, Tensor]) -> Any:
        """Build the network of a genotype with a supernet's weights."""
        device = next(iter(inherited.values())).device
        with torch.device("meta"):  # no weight is initialised, and none is copied on its own
            network: Any = self.space.network(genotype, self.size)  # not typed for memory formats
        statistics = {
            f"{name}.{buffer}"
            for name, module in network.named_modules()
            if isinstance(module, nn.BatchNorm2d)
            for buffer, _ in module.named_buffers(recurse=False)
        }
        every = {name for name, _ in (*network.named_parameters(), *network.named_buffers())}
        if every - statistics - inherited.keys():  # values that only the space knows
            network = self.space.network(genotype, self.size).to(device)
            network.load_state_dict(network.state_dict() | inherited)
            return network
        network.load_state_dict(network.state_dict() | inherited, assign=True)
        for name in statistics - inherited.keys():  # `recalibrate` sets them
            owner, _, buffer = name.rpartition(".")
            module = network.get_submodule(owner)
            setattr(module, buffer, torch.empty_like(getattr(module, buffer), device=device))
        return network

    def _network(self, genotype: Genotype) -> Callable[[Tensor], Tensor]:
        """Return the architecture as a function of images (B, C, H, W) to logits (B, classes)."""
        inherited = self.space.inherited(self.weights, genotype)
        if inherited is None:
            like = next(iter(self.weights.values()))
            arch = one_hot(self.space, genotype, like)
            return lambda x: self.net.under(self.weights, arch, x)[0]
        network = self._built(genotype, inherited)
        network.to(memory_format=torch.channels_last)
        recalibrate(network, self.fitted(), self.batch_size)
        return network.eval()
