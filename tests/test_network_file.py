"""The file of a trained network."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load as from_bytes
from safetensors.torch import save_file

from retraining import FILE, GENOTYPE
from tutelage.run.networks.files import About, about, build, load, save_network
from tutelage.spaces.base import Size


def small_network(path, genotype=GENOTYPE):
    details = About(genotype, Size(4, 3, 5, 3), tuple("abcde"), (0.5,) * 3, (0.2,) * 3, (3, 16, 16))
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
