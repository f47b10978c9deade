"""The report of a study: its numbers recomputed by hand, its files, its warnings, its page."""

import csv
import json
import re
import tomllib

import numpy as np
import pytest
from scipy import stats

from tutelage.report.page import write_report
from tutelage.study.jobs import Outcome, prepare
from tutelage.study.reading import study_of
from tutelage.study.results.compare import warnings
from tutelage.study.results.dots import figure_of
from tutelage.study.results.page import report_of, write_study_report
from written_runs import write_retraining, write_search

SEEDS = (1, 2, 3, 4)
ERRORS = {
    "single": (0.0270, 0.0281, 0.0265, 0.0274),
    "sgl": (0.0255, 0.0262, 0.0252, 0.0261),
    "lbt_100%": (0.0271, 0.0262, 0.0284, 0.0259),
}
FIGURES = "n mean sd low high pairs p p_holm effect".split()
TEXT = """
[study]
about = "Is one taught by another better?"
seeds = [1, 2, 3, 4]
baseline = "single"
[configurations.single]
method.name = "single"
[configurations.sgl]
method.name = "sgl"
[configurations.lbt_100pc]
method.name = "lbt"
"""


def written(folder, errors, text=TEXT):
    """A study whose runs have these test errors."""
    jobs = prepare(study_of(tomllib.loads(text)), folder)
    for job in jobs:
        place = job.seed - 1
        own = errors.get(job.configuration.replace("100pc", "100%"), ())
        if place >= len(own):
            continue
        write_search(job.run, seed=job.seed, method="single", learners=1, epochs=2)
        write_retraining(job.run / "retrain", error=own[place], seed=job.seed)
        job.write(Outcome(memory={"search": 2**30, "retrain": 3 * 2**29}))
    return folder


@pytest.fixture
def study(tmp_path):
    return written(tmp_path / "study", ERRORS)


def csv_rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_numbers_are_those_of_scipy(study):
    write_study_report(study, study / "report.html")
    rows = {
        row["configuration"]: {key: float(row[key]) for key in FIGURES if row[key]}
        for row in csv_rows(study / "report.csv")
        if row["measure"] == "test error (%)"
    }
    base, sgl, lbt = (100 * np.array(x) for x in ERRORS.values())
    tests = [stats.ttest_rel(x, base) for x in (sgl, lbt)]
    holm = (min(1, 2 * tests[0].pvalue), tests[1].pvalue)  # the smaller one counts twice
    assert tests[0].pvalue < tests[1].pvalue
    for name, own, test, corrected in zip(
        ("sgl", "lbt_100pc"), (sgl, lbt), tests, holm, strict=True
    ):
        row = rows[name]
        assert (row["n"], row["pairs"]) == (4, 4)
        assert row["mean"] == pytest.approx(own.mean())
        assert row["sd"] == pytest.approx(own.std(ddof=1))
        interval = stats.t.interval(0.95, 3, loc=own.mean(), scale=stats.sem(own))
        assert (row["low"], row["high"]) == pytest.approx(interval)
        assert row["p"] == pytest.approx(test.pvalue)
        assert row["p_holm"] == pytest.approx(corrected)
        assert row["effect"] == pytest.approx((own - base).mean() / (own - base).std(ddof=1))
    assert "p" not in rows["single"]


def test_the_bootstrap_in_place_of_t(tmp_path, tutelage):
    """Its intervals of means and of differences; too few seeds have none, and are named."""
    draw = np.random.default_rng(4)
    errors = {name: tuple(draw.exponential(0.02, 12)) for name in ("single", "sgl")}
    errors["lbt_100%"] = errors["sgl"][:6]
    text = TEXT.replace("[1, 2, 3, 4]", str([*range(1, 13)]))
    folder = written(tmp_path / "study", errors, text)
    code, printed, _ = tutelage(f"report {folder} --interval bootstrap --out {folder}/b.html")
    assert code == 0 and "95 % interval, bootstrap" in printed
    assert "by the bootstrap (BCa" in (folder / "b.html").read_text()
    rows = {row["configuration"]: row for row in csv_rows(folder / "b.csv")[:3]}
    base, sgl = (100 * np.array(errors[name]) for name in ("single", "sgl"))
    for low, high, values in (
        ("low", "high", sgl),
        ("difference_low", "difference_high", sgl - base),
    ):
        expected = stats.bootstrap((values,), np.mean, rng=np.random.default_rng(0))
        found = (float(rows["sgl"][low]), float(rows["sgl"][high]))
        assert found == pytest.approx(tuple(expected.confidence_interval))
    assert rows["sgl"]["interval"] == "bootstrap"
    assert float(rows["sgl"]["p"]) == pytest.approx(stats.ttest_rel(sgl, base).pvalue)
    assert rows["lbt_100pc"]["low"] == "" and rows["lbt_100pc"]["difference_low"] == ""
    assert "lbt_100pc: fewer than 10 seeds, of which no bootstrap interval is given" in printed
    assert "single, sgl: fewer than 20 seeds, so the bootstrap intervals are too narrow" in printed


