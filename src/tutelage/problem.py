"""What a method is made of, and the one joint between the three axes: net(weights, alphas, x)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tutelage.clock import Clock
from tutelage.multilevel import Level, Notes, Order
from tutelage.virtual import Tree

UNTRAINED: Final = "untrained"
"""The name of a teacher whose weights are drawn, for a look at a method without a trained one."""


class Part(NamedTuple):
    """A batch of one stream of data."""

    x: Tensor
    """Images (B, C, H, W)."""
    y: Tensor
    """Labels (B,); -1 where there is none."""
    position: Tensor
    """Position (B,) of every image in its split."""


class Batch(Protocol):
    """What every loss of an iteration may read."""

    @property
    def train(self) -> Part:
        """Images that train weights."""

    @property
    def valid(self) -> Part:
        """Images that train alphas."""

    @property
    def unlabelled(self) -> Part:
        """Images without labels."""


class Relaxation(Protocol):
    """What a net asks of a search."""

    def alphas(self) -> Tree:
        """Draw initial alphas."""

    def mix(self, alphas: Tree, clock: Clock) -> Any:
        """Turn alphas into the mix that a supernet takes."""

    def paths(self, count: int) -> Sequence[Any]:
        """Draw so many mixes that each run one sub-network.

        Raises:
            ValueError: The search samples none, or not so many.
        """


class Net:
    """A network as a function of its weights, its alphas and images."""

    def __init__(
        self,
        build: Callable[[], nn.Module],
        relaxation: Relaxation | None,
        clock: Clock,
        amp: torch.dtype | None = None,
    ) -> None:
        """Join a module with a relaxation.

        Args:
            build: Makes the module with fresh weights. Its forward (x, mix), or (x) without a
                relaxation, gives logits (B, C) and features (B, D).
            relaxation: Turns alphas into a mix; None for a fixed network.
            clock: Read for the progress of the search.
            amp: Type of autocast in the forward pass; None: none.
        """
        self.build = build
        self.module = build()
        self.relaxation = relaxation
        self.clock = clock
        self.amp = amp

    def __call__(self, weights: Tree, alphas: Tree, x: Tensor) -> Tensor:
        """Return logits (B, C)."""
        return self.forward(weights, alphas, x)[0]

    def embed(self, weights: Tree, alphas: Tree, x: Tensor) -> Tensor:
        """Return the pooled features (B, D) before the classifier."""
        return self.forward(weights, alphas, x)[1]

    def forward(self, weights: Tree, alphas: Tree, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, C) and features (B, D)."""
        return self.under(weights, None if self.relaxation is None else self.mix(alphas), x)

    def under(self, weights: Tree, mix: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, C) and features (B, D) under a mix; None for a fixed network."""
        inputs = (x,) if mix is None else (x, mix)
        with torch.autocast(x.device.type, self.amp, enabled=self.amp is not None):
            logits, features = functional_call(self.module, weights, inputs)
        wide = torch.promote_types(logits.dtype, torch.float32)
        return logits.to(wide), features.to(wide)

    def mix(self, alphas: Tree) -> Any:
        """Turn alphas into the mix of this moment of the search."""
        if self.relaxation is None:
            raise ValueError("a fixed network has no mix: it was made without a search")
        return self.relaxation.mix(alphas, self.clock)

    def paths(self, count: int) -> Sequence[Any]:
        """Draw the mixes of so many sub-networks for one batch.

        Raises:
            ValueError: The search samples none, or not so many.
        """
        if self.relaxation is None:
            raise ValueError("a fixed network has no paths: it was made without a search")
        return self.relaxation.paths(count)

    def stage(self, weights: Tree, mix: Any, x: Tensor, stage: int) -> Tensor:
        """Return the feature map (B, C, H, W) after one stage of a supernet under a mix.

        Args:
            weights: Those of the whole supernet.
            mix: That of the whole supernet.
            x: What the stage reads: images for the first, else a map like that of the one before.
            stage: Which, counted from 0.
        """
        with torch.autocast(x.device.type, self.amp, enabled=self.amp is not None):
            found = functional_call(self.module, weights, (x, mix, stage))
        return found.to(torch.promote_types(found.dtype, torch.float32))

    @property
    def features(self) -> int:
        """Count the features of an image that the classifier reads, D."""
        parameters = self.module.named_parameters()
        return next(p.shape[1] for name, p in parameters if name.endswith("classifier.weight"))

    def weights(self) -> dict[str, Tensor]:
        """Draw initial weights: name to tensor."""
        return {name: p.detach().clone() for name, p in self.build().named_parameters()}

    def alphas(self) -> Tree:
        """Draw initial alphas."""
        if self.relaxation is None:
            raise ValueError("a fixed network has no alphas: it was made without a search")
        return self.relaxation.alphas()


class Make(Protocol):
    """What a method may ask for."""

    clock: Clock
    epochs: int
    """Epochs for which the weights train: those of the search, or of its present phase."""
    images: Mapping[str, int]
    """How many images each half has: train, valid."""

    @property
    def classes(self) -> int:
        """Count the classes, C."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""

    @property
    def stages(self) -> int:
        """Count the stages of a supernet that run one by one; 0: it only runs whole."""

    def supernet(self) -> Net:
        """Make a fresh learner in the searched space."""

    def fixed(self, architecture: str) -> Net:
        """Make a network that is not searched, by its genotype: resnet18, a name, text or file."""

    def multiply_adds(self, mix: Any) -> float:
        """Count the multiply-adds of the architecture that a sampled mix runs."""

    def teacher(self, name: str) -> Callable[[Tensor], Sequence[Tensor]]:
        """Get a trained network: images to its feature maps (B, C, H, W), stage by stage.

        By the name `UNTRAINED` it is a network of the searched space whose weights are drawn.

        Raises:
            ValueError: There is none of this name, or it is for other images.
        """


