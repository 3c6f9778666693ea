"""`referee site build | serve`: the pages of all modules become a tree of plain Markdown, which mkdocs makes HTML of.

    build/site/tree    Markdown, pictures, data: only what changed is written, what is no longer made goes
    build/site/html    the finished site; put in place whole, so that an interrupted build leaves the old one

mkdocs builds everything each time. Where only some files of the tree changed since the last site, and nothing that all
pages show, the other pages are taken from there; `--strict` builds all of them, since only so every link is checked.

The tree needs nothing but a reader of Markdown: another builder that reads `mkdocs.yml` can be put in mkdocs' place.
"""

import argparse
import contextlib
import fcntl
import gc
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import yaml

from common.errors import UserError
from common.records import write_text
from referee.project import UsageError, find_root
from referee.site import (
    course,
    families,
    guides,
    home,
    measuring,
    notebooks,
    project,
    reference,
    register,
    results,
    vendor,
)
from referee.site.model import Page, Site, load_site
from referee.site.vendor import VendorError

MODULES: tuple[Any, ...] = (
    *(home, project, results, measuring, families, guides),
    *(course, notebooks, reference, register, vendor),
)
"""Where pages come from, in the order of the navigation."""

HOME = "Papers"
SECTIONS = {
    "Results": "results/",
    "Measuring": "measuring/",
    "Families": "families/",
    "Guides": "guides/",
    "Course": "course/",
    "Reference": "reference/",
}
"""Title -> folder of the tree, for each tab after the home page, whose gallery leads to the projects."""

CONFIG = "mkdocs.yml"
STATE = ".state.json"
ALWAYS = ("404.html", "sitemap.xml", "sitemap.xml.gz", "search/search_index.json", "search/search_index.js")
"""What mkdocs makes of all pages together, each time."""

PUBLISHED = ("404.html", "sitemap.xml", "sitemap.xml.gz")
"""What is of use only where the site has an address: a page whose links are a server's, lists of addresses."""

ASSETS = Path(__file__).with_name("assets")
WATCHED = ("projects", "reviews", "docs", "benchmarks", "course.yaml", "mkdocs.yml", "CONTRIBUTING.md", "README.md")
"""Where a change builds the site that is served anew."""


@dataclass(frozen=True)
class Built:
    """What a build made.

    Attributes:
        html: the finished site.
        pages: how many.
        warnings: what is wrong with single projects or pages, and what the site has to do without.
    """

    html: Path
    pages: int
    warnings: tuple[str, ...]


def build(root: Path, *, strict: bool = False, output: Path | None = None) -> Built:
    """Build the site of a repository.

    Args:
        strict: a warning is an error, and leaves the old site in place.
        output: the folder of tree and html; `build/site` when not given.

    Raises:
        UserError: it cannot be built; under `strict`, also what is wrong with single projects or pages.
    """
    output = output or root / "build" / "site"
    if not (root / CONFIG).is_file():
        raise UserError(f"{root} has no {CONFIG}, which says how the site is made.")
    site = load_site(root)
    pages, files, without = collect(site)
    nav = navigation(pages.values())
    tree, html, fresh, old = (output / name for name in ("tree", "html", ".new", ".old"))
    with _alone(output):
        write_tree(tree, files)
        if old.exists() and not html.exists():  # a build was interrupted between the two renames below
            os.replace(old, html)
        for left in (fresh, old):
            shutil.rmtree(left, ignore_errors=True)
        state = _state(site, files, nav)
        changed = None if strict else _changed(state, output)
        try:
            if changed is not None:
                _link(html, fresh, {*map(_output, changed), *ALWAYS})
            said = _mkdocs(site, tree, fresh, nav, dirty=changed is not None)
            if changed is not None:
                _merge_search(html, fresh, {*map(_output, changed)})
            _search_from_a_folder(fresh)
            if not site.url:
                for name in PUBLISHED:
                    (fresh / name).unlink(missing_ok=True)
            warnings = tuple(message.replace(f"{root}/", "") for message in (*site.problems, *without, *said))
            if strict and warnings:
                raise UserError("\n".join(["the site is not built; --strict makes these errors:", *warnings]))
            (output / STATE).unlink(missing_ok=True)
            if html.exists():
                os.replace(html, old)
            os.replace(fresh, html)
            if not said:  # else the next build says it again
                write_text(output / STATE, json.dumps(state))
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
            if old.exists() and not html.exists():
                os.replace(old, html)
        shutil.rmtree(old, ignore_errors=True)
    return Built(html, sum(path.endswith(".md") for path in pages), warnings)


