"""A short retraining on the digits."""

from pathlib import Path
from typing import Any

from tutelage.config import Data, Retrain
from tutelage.run import retrain
from tutelage.spaces.base import Size
from tutelage.spaces.published import PUBLISHED

GENOTYPE = PUBLISHED["DARTS_V2"]
DIGITS = Data(name="digits")
SIZE = Size(channels=4, cells=3, classes=10, image_channels=1)
SMALL = Retrain(
    epochs=2,
    batch_size=32,
    limit_batches=4,
    channels=4,
    cells=3,
    cutout=2,
    drop_path=0.3,
    log_every=2,
    device="cpu",
)
TEST_IMAGES = 599
FILE = "network.safetensors"


def train(
    out: Path, settings: Retrain = SMALL, resume: bool = False, data: Data = DIGITS
) -> dict[str, Any]:
    return retrain.retrain(GENOTYPE, data, settings, out, resume)


def files(out: Path) -> dict[str, bytes]:
    """Everything that two equal trainings have the same of, to the bit."""
    names = ("metrics.jsonl", "result.json", "predictions.npz", FILE)
    return {name: (out / name).read_bytes() for name in names}
