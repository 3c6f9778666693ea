"""How much of a project's Python stands elsewhere, too: by fingerprints of its tokens, whatever its names are.

Source is cut into tokens: names become one symbol, numbers another, texts a third; keywords and operators stay;
comments, docstrings and layout go. Runs of `GRAM` tokens are hashed, and of every `WINDOW` neighbouring hashes the
smallest is kept (winnowing: Schleimer, Wilkerson & Aiken, SIGMOD 2003), so that any copied run of at least
`GRAM + WINDOW - 1` tokens is found, wherever it was moved and however it was renamed. What `common/` and the templates
hold, too, is everybody's and does not count; nor does what stands in a file declared under `borrowed`.

A match is for people to judge: two honest implementations of one equation look alike.
"""

import argparse
import json
import keyword
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from referee.project import Project, UsageError, find_project, find_root, paper_names

GRAM = 24  # tokens
WINDOW = 12
MAX_FILE = 256 * 1024  # bytes of a Python file; larger ones are not read
MAX_SOURCES = 20_000  # files of earlier cohorts that are compared
SHARE = 0.15  # of a file's fingerprints that must be found elsewhere before it is worth a person's time
LONGEST = 80  # or this many tokens in one piece
PLACES = 4  # at which one fingerprint is looked at in a file

TOKEN = re.compile(
    r"""(?P<skip>\#[^\n]*|[ \t\f\r\\]+)|(?P<line>\n)"""
    r"""|(?P<text>(?i:[rbfu]{0,2})(?:\"\"\"(?s:.*?)(?:\"\"\"|\Z)|'''(?s:.*?)(?:'''|\Z)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?))"""
    r"""|(?P<number>(?:\d[\d_]*\.?|\.\d)[\w.]*(?:(?<=[eE])[+-]\d+)?)|(?P<name>[^\W\d]\w*)"""
    r"""|(?P<operator>\*\*=?|//=?|>>=?|<<=?|->|:=|[-+*/%@&|^=<>!]=?|.)"""
)


@dataclass(frozen=True)
class Prints:
    """A file's tokens and the fingerprints that were kept of them."""

    path: str  # as shown
    places: Mapping[int, Sequence[int]]  # fingerprint -> the tokens at which it begins
    lines: Sequence[int]  # of each token
    kinds: Sequence[str]  # each token, normalised
    codes: Mapping[int, int]  # token -> the fingerprint that begins there


@dataclass(frozen=True)
class Match:
    """A file, another that holds part of it, and where the longest common piece stands in both."""

    ours: str
    theirs: str
    share: float  # of our file's fingerprints, 0 to 1
    tokens: int  # of the longest piece
    our_lines: tuple[int, int]  # first and last
    their_lines: tuple[int, int]
    where_from: str  # "project", "earlier" or "source"


def tokens(source: str) -> tuple[list[str], list[int]]:
    """Normalised tokens and their lines. Works on anything: what is not Python gives tokens, too."""
    found: list[str] = []
    lines: list[int] = []
    line = 1
    fresh = True  # nothing but layout since the line began: a text here that ends its line is a docstring
    for match in TOKEN.finditer(source):
        kind = match.lastgroup
        if kind == "line":
            line, fresh = line + 1, True
            continue
        if kind == "skip":
            continue
        text = match[0]
        if kind == "text":
            if not (fresh and _ends_line(source, match.end())):
                found.append("T")
                lines.append(line)
            line += text.count("\n")
        elif kind == "name" and not keyword.iskeyword(text):
            found.append("N")
            lines.append(line)
        else:
            found.append("1" if kind == "number" else text)
            lines.append(line)
        fresh = False
    return found, lines


def _ends_line(source: str, position: int) -> bool:
    end = source.find("\n", position)
    rest = source[position : end if end >= 0 else len(source)].strip()
    return not rest or rest.startswith("#")


def fingerprints(source: str, shown: str) -> Prints:
    """Winnowed fingerprints of a source text."""
    kinds, lines = tokens(source)
    packed = b"".join((zlib.crc32(kind.encode()) & 0xFFFF).to_bytes(2, "little") for kind in kinds)
    hashes = [zlib.crc32(packed[2 * i : 2 * (i + GRAM)]) for i in range(len(kinds) - GRAM + 1)]
    places: dict[int, list[int]] = {}
    width = min(WINDOW, len(hashes))
    kept = -1
    for first in range(len(hashes) - width + 1 if hashes else 0):
        last = first + width - 1
        if kept < first:  # it has left the window: the smallest there is now, the last of equals
            kept = min(range(first, last + 1), key=lambda i: (hashes[i], -i))
        elif hashes[last] <= hashes[kept]:
            kept = last
        else:
            continue
        places.setdefault(hashes[kept], []).append(kept)
    return Prints(shown, places, lines, kinds, {place: code for code, at in places.items() for place in at})


def compare(ours: Prints, theirs: Prints, common_ground: frozenset[int], where_from: str) -> Match | None:
    """How much of our file theirs holds; None when it is not worth a person's time."""
    mine = [h for h in ours.places if h not in common_ground]
    shared = [h for h in mine if h in theirs.places]
    if not shared:
        return None
    share = len(shared) / len(mine)
    first, second, length = _longest(ours, theirs, shared)
    if share < SHARE and length < LONGEST:
        return None
    return Match(
        ours.path,
        theirs.path,
        share,
        length,
        (ours.lines[first], ours.lines[first + length - 1]),
        (theirs.lines[second], theirs.lines[second + length - 1]),
        where_from,
    )


