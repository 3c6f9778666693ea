"""`referee new`: a project that runs, from `templates/project/`; what the team has to write is marked `WRITE:`.

A template is an ordinary file in which words such as `__TITLE__` stand for what was given on the command line. They are
replaced all at once, so that nothing in a title is taken for such a word, and each is written as its file needs it:
quoted in YAML, escaped in a docstring or in Markdown. A notebook's cells are filled one by one, and JSON does the rest.
"""

import argparse
import importlib.util
import json
import keyword
import os
import re
import sys
import tempfile
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError, nearest
from common.records import write_text
from referee.project import HANDLE, Project, UsageError, find_root

MARKER = "WRITE:"
"""How a text begins that the team has to replace."""

TEMPLATES = "templates/project"
FILES = {  # template -> what it becomes
    "project.yaml": "project.yaml",
    "paper.py": "{}.py",
    "test_paper.py": "test_{}.py",
    "paper.ipynb": "{}.ipynb",
    "README.md": "README.md",
    "__init__.py": "__init__.py",
}
WORD = re.compile(r"__([A-Z]+)__")
WIDTH = 114  # of a docstring's lines, which may begin and end with three quotes

MAX_NAME, MAX_TEXT, MAX_PEOPLE = 30, 300, 50
NAME = re.compile(r"[a-z][a-z0-9_]*")
ARXIV = re.compile(
    r"(?:https?://arxiv\.org/(?:abs|pdf)/|arxiv:)?(\d{2}(?:0[1-9]|1[0-2])\.\d{4,5})(?:v\d+)?", re.A | re.I
)
RESERVED = ("conftest", "results")  # pytest and the project's own folder mean something else by them


@dataclass(frozen=True)
class Entry:
    """What is known of a paper before anybody has begun."""

    name: str  # of the project
    title: str
    authors: tuple[str, ...]
    venue: str
    year: int
    arxiv: str | None  # the number alone
    family: str
    team: tuple[str, ...]  # handles


def new_command(options: argparse.Namespace) -> int:
    """`referee new`."""
    root = find_root()
    entry = read_entry(root, options)
    files = render(root, entry)
    folder = create(root, entry.name, files)
    for warning in strangers(root, entry.team):
        print(f"referee: {warning}", file=sys.stderr)
    shown = folder.relative_to(root).as_posix()
    print(f"Made {shown}, which runs as it stands:\n")
    print(f"  referee run {entry.name} --preset smoke\n  python -m pytest {shown}\n")
    print(f"Yours to write is what begins with {MARKER}")
    for file, text in files.items():
        if lines := [number for number, line in enumerate(text.splitlines(), 1) if MARKER in line]:
            print(f"  {shown}/{file}: line{'s' * (len(lines) > 1)} {', '.join(map(str, lines))}")
    print(f"\nThe claims come first: a proposal is {shown}/project.yaml alone. Then: referee check {entry.name}")
    return 0


# -- What is given -----------------------------------------------------------------------------------------------------


