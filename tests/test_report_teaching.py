"""The report's section of who teaches whom, and its costs within a budget."""

import math
import re

import numpy as np
import pytest

from test_report import report
from tutelage.report.runs.read import read_run
from tutelage.report.sections.contents import cost_lines
from tutelage.report.sections.teaching import (
    first_stage,
    label_lines,
    matrix,
    mean_matrix,
    pair_lines,
    teaching,
)
from written_runs import read_rows, write_rows, write_search

CAPTIONS = [
    "Gate of every pair (0: no teaching)",
    "Mean gate over all epochs",
    "Transfer loss of every pair",
    "Mean transfer loss over all epochs",
    "Accuracy of the labels that every learner gives (%)",
    "Entropy of the labels that every learner gives (nats)",
    "Images on which two learners agree (%)",
]


def stage_of(path):
    return read_run(path).search


def gate(epoch, count):
    """Learner k takes k + j / 10 + epoch / 100 of peer j, of itself nothing."""
    return [
        [0.0 if k == j else k + j / 10 + epoch / 100 for j in range(count)] for k in range(count)
    ]


def write_taught(path, count, epochs=3, **changed):
    """Write a run as PAMKD leaves it; the genotypes are of learners of another run."""
    write_search(path, learners=2, epochs=epochs, **changed)
    written = read_rows(path)
    for row in written:
        row["learners"] = [dict(row["learners"][0]) for _ in range(count)]
        epoch = row.get("epoch", 0)
        if row["event"] == "epoch":
            transfer = [[2 * x for x in peers] for peers in gate(epoch, count)]
            row["teaching"] = {"gate": gate(epoch, count), "transfer": transfer}
            row["teaching"]["agreement"] = 0.25 + epoch / 8
            for k, scores in enumerate(row["learners"]):
                scores |= {"label_accuracy": 0.5 + k / 8, "label_entropy": 2.0 - epoch / 4}
        if row["event"] == "end":
            for k, scores in enumerate(row["learners"]):
                scores |= {"first_accuracy": 0.75 + k / 50, "valid_accuracy": 0.76}
    write_rows(path, written)
    return path


def changed(path, change):
    """Change every epoch's row of a run."""
    written = read_rows(path)
    for row in written:
        if row["event"] == "epoch":
            change(row)
    write_rows(path, written)
    return stage_of(path)


def cells(figure):
    """The numbers of a matrix, left to right, by the height at which they stand."""
    (axes,) = figure.axes
    rows = {}
    for text in sorted(axes.texts, key=lambda text: text.get_position()):
        rows.setdefault(round(text.get_position()[1]), []).append(text.get_text())
    return [rows[y] for y in sorted(rows)]


def heights(svg):
    """The numbers along a plot's upright axis."""
    written = re.findall(r"<text>(.*?)</text>", svg, re.DOTALL)
    ticks = [re.sub(r"<[^>]*>|\s", "", text) for text in written]
    return [float(text) for text in ticks if "." in text]


def shades(figure):
    """How dark the cells are, row by row."""
    (axes,) = figure.axes
    return [patch.get_alpha() for patch in axes.patches if patch.get_alpha() is not None]


def test_every_ordered_pair_has_its_curve_in_the_colour_of_the_one_that_teaches(tmp_path):
    stage = stage_of(write_taught(tmp_path / "run", 3))
    by_learner = pair_lines(stage, "gate")
    lines = {line.label: line for each in by_learner for line in each}
    assert [len(each) for each in by_learner] == [2, 2, 2]
    assert lines["learner 2 from 1"].x == [0, 1, 2]
    assert lines["learner 2 from 1"].y == pytest.approx([2.1, 2.11, 2.12])
    assert lines["learner 1 from 2"].y == pytest.approx([1.2, 1.21, 1.22])
    assert lines["learner 0 from 2"].colour == lines["learner 1 from 2"].colour
    assert lines["learner 0 from 1"].colour != lines["learner 0 from 2"].colour
    assert len({(line.colour, line.dashed) for line in lines.values()}) == 6
    taught = [line for each in pair_lines(stage, "transfer") for line in each]
    assert [line.label for line in taught] == list(lines)
    assert taught[-1].y == pytest.approx([4.2, 4.22, 4.24])


