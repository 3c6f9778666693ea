"""Links of hand-written pages: they are right where the page lies in the repository, and are made right on the site.

A link to a page that the site has leads there; one to another file leads to the repository's address, or, where that is
not known, becomes plain text that names the file. Code is left as it is.
"""

import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from urllib.parse import quote, unquote

from markdown.extensions.toc import slugify

from referee.site.writing import code

FENCE = re.compile(r" *(`{3,}|~{3,})(.*)")
HEADING = re.compile(r"(#{1,6})[ \t]+(.*?)[ \t]*#*")
_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)
_TARGET = re.compile(r"\]\((<[^<>\n]*>|[^\s()<>]*(?:\([^\s()<>]*\)[^\s()<>]*)*)(\s+\"[^\"\n]*\")?\)")
_DEFINITION = re.compile(r"^( {0,3}\[[^\]\n]+\]:[ \t]+)(\S+)", re.MULTILINE)
_ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//")


def plain(text: str) -> Iterator[tuple[int, str, bool]]:
    """The lines of a Markdown text: number from 1, the line, whether it is code or a formula between fences (or a fence
    itself)."""
    fence = ""
    for number, line in enumerate(text.split("\n"), 1):
        match = FENCE.fullmatch(line)
        if fence == "$$" or (not fence and line.strip() == "$$"):
            fence = "" if fence and line.strip() == "$$" else "$$"
            yield number, line, True
        elif fence:
            if match and match[1].startswith(fence) and not match[2].strip():
                fence = ""
            yield number, line, True
        elif match and "`" not in match[2]:
            fence = match[1]
            yield number, line, True
        else:
            yield number, line, False


def headings(text: str) -> list[tuple[int, int, str]]:
    """The headings of a Markdown text: line, level, words."""
    found = ((n, HEADING.fullmatch(line)) for n, line, fenced in plain(text) if not fenced)
    return [(n, len(match[1]), match[2]) for n, match in found if match]


def anchor(title: str) -> str:
    """What a heading is called in an address; mkdocs and the forge agree but for signs that titles here do not hold."""
    return str(slugify(title.replace("`", ""), "-"))


Where = Callable[[str, str], tuple[str, str] | None]
"""A path from the repository's root, and what stands behind '#' -> path in the tree, and what stands behind '#' there;
None when the site does not have it."""


def rewrite(text: str, source: str, target: str, where: Where, root: Path, repository: str) -> str:
    """A hand-written page with links that are right on the site.

    Args:
        source: where it lies in the repository.
        target: where it lies in the tree.
        where: what the site has of the repository.
        root: the repository's folder, to tell files from folders.
        repository: its address at a forge; "" where none is known.
    """

    def address(link: str) -> str | None:
        """What a link becomes; None where it leads nowhere."""
        link = link.strip("<>")
        if _ELSEWHERE.match(link) or link.startswith("#") or not link:
            return link
        path, _, mark = link.partition("#")
        inside = normpath(join(dirname(source), unquote(path)))
        if inside.startswith(("../", "/")):
            return None
        if (found := where(inside, mark)) is not None:
            here, mark = found
            if here == target and mark:
                return f"#{mark}"
            return relpath(here, dirname(target) or ".") + (f"#{mark}" if mark else "")
        if not repository:
            return None
        kind = "tree" if (root / inside).is_dir() else "blob"
        return f"{repository}/{kind}/HEAD/{quote(inside)}" + (f"#{mark}" if mark else "")

    code_at = list(_code(text))
    starts = [start for start, _ in code_at]

    def is_code(position: int) -> bool:
        i = bisect_right(starts, position) - 1
        return i >= 0 and position < code_at[i][1]

    pieces: list[str] = []
    done = 0
    for match in sorted([*_TARGET.finditer(text), *_DEFINITION.finditer(text)], key=lambda m: m.start()):
        if is_code(match.start()) or match.start() < done:
            continue
        if match.re is _DEFINITION:
            pieces += [text[done : match.start(2)], address(match[2]) or "#"]
            done = match.end(2)
            continue
        new = address(match[1])
        if new is not None:
            pieces += [text[done : match.start(1)], new]
            done = match.end(1)
            continue
        begin = _opening(text, match.start(), is_code)
        if begin < done:
            continue
        words = text[begin + 1 : match.start()]
        shown = os.path.normpath(match[1].strip("<>").partition("#")[0])
        named = words if "`" in words or words == shown else f"{words} ({code(shown)})"
        pieces += [text[done : begin - (text[begin - 1 : begin] == "!")], named]
        done = match.end()
    return _four("".join([*pieces, text[done:]]))


_ITEM = re.compile(r"( *)([-*+]|\d{1,9}[.)])( +)(?=\S)")


def _four(text: str) -> str:
    """Lists as every reader of Markdown takes them: what belongs to an item indented by four for each level, a blank
    line before the first."""
    lines: list[str] = []
    inside: list[int] = []  # where the text of each open item begins
    before = ""
    for _, line, fenced in plain(text):
        indent = len(line) - len(line.lstrip(" "))
        if not line.strip():
            lines.append("")
            before = line
            continue
        was_open = bool(inside)
        if not fenced or FENCE.fullmatch(line):
            while inside and indent < inside[-1]:
                inside.pop()
        outer = inside[-1] if inside else 0
        match = None if fenced else _ITEM.match(line)
        if match:
            if not was_open and before.strip():
                lines.append("")
            lines.append(" " * 4 * len(inside) + line[outer:])
            inside.append(match.end())
        else:
            lines.append(" " * 4 * len(inside) + line[min(outer, indent) :])
        before = line
    return "\n".join(lines)


def _code(text: str) -> Iterator[tuple[int, int]]:
    """Where code stands: between fences, and in spans of a paragraph."""
    position = begin = 0
    paragraph = False
    for _, line, fenced in [*plain(text), (0, "", False)]:
        if not fenced and line.strip() and position < len(text):
            if not paragraph:
                begin, paragraph = position, True
        else:
            if paragraph:
                yield from ((begin + m.start(), begin + m.end()) for m in _SPAN.finditer(text[begin:position]))
                paragraph = False
            if fenced:
                yield position, position + len(line)
        position += len(line) + 1


def _opening(text: str, closing: int, is_code: Callable[[int], bool]) -> int:
    """Where the '[' stands that a ']' closes."""
    depth = 0
    for i in range(closing, -1, -1):
        if is_code(i) or text[i - 1 : i] == "\\":
            continue
        depth += (text[i] == "]") - (text[i] == "[")
        if depth == 0:
            return i
    return closing


def looked_up(places: Mapping[str, str], marks: Mapping[str, Mapping[str, str]]) -> Where:
    """A `Where` from tables.

    Args:
        places: path in the repository -> path in the tree.
        marks: path in the repository -> heading -> path in the tree, for files that stand on several pages.
    """

    def where(path: str, mark: str) -> tuple[str, str] | None:
        if mark in marks.get(path, {}):
            there = marks[path][mark]
            return there, mark
        if path in places:
            return places[path], mark
        return None

    return where
