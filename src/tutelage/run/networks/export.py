"""Trained networks as ONNX."""

from __future__ import annotations

from pathlib import Path

import torch

from tutelage.files import write_bytes
from tutelage.run.networks.files import about, load, to_metadata


def export_onnx(path: Path | str, out: Path | str) -> float:
    """Write a trained network as ONNX, for any batch size, and compare it with the module.

    Args:
        path: as in `load`.
        out: the .onnx file to write.

    Returns:
        The largest absolute difference of a logit between ONNX Runtime and the module.

    Raises:
        ValueError: the extra is not installed, or the two disagree.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch.onnx.export needs it)
    except ImportError as error:
        raise ValueError("ONNX needs an extra: pip install 'tutelage[onnx]'") from error
    network, details = load(path), about(path)
    images = torch.randn(3, *details.shape, generator=torch.Generator().manual_seed(0))
    program = torch.onnx.export(
        network,
        (images[:2],),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["images"],
        output_names=["logits"],
        verbose=False,
    )
    assert program is not None  # always so with dynamo=True
    for key, value in to_metadata(details).items():
        program.model.metadata_props[key] = value
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = network(images)
    difference = (torch.from_numpy(logits) - expected).abs().max().item()
    if not difference <= 1e-4 * max(1.0, expected.abs().max().item()):
        raise ValueError(f"ONNX Runtime's logits differ from the module's by {difference:.1e}")
    write_bytes(Path(out), content)
    print(f"{out}: largest difference of a logit from the module {difference:.1e}")
    return difference
