"""New images and other labelled sets, by a trained network: predict and test."""

import csv
import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from photographs import make_photographs
from retraining import FILE, SMALL, train
from tutelage.config import Data
from tutelage.data import remarks
from tutelage.data.read import read
from tutelage.records.predictions import Predictions
from tutelage.run.networks.files import about, save_network
from tutelage.run.trained.opened import open_trained
from tutelage.run.trained.predict import Predictor
from tutelage.run.trained.testing import measured_on


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of photographs of two classes, with train and val; not to be written to."""
    return make_photographs(tmp_path_factory.mktemp("images") / "photographs")


@pytest.fixture(scope="module")
def trained(photographs, tmp_path_factory):
    """A network of these photographs; not to be written to."""
    out = tmp_path_factory.mktemp("trained") / "cats"
    settings = replace(SMALL, epochs=1, limit_batches=2, batch_size=4, channels=2, cutout=0)
    data = Data(name=str(photographs), resolution=16, colour="rgb", centre=0.75)
    train(out, settings, data=data)
    return out


def test_predictions_are_those_of_the_test(trained, photographs):
    """The same preprocessing: the files of the test set one by one, with its centre crop."""
    kept = Predictions.read(trained / "predictions.npz")
    found = list(Predictor(trained)([photographs / "val"], top=2, batch_size=5))
    assert len(found) == len(kept.labels) == 16
    for place, each in enumerate(found):
        assert each.classes[0] == kept.classes[kept.predicted[place]]
        assert each.probabilities[0] == pytest.approx(kept.confidence[place], abs=1e-5)
        assert sum(each.probabilities) == pytest.approx(1, abs=1e-5)
        assert f"/{kept.classes[kept.labels[place]]}/" in each.path


def test_preprocessing_is_resize_crop_and_normalisation(trained, tmp_path):
    """Against Pillow and torch alone, for an image that is neither square nor RGB."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 44), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "grey.png")
    (found,) = Predictor(trained)([tmp_path / "grey.png"], top=2)
    details = about(trained)
    assert details.centre == 0.75
    side = 0.75 * 30
    box = (22 - side / 2, 15 - side / 2, 22 + side / 2, 15 + side / 2)
    image = Image.open(tmp_path / "grey.png").convert("RGB")
    pixels = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR, box)) / 255
    x = (pixels - np.array(details.mean)) / np.array(details.std)
    x = torch.from_numpy(x).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        expected = open_trained(trained).network(x).softmax(1)[0]
    assert found.classes[0] == details.classes[int(expected.argmax())]
    assert found.probabilities[0] == pytest.approx(expected.max().item(), abs=1e-5)


def test_deep_images_are_scaled_by_the_white_of_the_training(tmp_path):
    """Tested in the training, by `test` on its folder and by `predict` file by file: the same."""
    noise = np.random.default_rng(0).integers(0, 4096, (2, 16, 8, 8)).astype(np.uint16)
    for place, image in enumerate(noise.reshape(-1, 8, 8)):
        part, label = ("train", "val")[place % 2], "ab"[place % 4 // 2]
        file = tmp_path / "scans" / part / label / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    data = Data(name=str(tmp_path / "scans"), white=4095)
    train(tmp_path / "run", replace(SMALL, epochs=1, limit_batches=2, batch_size=4), data=data)
    (tmp_path / "run" / "run.toml").unlink()
    kept = Predictions.read(tmp_path / "run" / "predictions.npz")
    val = tmp_path / "scans" / "val"
    found = [each.probabilities for each in Predictor(tmp_path / "run")([val], top=2)]
    assert np.sort(kept.probabilities)[:, ::-1] == pytest.approx(np.array(found), abs=1e-3)
    tested = measured_on(open_trained(tmp_path / "run"), Data(name=str(val)))
    assert np.array_equal(tested.found.predicted.numpy(), kept.predicted)
    wrong = open_trained(tmp_path / "run")
    wrong = replace(wrong, details=replace(wrong.details, white=65_535))
    other = measured_on(wrong, Data(name=str(val))).found
    assert not torch.allclose(other.confidence, tested.found.confidence, atol=1e-3)


def test_a_line_an_image(trained, photographs, tutelage, here):
    code, said, error = tutelage(f"predict {trained} {photographs}/val/cat/0.JPEG")
    (each,) = Predictor(trained)([photographs / "val" / "cat" / "0.JPEG"])
    assert (code, error) == (0, "")
    chance = f"{100 * each.probabilities[0]:.1f} %"
    assert said == f"{photographs}/val/cat/0.JPEG: {each.classes[0]} {chance}\n"
    _, said, _ = tutelage(f"predict {trained} {photographs}/val --top 2")
    assert len(said.splitlines()) == 16 and all(x.count(" %") == 2 for x in said.splitlines())


def test_json_and_csv_hold_the_same(trained, photographs, tutelage, refused):
    line = f"predict {trained} {photographs}/val/dog --top 5"
    read = json.loads(tutelage(f"{line} --json")[1])
    rows = list(csv.DictReader(io.StringIO(tutelage(f"{line} --csv")[1])))
    assert len(read) == len(rows) == 8
    assert list(rows[0]) == ["path", "class", "probability", "class_2", "probability_2"]
    for entry, row in zip(read, rows, strict=True):
        assert entry["path"] == row["path"] and entry["class"] == row["class"]
        assert float(row["probability_2"]) == entry["top"][1]["probability"]
        assert entry["probability"] == entry["top"][0]["probability"]
    refused(f"{line} --json --csv", "--json with --csv: give one of them")


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("predict {} clear --json", json.loads),
        ("predict {} clear --csv", lambda text: list(csv.DictReader(io.StringIO(text)))),
        ("predict {} clear", str.splitlines),
        ("test {} --data clear --json", lambda text: [json.loads(text)] * 2),
    ],
)
def test_what_is_said_of_images_is_no_result(line, read, trained, tutelage, here, monkeypatch):
    """So that JSON and CSV can be read where an image is converted."""
    monkeypatch.setattr(remarks, "_known", set())  # each is said once in a process
    for label in ("cat", "dog"):
        (here / "clear" / label).mkdir(parents=True)
        Image.new("RGBA", (20, 20), (9, 9, 9, 9)).save(here / "clear" / label / "0.png")
    code, said, error = tutelage(line.format(trained))
    assert code == 0 and len(read(said)) == 2 and "alpha" not in said
    assert "have an alpha channel, which is put on white" in error


