"""Random numbers as a function of a seed, a name and a counter."""

import hashlib

import numpy as np


def generator(seed: int, name: str, *counter: int) -> np.random.Generator:
    """Return the generator of a seed, a name and up to three counters.

    Philox maps a key and a counter to numbers without further state (Salmon et al., "Parallel
    random numbers: as easy as 1, 2, 3", SC 2011). So the random numbers of one step do not depend
    on earlier steps, and are the same on every platform. The lowest word of the counter counts the
    numbers, and the caller's counters are the higher words, so no two generators overlap.

    >>> generator(0, "train", 3, 1).random() == generator(0, "train", 3, 1).random()
    True
    """
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    words = np.zeros(4, np.uint64)
    words[1 : 1 + len(counter)] = counter
    key = np.array([seed, int.from_bytes(digest, "little")], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=words))
