"""Train a genotype's network and measure it on the test set, once, at the end.

The networks of an ensemble are trained separately, and their mean probabilities are measured once.

The recipe is by default that of DARTS' evaluation (Liu, Simonyan & Yang, ICLR 2019, section 3.2):
SGD with momentum, a cosine to 0 over the epochs, cutout, an auxiliary head, and paths that are
dropped with a probability that grows linearly from 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from tutelage import ranks
from tutelage.config import Data, Retrain, once_balanced
from tutelage.data.augment import Augmentation, augmentation
from tutelage.data.batches import Stream, held
from tutelage.data.given import Given, taken, using
from tutelage.data.images import Labelled
from tutelage.data.randaugment import RandAugment
from tutelage.data.read import check_test_part, read
from tutelage.data.splits import larger
from tutelage.files import write_bytes
from tutelage.records.predictions import FILE as PREDICTIONS
from tutelage.records.results import Result
from tutelage.run.conditions import conditions
from tutelage.run.inputs import Comparison
from tutelage.run.job import checkpoint, loop
from tutelage.run.job.agreement import same_images
from tutelage.run.job.directory import RunDirectory
from tutelage.run.job.opened import opened, resumes
from tutelage.run.job.settings import plain
from tutelage.run.machine import threads
from tutelage.run.machine.device import arithmetic, device_named
from tutelage.run.networks import ensemble
from tutelage.run.networks.ensemble import Ensemble
from tutelage.run.networks.files import (
    FILE,
    About,
    about,
    build,
    load,
    member,
    read_by,
    save_network,
    space_of,
)
from tutelage.run.step.recorders import chosen
from tutelage.run.trained.begin import begun, fitted
from tutelage.run.trained.measure import kept, measured
from tutelage.run.trained.testing import names_of
from tutelage.run.training.training import Training
from tutelage.run.training.validation import divided
from tutelage.spaces.base import Size
from tutelage.spaces.genotype import Genotype
from tutelage.trackers import available
from tutelage.trackers.follow import following

RESULT: Final = "result.json"
MEASURED: Final = ("data", "epochs", "seed", "params", "flops", "test_error")
"""Entries that the result of every finished retraining has."""


def retrain(
    genotype: Genotype,
    data: Data | Given | Any,
    settings: Retrain,
    out: Path | str,
    resume: bool = False,
    accept_changed_data: bool = False,
) -> dict[str, Any]:
    """Train, test, and write network.safetensors, predictions.npz and result.json.

    Args:
        genotype: the architecture.
        data: the images, as `Data`, or held by the program as in `search`; all training images
            that are not held out or measured are used, and the cutout comes from `settings`.
        settings: the recipe.
        out: the directory to write.
        resume: continue in `out` where an earlier call was stopped.
        accept_changed_data: continue also if images have changed, and record that.

    Returns:
        The content of result.json; errors and accuracies are fractions of the test set.

    Raises:
        ValueError: a changed setting, changed or unusable data, or a loss that is not finite.
        StoppedError: SIGINT, SIGTERM or SIGHUP came; everything is saved.
    """
    chosen_data, given = taken(data)
    with conditions(settings, repeatable=False), using(given):
        return _retrained(genotype, chosen_data, settings, Path(out), resume, accept_changed_data)


def _retrained(
    genotype: Genotype, data: Data, settings: Retrain, out: Path, resume: bool, accept: bool
) -> dict[str, Any]:
    available(settings.log)
    device = device_named(settings.device)
    text, resume = json.dumps(genotype.to_dict()), resumes(out, resume)
    data, settings = fitted(data, settings, out)
    settings = _sized(settings, genotype)
    if ranks.first((out / RESULT).exists):
        return _finished(out, text, data, settings)
    if not resume:
        _check(settings, genotype)
    data, settings, train, compared = _ready(text, data, settings, out, resume, accept)
    same_images(train.images)
    how = _varied(augmentation(train, data), settings)
    train = held(train, how, device)
    subset, validation = divided(train, data, settings.validate)
    if validation.data is not train:
        compared.add("validation", validation.data)
    if settings.batch_size > len(subset):
        print(larger(settings.batch_size, len(subset), "training images"), flush=True)
    stream = Stream(
        data=train,
        subset=subset,
        batch_size=settings.batch_size,
        seed=settings.seed,
        name="retrain",
        augmentation=how,
        device=device,
        balanced=data.balanced,
    )
    start = None if checkpoint.exists(out) else begun(genotype, settings, train)
    given = _given(text, data, settings)
    with _written(out, given, resume, settings, device) as directory:
        compared.save(directory)
        directory.write_text("genotype.json", genotype.to_json())
        training = Training(genotype, stream, settings, start=start, validation=validation)
        count = threads.elements(settings.batch_size, training.size, train.images.shape)
        threads.settle(count if device.type == "cpu" else None, out if resume else None)
        loop.run(
            training,
            directory,
            log_every=settings.log_every,
            save_every=settings.save_every,
            title=f"retrain {out}",
            resume_with="the same command",
            gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
            graph=chosen(settings.graph, device),
            notices=training.programs.notices,
        )
        result = replace(training.result(), **test(training, data, directory.path))
        directory.save_session()
        directory.write_json(RESULT, result.as_file())
    return result.as_dict()


def _ready(
    genotype: str | list[str], data: Data, settings: Retrain, out: Path, resume: bool, accept: bool
) -> tuple[Data, Retrain, Labelled, Comparison]:
    """Read the training images, and compare them with those that the training began with.

    Returns:
        Data and settings with the cutout that they lacked, the images, and the comparison.

    Raises:
        ValueError: unequal classes are corrected twice, or images have changed or are unusable.
    """
    if resume:
        data, settings = _begun(out, genotype, data, settings)
    once_balanced(data, settings.class_weights)
    train = read(data, "train")
    compared = Comparison(out, resume=resume, accept=accept)
    compared.add("train", train)
    check_test_part(data)
    return *_cut(data, settings, default_cutout(train)), train, compared


@contextmanager
def _written(
    out: Path, given: dict[str, Any], resume: bool, settings: Retrain, device: torch.device
) -> Iterator[RunDirectory]:
    """Open the directory, follow it by trackers, and keep the caller's random numbers."""
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        opened(out, given, resume=resume) as directory,
        following(out, settings.log if directory.writes else ()),
    ):
        yield directory


