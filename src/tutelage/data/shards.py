"""Shards of images: tar files with KEY.jpg beside KEY.cls, as webdataset writes them.

A shard is indexed once, and its images are then read in any order. So batches are a function of
(seed, epoch, step), the halves consist of single images, and a run that resumes within an epoch is
exact. webdataset itself reads sequentially, through a shuffled buffer whose state is not stored.
Only its format is used here, which the standard library can read.
"""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import torch
from PIL import Image

from tutelage.data import DataError
from tutelage.data.digests import Stat
from tutelage.data.images import Listing, Source
from tutelage.data.pictures import SUFFIXES, from_bytes
from tutelage.data.remarks import say
from tutelage.data.request import PartName

LABEL: Final = "cls"
CLASSES: Final = "classes.txt"
LONGEST_LABEL: Final = 32
"""Bytes of a label that are read."""
MOST_CLASSES: Final = 2**20
WORDS: Final[dict[PartName, tuple[str, ...]]] = {"train": ("train",), "test": ("test", "val")}
"""Names of the shards of a part, or of their folder; the first that exists is used."""


class Member(NamedTuple):
    """An image inside a shard."""

    shard: str
    offset: int
    """Position of its first byte."""
    size: int
    """Bytes."""

    def __str__(self) -> str:
        return f"the image at byte {self.offset} of {self.shard}"


@final
@dataclass(frozen=True)
class Shards:
    """A folder of shards."""

    root: Path
    divided = True

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.root.name

    def listed(self, part: PartName) -> tuple[Listing, list[str]]:
        """List the images of a part; nothing is left out.

        Raises:
            DataError: There are no shards of this part, or they are damaged or lack labels.
        """
        if part in ("validation", "own test"):
            raise DataError(
                f"{self.root}: validation = 'folder' needs folders by class, not shards"
            )
        return listing(self.root, part), []

    def whole(self) -> Listing:
        """List the images of the training part."""
        return listing(self.root, "train")

    def tested(self, part: PartName) -> Sequence[Any]:
        """List the shards of the test part."""
        return list(map(str, shards(self.root, "test")))

    def without_labels(self) -> tuple[Listing, list[str]]:
        """List the images of the training part, labelled or not, without labels."""
        members = members_of(self.root)
        return Listing(members, torch.full((len(members),), -1), (), source(self.root)), []


def shards(root: Path, part: PartName) -> list[Path]:
    """List the shards of a part: tar files in a folder of its name, or with it in their names.

    If there is such a folder, tar files beside it are ignored, as it may be unpacked from them. A
    file with `train` in its name is never a test shard, such as `latest-train-0.tar`.
    """
    names = {file: file.name.lower() for file in sorted(root.glob("*.tar"))}
    beside = {f: name for f, name in names.items() if part == "train" or "train" not in name}
    for word in WORDS[part]:
        inside = sorted((root / word).glob("*.tar"))
        named = [f for f, name in beside.items() if word in name and not (root / word).is_dir()]
        if inside or named:
            return inside or named
    return []


@lru_cache(maxsize=4)
def listing(root: Path, part: PartName) -> Listing:
    """List the images of a part and their labels, without decoding.

    Class names are their numbers, or the lines of classes.txt beside the shards.

    Raises:
        DataError: there are no shards of this part, or they are damaged or lack labels.
    """
    found = shards(root, part)
    if not found:
        raise DataError(f"{root} has shards of its train part, but none of a test or val part")
    members: list[Member] = []
    labels: list[int] = []
    for shard in found:
        images, marks = index(shard)
        if lacking := images.keys() - marks.keys():
            raise DataError(f"{shard} has no {min(lacking)}.{LABEL} beside its image")
        members += images.values()
        labels += [marks[key] for key in images]
    if (root / CLASSES).is_file():
        lines = (root / CLASSES).read_text(encoding="utf-8").splitlines()
        classes = tuple(line.strip() for line in lines if line.strip())
    elif part == "train":
        classes = tuple(str(label) for label in range(max(labels) + 1))
    else:
        classes = listing(root, "train").classes
    return Listing(members, torch.tensor(labels), classes, source(root))


def members_of(root: Path) -> list[Member]:
    """List the images of the training part, labelled or not."""
    return [image for shard in shards(root, "train") for image in index(shard)[0].values()]


def index(shard: Path) -> tuple[dict[str, Member], dict[str, int]]:
    """Return the images and the labels of a shard by their keys, names up to the first dot.

    Raises:
        DataError: it is damaged, holds no images, or a label is not a whole number.
    """
    images: dict[str, Member] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for entry in archive:
                folder, slash, name = entry.name.rpartition("/")
                key, _, kind = name.partition(".")
                key, kind = folder + slash + key, kind.lower()
                if entry.isfile() and kind == LABEL:
                    content = archive.extractfile(entry)
                    labels[key] = label_of(content.read(LONGEST_LABEL)) if content else -1
                elif entry.isfile() and not entry.issparse() and f".{kind}" in SUFFIXES:
                    images[key] = Member(str(shard), entry.offset_data, entry.size)
            check_end(archive)
    except (tarfile.TarError, ValueError) as error:
        raise DataError(f"{shard} is damaged or no tar file of samples: {error}") from error
    if not images:
        raise DataError(f"{shard} holds no images called KEY.jpg ({', '.join(SUFFIXES)})")
    if alone := labels.keys() - images.keys():
        say(
            f"{shard}: {len(alone):,} samples are left out, such as {min(alone)}: they have a "
            f".{LABEL}, but no image of {', '.join(SUFFIXES)}"
        )
    return images, labels


def label_of(content: bytes) -> int:
    """Read a label; raise ValueError if it is no number, or so large that it is no class."""
    label = int(content)
    if label >= MOST_CLASSES:
        raise ValueError(f"a label is {label}: must be below {MOST_CLASSES:,}")
    return label


def check_end(archive: tarfile.TarFile) -> None:
    """Refuse an archive that was not read to its end.

    After its first entry, tarfile treats unreadable bytes as the end, and ignores what follows.

    Raises:
        ReadError: it is cut short, or damaged inside.
    """
    file: Any = archive.fileobj
    file.seek(archive.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"byte {archive.offset:,} of it is neither a file nor the end")


def opened(member: Member) -> Image.Image:
    """Open an image inside a shard."""
    with Path(member.shard).open("rb") as file:
        file.seek(member.offset)
        return from_bytes(file.read(member.size))


def source(root: Path) -> Source:
    """Say how the images of shards are opened and described."""
    return Source(str(root), opened, stats)


def stats(members: Sequence[Member]) -> list[Stat]:
    """Describe members by their places, and by when their shards were written."""
    times = {shard: Path(shard).stat().st_mtime_ns for shard in {each.shard for each in members}}
    return [Stat(f"{each.shard}:{each.offset}", each.size, times[each.shard]) for each in members]
