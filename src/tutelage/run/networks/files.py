"""Trained networks as files: safetensors with the genotype inside."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tutelage.checks import nearest
from tutelage.config import Data
from tutelage.files import write_bytes
from tutelage.formats import from_json
from tutelage.parts import PARTS, make_part
from tutelage.records.typed import typed
from tutelage.renamed import SETTINGS, lifted
from tutelage.run.networks import ensemble, hub
from tutelage.spaces.base import Size, Space
from tutelage.spaces.genotype import Genotype
from tutelage.trusted import TrustError

FILE = "network.safetensors"
MOST_CELLS: Final = 1000
KEY, VERSION = "tutelage", 1
"""The metadata's entry, and the version of its JSON."""
READ_BY: Final = ("centre", "white")
"""Settings of the data that say how an image is read; files of earlier releases lack some."""
LARGEST: Final = 2**17
"""Channels, cells, classes and pixels of a side that a file may ask for."""


@dataclass(frozen=True)
class About:
    """What a network is and which images it takes; stored beside its weights."""

    genotype: Genotype
    size: Size
    classes: tuple[str, ...]
    """Names of the classes, in the order of the logits."""
    mean: tuple[float, ...]
    """Mean of every channel, of pixels from 0 to 1; subtracted from the network's input."""
    std: tuple[float, ...]
    """Standard deviation of every channel; the network's input is divided by it."""
    shape: tuple[int, int, int]
    """Channels, height and width of the images that it was trained on."""
    centre: float | None = None
    """Share of the side that a centre crop of an image keeps; None: the file does not say."""
    white: int | None = None
    """Value of 16 bits that becomes 255; None: the file does not say."""


def read_by(known: About | Data) -> dict[str, Any]:
    """Return the settings of the data that say how an image is read, as far as they are known."""
    return {name: x for name in READ_BY if (x := getattr(known, name)) is not None}


@dataclass(frozen=True)
class Metadata:
    """The metadata of a network's file, with their types."""

    version: int
    genotype: dict[str, Any]
    size: dict[str, Any]
    classes: list[str]
    mean: list[float]
    std: list[float]
    shape: tuple[int, int, int]
    centre: float | None = None
    white: int | None = None

    def about(self) -> About:
        """Return what they say; raise ValueError or TypeError if it cannot be."""
        size = Size(**lifted(self.size, SETTINGS[()]))
        numbers = (size.channels, size.cells, size.classes, size.image_channels, *self.shape)
        if not all(type(each) is int and 1 <= each <= LARGEST for each in numbers):
            raise ValueError(f"its sizes are {numbers}: must be whole numbers up to {LARGEST:,}")
        genotype = Genotype.from_dict(self.genotype)
        numbered = (tuple(self.classes), tuple(self.mean), tuple(self.std))
        found = About(genotype, size, *numbered, self.shape, self.centre, self.white)
        Data(**read_by(found))  # refuses what cannot be
        return found


@final
class Averaged(nn.Module):
    """Networks that predict together, by the mean of their probabilities."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C) whose softmax is the mean of the members' probabilities."""
        logs = torch.stack([network(x).log_softmax(1) for network in self.members])
        return logs.logsumexp(0) - math.log(len(logs))


def build(
    genotype: Genotype, size: Size, *, auxiliary: bool = False, drop_path: float = 0.0
) -> nn.Module:
    """Build the stand-alone network of a genotype of any space.

    Raises:
        ValueError: the genotype's space is unknown.
    """
    return space_of(genotype).network(genotype, size, auxiliary=auxiliary, drop_path=drop_path)


def space_of(genotype: Genotype) -> Space:
    """Return the space of a genotype.

    Raises:
        ValueError: it is unknown.
    """
    spaces = PARTS["space"]
    if genotype.space not in spaces and "skeleton" not in genotype.layout:
        raise ValueError(f"unknown space {genotype.space!r}: {nearest(genotype.space, spaces)}")
    space: Space = make_part("space", {**genotype.layout, "name": genotype.space})
    return space


def save_network(path: Path, network: nn.Module, details: About) -> None:
    """Write a network's weights, without an auxiliary head, and its description."""
    with torch.device("meta"):
        needed = build(details.genotype, details.size).state_dict()
    state = network.state_dict()
    tensors = {name: state[name].detach().cpu().contiguous() for name in needed}
    write_bytes(path, save(tensors, to_metadata(details)))


