"""What a retraining keeps of its test, and what the report shows of it."""

import json
import shutil
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch

from photographs import make_photographs
from retraining import DIGITS, SMALL, TEST_IMAGES, train
from test_report import report
from tutelage.config import Data
from tutelage.data.read import read
from tutelage.records.predictions import FILE, Predictions
from tutelage.report.figures.tested import matrix
from tutelage.report.runs.read import read_run
from tutelage.report.sections.tested import quality
from tutelage.run.networks.files import about, load
from tutelage.run.trained.measure import SIDE, WORST


def test_a_retraining_keeps_what_its_network_says(retrained):
    found, result = (
        Predictions.read(retrained / FILE),
        json.loads((retrained / "result.json").read_text(encoding="utf-8")),
    )
    images, details = read(DIGITS, "test").images, about(retrained)
    assert found.classes == details.classes and len(found.labels) == TEST_IMAGES
    assert (found.labels == images.labels.numpy()).all()
    right = found.labels == found.predicted
    assert right.mean() == result["test_accuracy"]
    pixels = images.take(torch.arange(len(images))).double() / 255
    x = (pixels - details.mean[0]) / details.std[0]
    with torch.no_grad():
        expected = load(retrained).double()(x).softmax(1).numpy()
    assert np.allclose(found.probabilities, expected, atol=6e-4)
    assert np.allclose(found.confidence, expected.max(1), atol=1e-5)
    own = expected[np.arange(len(expected)), found.labels]
    assert -np.log(own).mean() == pytest.approx(result["test_loss"], rel=1e-4)


def test_the_worst_images_are_kept(retrained):
    found, images = Predictions.read(retrained / FILE), read(DIGITS, "test").images
    wrong = np.flatnonzero(found.labels != found.predicted)
    order = sorted(wrong, key=lambda place: -found.confidence[place])
    assert found.worst.tolist() == order[:WORST] and len(order) > WORST
    taken = images.take(torch.from_numpy(found.worst)).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(found.pictures, taken)
    assert found.names == ()


def test_images_of_a_folder_have_names_and_are_made_small(tmp_path):
    """Of one grey level more than the network has seen, so that some are wrong."""
    root = make_photographs(tmp_path / "photographs")
    data = Data(name=str(root), resolution=2 * SIDE, colour="rgb")
    settings = replace(SMALL, epochs=1, limit_batches=1, batch_size=2, channels=2, cutout=0)
    train(tmp_path / "out", settings, data=data)
    found = Predictions.read(tmp_path / "out" / FILE)
    assert found.classes == ("cat", "dog") and len(found.labels) == 16
    assert found.pictures.shape[1:] == (SIDE, SIDE, 3)
    files = sorted(path.relative_to(root).as_posix() for path in root.glob("val/*/*"))
    assert len(found.names) > 0
    assert found.names == tuple(files[place] for place in found.worst)


def test_a_damaged_file_is_one_sentence(retrained, tmp_path):
    file = tmp_path / FILE
    content = (retrained / FILE).read_bytes()
    for cut in (0, 10, len(content) // 2):
        file.write_bytes(content[:cut])
        with pytest.raises(ValueError, match="it cannot be read"):
            Predictions.read(file)
    for place in range(0, len(content), 97):  # zipfile and zlib have errors of their own
        file.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        with suppress(ValueError):
            Predictions.read(file)
    with np.load(retrained / FILE) as stored:
        arrays = {name: stored[name] for name in stored.files}
    for change, message in (
        ({"version": np.array(9)}, "version 9 and this release reads up to 1"),
        ({"labels": arrays["labels"][:-1]}, "do not fit each other"),
        ({"labels": arrays["labels"] + 1}, "do not fit each other"),
        ({"predicted": arrays["predicted"].astype(float)}, "predicted are of another kind"),
    ):
        np.savez(file, **arrays | change)
        with pytest.raises(ValueError, match=message):
            Predictions.read(file)
    np.savez(file, version=np.array(1))
    with pytest.raises(ValueError, match="it lacks"):
        Predictions.read(file)


def test_the_report_shows_the_test(retrained, tmp_path):
    page = report(tmp_path, retrained)
    found = Predictions.read(retrained / FILE)
    right = int((found.labels == found.predicted).sum())
    assert f"{right} of {TEST_IMAGES} test images are classified correctly" in page.text
    assert "Most surely wrong" in page.text and "expected calibration error" in page.text
    assert page.html.count("data:image/png;base64") >= WORST
    zero = found.labels == 0
    recall = (found.predicted[zero] == 0).mean()
    assert f"{100 * recall:.1f} %" in page.text


@pytest.mark.slow
def test_the_page_of_a_run_from_before_has_no_test(retrained, tmp_path):
    run = shutil.copytree(retrained, tmp_path / "run")
    (run / FILE).unlink()
    assert "Test of the retrained network" not in report(tmp_path, run).text
    (run / FILE).write_bytes(b"PK")
    assert (
        "predictions.npz is damaged and left out: it cannot be read" in report(tmp_path, run).text
    )


def test_many_classes_are_listed_by_their_f1(retrained, tmp_path):
    """Two hundred classes have no matrix, a hundred one without names or numbers."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 200, 2000)
    predicted = np.where(random.random(2000) < 0.7, labels, random.integers(0, 200, 2000))
    found = Predictions(
        tuple(f"class {k}" for k in range(200)),
        np.zeros((2000, 200), np.float16),
        np.full(2000, 0.5, np.float32),
        predicted.astype(np.int32),
        labels.astype(np.int32),
        np.zeros(0, np.int64),
        np.zeros((0, 1, 1, 1), np.uint8),
        (),
    )
    run = shutil.copytree(retrained, tmp_path / "run")
    (run / FILE).write_bytes(found.to_bytes())
    section = quality(read_run(run).retraining)
    assert section["figures"] == [] and section["worst"] == []
    assert len(section["rows"]) == 1 + section["cut"] == 16
    lowest = [float(row[4].split()[0]) for row in section["rows"][1:]]
    assert lowest == sorted(lowest)
    axes = matrix(np.eye(100, dtype=int), [str(k) for k in range(100)]).axes[0]
    assert len(axes.patches) == 101 and len(axes.texts) == 2
