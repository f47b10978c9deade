"""Networks from the Hugging Face hub, by the extra `hub`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Final

PREFIX: Final = "hf-hub:"
"""How the name of a repository on the hub begins, as in timm."""


def downloaded(name: str, file: str) -> Path:
    """Return the local copy of a repository's file; the hub's client keeps it for the next time.

    Args:
        name: hf-hub:OWNER/NAME, or hf-hub:OWNER/NAME@REVISION.
        file: Its name there.

    Raises:
        ValueError: The extra is not installed, or the hub does not give the file.
    """
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise ValueError(f"{name} needs an extra: pip install 'tutelage[hub]'") from error
    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    try:
        return Path(hub.hf_hub_download(repository, file, revision=revision or None))
    except (OSError, ValueError) as error:  # the hub's own errors are of these kinds
        raise ValueError(f"{name}: the hub does not give its {file}: {error}") from error
