"""Notebooks as Markdown pages, made harmless, converted only when they changed.

nbconvert's Markdown exporter puts the cells one after the other. Before it sees them they are made harmless: prose and
tables pass a sanitiser with a short list of what may stay, pictures become files once they have been looked at, all
other outputs are shown as text. Nothing that a notebook says is read as Markdown by the site's builder except its
headings, which are escaped, and its code, whose fence it cannot close.
"""

import base64
import binascii
import hashlib
import html
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nh3

from referee.checks.notebook import Cell, notebook_cells
from referee.checks.reading import Unreadable, read_text
from referee.project import Project
from referee.site.model import Page, Site
from referee.site.readme import harmless
from referee.site.writing import md, picture
from referee.standing import Standing

LARGEST = 16 * 1024 * 1024  # bytes of a notebook
MAX_SIDE = 10_000  # pixels
MAX_LINES, MAX_WIDTH = 200, 500  # of an output that is text
LEXER = re.compile(r"[A-Za-z0-9+#-]{1,30}")

ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.{1,300}?)[ \t#]*")
UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*")
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
FORMULA = re.compile(r"\\\((.+?)\\\)")

TABLE = {"table", "caption", "colgroup", "col", "thead", "tbody", "tfoot", "tr", "th", "td"}
WORDS = {"b", "strong", "i", "em", "code", "br", "sub", "sup"}
SPANS = {"colspan", "rowspan"}
ATTRIBUTES = {"th": SPANS | {"scope"}, "td": SPANS}


def pages(site: Site) -> Iterable[Page]:
    """`projects/<paper>/notebook.md` of every project that has a notebook, with its pictures beside it."""
    for s in site.standings:
        if has_notebook(s.project):
            yield page(site, s)


def has_notebook(project: Project) -> bool:
    """Whether there is a notebook to show."""
    return _file(project).is_file()


def page(site: Site, s: Standing) -> Page:
    """A project's notebook, from the cache if nothing has changed."""
    name = s.project.name
    home = f"projects/{name}/notebook"
    try:
        text = read_text(_file(s.project), LARGEST)
        kept = _converted(site.root / "build" / "cache" / "notebooks" / name, text, site.repository, s)
    except Unreadable as error:
        return Page(f"{home}.md", _top(s, "") + f"The notebook cannot be shown: it {md(str(error))}.\n")
    pictures = sorted(path for path in kept.iterdir() if path.name != "page.md")
    return Page(f"{home}.md", (kept / "page.md").read_text(encoding="utf-8"), {f"{home}/{p.name}": p for p in pictures})


def _file(project: Project) -> Path:
    return project.folder / f"{project.name}.ipynb"


def _converted(folder: Path, text: str, repository: str, s: Standing) -> Path:
    """The folder of the cache with the page and its pictures; what was made of earlier versions goes."""
    key = hashlib.sha256(f"{_converter()}\0{repository}\0{s.file.paper.title}\0{text}".encode()).hexdigest()[:40]
    kept = folder / key
    if not kept.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        page, pictures = convert(text, s, repository)
        for other in folder.iterdir():
            shutil.rmtree(other, ignore_errors=True)
        part = Path(tempfile.mkdtemp(dir=folder, suffix=".part"))
        (part / "page.md").write_text(page, encoding="utf-8")
        for name, content in pictures.items():
            (part / name).write_bytes(content)
        os.rename(part, kept)
    return kept


@cache
def _converter() -> str:
    """What a page depends on besides its notebook."""
    files = (Path(__file__), Path(__file__).with_name("readme.py"), Path(__file__).with_name("writing.py"))
    code = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return " ".join([*code, *(f"{name} {version(name)}" for name in ("nbconvert", "nh3", "markdown"))])


# -- Conversion --------------------------------------------------------------------------------------------------------


@dataclass
class _Notebook:
    """A notebook while it is converted."""

    name: str
    base: str
    title: str = ""
    heading: str = ""  # the last one, as plain text
    pictures: dict[str, bytes] = field(default_factory=dict)


def convert(text: str, s: Standing, repository: str = "") -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures: file name -> content.

    Args:
        repository: where links to the project's files lead; without it they become plain text.

    Raises:
        Unreadable: it is not a notebook.
    """
    import nbformat
    from nbconvert.exporters import MarkdownExporter

    make: Any = nbformat.v4
    exporter: Any = MarkdownExporter
    name = s.project.name
    notebook = _Notebook(name, f"{repository}/blob/HEAD/projects/{name}/" if repository else "")
    cells = []
    for cell in notebook_cells(text):
        if not cell.code:
            cells.append(make.new_markdown_cell(_prose(cell.source, notebook)))
        elif cell.source.strip():
            shown = [make.new_output("display_data", {"text/markdown": o}) for o in _outputs(cell, notebook)]
            cells.append(make.new_code_cell(_code(cell.source), outputs=shown))
    body, _ = exporter(raw_template=TEMPLATE).from_notebook_node(make.new_notebook(cells=cells))
    return _top(s, notebook.title) + re.sub(r"\n{3,}", "\n\n", body).strip() + "\n", notebook.pictures


TEMPLATE = "{% extends 'markdown/index.md.j2' %}{% block input %}{{ cell.source }}{% endblock input %}"
"""The exporter's own, but for the fences of code, which are put around it here."""


def _top(s: Standing, title: str) -> str:
    paper = s.project.name
    front = f"---\ntitle: {json.dumps(f'Notebook of {paper}', ensure_ascii=False)}\n---\n\n"
    heading = title or f"{_escaped(s.file.paper.title)}"
    return f"{front}# {heading}\n\nThe notebook of [{md(paper)}](../{paper}.md), as its team executed it.\n\n"


def _prose(source: str, notebook: _Notebook) -> str:
    """A cell of text: its headings as headings of the page, the rest as HTML that does nothing."""
    done: list[str] = []
    lines: list[str] = []

    def flush() -> None:
        if content := str(harmless("\n".join(lines), notebook.base)):
            done.append(_block("nb-text", content, searched=True))
        lines.clear()

    fence = ""
    for line in _plain(source).split("\n"):
        if match := FENCE.match(line):
            fence = match[1] if not fence else "" if match[1].startswith(fence) else fence
        if not fence and (under := UNDERLINE.fullmatch(line)) and lines and 0 < len(lines[-1].strip()) <= 300:
            line = f"{'#' if under[1][0] == '=' else '##'} {lines.pop().strip()}"
        if not fence and (found := HEADING.fullmatch(line)):
            flush()
            notebook.heading = _text(found[2])
            heading = _heading(found[2])
            if len(found[1]) == 1 and not notebook.title and not done:
                notebook.title = heading
            else:
                done.append(f"{'#' * max(2, len(found[1]))} {heading}")
        else:
            lines.append(line)
    flush()
    return "\n\n".join(done)


def _heading(source: str) -> str:
    """A heading's words as Markdown; of its markup, formulas stay."""
    parts = FORMULA.split(_text(source))
    return "".join(rf"\({part}\)" if i % 2 else _escaped(part) for i, part in enumerate(parts))


def _text(source: str) -> str:
    """The words of one line of Markdown."""
    shown = harmless(f"x {source}")  # behind a word, so that "1." does not begin a list
    return " ".join(html.unescape(nh3.clean(str(shown), tags=set())).split()).removeprefix("x ")


def _escaped(text: str) -> str:
    return md(f"x{text}x")[1:-1]


def _code(source: str) -> str:
    """A cell of code between fences that it cannot close, left out of the search."""
    source = _plain(source).strip("\n")
    magic = re.match(r"%%(\w+)", source)
    lexer = magic[1] if magic and LEXER.fullmatch(magic[1]) else "python"
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", source)), default=0))
    return f'{fence} {{ .{lexer} .nb-code data-search-exclude="" }}\n{source}\n{fence}\n'


def _outputs(cell: Cell, notebook: _Notebook) -> Iterator[str]:
    """What a cell of code put out, each as a block of HTML."""
    printed: list[str] = []
    for output in [*cell.outputs, {}]:
        if output.get("output_type") == "stream":
            printed.append(_joined(output.get("text")))
            continue
        if printed:
            yield _shown_text("".join(printed))
            printed.clear()
        if output.get("output_type") == "error":
            lines = output.get("traceback")
            text = "\n".join(map(_joined, lines)) if isinstance(lines, list) else ""
            yield _shown_text(text or f"{output.get('ename')}: {output.get('evalue')}", "nb-error")
        elif output and (block := _data(output.get("data"), notebook)):
            yield block


def _data(data: Any, notebook: _Notebook) -> str:
    """An output that comes in several kinds: the best one that can be shown."""
    if not isinstance(data, dict):
        return ""
    for kind, suffix in (("image/png", "png"), ("image/jpeg", "jpg")):
        if kind in data and (shown := _picture(_joined(data[kind]), suffix, notebook)):
            return shown
    if "<table" in (source := _joined(data.get("text/html"))):
        cleaned = nh3.clean(_plain(source), tags=TABLE | WORDS, attributes=ATTRIBUTES, link_rel=None)
        return _block("nb-output nb-table", cleaned)
    if formula := _joined(data.get("text/latex")):
        return _block("nb-output", str(harmless(_plain(formula))))
    if prose := _joined(data.get("text/markdown")):
        return _block("nb-output", str(harmless(_plain(prose), notebook.base)))
    if plain := _joined(data.get("text/plain")):
        return _shown_text(plain)
    kinds = ", ".join(sorted(str(kind) for kind in data))[:100]
    return _shown_text(f"(An output of the kind {kinds} is not shown.)") if data else ""


def _picture(encoded: str, suffix: str, notebook: _Notebook) -> str:
    """A picture as a file of its own; '' if it is not what it says."""
    try:
        content = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        return ""
    size = _size(content)
    if size is None or max(size) > MAX_SIDE:
        return ""
    number = len(notebook.pictures) + 1
    file = f"{number}.{suffix}"
    notebook.pictures[file] = content
    under = f", under “{notebook.heading}”" if notebook.heading else ""
    shown = picture(f"notebook/{file}", f"Figure {number} of the notebook{under}", size, lazy=number > 1)
    return _block("nb-output nb-figure", shown)


def _size(content: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG or a JPEG in pixels, None if it is neither."""
    if content[:8] == b"\x89PNG\r\n\x1a\n" and content[12:16] == b"IHDR":
        return int.from_bytes(content[16:20]) or 1, int.from_bytes(content[20:24]) or 1
    if content[:3] != b"\xff\xd8\xff":
        return None
    at = 2
    while at + 9 < len(content) and content[at] == 0xFF:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the start of a frame
            return int.from_bytes(content[at + 7 : at + 9]) or 1, int.from_bytes(content[at + 5 : at + 7]) or 1
        at += 2 + length
    return None


def _shown_text(text: str, kind: str = "") -> str:
    """Text as it was printed: without colours, of what was overwritten the last, of much the beginning."""
    lines = [line.rpartition("\r")[2] for line in ANSI.sub("", text).replace("\r\n", "\n").rstrip().split("\n")]
    left_out = len(lines) - MAX_LINES
    lines = [line if len(line) <= MAX_WIDTH else line[:MAX_WIDTH] + " …" for line in lines[:MAX_LINES]]
    if left_out > 0:
        lines.append(f"… {left_out:,} more lines")
    content = html.escape(_plain("\n".join(lines)), quote=False)
    return _block(f"nb-output {kind}".strip(), f'<pre tabindex="0" role="group" aria-label="Output">{content}</pre>')


def _block(kind: str, content: str, *, searched: bool = False) -> str:
    """HTML that Markdown passes on as it is: what could still mean something to it stands as a character's number."""
    content = content.replace("`", "&#96;").replace("~", "&#126;")
    excluded = "" if searched else ' data-search-exclude=""'
    return f'<div class="{kind}"{excluded}>\n{content}\n</div>'


def _plain(text: str) -> str:
    """Without control characters: some have a meaning to the builder, none to a reader."""
    return CONTROL.sub("", ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n"))


def _joined(text: Any) -> str:
    """Text as notebooks keep it: whole, or as a list of lines; '' for anything else."""
    if isinstance(text, list):
        return "".join(part for part in text if isinstance(part, str))
    return text if isinstance(text, str) else ""
