"""Cases of the fuzz: valid texts, files and command lines with mistakes of every kind in them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import damage_runs
import numpy as np
import tomli_w
from hypothesis import strategies as st
from PIL import Image

from test_nasbench201_table import synthetic
from tutelage import config
from tutelage.benchmark import stored
from tutelage.parts import PARTS
from tutelage.searches.evolution import Evolution
from tutelage.spaces.published import PUBLISHED

VALUES = st.one_of(
    st.sampled_from([0, 1, 2, -1, 3, 7, 10**9, 2**31, 2**63, 10**30, True, False]),
    st.sampled_from([0.0, 0.5, -0.5, 1e-30, 1e30, float("nan"), float("inf"), float("-inf")]),
    st.sampled_from(
        ["", "x", "exact", "digits", "single", "sgl", "darts", "\x00", "../x", "é" * 9]
    ),
    st.text(max_size=8),
    st.lists(st.integers(-3, 9), max_size=4),
)
"""Values of settings: right ones, wrong ones, and those at the ends of their types."""
SECTIONS = {
    "": config.Run,
    "data": config.Data,
    "weights": config.Weights,
    "alphas": config.Alphas,
    "evolution": Evolution,
    "retrain": config.Retrain,
}
NAMES = [
    f"{place}.{each.name}".lstrip(".") for place, of in SECTIONS.items() for each in fields(of)
]
SMALL = {"channels": 2, "cells": 3, "batch_size": 4, "limit_batches": 2, "epochs": 2}


def genotypes() -> list[str]:
    """Write published architectures in each notation that is read."""
    texts = [genotype.to_json() for genotype in list(PUBLISHED.values())[:4]]
    texts += [PUBLISHED["DARTS_V2"].to_darts(), "DARTS_V2", "11111111"]
    return [*texts, "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|"]


@st.composite
def edited(draw: Callable, whole: st.SearchStrategy[bytes]) -> bytes:
    """Draw a text with up to four parts cut out, doubled, or replaced by others."""
    text = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 4))):
        first = draw(st.integers(0, max(0, len(text) - 1)))
        last = min(len(text), first + draw(st.sampled_from([0, 1, 1, 2, 4, 40])))
        new = draw(
            st.one_of(
                st.binary(max_size=3),
                st.sampled_from([b"0", b"-1", b"99", b"1e999", b"null", b"[", b'"', b",", b"\n"]),
                st.just(bytes(text[first:last]) * 2),
            )
        )
        text[first:last] = new
    return bytes(text)


GENOTYPES = edited(st.sampled_from([text.encode() for text in genotypes()]))


def built(folder: Path) -> bytes:
    """Write a small table as `table build` does."""
    texts = ["8:8:8:8:8", "64:32:16:8:40", "64:64:64:64:64"]
    columns = ["cifar10_test_90", "parameters", "flops"]
    head = stored.Head(
        "NATS-Bench size", columns[0], {"nats-size": 3}, texts, columns, {columns[0]: 1}
    )
    path = folder / "built"
    stored.write_table(path, head, np.arange(9.0).reshape(3, 3) + 80)
    return path.read_bytes()


def csv_table() -> bytes:
    """Write the CSV of a whole table of NAS-Bench-201 with invented figures."""
    rows = synthetic()
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def tables(folder: Path) -> st.SearchStrategy[tuple[str, bytes]]:
    """Draw a table of a kind with mistakes; the large ones, which take long, more rarely."""
    whole = {
        "built": built(folder),
        "json": json.dumps(damage_runs.macro_table()).encode(),
        "csv": csv_table(),
    }
    kinds = st.sampled_from(["built"] * 28 + ["json"] * 3 + ["csv"])
    return kinds.flatmap(lambda kind: st.tuples(st.just(kind), edited(st.just(whole[kind]))))


@st.composite
def recipes(draw: Callable) -> bytes:
    """Draw a recipe: settings of any section with any values, sometimes with a damaged text."""
    table: dict = {**SMALL, "via": "first-order"}
    for kind in ("method", "search", "space"):
        if draw(st.booleans()):
            table[kind] = {"name": draw(st.sampled_from([*PARTS[kind], "x"]))}
    for name in draw(st.lists(st.sampled_from([*NAMES, "method.learners", "x.y"]), max_size=4)):
        place, _, key = name.rpartition(".")
        into = table.setdefault(place, {}) if place else table
        if isinstance(into, dict):
            into[key] = draw(VALUES)
    text = tomli_w.dumps(table).encode()
    return draw(edited(st.just(text))) if draw(st.booleans()) else text


def image(kind: str, mode: str) -> bytes:
    """Write a small image in a format."""
    content = io.BytesIO()
    Image.new(mode, (9, 8), 77).save(content, kind)
    return content.getvalue()


IMAGES = [
    (f"{mode.lower().replace(';', '')}.{ending}", image(kind, mode))
    for ending, kind, modes in (
        ("png", "PNG", ("L", "RGB", "P", "RGBA", "I;16")),
        ("jpg", "JPEG", ("L", "RGB", "CMYK")),
        ("bmp", "BMP", ("L", "RGB")),
        ("webp", "WEBP", ("RGB",)),
    )
    for mode in modes
]
SOUND = [each for each in IMAGES if each[0].startswith("rgb.")]
"""Images of one kind, beside which a changed one may be right."""


@st.composite
def images(draw: Callable) -> tuple[str, bytes]:
    """Draw an image file whose header has changed bytes, or which ends early."""
    name, content = draw(st.sampled_from(IMAGES))
    changed = bytearray(content)
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, min(63, len(changed) - 1)))
        changed[place] = draw(st.sampled_from([0, 1, 2, 127, 128, 255]) | st.integers(0, 255))
    return name, bytes(changed[: draw(st.sampled_from([len(changed), len(changed), 0, 20, 40]))])


FLAGS = [name.replace("_", "-").removeprefix("data.") for name in NAMES]
VERBS = ("search", "retrain", "study", "report", "papers", "describe", "draw", "query", "export")
WORDS = ("list", "table", "build", "DARTS_V2", "run", "x", "x.toml", "--out", "--resume", "--json")
SAFE = ("--help", "--version", "--quick", "--dry-run", "--recipe", "digits-demo", "--", "-h", "")


@st.composite
def lines(draw: Callable) -> list[str]:
    """Draw a command line of verbs, flags and values, right and wrong, in any order."""
    values = VALUES.map(str) | st.sampled_from(
        ["x", "DARTS_V2", "2", "1", "0.5", "single", "darts"]
    )
    words = [draw(st.sampled_from([*VERBS, "search", "search", "list"]))]
    if words == ["search"]:
        words += "--channels 2 --cells 3 --via first-order".split()[: draw(st.sampled_from([0, 6]))]
        words += ["--out", "x"] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 4))):
        flag = st.sampled_from(FLAGS).map(lambda name: f"--{name}")
        word = draw(st.one_of(flag, flag, st.sampled_from([*WORDS, *SAFE]), values))
        words.append(word)
        if word.startswith("--") and draw(st.booleans()):
            words.append(draw(values))
    return [word.replace("\x00", "") for word in words]
