"""Train a genotype's network from scratch and measure it on the test set, once, at the end.

The recipe is that of DARTS' evaluation (Liu, Simonyan & Yang, ICLR 2019, section 3.2): SGD with
momentum, a cosine to 0 over the epochs, cutout, an auxiliary head, and paths that are dropped with
a probability that grows linearly from 0.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import nn

from tutelage.config import Data, Retrain
from tutelage.data.augment import augmentation
from tutelage.data.batches import Stream, in_order
from tutelage.data.images import Labelled
from tutelage.data.read import read
from tutelage.run import loop
from tutelage.run.directory import RunDirectory, plain
from tutelage.run.network import FILE, save_network, space_of
from tutelage.run.training import Training, device_named
from tutelage.spaces.genotype import Genotype

RESULT: Final = "result.json"


def retrain(
    genotype: Genotype, data: Data, settings: Retrain, out: Path, resume: bool = False
) -> dict[str, Any]:
    """Train, test, and write network.safetensors and result.json.

    Args:
        genotype: the architecture.
        data: the images; its training part is used whole, its cutout is the settings'.
        settings: the recipe.
        out: the directory to write.
        resume: go on in `out` where an earlier call was stopped.

    Returns:
        What result.json holds; errors and accuracies are fractions of the test set.

    Raises:
        ValueError: a changed setting, unusable data, or a loss that is no number.
        StoppedError: SIGINT or SIGTERM came; everything is saved.
    """
    device = device_named(settings.device)
    sizes = space_of(genotype).sizes
    settings = replace(
        settings,
        channels=settings.channels or sizes.final_channels,
        cells=settings.cells or sizes.final_cells,
        auxiliary=sizes.auxiliary if settings.auxiliary is None else settings.auxiliary,
    )
    if (out / RESULT).exists():
        return _finished(out, genotype, data, settings)
    train = read(data, "train")
    cutout = default_cutout(train) if settings.cutout is None else settings.cutout
    data, settings = replace(data, cutout=cutout), replace(settings, cutout=cutout)
    given = _given(genotype, data, settings)
    stream = Stream(
        data=train,
        subset=torch.arange(len(train.images)),
        batch_size=settings.batch_size,
        seed=settings.seed,
        name="retrain",
        augmentation=augmentation(train, data),
        device=device,
    )
    begin = RunDirectory.resume if resume else RunDirectory.create
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), begin(out, given) as directory:
        directory.write_text("genotype.json", genotype.to_json())
        training = Training(genotype, stream, settings)
        loop.run(
            training,
            directory,
            log_every=settings.log_every,
            save_every=settings.save_every,
            title=f"retrain {out}",
            go_on="the same command",
            gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        )
        result = training.result() | test(training, data, directory.path)
        directory.save_session()
        directory.write_json(RESULT, result)
    return result


def default_cutout(data: Labelled) -> int:
    """Return DARTS' 16 pixels, which are half of CIFAR's side; half the side of smaller images."""
    return min(16, *(side // 2 for side in data.images.shape[1:]))


def _given(genotype: Genotype, data: Data, settings: Retrain) -> dict[str, Any]:
    return {
        "genotype": json.dumps(genotype.to_dict()),
        "data": plain(data),
        "retrain": plain(settings),
    }


def _finished(out: Path, genotype: Genotype, data: Data, settings: Retrain) -> dict[str, Any]:
    directory = RunDirectory.open(out)
    cutout = settings.cutout
    if cutout is None:
        cutout = directory.settings()["retrain"]["cutout"]
    data, settings = replace(data, cutout=cutout), replace(settings, cutout=cutout)
    directory.refuse_changes(_given(genotype, data, settings))
    result = directory.read_json(RESULT)
    print(f"{out} is finished: test error {100 * result['test_error']:.2f} %")
    return result


def test(training: Training, data: Data, out: Path) -> dict[str, Any]:
    """Read the test set, measure the network on it, and write the network.

    Raises:
        ValueError: the test set's classes or shape are not those of the training set.
    """
    tested, trained = read(data, "test"), training.stream.data
    for what, here, there in (
        ("classes", tested.classes, trained.classes),
        ("shape", tested.images.shape, trained.images.shape),
    ):
        if here != there:
            raise ValueError(f"the test images have {what} {here}, the training images {there}")
    loss, accuracy = evaluate(training.network, tested, training.stream)
    save_network(out / FILE, training.network, training.about())
    print(f"test error {100 * (1 - accuracy):.2f} % on {len(tested.images):,} images")
    return {
        "test_error": 1 - accuracy,
        "test_accuracy": accuracy,
        "test_loss": loss,
        "test_images": len(tested.images),
    }


@torch.no_grad()
def evaluate(network: nn.Module, data: Labelled, stream: Stream) -> tuple[float, float]:
    """Return the mean loss and the accuracy, in fp32, of images normalised as in training."""
    data = replace(data, mean=stream.data.mean, std=stream.data.std)
    network.eval()
    loss, correct = 0.0, 0
    every = torch.arange(len(data.images))
    for x, y, _ in in_order(data, every, stream.batch_size, stream.device):
        logits = network(x)
        loss += F.cross_entropy(logits, y, reduction="sum").item()
        correct += int((logits.argmax(1) == y).sum())
    return loss / len(every), correct / len(every)
