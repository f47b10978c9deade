"""The report's heat maps of architecture weights."""

import numpy as np
import pytest

from tutelage.report.runs.read import read_run
from tutelage.report.sections.alphas import courses, heat_maps
from tutelage.report.sections.learners import learners
from tutelage.spaces.genotype import DARTS_OPERATIONS, NASBENCH201_OPERATIONS
from tutelage.spaces.published import PUBLISHED
from written_runs import NARROWED, as_before, read_rows, write_rows, write_search


def stage_of(path):
    return read_run(path).search


def drawn(course):
    """The panels of a figure, its texts by place, and its triangles."""
    (axes,) = heat_maps(course).axes
    scale, *panels = axes.images
    assert scale.get_array()[0, 0] == course.weights.min()
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    marks = [line.get_xydata()[0] for line in axes.lines if line.get_marker() == "<"]
    lines = [line.get_xydata() for line in axes.lines if line.get_marker() != "<"]
    return panels, texts, marks, lines


def rows_of(panel, count):
    """The right end of a panel, and the middle of every operation's row."""
    _, right, bottom, top = panel.get_extent()
    return right, [top + (i + 0.5) * (bottom - top) / count for i in range(count)]


def marked(panel, count, marks):
    """Which operations of a panel have a triangle."""
    right, places = rows_of(panel, count)
    return [i for i, y in enumerate(places) if any(np.allclose(m, (right + 3.5, y)) for m in marks)]


def labels(panel, count, texts):
    """What stands left of a panel, operation by operation."""
    left = panel.get_extent()[0]
    _, places = rows_of(panel, count)
    found = {(round(x, 6), round(y, 6)): text for (x, y), text in texts.items()}
    return [found.get((round(left - 4, 6), round(y, 6))) for y in places]


def test_heat_maps_hold_the_weights_of_every_edge(tmp_path):
    stage = stage_of(write_search(tmp_path / "run", epochs=4))
    (course,) = courses(stage)[1, "reduce"]
    assert course.weights.shape == (4, 14, 8) and course.epochs == (0, 1, 2, 3)
    assert np.allclose(course.weights.sum(-1), 1)
    assert course.weights[-1].tolist() == stage.epochs[-1].arch_weights[1]["reduce"]
    assert course.genotype == PUBLISHED["DARTS_V2"]
    panels, texts, marks, lines = drawn(course)
    assert len(panels) == 14 and lines == []
    for edge, panel in enumerate(panels):
        assert np.array_equal(panel.get_array(), course.weights[:, edge].T)
    left, _, _, top = panels[2 + 3 + 1].get_extent()  # after node 2's and 3's edges
    assert texts[left, top - 4] == "$c_{k-1}$ to 4"
    assert len(marks) == 8
    assert marked(panels[2 + 2], 8, marks) == [3]  # 2 to 3 is skip_connect
    first = ["none", "max 3×3", "avg 3×3", "skip", "sep 3×3", "sep 5×5", "dil 3×3", "dil 5×5"]
    assert labels(panels[2], 8, texts) == first  # the second row of panels begins
    assert labels(panels[3], 8, texts) == [None] * 8  # the names left of the row are its own too


def test_every_phase_has_its_epochs_and_every_edge_its_own_operations(tmp_path):
    stage = stage_of(write_search(tmp_path / "run", epochs=9, phases=3))
    history = courses(stage)[1, "normal"]
    assert [course.epochs for course in history] == [(0, 1, 2), (3, 4, 5), (6, 7, 8)]
    assert [course.weights.shape[2] for course in history] == list(NARROWED)
    assert history[0].operations == (DARTS_OPERATIONS,) * 14
    last = history[-1]
    assert last.operations == tuple(
        tuple(names) for names in stage.epochs[-1].operations[1]["normal"]
    )
    panels, texts, marks, _ = drawn(last)
    cell = PUBLISHED["DARTS_V2"].cells["normal"]
    chosen = {
        sum(range(2, 2 + row)) + read: name
        for row, node in enumerate(cell.nodes)
        for name, read in node
    }
    shown = {"none": "none", "skip_connect": "skip", "sep_conv_3x3": "sep 3×3"}
    for edge, (panel, names) in enumerate(zip(panels, last.operations, strict=True)):
        found = labels(panel, 3, texts)
        assert None not in found
        assert [found[i] for i, name in enumerate(names) if name in shown] == [
            shown[name] for name in names if name in shown
        ]
        wanted = [i for i, name in enumerate(names) if chosen.get(edge) == name]
        assert marked(panel, 3, marks) == wanted
    assert len(marks) > 0


