"""Every kind of file that a class folder may hold is read right, or named in one sentence."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from photographs import add
from tutelage.config import Data
from tutelage.data import DataError, remarks
from tutelage.data.images import OnDisk
from tutelage.data.pictures import fit, kinds_of, orientation, shape_of, upright
from tutelage.data.read import check_test_part, read
from tutelage.data.splits import remarks as halves_remarks

RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
GREY = RGB[..., 0]
ORIENTATION = 0x0112
TURNED = {  # what a stored array shows, by the standard's orientations
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x, 1),
}


@pytest.fixture(autouse=True)
def _said_before(monkeypatch):
    monkeypatch.setattr(remarks, "_known", set())


@pytest.fixture
def root(tmp_path):
    """Two classes of two sound images in either part."""
    for part in ("train", "test"):
        for kind in ("cat", "dog"):
            (tmp_path / part / kind).mkdir(parents=True)
            for k in range(2):
                Image.fromarray(RGB).save(tmp_path / part / kind / f"{k}.png")
    return tmp_path


def first(root, image, name="0.png", *, suffix=None, given=None, **how):
    """Write an image over the first cat, and return what is read of it, (H, W, C)."""
    (root / "train" / "cat" / "0.png").unlink()
    path = root / "train" / "cat" / name
    image.save(path, **how)
    given = {"colour": "rgb"} | (given or {})
    found = read(Data("folder", root, **given), "train").images
    assert len(found) == 4
    return found.take(torch.tensor([0]))[0].permute(1, 2, 0).numpy()


def on_white(pixels, alpha):
    """Compose as it is defined: the share alpha of a colour, and white for the rest."""
    share = alpha.astype(float)[..., None] / 255
    return pixels * share + 255 * (1 - share)


# Modes ------------------------------------------------------------------------------------------


def test_grey(root):
    assert (first(root, Image.fromarray(GREY)) == GREY[..., None]).all()


def test_black_and_white(root):
    found = first(root, Image.fromarray(GREY > 128))
    assert (found == np.where(GREY > 128, 255, 0)[..., None]).all()


@pytest.mark.parametrize("name", ["0.png", "0.webp"])
def test_rgba_is_put_on_white_and_said_once(root, name, capsys):
    alpha = np.linspace(0, 255, 24).astype(np.uint8).reshape(4, 6)
    how = {"lossless": True, "exact": True} if name == "0.webp" else {}
    found = first(root, Image.fromarray(np.dstack([RGB, alpha])), name, **how)
    assert np.abs(found - on_white(RGB, alpha)).max() <= 1
    assert (found[alpha == 255] == RGB[alpha == 255]).all()
    assert (found[alpha == 0] == 255).all()
    path = root / "train" / "cat" / name
    said = f"images such as {path} have an alpha channel, which is put on white (1 of 4)\n"
    assert capsys.readouterr().out == said
    read(Data("folder", root, colour="rgb"), "train")
    assert capsys.readouterr().out == ""


def test_grey_with_alpha_stays_grey(root):
    for path in root.rglob("*.png"):
        Image.fromarray(GREY).save(path)
    alpha = np.where(GREY > 100, 255, 0).astype(np.uint8)
    image = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)])
    found = first(root, image, given={"colour": "auto"})
    assert found.shape == (4, 6, 1)
    assert (found[..., 0] == np.where(alpha == 255, GREY, 255)).all()


def test_a_palette(root):
    image = Image.fromarray(GREY // 64 * 64).convert("P")
    image.putpalette([*range(255, -1, -1)] * 3)
    assert (first(root, image) == np.asarray(image.convert("RGB"))).all()


def test_a_palette_with_a_transparent_colour(root):
    image = Image.new("P", (6, 4))
    image.putdata((GREY // 128).flatten().tolist())
    image.putpalette([10, 20, 30, 40, 50, 60])
    found = first(root, image, transparency=1)
    want = np.where((GREY // 128 == 1)[..., None], [255, 255, 255], [10, 20, 30])
    assert (found == want).all()


def test_cmyk(root):
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[..., 1] = 255  # magenta
    given = {"resolution": 8}
    found = first(root, Image.fromarray(ink, "CMYK"), "0.jpg", given=given, quality=100)
    assert np.abs(found.astype(int) - [255, 0, 255]).max() < 12


@pytest.mark.parametrize(("white", "value"), [(65_535, 257.0), (4095, 4095 / 255)])
def test_sixteen_bits_are_scaled_by_their_range_and_said_once(root, white, value, capsys):
    deep = np.rint(GREY * value).astype(np.uint16)
    found = first(root, Image.fromarray(deep), given={"white": white})
    assert (found == GREY[..., None]).all()
    assert (
        "have 16 bits, of which 0 to --data.white (65,535 if not given) become 0 to 255 (1 of 4)"
        in (capsys.readouterr().out)
    )


def test_sixteen_bits_are_grey(root):
    for path in root.rglob("*.png"):
        Image.fromarray(GREY).save(path)
    found = first(root, Image.fromarray(GREY.astype(np.uint16) * 257), given={"colour": "auto"})
    assert found.shape == (4, 6, 1)


def test_more_bits_are_refused_by_name():
    for pixels in (np.full((2, 2), 70_000, np.int32), np.full((2, 2), -1, np.int32)):
        with pytest.raises(DataError, match=r"values from .* images need 16 bits at most"):
            fit(Image.fromarray(pixels), (1, 2, 2))
    with pytest.raises(DataError, match="mode F"):
        fit(Image.fromarray(np.zeros((2, 2), np.float32)), (1, 2, 2))


def test_white_is_for_folders():
    with pytest.raises(DataError, match="white = 4095: the images of digits have 8 bits"):
        read(Data(white=4095), "train")
    with pytest.raises(ValueError, match="white"):
        Data(white=0)


# Orientation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["load", "stream"])
@pytest.mark.parametrize("number", TURNED)
def test_a_photograph_is_turned_as_its_exif_says(root, number, memory):
    exif = Image.Exif()
    exif[ORIENTATION] = number
    want = TURNED[number](RGB)
    for path in root.rglob("*.png"):
        Image.fromarray(want).save(path)  # of one size: found before anything is decoded
    found = first(root, Image.fromarray(RGB), given={"memory": memory}, exif=exif)
    assert (found == want).all()


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_of_every_format(format_name):
    exif, file = Image.Exif(), io.BytesIO()
    exif[ORIENTATION] = 6
    Image.new("RGB", (6, 4)).save(file, format_name, exif=exif)
    with Image.open(file) as image:
        assert (orientation(image), shape_of(image), upright(image).size) == (6, (3, 6, 4), (4, 6))
        assert kinds_of(image) == ["turned"]


@pytest.mark.filterwarnings("ignore:.*EXIF")
@pytest.mark.parametrize(
    "damage", [b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0", b"Exif\0\0" + b"x" * 40]
)
def test_damaged_exif_turns_nothing(damage):
    file = io.BytesIO()
    Image.new("RGB", (6, 4)).save(file, "JPEG", exif=damage)
    with Image.open(file) as image:
        assert shape_of(image) == (3, 4, 6)
        assert fit(upright(image), (3, 4, 6)).shape == (4, 6, 3)


# Frames, and files that are no images ------------------------------------------------------------


@pytest.mark.parametrize("name", ["0.png", "0.webp"])
def test_of_an_animation_the_first_frame(root, name, capsys):
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    how = {"save_all": True, "append_images": frames[1:], "lossless": True}
    assert (first(root, frames[0], name, **how) == RGB).all()
    assert "have several frames, of which the first is used (1 of 4)" in capsys.readouterr().out


def test_other_files_are_counted_and_named_once(root, capsys):
    cat = root / "train" / "cat"
    Image.fromarray(GREY).save(cat / "b.gif")
    Image.fromarray(GREY).save(cat / "a.GIF")
    (cat / "notes.txt").write_text("no image")
    (cat / "README").write_text("no image")
    Image.fromarray(RGB).save(root / "train" / "astray.png")
    for _ in range(2):
        assert len(read(Data("folder", root), "train").images) == 4
    said = capsys.readouterr().out
    assert said == (
        f"{root}: files are left out: 2 .gif, 1 .png, 1 .txt, 1 no suffix, such as "
        f"{root}/train/astray.png; .png, .jpg, .jpeg, .webp, .bmp in class folders are read\n"
    )


def test_a_class_of_gifs_alone_says_what_it_has(root):
    for path in (root / "train" / "cat").iterdir():
        path.unlink()
    Image.fromarray(GREY).save(root / "train" / "cat" / "a.gif")
    with pytest.raises(DataError, match=r"train/cat holds no images .*, but 1 \.gif, such as"):
        read(Data("folder", root), "train")


def test_hidden_files_and_folders_are_passed_over(root, capsys):
    cat = root / "train" / "cat"
    for name in (".DS_Store", "._0.png", ".hidden.png"):
        (cat / name).write_bytes(b"\0")
    (cat / ".ipynb_checkpoints").mkdir()
    Image.fromarray(RGB).save(cat / ".ipynb_checkpoints" / "0-checkpoint.png")
    (root / "train" / "__MACOSX").mkdir()
    (root / "train" / ".git").mkdir()
    found = read(Data("folder", root), "train")
    assert (len(found.images), found.classes) == (4, ("cat", "dog"))
    assert capsys.readouterr().out == ""


BROKEN = {
    "empty": lambda content: b"",
    "text": lambda content: b"no image",
    "truncated": lambda content: content[: len(content) // 2],
}


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named_before_anything_trains(root, kind, suffix):
    path = root / "train" / "dog" / f"9.{suffix}"
    Image.fromarray(np.tile(RGB, (8, 8, 1))).save(path)
    path.write_bytes(BROKEN[kind](path.read_bytes()))
    with pytest.raises(DataError, match=rf"train/dog/9\.{suffix} is not a readable image") as found:
        read(Data("folder", root, resolution=8, colour="rgb"), "train")
    assert "\n" not in str(found.value)


def test_an_image_that_may_not_be_read_is_named(root, monkeypatch):
    def closed(path):
        raise PermissionError(13, "Permission denied", path)

    path = root / "train" / "dog" / "1.png"
    opened = Image.open
    images = read(Data("folder", root, memory="stream"), "train").images
    assert isinstance(images, OnDisk)
    guarded = images._source._replace(opened=lambda p: (closed if p == str(path) else opened)(p))
    monkeypatch.setattr(images, "_source", guarded)
    with pytest.raises(DataError, match=r"dog/1\.png is not a readable image: .*Permission denied"):
        images.take(torch.arange(4))


def test_what_streams_is_said_when_it_is_met(root, capsys):
    Image.fromarray(np.dstack([RGB, GREY])).save(root / "train" / "dog" / "1.png")
    images = read(Data("folder", root, colour="rgb", memory="stream"), "train").images
    said = capsys.readouterr().out
    assert said.endswith("dog/1.png have an alpha channel, which is put on white\n")
    images.take(torch.arange(4))
    assert capsys.readouterr().out == ""


def test_a_sample_of_a_shard_without_an_image_is_said(tmp_path, capsys):
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "PNG")
    (tmp_path / "train").mkdir()
    with tarfile.open(tmp_path / "train" / "0.tar", "w") as shard:
        for k in range(2):
            add(shard, f"{k}.png", file.getvalue())
            add(shard, f"{k}.cls", str(k).encode())
        add(shard, "2.gif", b"GIF89a")
        add(shard, "2.cls", b"1")
    assert len(read(Data("folder", tmp_path), "train").images) == 2
    assert "train/0.tar: 1 samples are left out, such as 2" in capsys.readouterr().out


# Classes and sizes ------------------------------------------------------------------------------


def test_a_class_of_one_image_and_a_large_batch_are_said():
    halves = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5])
    labels = torch.tensor([0, 0, 1, 2, 0, 1])
    found = halves_remarks(labels, ("cat", "dog", "owl"), halves, 3)
    assert found == [
        "the validation half has no image of owl: these classes have few images; "
        "--data.stratified divides each class of two or more",
        "batch_size = 3 is more than the 2 images of the validation half: its batches have 2",
    ]
    assert not halves_remarks(labels[:2].repeat(3), ("cat",), halves, 2)


def test_a_search_says_them(root, tutelage):
    code, out, error = tutelage(
        f"search --data {root} --out run --via first-order --channels 2 --cells 3 --epochs 1 "
        "--limit-batches 1 --batch-size 64 --device cpu"
    )
    assert code == 0, error
    assert "batch_size = 64 is more than the 2 images of the validation half" in out


def test_a_class_that_the_test_part_lacks_is_refused_before_training(root):
    check_test_part(Data("folder", root))
    (root / "test" / "dog").rename(root / "test" / "owl")
    with pytest.raises(DataError, match="only one of its parts has the classes dog, owl"):
        check_test_part(Data(str(root)))
    check_test_part(Data(str(root), held_out=1))
    check_test_part(Data("digits"))


@pytest.mark.parametrize(
    "sides",
    [(9, 7), *(pytest.param(each, marks=pytest.mark.slow) for each in ((1, 5), (13, 2)))],
)
def test_odd_and_unequal_sides(root, sides, tutelage):
    for k, path in enumerate(sorted(root.rglob("*.png"))):
        Image.fromarray(np.full((*sides, 3), 10 * k, np.uint8)).save(path)
    assert read(Data("folder", root), "train").images.shape == (3, *sides)
    code, _, error = tutelage(
        f"search --data {root} --out run --channels 2 --cells 3 --epochs 1 --limit-batches 1 "
        "--batch-size 2 --device cpu"
    )
    assert code == 0, error
