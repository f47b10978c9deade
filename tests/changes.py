"""Changes of images, made and applied at once."""

from tutelage.data.augment import prepare
from tutelage.data.device import Parcel


def changed(pixels, sample):
    """Apply the change that `sample(parcel)` returns."""
    parcel = Parcel()
    change = sample(parcel)
    parcel.send(pixels.device)
    return change(pixels)


def augment(pixels, how, mean, std, random):
    """Augment uint8 images as a stream does."""

    def sample(parcel):
        changes = prepare(how, tuple(pixels.shape), mean, std, random, parcel)

        def change(x):
            for each in changes:
                x = each(x)
            return x

        return change

    return changed(pixels, sample)