def test_time_and_memory_are_costs(study):
    write_study_report(study, study / "report.html")
    found = {
        (row["measure"], row["configuration"]): (row["mean"], row["p"])
        for row in csv_rows(study / "report.csv")
    }
    assert found["search (h)", "sgl"] == (str(5000 / 3600), "")
    assert found["retraining (h)", "sgl"] == ("2.0", "")
    assert found["memory (GiB)", "sgl"] == ("1.5", "")
    main = report_of(study).tables[0]
    assert main.header[-3:] == ("search (h)", "retraining (h)", "memory (GiB)")
    assert main.rows[1][-1] == "1.50 ± 0.00"


def test_the_memory_of_a_gpu_is_a_cost_where_it_is_recorded(study):
    """The largest of all sessions; a run of an earlier release or on a CPU has none."""
    assert "GPU memory (GiB)" not in report_of(study).tables[0].header
    for seed, peaks in ((1, (2.5, 1.0)), (2, (1.5, 4.5)), (3, (None, 2.0))):
        for folder, peak in zip(("", "retrain"), peaks, strict=True):
            file = study / f"sgl/seed-{seed}" / folder / "environment.json"
            found = json.loads(file.read_text())
            first, *_ = found["sessions"]
            bytes_of = None if peak is None else int(peak * 2**30)
            found["sessions"] = [first, {**first, "gpu_memory": bytes_of}]
            file.write_text(json.dumps(found))
    main = report_of(study).tables[0]
    assert main.header[-2:] == ("memory (GiB)", "GPU memory (GiB)")
    assert [row[-1] for row in main.rows] == ["–", "3.00 ± 1.32", "–"]  # of 2.5, 4.5 and 2
    write_study_report(study, study / "report.html")
    rows = csv_rows(study / "report.runs.csv")
    values = [float(x["value"]) for x in rows if x["measure"] == "GPU memory (GiB)"]
    assert values == [2.5, 4.5, 2.0]
    run = study / "sgl/seed-2"
    write_report([run], run / "report.html")
    assert "GPU memory 4.50 GiB" in (run / "report.html").read_text()


def test_every_value_is_in_a_file(study):
    write_study_report(study, study / "report.html")
    rows = csv_rows(study / "report.runs.csv")
    errors = [row for row in rows if row["measure"] == "test error (%)"]
    assert len(errors) == 12
    assert {(row["configuration"], row["seed"]): float(row["value"]) for row in errors}[
        "sgl", "3"
    ] == pytest.approx(2.52)


def test_markdown_and_latex_hold_the_same_cells(study):
    report = write_study_report(study, study / "report.html")
    markdown, latex = ((study / f"report.{x}").read_text() for x in ("md", "tex"))
    for row in report.tables[0].rows:
        assert "| " + " | ".join(row) + " |" in markdown
    lines = markdown[markdown.index("| configuration") :].splitlines()
    lengths = {line.count(" | ") for line in lines[: len(report.tables[0].rows) + 2]}
    assert lengths == {len(report.tables[0].header) - 1}
    assert r"lbt\_100pc & 4 & 2.69 $\pm$ 0.11" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == len(report.tables)
    body = re.findall(r"\\midrule\n(.*?)\\bottomrule", latex, re.DOTALL)[0]
    columns = len(report.tables[0].header)
    assert all(line.count("&") == columns - 1 for line in body.strip().splitlines())


