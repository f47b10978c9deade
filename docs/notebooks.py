"""The tutorials as notebooks: python docs/notebooks.py FOLDER."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import jupytext

TUTORIALS = Path(__file__).parent / "tutorials"


def notebook(page: Path) -> str:
    """Return a page as a notebook: its Python and its shell commands are cells."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^```(?:toml|text)$", "```", text, flags=re.MULTILINE)
    return jupytext.writes(jupytext.reads(text, "md"), "ipynb")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for page in sorted(TUTORIALS.glob("*.md")):
        (folder / f"{page.stem}.ipynb").write_text(notebook(page), encoding="utf-8")
