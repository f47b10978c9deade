"""The labelled images on which a trained network is tested."""

from __future__ import annotations

from tutelage.config import Data
from tutelage.data.folder import listing, test_files
from tutelage.data.read import named
from tutelage.data.request import given_root


def names_of(data: Data) -> list[str]:
    """Name the files of the test set below its folder, in order; none if it is no folder."""
    data = named(data)
    if data.name != "folder":
        return []
    root = given_root(data)
    files = test_files(root, listing(root, "train"), data)
    return [str(path).removeprefix(f"{root}/") for path in files.paths]