def load(path: Path | str, device: torch.device | str = "cpu") -> nn.Module:
    """Return a trained network in eval mode: normalised images (B, C, H, W) to logits.

    It has the members of timm's models (`forward_features`, `forward_head`, `reset_classifier`,
    `num_classes`), and gives logits alone in training mode too. For an ensemble, the softmax of
    these logits is the mean of all its networks' probabilities.

    Args:
        path: a .safetensors file that a retraining wrote, the directory of a retraining or run, a
            folder of `tutelage export`, or hf-hub:OWNER/NAME for such a folder on the Hugging Face
            hub (with the extra `hub`).
        device: where to put it.

    Raises:
        ValueError: there is no such file, or it is damaged or not a network.
    """
    if folders := members(path):
        return Averaged([load(folder, device) for folder in folders]).eval()
    path = find(path)
    details, tensors = read_network(path)
    try:
        _refuse_others(details, tensors)
        network: Any = build(details.genotype, details.size)
        network.logits_alone = True
        network.load_state_dict(tensors)
    except TrustError as error:
        raise TrustError(f"{path}: {error}") from error
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        reason = "" if isinstance(error, RuntimeError) else f": {error}"
        raise ValueError(
            f"{path}: its weights do not fit its own genotype and size{reason}"
        ) from error
    return network.to(device).eval()


def about(path: Path | str) -> About:
    """Return a trained network's genotype, size, classes, normalisation and input shape.

    Raises:
        ValueError: as `load`.
    """
    return read_network(find(path))[0]


def find(path: Path | str) -> Path:
    """Return the file of a path: the path itself, or the file in a retraining's or run's directory.

    Raises:
        ValueError: there is none.
    """
    if str(path).startswith(hub.PREFIX):
        return hub.downloaded(str(path), FILE)
    path = Path(path)
    if path.is_file():
        return path
    for candidate in (path / FILE, path / "retrain" / FILE):
        if candidate.is_file():
            return candidate
    if folders := members(path):
        raise ValueError(f"{path} holds {len(folders)} networks, an ensemble: give {folders[0]}")
    if path.exists():
        raise ValueError(f"{path} has no {FILE}: make it with `tutelage retrain`")
    raise ValueError(f"{path} does not exist: give a {FILE} or a retraining's directory")


def members(path: Path | str) -> list[Path]:
    """List the folders of an ensemble's networks in the directory of a retraining or run; or none.

    Raises:
        ValueError: the file that names its members is damaged.
    """
    for folder in (Path(path), Path(path) / "retrain"):
        if (folder / member(0)).is_dir():
            count = len(ensemble.Ensemble.read(folder / ensemble.FILE).learners)
            return [folder / member(place) for place in range(count)]
    return []


def member(place: int) -> str:
    """Name the folder of an ensemble's network.

    >>> member(0)
    'member-0'
    """
    return f"member-{place}"


def read_network(path: Path) -> tuple[About, dict[str, Tensor]]:
    """Read the description and the weights of a network's file.

    Raises:
        ValueError: it is damaged or not a network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or no safetensors file: {error}") from error
    if KEY not in metadata:
        raise ValueError(f"{path} holds no network of this package: its metadata does not say so")
    try:
        values = typed(from_json(metadata[KEY]), Metadata)
        if values.version > VERSION:
            raise ValueError(
                f"version {values.version} is newer than this release's {VERSION}: load it with "
                "the release that wrote it"
            )
        return values.about(), tensors
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} has unusable metadata: {error}") from error


def _refuse_others(details: About, tensors: Mapping[str, Tensor]) -> None:
    """Raise RuntimeError for tensors of other shapes, before any memory is taken for them."""
    if details.size.cells > MOST_CELLS:
        raise RuntimeError(f"{details.size.cells:,} cells")
    with torch.device("meta"):
        needed = build(details.genotype, details.size).state_dict()
    if {name: x.shape for name, x in needed.items()} != {n: x.shape for n, x in tensors.items()}:
        raise RuntimeError("other shapes")


def to_metadata(details: About) -> dict[str, str]:
    """Return a single entry: safetensors writes several in any order, so files would differ."""
    values: dict[str, Any] = {
        "version": VERSION,
        "genotype": details.genotype.to_dict(),
        "size": asdict(details.size),
        "classes": details.classes,
        "mean": details.mean,
        "std": details.std,
        "shape": details.shape,
        **read_by(details),
    }
    return {KEY: json.dumps(values)}
