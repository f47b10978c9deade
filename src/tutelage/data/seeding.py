"""Random numbers as a function of a seed, a name and a counter."""

import hashlib

import numpy as np


def generator(seed: int, name: str, *counter: int) -> np.random.Generator:
    """Return the generator that belongs to a seed, a name and up to three counting words.

    Philox turns a key and a counter into numbers without any state in between (Salmon et al.,
    "Parallel random numbers: as easy as 1, 2, 3", SC 2011), so the draws of one step can be had
    without those of the steps before it, alike on every platform. Its lowest counter word counts
    the numbers drawn; the caller's words stand above it, so no two generators overlap.

    >>> generator(0, "train", 3, 1).random() == generator(0, "train", 3, 1).random()
    True
    """
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    words = np.zeros(4, np.uint64)
    words[1 : 1 + len(counter)] = counter
    key = np.array([seed, int.from_bytes(digest, "little")], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=words))