def read_entry(root: Path, options: argparse.Namespace) -> Entry:
    """The command line's words, each checked.

    Raises:
        UsageError: with everything that is wrong, one message a line.
    """
    from referee.checklist import load_checklist

    wrong: list[str] = []

    def read(option: str, what: str) -> str:
        text = what.strip(" ")
        if complaint := bad_text(text):
            wrong.append(f"--{option}: {complaint}")
        return text

    if complaint := bad_name(root, options.paper):
        wrong.append(complaint)
    title, venue = read("title", options.title), read("venue", options.venue)
    listed = options.authors.split(";" if ";" in options.authors else ",")
    authors = tuple(read("authors", author) for author in listed)
    if not re.fullmatch(r"[0-9]{4}", options.year) or not 1900 <= int(options.year) <= 2100:
        wrong.append(f"--year: {_brief(options.year)} is no year of a publication; four digits are wanted, like 2016.")
    arxiv = ARXIV.fullmatch(options.arxiv.strip()) if options.arxiv else None
    if options.arxiv and not arxiv:
        wrong.append(
            f"--arxiv: {_brief(options.arxiv)} is no arXiv number; it is year and month, a point and four or five "
            "digits, like 1509.00519. Leave the option away if the paper is not there."
        )
    families = load_checklist().families  # which decide what reviewers look at
    if options.family not in families:
        hint = nearest(options.family, families)
        wrong.append(f"--family: unknown family {_brief(options.family)}.{hint} Families: {', '.join(families)}.")
    team = tuple(handle.strip() for handle in options.team.split(","))
    wrong += [
        f"--team: {_brief(handle)} is no public handle; letters, digits and hyphens, like ada,bo."
        for handle in team
        if not HANDLE.fullmatch(handle)
    ]
    if twice := sorted({h for h in team if [t.lower() for t in team].count(h.lower()) > 1}):
        wrong.append(f"--team: {', '.join(twice)}: nobody stands in a team twice.")
    if max(len(authors), len(team)) > MAX_PEOPLE:
        wrong.append(f"--authors, --team: at most {MAX_PEOPLE} people.")
    if wrong:
        raise UsageError("\n".join(f"new: {complaint}" for complaint in wrong))
    year, number = int(options.year), arxiv and arxiv.group(1)
    return Entry(options.paper, title, authors, venue, year, number, options.family, team)


def bad_name(root: Path, name: str) -> str:
    """Why a project cannot have this name, '' if it can."""
    if not NAME.fullmatch(name) or len(name) > MAX_NAME:
        return (
            f"{_brief(name)} cannot name a project: it is made of small letters, digits and _, begins with a letter "
            f"and has at most {MAX_NAME} characters, like iwae."
        )
    if os.path.lexists(root / "projects" / name):
        return f"projects/{name} is there already; nothing was changed. Take another name."
    if keyword.iskeyword(name) or name in sys.stdlib_module_names:
        return f"'{name}' means something else in Python; take another name, like {name}_paper."
    if name in RESERVED or name.startswith("test_"):
        return f"'{name}' means something else in this repository; take another name, like {name}_paper."
    found = importlib.util.find_spec(name)
    if found is not None and found.origin is not None:
        # The notebook's folder comes first where Python looks for modules.
        return f"'{name}' is a package that is installed here, and would hide it; take another name."
    return ""


def bad_text(text: str) -> str:
    """Why a text cannot be a title, a venue or a name, '' if it can."""
    if not text:
        return "is empty."
    if len(text) > MAX_TEXT:
        return f"has {len(text)} characters; at most {MAX_TEXT}."
    if text.startswith(MARKER):
        return f"begins with {MARKER}, which marks what is still to be written."
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") or character in "\ufffe\uffff":
            return f"holds the character U+{ord(character):04X}, which is invisible or breaks lines; leave it out."
    return ""


def strangers(root: Path, team: Iterable[str]) -> list[str]:
    """A warning for each handle that the course does not know; none where nobody is listed."""
    from referee.course import load_course

    try:
        course = load_course(root)
    except UserError as error:
        return [f"whether the team takes part could not be told: {str(error).splitlines()[0]}"]
    known = [person.handle for person in course.people]
    return [
        f"course.yaml lists nobody as '{handle}'.{nearest(handle, known)} The editor enters people before they submit."
        for handle in team
        if known and course.person(handle) is None
    ]


