"""data.json: what a run has read, as short digests, and the changes that its user accepted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from tutelage.records.typed import known_version, present, typed

INPUTS: Final = {"format": "tutelage data", "version": 1}
"""The first entries of data.json."""


@dataclass(frozen=True)
class Part:
    """The images of a part; digests and labels are little-endian uint32 in base64, one an image."""

    name: str
    images: int
    shape: tuple[int, int, int]
    """Channels, height and width."""
    by: str
    """What `contents` are digests of: `pixels`, sizes and times of `files`, or `items`."""
    names: str
    contents: str
    labels: str
    classes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Accepted:
    """Changes of the data with which a run went on."""

    when: str
    """In UTC, as ISO 8601."""
    use: str
    """The part that had changed."""
    changes: list[str]


@dataclass(frozen=True)
class Inputs:
    """The content of data.json."""

    parts: dict[str, Part] = field(default_factory=dict)
    """By their use: `train`, `unlabelled`."""
    accepted: list[Accepted] = field(default_factory=list)

    @classmethod
    def read(cls, found: Any) -> Inputs:
        """Read the content of data.json.

        Raises:
            ValueError: It is of another kind, or of a newer release.
        """
        known_version(found, INPUTS["version"])
        return typed(found, cls)

    def as_file(self) -> dict[str, Any]:
        """Return the content of data.json."""
        return {**INPUTS, **present(self)}
