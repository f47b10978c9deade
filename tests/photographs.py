"""Small photographs of two classes, as a folder by class and as shards of the same files."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog")


def photograph(generator: np.random.Generator) -> bytes:
    """A JPEG of coarse noise, 40 to 80 pixels a side."""
    height, width = generator.integers(40, 80, 2).tolist()
    coarse = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    file = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=95)
    return file.getvalue()


def make_photographs(root: Path, count: int = 8, parts: tuple[str, ...] = ("train", "val")) -> Path:
    """Write so many photographs of every class and part."""
    generator = np.random.default_rng(0)
    for part in parts:
        for name in CLASSES:
            (root / part / name).mkdir(parents=True)
            for k in range(count):
                (root / part / name / f"{k}.JPEG").write_bytes(photograph(generator))
    return root


def make_shards(folder: Path, root: Path, count: int = 3, form: int = tarfile.PAX_FORMAT) -> Path:
    """Write the same files in so many shards a part, in the folder's order; return the root."""
    for part in ("train", "val"):
        files = sorted((folder / part).glob("*/*"))
        (root / part).mkdir(parents=True)
        for number, own in enumerate(np.array_split(np.arange(len(files)), count)):
            with tarfile.open(root / part / f"{number:04d}.tar", "w", format=form) as shard:
                for place in own.tolist():
                    file = files[place]
                    label = str(CLASSES.index(file.parent.name)).encode()
                    add(shard, f"{place:06d}.jpeg", file.read_bytes())
                    add(shard, f"{place:06d}.cls", label)
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    return root


def add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    """Write an entry as webdataset does, whose times are fractions of a second."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = len(content), 1700000000.25
    shard.addfile(entry, io.BytesIO(content))