def test_the_last_phase_is_open_and_earlier_ones_are_folded(tmp_path):
    stage = stage_of(write_search(tmp_path / "run", epochs=9, phases=3))
    kept, other = learners(stage, 1)
    assert (kept.title, kept.open, other.title, other.open) == (
        "Learner 1, kept",
        True,
        "Learner 0",
        False,
    )
    assert [(phase.title, phase.open) for phase in kept.phases] == [
        ("Phase 1 of 3, epochs 0 to 2: 8 operations on every edge", False),
        ("Phase 2 of 3, epochs 3 to 5: 5 operations on every edge", False),
        ("Phase 3 of 3, epochs 6 to 8: 3 operations on every edge", True),
    ]
    assert [map.caption for map in kept.phases[0].heat_maps] == ["Normal cell", "Reduce cell"]


def test_the_cell_of_nasbench201_has_six_panels_in_three_rows(tmp_path):
    stage = stage_of(write_search(tmp_path / "run", space="nasbench201", epochs=3, learners=1))
    (course,) = courses(stage)[0, "cell"]
    panels, texts, marks, _ = drawn(course)
    corners = [(panel.get_extent()[0], panel.get_extent()[3]) for panel in panels]
    assert [texts[x, y - 4] for x, y in corners] == [
        "$c_{k-1}$ to 1",
        "$c_{k-1}$ to 2",
        "1 to 2",
        "$c_{k-1}$ to 3",
        "1 to 3",
        "2 to 3",
    ]
    columns, down = sorted({x for x, _ in corners}), sorted({y for _, y in corners})
    places = [(down.index(y), columns.index(x)) for x, y in corners]
    assert places == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    assert labels(panels[0], 5, texts) == ["none", "skip", "nor 1×1", "nor 3×3", "avg 3×3"]
    # |nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|
    assert [marked(panel, 5, marks) for panel in panels] == [[3], [3], [2], [1], [0], [4]]


def test_marks_are_those_of_the_epoch_that_an_early_stop_keeps(tmp_path):
    stop = {"reason": "so", "epoch": 1}
    stage = stage_of(
        write_search(tmp_path / "run", space="nasbench201", epochs=5, learners=1, stopped=stop)
    )
    (course,) = courses(stage)[0, "cell"]
    panels, _, marks, lines = drawn(course)
    # of epoch 1: |skip_connect~0|+|skip_connect~0|nor_conv_1x1~1|+|skip_connect~0|none~1|...
    assert [marked(panel, 5, marks) for panel in panels] == [[1], [1], [2], [1], [0], [4]]
    for panel, line in zip(panels, lines, strict=True):
        left, right, bottom, top = panel.get_extent()
        assert line.tolist() == pytest.approx(
            np.array([[left + 0.4 * (right - left), top], [left + 0.4 * (right - left), bottom]])
        )


def test_rows_without_names_take_the_space_s_or_none(tmp_path):
    stage = stage_of(as_before(write_search(tmp_path / "old", space="nasbench201", epochs=2)))
    assert courses(stage)[0, "cell"][0].operations == (NASBENCH201_OPERATIONS,) * 6
    rows = [{k: x for k, x in row.items() if k != "genotype"} for row in read_rows(stage.path)]
    write_rows(stage.path, rows)
    (course,) = courses(stage_of(stage.path))[0, "cell"]
    (axes,) = heat_maps(course).axes
    shown = [text.get_text() for text in axes.texts]
    assert [each for each in shown if "edge" in each] == [f"edge {i}" for i in range(6)]
    assert "operation 4" in shown


def test_operations_dropped_on_the_way_do_not_mix_with_later_ones(tmp_path):
    path = as_before(write_search(tmp_path / "run", epochs=3, learners=1))
    rows = read_rows(path)
    for row in rows:
        if row["event"] == "epoch" and row["epoch"] == 0:
            row["arch_weights"][0]["normal"] = [[0.1] * 10] * 14
    write_rows(path, rows)
    before, after = courses(stage_of(path))[0, "normal"]
    assert before.weights.shape == (1, 14, 10) and after.weights.shape == (2, 14, 8)
    assert before.operations[0][9] == "operation 9" and after.operations[0] == DARTS_OPERATIONS