@contextlib.contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Keep a second build away from the same folder."""
    output.mkdir(parents=True, exist_ok=True)
    with open(output / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another build writes to {output}; wait until it is done.") from None
        yield


def collect(site: Site) -> tuple[dict[str, Page], dict[str, bytes | Path], list[str]]:
    """All pages by path, in order; all files of the tree by path; and what the site has to do without.

    Raises:
        UserError: two modules make the same path, or one that is not inside the tree, or a file is a link.
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
        if isinstance(content, Path) and content.is_relative_to(site.root) and _linked(content, site.root):
            shown = content.relative_to(site.root).as_posix()
            raise UserError(f"{shown}: is a link, or lies behind one; put the file itself there.")
        maker[path] = module
        files[path] = content

    for module in MODULES:
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


def _linked(path: Path, root: Path) -> bool:
    return path.resolve() != root.resolve() / path.relative_to(root)


def write_tree(tree: Path, files: Mapping[str, bytes | Path]) -> None:
    """Make a folder hold these files and no others; what is right already is left alone.

    A file that is copied keeps its time, by which it is known to be the same the next time.
    """
    wanted = {tree / path: content for path, content in files.items()}
    folders = {parent for target in wanted for parent in target.parents}
    for found in sorted(tree.rglob("*"), reverse=True):  # what is in a folder before the folder
        if found.is_symlink() or not found.is_dir():
            if found not in wanted:
                found.unlink()
        elif found not in folders or found in wanted:
            found.rmdir()
    for target, content in wanted.items():
        if _same(target, content):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        if isinstance(content, Path):
            shutil.copyfile(content, part)
            times = content.stat()
            os.utime(part, ns=(times.st_atime_ns, times.st_mtime_ns))
        else:
            part.write_bytes(content)
        os.replace(part, target)


def _same(target: Path, content: bytes | Path) -> bool:
    if target.is_symlink() or not target.is_file():
        return False
    if isinstance(content, bytes):
        return target.stat().st_size == len(content) and target.read_bytes() == content
    here, there = target.stat(), content.stat()
    return (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns)


def navigation(pages: Iterable[Page]) -> list[Any]:
    """What mkdocs calls `nav`: the home page, then a section for each folder, its index first."""
    titled = [{_title(page): page.path} for page in pages if page.path.endswith(".md")]
    nav: list[Any] = [{HOME: path} for entry in titled for path in entry.values() if path == "index.md"]
    for title, folder in SECTIONS.items():
        inside = [(path, entry) for entry in titled for path in entry.values() if path.startswith(folder)]
        inside.sort(key=lambda found: found[0] != f"{folder}index.md")
        if inside:
            nav.append({title: [entry for _, entry in inside]})
    return nav


def _title(page: Page) -> str:
    """A page's title as HTML: as its head states it, else its first heading."""
    text = page.text.decode() if isinstance(page.text, bytes) else page.text
    head = re.match(r"---\n(.*?\n)---\n", text, re.DOTALL)
    if head and (stated := re.search(r"^title:[ \t]*(.+)$", head[1], re.MULTILINE)):
        return str(yaml.safe_load(stated[1]))
    heading = re.search(r"^# +(.+?)(?: *\{[^}]*\})?$", text, re.MULTILINE)
    return heading[1].replace("`", "") if heading else Path(page.path).stem


# -- Building again what changed ---------------------------------------------------------------------------------------


def _state(site: Site, files: Mapping[str, bytes | Path], nav: list[Any]) -> dict[str, Any]:
    """What the HTML is made from: for all pages together, and file by file."""
    theme = sorted(p for p in (site.root / "referee" / "site" / "theme").rglob("*") if p.is_file())
    common = [
        *((site.root / CONFIG).read_bytes(), json.dumps(nav).encode(), site.url.encode(), site.repository.encode()),
        *(p.read_bytes() for p in theme),
        *(f"{d.name} {d.version}".encode() for d in map(distribution, ("mkdocs", "mkdocs-material", "Markdown"))),
        json.dumps(sorted(path for path in files if path.endswith(".md"))).encode(),
    ]
    digest = hashlib.sha256(b"\0".join(common)).hexdigest()
    return {"common": digest, "files": {path: _signature(content) for path, content in files.items()}}