def _longest(ours: Prints, theirs: Prints, shared: Iterable[int]) -> tuple[int, int, int]:
    """The longest common run of tokens around a shared fingerprint: where it begins in both, and its length."""
    a, b = ours.kinds, theirs.kinds
    best, seen = (0, 0, 0), dict[int, int]()  # shift between the files -> how far it has been compared
    for i in sorted(i for code in shared for i in ours.places[code][:PLACES]):
        for j in theirs.places[ours.codes[i]][:PLACES]:
            if i < seen.get(i - j, 0):
                continue  # inside a run that is known
            start, end = i, i
            while start > 0 and start > i - j and a[start - 1] == b[start - 1 - i + j]:
                start -= 1
            while end < len(a) and end - i + j < len(b) and a[end] == b[end - i + j]:
                end += 1
            seen[i - j] = end
            if end - start > best[2]:
                best = (start, start - i + j, end - start)
    return best


# -- Where files come from ---------------------------------------------------------------------------------------------


def python_files(folder: Path, limit: int = MAX_SOURCES) -> list[Path]:
    """The plain Python files below a folder, sorted; links are not followed."""
    found: list[Path] = []
    todo = [folder]
    while todo and len(found) < limit:
        here = todo.pop()
        try:
            inside = sorted(here.iterdir())
        except OSError:
            continue
        for path in inside:
            if path.is_symlink() or path.name.startswith(".") or path.name == "__pycache__":
                continue
            if path.is_dir():
                todo.append(path)
            elif path.suffix == ".py":
                found.append(path)
    return sorted(found)[:limit]


def read(path: Path, shown: str) -> Prints | None:
    """A file's fingerprints; None when it is too large or no text."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE + 1)
    except OSError:
        return None
    if len(raw) > MAX_FILE or b"\0" in raw:
        return None
    return fingerprints(raw.decode("utf-8", "replace"), shown)


def matches(
    project: Project,
    *,
    borrowed: Iterable[str] = (),
    earlier: Iterable[Path] = (),
    sources: Iterable[Path] = (),
) -> list[Match]:
    """Where a project's Python stands elsewhere, the largest share first.

    Args:
        borrowed: paths inside the project that are declared as not the team's own; they are not compared.
        earlier: folders of earlier cohorts.
        sources: folders or files of code that the project may have started from.
    """
    root = project.root
    declared = [(project.folder / path).resolve() for path in borrowed]
    ours = [
        prints
        for path in python_files(project.folder)
        if not any(path.resolve().is_relative_to(d) for d in declared)
        and (prints := read(path, project.shown(path))) is not None
    ]
    ground = frozenset(
        code
        for folder in (root / "common", root / "templates")
        for path in python_files(folder)
        if (prints := read(path, path.name)) is not None
        for code in prints.places
    )
    found: list[Match] = []
    for where_from, path, shown in _others(project, earlier, sources):
        theirs = read(path, shown)
        if theirs is None:
            continue
        found += [m for mine in ours if (m := compare(mine, theirs, ground, where_from)) is not None]
    return sorted(found, key=lambda m: (-m.share, -m.tokens, m.ours, m.theirs))


def _others(project: Project, earlier: Iterable[Path], sources: Iterable[Path]) -> Iterator[tuple[str, Path, str]]:
    for name in paper_names(project.root):
        if name != project.name:
            other = Project(project.root, name)
            yield from (("project", path, other.shown(path)) for path in python_files(other.folder))
    for where_from, places in (("earlier", earlier), ("source", sources)):
        for place in places:
            if not place.exists():
                raise UserError(f"{place}: there is no such file or folder to compare with.")
            files = [place] if place.is_file() else python_files(place)
            base = place.parent
            for path in files:
                if not path.resolve().is_relative_to(project.folder.resolve()):
                    yield where_from, path, path.relative_to(base).as_posix()


# -- referee originality -----------------------------------------------------------------------------------------------


def originality_command(options: argparse.Namespace) -> int:
    """`referee originality`: prints matches; exits with 0, since people judge them."""
    root = find_root()
    if not options.papers and not paper_names(root):
        raise UsageError("originality: there is no project yet.")
    projects = [find_project(root, name) for name in options.papers or paper_names(root)]
    results: dict[str, list[Match]] = {}
    for project in projects:
        borrowed = [entry.path for entry in project.load().borrowed]
        results[project.name] = matches(
            project, borrowed=borrowed, earlier=map(Path, options.earlier), sources=map(Path, options.source)
        )
    if options.format == "json":
        from dataclasses import asdict

        print(json.dumps({name: [asdict(m) for m in found] for name, found in results.items()}, indent=1))
        return 0
    for name, found in results.items():
        if not found:
            print(f"{name}: nothing that stands elsewhere, too.")
        for match in found:
            print(f"{said(match)}")
    return 0


def said(match: Match) -> str:
    """A match in words, with both places."""
    ours, theirs = (f"{first}-{last}" for first, last in (match.our_lines, match.their_lines))
    return (
        f"{match.ours}:{ours}: {match.share:.0%} of the file is like {match.theirs}:{theirs} "
        f"(longest piece: {match.tokens} tokens)"
    )
