"""What the machine gives a process: quotas, affinity, idle CPUs, and how threads wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage import cpus


def system(root: Path, files: dict[str, str]) -> Path:
    """Write files as Linux has them below a root."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V1 = "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "250000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/b/cpu.max": "100000 100000\n"}, 8),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/pod\n0::/\n",
                f"{V1}quota_us": "600000\n",
                f"{V1}period_us": "100000\n",
            },
            6,
        ),
        (
            {
                "proc/self/cgroup": "5:cpuacct,cpu:/pod/inner\n",
                "sys/fs/cgroup/cpu/pod/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/pod/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/pod\n",
                f"{V1}quota_us": "-1\n",
                f"{V1}period_us": "100000\n",
            },
            8,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "0 0\n"}, 8),
        ({"proc/self/cgroup": "nonsense\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 8),
    ],
)
def test_usable_cpus_are_those_of_the_quota(tmp_path, monkeypatch, files, expected):
    monkeypatch.setattr(cpus, "mine", lambda: list(range(8)))
    assert cpus.usable(system(tmp_path, files)) == expected


def test_usable_cpus_are_those_of_the_affinity(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 1, 3}, raising=False)
    assert cpus.mine() == [1, 3, 5]
    assert cpus.usable(tmp_path) == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert cpus.mine() == [0, 1]


def test_two_cpus_of_one_core_are_one_core(tmp_path, monkeypatch):
    monkeypatch.setattr(cpus, "mine", lambda: [0, 1, 2])
    assert cpus.cores(tmp_path) == 3
    place = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    together = {place.format(0): "0,2\n", place.format(1): "1,3\n", place.format(2): "0,2\n"}
    assert cpus.cores(system(tmp_path, together)) == 2


def stat(*idle: int) -> str:
    """Write /proc/stat of CPUs that were idle for so many ticks, of 1000."""
    lines = [f"cpu{n} {1000 - ticks} 0 0 {ticks} 0 0 0 0 0 0" for n, ticks in enumerate(idle)]
    return "\n".join(["cpu 1 2 3 4 5 6 7 8", *lines, "intr 1"])


@pytest.mark.parametrize(
    ("after", "expected"),
    [((20, 20, 20), 2.0), ((20, 0, 20), 1.0), ((10, 5, 0), 0.75), ((0, 0, 20), 0.0)],
)
def test_idle_cpus_are_those_of_ours_that_stand_still(tmp_path, monkeypatch, after, expected):
    """Over 20 ticks; the third CPU is not ours."""
    monkeypatch.setattr(cpus, "mine", lambda: [0, 1])
    system(tmp_path, {"proc/stat": stat(0, 0, 0)})
    clock = iter([100.0, 100.0 + 20 / os.sysconf("SC_CLK_TCK")])
    monkeypatch.setattr(cpus.time, "monotonic", lambda: next(clock))
    later = {"proc/stat": stat(*after).replace("cpu1 1000", "cpu1 1001")}
    monkeypatch.setattr(cpus.time, "sleep", lambda _: system(tmp_path, later))
    assert cpus.idle(root=tmp_path) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text", ["", "cpu0 0 0 0 0 0 0 0 0 0 0", "cpu0 many few", "cpu7 1 1 1 1 1"]
)
def test_a_system_that_does_not_count_says_nothing(tmp_path, text):
    assert cpus.idle(0.0, system(tmp_path, {"proc/stat": text})) is None


# Waiting ----------------------------------------------------------------------------------------


def environment(code: str, **given: str) -> str:
    """Run code in a process of its own; return what OpenMP says of its settings as it begins."""
    unset = {name: text for name, text in os.environ.items() if name not in cpus.WAITING}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**unset, "OMP_DISPLAY_ENV": "verbose", **given},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr


COMMAND = """
import os
from tutelage import cli
try:
    cli.main(["describe", "DARTS_V2"])
finally:
    print({name: os.environ.get(name) for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")})
"""


def test_the_command_lines_threads_soon_sleep_when_they_wait():
    message = environment(COMMAND)
    assert "{'GOMP_SPINCOUNT': '10000', 'OMP_WAIT_POLICY': None}" in message
    if (
        "OPENMP DISPLAY ENVIRONMENT" in message and "GOMP_" in message
    ):  # GNU's, as torch for Linux has it
        assert "GOMP_SPINCOUNT = '10000'" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [("OMP_WAIT_POLICY", "active"), ("GOMP_SPINCOUNT", "7"), ("KMP_BLOCKTIME", "1")],
)
def test_how_the_caller_lets_threads_wait_stays(monkeypatch, name, value):
    for each in cpus.WAITING:
        monkeypatch.setenv(each, "")  # so that it is taken back in the end, whoever sets it
        monkeypatch.delenv(each)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setenv(name, value)
    before = dict(os.environ)
    cpus.wait_asleep()
    assert dict(os.environ) == before
    monkeypatch.delenv(name)
    cpus.wait_asleep()
    assert os.environ["GOMP_SPINCOUNT"] == cpus.SPINS


def test_an_import_sets_no_variable():
    code = """
import os
before = dict(os.environ)
import tutelage, tutelage.cli, tutelage.run.search
assert dict(os.environ) == before
"""
    environment(code)
