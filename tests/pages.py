"""Pages of TOML for tests, and the example's operation."""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from pathlib import Path

from tutelage import trusted

EXAMPLE = Path(__file__).parent.parent / "examples" / "own_space"
CELLS, CHAIN = EXAMPLE / "cells.toml", EXAMPLE / "chain.toml"
OPERATIONS = """
import torch
from torch import nn

def good(inputs, outputs, stride, style):
    return nn.Sequential(nn.ReLU(), nn.Conv2d(inputs, outputs, 1, stride), style.norm(outputs))

def narrow(inputs, outputs, stride, style):
    return nn.Conv2d(inputs, outputs - 1, 1, stride)

def flat(inputs, outputs, stride, style):
    return nn.Conv2d(inputs, outputs, 1)

def down(inputs, outputs, stride, style):
    return nn.AvgPool2d(stride)

def running(inputs, outputs, stride, style):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

def fails(inputs, outputs, stride, style):
    raise RuntimeError("no such luck")

def two(inputs, outputs):
    return nn.Identity()

def number(inputs, outputs, stride, style):
    return 3

def listed(inputs, outputs, stride, style):
    class Several(nn.Module):
        def forward(self, x):
            return [x]
    return Several()

CONSTANT = 3

def flops(inputs, outputs, stride, height, width):
    return 7 * inputs * outputs

def nan(inputs, outputs, stride, height, width):
    return float("nan")

def negative(inputs, outputs, stride, height, width):
    return -1

def endless(inputs, outputs, stride, height, width):
    return float("inf")

def text(inputs, outputs, stride, height, width):
    return "many"

def one(inputs):
    return 1
"""


@contextmanager
def forgotten(*modules: str):
    """Forget, at the start and at the end, what was trusted, imported and looked through."""
    path, names, listed = list(sys.path), set(trusted._trusted), list(modules)

    def forget():
        sys.path[:] = path
        trusted._trusted.clear()
        for module in listed:
            sys.modules.pop(module, None)
        importlib.invalidate_caches()

    forget()
    try:
        yield
    finally:
        forget()
        trusted._trusted.update(names)
