"""`referee site build | serve`: the pages of all modules become a tree of plain Markdown, which mkdocs makes HTML of.

    build/site/tree    Markdown, pictures, data: only what changed is written, what is no longer made goes
    build/site/html    the finished site; put in place whole, so that an interrupted build leaves the old one

The tree needs nothing but a reader of Markdown: another builder that reads `mkdocs.yml` can be put in mkdocs' place.
"""

import argparse
import importlib
import importlib.util
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from referee.project import find_root
from referee.site.model import Page, Site, load_site
from referee.site.vendor import VendorError

MODULES = ("home", "project", "review", "results", "families", "guides", "notebooks", "reference", "register", "vendor")
"""Where pages come from, in the order of the navigation."""

SECTIONS = {
    "Projects": "projects/",
    "Results": "results/",
    "Families": "families/",
    "Guides": "guides/",
    "Course": "course/",
    "Reference": "reference/",
}
"""Title -> folder of the tree, for each tab after the home page."""

ASSETS = Path(__file__).with_name("assets")
LISTED = 60  # projects that the navigation names; more are found through the gallery


def collect(site: Site) -> tuple[dict[str, Page], dict[str, bytes | Path], list[str]]:
    """All pages by path, in order; all files of the tree by path; and what the site has to do without.

    Raises:
        UserError: two modules make the same path, or one that is not inside the tree.
    """
    pages: dict[str, Page] = {}
    files: dict[str, bytes | Path] = {}
    maker: dict[str, str] = {}
    without: list[str] = []

    def put(path: str, content: bytes | Path, module: str) -> None:
        if path in maker:
            raise UserError(f"site: {module} and {maker[path]} both make {path}; one of them has to call it otherwise.")
        if path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")):
            raise UserError(f"site: {module} makes '{path}', which is not inside the tree.")
        maker[path] = module
        files[path] = content

    for module in _modules():
        name = module.__name__.rpartition(".")[2]
        try:
            made = list(module.pages(site))
        except VendorError as error:
            without.append(str(error))
            continue
        for page in made:
            put(page.path, page.text.encode() if isinstance(page.text, str) else page.text, name)
            pages[page.path] = page
            for path, content in page.files.items():
                put(path, content, name)
    for path in sorted(p for p in ASSETS.rglob("*") if p.is_file()):
        put(f"assets/{path.relative_to(ASSETS).as_posix()}", path, "assets")
    return pages, files, without


def _modules() -> list[Any]:
    names = [f"referee.site.{name}" for name in MODULES]
    found = [importlib.import_module(name) for name in names if importlib.util.find_spec(name)]
    return [module for module in found if hasattr(module, "pages")]


def write_tree(tree: Path, files: Mapping[str, bytes | Path]) -> None:
    """Make a folder hold these files and no others; what is right already is left alone."""
    for path, content in files.items():
        target = tree / path
        data = content.read_bytes() if isinstance(content, Path) else content
        if target.is_file() and not target.is_symlink() and target.read_bytes() == data:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        part.write_bytes(data)
        os.replace(part, target)
    for found in sorted(tree.rglob("*"), reverse=True):
        if found.is_dir() and not found.is_symlink():
            if not any(found.iterdir()):
                found.rmdir()
        elif found.relative_to(tree).as_posix() not in files:
            found.unlink()


def navigation(pages: Iterable[str]) -> list[Any]:
    """What mkdocs calls `nav`: home, then a section for each folder."""
    paths = [p for p in pages if p.endswith(".md")]
    nav: list[Any] = [p for p in paths if p == "index.md"]
    for title, folder in SECTIONS.items():
        inside = [p for p in paths if p.startswith(folder) and (folder != "projects/" or p.count("/") == 1)]
        inside.sort(key=lambda p: p != f"{folder}index.md")
        if folder == "projects/" and len(inside) > LISTED:
            inside = []
        if inside:
            nav.append({title: inside})
    return nav


@dataclass
class Built:
    """What a build made."""

    html: Path
    pages: int
    warnings: list[str]


class _Warnings(logging.Handler):
    """Keeps what mkdocs warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def build(root: Path, *, strict: bool = False, output: Path | None = None) -> Built:
    """Build the site of a repository.

    Args:
        strict: a warning is an error, and leaves the old site in place.
        output: the folder of tree and html; `build/site` when not given.

    Raises:
        UserError: it cannot be built; under `strict`, also what is wrong with single projects or pages.
    """
    output = output or root / "build" / "site"
    site = load_site(root)
    pages, files, without = collect(site)
    tree, html, fresh, old = (output / name for name in ("tree", "html", ".new", ".old"))
    write_tree(tree, files)
    if old.exists() and not html.exists():  # a build was interrupted between the two renames below
        os.replace(old, html)
    for left in (fresh, old):
        shutil.rmtree(left, ignore_errors=True)
    warnings = [*site.problems, *without, *_mkdocs(root, tree, fresh, navigation(pages))]
    if strict and warnings:
        shutil.rmtree(fresh)
        raise UserError("\n".join(["the site is not built, since of --strict these are errors:", *warnings]))
    if html.exists():
        os.replace(html, old)
    os.replace(fresh, html)
    shutil.rmtree(old, ignore_errors=True)
    return Built(html, len([p for p in pages if p.endswith(".md")]), warnings)


def _mkdocs(root: Path, tree: Path, target: Path, nav: list[Any]) -> list[str]:
    """Run mkdocs on the tree; returns its warnings."""
    os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")  # an advertisement of Material's
    try:
        from mkdocs.commands.build import build as make
        from mkdocs.config import load_config
        from mkdocs.exceptions import MkDocsException
    except ImportError:
        raise UserError("mkdocs is not installed. Run 'make setup', or 'pip install mkdocs-material'.") from None
    kept = _Warnings()
    logger = logging.getLogger("mkdocs")
    logger.addHandler(kept)
    try:
        config = load_config(str(root / "mkdocs.yml"), docs_dir=str(tree), site_dir=str(target), nav=nav)
        make(config)
        _search_from_a_folder(target)
    except MkDocsException as error:
        raise UserError("\n".join(["mkdocs cannot build the site:", *kept.messages, str(error)])) from None
    finally:
        logger.removeHandler(kept)
    return kept.messages


def _search_from_a_folder(html: Path) -> None:
    """The search index as a script too: on pages opened from a folder, browsers load scripts but no data."""
    index = html / "search" / "search_index.json"
    if index.is_file():
        index.with_suffix(".js").write_text(f"var __index = {index.read_text(encoding='utf-8')}", encoding="utf-8")


def site_command(options: argparse.Namespace) -> int:
    """`referee site`."""
    built = build(find_root(), strict=options.strict)
    for warning in built.warnings:
        print(f"warning: {warning}")
    print(f"{built.pages} pages")
    print(built.html / "index.html")
    return 0
