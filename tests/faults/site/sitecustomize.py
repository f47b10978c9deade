"""Faults for the processes that a command starts: this folder is first in PYTHONPATH."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import inject

inject.install()
