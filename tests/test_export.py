"""Trained networks in other formats, each opened again by its own reader."""

import inspect
import io
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from commands import BRIEF
from retraining import FILE
from test_network_file import small_network
from tutelage.run.networks.files import about, load, save_network
from tutelage.run.trained.card import card
from tutelage.run.trained.export import export
from tutelage.run.trained.opened import open_trained
from tutelage.run.trained.predict import Predictor

READ_BY = [("centre", 1.0, 0.875), ("white", 65_535, 4095)]
"""What says how an image is read: its default, and another value."""
STEPS = {
    "layout": "NCHW",
    "colour": "rgb",
    "height": 16,
    "width": 16,
    "resize": "bilinear, then the centre",
    "centre": 1.0,
    "white": 65_535,
    "scale": 1 / 255,
    "mean": [0.5] * 3,
    "std": [0.2] * 3,
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_onnx_gives_the_modules_logits_for_any_batch(tmp_path):
    pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    small_network(tmp_path / FILE)
    said = export(tmp_path, tmp_path / "network.onnx")
    assert "largest difference of a logit from the module" in said
    session = runtime.InferenceSession(tmp_path / "network.onnx")
    for count in (1, 7):
        x = torch.randn(count, 3, 16, 16)
        (logits,) = session.run(None, {"images": x.numpy()})
        assert torch.allclose(torch.from_numpy(logits), load(tmp_path)(x), atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == list("abcde")
    assert json.loads(metadata["preprocessing"]) == STEPS
    assert json.loads(metadata["tutelage"])["classes"] == list("abcde")


def test_onnx_without_its_extra_is_one_sentence(tmp_path, monkeypatch):
    small_network(tmp_path / FILE)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"ONNX needs an extra: pip install 'tutelage\[onnx\]'"):
        export(tmp_path, tmp_path / "network.onnx")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_a_program_gives_the_modules_logits_for_any_batch(tmp_path):
    small_network(tmp_path / FILE)
    export(tmp_path, tmp_path / "network.pt2")
    extra = {"classes": "", "preprocessing": ""}
    content = io.BytesIO((tmp_path / "network.pt2").read_bytes())
    program = torch.export.load(content, extra_files=extra).module()
    for count in (1, 7):
        x = torch.randn(count, 3, 16, 16)
        assert torch.allclose(program(x), load(tmp_path)(x), atol=1e-5)
    assert json.loads(extra["classes"]) == list("abcde")
    assert json.loads(extra["preprocessing"]) == STEPS


def test_a_folder_is_loaded_as_the_run_is(retrained, tmp_path):
    said = export(retrained, tmp_path / "digits")
    assert said.endswith("largest difference of a logit from the module 0.0e+00")
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(load(tmp_path / "digits")(x), load(retrained)(x))
    assert about(tmp_path / "digits") == about(retrained)
    theirs, ours = load_file(retrained / FILE), load_file(tmp_path / "digits" / FILE)
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[k], ours[k]) for k in ours)
    names = sorted(path.name for path in (tmp_path / "digits").iterdir())
    assert names == ["README.md", "genotype.json", FILE, "result.json"]


def test_the_card_says_what_the_network_is(retrained, tmp_path):
    export(retrained, tmp_path / "digits")
    text = (tmp_path / "digits" / "README.md").read_text(encoding="utf-8")
    result = json.loads((retrained / "result.json").read_text(encoding="utf-8"))
    _, head, body = text.split("---\n", 2)
    values = {k: json.loads(v) for k, v in (line.split(": ", 1) for line in head.splitlines())}
    (metric,) = values["model-index"][0]["results"][0]["metrics"]
    assert metric["value"] == pytest.approx(100 * result["test_accuracy"], abs=0.005)
    assert values["pipeline_tag"] == "image-classification"
    assert f"{100 * result['test_accuracy']:.2f} % of 599 test images of digits" in body
    assert "- epochs: 2" in body and "- batch_size: 32" in body and "- mean: [" in body
    assert about(retrained).genotype.as_text() in body
    assert body.count("\n| ") == 11  # a head, ten classes
    assert str(tmp_path) not in text and "device" not in body


def test_a_card_names_no_place(retrained, tmp_path):
    """A folder of images is named without the way to it."""
    run = tmp_path / "run"
    export(retrained, run)
    settings = (retrained / "run.toml").read_text(encoding="utf-8")
    secret = settings.replace('name = "digits"', 'name = "/home/someone/birds"\nroot = "/secret"')
    (run / "run.toml").write_text(secret, encoding="utf-8")
    text = card(open_trained(run), "birds", None)
    assert "- name: birds" in text and "/home" not in text and "secret" not in text
    assert "## Accuracy" not in text