def test_the_page_stands_alone_and_has_a_dot_a_seed(study):
    write_study_report(study, study / "report.html")
    page = (study / "report.html").read_text()
    assert "<h1>Is one taught by another better?</h1>" in page
    assert "12 of 12 runs are done" in page
    assert "not done" not in page
    assert not re.search(r"<script|https?://(?!www\.w3\.org)", page)
    assert "Test error (%): a dot a seed" in page


def test_the_plot_has_a_dot_a_seed(study):
    (found, lines), *_ = report_of(study).measures
    (axes,) = figure_of(found.measure.name, lines, "single").axes
    drawn = [sorted(each.get_offsets()[:, 0]) for each in axes.collections]
    assert drawn == [pytest.approx(sorted(100 * np.array(x))) for x in ERRORS.values()]


def test_equal_values_are_dots_above_one_another(tmp_path):
    folder = written(tmp_path / "study", {"single": (0.5, 0.25, 0.5, 0.5), "sgl": (0.25,) * 4})
    (found, lines), *_ = report_of(folder).measures
    (axes,) = figure_of(found.measure.name, lines, "single").axes
    for place, each in enumerate(axes.collections):
        drawn = {tuple(dot) for dot in each.get_offsets()}
        assert len(drawn) == 4
        assert all(place - 0.25 < height < place + 0.1 for _, height in drawn)


def test_what_is_missing_is_said(tmp_path):
    errors = ERRORS | {"lbt_100%": (0.027,), "sgl": ERRORS["sgl"][:3]}
    folder = written(tmp_path / "study", errors)
    failed = prepare(study_of(tomllib.loads(TEXT)), folder)[-1]
    failed.write(Outcome(failed="no room", doing="search"))
    report = write_study_report(folder, folder / "report.html")
    page = (folder / "report.html").read_text()
    assert "8 of 12 runs are done" in page
    assert "lbt_100pc/seed-4: search: no room" in page
    assert "lbt_100pc has 1 run with this figure: its spread is unknown." in report.warnings
    (line,) = [x for x in report.measures[0][1] if x.name == "sgl"]
    assert (line.sample.n, line.paired.n) == (3, 3)


def test_a_study_of_which_nothing_has_run_has_a_page(tmp_path):
    folder = written(tmp_path / "study", {})
    write_study_report(folder, folder / "report.html")
    assert "No run has any result yet." in (folder / "report.html").read_text()
    assert (folder / "report.runs.csv").read_text().strip() == ""


def test_configurations_without_a_spread_are_named_together(tmp_path):
    folder = written(tmp_path / "study", {"single": (0.25,), "sgl": (0.5,)})
    assert report_of(folder).warnings == [
        "lbt_100pc: no run has this figure.",
        "single, sgl have 1 run each: their spread is unknown.",
    ]


