"""CIFAR-10 and CIFAR-100 from their official python archives, packed or unpacked."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tutelage.config import Data
from tutelage.data import DataError
from tutelage.data.download import fetch
from tutelage.data.images import InMemory, Labelled
from tutelage.data.request import PartName, given_root
from tutelage.data.subsets import chosen_images, file_of

LARGEST_FILE = 2**28
"""Bytes of a file in an archive: the official ones have up to 155 million."""
LARGEST_ARCHIVE = 2**30
"""Bytes of an archive when it is unpacked."""


@dataclass(frozen=True)
class Archive:
    """The place and the file layout of one of the two sets."""

    name: str
    url: str
    md5: str
    """Digest from the set's home page."""
    folder: str
    """Folder in the archive."""
    train: tuple[str, ...]
    """Files of the training part."""
    test: tuple[str, ...]
    """Files of the test part."""
    meta: str
    """File of the class names."""
    labels: str
    """Key of the labels."""
    names: str
    """Key of the class names."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def file(self) -> str:
        """Name of the packed file."""
        return self.url.rpartition("/")[2]


# Means and deviations: those of the DARTS code for CIFAR-10, of P-DARTS and PC-DARTS for CIFAR-100.
CIFAR10 = Archive(
    name="cifar10",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    md5="c58f30108f718f92721af3b95e74349a",
    folder="cifar-10-batches-py",
    train=tuple(f"data_batch_{k}" for k in range(1, 6)),
    test=("test_batch",),
    meta="batches.meta",
    labels="labels",
    names="label_names",
    mean=(0.49139968, 0.48215827, 0.44653124),
    std=(0.24703233, 0.24348505, 0.26158768),
)
CIFAR100 = Archive(
    name="cifar100",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    md5="eb9058c3a382ffc7106e4002c42a8d85",
    folder="cifar-100-python",
    train=("train",),
    test=("test",),
    meta="meta",
    labels="fine_labels",
    names="fine_label_names",
    mean=(0.5071, 0.4867, 0.4408),
    std=(0.2675, 0.2565, 0.2761),
)


def read_cifar10(settings: Data, part: PartName) -> Labelled:
    """Read CIFAR-10 (Krizhevsky 2009)."""
    return read_archive(CIFAR10, settings, part)


def read_cifar100(settings: Data, part: PartName) -> Labelled:
    """Read CIFAR-100 (Krizhevsky 2009) with its 100 fine classes."""
    return read_archive(CIFAR100, settings, part)


def check_archive(archive: Archive, settings: Data) -> None:
    """Refuse a set without its files of test images, whose content is not looked at.

    Raises:
        DataError: they are missing, or the packed file is cut short before them.
    """
    if settings.held_out:
        return
    root = given_root(settings)
    packed = root / archive.file
    if not unpacked(archive, root, archive.test) and packed.is_file():
        unpack(packed, archive.folder, archive.test)


def read_archive(archive: Archive, settings: Data, part: PartName) -> Labelled:
    """Read a part of either set; a set with fewer rows than the official one is accepted.

    Raises:
        DataError: files are missing, truncated or of another kind.
    """
    if settings.download and settings.root:
        settings.root.mkdir(parents=True, exist_ok=True)
    root = given_root(settings)
    batches = archive.train if file_of(settings, part) == "train" else archive.test
    contents = find(archive, root, (archive.meta, *batches), download=settings.download)
    meta = unpickle(contents[archive.meta], archive.meta)
    classes = tuple(text(name) for name in entry(meta, archive.names, archive.meta))
    arrays = [rows(unpickle(contents[name], name), archive.labels, name) for name in batches]
    pixels = torch.from_numpy(np.concatenate([pixels for pixels, _ in arrays]))
    labels = torch.from_numpy(np.concatenate([labels for _, labels in arrays]))
    images = chosen_images(InMemory(pixels, labels), settings, part)
    return Labelled(archive.name, images, classes, archive.mean, archive.std, crop=4, flip=True)


def find(archive: Archive, root: Path, names: Sequence[str], *, download: bool) -> dict[str, bytes]:
    """Read files of the unpacked folder, of the root itself, or of the packed file."""
    if folder := unpacked(archive, root, names):
        return {name: (folder / name).read_bytes() for name in names}
    packed = root / archive.file
    if download and not packed.is_file():
        fetch(archive.url, archive.md5, packed)
    if packed.is_file():
        return unpack(packed, archive.folder, names)
    raise DataError(
        f"{archive.name} is not in {root}: put {archive.folder} or {archive.file} there, "
        "or fetch it with --download"
    )


def unpacked(archive: Archive, root: Path, names: Sequence[str]) -> Path | None:
    """Return the folder of the unpacked files; None: there is none.

    Raises:
        DataError: it lacks some of the files.
    """
    for folder in (root / archive.folder, root):
        if (folder / archive.meta).is_file():
            missing = [name for name in names if not (folder / name).is_file()]
            if missing:
                raise DataError(f"{folder} lacks {', '.join(missing)}: unpack {archive.file} again")
            return folder
    return None


def unpack(packed: Path, folder: str, names: Sequence[str]) -> dict[str, bytes]:
    """Read files from a packed archive, in one pass and without writing."""
    wanted = {f"{folder}/{name}": name for name in names}
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(packed, "r|gz") as stream:
            for member in stream:
                if member.offset > LARGEST_ARCHIVE or member.size > LARGEST_FILE:
                    raise tarfile.ReadError(f"{member.name} is too large for a set of images")
                file = None
                if member.name in wanted and member.isfile():  # not a link, wherever it leads
                    file = stream.extractfile(member)
                if file:
                    contents[wanted[member.name]] = file.read()
                if len(contents) == len(names):
                    return contents
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{packed} is broken ({error}): remove it and fetch it again") from error
    missing = ", ".join(name for name in names if name not in contents)
    raise DataError(f"{packed} lacks {missing}: remove it and fetch it again")


def rows(content: dict[str, Any], key: str, file: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images of a batch, uint8 (N, 3, 32, 32), and its labels, int64 (N,)."""
    data, labels = entry(content, "data", file), entry(content, key, file)
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 2):
        raise DataError(f"{file}: its data are not a uint8 table of images")
    if data.shape[1] != 3 * 32 * 32:
        raise DataError(f"{file}: its rows have {data.shape[1]} values instead of 3 x 32 x 32")
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu" or labels.shape != data.shape[:1]:
        raise DataError(f"{file}: it has {len(data)} images, but {key} of shape {labels.shape}")
    return data.reshape(-1, 3, 32, 32), labels.astype(np.int64)