def test_what_cannot_be_exported_is_one_sentence(retrained, tmp_path):
    with pytest.raises(ValueError, match=r"--out .*network.h5: must end in .onnx or .pt2, or be"):
        export(retrained, tmp_path / "network.h5")
    with pytest.raises(ValueError, match="holds a run: give another folder"):
        export(retrained, retrained)
    with pytest.raises(ValueError, match="nowhere does not exist"):
        export(tmp_path / "nowhere", tmp_path / "out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ValueError, match=r"has a README.md of its own: give another folder"):
        export(retrained, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


@pytest.mark.parametrize(("name", "default", "other"), READ_BY)
def test_what_an_older_file_lacks_is_that_of_its_run(retrained, tmp_path, name, default, other):
    details, network = about(retrained), load(retrained)
    assert getattr(details, name) == default
    save_network(tmp_path / FILE, network, replace(details, **{name: None}))
    assert getattr(about(tmp_path), name) is None
    assert getattr(open_trained(tmp_path).details, name) == default
    settings = (retrained / "run.toml").read_text(encoding="utf-8")
    assert f"{name} = {default}\n" in settings
    changed = settings.replace(f"{name} = {default}\n", f"{name} = {other}\n")
    (tmp_path / "run.toml").write_text(changed)
    assert getattr(open_trained(tmp_path).details, name) == other
    export(tmp_path, tmp_path / "passed-on")  # a folder without the settings
    assert getattr(about(tmp_path / "passed-on"), name) == other


@pytest.mark.parametrize(("name", "wrong"), [("centre", 0.0), ("white", 0), ("white", 70_000)])
def test_a_file_that_says_the_impossible_of_its_images_is_named(retrained, tmp_path, name, wrong):
    details = replace(about(retrained), **{name: wrong})
    save_network(tmp_path / FILE, load(retrained), details)
    with pytest.raises(ValueError, match=rf"{FILE} has unusable metadata: {name} = {wrong}"):
        about(tmp_path)


class FakeHub(SimpleNamespace):
    """What is asked of huggingface_hub: a file of a repository, at a revision."""

    def __init__(self, folder):
        super().__init__(folder=folder, asked=[])

    def hf_hub_download(self, repo_id, filename, *, revision=None):
        self.asked.append((repo_id, filename, revision))
        if repo_id != "me/digits":
            raise OSError("401 Client Error.\nRepository Not Found")
        return str(self.folder / filename)


def test_a_network_from_the_hub(retrained, tmp_path, monkeypatch):
    """The hub's client is not asked for real; its signature is that of huggingface_hub 2.4."""
    export(retrained, tmp_path / "digits")
    hub = FakeHub(tmp_path / "digits")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(load("hf-hub:me/digits")(x), load(retrained)(x))
    assert Predictor("hf-hub:me/digits@v1").trained.details == about(retrained)
    assert hub.asked[0] == ("me/digits", FILE, None)
    assert hub.asked[-1] == ("me/digits", FILE, "v1")
    with pytest.raises(ValueError, match="hf-hub:me/other: the hub does not give its network"):
        load("hf-hub:me/other")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"needs an extra: pip install 'tutelage\[hub\]'"):
        load("hf-hub:me/digits")


def test_a_network_in_the_cache_of_the_hubs_client(retrained, tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub", reason="the extra `hub` is not installed")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    cached, revision = tmp_path / "models--me--digits", 40 * "a"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(revision)
    (cached / "snapshots").mkdir()
    export(retrained, cached / "snapshots" / revision)
    x = torch.randn(2, 1, 8, 8)
    for name in ("hf-hub:me/digits", "hf-hub:me/digits@main", f"hf-hub:me/digits@{revision}"):
        assert torch.equal(load(name)(x), load(retrained)(x))
    with pytest.raises(ValueError, match="hf-hub:me/other: the hub does not give its network"):
        load("hf-hub:me/other")


def test_the_hubs_client_takes_what_it_is_asked():
    hub = pytest.importorskip("huggingface_hub", reason="the extra `hub` is not installed")
    inspect.signature(hub.hf_hub_download).bind("me/digits", FILE, revision=None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_the_verb_exports_what_a_run_retrained(run, tutelage, refused):
    refused("export nowhere --out x.pt2", "nowhere does not exist")
    refused("export run --out x.pt2", r"run has no network\.safetensors: make it with")
    assert tutelage(f"retrain run {BRIEF}")[0] == 0
    code, said, _ = tutelage("export run --out network.pt2")
    assert code == 0 and "network.pt2: largest difference of a logit" in said
    x = torch.rand(3, 1, 8, 8)
    logits = torch.export.load("network.pt2").module()(x)
    assert torch.allclose(logits, load(run)(x), atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's own
@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["nasbench201", "chain"])
def test_networks_of_other_spaces_are_exported(name, tmp_path):
    from test_headed import NAMES, network_of
    from tutelage.run.networks.files import About
    from tutelage.spaces.base import Size
    from tutelage.spaces.published import resolve

    text = dict(zip(("cells", "nasbench201", "chain"), NAMES, strict=True))[name]
    network = network_of(text)
    size = Size(8, 8 if name == "chain" else 3, 5)
    details = About(resolve(text), size, tuple("abcde"), (0.5,) * 3, (0.2,) * 3, (3, 16, 16))
    save_network(tmp_path / FILE, network, details)
    export(tmp_path, tmp_path / "network.pt2")
    program = torch.export.load(tmp_path / "network.pt2").module()
    x = torch.randn(4, 3, 16, 16)
    assert torch.allclose(program(x), load(tmp_path)(x), atol=1e-5)
