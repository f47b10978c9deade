"""The images of a measurement on a GPU: CIFAR-10, random ones of its shape, or the digits."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import numpy as np

from tutelage.data.cifar import CIFAR10

IMAGES = 10_000
"""Images in a file of CIFAR-10."""


def prepare(options: argparse.Namespace) -> str:
    """Set the images of a run, and describe them; `options.images_of` is the table of settings."""
    if options.tiny:
        options.images_of = {"name": "digits"}
        return "the digits, 8 x 8, at toy size"
    root = options.data or random_cifar(options.scratch)
    options.images_of = {"name": "cifar10", "root": str(root)}
    return "CIFAR-10" if options.data else "random numbers of CIFAR-10's shape"


def random_cifar(root: Path, images: int = IMAGES) -> Path:
    """Write files like those of CIFAR-10, with random pixels and labels; return their folder."""
    folder, random = root / CIFAR10.folder, np.random.default_rng(0)
    folder.mkdir(parents=True)
    for name in (*CIFAR10.train, *CIFAR10.test):
        pixels = random.integers(256, size=(images, 3 * 32 * 32), dtype=np.uint8)
        batch = {"data": pixels, CIFAR10.labels: random.integers(10, size=images).tolist()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    names = [f"class {k}" for k in range(10)]
    (folder / CIFAR10.meta).write_bytes(pickle.dumps({CIFAR10.names: names}, protocol=2))
    return root
