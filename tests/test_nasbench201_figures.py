"""NAS-Bench-201's own files: the table answers the published figures."""

from pathlib import Path

import pytest

from test_nasbench201_table import COLUMNS, SKIPS, STRINGS, TABLES, read_csv, real_data
from tutelage.benchmark.build import build
from tutelage.benchmark.nasbench201 import ACCURACIES, Table
from tutelage.benchmark.nats import own_cost
from tutelage.spaces.genotype import Genotype


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    path = tmp_path_factory.mktemp("real") / "nasbench201.table"
    build([Path(TABLES, f"nb201_{name}.csv.xz") for name in ("core", "latency_ms")], path)
    return Table(path)


@real_data
def test_the_benchmark_answers_its_published_figures(real):
    answer = real.query(Genotype.from_nasbench201(SKIPS))
    shown = [f"{answer.accuracy[name]:.2f}" for name in ACCURACIES if name.endswith("200")]
    assert shown == ["39.77", "54.30", "15.03", "15.61", "16.43", "16.32"]
    assert (answer.parameters, answer.flops) == (73_306, 7_783_050)
    best = {}
    for text in STRINGS:
        answer = real.query(Genotype.from_nasbench201(text))
        best |= {name: answer.accuracy[name] for name in ACCURACIES if answer.rank[name] == 1}
    shown = [f"{best[name]:.2f}" for name in ACCURACIES if name.endswith("200")]
    assert shown == ["91.61", "94.37", "73.49", "73.51", "46.73", "47.31"]


@real_data
def test_the_benchmark_is_all_of_its_files(real):
    rows = read_csv(Path(TABLES, "nb201_core.csv.xz"))
    timed = read_csv(Path(TABLES, "nb201_latency_ms.csv.xz"))
    values = {
        name: sorted((float(row[column]) for row in rows), reverse=True)
        for name, column in COLUMNS.items()
    }
    different = 0
    for row, times in zip(rows, timed, strict=True):
        genotype = Genotype.from_nasbench201(row["arch"])
        assert genotype.to_nasbench201() == row["arch"]
        answer = real.query(genotype)
        assert answer.index == int(row["index"]) == int(times.pop("index"))
        assert answer.seeds == int(row["n_seeds"])
        assert answer.accuracy == {name: float(row[COLUMNS[name]]) for name in ACCURACIES}
        assert answer.latency == {device: float(value) for device, value in times.items()}
        assert len(answer.latency) == 27
        for own, column in (("parameters", "params_M"), ("flops", "flops_M")):
            assert getattr(answer, own) / 1e6 == pytest.approx(float(row[f"{column}_arch"]))
            assert getattr(answer, f"{own}_reported") / 1e6 == pytest.approx(float(row[column]))
        assert own_cost(row["arch"]) == {
            key: pytest.approx(float(row[key])) for key in ("params_M_arch", "flops_M_arch")
        }
        different += answer.parameters != answer.parameters_reported
        if answer.index % 500 == 0:
            for name in ACCURACIES:
                assert answer.rank[name] == values[name].index(answer.accuracy[name]) + 1
    assert different == 150
