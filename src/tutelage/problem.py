"""The parts of a method, and the interface to search and space: net(weights, alphas, x)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tutelage import shares
from tutelage.clock import Clock
from tutelage.extras import Extra
from tutelage.multilevel import Level, Order
from tutelage.renamed import old_name
from tutelage.trees import Tree, leaves

E = TypeVar("E", bound=Extra)

UNTRAINED: Final = "untrained"
"""The name of a teacher with random weights, to try a method without a trained teacher."""


class CrossEntropy(Protocol):
    """A loss () of logits (B, C) with labels (B,), with label smoothing."""

    def __call__(self, logits: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
        """Return the loss."""


class Relaxation(Protocol):
    """What a net needs of a search."""

    def alphas(self) -> Tree:
        """Sample initial alphas."""

    def relax(self, alphas: Tree, clock: Clock) -> Any:
        """Make the architecture weights of a supernet from alphas."""

    def paths(self, count: int) -> Sequence[Any]:
        """Sample `count` sub-networks, each as architecture weights.

        Raises:
            ValueError: The search samples none, or fewer.
        """


class Net:
    """A network as a function of its weights, its alphas and images."""

    def __init__(
        self,
        build: Callable[[], nn.Module],
        relaxation: Relaxation | None,
        clock: Clock,
        amp: torch.dtype | None = None,
        number: int | None = None,
    ) -> None:
        """Join a module with a relaxation.

        Args:
            build: Makes the module with initial weights. Its forward (x, arch), or (x) without a
                relaxation, gives logits (B, C) and features (B, D).
            relaxation: Makes architecture weights of alphas; None for a fixed network.
            clock: Read for the progress of the search.
            amp: Type of autocast in the forward pass; None: none.
            number: Its number among the networks of a method, by which ranks may divide them.
        """
        self.build = build
        self.module = build()
        named = self.module.named_parameters
        # torch looks for tied weights at every call, which takes time
        self.tied = len(list(named(remove_duplicate=False))) > len(list(named()))
        self.relaxation = relaxation
        self.clock = clock
        self.amp = amp
        self.number = number
        self._recorded: tuple[Tree, list[Any]] | None = None

    def __call__(self, weights: Tree, alphas: Tree, x: Tensor) -> Tensor:
        """Return logits (B, C)."""
        return self.forward(weights, alphas, x)[0]

    def embed(self, weights: Tree, alphas: Tree, x: Tensor) -> Tensor:
        """Return the pooled features (B, D) before the classifier."""
        return self.forward(weights, alphas, x)[1]

    def forward(self, weights: Tree, alphas: Tree, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, C) and features (B, D)."""
        return self.under(weights, None if self.relaxation is None else self.relax(alphas), x)

    def under(self, weights: Tree, arch: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, C) and features (B, D); None in place of `arch` for a fixed network."""
        with shares.share(len(x), self.number) as own:
            if own is not None and own.empty:
                logits, features = self._nothing(weights)
            else:
                seen = x if own is None else x[own.rows]
                inputs = (seen,) if arch is None else (seen, arch)
                with torch.autocast(x.device.type, self.amp, enabled=self.amp is not None):
                    logits, features = self._called(weights, inputs)
        wide = torch.promote_types(logits.dtype, torch.float32)
        logits, features = logits.to(wide), features.to(wide)
        if own is None:
            return logits, features
        both = shares.gathered(torch.cat([logits, features], 1), own)
        first, second = both.split([logits.shape[1], features.shape[1]], dim=1)
        return first, second

    def _nothing(self, weights: Tree) -> tuple[Tensor, Tensor]:
        """Return logits (0, C) and features (0, D), as functions of the weights."""
        named = self.module.named_parameters()
        classes, features = next(p.shape for n, p in named if n.endswith("classifier.weight"))
        none = torch.cat([leaf.flatten()[:0] for leaf in leaves(weights)])
        return none.view(0, classes), none.view(0, features)

    def relax(self, alphas: Tree) -> Any:
        """Make architecture weights of alphas, at the present time of the search."""
        if self.relaxation is None:
            raise ValueError(
                "a fixed network has no architecture weights: it was made without a search"
            )
        arch = self.relaxation.relax(alphas, self.clock)
        if self._recorded is not None and self._recorded[0] is alphas:
            self._recorded[1].append(arch)
        return arch

    @contextmanager
    def recorded(self, alphas: Tree) -> Iterator[list[Any]]:
        """Collect the architecture weights that are made of these alphas, the very same object."""
        self._recorded = (alphas, [])
        try:
            yield self._recorded[1]
        finally:
            self._recorded = None

    def paths(self, count: int) -> Sequence[Any]:
        """Sample `count` sub-networks for one batch, each as architecture weights.

        Raises:
            ValueError: The search samples none, or fewer.
        """
        if self.relaxation is None:
            raise ValueError("a fixed network has no paths: it was made without a search")
        return self.relaxation.paths(count)

    def stage(self, weights: Tree, arch: Any, x: Tensor, stage: int) -> Tensor:
        """Return the feature map (B, C, H, W) after one stage of a supernet.

        Args:
            weights: The weights of the whole supernet.
            arch: The architecture weights of the whole supernet.
            x: The stage's input: images for the first, otherwise the previous stage's output.
            stage: Number of the stage, counted from 0.
        """
        with shares.share(len(x)) as own:
            seen = x if own is None else x[own.rows]
            with torch.autocast(x.device.type, self.amp, enabled=self.amp is not None):
                found = self._called(weights, (seen, arch, stage))
        return shares.gathered(found.to(torch.promote_types(found.dtype, torch.float32)), own)

    def _called(self, weights: Tree, inputs: tuple[Any, ...]) -> Any:
        return functional_call(self.module, weights, inputs, tie_weights=self.tied)

    @property
    def features(self) -> int:
        """Count the features of an image before the classifier, D."""
        parameters = self.module.named_parameters()
        return next(p.shape[1] for name, p in parameters if name.endswith("classifier.weight"))

    def weights(self) -> dict[str, Tensor]:
        """Make initial weights: name to tensor."""
        return {name: p.detach().clone() for name, p in self.build().named_parameters()}

    def alphas(self) -> Tree:
        """Sample initial alphas."""
        if self.relaxation is None:
            raise ValueError("a fixed network has no alphas: it was made without a search")
        return self.relaxation.alphas()


class Make(Protocol):
    """What a method may use."""

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
        """Count the stages of a supernet that can run separately; 0: it runs only as a whole."""

    @property
    def cross_entropy(self) -> CrossEntropy:
        """The loss of labels, `transfer.cross_entropy`, with the weights that classes have."""

    def supernet(self) -> Net:
        """Make a fresh learner in the searched space."""

    def fixed(self, architecture: str) -> Net:
        """Make a network that is not searched, from a genotype: resnet18, a name, text or file."""

    def flops_of(self, arch: Any) -> float:
        """Count the FLOPs of the architecture that a path runs."""

    def teacher(self, name: str) -> Callable[[Tensor], Sequence[Tensor]]:
        """Return a trained network: images to its feature maps (B, C, H, W), stage by stage.

        By the name `UNTRAINED` it is a network of the searched space with random weights.

        Raises:
            ValueError: There is no network of this name, or it is for other images.
        """


class Learner(NamedTuple):
    """One model that the search may keep."""

    net: Net
    weights: tuple[str | int, ...]
    """Place of its weights among the variables: ("W", 0) for `variables["W"][0]`."""
    alphas: tuple[str | int, ...]
    """Place of its alphas."""
    drafts: tuple[tuple[str | int, ...], ...] = ()
    """Place of further weights of its net: SGL's V."""
    averages: tuple[tuple[str | int, ...], ...] = ()
    """Place of averages of its weights, which grow with them: SD-DARTS' T."""
    rehearsals: tuple[tuple[str | int, ...], ...] = ()
    """Place of further alphas of its net: SGL's B."""


