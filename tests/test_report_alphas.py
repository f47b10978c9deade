"""The report's heat maps of a mix."""

import json

import numpy as np

from tutelage.report.alphas import heat_maps, mixes
from tutelage.report.read import read_run
from tutelage.spaces.published import PUBLISHED
from written_runs import write_search


def test_heat_maps_hold_the_weights_of_every_edge(tmp_path):
    stage = read_run(write_search(tmp_path / "run", epochs=4)).search
    mix = mixes(stage)[1, "reduce"]
    assert mix.shape == (4, 14, 8)
    assert np.allclose(mix.sum(-1), 1)
    last = stage.of("epoch")[-1]
    assert mix[-1].tolist() == last["mix"][1]["reduce"]
    (axes,) = heat_maps(mix, "reduce", PUBLISHED["DARTS_V2"], 3).axes
    scale, *panels = axes.images
    assert len(panels) == 14
    assert scale.get_array()[0, [0, -1]].tolist() == [mix.min(), mix.max()]
    for edge, panel in enumerate(panels):
        assert np.array_equal(panel.get_array(), mix[:, edge].T)
    names = {text.get_text(): text.get_position() for text in axes.texts}
    left, right, bottom, top = panels[2 + 3 + 1].get_extent()  # after node 2's and 3's edges
    assert names["$c_{k-1}$ to 4"] == (left, top - 4)
    marks = [line.get_xydata()[0] for line in axes.lines]
    assert len(marks) == 8
    left, right, bottom, top = panels[2 + 2].get_extent()  # 2 to 3, where skip_connect is row 3
    wanted = (right + 3.5, top + 3.5 * (bottom - top) / 8)
    assert sum(np.allclose(mark, wanted) for mark in marks) == 1


def test_alphas_of_an_unknown_space_are_shown_without_names():
    (axes,) = heat_maps(np.full((2, 6, 5), 0.2), "cell", None, 1).axes
    shown = [text.get_text() for text in axes.texts]
    assert [each for each in shown if "edge" in each] == [f"edge {i}" for i in range(6)]
    assert "operation 4" in shown


def test_operations_dropped_on_the_way_do_not_mix_with_later_ones(tmp_path):
    run = write_search(tmp_path / "run", epochs=3, learners=1)
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in found:
        if row["event"] == "epoch" and row["epoch"] == 0:
            row["mix"][0]["normal"] = [[0.1] * 10] * 14
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    assert mixes(read_run(run).search)[0, "normal"].shape == (2, 14, 8)
