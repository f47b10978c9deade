"""Trained networks as ONNX."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tutelage.run.networks.files import to_metadata
from tutelage.run.trained.opened import Trained
from tutelage.run.trained.preprocessing import in_words
from tutelage.run.trained.written import Written, compared, sample


def as_onnx(trained: Trained) -> Written:
    """Return a network as ONNX, for any batch size, read and run by ONNX Runtime.

    The metadata holds `classes` and `preprocessing` as JSON, and as `tutelage` what `load` reads.

    Raises:
        ValueError: the extra is not installed, or the logits differ from the module's.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch.onnx.export needs it)
    except ImportError as error:
        raise ValueError("ONNX needs an extra: pip install 'tutelage[onnx]'") from error
    images = sample(trained)
    with _quiet():
        program = torch.onnx.export(
            trained.network,
            (images[:2],),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
    assert program is not None  # always so with dynamo=True
    for key, value in (in_words(trained.details) | to_metadata(trained.details)).items():
        program.model.metadata_props[key] = value
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})
    return compared("ONNX Runtime", content, torch.from_numpy(logits), trained.network(images))


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what the exporter says of its own parts, and of packages that it does not need."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
