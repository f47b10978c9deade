"""The command line on searches that sample paths of chains, from a dry run to a network."""

from __future__ import annotations

import json
import re
import shutil
import tomllib

import numpy as np
import pytest
import torch

from commands import BRIEF, content
from tutelage import cli
from tutelage.run.networks.files import load
from tutelage.spaces.genotype import Genotype

MACRO = "--space nasbench-macro"
PARTS = f"--method ennas --students 2 --search diverse-paths {MACRO}"
LAYOUT = "--widths 4 6 --depths 2 1 --strides 2 1 --last 8 --squeeze 0.5 --activation swish"
SMALL = "--stem-channels 4 --data digits --batch-size 16 --device cpu"
EVOLUTION = (
    "--evolution.population 3 --evolution.generations 2 --evolution.parents 2 "
    "--evolution.images 40 --evolution.judged 40"
)
SEARCH = f"search {PARTS} {LAYOUT} {SMALL} {EVOLUTION} --epochs 1 --limit-batches 2"


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A finished search; not to be written to."""
    path = tmp_path_factory.mktemp("sampled") / "run"
    with pytest.raises(SystemExit) as end:
        cli.main([*SEARCH.split(), "--out", str(path)])
    assert not end.value.code
    return path


@pytest.fixture
def run(searched, here):
    return shutil.copytree(searched, here / "run")


def test_flags_lay_the_chain_out(searched):
    space = tomllib.loads((searched / "run.toml").read_text())["space"]
    changed = {"widths": [4, 6], "depths": [2, 1], "strides": [2, 1], "last": 8, "stem_channels": 4}
    changed |= {"squeeze": 0.5, "activation": "swish", "first": 0, "affine": True}
    changed |= {"pooled_stem": False}
    kinds = ["identity", "mbconv3_3x3", "mbconv6_5x5"]
    assert space == {"name": "nasbench-macro", "candidates": kinds, **changed}
    found = Genotype.read(searched / "genotype.json")
    assert found.layout == {key: value for key, value in space.items() if key != "name"}
    assert len(found.cells["chain"].nodes) == 3


def test_candidates_are_a_flag(tutelage, here):
    line = f"{SEARCH} --candidates shuffle_3x3 mbconv2_3x3 --out own"
    code, out, error = tutelage(line)
    assert (code, error) == (0, "")
    assert len(re.findall(r" (?:shuffle_3x3|mbconv2_3x3)\b", out)) == 3
    assert Genotype.read(here / "own" / "genotype.json").layout["candidates"] == [
        "shuffle_3x3",
        "mbconv2_3x3",
    ]


@pytest.mark.parametrize(
    ("flags", "pattern"),
    [
        ("--widths 8 16", "3 strides|2 widths, 3 depths and 3 strides"),
        ("--widths 8 15 16", "widths = 8 15 16: each must be even"),
        ("--widths 8 x 16", "--widths 8 x 16: must be whole numbers"),
        ("--widths 8 1.5 16", "must be whole numbers"),
        ("--strides 2 3 2", "strides = 2 3 2: each must be 1 or 2"),
        ("--depths 0 1 1", "depths = 0 1 1: each must be at least 1"),
        ("--candidates identity foo", "candidates = foo: must be identity"),
        ("--candidates mbconv3_4x4", "candidates = mbconv3_4x4"),
        ("--activation tanh", "activation"),
        ("--cells 5", "cells = 5: the chain nasbench-macro has 8 layers, by its depths 2 3 3"),
        ("--ranked 5", "ranked = 5 without a table"),
        ("--width 8", "unknown flag --width"),
        ("--evolution.images 1", "images = 1: must be a number of at least 2"),
        (
            f"--method ennas {MACRO} --search diverse-paths",
            "layer of 3 operations, .* give --students 3",
        ),
        (f"--method ennas {MACRO} --search darts", "this search samples no sub-networks"),
        (f"--method single {MACRO} --search single-path --bins 2", "must be above bins_from"),
        (f"--method single {MACRO} --search pcdarts", "a chain has neither partial channels"),
    ],
)
def test_bad_values_are_one_sentence(refused, here, flags, pattern):
    parts = "" if "--method" in flags else PARTS
    refused(f"search {parts} {flags} --data digits --device cpu --out run", pattern)
    assert not (here / "run").exists()


def test_a_dry_run_says_what_networks_and_steps_cost(tutelage, here):
    code, out, error = tutelage(f"{SEARCH} --dry-run")
    assert (code, error) == (0, "")
    assert not list(here.iterdir())
    assert "final network: 4 channels, 3 layers, no auxiliary head" in out
    low, high, even = re.search(
        r"parameters +([\d,]+) to ([\d,]+); ([\d,]+) expected", out
    ).groups()
    low, high, even = (int(each.replace(",", "")) for each in (low, high, even))
    assert 0 < low < even < high
    assert "search: 2 steps of 16 images an epoch" in out
    assert re.search(r"epochs 1 to 1: learn\n", out)
    assert re.search(r"for one image through the 2 sub-networks of a batch\n", out)
    assert "a step" in out and "GiB" in out
    assert "evolution: 6 architectures, scored in the supernet\n" in out
    assert re.search(
        r"images of each 40 for BatchNorm, 40 that judge\n +time .* each, .* all\n", out
    )
    assert "ranking" not in out
    assert (
        " through the sub-network of a batch"
        in tutelage(f"{SEARCH.replace('ennas --students 2', 'single')} --dry-run")[1]
    )


def test_listings_and_help_show_what_samples(tutelage, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    for kind, names in (
        ("searches", ("single-path", "diverse-paths")),
        ("methods", ("ennas",)),
        ("spaces", ("nasbench-macro", "ennas-s1", "ennas-s2", "ennas-s3", "shuffle", "cream")),
    ):
        code, out, _ = tutelage(f"list {kind}")
        assert code == 0
        for name in names:
            assert re.search(rf"^  {name} +[A-Z]\S+ \S+", out, re.MULTILINE), name
    code, out, _ = tutelage("search --method ennas --search single-path --space shuffle --help")
    assert code == 0
    flags = set(re.findall(r"^│ (--[\w.-]+)", out, re.MULTILINE))
    assert {"--students", "--bins", "--bins-from", "--widths", "--candidates"} <= flags
    assert {"--evolution.population", "--ranked"} <= flags
    assert "Channels of every stage. [default: 64 160 320 640]" in out
    wrapped = " ".join(re.sub(r"[│\s]+", " ", out).split())
    assert "[default: shuffle_3x3 shuffle_5x5 shuffle_7x7 shuffle_xception]" in wrapped
    for flag in ("channels", "cells", "stem", "retrain.channels", "retrain.cells", "retrain.stem"):
        message = re.search(rf"^│ --{flag} ((?:.*\n)(?:│  .*\n)*)", out, re.MULTILINE)[1]
        assert "chain" in message, flag
    code, out, _ = tutelage("search --method dna --search single-path --space dna --help")
    assert code == 0 and "--maps" in out and "()" not in out


def test_from_a_found_chain_to_its_exported_network(run, tutelage, here):
    code, out, error = tutelage("retrain run --epochs 1 --limit-batches 2 --device cpu")
    assert (code, error) == (0, "")
    assert re.search(r"test error \d+\.\d+ % on 599 images", out)
    result = json.loads((run / "retrain" / "result.json").read_text())
    code, out, _ = tutelage(
        "describe run --channels 4 --cells 3 --image-channels 1 --side 8 --classes 10 --json"
    )
    message = json.loads(out)
    assert (message["params"], message["flops"]) == (
        result["params"],
        result["flops"],
    )
    assert message == json.loads(tutelage("describe run --image-channels 1 --side 8 --json")[1])
    code, out, error = tutelage("draw run --out chain.svg")
    assert (code, error) == (0, "")
    svg = (here / "chain.svg").read_text()
    names = Genotype.read(run / "genotype.json").names
    assert svg.count(">MBConv 3<") == names.count("mbconv3_3x3")
    assert svg.count(">MBConv 6<") == names.count("mbconv6_5x5")
    assert svg.count(">identity<") + svg.count(">projection<") == names.count("identity")
    assert load("run")(torch.randn(3, 1, 8, 8)).shape == (3, 10)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's own
@pytest.mark.parametrize("names", ["identity mbconv2_5x5", "shuffle_3x3 shuffle_xception"])
def test_an_exported_chain_gives_the_networks_logits(tutelage, names):
    pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    assert tutelage(f"{SEARCH} --candidates {names} --out run")[0] == 0
    assert tutelage(f"retrain run {BRIEF}")[0] == 0
    assert tutelage("export run --out chain.onnx")[0] == 0
    x = torch.randn(5, 1, 8, 8)
    (logits,) = runtime.InferenceSession("chain.onnx").run(None, {"images": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), load("run")(x), rtol=1e-4, atol=1e-4)


def test_resuming_a_finished_search_says_what_it_found_again(run, tutelage):
    before = content(run)
    code, out, error = tutelage("search --resume run")
    assert (code, error) == (0, "")
    assert "Found: run/genotype.json" in out
    after = content(run)
    assert {n for n in after if after[n] != before.get(n)} <= {
        "environment.json",
        "evolution/environment.json",
    }


def test_query_and_describe_a_nasbench_macro_run(tutelage, refused, run, here):
    entries = {
        np.base_repr(place, 3).zfill(8): {
            "test_acc": [60 + place / 1000] * 3,
            "params": 1000 + place,
            "flops": 2000 + place,
        }
        for place in range(3**8)
    }
    (here / "table.json").write_text(json.dumps(entries))
    flags = "--channels 2 --epochs 1 --limit-batches 1 --ranked 2 --table table.json"
    line = f"search {PARTS} --data digits --batch-size 8 --device cpu {EVOLUTION} {flags} --out own"
    code, _, error = tutelage(line)
    assert (code, error) == (0, "")
    code, out, _ = tutelage("query own --table table.json --json")
    answer = json.loads(out)
    (end,) = (
        row
        for row in map(json.loads, (here / "own" / "metrics.jsonl").read_text().splitlines())
        if row["event"] == "end"
    )
    digits = "".join(map(str, end["evolution"]["encoding"]))
    assert code == 0 and answer["architecture"] == digits
    assert end["table"] == [{**answer["accuracy"], "rank": answer["rank"]["cifar10_test"]}]
    code, out, _ = tutelage("describe own")
    assert code == 0 and "nasbench-macro, cifar stem: 32 channels, 8 layers" in out
    refused("query run --table table.json", r"a chain of 3 layers: NAS-Bench-Macro's has 8")
    refused(
        f"{SEARCH} --table table.json --out other",
        r"a chain of 3 layers: NAS-Bench-Macro's has 8",
    )
    assert not (here / "other").exists()
