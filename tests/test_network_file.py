"""The file of a trained network, and its export as ONNX."""

import json
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load as from_bytes
from safetensors.torch import save_file

from commands import BRIEF
from retraining import FILE, GENOTYPE
from tutelage.run.networks.export import export_onnx
from tutelage.run.networks.files import About, about, build, load, save_network
from tutelage.spaces.base import Size


def small_network(path):
    details = About(GENOTYPE, Size(4, 3, 5, 3), tuple("abcde"), (0.5,) * 3, (0.2,) * 3, (3, 16, 16))
    torch.manual_seed(0)
    built = build(details.genotype, details.size, auxiliary=True)
    for statistic in built.buffers():
        if statistic.is_floating_point():
            statistic += torch.rand_like(statistic)
    save_network(path, built, details)
    return built, details


def test_a_saved_network_comes_back(tmp_path):
    built, details = small_network(tmp_path / FILE)
    x = torch.randn(4, 3, 16, 16)
    for where in (tmp_path, tmp_path / FILE, str(tmp_path)):
        assert torch.equal(load(where)(x), built.eval()(x))
    assert about(tmp_path) == details
    (tmp_path / "retrain").mkdir()
    (tmp_path / FILE).rename(tmp_path / "retrain" / FILE)
    assert about(tmp_path) == details


def test_files_that_are_no_network_are_one_sentence(tmp_path):
    file = tmp_path / FILE
    with pytest.raises(ValueError, match=f"has no {FILE}: make it with `tutelage retrain`"):
        load(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        load(tmp_path / "nothing")
    small_network(file)
    with safe_open(file, "pt") as stored:
        values = json.loads(stored.metadata()["tutelage"])
    content = file.read_bytes()
    tensors = from_bytes(content)  # load_file's would die with the file that they map
    for cut in (0, 3, 100, len(content) // 2):
        file.write_bytes(content[:cut])
        with pytest.raises(ValueError, match="is truncated or no safetensors file"):
            load(file)
    for change, message in (
        ({"version": 9}, "version 9 is newer than this release's 1"),
        ({"size": {}, "shape": [1, 2]}, "has unusable metadata"),
        ({"genotype": {}}, "has unusable metadata: not a genotype"),
        ({"size": {"cells": 3, "colour": 1}}, "has unusable metadata"),
        ({"size": {"channels": 8, "cells": 3}}, "weights do not fit its own genotype"),
    ):
        save_file(tensors, file, {"tutelage": json.dumps(values | change)})
        with pytest.raises(ValueError, match=message) as caught:
            load(file)
        assert "\n" not in str(caught.value)
    save_file(tensors, file, {"tutelage": "{"})
    with pytest.raises(ValueError, match="has unusable metadata"):
        load(file)
    save_file(tensors, file)
    with pytest.raises(ValueError, match="holds no network of this package"):
        load(file)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_onnx_gives_the_module_s_logits_for_any_batch(tmp_path, capsys):
    pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    small_network(tmp_path / FILE)
    difference = export_onnx(tmp_path, tmp_path / "network.onnx")
    assert difference < 1e-5
    assert "largest difference of a logit from the module" in capsys.readouterr().out
    session = runtime.InferenceSession(tmp_path / "network.onnx")
    x = torch.randn(7, 3, 16, 16)
    (logits,) = session.run(None, {"images": x.numpy()})
    assert torch.allclose(torch.from_numpy(logits), load(tmp_path)(x), atol=1e-5)
    details = json.loads(session.get_modelmeta().custom_metadata_map["tutelage"])
    assert details["classes"] == list("abcde")


def test_onnx_without_its_extra_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"ONNX needs an extra: pip install 'tutelage\[onnx\]'"):
        export_onnx(tmp_path, tmp_path / "network.onnx")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_the_verb_exports_what_a_run_retrained(run, tutelage, refused):
    pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    refused("export nowhere --out x.onnx", "nowhere does not exist")
    refused("export run --out x.onnx", r"run has no network\.safetensors: make it with")
    assert tutelage(f"retrain run {BRIEF}")[0] == 0
    assert tutelage("export run --out network.onnx")[0] == 0
    x = torch.rand(3, 1, 8, 8)
    (logits,) = runtime.InferenceSession("network.onnx").run(None, {"images": x.numpy()})
    assert torch.allclose(torch.from_numpy(logits), load(run)(x), atol=1e-5)
