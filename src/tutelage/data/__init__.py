"""Images: readers, splits, batches as functions of (seed, epoch, step), augmentation in batches.

This file imports nothing heavy, so that a listing of the data sets is instant.
"""

DATA = {
    "digits": "1,797 hand-written digits, 8 x 8, grey, 10 classes; comes with the package",
    "cifar10": "60,000 photographs, 32 x 32, colour, 10 classes; --data-root, --download",
    "cifar100": "60,000 photographs, 32 x 32, colour, 100 classes; --data-root, --download",
    "folder": "your images by class: ROOT/train/CLASS and ROOT/test/CLASS, or ROOT/CLASS",
}
"""Every data set's name on the command line, and what it is."""

IMAGENET = "imagenet"
"""What the recipes for ImageNet call its images, whose folder only the user knows."""


class DataError(ValueError):
    """A data set that is missing, unknown, or not what it should be; one sentence says which."""
