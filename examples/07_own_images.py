"""One's own images: a folder with a folder for every class, of any size, grey or in colour."""

from pathlib import Path

import numpy as np
from PIL import Image

import tutelage
from tutelage.config import Data


def draw(root: Path) -> None:
    """Write stripes along and across: ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png."""
    random = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 4)):
        for name in ("along", "across"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for k in range(count):
                stripes = (np.arange(20) + random.integers(4)) // 2 % 2 * 255
                image = np.tile(stripes, (20, 1)).astype(np.uint8)
                Image.fromarray(image if name == "along" else image.T).save(folder / f"{k}.png")


if __name__ == "__main__":
    draw(Path("stripes"))
    data = Data("stripes", resolution=16, crop=0, flip=False)
    found = tutelage.search(
        data=data, out="run", channels=2, cells=3, epochs=1, limit_batches=2, batch_size=4
    )
    print(found.genotype.as_text())
