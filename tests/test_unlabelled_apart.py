"""Images to pseudo-label are never test images of the searched set, wherever both lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from photographs import make_photographs, make_shards
from tutelage.config import Data
from tutelage.data import DataError
from tutelage.data.read import read, read_unlabelled


def save(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)


@pytest.fixture
def root(here):
    """A folder of two classes without parts, every image of another value."""
    for place, kind in enumerate(("cat", "dog")):
        for k in range(10):
            save(here / "photos" / kind / f"{k}.png", 10 * place + k)
    return here / "photos"


def values(images):
    return set(images.take(torch.arange(len(images)))[:, 0, 0, 0].tolist())


def unlabelled(settings):
    searched = read(settings, "search")
    return values(read_unlabelled(settings, searched, torch.arange(2))[0].images)


def table(root):
    lines = [f"photos/{path.relative_to(root)},{path.parent.name}" for path in root.rglob("*.png")]
    (root.parent / "list.csv").write_text("\n".join(["path,label", *lines]), encoding="utf-8")
    return "list.csv"


def test_a_folder_of_a_table_has_no_test_image(root, capsys):
    own = Data(table(root), unlabelled=str(root))
    tested = values(read(own, "test").images)
    assert unlabelled(own) == set(range(20)) - tested
    assert "4 images are left out, which are test images of the searched set" in (
        capsys.readouterr().out
    )
    held = replace(own, held_out=6)
    assert unlabelled(held) == set(range(20)) - tested - values(read(held, "test").images)


def test_neither_has_a_class_of_it_a_table_of_it_or_a_link_to_it(root, here):
    own = Data(str(root))
    tested = values(read(own, "test").images)
    assert unlabelled(replace(own, unlabelled=str(root / "cat"))) == set(range(10)) - tested
    table(root)
    assert unlabelled(replace(own, unlabelled="list.csv")) == set(range(20)) - tested
    (here / "link").symlink_to(root / "dog")
    assert unlabelled(replace(own, unlabelled="link")) == set(range(10, 20)) - tested
    for path in root.rglob("*.png"):
        (here / "links").mkdir(exist_ok=True)
        (here / "links" / f"{path.parent.name}{path.name}").symlink_to(path)
    assert unlabelled(replace(own, unlabelled="links")) == set(range(20)) - tested


def test_the_folder_around_a_divided_one_has_no_test_image_and_others_stay(here):
    for value, name in enumerate(("train/cat/0", "train/dog/0", "test/cat/0", "test/dog/0")):
        save(here / "around" / "own" / f"{name}.png", value)
    save(here / "around" / "own" / "more" / "a.png", 7)
    save(here / "around" / "b.png", 8)
    own = Data(str(here / "around" / "own"), unlabelled="around")
    assert unlabelled(own) == {0, 1, 7, 8}
    assert unlabelled(replace(own, unlabelled="around/own/more")) == {7}
    with pytest.raises(DataError, match=r"all its images are test images .* give train, rest or"):
        unlabelled(replace(own, unlabelled="around/own/test"))


def test_shards_of_a_test_part_stay_closed(tmp_path):
    shards = make_shards(make_photographs(tmp_path / "folder"), tmp_path / "shards")
    for part in ("train", "val"):
        (shards / part / "0000.tar").rename(shards / f"{part}-0.tar")
    (tmp_path / "train").mkdir()
    for part in ("train", "val"):
        (shards / f"{part}-0.tar").rename(tmp_path / "train" / f"{part}-0.tar")
    own = Data(str(tmp_path / "train"), resolution=8, colour="rgb", unlabelled=str(tmp_path))
    searched = read(own, "search")
    found, _ = read_unlabelled(own, searched, torch.arange(2))
    assert len(found.images) == len(searched.images) > 0


def test_rows_of_a_parquet_files_fifth_are_left_out(here):
    pytest.importorskip("pyarrow")
    from test_data_parquet import write

    write(here / "hub" / "train-a.parquet", range(20), [k % 2 for k in range(20)])
    own = Data("hub/train-a.parquet", unlabelled="hub")
    tested = values(read(own, "test").images)
    assert len(tested) == 4
    assert unlabelled(own) == set(range(20)) - tested
