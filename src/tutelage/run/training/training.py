"""The training of a single network, as a state that passes from step to step.

The order of the images, their augmentation and the dropped paths are functions of (seed, epoch,
step), so a training that resumes from a checkpoint equals an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.batch import Batch
from tutelage.clock import Clock
from tutelage.config import Retrain
from tutelage.data.balance import class_weights
from tutelage.data.batches import Stream
from tutelage.data.mixing import Mixing, mix, shared
from tutelage.data.seeding import generator
from tutelage.likeness import refuse_moments, refuse_unlike
from tutelage.ranks import exchanging
from tutelage.records.results import Result
from tutelage.records.rows import TrainingRow
from tutelage.run.cost.count import flops, params
from tutelage.run.job.agreement import same_everywhere
from tutelage.run.networks.files import About, build
from tutelage.run.step.programs import Programs, Step
from tutelage.run.step.recorders import Recorder, recorder_of
from tutelage.run.training.optimizer import Average, optimiser, rate
from tutelage.run.training.parallel import average_statistics, parallel
from tutelage.run.training.validation import Validation
from tutelage.shares import gathered, share
from tutelage.spaces.base import Size
from tutelage.spaces.genotype import Genotype


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context of a forward pass."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@final
class Training:
    """A network in training, and everything that a checkpoint holds.

    Attributes:
        epoch: Epochs done.
        step: Steps done in the epoch.
        steps: Steps of an epoch.
        epochs: Epochs in all.
    """

    def __init__(
        self,
        genotype: Genotype,
        stream: Stream,
        settings: Retrain,
        recorder: Recorder | None = None,
        start: Mapping[str, Tensor] | None = None,
        validation: Validation | None = None,
    ) -> None:
        """Initialise the network.

        Args:
            genotype: Its architecture.
            stream: The images.
            settings: The recipe.
            recorder: Makes a program of the step; None: the one of the settings and the device.
            start: Weights by name that replace random ones; None: all are random.
            validation: What it is measured on after every epoch; None: nothing.

        Raises:
            ValueError: The settings require programs, and the device has none.
        """
        recorder = recorder or recorder_of(settings.graph, stream.device)
        self.programs = Programs(recorder, stream.device, Clock())
        self.settings, self.stream, self.genotype = settings, stream, genotype
        self.validation = validation
        self.auxiliary = cast(float, settings.auxiliary)
        self.size = Size(
            channels=cast(int, settings.channels),  # `retrain` sets what is missing
            cells=cast(int, settings.cells),
            classes=len(stream.data.classes),
            image_channels=stream.data.images.shape[0],
            stem=settings.stem,
        )
        torch.manual_seed(settings.seed)
        network: Any = build(genotype, self.size, auxiliary=self.auxiliary > 0)
        network.load_state_dict(start or {}, strict=False)
        self.network = network.to(stream.device, memory_format=torch.channels_last)
        self.parallel = parallel(self.network, stream.data.images.shape)
        self.network.dropout = settings.dropout
        self._lr, self._drop_path = (torch.zeros((), device=stream.device) for _ in range(2))
        self.network.drop_path = self._drop_path if settings.drop_path else 0.0
        self.optimiser = optimiser(self.network, settings)
        self.optimiser.rates(self._lr)
        self.average = Average(self.network, settings.ema) if settings.ema else None
        self.epoch, self.step, self.epochs = 0, 0, settings.epochs
        self.steps = min(stream.steps, settings.limit_batches or stream.steps)
        self._class_weights = None
        if settings.class_weights != "equal":
            labels = stream.data.images.labels[stream.subset]
            self._class_weights = class_weights(labels, self.size.classes).to(stream.device)
        self._mixing = Mixing(settings.mixup, settings.cutmix)
        self._unchecked: list[Tensor] = []
        self._last_rate = 0.0
        self._begin_epoch()

    @property
    def done(self) -> int:
        """Steps done in all."""
        return self.epoch * self.steps + self.step

    def _begin_epoch(self) -> None:
        # In this epoch so far: sum of losses, correct images, images.
        self._sums = torch.zeros(3, dtype=torch.float64, device=self.stream.device)

    @property
    def tested(self) -> nn.Module:
        """The network that is tested and saved: the trained one, or the average of its weights."""
        return self.network if self.average is None else self.average.network

    def rate(self) -> float:
        """Return the learning rate of the next step."""
        begun = self.step / self.steps if self.settings.anneal == "step" else 0
        return rate(self.settings, self.epoch + begun)

    def drop_path(self) -> float:
        """Return the epoch's probability of dropping a path, which grows linearly from 0."""
        return self.settings.drop_path * self.epoch / self.settings.epochs

    def advance(self) -> None:
        """Take one step of the optimiser; the device may still compute when this returns."""
        settings = self.settings
        # The dropped paths are seeded at every step, so that no checkpoint needs their state.
        seed = generator(settings.seed, "retrain/drop path", self.epoch, self.step).integers(2**63)
        torch.manual_seed(int(seed))
        self.network.train()
        self._last_rate = self.rate()
        self._lr.fill_(self._last_rate)
        self._drop_path.fill_(self.drop_path())
        step = Step("training", "the network", self.work, self._batches(), {}, self.held)
        found = self.programs.run(step)[1]
        if self.average is not None:
            self.average.update(self.network, self.done)
        self._sums += found[2:]
        self._unchecked.append(found[:2])
        self.step += 1

    def _batches(self) -> SimpleNamespace:
        """Return the step's batch as `train`, and, if batches are mixed, its `partner`."""
        batch = self.stream.batch(self.epoch, self.step)
        if not self._mixing:
            return SimpleNamespace(train=batch)
        random = generator(self.settings.seed, "retrain/mixing", self.epoch, self.step)
        mixed, partner = mix(batch, self._mixing, random)
        return SimpleNamespace(train=mixed, partner=partner)

    def work(self, batches: Any, numbers: Mapping[str, Any]) -> tuple[None, Tensor]:
        """Take the step, as a program calls it."""
        mixed = (batches.partner,) if self._mixing else ()
        return None, self.take(batches.train, *mixed)

    def held(self) -> list[Tensor]:
        """List the tensors that a step changes in place."""
        kept = [x for each in self.optimiser.state.values() for x in each.values()]
        return [*self.network.parameters(), *self.network.buffers(), *kept]

    def take(self, batch: Batch, partner: Batch | None = None) -> Tensor:
        """Take the step on a batch: the same operations every time, and no value is read.

        Learning rate and drop-path are tensors, set before. Weights, running statistics and the
        optimiser's buffers change in place.

        Returns:
            Values (5,) in float64: the loss that is minimised and its gradient's norm; then the
            sum of the images' losses, how many are classified correctly, and how many there are.
        """
        x, y, _ = batch
        with autocast(x.device, self.settings.precision):
            logits, auxiliary = self._answers(x)
            loss = self._loss(logits, y, partner)
            total = loss
            if auxiliary is not None:
                total = loss + self.auxiliary * self._loss(auxiliary, y, partner)
        self.optimiser.zero_grad()
        with exchanging():
            total.backward()
        clip = self.settings.clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        self.optimiser.step()
        if self.settings.statistics == "rank":
            average_statistics(self.network)
        correct = (logits.argmax(1) == y).sum()
        found = (total, norm, loss * len(y), correct, torch.full_like(correct, len(y)))
        return torch.stack([x.detach().double() for x in found])

    def _answers(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return logits (B, C) of images, and those of the auxiliary head, if there is one."""
        with share(len(x)) as own, exchanging():
            logits, auxiliary = self.parallel(x if own is None else x[own.rows])
        return gathered(logits, own), None if auxiliary is None else gathered(auxiliary, own)

    def _loss(self, logits: Tensor, y: Tensor, partner: Batch | None = None) -> Tensor:
        def of(labels: Tensor) -> Tensor:
            smoothing = self.settings.label_smoothing
            weights = self._class_weights
            return F.cross_entropy(logits.float(), labels, weights, label_smoothing=smoothing)

        return of(y) if partner is None else shared(of(y), of(partner.y), partner)

    def check(self) -> None:
        """Wait for the device; raise ValueError at the first step whose loss is not finite."""
        values = torch.stack(self._unchecked).cpu()
        first = self.step - len(self._unchecked) + 1
        self._unchecked = []
        for step, (loss, norm) in enumerate(values.tolist(), start=first):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise ValueError(
                    f"the loss is {loss} and its gradient's norm {norm} at epoch {self.epoch}, "
                    f"step {step}, and the step is not saved; a lower lr or precision = 'fp32' "
                    "may help"
                )

    def check_state(self) -> None:
        """Raise ValueError where the state is not finite, so that no checkpoint stores it."""
        held = {
            "a weight": list(self.network.parameters()),
            "a running statistic": list(self.network.buffers()),
            "the optimiser's state": [
                x for each in self.optimiser.state.values() for x in each.values()
            ],
        }
        for what, tensors in held.items():
            if tensors and not torch.stack([x.isfinite().all() for x in tensors]).all():
                raise ValueError(
                    f"{what} is no number at epoch {self.epoch}, step {self.step}, and is not "
                    "saved; a lower lr may help"
                )
        state = self.network.state_dict()
        same_everywhere({"weights": state}, f"at epoch {self.epoch}, step {self.step}")

    def row(self, event: str) -> TrainingRow:
        """Return a row of metrics.jsonl with means over the epoch so far."""
        loss, correct, count = self._sums.tolist()
        return TrainingRow(
            event=event,
            epoch=self.epoch,
            step=self.step,
            train_loss=loss / count,
            train_accuracy=correct / count,
            lr=self._last_rate,
            drop_path=self.drop_path(),
        )

    def fields(self) -> dict[str, str]:
        """Return what progress shows."""
        loss, correct, count = self._sums.tolist()
        return {
            "epoch": f"{self.epoch + 1}/{self.settings.epochs}",
            "step": f"{self.step}/{self.steps}",
            "loss": f"{loss / count:.4f}",
            "accuracy": f"{100 * (correct / count):.2f} %",
        }

    def end_epoch(self) -> TrainingRow:
        """Return the epoch's row of metrics.jsonl, and go to the next epoch."""
        row = replace(self.row("epoch"), **self._validated())
        self.epoch, self.step = self.epoch + 1, 0
        self._begin_epoch()
        return row

    def _validated(self) -> dict[str, Any]:
        """Measure the network that will be tested on the validation images, if there are any."""
        if self.validation is None:
            return {}
        return self.validation.scores(self.tested, self.stream.batch_size, self.stream.device)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "sums": self._sums,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average and self.average.network.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a checkpoint."""
        weights, moments = self.network.state_dict(), state["optimiser"]["state"]
        refuse_unlike(state["sums"], self._sums, "sums")
        refuse_unlike(state["network"], weights, "network")
        self.epoch, self.step = state["epoch"], state["step"]
        moving = self.settings.optimiser != "sgd" or self.settings.momentum > 0
        self.optimiser.resumed = self.done > 0 and moving
        least = int(self.optimiser.resumed)
        refuse_moments(moments, self.optimiser, self.optimiser.kept, least=least)
        self._sums = state["sums"].to(self.stream.device)
        self.network.load_state_dict(state["network"])
        self.programs.drop()
        own = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": own})
        self.optimiser.rates(self._lr)
        if self.average is not None:
            refuse_unlike(state["average"], weights, "average")
            self.average.network.load_state_dict(state["average"])

    def about(self) -> About:
        """Return the description of the network."""
        data = self.stream.data
        return About(self.genotype, self.size, data.classes, data.mean, data.std, data.images.shape)

    def result(self) -> Result:
        """Return the entries of result.json for the network and its training, without a test."""
        with torch.device("meta"):
            network = build(self.genotype, self.size).eval()
        return Result(
            data=self.stream.data.name,
            epochs=self.settings.epochs,
            seed=self.settings.seed,
            params=params(network),
            flops=flops(network, self.stream.data.images.shape),
            genotype=self.genotype.to_dict(),
        )