def __getattr__(name: str) -> Any:
    """Return an object by its name of 0.1."""
    return old_name(
        __name__, name, {"Part": "tutelage.batch:Batch", "Taught": "tutelage.extras:Answers"}
    )


def pick(variables: Tree, path: tuple[str | int, ...]) -> Tree:
    """Return the part of the variables at a learner's path.

    >>> pick({"W": ["first", "second"]}, ("W", 1))
    'second'
    """
    for key in path:
        variables = variables[key]
    return variables


class Problem(NamedTuple):
    """A method, joined with a search and a space."""

    variables: dict[str, Tree]
    """Optimised and stored values, by name."""
    levels: Sequence[Level]
    """Inner first; levels trained by the alphas' settings come last."""
    learners: Sequence[Learner]
    """The learners; the search keeps the one with the lowest validation loss."""
    order: Order = "levels-first"
    """Whether the lower levels or the alphas train first in an iteration."""
    joint: bool = True
    """Losses of several top levels: True: one step on their sum; False: one step each, in turn."""
    extras: Sequence[Extra] = ()
    """Optional parts, at most one of each class of `extras`."""

    def extra(self, kind: type[E]) -> E | None:
        """Return the extra of a class; None: the method has none.

        Raises:
            ValueError: There are several.
        """
        found = [each for each in self.extras if isinstance(each, kind)]
        if len(found) > 1:
            raise ValueError(f"{len(found)} extras are {kind.__name__}: a problem has at most one")
        return found[0] if found else None


class Method(Protocol):
    """Who teaches whom: a frozen dataclass of settings that makes a problem."""

    def __call__(self, make: Make) -> Problem:
        """Make nets; return variables and levels."""