def _brief(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else shown[:57] + "..."


# -- From template to file ---------------------------------------------------------------------------------------------


def render(root: Path, entry: Entry) -> dict[str, str]:
    """The project's files: name -> text.

    Raises:
        UserError: a template is missing, or cannot be read.
    """
    files: dict[str, str] = {}
    for name, becomes in FILES.items():
        path = root / TEMPLATES / name
        try:
            template = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise UserError(f"{TEMPLATES}/{name} cannot be read; it belongs to the repository: restore it.") from None
        text = _notebook(template, entry) if path.suffix == ".ipynb" else written(template, entry, path.suffix)
        files[becomes.format(entry.name)] = text
    return files


def written(template: str, entry: Entry, suffix: str) -> str:
    """A template with its words replaced, each written as a file of this suffix needs it."""
    values = {".yaml": _in_yaml, ".md": _in_markdown, ".py": _in_docstring}[suffix](entry)
    return WORD.sub(lambda word: values[word.group(1)], template)


def _in_yaml(entry: Entry) -> Mapping[str, str]:
    def quoted(text: str) -> str:
        return json.dumps(text, ensure_ascii=False)  # what JSON quotes, YAML reads as it is

    role = quoted(f"{MARKER} what this person does")
    return {
        "PAPER": entry.name,
        "TITLE": quoted(entry.title),
        "AUTHORS": ", ".join(map(quoted, entry.authors)),
        "VENUE": quoted(entry.venue),
        "YEAR": str(entry.year),
        "ARXIV": quoted(entry.arxiv) if entry.arxiv else "null",
        "FAMILY": entry.family,
        "TEAM": ", ".join(f"{{handle: {quoted(handle)}, role: {role}}}" for handle in entry.team),
    }


def _in_markdown(entry: Entry) -> Mapping[str, str]:
    from referee.tables import md

    link = f", [arXiv {entry.arxiv}](https://arxiv.org/abs/{entry.arxiv})" if entry.arxiv else ""
    reference = f"{md(_together(entry.authors))}, {md(entry.venue)} {entry.year}{link}"
    return {"PAPER": entry.name, "TITLE": md(entry.title), "REFERENCE": reference}


def _in_docstring(entry: Entry) -> Mapping[str, str]:
    stop = "" if entry.title[-1] in ".?!" else "."
    link = f" https://arxiv.org/abs/{entry.arxiv}" if entry.arxiv else ""
    text = f"{entry.title}{stop} {_together(entry.authors)}, {entry.venue} {entry.year}.{link}"
    text = re.sub(r'^"|"""', lambda quotes: r"\"" * len(quotes.group()), text.replace("\\", "\\\\"))
    return {"PAPER": entry.name, "REFERENCE": _wrapped(text)}


def _notebook(template: str, entry: Entry) -> str:
    notebook = json.loads(template)
    for cell in notebook["cells"]:
        suffix = ".md" if cell["cell_type"] == "markdown" else ".py"
        cell["source"] = written("".join(cell["source"]), entry, suffix).splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _wrapped(text: str) -> str:
    """Text in lines of at most `WIDTH` columns, broken at spaces only: never within an escape."""
    lines: list[str] = []
    room = 0
    for word in text.split():
        columns = sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in word)
        if columns < room:
            lines[-1] += f" {word}"
            room -= columns + 1
        else:
            lines.append(word)
            room = WIDTH - columns
    return "\n".join(lines)


def _together(names: tuple[str, ...]) -> str:
    """'A, B & C'."""
    return " & ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), names[-1]])


# -- Into the repository -----------------------------------------------------------------------------------------------


def create(root: Path, name: str, files: Mapping[str, str]) -> Path:
    """Put the files into `projects/<name>/`, generated tables filled: the folder appears whole or not at all.

    Raises:
        UsageError: the folder is there already.
        UserError: it cannot be written.
    """
    from referee import tables
    from referee.standing import standing

    target = root / "projects" / name
    try:
        with tempfile.TemporaryDirectory(prefix=".new-", dir=root / "projects") as staging:
            made = Project(Path(staging), name)
            for file, text in files.items():
                write_text(made.folder / file, text)
            s = standing(made)
            sections = {
                "claims": lambda: tables.claims_table(s),
                "results": lambda: tables.results_table(s),
                "deviations": lambda: tables.deviations_table(s),
            }
            write_text(made.folder / "README.md", tables.fill(files["README.md"], sections, "README.md"))
            if os.path.lexists(target):
                raise UsageError(f"new: projects/{name} is there already; nothing was changed.")
            made.folder.rename(target)
    except OSError as error:
        raise UserError(f"projects/{name} cannot be made: {error.strerror}. Nothing was changed.") from None
    return target
