"""A folder of a trained network to pass on: its weights, and a model card that describes them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from safetensors.torch import save

from tutelage.classification import by_class, confusion
from tutelage.files import write_bytes
from tutelage.records.predictions import FILE as PREDICTIONS
from tutelage.records.predictions import Predictions
from tutelage.records.results import Result
from tutelage.run.job.directory import RunDirectory
from tutelage.run.networks.files import FILE, find, load, members, read_network, to_metadata
from tutelage.run.trained.opened import Trained
from tutelage.run.trained.preprocessing import preprocessing
from tutelage.run.trained.written import compared, sample
from tutelage.spaces.genotype import Genotype
from tutelage.trusted import modules_of

LISTED: Final = 40
"""Most classes whose scores a card lists."""
PLACES: Final = (
    *("root", "device", "threads", "start", "save_every", "log_every", "download", "memory"),
    *("unlabelled", "unlabelled_sample", "train_fraction", "sample", "graph", "kernels"),
)
"""Settings that a card leaves out: they name places and hardware, or mean nothing here."""


def write_folder(path: Path | str, trained: Trained, out: Path) -> str:
    """Write weights, model card, genotype and result; load the folder and compare its logits.

    Returns:
        A sentence: what was written.

    Raises:
        ValueError: It is an ensemble, or the folder holds a run.
    """
    if folders := members(path):
        raise ValueError(
            f"{path} is an ensemble of {len(folders)} networks: export each, {folders[0]} and so on"
        )
    if (out / "run.toml").exists():
        raise ValueError(f"--out {out} holds a run: give another folder")
    own = (name for name in ("README.md", "genotype.json", "result.json") if (out / name).exists())
    if not (out / FILE).is_file() and (there := next(own, None)):
        raise ValueError(f"--out {out} has a {there} of its own: give another folder")
    out.mkdir(parents=True, exist_ok=True)
    _, weights = read_network(find(path))
    write_bytes(out / FILE, save(weights, to_metadata(trained.details)))
    write_bytes(out / "genotype.json", trained.details.genotype.to_json().encode())
    result = _result(trained.folder)
    if result:
        write_bytes(out / "result.json", json.dumps(result.as_file(), indent=2).encode() + b"\n")
    write_bytes(out / "README.md", card(trained, out.resolve().name, result).encode())
    images = sample(trained)
    found = compared("the folder", b"", load(out)(images), trained.network(images))
    return f"{out}: largest difference of a logit from the module {found.difference:.1e}"


def _result(folder: Path) -> Result | None:
    if not (folder / "result.json").is_file():
        return None
    return Result.read(RunDirectory(folder).read_json("result.json"))


def card(trained: Trained, name: str, result: Result | None) -> str:
    """Write a model card: Markdown after the metadata that the Hugging Face hub reads."""
    parts = [
        _head(name, trained, result),
        f"# {name}\n",
        _what(trained),
        _use(name, trained.details.genotype),
        _list("Preprocessing", preprocessing(trained.details)),
        _accuracy(trained.folder, result),
        *_settings(trained.folder),
        f"## Genotype\n\n```text\n{trained.details.genotype.as_text()}\n```\n",
    ]
    return "\n".join(part for part in parts if part)


def _head(name: str, trained: Trained, result: Result | None) -> str:
    values: dict[str, Any] = {
        "library_name": "tutelage",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "neural-architecture-search"],
    }
    if result and result.test_accuracy is not None:
        accuracy = {"type": "accuracy", "value": round(100 * result.test_accuracy, 2)}
        data = {"name": result.data or "images", "type": result.data or "images"}
        task = {"type": "image-classification"}
        results = [{"task": task, "dataset": data, "metrics": [accuracy]}]
        values |= {"metrics": ["accuracy"], "model-index": [{"name": name, "results": results}]}
    lines = [f"{key}: {json.dumps(value)}" for key, value in values.items()]  # JSON is YAML
    return "\n".join(["---", *lines, "---", ""])


def _what(trained: Trained) -> str:
    details = trained.details
    channels, height, width = details.shape
    colour = "grey" if channels == 1 else "RGB"
    count = sum(weight.numel() for weight in trained.network.parameters())
    names = ", ".join(details.classes)
    return (
        f"A classifier of {colour} images, {width} x {height} pixels, into {len(details.classes)} "
        f"classes. Its architecture is of the space `{details.genotype.space}`; it has {count:,} "
        f"parameters.\n\nClasses, in the order of the logits: {names}.\n"
    )


def _use(name: str, genotype: Genotype) -> str:
    modules = modules_of(genotype.layout.get("operations", {}), genotype.names)
    trust, needed = "", ""
    if modules:
        trust = f"tutelage.trust({', '.join(map(repr, modules))})\n\n"
        needed = (
            f"Its operations are code of {', '.join(modules)}, which is not in this folder: it "
            "must be installed, or lie beside your program, and runs when it is imported.\n"
        )
    return f"""## Use

```python
import tutelage

{trust}for found in tutelage.Predictor("{name}")(["photograph.jpg"], top=3):
    print(found.path, found.classes, found.probabilities)

network = tutelage.load("{name}")  # a torch.nn.Module: normalised images to logits
```

`network.safetensors` holds the weights and, as metadata, all that is needed to build the network.
{needed}"""


def _list(title: str, values: Mapping[str, Any]) -> str:
    lines = [f"- {key}: {value}" for key, value in values.items()]
    return "\n".join([f"## {title}", "", *lines, ""])


def _accuracy(folder: Path, result: Result | None) -> str:
    if result is None or result.test_accuracy is None:
        return ""
    lines = [
        "## Accuracy",
        "",
        f"{100 * result.test_accuracy:.2f} % of {result.test_images:,} test images of "
        f"{result.data}, cross-entropy {result.test_loss:.4f}, measured once, after the last of "
        f"{result.epochs} epochs (seed {result.seed}). Images of another source may give another "
        "accuracy: measure it on your own with `tutelage test`.",
        "",
    ]
    return "\n".join([*lines, *_classes(folder)])


def _classes(folder: Path) -> Iterator[str]:
    """Yield a table of the classes, if it is known and not long."""
    if not (folder / PREDICTIONS).is_file():
        return
    found = Predictions.read(folder / PREDICTIONS)
    if len(found.classes) > LISTED:
        return
    scores = by_class(confusion(found.labels, found.predicted, len(found.classes)))
    yield "| class | images | precision | recall |"
    yield "|---|---|---|---|"
    for place, name in enumerate(found.classes):
        precision, recall = (
            f"{100 * each[place]:.1f} %".replace("nan %", "–")
            for each in (scores.precision, scores.recall)
        )
        yield f"| {name} | {scores.images[place]} | {precision} | {recall} |"
    yield ""


def _settings(folder: Path) -> Iterator[str]:
    """Yield lists of the data's and the training's settings."""
    if not (folder / "run.toml").is_file():
        return
    settings = RunDirectory.open(folder).settings()
    for title, table in (("Data", "data"), ("Training", "retrain")):
        values = {key: x for key, x in settings.get(table, {}).items() if key not in PLACES}
        if settings.get(table, {}).get("start"):
            values["start"] = "the weights of an earlier network"
        if "name" in values:  # of a folder its path, which says where it lies
            values["name"] = Path(str(values["name"])).name
        yield _list(title, values)
