"""What the site has beyond the pages of this folder: a hook of MkDocs.

Pages link to files of the project that lie outside of it. Each becomes a page of the site. The
reference is made from the list of public names, so that none is missing, and the list of methods
from its folder.
"""

from __future__ import annotations

import posixpath
import re
import runpy
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

import tutelage

ROOT = Path(__file__).resolve().parent.parent
MADE = ROOT / "runs" / "docs"
"""Where `make docs` makes reports and notebooks."""
LINK = re.compile(r"(\]\()([^)#:\s]+)(#[^)]*)?(\))")
MATH = re.compile(r"^```math\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LANGUAGES = {".py": "python", ".toml": "toml", ".json": "json"}
TITLES = {
    "run": "Searching, retraining, loading",
    "config": "Settings",
    "data": "Data of a program",
    "methods": "Methods",
    "searches": "Searches",
    "spaces": "Spaces",
    "trusted": "Trusted code",
    "multilevel": "Levels",
    "virtual": "Virtual steps",
    "problem": "Problems and nets",
}
"""The reference's pages, by the part of the package that has the names."""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made."""
    for part, title in TITLES.items():
        files.append(
            File.generated(config, f"reference/{part}.md", content=_reference(part, title))
        )
    for report in (MADE / "gallery").glob("*/report.html"):
        address = f"gallery/{report.parent.name}.html"
        files.append(File.generated(config, address, abs_src_path=str(report)))
    for notebook in (MADE / "notebooks").glob("*.ipynb"):
        address = f"notebooks/{notebook.name}"
        files.append(File.generated(config, address, abs_src_path=str(notebook)))
    wanted = {
        target
        for file in list(files.documentation_pages())
        if file.abs_src_path and Path(file.abs_src_path).is_file()
        for target in _outside(file.src_uri, Path(file.abs_src_path).read_text(encoding="utf-8"))
    }
    done: set[str] = set()
    while wanted - done:  # such a page may link to further files
        for target in sorted(wanted - done):
            done.add(target)
            text = _page(target)
            files.append(File.generated(config, _address(target), content=text))
            if target.endswith(".md"):
                wanted |= _outside(_address(target), (ROOT / target).read_text("utf-8"), target)
    return files


def on_config(config: Any) -> Any:
    """List folders of the navigation in full."""
    config["nav"] = [_unfolded(entry) for entry in config["nav"]]
    return config


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links to files outside of the folder lead to their pages."""
    here = page.file.src_uri
    origin = here.removeprefix("source/").removesuffix(".md") if here.startswith("source/") else ""
    if origin and not origin.endswith(".md"):
        return markdown  # the code of a file
    if here == "gallery.md":
        markdown += runpy.run_path(str(ROOT / "docs" / "gallery.py"))["page"]()
    if here.startswith("tutorials/"):
        name = f"{Path(here).stem}.ipynb"
        markdown += f"\n[This page as a notebook](../notebooks/{name})\n"

    def moved(match: re.Match[str]) -> str:
        target = _target(here, match[2], origin)
        if target is None:
            return match[0]
        to = posixpath.relpath(target, posixpath.dirname(here) or ".")
        return f"{match[1]}{to}{match[3] or ''}{match[4]}"

    return LINK.sub(moved, MATH.sub(_equation, markdown))


def _equation(match: re.Match[str]) -> str:
    """Write an equation as MathML, which a browser shows without a script."""
    written = match[1].strip().replace(r"\arg", r"\operatorname{arg}\,")
    found = convert(written.replace("{aligned}", "{split}"), display="block")
    if left := re.findall(r"\\[a-zA-Z]+|<mi>&</mi>", found):
        raise ValueError(f"an equation has {', '.join(left)}, which no MathML stands for")
    return f'<div class="math">{found}</div>'


def _unfolded(entry: Any) -> Any:
    """Replace FOLDER/* by the folder's pages."""
    if isinstance(entry, dict):
        ((title, inner),) = entry.items()
        if inner == "methods/*":
            pages = sorted((ROOT / "docs" / "methods").glob("*.md"))
            return {title: [f"methods/{page.name}" for page in pages]}
        if isinstance(inner, list):
            return {title: [part for each in inner for part in _listed(each)]}
    return entry


def _listed(entry: Any) -> list[Any]:
    return (
        [f"reference/{part}.md" for part in TITLES]
        if entry == "reference/*"
        else [_unfolded(entry)]
    )


def _reference(part: str, title: str) -> str:
    """Write a page of the reference: every public name of a part of the package."""
    homes = {
        module: names
        for module, names in tutelage._HOMES.items()
        if module == part or module.startswith(f"{part}.")
    }
    named = [f"::: tutelage.{module}.{name}" for module, names in homes.items() for name in names]
    return f"# {title}\n\nAll are names of `tutelage` itself.\n\n" + "\n\n".join(named) + "\n"


def _target(here: str, link: str, origin: str = "") -> str | None:
    """Return the address in the site of a file that a page links to; None: it needs no other.

    Args:
        here: The page's own address.
        link: The link, relative to the page, or to `origin`.
        origin: Of a page that is made of a file: the file's path in the project.
    """
    base = posixpath.dirname(origin if origin else f"docs/{here}")
    path = posixpath.normpath(posixpath.join(base, link))
    if path.startswith("docs/") and not path.endswith(".py"):  # the site leaves out its programs
        return path.removeprefix("docs/") if origin else None
    return _address(path) if path and (ROOT / path).exists() else None


def _address(path: str) -> str:
    return f"source/{path}.md"


def _outside(here: str, text: str, origin: str = "") -> set[str]:
    """List the files outside of the folder that a page links to."""
    found = (_target(here, match[2], origin) for match in LINK.finditer(text))
    return {
        each.removeprefix("source/").removesuffix(".md")
        for each in found
        if each and each.startswith("source/")
    }


def _page(path: str) -> str:
    """Write the page of a file, or of all files of a folder."""
    if path.endswith(".md"):
        return (ROOT / path).read_text(encoding="utf-8")
    below = sorted((ROOT / path).rglob("*")) if (ROOT / path).is_dir() else [ROOT / path]
    files = [each for each in below if each.is_file() and "__pycache__" not in each.parts]
    return "\n".join(map(_code, files))


def _code(file: Path) -> str:
    language = LANGUAGES.get(file.suffix, "text")
    text = file.read_text(encoding="utf-8", errors="replace")
    return f"# {file.relative_to(ROOT)}\n\n````{language}\n{text}\n````\n"
