"""Draw the README's picture again, fixed in light and in dark: GitHub chooses between two files.

    python docs/pictures/draw.py

A drawing follows the reader's mode by itself; inside GitHub's <picture> the page's mode decides.
"""

import re
from pathlib import Path

from tutelage.report.figures.draw import draw
from tutelage.spaces.published import resolve

RULE = re.compile(r"<style>@media \(prefers-color-scheme:dark\)\{(.*?)\}</style>", re.DOTALL)


def main() -> None:
    """Write darts_v2-light.svg and darts_v2-dark.svg beside this file."""
    svg = draw(resolve("DARTS_V2"))
    folder = Path(__file__).parent
    (folder / "darts_v2-light.svg").write_text(RULE.sub("", svg), encoding="utf-8")
    (folder / "darts_v2-dark.svg").write_text(RULE.sub(r"<style>\1</style>", svg), encoding="utf-8")


if __name__ == "__main__":
    main()