def retrain_ensemble(
    together: Ensemble,
    data: Data | Given | Any,
    settings: Retrain,
    out: Path | str,
    resume: bool = False,
    accept_changed_data: bool = False,
) -> dict[str, Any]:
    """Train every member separately, in its own folder, and test their mean probabilities once.

    Args:
        together: the ensemble.
        data: as in `retrain`.
        settings: the recipe of every member; its seed is for the first, each next seed is 1 higher.
        out: the directory to write; the members' are `member-0`, `member-1`, ... in it.
        resume: continue in `out` where an earlier call was stopped.
        accept_changed_data: continue also if images have changed, and record that.

    Returns:
        The content of result.json: `test_error` and similar are the ensemble's, `params` and
        `flops` are sums, `ensemble` lists the members' own test errors.

    Raises:
        ValueError: as `retrain`.
        StoppedError: as `retrain`.
    """
    chosen_data, given = taken(data)
    with conditions(settings, repeatable=False), using(given):
        return _ensemble_retrained(
            together, chosen_data, settings, Path(out), resume, accept_changed_data
        )


def _ensemble_retrained(
    together: Ensemble, data: Data, settings: Retrain, out: Path, resume: bool, accept: bool
) -> dict[str, Any]:
    available(settings.log)
    device = device_named(settings.device)
    if settings.start:
        raise ValueError(
            f"--from {settings.start}: an ensemble's networks begin with random weights; train one "
            "of them, by its genotype"
        )
    settings = _sized(settings, together.genotypes[0])
    texts = [json.dumps(genotype.to_dict()) for genotype in together.genotypes]
    resume = resumes(out, resume)
    if ranks.first((out / RESULT).exists):
        return _finished(out, texts, data, settings)
    if not resume:
        _check(settings, *together.genotypes)
    data, settings, _, compared = _ready(texts, data, settings, out, resume, accept)
    given = _given(texts, data, settings)
    with _written(out, given, resume, settings, device) as directory:
        compared.save(directory)
        directory.write_text(ensemble.FILE, together.to_json())
        directory.write_text("genotype.json", together.genotypes[0].to_json())
        results = []
        for place, genotype in enumerate(together.genotypes):
            own, folder = replace(settings, seed=settings.seed + place), out / member(place)
            resumed = ranks.first((folder / "run.toml").exists)
            results.append(retrain(genotype, data, own, folder, resumed, accept))
        result = _together(results, data, settings, out, device)
        directory.write_json(RESULT, result.as_file())
    return result.as_dict()


def _together(
    results: Sequence[Mapping[str, Any]],
    data: Data,
    settings: Retrain,
    out: Path,
    device: torch.device,
) -> Result:
    """Test the networks in `out` together; return the ensemble's entries of result.json."""
    details = about(out / member(0))
    with threads.restored(settings.threads), arithmetic(settings.precision):
        tested = test_images(data, details)
        elements = threads.elements(settings.batch_size, details.size, details.shape)
        threads.settle(elements if device.type == "cpu" else None, out / member(0))
        found = measured(load(out, device), tested, settings.batch_size, device)
        if ranks.rank() == 0:
            write_bytes(out / PREDICTIONS, kept(found, tested, names_of(data)).to_bytes())
    same = {name: results[0][name] for name in ("data", "epochs", "seed")}
    sums = {name: sum(each[name] for each in results) for name in ("params", "flops")}
    errors = [each["test_error"] for each in results]
    result = Result(**same, **sums, **found.entries(), ensemble=errors)
    print(described(result.as_dict()))
    return result


