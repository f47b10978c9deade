"""From a matplotlib figure to themed SVG or to PNG; the palette of drawings, plots and page."""

from __future__ import annotations

import io
import re
import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PALETTE = {
    "ink": ("#1f2430", "#e7eaef"),
    "muted": ("#667080", "#9ba6b4"),
    "line": ("#d3d9e1", "#3b4552"),
    "page": ("#fdfdfc", "#14181e"),
    "blue": ("#0072b2", "#58b0e8"),
    "vermilion": ("#d55e00", "#f2894a"),
    "green": ("#009e73", "#3ccba2"),
    "purple": ("#a8518a", "#d98fc0"),
    "amber": ("#b58900", "#e3b93f"),
    "slate": ("#51627a", "#a5b4c8"),
}
"""Colour name to its light and its dark form; the hues are those of Okabe and Ito, which people
with colour blindness can distinguish."""

LIGHT = {name: light for name, (light, dark) in PALETTE.items()}
SERIES = tuple(LIGHT[name] for name in ("blue", "vermilion", "green", "purple", "amber", "slate"))

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Segoe UI", "Helvetica", "Arial"],
    "font.size": 9,
    "text.color": LIGHT["ink"],
    "axes.facecolor": "none",
    "axes.edgecolor": LIGHT["line"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": True,
    "axes.formatter.useoffset": False,
    "grid.color": LIGHT["line"],
    "grid.linewidth": 0.6,
    "xtick.color": LIGHT["line"],
    "ytick.color": LIGHT["line"],
    "xtick.labelcolor": LIGHT["muted"],
    "ytick.labelcolor": LIGHT["muted"],
    "legend.frameon": False,
    "image.composite_image": False,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "tutelage",
}


@dataclass(frozen=True)
class Drawn:
    """A figure for the page."""

    caption: str
    svg: str
    width: float
    """Natural width in points."""


def variables(dark: bool) -> str:
    """Write the palette as CSS custom properties."""
    return "".join(f"--{name}:{pair[dark]};" for name, pair in PALETTE.items())


def styled() -> AbstractContextManager[None]:
    """Return the context for making figures: axes take their style when they are added."""
    return matplotlib.rc_context(STYLE)


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure of a size in points, without pyplot's global state."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    FigureCanvasAgg(figure)
    return figure


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Make a figure to draw on, with invisible axes in points from its upper left corner."""
    figure = new_figure(width, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return figure, axes


def to_svg(figure: Figure, label: str) -> str:
    """Write a figure as one <svg> element that follows the reader's light or dark mode."""
    buffer = io.StringIO()
    figure.patch.set_visible(False)
    _save(figure, buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[\w.]*_\d+"', "", text)  # several figures share a page
    for name, light in LIGHT.items():
        text = text.replace(light, f"var(--{name},{light})")
    dark = f"<style>@media (prefers-color-scheme:dark){{svg{{{variables(dark=True)}}}}}</style>"
    text = text.replace("<defs>", dark + "<defs>", 1)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)


def drawn(caption: str, figure: Figure, label: str) -> Drawn:
    """Make a figure for the page; `label` describes it for screen readers."""
    return Drawn(caption, to_svg(figure, label), 72 * figure.get_figwidth())


def to_png(figure: Figure, scale: float = 2.0) -> bytes:
    """Write a figure as PNG on white, with `scale` pixels for each point."""
    buffer = io.BytesIO()
    figure.patch.set_visible(True)
    _save(figure, buffer, format="png", dpi=72 * scale, facecolor="white")
    return buffer.getvalue()


def _save(figure: Figure, buffer: io.StringIO | io.BytesIO, **how: Any) -> None:
    """Write a figure, whose names may be of scripts that the font of measurements lacks."""
    with styled(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(buffer, **how)
