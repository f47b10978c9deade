"""One sentence for every mistake that is typed or lies in a file, and nothing left behind."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from commands import content
from tutelage.spaces.published import PUBLISHED

# What is typed wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("serch", r"unknown command serch: did you mean search\?"),
        ("--nonsense", "unknown command --nonsense: must be one of search, retrain"),
        ("search --method sgll --out x", r"unknown method 'sgll': did you mean sgl\?"),
        ("search --search dart --out x", r"unknown search 'dart': did you mean darts\?"),
        ("search --space drts --out x", r"unknown space 'drts': did you mean darts\?"),
        ("search --data digitz --out x", r"unknown data set 'digitz'.* did you mean digits\?"),
        ("search --unlabelled cifer100 --out x", r"'cifer100'.* did you mean cifar100\?"),
        ("search --recipe digits-dem --out x", r"'digits-dem': did you mean digits-demo\?"),
        ("search --recipe spos-imagenet --out x", r"ImageNet .*or as shards: give --data FOLDER\n"),
        ("search --recipe mine.toml --out x", "recipe mine.toml: there is no such file"),
        ("search --method mine:Part --out x", "method 'mine:Part' cannot be imported"),
        ("search --method json:dumps --out x", "method 'json:dumps' is no dataclass"),
        ("search --method : --out x", "method ':' cannot be imported"),
        ("search --epoch 3 --out x", r"unknown flag --epoch: did you mean --epochs\?"),
        ("search --method sgl --learner 3", r"flag --learner: did you mean --learners\?"),
        ("search --learners 3 --out x", "unknown flag --learners: it belongs to --method sgl"),
        ("search --lr 1 --out x", r"--weights.lr or --alphas.lr or --retrain.lr\?"),
        ("search --zzzz 1 --out x", "unknown flag --zzzz: see tutelage search --help"),
        ("retrain DARTS_V2 --epochz 1", r"unknown flag --epochz: did you mean --epochs\?"),
        ("search extra --out x", "search does not take 'extra': see tutelage search --help"),
        ("search", "a search needs --out DIR for its run directory, or --resume DIR"),
        ("search --epochs", "--epochs needs a value"),
        ("search --epochs --out x", "--epochs needs a value"),
        ("search --method --out x", "--method needs a value"),
        ("search --threads --epochs 2", "--threads needs a value"),
        ("search --quick --method sgl --pretrain 5 --out x", "pretrain = 5 of 2 epochs"),
        ("search --quick --method sgl --pretrain 5 --out x", "--quick has set"),
        ("search --quick --data nothing --out x", r"nor a CSV or Parquet file: must be [^(]*$"),
        ("search --out a --out b", "--out is given more than once"),
        ("search --epochs two --out x", "--epochs two: must be a whole number"),
        ("search --method sgl --learners 1.5 --out x", "--learners 1.5: must be a whole number"),
        ("search --weights.lr big --out x", "--weights.lr big: must be a number"),
        ("search --download=maybe --out x", "--download maybe: must be true or false"),
        ("search --via exakt --out x", r"--via exakt: did you mean exact\?"),
        ("search --precision fp8 --out x", r"--precision fp8: "),
        ("search --weights.lr -1 --out x", r"weights: lr = -1.0: must be .*above 0"),
        ("search --alphas.lr nan --out x", "alphas: lr = nan: must be a finite number"),
        ("search --weights.lr inf --out x", "weights: lr = inf: must be a finite number"),
        ("search --epochs 0 --out x", r"epochs = 0: must be .*at least 1"),
        ("search --method sgl --learners 0 --out x", r"learners = 0: must be .*at least 1"),
        ("search --method sgl --pretrain 50 --out x", "pretrain = 50 of 50 epochs: leave epochs"),
        ("search --method lbt --student resnet19 --out x", "student 'resnet19': must be resnet18"),
        ("search --data.cutout 8 --out x", "cutout = 8: would hide whole images of digits"),
        ("search --data.train-fraction 1 --out x", "train_fraction = 1.0: must be strictly"),
        ("search --data.held-out 1198 --out x", "the training images are 1,198 in all, hold out"),
        ("search --unlabelled rest --out x", "data: .* no images are left out, give --data.sample"),
        ("search --data cifar10 --out x", "cifar10 needs its folder: give --data-root DIR"),
        ("search --data cifar10 --data-root . --out x", "cifar10 is not in .*--download"),
        ("describe", "describe needs GENOTYPE: see tutelage describe --help"),
        ("describe DARTS_V3", r"unknown genotype 'DARTS_V3'.*: did you mean DARTS_V2\?"),
        ("describe DARTS_V2 --channels 1.5", "--channels 1.5: must be a whole number"),
        (f"search --channels 1{21 * '0'} --out x", "must be a whole number between -1,000,000"),
        (f"describe DARTS_V2 --channels 1{17 * '0'}", "the machine's memory is full: lower"),
        ("report list []", "list: no such directory"),
        ("describe DARTS_V2 --channels 0", "channels = 0: must be at least 1"),
        ("describe no/genotype.json", "no/genotype.json: no such file or directory"),
        ("draw DARTS_V2", "draw needs --out: see tutelage draw --help"),
        ("draw DARTS_V2 --out x.gif", r"must end in \.svg or \.png"),
        ("draw DARTS_V2 --out no/x.svg", "no/x.svg: No such file or directory"),
        ("report", "report needs RUNS"),
        ("report nowhere", "nowhere: no such directory"),
        ("list recipe", r"list recipe: did you mean recipes\?"),
        ("retrain", "retrain needs RUN"),
        ("retrain nowhere", "unknown genotype 'nowhere', and no file or run"),
        ("retrain DARTS_V2", "a genotype without a run needs --out DIR"),
        ("retrain DARTS_V2 --out x --cutout 8", "cutout = 8: would hide whole images of digits"),
        ("retrain DARTS_V2 --out x --batch-size 0", r"batch_size = 0: must be .*at least 1"),
        ("search --resume nowhere", "nowhere does not exist; give the --out of an earlier run"),
        ("search --resume .", r"\. is no run: it has no run.toml"),
    ],
)
def test_a_mistake_is_one_sentence(line, sentence, refused, here):
    refused(line, sentence)
    assert list(here.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(refused):
    refused("search --device cuda --out x", "there is no CUDA device; use 'cpu' or 'auto'")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epochs =", "recipe mine.toml is not TOML"),
        ("epoch = 3", r"unknown setting 'epoch' of a search: did you mean epochs\?"),
        ("epochs = 'two'", "epochs = 'two': must be a whole number"),
        ("epochs = true", "epochs = True: must be a whole number"),
        (f"epochs = 1{30 * '0'}", "is not TOML: a whole number has 31 digits"),
        (f"weights.lr = 1{18 * '0'}1", "lr = 10{18}1: must be between"),
        ("method = 'sgl'", "method = 'sgl': must be a table of settings"),
        ("weights = 3", "weights = 3: must be a table of settings"),
        ("[method]\nname = 3", "unknown method '3'"),
        ("[method]\nlearners = 3", "unknown setting 'learners' of method single"),
        ("[weights]\nlr = '1'", "weights: lr = '1': must be a number"),
        ("[data]\ncolour = 'blue'", "data: colour = 'blue': must be one of auto, grey, rgb"),
    ],
)
def test_a_bad_recipe_is_one_sentence(text, sentence, refused, here):
    (here / "mine.toml").write_text(text)
    refused("search --recipe mine.toml --out x", sentence)
    assert not (here / "x").exists()


# Data -------------------------------------------------------------------------------------------


def write_cifar(folder, values=3072):
    """A CIFAR-10 of two images a file, each of so many values."""
    folder.mkdir()
    batch = {b"data": np.zeros((2, values), np.uint8), b"labels": [0, 1]}
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"a"] * 10}))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: (f / "data_batch_3").unlink(), "lacks data_batch_3: unpack cifar-10-python"),
        (lambda f: os.truncate(f / "data_batch_2", 60), "data_batch_2 is truncated"),
        (lambda f: os.truncate(f / "batches.meta", 9), "batches.meta is truncated"),
    ],
)
def test_damaged_files_of_a_data_set(damage, sentence, refused, here):
    write_cifar(here / "cifar-10-batches-py")
    damage(here / "cifar-10-batches-py")
    refused("search --data cifar10 --data-root . --out x", sentence)
    assert not (here / "x").exists()


def test_files_of_the_wrong_shape(refused, here):
    write_cifar(here / "cifar-10-batches-py", values=3071)
    refused("search --data cifar10 --data-root . --out x", "3071 values instead of 3 x 32 x 32")


@pytest.fixture
def images(here):
    """A good folder of two classes, of four images each."""
    for kind in ("cat", "dog"):
        (here / "images" / kind).mkdir(parents=True)
        for k in range(4):
            Image.new("RGB", (8, 8), 60 * k).save(here / "images" / kind / f"{k}.png")
    return here / "images"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: shutil.rmtree(f / "dog"), "has 1 class folders: .* needs at least 2"),
        (lambda f: os.truncate(f / "dog" / "1.png", 30), r"dog/1\.png is not a readable image"),
        (
            lambda f: Image.new("L", (8, 8)).save(f / "dog" / "1.png"),
            r"dog/1\.png is grey and .*cat/.\.png is RGB: give --data.colour rgb",
        ),
    ],
)
def test_damaged_folders_of_images(damage, sentence, refused, images, here):
    damage(images)
    before = content(here)
    refused("search --data images --data.resolution 8 --out x", sentence)
    assert content(here) == before


# Genotypes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("sep_conv_3x3", "sep_conv_3x4"), r"'sep_conv_3x4' .*: did you mean sep_conv_3x3\?"),
        (('"version": 1', '"version": 2'), "made by a newer Tutelage: version 2; this one reads 1"),
        (("tutelage genotype", "something"), "not a genotype"),
        (('"concat": [2, 3, 4, 5]', '"concat": [2, 3, 4, 6]'), "a node is missing"),
        (("}", ""), "the JSON is damaged or cut short"),
    ],
)
@pytest.mark.parametrize("verb", ["describe", "draw --out x.svg", "retrain --out x"])
def test_a_bad_genotype(verb, change, sentence, refused, here):
    text = PUBLISHED["DARTS_V2"].to_json()
    assert change[0] in text
    (here / "mine.json").write_text(text.replace(*change))
    refused(f"{verb} mine.json", rf"mine\.json: .*{sentence}")
    assert [path.name for path in here.iterdir()] == ["mine.json"]


def test_a_genotype_with_a_node_too_few(refused, here):
    data = PUBLISHED["DARTS_V2"].to_dict()
    data["cells"]["normal"]["nodes"].pop()
    (here / "mine.json").write_text(json.dumps(data))
    refused("describe mine.json", "a node is missing")


def test_a_genotype_as_darts_text_without_a_cell(refused):
    text = "Genotype(normal=[('sep_conv_3x3', 1)], normal_concat=[2])"
    refused("describe", "lacks reduce and reduce_concat", text)
