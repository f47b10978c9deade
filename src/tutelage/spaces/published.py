"""Published architectures by name, and genotypes that a user gives in any notation."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tutelage.checks import nearest
from tutelage.installed import added, load, origin
from tutelage.spaces.genotype import DARTS_OPERATIONS, Cell, Genotype
from tutelage.spaces.notation import read_macro, read_micro, read_modules, read_size

_, MAX, AVG, SKIP, SEP3, SEP5, DIL3, DIL5 = DARTS_OPERATIONS

PAIRS = {
    # Liu, Simonyan & Yang, "DARTS: differentiable architecture search", first and second order
    "DARTS_V1": (
        [(SEP3, 1), (SEP3, 0), (SKIP, 0), (SEP3, 1), (SKIP, 0), (SEP3, 1), (SEP3, 0), (SKIP, 2)],
        [(MAX, 0), (MAX, 1), (SKIP, 2), (MAX, 0), (MAX, 0), (SKIP, 2), (SKIP, 2), (AVG, 0)],
    ),
    "DARTS_V2": (
        [(SEP3, 0), (SEP3, 1), (SEP3, 0), (SEP3, 1), (SEP3, 1), (SKIP, 0), (SKIP, 0), (DIL3, 2)],
        [(MAX, 0), (MAX, 1), (SKIP, 2), (MAX, 1), (MAX, 0), (SKIP, 2), (SKIP, 2), (MAX, 1)],
    ),
    # Chen, Xie, Wu & Tian, "Progressive DARTS"
    "PDARTS": (
        [(SKIP, 0), (DIL3, 1), (SKIP, 0), (SEP3, 1), (SEP3, 1), (SEP3, 3), (SEP3, 0), (DIL5, 4)],
        [(AVG, 0), (SEP5, 1), (SEP3, 0), (DIL5, 2), (MAX, 0), (DIL3, 1), (DIL3, 1), (DIL5, 3)],
    ),
    # Xu et al., "PC-DARTS: partial channel connections", searched on CIFAR-10 and on ImageNet
    "PC_DARTS_cifar": (
        [(SEP3, 1), (SKIP, 0), (SEP3, 0), (DIL3, 1), (SEP5, 0), (SEP3, 1), (AVG, 0), (DIL3, 1)],
        [(SEP5, 1), (MAX, 0), (SEP5, 1), (SEP5, 2), (SEP3, 0), (SEP3, 3), (SEP3, 1), (SEP3, 2)],
    ),
    "PC_DARTS_image": (
        [(SKIP, 1), (SEP3, 0), (SEP3, 0), (SKIP, 1), (SEP3, 1), (SEP3, 3), (SEP3, 1), (DIL5, 4)],
        [(SEP3, 0), (SKIP, 1), (DIL5, 2), (MAX, 1), (SEP3, 2), (SEP3, 1), (SEP5, 0), (SEP3, 3)],
    ),
}


def _cell(pairs: Sequence[tuple[str, int]]) -> Cell:
    nodes = tuple((pairs[i], pairs[i + 1]) for i in range(0, len(pairs), 2))
    return Cell(nodes, concat=(2, 3, 4, 5))


RESNETS = {
    # He, Zhang, Ren & Sun, "Deep residual learning for image recognition", Table 1
    "resnet18": ("basic_3x3", (64, 128, 256, 512), (2, 2, 2, 2)),
    "resnet50": ("bottleneck_3x3", (256, 512, 1024, 2048), (3, 4, 6, 3)),
}


def _resnet(block: str, widths: Sequence[int], depths: Sequence[int]) -> Genotype:
    layout = {
        "widths": list(widths),
        "depths": list(depths),
        "strides": [1, 2, 2, 2],
        "stem_channels": 64,
    }
    return Genotype.of_chain("resnet", [block] * sum(depths), layout)


PUBLISHED: Mapping[str, Genotype] = {
    **{
        name: Genotype("darts", {"normal": _cell(normal), "reduce": _cell(reduce)})
        for name, (normal, reduce) in PAIRS.items()
    },
    **{name: _resnet(*parts) for name, parts in RESNETS.items()},
}
"""Architectures that papers published, by the names that their repositories use."""


ADDED: Mapping[str, str] = added("genotypes", PUBLISHED)
"""The architectures of installed packages by name, as `module:attribute`."""


def about() -> dict[str, str]:
    """Return a line about every published architecture."""
    own = {name: f"an architecture of the space {x.space}" for name, x in PUBLISHED.items()}
    return own | {
        name: f"{target} (package {origin('genotypes', name)})" for name, target in ADDED.items()
    }


def _added(name: str) -> Genotype:
    """Import an architecture of an installed package: a genotype, or its text in any notation.

    Raises:
        ValueError: The package cannot be imported, or it is no genotype.
    """
    found = load("genotypes", name, ADDED[name])
    try:
        return found if isinstance(found, Genotype) else Genotype.from_text(found)
    except (ValueError, AttributeError, TypeError) as error:
        package = origin("genotypes", name)
        raise ValueError(f"genotype {name!r} of the package {package}: {error}") from error


def resolve(text_or_path: str | Path) -> Genotype:
    """Return the genotype that a user names.

    Args:
        text_or_path: a file, a run's directory, the name of a published one, or the genotype
            itself as JSON, DARTS' tuple text or the text of a benchmark.

    Raises:
        ValueError: it is none of these, or the file is damaged.
    """
    text = str(text_or_path).strip()
    if "Genotype(" in text or text.startswith(("{", "|")):
        return Genotype.from_text(text)
    path = Path(text_or_path)
    if os.path.isdir(path):  # noqa: PTH112  # False where a text is too long for a path
        if not (path / "genotype.json").is_file():
            raise ValueError(f"{path} has no genotype.json: a search writes it when it ends")
        return Genotype.read(path / "genotype.json")
    if os.path.isfile(path):  # noqa: PTH113
        if path.suffix == ".safetensors":
            raise ValueError(f"{path} holds a network: give its folder, which has a genotype.json")
        return Genotype.read(path)
    if text.isdecimal():
        return _macro(text)
    if re.fullmatch(r"[\d:]+:[\d:]*", text):
        return Genotype.of_chain("nats-size", read_size(text), {})
    if re.match(r"64-\d+-", text):
        return _transnas(text)
    for name, genotype in PUBLISHED.items():
        if name.lower() == text.lower():
            return genotype
    for name in ADDED:
        if name.lower() == text.lower():
            return _added(name)
    if path.suffix or len(path.parts) > 1:
        raise ValueError(f"{text}: no such file or directory")
    raise ValueError(
        f"unknown genotype {text!r}, and no file or run: {nearest(text, [*PUBLISHED, *ADDED])}"
    )


def _macro(text: str) -> Genotype:
    """Read NAS-Bench-Macro's digits as a chain of layers."""
    nodes = tuple(((name, layer),) for layer, name in enumerate(read_macro(text)))
    return Genotype("nasbench-macro", {"chain": Cell(nodes, concat=(len(nodes),), inputs=1)})


def _transnas(text: str) -> Genotype:
    """Read a code of TransNAS-Bench-101: a chain of modules, or a cell."""
    if text.endswith("basic"):
        return Genotype.of_chain("transnas-macro", read_modules(text), {})
    names = iter(read_micro(text))
    nodes = tuple(tuple((next(names), state) for state in range(node)) for node in (1, 2, 3))
    return Genotype("transnas-micro", {"cell": Cell(nodes, concat=(3,), inputs=1)})
