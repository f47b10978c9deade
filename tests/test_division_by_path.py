"""The test fifth of images without parts is the same however their path is written."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tutelage.config import Data
from tutelage.data.read import read
from tutelage.data.splits import held_out
from tutelage.run.trained.testing import names_of


@pytest.fixture
def photos(here, monkeypatch):
    """Thirty images of two classes; the working folder is theirs."""
    for place, kind in enumerate(("cat", "dog")):
        for k in range(15):
            path = here / "photos" / kind / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), 15 * place + k, np.uint8)).save(path)
    monkeypatch.chdir(here / "photos")
    return here / "photos"


def division(path):
    return sorted(read(Data(str(path)), "test").images.pixels[:, 0, 0, 0].tolist())


def expected(names):
    """The division that whole paths have always had, of numbers of images by their names."""
    kinds = [[(n, k) for n, k in names if (k < 15) == first] for first in (True, False)]
    return sorted(
        k
        for own in kinds
        for (_, k), out in zip(own, held_out([n for n, _ in own], 0.2), strict=True)
        if out
    )


FILES = [
    (f"/{kind}/{k}.png", 15 * place + k)
    for place, kind in enumerate(("cat", "dog"))
    for k in range(15)
]


def test_a_folder(photos):
    assert len(division(photos)) == 6
    for path in (photos, ".", "../photos"):
        assert division(path) == expected(FILES)


def lines(names):
    return "\n".join(["path,label", *(f"{name},{'cat' if k < 15 else 'dog'}" for name, k in names)])


def test_a_table_of_relative_and_of_whole_paths(photos, here):
    for above in ("", "./", f"{photos}/"):
        (photos / "list.csv").write_text(lines([(above + n[1:], k) for n, k in FILES]))
        for path in (photos / "list.csv", "list.csv", "../photos/list.csv"):
            assert division(path) == expected(FILES), (above, path)
    (photos / "dog" / "list.csv").write_text(lines([(f"..{n}", k) for n, k in FILES]))
    whole = expected([(f"/..{n}", k) for n, k in FILES])
    assert division(photos / "dog" / "list.csv") == division("dog/list.csv") == whole


def test_parquet_files(photos):
    pytest.importorskip("pyarrow")
    from test_data_parquet import write

    write(photos / "hub" / "a.parquet", range(30), [int(k >= 15) for k in range(30)])
    whole = expected([(f"/hub/a.parquet:{k}", k) for k in range(30)])
    assert division(photos) == division(".") == division("../photos") == whole
    alone = expected([(f":{k}", k) for k in range(30)])
    assert division(photos / "hub" / "a.parquet") == division("hub/a.parquet") == alone


def test_names_of_test_images_lose_their_folder_once(here):
    for kind in ("a", "b"):
        for k in range(2):
            path = here / "a" / kind / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    found = names_of(Data("a"))
    assert [name.partition("/")[0] for name in found] == ["a", "b"]
