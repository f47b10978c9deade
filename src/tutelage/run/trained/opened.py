"""A trained network with what is known of it, from its file and from the files of its run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from tutelage.config import Data
from tutelage.parts import from_table
from tutelage.run.job.directory import RunDirectory
from tutelage.run.machine.device import device_named
from tutelage.run.networks.files import READ_BY, About, about, find, load, members, read_by


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network, or the networks of an ensemble as one."""

    network: nn.Module
    """Normalised images (B, C, H, W) to logits (B, classes), in eval mode."""
    details: About
    """Classes, normalisation, shape; of an ensemble those of its first network."""
    device: torch.device
    folder: Path
    """Of the retraining's files, as far as they exist."""

    @cached_property
    def data(self) -> Data | None:
        """The images that it was trained on; None: no run.toml is beside the network."""
        return trained_on(self.folder)


def open_trained(path: Path | str, device: str = "auto") -> Trained:
    """Open a trained network.

    Args:
        path: As in `load`.
        device: cpu, cuda, or auto.

    Raises:
        ValueError: As `load` and `device_named`.
    """
    folders = members(path)
    file = find(folders[0] if folders else path)
    folder = file.parent.parent if folders else file.parent
    details = about(file)
    known = read_by(details)
    if len(known) < len(READ_BY):
        data = trained_on(folder) or Data()
        details = replace(details, **read_by(data) | known)
    where = device_named(device)
    return Trained(load(path if folders else file, where), details, where, folder)


def trained_on(folder: Path) -> Data | None:
    """Return the images that a retraining's run.toml names; None: there is none.

    Raises:
        ValueError: It is damaged.
    """
    if not (folder / "run.toml").is_file():
        return None
    table = RunDirectory.open(folder).settings().get("data", {})
    return from_table(Data, table, "the data")