def entry(content: dict[str, Any], key: str, file: str) -> Any:
    """Return a batch's entry of a key."""
    if key not in content:
        raise DataError(f"{file}: it has no {key!r}, only {', '.join(content) or 'nothing'}")
    return content[key]


def text(name: str | bytes) -> str:
    """Return a string that Python 2 or Python 3 pickled."""
    return name.decode() if isinstance(name, bytes) else name


def unpickle(content: bytes, file: str) -> dict[str, Any]:
    """Read a pickled dict that may hold numbers, strings, containers and arrays, nothing else."""
    try:
        loaded = Batches(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(loaded, dict):
            raise DataError(f"it holds a {type(loaded).__name__} instead of a dict")
        return {text(key): stored(value) for key, value in loaded.items()}
    except DataError as error:
        raise DataError(f"{file}: {error}") from error
    except Exception as error:  # for broken bytes pickle raises almost any error
        raise DataError(f"{file} is truncated or not a pickled batch: {error}") from error


def stored(value: Any) -> Any:
    """Return the array that a stand-in describes, and any other value as it is."""
    return value.array() if isinstance(value, StoredArray) else value


class StoredType:
    """Stands for a pickled data type, which only names it: nothing of numpy is called."""

    __slots__ = ("name",)

    def __init__(self, name: str | bytes, *_: Any) -> None:
        self.name = text(name)

    def __setstate__(self, state: Any) -> None:
        """Refuse types with fields, shapes or objects; the order of bytes has to be this one's."""
        order, fields = text(state[1]), state[2:5]
        if order not in "<|=" or any(each is not None for each in fields):
            raise DataError(f"its arrays are of another type than plain numbers: {state!r:.60}")


class StoredArray:
    """Stands for a pickled array of whole numbers, made from its bytes when all is read."""

    __slots__ = ("state",)

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        """Keep what numpy would be given: version, shape, type, order and bytes."""
        self.state = state

    def array(self) -> np.ndarray:
        """Return the array; raise DataError if it is none of whole numbers."""
        _, shape, kind, columns_first, content = self.state
        if not isinstance(kind, StoredType) or kind.name not in WHOLE:
            raise DataError("it holds an array of other values than whole numbers")
        flat = np.frombuffer(content, kind.name)
        return flat.reshape(shape, order="F" if columns_first else "C").copy()


class Latin1:
    """Replaces codecs.encode, with which Python 3 writes bytes in pickle's protocol 2."""

    __slots__ = ()

    def __call__(self, characters: str, encoding: str) -> bytes:
        """Encode characters."""
        return characters.encode("latin1")


WHOLE = frozenset(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8))
"""Names of the types of arrays that a batch may hold."""
HARMLESS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): StoredArray,  # its place in numpy 1
    ("numpy._core.multiarray", "_reconstruct"): StoredArray,
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): StoredType,
    ("_codecs", "encode"): Latin1(),
}
"""What a pickle may name, and what it gets instead."""


class Batches(pickle.Unpickler):
    """An unpickler that gives stand-ins for arrays: what they are told to do, they only keep."""

    def find_class(self, module: str, name: str) -> Any:
        """Look up a global among the allowed ones."""
        if (module, name) not in HARMLESS:
            raise DataError(f"it asks for {module}.{name}, which no batch of images needs")
        return HARMLESS[module, name]