def _sized(settings: Retrain, genotype: Genotype) -> Retrain:
    """Set a missing size to the space's default."""
    sizes = space_of(genotype).sizes
    return replace(
        settings,
        channels=settings.channels or sizes.final_channels,
        cells=settings.cells or sizes.final_cells,
        auxiliary=sizes.auxiliary if settings.auxiliary is None else settings.auxiliary,
    )


def _check(settings: Retrain, *genotypes: Genotype) -> None:
    """Refuse what cannot be built, before a directory is made."""
    size = Size(settings.channels or 1, settings.cells or 1, stem=settings.stem)
    with torch.device("meta"):
        for genotype in genotypes:
            build(genotype, size, auxiliary=bool(settings.auxiliary))


def _cut(data: Data, settings: Retrain, default: int) -> tuple[Data, Retrain]:
    """Set a missing cutout to the default, and use the settings' cutout in the data."""
    cutout = default if settings.cutout is None else settings.cutout
    return replace(data, cutout=cutout), replace(settings, cutout=cutout)


def _begun(
    out: Path, genotype: str | list[str], data: Data, settings: Retrain
) -> tuple[Data, Retrain]:
    """Set a missing cutout to that of a training that has begun; refuse other settings."""
    directory = RunDirectory.open(out)
    stored = directory.settings().get("retrain", {}).get("cutout")
    cutout = stored if type(stored) is int else settings.cutout or 0  # compared just below
    data, settings = _cut(data, settings, cutout)
    directory.refuse_changes(_given(genotype, data, settings))
    return data, settings


def _varied(own: Augmentation, settings: Retrain) -> Augmentation:
    """Add the augmentation that only a retraining has."""
    operations = RandAugment(
        operations=settings.randaugment,
        magnitude=settings.randaugment_magnitude,
        std=settings.randaugment_std,
        probability=settings.randaugment_probability,
    )
    return replace(own, randaugment=operations, erasing=settings.erasing)


def default_cutout(data: Labelled) -> int:
    """Return DARTS' 16 pixels, half of CIFAR's side; for smaller images half their side."""
    return min(16, *(side // 2 for side in data.images.shape[1:]))


def _given(genotype: str | list[str], data: Data, settings: Retrain) -> dict[str, Any]:
    """Make the content of run.toml; for an ensemble with the genotypes of its members."""
    return {"genotype": genotype, "data": plain(data), "retrain": plain(settings)}


def _finished(
    out: Path, genotype: str | list[str], data: Data, settings: Retrain
) -> dict[str, Any]:
    _begun(out, genotype, data, settings)
    try:
        result = Result.read(RunDirectory.open(out).read_json(RESULT)).as_dict()
        if missing := [name for name in MEASURED if name not in result]:
            raise ValueError(f"it lacks {', '.join(missing)}")
        print(f"{out} is finished: {described(result)}")
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{out / RESULT} cannot be read: {error}; without it the same command measures the "
            "network again"
        ) from error
    return result


def test(training: Training, data: Data, out: Path) -> dict[str, Any]:
    """Read the test set, measure the network on it, and write the network and its predictions.

    Raises:
        ValueError: the test set's classes or shape are not those of the training set.
    """
    stream, details = training.stream, replace(training.about(), **read_by(data))
    tested = test_images(data, details)
    found = measured(training.tested, tested, stream.batch_size, stream.device)

    def write() -> None:
        save_network(out / FILE, training.tested, details)
        write_bytes(out / PREDICTIONS, kept(found, tested, names_of(data)).to_bytes())

    ranks.first(write)  # the ranks of an ensemble read all its networks
    print(described(found.entries()))
    return found.entries()


def test_images(data: Data, details: About) -> Labelled:
    """Read the test set, normalised like the images that a network was trained on.

    Raises:
        ValueError: its classes or shape are not those of the training set.
    """
    tested = read(data, "test")
    for what, here, there in (
        ("classes", tested.classes, details.classes),
        ("shape", tested.images.shape, details.shape),
    ):
        if here != there:
            raise ValueError(f"the test images have {what} {here}, the training images {there}")
    return replace(tested, mean=details.mean, std=details.std)


def described(result: Mapping[str, Any]) -> str:
    """Describe the test error of a network or an ensemble."""
    of = f" of the ensemble of {len(result['ensemble'])} networks" if "ensemble" in result else ""
    return f"test error{of} {100 * result['test_error']:.2f} % on {result['test_images']:,} images"
