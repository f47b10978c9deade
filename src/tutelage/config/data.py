"""Settings of the data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tutelage.checks import at_least, known_choices, within


@dataclass(frozen=True)
class Data:
    """Which images, and how they are augmented."""

    name: str = "digits"
    """Data set: digits, cifar10, cifar100, or a path of images: a folder by class, CSV, Parquet."""
    root: Path | None = None
    """Folder that holds the data set's files."""
    download: bool = False
    """Download the data set into the root if it is missing."""
    unlabelled: str = "train"
    """Images to pseudo-label: another data set (under the same root) or folder, train for the
    training half, or rest for images that sample leaves out."""
    unlabelled_sample: float = 1.0
    """Share of the training images that unlabelled = rest takes, at most what sample leaves."""
    train_fraction: float = 0.5
    """Share of the training images that train weights; the others train the alphas."""
    stratified: bool = False
    """Divide every class by that share, instead of all images at once."""
    validation: Literal["half", "folder"] = "half"
    """Images that train the alphas: half, what the share leaves of the training images; folder,
    those of a folder's val part, beside train and test, while all of train trains weights."""
    balanced: bool = False
    """Sample every class equally often in training and for the alphas: an epoch has as many images
    as before, those of a small class several times."""
    held_out: int = 0
    """Training images, sampled uniformly, that are the test set instead of the data set's own and
    that neither a search nor a retraining trains on; 0: none."""
    sample: float = 1.0
    """Share of every class' training images that a search uses; a retraining uses all."""
    resolution: int | None = None
    """Side of the images in pixels; a folder's images are resized and cropped to it."""
    colour: Literal["auto", "grey", "rgb"] = "auto"
    """Read a folder's images as grey or RGB; auto: as they are; all must be the same."""
    white: int = 65_535
    """Value that becomes 255 in a folder's images of 16 bits, 4095 for a camera of 12 bits."""
    label_column: str | None = None
    """Column of the labels in a CSV or Parquet file; not set: found by its name."""
    crop: int | None = None
    """Padding of the random crop in pixels; not set: the data set's default."""
    flip: bool | None = None
    """Flip half of the images left to right; not set: the data set's default."""
    cutout: int = 0
    """Side of the square that is cut out, in pixels; 0: none."""
    rescale: float = 0.0
    """Smallest share of an image's area that a random window keeps before it is resized to the
    resolution, 0.08 on ImageNet; 0: no windows."""
    jitter: float = 0.0
    """Largest relative change of brightness, contrast and saturation, 0.4 on ImageNet; 0: none."""
    centre: float = 1.0
    """Share of the side that a centre crop keeps of a folder's images without augmentation, 0.875
    on ImageNet, which is 224 of 256 pixels."""
    memory: Literal["auto", "load", "stream"] = "auto"
    """Read a folder into memory, or decode it batch by batch; auto: up to 2 GiB into memory, unless
    rescale or centre need more of an image than the resolution."""

    def __post_init__(self) -> None:
        if isinstance(self.root, str):
            object.__setattr__(self, "root", Path(self.root))
        if not 0 < self.train_fraction < 1:
            raise ValueError(
                f"train_fraction = {self.train_fraction}: must be strictly between 0 and 1"
            )
        known_choices(self)
        if self.validation == "folder" and self.stratified:
            raise ValueError(
                "stratified with validation = 'folder': no images are divided, give one of them"
            )
        at_least(0, cutout=self.cutout, jitter=self.jitter)
        within(0, 1, rescale=self.rescale)
        if not 0 < self.centre <= 1:
            raise ValueError(f"centre = {self.centre}: must be above 0 and at most 1")
        at_least(0, held_out=self.held_out)
        within(1, 65_535, white=self.white)
        self._check_samples()
        if self.crop is not None:
            at_least(0, crop=self.crop)
        if self.resolution is not None:
            at_least(1, resolution=self.resolution)

    def _check_samples(self) -> None:
        for name in ("sample", "unlabelled_sample"):
            if not 0 < (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} = {value}: must be above 0 and at most 1")
        if self.unlabelled != "rest":
            if self.unlabelled_sample < 1:
                raise ValueError(
                    f"unlabelled_sample = {self.unlabelled_sample} with unlabelled = "
                    f"{self.unlabelled!r}: only 'rest' is sampled, give --unlabelled rest"
                )
        elif self.sample == 1:
            raise ValueError(
                "unlabelled = 'rest' with sample = 1.0: no images are left out, give --data.sample "
                "below 1"
            )
        elif self.sample + self.unlabelled_sample > 1 + 1e-9:  # 0.7 + 0.3 is above 1
            raise ValueError(
                f"unlabelled_sample = {self.unlabelled_sample}: sample = {self.sample} leaves "
                f"{1 - self.sample:.6g} of the training images, which is the most"
            )


def once_balanced(data: Data, class_weights: str) -> None:
    """Refuse to correct unequal classes twice.

    Raises:
        ValueError: Classes are sampled equally often, and weigh unequally.
    """
    if data.balanced and class_weights == "balanced":
        raise ValueError(
            "class_weights = 'balanced' with data.balanced: each makes classes count equally, give "
            "one of them"
        )