def test_unreadable_images_are_named_and_the_rest_is_predicted(
    trained, photographs, tutelage, here
):
    folder = here / "mixed"
    shutil.copytree(photographs / "val" / "cat", folder)
    (folder / "3a.jpg").write_bytes((folder / "3.JPEG").read_bytes()[:200])
    (folder / "4a.png").write_bytes(b"")
    (here / "empty").mkdir()
    code, said, error = tutelage(f"predict {trained} mixed nowhere.png empty")
    assert code == 1 and len(said.splitlines()) == 8
    lines = error.splitlines()
    assert all(line.startswith("tutelage: ") for line in lines) and len(lines) == 5
    parts = ("3a.jpg is", "4a.png is", "nowhere.png does not exist", "empty holds no images")
    for line, part in zip(lines, (*parts, "4 of the given paths could not be"), strict=True):
        assert part in line
    code, said, _ = tutelage(f"predict {trained} mixed --json --batch-size 3")
    assert code == 1 and len(json.loads(said)) == 8


def test_mistakes_of_a_prediction_are_one_sentence(trained, photographs, refused, run):
    refused("predict run x.png", r"run has no network\.safetensors: make it with")
    refused(f"predict {trained} x.png --top 0", "top = 0: must be")
    refused(f"predict {trained}", "predict needs")
    refused(f"describe {trained}/{FILE}", f"{FILE} holds a network: give its folder")


def test_a_test_of_the_runs_own_images_is_that_of_the_retraining(trained):
    result = json.loads((trained / "result.json").read_text(encoding="utf-8"))
    found = measured_on(open_trained(trained)).as_dict()
    assert found["accuracy"] == result["test_accuracy"] and found["images"] == 16
    assert found["loss"] == pytest.approx(result["test_loss"], rel=1e-6)


def test_digits_are_tested_as_they_were(retrained):
    result = json.loads((retrained / "result.json").read_text(encoding="utf-8"))
    tested = measured_on(open_trained(retrained), Data(name="digits"))
    assert tested.as_dict()["accuracy"] == result["test_accuracy"]
    assert tested.as_text().startswith(f"accuracy {100 * result['test_accuracy']:.2f} % of 599")


def test_all_images_of_another_folder_are_tested(trained, photographs, tutelage, here):
    """Of one image of a class too; the figures are their definition, from single predictions."""
    other = here / "other"
    shutil.copytree(photographs / "val" / "dog", other / "dog")
    for name in ("cat", "__MACOSX"):  # the second is no class: a system's program left it
        (other / name).mkdir()
        shutil.copy(photographs / "val" / "cat" / "0.JPEG", other / name)
    code, said, _ = tutelage(f"test {trained} --data other --json")
    found = json.loads(said)
    assert code == 0 and found["images"] == 9 and found["classes"] == ["cat", "dog"]
    predicted = {x.path: x.classes[0] for x in Predictor(trained)([other])}
    pairs = [(path.split("/")[-2], taken) for path, taken in predicted.items()]
    expected = [[pairs.count((a, b)) for b in ("cat", "dog")] for a in ("cat", "dog")]
    assert found["confusion"] == expected
    assert found["accuracy"] == sum(a == b for a, b in pairs) / 9
    assert found["by_class"]["dog"]["recall"] == expected[1][1] / 8
    text = tutelage(f"test {trained} --data other")[1]
    assert text.startswith(f"accuracy {100 * found['accuracy']:.2f} % of 9 images")


