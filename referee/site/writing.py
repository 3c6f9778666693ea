"""Markdown of the site from untrusted text: escaping, links, pictures, templates.

What comes from a project's or a reviewer's file passes `md` or `code` (as text in Markdown) or Jinja's autoescape (as
text in HTML) before it stands on a page. Templates write HTML blocks and Markdown; they end in `.md.j2`.
"""

import re
import struct
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from referee.show import MARKS
from referee.tables import code

__all__ = ["SLUGS", "badge", "code", "macro", "md", "picture", "png_size", "render", "table"]

SLUGS: Mapping[str, str] = {status: re.sub(r"[^a-z]+", "-", status) for status in MARKS}
"""Verdict -> the class of its badge: "not reproduced" -> "not-reproduced"."""

MAX_PICTURE = 3 * 1024 * 1024  # bytes


_MARKUP = re.compile(r"[\\`*_{}\[\]()<>&#+\-.!|~$:=^?\"']")


def md(text: str) -> str:
    """Text from a file as text in Markdown, on one line: nothing in it is markup, HTML or attributes.

    Entities do what backslashes do not: every reader of Markdown knows them for every character, `{: … }` included.
    """
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};", " ".join(text.split()))


def badge(status: str, count: int | None = None, where: str = "") -> Markup:
    """A verdict's sign and words in its colours, as HTML; with how many there are of it, or at which preset."""
    mark = MARKS[status][0]  # type: ignore[index]
    number = "" if count is None else f"{count} "
    return Markup('<span class="verdict v-{}"><span aria-hidden="true">{}</span> {}{}{}</span>').format(
        SLUGS[status], mark, number, status, f" at {where}" if where else ""
    )


def png_size(path: Path) -> tuple[int, int] | None:
    """Width and height of a PNG in pixels; None if it is none, a link, or too large to show."""
    try:
        if path.is_symlink() or path.stat().st_size > MAX_PICTURE:
            return None
        with path.open("rb") as file:
            head = file.read(33)
    except OSError:
        return None
    if len(head) < 33 or head[:8] != b"\x89PNG\r\n\x1a\n" or head[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", head[16:24])
    return (width, height) if width and height else None


def picture(src: str, alt: str, size: tuple[int, int], *, lazy: bool = True) -> Markup:
    """An <img> that takes its room before it is loaded.

    Args:
        src: address relative to the page.
        alt: what is seen.
        size: width and height in pixels.
        lazy: whether it lies below what is first seen.
    """
    loading = ' loading="lazy"' if lazy else ""
    return Markup(
        f'<img src="{escape(src)}" alt="{escape(alt)}" width="{size[0]}" height="{size[1]}"{loading} decoding="async">'
    )


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table of cells that are Markdown already."""
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [header, ["---"] * len(header), *rows])


_environment = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.globals |= {"badge": badge, "picture": picture}
_environment.filters |= {"line": lambda text: " ".join(str(text).split())}
_environment.filters |= {"md": lambda text: Markup(md(str(text))), "code": lambda text: Markup(code(str(text)))}


def render(template: str, **values: Any) -> str:
    """A page from its template; everything not marked as safe is escaped as HTML text."""
    return _environment.get_template(template).render(**values)


def macro(template: str, name: str, *values: Any) -> Markup:
    """What a template's macro makes of these values."""
    return Markup(getattr(_environment.get_template(template).module, name)(*values))