def test_labels_have_a_curve_for_every_learner_in_its_own_colour(tmp_path):
    stage = stage_of(write_taught(tmp_path / "run", 3))
    lines = label_lines(stage, "label_accuracy", 100)
    assert [line.y for line in lines] == [[50] * 3, [62.5] * 3, [75] * 3]
    assert label_lines(stage, "label_entropy", 1)[2].y == [2, 1.75, 1.5]
    assert lines[1].colour == pair_lines(stage, "gate")[0][0].colour


def test_the_matrix_has_the_means_of_all_epochs(tmp_path):
    stage = stage_of(write_taught(tmp_path / "run", 3))
    mean = mean_matrix(stage, "gate")
    wanted = [[math.nan, 0.11, 0.21], [1.01, math.nan, 1.21], [2.01, 2.11, math.nan]]
    assert np.allclose(mean, wanted, equal_nan=True)
    figure = matrix(mean)
    assert cells(figure) == [
        ["from 0", "from 1", "from 2"],
        ["learner 0", "–", "0.110", "0.210"],
        ["learner 1", "1.01", "–", "1.21"],
        ["learner 2", "2.01", "2.11", "–"],
    ]
    dark = np.reshape(shades(figure), (3, 3))
    assert np.diag(dark).tolist() == [0, 0, 0]
    assert dark[2, 1] == dark.max() == 0.5
    assert (dark[mean > 1.5] > dark[0, 1]).all()


def test_what_a_learner_attends_to_of_itself_stands_in_the_matrix(tmp_path):
    def attend(row):
        row["teaching"] = {"attention": [[0.625, 0.375], [0.25 + row["epoch"] / 8, 0.75]]}

    stage = changed(write_taught(tmp_path / "run", 2), attend)
    mean = mean_matrix(stage, "attention")
    assert mean.tolist() == [[0.625, 0.375], [0.375, 0.75]]
    assert cells(matrix(mean))[1] == ["learner 0", "0.625", "0.375"]
    assert [each.caption for each in teaching(stage)][:2] == [
        "Attention of every pair",
        "Mean attention over all epochs",
    ]


def test_the_page_shows_all_of_it(tmp_path):
    run = write_taught(tmp_path / "run", 2)
    assert [each.caption for each in teaching(stage_of(run))] == CAPTIONS
    page = report(tmp_path, run)
    section = page.text[page.text.index("Who teaches whom") : page.text.index("Alphas")]
    places = [section.index(caption) for caption in CAPTIONS]
    assert places == sorted(places)
    assert "over all epochs from 0 from 1 learner 0 – 0.110 learner 1 1.01 –" in section
    assert "over all epochs from 0 from 1 learner 0 – 0.220 learner 1 2.02 –" in section
    assert section.count("learner 1 from 0") == section.count("learner 0 from 1") == 2
    assert "learner first stage taught difference in points" in section
    assert "learner 0 75.00 % 76.00 % +1.00 learner 1, kept 77.00 % 76.00 % −1.00" in section


def test_more_learners_have_a_plot_each_on_one_scale(tmp_path):
    stage = stage_of(write_taught(tmp_path / "run", 4))
    captions = [each.caption for each in teaching(stage)]
    assert captions[:5] == [
        *(f"Gate of learner {k} (0: no teaching)" for k in range(4)),
        "Mean gate over all epochs",
    ]
    first, *_, last = [each.svg for each in teaching(stage)][:4]
    assert heights(first) == heights(last) and heights(first)[-1] == 3
    assert not any(line.dashed for each in pair_lines(stage, "gate") for line in each)