def test_labels_are_matched_by_name(trained, photographs, here):
    """A network that has the same classes in another order has the same figures."""
    folder = here / "turned"
    folder.mkdir()
    opened = open_trained(trained)
    network, details = opened.network, opened.details
    linear = network.get_classifier()
    linear.weight.data, linear.bias.data = linear.weight.data.flip(0), linear.bias.data.flip(0)
    save_network(folder / FILE, network, replace(details, classes=details.classes[::-1]))
    data = Data(name=str(photographs))
    ours, theirs = (measured_on(open_trained(x), data).as_dict() for x in (trained, folder))
    assert ours["by_class"] == theirs["by_class"] and ours["loss"] == pytest.approx(theirs["loss"])
    assert theirs["classes"] == ["dog", "cat"]


def test_other_classes_and_shapes_are_one_sentence(trained, photographs, retrained, refused, here):
    shutil.copytree(photographs / "val", here / "other")
    (here / "other" / "dog").rename(here / "other" / "wolf")
    refused(f"test {trained} --data other", "other classes .*: it has wolf, it lacks dog")
    network = open_trained(retrained)
    details = replace(network.details, shape=(1, 9, 8))
    (here / "odd").mkdir()
    save_network(here / "odd" / FILE, network.network, details)
    refused("test odd --data digits", r"images of digits are 8 x 8 grey, .* takes 8 x 9 grey")
    refused("test odd", "odd has no run.toml, which would name its test images: give --data")
    (here / "nothing").mkdir()
    refused(f"test {trained} --data nothing", "nothing holds no images by class")
    refused(f"test {trained} --data nowhere", "unknown data set 'nowhere'")


def test_a_broken_image_of_a_test_is_named(trained, photographs, refused, here):
    shutil.copytree(photographs / "val", here / "other")
    (here / "other" / "cat" / "5.JPEG").write_bytes(b"no image")
    refused(f"test {trained} --data other", r"cat/5\.JPEG is not a readable image")


def test_a_folder_without_parts_is_tested_whole_unless_it_was_trained_on(here):
    make_photographs(here / "images", 10)
    flat = here / "flat"
    shutil.move(here / "images" / "train", flat)
    data = Data(name=str(flat), resolution=8, colour="rgb")
    settings = replace(SMALL, epochs=1, limit_batches=1, batch_size=4, channels=2, cutout=0)
    result = train(here / "out", settings, data=data)
    opened = open_trained(here / "out")
    assert len(read(data, "test").images) == result["test_images"] == 4
    for own in (None, Data(name=str(flat)), Data(name="folder", root=flat)):
        assert measured_on(opened, own).as_dict()["accuracy"] == result["test_accuracy"]
    other = shutil.copytree(flat, here / "other")
    assert measured_on(opened, Data(name=str(other))).as_dict()["images"] == 20


def test_a_damaged_run_toml_does_not_hinder_a_prediction(
    trained, photographs, tutelage, refused, here
):
    shutil.copytree(trained, here / "run")
    (here / "run" / "run.toml").write_text("= damaged", encoding="utf-8")
    assert tutelage(f"predict run {photographs}/val/cat")[0] == 0
    refused("test run", r"run\.toml is damaged")


@pytest.mark.slow
def test_from_a_folder_of_images_to_their_classes(photographs, tutelage, here):
    """Every command of docs/using-a-network.md but the exports of other formats, one by one."""
    shutil.copytree(photographs, here / "birds")
    read = "--data.resolution 16 --data.colour rgb"
    lines = (
        f"search --quick --via first-order --data birds {read} --out runs/birds",
        "retrain runs/birds",
        "predict runs/birds birds/val/cat --top 3",
        "test runs/birds",
        "test runs/birds --data birds/val --json",
        "report runs/birds",
        "export runs/birds --out card",
        "predict card birds/val/cat --top 3",
        "retrain runs/birds --from runs/birds --data birds/train",
        "retrain card/genotype.json --from card --data birds --out new --epochs 1 --batch-size 4",
        "retrain DARTS_V2 --from card --data birds --out other --epochs 1",
    )
    said = {}
    for line in lines[:-1]:
        code, said[line], error = tutelage(line)
        assert code == 0, error
    assert said[lines[2]] == said[lines[7]] and said[lines[2]].count("\n") == 8
    assert json.loads(said[lines[4]])["images"] == 16
    assert "its classifier too, for the same 2 classes" in said[lines[8]]
    assert "its classifier too" in said[lines[9]]
    assert "Most surely wrong" in (here / "runs" / "birds" / "report.html").read_text()
    code, _, error = tutelage(lines[-1])
    assert code == 1 and "its network has another architecture" in error
