"""A retraining on several processes is the one on one process, whatever network and images."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import torch

from faulty import together
from launched import computing
from launched import together as joined
from photographs import make_photographs
from retraining import DIGITS
from tutelage import shares
from tutelage.config import Retrain
from tutelage.data.augment import augmentation
from tutelage.data.batches import Stream
from tutelage.data.read import read
from tutelage.records.predictions import Predictions
from tutelage.run.training.training import Training
from tutelage.spaces.published import resolve

SMALL = (
    "--channels 4 --cells 1 --batch-size 8 --epochs 1 --limit-batches 1 --auxiliary 0 --cutout 2 "
    "--threads 1 --device cpu --out"
)


def test_images_on_disk_are_tested_on_two_processes(tmp_path):
    """The pictures in predictions.npz are read by the process that writes them, alone."""
    data = f"--data {make_photographs(tmp_path / 'photographs')} --data.resolution 8"
    line = f"retrain DARTS_V2 {data} --data.memory stream {SMALL} {tmp_path / 'out'}"
    ends = together(tmp_path / "said", 2, line, PATIENCE="20")  # seconds
    assert [end.status for end in ends] == [0, 0], ends
    found = Predictions.read(tmp_path / "out" / "predictions.npz")
    assert (
        len(found.labels) == 16 and len(found.pictures) == (found.predicted != found.labels).sum()
    )


# Steps in float64 ---------------------------------------------------------------------------------

STEPS = Retrain(
    epochs=6, batch_size=6, channels=2, cells=1, auxiliary=0.0, drop_path=0.3, ema=0.9, lr=0.1
)
ROUNDING = 1e-11
"""The largest difference of several ranks from one, against a tensor's largest value or 1e-3."""


def trained(cases):
    """Take three steps of every case, compare the ranks, and return all that they change."""
    return {name: _trained(*case) for name, case in cases.items()}


def _trained(name, settings):
    torch.manual_seed(0)
    by_batch = settings.statistics == "batch"
    with computing(torch.float64), shares.statistics(together=by_batch):
        data = read(DIGITS, "train")
        stream = Stream(
            data=data,
            subset=torch.arange(len(data.images)),
            batch_size=settings.batch_size,
            seed=0,
            name="retrain",
            augmentation=augmentation(data, replace(DIGITS, cutout=2)),
            device=torch.device("cpu"),
        )
        work = Training(resolve(name), stream, settings)
        for _ in range(3):
            work.advance()
        work.check_state()
        moments = [x for each in work.optimiser.state.values() for x in each.values()]
        state = [*work.network.state_dict().values(), *work.tested.state_dict().values()]
        return [x.detach().clone() for x in (*state, *moments)]


def assert_equal(alone, found):
    """Compare all tensors of all cases."""
    assert alone.keys() == found.keys()
    for name, tensors in alone.items():
        assert len(tensors) == len(found[name]), name
        for x, y in zip(tensors, found[name], strict=True):
            assert float((x - y).abs().max()) <= ROUNDING * max(1e-3, float(x.abs().max())), name


def in_halves(work, x):
    """Let a network see a batch in two halves, and average the running statistics of both."""
    network, logits, found = work.network, [], []
    for half in x.chunk(2):
        own = {name: buffer.clone() for name, buffer in network.named_buffers()}
        logits.append(torch.func.functional_call(network, own, (half,))[0])
        found.append(own)
    for name, buffer in network.named_buffers():
        buffer.copy_(sum(own[name] for own in found) / 2)
    return torch.cat(logits), None


def test_statistics_of_a_rank_are_averaged_in_the_network_that_is_tested():
    cases = {"rank": ("DARTS_V2", replace(STEPS, statistics="rank", drop_path=0.0))}
    first, second = joined(2, trained, cases, seconds=60)
    with patch.object(Training, "_answers", in_halves):
        assert_equal(trained(cases), first)
    assert all(map(torch.equal, first["rank"], second["rank"]))


NONE = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|nor_conv_1x1~0|none~1|none~2|"
"""The first node and the second reach no output; |none~0| alone reaches none at all."""
NOTHING = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


def test_weights_that_no_output_depends_on_stay_on_two_processes():
    rmsprop = replace(STEPS, optimiser="rmsprop", clip=0.1)
    cases = {
        "sgd": (NONE, STEPS),
        "rmsprop": (NONE, rmsprop),
        "nothing": (NOTHING, STEPS),
        "all": ("DARTS_V2", replace(STEPS, auxiliary=0.4, cells=3)),
    }
    first, second = joined(2, trained, cases, seconds=60)
    assert_equal(trained(cases), first)
    for name, tensors in first.items():
        assert all(map(torch.equal, tensors, second[name])), name
