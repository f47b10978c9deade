"""NATS-Bench's official files: what is read of them, and what is refused."""

import statistics
import sys

import pytest

from test_nasbench201_table import SKIPS, STRINGS, fails, synthetic, write_csv
from tutelage.benchmark.build import CORE
from tutelage.benchmark.nats import build_from_api, own_cost, read_rows


def test_pickles_are_not_opened_without_leave(tmp_path):
    path, canary = tmp_path / "NATS.pickle.pbz2", tmp_path / "canary"
    path.write_bytes(b"cposix\nsystem\n(S'touch %b'\ntR." % str(canary).encode())
    call = lambda: build_from_api(path, tmp_path / "out")  # noqa: E731
    fails(call, "is a pickle", "runs any code", "--trust-pickle", "CSV")
    assert not canary.exists()


def test_the_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nats_bench", None)
    call = lambda: build_from_api(tmp_path, tmp_path / "out", trust_pickle=True)  # noqa: E731
    fails(call, "pip install 'tutelage[bench]'")


NATS_EPOCHS = 3  # of 12 and 200, which only the keys name
NATS_SETS = {
    "cifar10-valid": ("x-valid", "ori-test"),
    "cifar10": ("ori-test",),
    "cifar100": ("x-valid", "x-test", "ori-test"),
    "ImageNet16-120": ("x-valid", "x-test", "ori-test"),
}


def nats_results(nats_bench, index, text, hp):
    """An architecture's results in the package's own classes, with figures that tell all apart."""
    results = nats_bench.ArchResults(index, text)
    for place, (name, tested) in enumerate(NATS_SETS.items()):
        for seed in (777, 888) if hp == "200" else (777,):
            one = nats_bench.ResultsCount(
                name, None, {}, {}, 0.1 + index, 10.0 + index + place, {}, seed, NATS_EPOCHS, None
            )
            accuracies = {
                f"{each}@{epoch}": figure(index, place, each, hp, seed) + 5 * (epoch - 2)
                for each in tested
                for epoch in range(NATS_EPOCHS)
            }
            times = dict.fromkeys(accuracies, 1.0)
            one.update_train_info({}, {}, {}, dict.fromkeys(range(NATS_EPOCHS), 2.0 + place))
            one.update_eval(accuracies, dict(accuracies), times)
            results.update(name, seed, one)
    return results.state_dict()


def figure(index, place, tested, hp, seed):
    return 20 + index + place * 7 + len(tested) + int(hp) / 100 + seed / 1000


@pytest.fixture
def nats(tmp_path):
    """A miniature of the official archive, of four architectures, in both of its forms."""
    nats_bench = pytest.importorskip("nats_bench", reason="the extra `bench` is not installed")
    texts = [STRINGS[7], SKIPS, STRINGS[-1], STRINGS[4321]]
    results = [
        {hp: nats_results(nats_bench, index, text, hp) for hp in ("12", "200")}
        for index, text in enumerate(texts)
    ]
    folder = tmp_path / "NATS-tss-simple"
    folder.mkdir()
    save = nats_bench.pickle_save
    save({"meta_archs": texts, "evaluated_indexes": range(4)}, folder / "meta.pickle")
    for index, each in enumerate(results):
        save(each, folder / f"{index:06d}.pickle")
    whole = {"meta_archs": texts, "evaluated_indexes": [0, 1, 2, 3]}
    save(whole | {"arch2infos": dict(enumerate(results))}, tmp_path / "NATS-tss.pickle")
    return texts, folder, tmp_path / "NATS-tss.pickle.pbz2"


def test_the_official_package_gives_every_column(nats):
    from nats_bench import create

    texts, folder, file = nats
    for path in (folder, file):
        rows = list(read_rows(create(str(path), "tss", fast_mode=path.is_dir(), verbose=False)))
        assert [row["arch"] for row in rows] == texts
        for index, row in enumerate(rows):
            assert set(row) == set(CORE)
            for name, place, tested in (
                ("c10_valid", 0, "x-valid"),
                ("c10_test", 1, "ori-test"),
                ("c100_valid", 2, "x-valid"),
                ("c100_test", 2, "x-test"),
                ("in16_valid", 3, "x-valid"),
                ("in16_test", 3, "x-test"),
            ):
                mean = statistics.fmean(
                    figure(index, place, tested, "200", seed) for seed in (777, 888)
                )
                assert row[f"{name}_200"] == pytest.approx(mean)
                assert row[f"{name}_12"] == figure(index, place, tested, "12", 777)
            assert (row["index"], row["n_seeds"]) == (index, 2)
            assert (row["params_M"], row["flops_M"]) == (0.1 + index, 11 + index)
            assert row["flops_M_in16"] == 13 + index
            assert row["train_s_c10valid_200"] == 2 * NATS_EPOCHS
            assert row["train_s_c100_200"] == 4 * NATS_EPOCHS
            assert row["train_s_in16_200"] == 5 * NATS_EPOCHS
            assert {key: row[key] for key in own_cost(texts[index])} == own_cost(texts[index])


def test_official_files_that_are_not_whole_are_refused(nats, tmp_path):
    _, folder, file = nats
    core = write_csv(tmp_path / "core.csv", synthetic())
    out = tmp_path / "out.table"

    def call(path, **more):
        return lambda: build_from_api(path, out, trust_pickle=True, **more)

    fails(call(file), str(file), "4 of 15,625 architectures: index 4 is missing")
    fails(call(folder, latency_files=[core]), "has architectures", "only latencies")
    (folder / "000002.pickle.pbz2").unlink()
    fails(call(folder), "does not hold NATS-Bench's topology files")
    file.write_bytes(file.read_bytes()[:-99])
    fails(call(file), "does not hold NATS-Bench's topology files")
    fails(call(tmp_path / "none"), "does not hold NATS-Bench's topology files")
    assert not out.exists()