class Learner(NamedTuple):
    """One model that the search may keep."""

    net: Net
    weights: tuple[str | int, ...]
    """Where its weights stand among the variables: ("W", 0) for variables["W"][0]."""
    alphas: tuple[str | int, ...]
    """Where its alphas stand."""
    drafts: tuple[tuple[str | int, ...], ...] = ()
    """Where further weights of its net stand: SGL's V."""
    averages: tuple[tuple[str | int, ...], ...] = ()
    """Where averages of its weights stand, which grow with them: SD-DARTS' T."""
    rehearsals: tuple[tuple[str | int, ...], ...] = ()
    """Where further alphas of its net stand: SGL's B."""


def pick(variables: Tree, path: tuple[str | int, ...]) -> Tree:
    """Return the part of the variables that a learner's path names.

    >>> pick({"W": ["first", "second"]}, ("W", 1))
    'second'
    """
    for key in path:
        variables = variables[key]
    return variables


class Taught(NamedTuple):
    """What sampled sub-networks and their teacher say of the same images."""

    students: Tensor
    """Logits (m, B, C)."""
    teacher: Tensor | None
    """Logits (B, C); None: there is no teacher yet."""


class Problem(NamedTuple):
    """A method, joined with a search and a space."""

    variables: dict[str, Tree]
    """What is optimised or remembered, by name."""
    levels: Sequence[Level]
    """Inner first; those that descend by the alphas' settings come last."""
    learners: Sequence[Learner]
    """Who may be kept; the loop keeps the one with the lowest validation loss."""
    order: Order = "levels-first"
    """Whether the lower levels or the alphas move first in an iteration."""
    joint: bool = True
    """Losses of several top levels: True: one step on their sum; False: one step each, in turn."""
    after_step: Callable[[dict[str, Tree], Batch, Sequence[Notes]], None] | None = None
    """Called after every iteration; may change what is remembered."""
    after_epoch: Callable[[dict[str, Tree], int], None] | None = None
    """Called after every epoch."""
    members: int = 0
    """How many learners an ensemble keeps, selected together; 0: the best learner alone."""
    remark: str = ""
    """What a user should know before the run: memory that is taken."""
    share: float = 1.0
    """How much of the training images an epoch goes through."""
    probe: Callable[[dict[str, Tree], Part, Part], Taught] | None = None
    """Of a method that teaches sampled sub-networks: what students and teacher say of some
    images (the second part), the teacher made for others (the first)."""
    teacher: str = ""
    """Who the teacher of a probe is: a sentence that is logged with it, for the report."""
    seeds: Callable[[dict[str, Tree]], Sequence[Any]] | None = None
    """Mixes of architectures that are worth a place in the first generation of the evolution."""
    score: Callable[[dict[str, Tree], Any, Part], Tensor] | None = None
    """How good () a sampled mix is on some images, higher is better; None: by its accuracy. A
    method that has its own trains no classifier, so nothing else is asked of its learner."""


class Method(Protocol):
    """Who teaches whom: a frozen dataclass of settings that makes a problem."""

    def __call__(self, make: Make) -> Problem:
        """Ask for nets, return variables and levels."""