def test_values_may_be_missing(tmp_path):
    def lose(row):
        if row["epoch"] == 0:
            del row["teaching"]
        if row["epoch"] == 1:
            row["teaching"] = {"gate": [[0.0, None], [float("nan")]], "transfer": None}
            row["learners"] = [{}, {"label_accuracy": 0.5}]
        if row["epoch"] == 2:
            row["teaching"] = {"gate": [[0.0, 0.5], [None, 0.0]]}

    run = write_taught(tmp_path / "run", 2, epochs=4)
    stage = changed(run, lose)
    (first,), (second,) = pair_lines(stage, "gate")
    assert first.y == pytest.approx([math.nan, math.nan, 0.5, 0.13], nan_ok=True)
    assert second.y == pytest.approx([math.nan, math.nan, math.nan, 1.03], nan_ok=True)
    mean = mean_matrix(stage, "gate")
    assert (mean[0, 1], mean[1, 0]) == pytest.approx(((0.5 + 0.13) / 2, 1.03))
    assert label_lines(stage, "label_accuracy", 100)[1].y == [62.5, 50, 62.5, 62.5]
    assert "Who teaches whom" in report(tmp_path, run).text


def test_gates_that_never_open_are_drawn(tmp_path):
    def close(row):
        row["teaching"] = {"gate": [[0.0, 0.0], [0.0, 0.0]]}

    stage = changed(write_taught(tmp_path / "run", 2), close)
    plotted, mean = list(teaching(stage))[:2]
    assert [plotted.caption, mean.caption] == CAPTIONS[:2]
    assert cells(matrix(mean_matrix(stage, "gate")))[1:] == [
        ["learner 0", "–", "0"],
        ["learner 1", "0", "–"],
    ]


def test_a_run_without_teaching_has_no_section(tmp_path):
    run = write_search(tmp_path / "run", epochs=2)
    stage = stage_of(run)
    assert list(teaching(stage)) == [] and first_stage(stage, 1) == []
    text = report(tmp_path, run).text
    assert "Who teaches whom" not in text and "First stage" not in text
    assert "of the final network (millions)" not in text


def test_accuracies_of_the_first_stage_that_are_not_all_there(tmp_path):
    run = write_taught(tmp_path / "run", 3)
    written = read_rows(run)
    one, two, three = written[-1]["learners"]
    one |= {"first_accuracy": 0.0}
    del two["first_accuracy"], three["valid_accuracy"]
    write_rows(run, written)
    assert first_stage(stage_of(run), 0) == [
        ("learner 0, kept", "0.00 %", "76.00 %", "+76.00"),
        ("learner 2", "79.00 %", "–", "–"),
    ]
    write_rows(run, written[:-1])
    assert first_stage(stage_of(run), 0) == []
    assert "First stage" not in report(tmp_path, run).text


def test_costs_within_a_budget_have_their_curves_and_their_limit(tmp_path):
    def cost(row):
        epoch = row["epoch"]
        read = {"params": 2_000_000, "flops": 250_000_000 + epoch, "latency": 2.5}
        expected = {"params": 3_500_000, "flops": 400_000_000 - 50_000_000 * epoch, "latency": 3.5}
        row["cost"] = [{"expected": expected, "derived": read}] * (2 if epoch else 1)

    run = write_search(tmp_path / "run", epochs=3, max_flops=300.0)
    stage = changed(run, cost)
    lines = {line.label: line for line in cost_lines(stage, "flops", "max_flops")}
    assert list(lines) == [
        "derived, learner 0",
        "expected, learner 0",
        "derived, learner 1",
        "expected, learner 1",
        "limit",
    ]
    assert lines["expected, learner 0"].y == [400, 350, 300]
    assert lines["expected, learner 1"].y == pytest.approx([math.nan, 350, 300], nan_ok=True)
    assert lines["derived, learner 0"].y == [250, 250.000001, 250.000002]
    assert lines["limit"].y == [300] * 3
    weights = cost_lines(stage, "params", "max_params")
    assert [line.y[2] for line in weights] == [2, 3.5, 2, 3.5]
    latencies = cost_lines(stage, "latency", "max_latency", 1.0)
    assert [line.y[2] for line in latencies] == [2.5, 3.5, 2.5, 3.5]
    text = report(tmp_path, run).text
    assert "FLOPs of the final network (millions)" in text
    assert "Parameters of the final network (millions)" in text
    assert "Latency of the final network (ms)" in text