def test_too_few_seeds_are_warned_of_with_how_many_would_do(study):
    (own,) = [x for x in report_of(study).warnings if x.startswith("lbt_100pc is not told apart")]
    base, lbt = np.array(ERRORS["single"]), np.array(ERRORS["lbt_100%"])
    effect = (lbt - base).mean() / (lbt - base).std(ddof=1)
    found = re.search(r"(\d+) seeds find it with a probability of (\d+) %, and (.*?) seeds", own)
    assert found[1] == "4"
    generator = np.random.default_rng(0)  # by simulation
    draws = generator.normal(effect, 1, (100_000, 4))
    share = (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean()
    assert abs(float(found[2]) / 100 - share) < 0.01
    needed = int(found[3].replace(",", ""))
    draws = generator.normal(effect, 1, (2_000, needed))
    assert abs((stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean() - 0.8) < 0.03
    assert not [x for x in report_of(study).warnings if x.startswith("sgl is not told")]


def test_equal_differences_and_common_seeds_are_told(tmp_path):
    folder = written(tmp_path / "a", {"single": (0.25, 0.5), "sgl": (0.5, 0.75)})
    report = report_of(folder)
    sentences = list(warnings(report.measures[0][1], "single"))
    assert any("by the same amount with every seed" in x for x in sentences)
    folder = written(tmp_path / "b", {"single": (0.25, 0.5), "sgl": (0.25, 0.5)})
    sentences = list(warnings(report_of(folder).measures[0][1], "single"))
    assert any("sgl has the same figure as single with every seed" in x for x in sentences)


def test_another_baseline_and_none(study, tutelage):
    code, out, _ = tutelage(f"report {study} --baseline sgl --out page.html")
    assert code == 0 and "minus sgl" in out
    code, _, error = tutelage(f"report {study} --baseline slg")
    assert code == 1 and "did you mean sgl" in error
    file = study / "study.toml"
    file.write_text(file.read_text().replace('baseline = "single"\n', ""))
    assert report_of(study).tables[0].header[:4] == (
        "configuration",
        "n",
        "mean ± sd",
        "95 % interval",
    )
    code, out, _ = tutelage(f"report {study}")
    assert code == 0 and "No baseline is named" in (study / "report.html").read_text()


def test_a_baseline_of_runs_is_refused(study, refused):
    refused(f"report {study}/sgl/seed-1 --baseline sgl", "only the report of one study")
    refused(f"report {study}/sgl/seed-1 --interval bootstrap", "only the report of one study")


def test_answers_of_a_table_are_measures(tmp_path):
    text = TEXT.replace("seeds = [1, 2, 3, 4]", 'seeds = [1, 2]\nthen = ["query"]\ntable = "t"')
    jobs = prepare(study_of(tomllib.loads(text)), tmp_path / "study")
    for job in jobs:
        write_search(job.run, seed=job.seed, space="nasbench201", epochs=2)
        answer = {
            "accuracy": {"cifar10_test_200": 90.0 + job.seed, "cifar100_test_200": 70.0},
            "rank": {"cifar10_test_200": 100 + job.seed},
        }
        (job.run / "query.json").write_text(json.dumps(answer))
    report = report_of(tmp_path / "study")
    names = [found.measure.name for found, _ in report.measures]
    assert names[0] == "NAS-Bench-201, CIFAR-10 test (%)"
    assert report.measures[0][0].values["sgl"] == {1: 91.0, 2: 92.0}
    ranks = next(x for x in report.costs if x.measure.name == "rank of 15,625")
    assert ranks.values["sgl"] == {1: 101.0, 2: 102.0}


def test_the_first_network_of_an_ensemble_is_not_the_configurations(tmp_path):
    text = TEXT.replace("seeds = [1, 2, 3, 4]", 'seeds = [1]\nthen = ["query"]\ntable = "t"')
    for job in prepare(study_of(tomllib.loads(text)), tmp_path / "study"):
        write_search(job.run, seed=job.seed, space="nasbench201", epochs=2)
        answer = {"accuracy": {"cifar10_test_200": 91.0}, "rank": {"cifar10_test_200": 101}}
        (job.run / "query.json").write_text(json.dumps(answer))
        members = {"single": 0, "sgl": 1, "lbt_100pc": 2}[job.configuration]
        kept = [{"learner": k, "genotype": {}} for k in range(members)]
        (job.run / "ensemble.json").write_text(json.dumps({"members": kept}))
    report = report_of(tmp_path / "study")
    one = {1: 91.0}
    assert report.measures[0][0].values == {"single": one, "sgl": one, "lbt_100pc": {}}
    ranks = next(x for x in report.costs if x.measure.name == "rank of 15,625")
    assert ranks.values == {"single": {1: 101.0}, "sgl": {1: 101.0}, "lbt_100pc": {}}


def test_answers_of_a_surrogate_are_measures_that_say_so(tmp_path):
    text = TEXT.replace("seeds = [1, 2, 3, 4]", 'seeds = [1, 2]\nthen = ["query"]\ntable = "t"')
    jobs = prepare(study_of(tomllib.loads(text)), tmp_path / "study")
    for job in jobs:
        write_search(job.run, seed=job.seed, epochs=2)
        answer = {
            "accuracy": {"cifar10_valid_predicted": 91.0 + job.seed},
            "rank": {},
            "caveat": "predicted by a rough model",
        }
        (job.run / "query.json").write_text(json.dumps(answer))
    report = report_of(tmp_path / "study")
    found = report.measures[0][0]
    assert found.measure.name == "NAS-Bench-301, CIFAR-10 valid, by a rough surrogate (%)"
    assert found.values["sgl"] == {1: 92.0, 2: 93.0}
    assert report.warnings[-1] == "Figures of the benchmark are predicted by a rough model."
    assert not any("rank" in x.measure.name for x in report.costs)
