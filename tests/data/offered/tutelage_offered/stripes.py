"""Stripes: 120 grey images of 8 x 8 pixels with horizontal or vertical stripes."""

import torch

from tutelage.data.images import InMemory, Labelled
from tutelage.data.subsets import chosen_images


def read(settings, part):
    """Read a part: the phase and the brightness of the stripes differ from image to image."""
    number = torch.arange(120 if part != "test" or settings.held_out else 40)
    labels = number % 2
    waves = (torch.arange(8) + number[:, None]) % 4 // 2 * (100 + number[:, None])
    across, along = waves[:, :, None].expand(-1, 8, 8), waves[:, None, :].expand(-1, 8, 8)
    pixels = torch.where(labels[:, None, None] == 0, across, along).to(torch.uint8)[:, None]
    images = chosen_images(InMemory(pixels, labels), settings, part)
    return Labelled("stripes", images, ("across", "along"), (0.3,), (0.3,), crop=1, flip=False)
