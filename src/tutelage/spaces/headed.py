"""What the stand-alone networks of all spaces have around their layers, as timm names it.

timm (Wightman, 2019) divides a network into the layers that give a feature map and a head of
pooling and classifier. Its own tools, and programs written for them, use these names.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from tutelage import shares

Probability = float | Tensor
"""A number, or a tensor () that stays in place while its value changes."""


class Headed(nn.Module):
    """A network with a head: a mean over the map, dropout, and a linear classifier.

    Attributes:
        num_features: Features that the classifier reads, D.
        num_classes: Classes of the classifier; 0: it was taken away.
        drop_path: Probability of dropping a path, in training.
        dropout: Share of the features that is zeroed before the classifier, in training.
        logits_alone: Whether training, too, gives logits alone, as other networks do. Without, as
            the trainings of this package need it, it gives (logits, auxiliary logits or None).
    """

    home: ClassVar[str] = ""
    """Name of the submodule that holds `classifier`; empty: the network itself."""
    drop_path: Probability
    dropout: float
    logits_alone: bool
    num_features: int
    num_classes: int

    def _begin(self, drop_path: float) -> None:
        """Set what every network has; call it before the layers are built."""
        self.drop_path, self.dropout, self.logits_alone = drop_path, 0.0, False

    def _end(self) -> None:
        """Note the sizes of the classifier; call it after the layers are built."""
        linear = self.get_classifier()
        self.num_features, self.num_classes = linear.in_features, linear.out_features

    @abstractmethod
    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to the last feature map (B, D, h, w)."""

    def features(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to the classifier's input (B, D), without dropout."""
        return self.forward_features(x).mean((2, 3))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map the last feature map (B, D, h, w) to logits (B, classes).

        Args:
            x: What `forward_features` gives.
            pre_logits: Give the classifier's input (B, D) instead.
        """
        features = shares.dropout(x.mean((2, 3)), self.dropout, self.training)
        return features if pre_logits else self.get_classifier()(features)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor | None]:
        """Map images (B, C, H, W) to logits (B, classes), in training with None."""
        logits = self.forward_head(self.forward_features(x))
        return (logits, None) if self.training and not self.logits_alone else logits

    def get_classifier(self) -> Any:
        """Return the classifier: a linear map (B, D) to (B, classes)."""
        return self.get_submodule(self.home).classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one with random weights.

        Args:
            num_classes: Its classes; 0: features (B, D) are given instead of logits.
            global_pool: As in timm; only the mean, `avg`, is possible.

        Raises:
            ValueError: The classes are no number of at least 0, or another pooling is asked for.
        """
        if int(num_classes) != num_classes or num_classes < 0:
            raise ValueError(f"num_classes = {num_classes}: must be 0 or more, a whole number")
        if global_pool not in (None, "avg"):
            raise ValueError(f"global_pool = {global_pool!r}: must be 'avg', the mean of the map")
        num_classes, weight = int(num_classes), next(self.parameters())
        where: Any = {"device": weight.device, "dtype": weight.dtype}
        home, second = self.get_submodule(self.home), getattr(self, "auxiliary", None)
        if not num_classes:
            home.classifier = nn.Identity()
        else:
            home.classifier = nn.Linear(self.num_features, num_classes, **where)
            if second is not None:
                second.classifier = nn.Linear(second.classifier.in_features, num_classes, **where)
        self.num_classes = num_classes
