"""A test whose process dies, or never returns from a kernel, is one failure that names it."""

from __future__ import annotations

import subprocess
import sys

TESTS = """
import ctypes
import os
import pytest

@pytest.mark.parametrize("number", range(8))
def test_lives(number):
    pass

def test_dies():
    os.abort()

@pytest.mark.timeout(2)
def test_hangs_where_no_signal_is_heard():
    ctypes.CDLL(None).sleep(600)
"""


def test_a_death_and_a_hang_are_one_failure_each(tmp_path, pytestconfig):
    (tmp_path / "test_them.py").write_text(TESTS)
    method = pytestconfig.getini("timeout_method")
    (tmp_path / "pytest.ini").write_text(f"[pytest]\ntimeout = 60\ntimeout_method = {method}\n")
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "worksteal", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "2 failed, 8 passed" in done.stdout
    for name in ("test_dies", "test_hangs_where_no_signal_is_heard"):
        assert f"crashed while running 'test_them.py::{name}'" in done.stdout
