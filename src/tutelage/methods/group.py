"""A group of learners in one space, which methods with several learners share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp
from types import SimpleNamespace
from typing import final

from torch import Tensor, nn

from tutelage.batch import Batches
from tutelage.clock import Clock
from tutelage.multilevel import Notes
from tutelage.problem import CrossEntropy, Learner, Make, Net
from tutelage.transfer import Answer
from tutelage.trees import Tree, tree_map
from tutelage.virtual import hold


@final
@dataclass(frozen=True)
class Group:
    """K nets for the same images; weights and alphas are lists with an entry for each."""

    nets: Sequence[Net]
    cross_entropy: CrossEntropy
    """The loss of labels."""

    @classmethod
    def of(cls, make: Make, learners: int) -> Group:
        """Make fresh learners in the searched space."""
        return cls([make.supernet() for _ in range(learners)], make.cross_entropy)

    def __call__(self, weights: Tree, alphas: Tree, x: Tensor) -> list[Tensor]:
        """Return every learner's logits (B, C)."""
        return [net(w, a, x) for net, w, a in self.each(weights, alphas)]

    def answers(self, weights: Tree, alphas: Tree, x: Tensor) -> list[Answer]:
        """Return every learner's logits and features, with its weights."""
        return [Answer(*net.forward(w, a, x), w) for net, w, a in self.each(weights, alphas)]

    def each(self, weights: Tree, alphas: Tree) -> Iterator[tuple[Net, Tree, Tree]]:
        """Yield every net with its weights and alphas."""
        return zip(self.nets, weights, alphas, strict=True)

    def validate(self, s: SimpleNamespace, batch: Batches) -> tuple[Tensor, Notes]:
        """Return the sum () of the learners' validation losses with W: the loss of A."""
        x, y, _ = batch.valid
        logits = self([w for w, _ in zip(s.W, self.nets, strict=False)], s.A, x)
        return self.total(logits, y), {"valid": logits}

    def total(self, logits: Sequence[Tensor], y: Tensor) -> Tensor:
        """Sum () of all learners' cross-entropies with labels (B,)."""
        losses = (self.cross_entropy(z, y) for z in logits)
        return sum(losses, start=logits[0].new_zeros(()))

    @property
    def features(self) -> int:
        """Count the features of an image, D."""
        return self.nets[0].features

    def linear(self, inputs: int, outputs: int, bias: bool = True) -> dict[str, Tensor]:
        """Initialise a linear map: weight (outputs, inputs) and bias, on the nets' device.

        Their names are `weight` and `bias`. Random numbers come from the CPU's generator.
        """
        parameters = nn.Linear(inputs, outputs, bias).named_parameters()
        return {name: p.detach().to(self.like) for name, p in parameters}

    @property
    def like(self) -> Tensor:
        """A weight, which gives the type and device for new ones."""
        return next(self.nets[0].module.parameters()).detach()

    def weights(self) -> list[Tree]:
        """Make initial weights."""
        return [net.weights() for net in self.nets]

    def alphas(self) -> list[Tree]:
        """Sample initial alphas."""
        return [net.alphas() for net in self.nets]

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Yield every learner k with every peer j."""
        count = len(self.nets)
        return ((k, j) for k in range(count) for j in range(count) if j != k)

    def learners(
        self, weights: str, alphas: str, drafts: str = "", rehearsals: str = ""
    ) -> list[Learner]:
        """Return the places of every learner's tensors, given the names of the variables."""
        return [
            Learner(
                net,
                (weights, k),
                (alphas, k),
                drafts=((drafts, k),) if drafts else (),
                rehearsals=((rehearsals, k),) if rehearsals else (),
            )
            for k, net in enumerate(self.nets)
        ]


def held(answer: Answer) -> Answer:
    """Detach an answer."""
    return Answer(hold(answer.logits), hold(answer.features), tree_map(hold, answer.weights))


def ramped(clock: Clock, epochs: int) -> float:
    """Return the teaching weight, which grows at first: exp(-5 (1 - epoch / epochs)²)."""
    left = 1 - min(clock.epoch / epochs, 1.0) if epochs else 0.0
    return exp(-5 * left**2)
