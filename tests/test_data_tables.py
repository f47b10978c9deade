"""CSV files that list images."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from commands import SMALL
from tutelage.config import Data
from tutelage.data import DataError
from tutelage.data.read import check_test_part, read, read_unlabelled
from tutelage.data.survey import survey
from tutelage.run.trained.testing import names_of

COUNTS = {"train": 6, "validation": 3, "test": 2}


@pytest.fixture
def photos(here):
    """Photographs without folders by class; returns the lines that list them."""
    (here / "photos").mkdir()
    lines = []
    for part, count in COUNTS.items():
        for label in ("10", "9"):
            for _ in range(count):
                pixels = np.full((8, 8, 3), 9 * len(lines), np.uint8)
                Image.fromarray(pixels).save(here / "photos" / f"{len(lines)}.png")
                lines.append((f"photos/{len(lines)}.png", label, part))
    return lines


def table(here, lines, head="path,label,split", mark=",", name="list.csv"):
    texts = [head.replace(",", mark), *(mark.join(line) for line in lines)]
    (here / name).write_text("\n".join(texts) + "\n", encoding="utf-8-sig")
    return str(here / name)


def first_pixels(part):
    return (part.images.pixels[:, 0, 0, 0] // 9).tolist()


@pytest.mark.parametrize(
    ("head", "mark"),
    [
        ("path,label,split", ","),
        ("File_Name,Class,PART", ";"),
        ("image,category,subset", "\t"),
    ],
)
def test_columns_are_found_by_name_and_paths_are_beside_the_file(photos, here, head, mark):
    words = {"train": "Training", "validation": "val", "test": "TEST"}
    lines = [(path, label, words[part]) for path, label, part in photos]
    settings = Data(table(here, lines, head, mark))
    train = read(settings, "train")
    assert (train.name, train.classes, train.images.shape) == ("list", ("9", "10"), (3, 8, 8))
    assert first_pixels(train) == list(range(12))
    assert train.images.labels.tolist() == [1] * 6 + [0] * 6
    assert train.images.names[:2] == ["photos/0.png", "photos/1.png"]
    assert first_pixels(read(settings, "test")) == list(range(18, 22))
    own = Data(settings.name, validation="folder")
    assert first_pixels(read(own, "search")) == list(range(18))
    assert names_of(settings) == [f"photos/{k}.png" for k in range(18, 22)]


def test_another_column_of_labels_columns_that_are_not_used_and_quotes(photos, here):
    lines = [f'{k},{path},"a, b {k % 2}",{label}' for k, (path, label, _) in enumerate(photos)]
    texts = ["id,path,owner,label", *lines]
    (here / "list.csv").write_text("\n\n".join(texts), encoding="utf-8")
    assert read(Data("list.csv"), "train").classes == ("9", "10")
    found = read(Data("list.csv", label_column="owner"), "train")
    assert found.classes == ("a, b 0", "a, b 1")


def test_without_a_split_column_a_fifth_of_every_class_is_the_test(photos, here):
    settings = Data(table(here, [line[:2] for line in photos], "path,label"))
    train, test = read(settings, "train"), read(settings, "test")
    assert sorted(first_pixels(train) + first_pixels(test)) == list(range(22))
    assert np.bincount(test.images.labels).tolist() == [2, 2]
    shuffled = Data(table(here, [line[:2] for line in photos[::-1]], "path,label"))
    assert sorted(first_pixels(read(shuffled, "test"))) == sorted(first_pixels(test))
    assert first_pixels(read(Data(settings.name, held_out=5), "test")) != first_pixels(test)


def test_a_search_opens_no_test_image_and_its_test_part_is_checked_by_headers(photos, here):
    settings = Data(table(here, photos))
    (here / "photos" / "20.png").write_bytes(b"no image")
    assert len(read(settings, "search").images) == 12
    with pytest.raises(DataError, match=r"20\.png is not a readable image"):
        check_test_part(settings)
    assert "photos/20.png is not a readable image" in survey(settings).problems[0]
    with pytest.raises(DataError, match=r"20\.png is not a readable image"):
        read(settings, "test")
    lacking = Data(table(here, [line for line in photos if line[1:] != ("9", "test")]))
    with pytest.raises(DataError, match="has 1 classes"):
        check_test_part(lacking)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x: [("gone.png", "9", "train"), *x], r"list\.csv line 2: .*gone\.png is no file"),
        (lambda x: [*x, x[0]], r"lines 2 and 24 both name photos/0\.png"),
        (lambda x: [*x, ("./photos/0.png", "9", "test")], r"lines 2 and 24 both name"),
        (lambda x: [("photos/0.png", "9", "holdout"), *x[1:]], "line 2: split = 'holdout': must"),
        (lambda x: [("photos/0.png", "", "train"), *x[1:]], "line 2 lacks one of path, label, sp"),
        (lambda x: [("photos/0.png",), *x[1:]], "line 2 lacks one of path, label, split"),
        (lambda x: [line for line in x if line[2] == "test"], "has no train part, but test"),
        (lambda x: [line for line in x if line[1] == "9"], "has 1 classes: a classification needs"),
        (lambda x: [], "has 0 classes|lists no images"),
    ],
)
def test_a_table_with_a_mistake_is_refused_by_its_line(photos, here, change, sentence):
    with pytest.raises(DataError, match=sentence):
        read(Data(table(here, change(photos))), "train")


def test_other_mistakes_are_sentences(photos, here, refused):
    table(here, photos, "who,label,split")
    refused("data list.csv", "begins with 'who,label,split': its first line must name the columns")
    table(here, photos, "path,truth,split")
    refused("data list.csv", r"no column label, .* has the columns path, truth, split; give --data")
    refused("data list.csv --data.label-column x", "label_column = 'x'")
    refused("data photos --data.label-column x", "label_column = 'x': .*photos is a folder")
    refused("search --data.label-column x --out run", "digits has no columns")
    (here / "list.csv").write_bytes(b"path,label\nphotos/0.png,\xff\n")
    refused("data list.csv", "is no readable table in UTF-8")
    (here / "list.txt").write_text("path,label")
    refused("data list.txt", "unknown data set 'list.txt', which is no folder.* nor a CSV or Parq")
    table(here, photos, name="list.csv")
    line = "search --data list.csv --data.validation folder --out run"
    table(here, [each for each in photos if each[2] != "validation"])
    refused(line, "needs the parts train, validation and test .* and has no validation")
    table(here, [each for each in photos if each[2] == "train"])
    refused("data list.csv", "has a train part, but neither test nor validation: add one of them")


def test_files_of_other_kinds_are_left_out_and_said(photos, here, capsys):
    (here / "photos" / "a.gif").write_bytes(b"GIF89a")
    settings = Data(table(here, [*photos, ("photos/a.gif", "9", "train")]))
    assert len(read(settings, "train").images) == 12
    assert "files are left out: 1 .gif, such as" in capsys.readouterr().out
    assert survey(settings).parts["train"].left_out.startswith("1 .gif")


def test_images_without_labels_are_those_to_pseudo_label(photos, here):
    more = table(here, photos[3:5], "path,x,split", name="more.csv")
    own = Data(table(here, photos), unlabelled=more)
    found, index = read_unlabelled(own, read(own, "search"), torch.arange(3))
    assert (first_pixels(found.images), index.tolist()) == ([3, 4], [0, 1])
    folder = replace(own, unlabelled="photos", label_column="label")
    assert len(read_unlabelled(folder, read(folder, "search"), torch.arange(3))[1]) == 18


@pytest.mark.slow
def test_a_run_on_a_table_and_its_test_on_another(photos, here, tutelage):
    table(here, photos)
    code, out, error = tutelage("data list.csv --json")
    assert json.loads(out)["parts"]["test"]["classes"] == {"9": 2, "10": 2}, error
    line = f"{SMALL} --limit-batches 1 --epochs 1"
    code, _, error = tutelage(f"search --data list.csv --via first-order {line} --out run")
    assert code == 0, error
    code, _, error = tutelage(f"retrain run {line} --auxiliary 0")
    assert code == 0, error
    table(here, [line[:2] for line in photos], "path,label", name="all.csv")
    code, out, error = tutelage("test run/retrain --data all.csv --json")
    assert json.loads(out)["images"] == 22, error
    assert json.loads((here / "run" / "retrain" / "result.json").read_text())["test_images"] == 4
    table(here, [*photos[:6], *photos[7:]])
    code, _, error = tutelage("search --resume run")
    assert code == 1
    assert "was begun with other images: the images are 11 and were 12" in error
