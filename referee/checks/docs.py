"""DOC: the README says in two minutes what to know, and every command in it can be typed as it stands."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from common.records import PRESETS_ORDER
from referee.checks import markdown
from referee.checks.base import FROM_V1, WARN_FROM_V1, Found, Submission, check
from referee.checks.layout import literal_keys
from referee.checks.notebook import cells
from referee.checks.reading import PLACEHOLDER, acting, line_of
from referee.tables import MARKER

TABLES = ("claims", "results", "deviations")
"""The generated sections that every README has."""

LINK = re.compile(r"\[[^\[\]\n]{0,500}\]\([ \t]{0,20}<?([^)\s>]{1,1000})")
COMMAND = re.compile(r"[ \t]{0,20}(?:\$ )?(?:[\w.~/-]{0,200}/)?referee[ \t]+(\w+)([^#]*)")


@check(
    "DOC-001",
    "The README has its parts",
    why="A reader looks for the same things in the same places in every project.",
    fix="Take projects/iwae/README.md as the pattern: title, paper, how to run it, claims, deviations.",
    severity=FROM_V1,
)
def readme_has_its_parts(submission: Submission) -> Iterator[Found]:
    path = submission.at("README.md")
    text = submission.text(path)
    if not re.match(r"\s*# \S", text):
        yield path, 1, "does not begin with a title; begin with '# ' and the paper's name."
    arxiv = submission.file.paper.arxiv
    if arxiv and arxiv not in text:
        yield path, 1, f"does not link the paper; add https://arxiv.org/abs/{arxiv}."
    open_tables = {m.group(2) for m in MARKER.finditer(text) if not m.group(1)}
    for table in TABLES:
        if table not in open_tables:
            markers = f"<!-- referee:{table} --> and <!-- /referee:{table} -->"
            yield path, 1, f"has no table of {table}; add the lines {markers}, then 'referee tables'."
    if sum(line.startswith("## ") for _, line in markdown.prose(text)) < 2:
        yield path, 1, "has no sections ('## '): at least how to run it, and what came out."


@check(
    "DOC-002",
    "The commands in the README are complete",
    why="A reader copies them.",
    fix="Write the command as it was run; 'referee <command> --help' lists what it takes.",
    severity=FROM_V1,
)
def commands_are_complete(submission: Submission) -> Iterator[Found]:
    from referee.cli import COMMANDS

    path = submission.at("README.md")
    text = submission.text(path)
    presets = _presets(submission)
    runs = False
    for line, typed in markdown.code(text):
        if not (found := COMMAND.match(typed)):
            continue
        command, words = found[1], found[2].split()
        if command not in COMMANDS:
            yield path, line, f"'referee {command[:40]}' is no command; 'referee --help' lists them."
        elif command == "run":
            preset = next((w for a, w in itertools.pairwise(words) if a == "--preset"), None)
            if submission.name not in words:
                yield path, line, f"the command names another paper; write 'referee run {submission.name} …'."
            elif preset is None:
                yield path, line, f"the command names no preset; add --preset {PRESETS_ORDER[0]}, for example."
            elif presets is not None and preset not in presets:
                yield path, line, f"the paper has no preset '{preset[:40]}'; it has {', '.join(presets)}."
            else:
                runs = True
    if not runs:
        command = f"referee run {submission.name} --preset {PRESETS_ORDER[0]}"
        yield path, 1, f"no command in a code block runs the project; add '{command}'."


def _presets(submission: Submission) -> list[str] | None:
    """The presets that are written out in the paper's file; None when they are made in another way."""
    if not submission.has(f"{submission.name}.py"):
        return None
    return literal_keys(submission.tree(submission.project.paper_file), "PRESETS")


@check(
    "DOC-003",
    "No placeholder is left",
    why="Text that was meant to be replaced tells a reader that nobody has read it.",
    fix="Write what belongs there, or delete it. A proposal owes project.yaml alone, the rest comes with version 1.",
)
def no_placeholder(submission: Submission) -> Iterator[Found]:
    for path, line, where, text in _written(submission):
        if found := PLACEHOLDER.search(text):
            if path.suffix == ".md":  # as it stands there: what is searched has its code blanked out
                text = submission.text(path).split("\n")[line - 1]
            what = re.split(r"[\n\"]", text[found.start() :])[0].strip()
            what = what if len(what) <= 100 else what[:99].rstrip() + "…"
            yield path, line, f"{where}'{what}' is left; write what belongs there."


def _written(submission: Submission) -> Iterator[tuple[Path, int, str, str]]:
    """What people wrote, line by line: file, line, 'cell 3: ' where it stands in a notebook, text."""
    proposed = submission.stage == "proposed"
    for entry in submission.files(".yaml") if proposed else submission.files(".py", ".md", ".yaml"):
        text = submission.text(entry.path)
        numbered = markdown.prose(text) if entry.path.suffix == ".md" else enumerate(text.split("\n"), 1)
        yield from ((entry.path, line, "", said) for line, said in numbered)
    if not proposed and submission.has(f"{submission.name}.ipynb"):
        path = submission.at(f"{submission.name}.ipynb")
        for cell in cells(submission):
            yield from ((path, cell.line, f"cell {cell.number}: ", said) for said in cell.source.split("\n"))


@check(
    "DOC-004",
    "Links lead somewhere",
    why="A dead link costs a reader more than no link.",
    fix="Correct the path, relative to the README, with the same capitals as the file.",
    severity=FROM_V1,
)
def links_lead_somewhere(submission: Submission) -> Iterator[Found]:
    path = submission.at("README.md")
    text = submission.text(path)
    for line, prose in markdown.prose(text):
        for found in LINK.finditer(prose):
            if why := _dead(submission, unquote(found[1])):
                yield path, line, f"the link to '{found[1][:60]}' {why}."


def _dead(submission: Submission, target: str) -> str | None:
    """Why a link leads nowhere; None when it is an address, or leads to a file of the repository."""
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//|#", target):
        return None
    file = submission.project.folder / target.partition("#")[0].partition("?")[0]
    try:
        if not file.resolve().is_relative_to(submission.root.resolve()):
            return "leaves the repository; use a path inside or an address"
        return None if file.exists() else "leads nowhere; correct the path"
    except (OSError, ValueError, RuntimeError):  # too long, or a loop of links
        return "leads nowhere; correct the path"


@check(
    "DOC-005",
    "Markdown is plain: no scripts, no HTML that acts",
    why="It becomes a page of the site; what is in it would run in every reader's browser.",
    fix="Write plain Markdown; the tables that 'referee tables' makes are allowed.",
)
def markdown_is_plain(submission: Submission) -> Iterator[Found]:
    for entry in submission.files(".md"):
        text = submission.text(entry.path)
        if found := acting(text):  # in code, too: where code ends is a matter of the Markdown dialect
            message = f"holds HTML that acts ('{found[0][:40]}'); write plain Markdown."
            yield entry.path, line_of(text, found.start()), message


@check(
    "DOC-006",
    "The paper's file says what it is",
    why="A reader who opens the code first should learn which paper it is and what the letters mean.",
    fix="Begin the file with a docstring: the paper, its equations, a legend of shapes.",
    severity=WARN_FROM_V1,
)
def module_says_what_it_is(submission: Submission) -> Iterator[Found]:
    path = submission.project.paper_file
    said = ast.get_docstring(submission.tree(path)) or ""
    if len(said.split()) < 15:
        yield path, 1, "begins with no docstring, or a very short one; name the paper and the legend of shapes."
