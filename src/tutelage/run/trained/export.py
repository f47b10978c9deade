"""Write a trained network as ONNX, as a program of torch.export, or as weights with a card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from tutelage.files import write_bytes
from tutelage.run.trained.card import write_folder
from tutelage.run.trained.onnx import as_onnx
from tutelage.run.trained.opened import Trained, open_trained
from tutelage.run.trained.program import as_program
from tutelage.run.trained.written import Written

FORMATS: Final[dict[str, Callable[[Trained], Written]]] = {".onnx": as_onnx, ".pt2": as_program}


@torch.no_grad()
def export(path: Path | str, out: Path | str) -> str:
    """Write a trained network in the format of the output's ending, and compare its logits.

    Args:
        path: As in `load`.
        out: A file that ends in .onnx or .pt2, or a folder, without an ending, for
            network.safetensors with its model card.

    Returns:
        A sentence: what was written, and the largest difference of a logit from the module.

    Raises:
        ValueError: Another ending, no such network, a missing extra, or logits that differ.
    """
    out = Path(out)
    kind = "" if out.is_dir() else out.suffix.lower()
    if kind not in ("", *FORMATS):
        raise ValueError(
            f"--out {out}: must end in .onnx or .pt2, or be a folder for weights and model card"
        )
    trained = open_trained(path, "cpu")
    if not kind:
        return write_folder(path, trained, out)
    written = FORMATS[kind](trained)
    write_bytes(out, written.content)
    return f"{out}: largest difference of a logit from the module {written.difference:.1e}"
