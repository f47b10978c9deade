"""Trained networks as programs of torch.export, which need none of this package's code."""

from __future__ import annotations

import io
from typing import Any

import torch

from tutelage.run.networks.files import to_metadata
from tutelage.run.trained.opened import Trained
from tutelage.run.trained.preprocessing import in_words
from tutelage.run.trained.written import Written, compared, sample


def as_program(trained: Trained) -> Written:
    """Return a network as the content of a .pt2 file, for any batch size, read and run again.

    `torch.export.load(file, extra_files={"classes": "", "preprocessing": ""})` fills in the texts.

    Raises:
        ValueError: the logits differ from the module's.
    """
    images = sample(trained)
    program = torch.export.export(
        trained.network,
        (images[:2],),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        strict=False,  # the default from torch 2.7 on
    )
    extra: dict[str, Any] = in_words(trained.details) | to_metadata(trained.details)
    file = io.BytesIO()
    torch.export.save(program, file, extra_files=extra)
    content = file.getvalue()
    logits = torch.export.load(io.BytesIO(content)).module()(images)
    return compared("the exported program", content, logits, trained.network(images))