def _signature(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    found = content.stat()
    return f"{found.st_size} {found.st_mtime_ns}"


def _changed(state: Mapping[str, Any], output: Path) -> set[str] | None:
    """The files of the tree that are not as they were when the site was built last; None where all is built anew."""
    try:
        before = json.loads((output / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if before.get("common") != state["common"] or not (output / "html").is_dir():
        return None
    one, other = before["files"], state["files"]
    return {path for path in {*one, *other} if one.get(path) != other.get(path)}


def _output(path: str) -> str:
    """Where the site has a file of the tree."""
    return f"{path.removesuffix('.md')}.html" if path.endswith(".md") else path


def _link(html: Path, fresh: Path, without: set[str]) -> None:
    """Fill a folder with the files of the last site, but for some."""
    for path in html.rglob("*"):
        name = path.relative_to(html).as_posix()
        if path.is_file() and name not in without:
            target = fresh / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)


def _merge_search(html: Path, fresh: Path, changed: set[str]) -> None:
    """Put into the index of the pages that were built anew what it says of the others."""
    path = Path("search") / "search_index.json"
    before, after = (json.loads((folder / path).read_text(encoding="utf-8")) for folder in (html, fresh))
    entries: dict[str, list[Any]] = {}
    for entry in before["docs"]:
        entries.setdefault(entry["location"].partition("#")[0], []).append(entry)
    for page in changed & {*entries}:
        entries[page] = []
    for entry in after["docs"]:
        entries.setdefault(entry["location"].partition("#")[0], []).append(entry)
    after["docs"] = [entry for found in entries.values() for entry in found]
    write_text(fresh / path, json.dumps(after, separators=(",", ":")))


# -- mkdocs ------------------------------------------------------------------------------------------------------------


class _Warnings(logging.Handler):
    """Keeps what mkdocs warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _mkdocs(site: Site, tree: Path, target: Path, nav: list[Any], *, dirty: bool = False) -> list[str]:
    """Run mkdocs on the tree; returns its warnings.

    Args:
        dirty: build only those pages that are not in the target yet.
    """
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
        with _clock(site):
            config = load_config(str(site.root / CONFIG), docs_dir=str(tree), site_dir=str(target), nav=nav)
            make(config, dirty=dirty)
    except MkDocsException as error:
        raise UserError("\n".join(["mkdocs cannot build the site:", *kept.messages, str(error)])) from None
    finally:
        logger.removeHandler(kept)
    return [message for message in kept.messages if not message.startswith("A 'dirty' build")]


@contextlib.contextmanager
def _clock(site: Site) -> Iterator[None]:
    """The time that mkdocs writes into the sitemap is that of the last commit: the same input gives the same bytes."""
    name = "SOURCE_DATE_EPOCH"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(site.history.at("HEAD").seconds if site.history else 0)
    try:
        yield
    finally:
        del os.environ[name]


def _search_from_a_folder(html: Path) -> None:
    """The search index as a script too: on pages opened from a folder, browsers load scripts but no data."""
    index = html / "search" / "search_index.json"
    if index.is_file():
        index.with_suffix(".js").write_text(f"var __index = {index.read_text(encoding='utf-8')}", encoding="utf-8")


# -- Commands ----------------------------------------------------------------------------------------------------------


def site_command(options: argparse.Namespace) -> int:
    """`referee site`."""
    root = find_root()
    gc.set_threshold(100_000, 20, 20)  # a build makes millions of objects and little garbage: look for it less often
    if options.action == "serve":
        return serve(root, options.port)
    built = build(root, strict=options.strict)
    _tell(built)
    print(built.html / "index.html")
    return 0


def _tell(built: Built) -> None:
    for warning in built.warnings:
        print(f"warning: {warning}")
    print(f"{built.pages} pages")


def serve(root: Path, port: int) -> int:
    """Build the site, show it at an address of this machine, and build it again when a file changes.

    What cannot be built is said, and the last site that could be stays.

    Raises:
        UserError: the first build fails, or the port is taken.
    """
    built = build(root)
    from mkdocs.livereload import LiveReloadServer

    def again() -> None:
        try:
            _tell(build(root))
        except UserError as error:
            print(f"referee: {error}", flush=True)

    server = LiveReloadServer(builder=again, host="127.0.0.1", port=port, root=str(built.html))
    for name in WATCHED:
        if (root / name).exists():
            server.watch(str(root / name))
    _tell(built)
    print(f"Serving {server.url} (Ctrl-C ends it)", flush=True)
    try:
        server.serve()  # type: ignore[no-untyped-call]
    except OSError as error:
        raise UsageError(f"port {port} cannot be had: {error.strerror}. Try --port {port + 1}.") from None
    except KeyboardInterrupt:
        print()
    finally:
        server.shutdown()
    return 0
