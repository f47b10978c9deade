"""Images: readers, splits, batches as functions of (seed, epoch, step), augmentation in batches.

This file imports no large package, so that a listing of the data sets is fast.
"""

from tutelage.installed import added

DATA = {
    "digits": "1,797 hand-written digits, 8 x 8, grey, 10 classes; comes with the package",
    "cifar10": "60,000 photographs, 32 x 32, colour, 10 classes; --data-root, --download",
    "cifar100": "60,000 photographs, 32 x 32, colour, 100 classes; --data-root, --download",
    "folder": "your images by class: ROOT/train/CLASS and ROOT/test/CLASS, or ROOT/CLASS; "
    "shards, CSV or Parquet",
}
"""Every data set's name on the command line, and its description."""

ADDED = added("data", DATA)
"""The data sets of installed packages by name: readers, as `module:function`."""

IMAGENET = "imagenet"
"""The name of ImageNet's images in recipes; the user gives their folder."""


class DataError(ValueError):
    """A data set that is missing, unknown or unusable; the message is one sentence."""
