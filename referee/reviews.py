"""Reviews, responses and decisions: what the files in `reviews/<paper>/` may say, and what stands in them.

    <handle>.md    one reviewer's review: the checklist with evidence, findings, a recommendation
    response.md    the team's answer to every finding
    decision.md    the editor's rulings, own findings and decision

Each begins with YAML between lines '---'; the rest is Markdown of a fixed form (templates in `templates/`). This module
reads them: form and values, nothing beyond the file itself. Rules REV-001 to REV-012 are those of `referee.documents`
(010: items, findings and answers stand once), and

    REV-013  the file lies where it belongs
    REV-014  sections and lines have the form
    REV-015  Markdown is inert: no HTML, no links that act
    REV-016  nothing is left to write
    REV-023  evidence and places have a known form
    REV-027  a finding has a severity, a place and a text

The other REV rules look further, at the checklist, the history, the course and the other files: see
`referee.checks.reviews`.
`python -m referee.reviews` writes the JSON Schemas of the front matters, which editors use.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints, WithJsonSchema

from common.errors import nearest
from referee.documents import DocumentError, Problem, parse_yaml, pattern, read_text, refuse, split_front_matter
from referee.project import HANDLE, Project
from referee.schema import Handle, Part, Text, schema_text

MARKER = "WRITE:"
"""How a text begins that somebody still has to write."""

MAX_LINE = 4000  # characters
MAX_FINDINGS = 300
MAX_PLACES = 1000  # that are looked up for one file
MAX_TESTS = 20  # that one answer names

Severity = Literal["critical", "major", "minor", "question"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)  # the worst first


# -- Front matter ------------------------------------------------------------------------------------------------------


def _date(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise refuse("contradiction", "a date is written like 2026-12-01")
    return value


PaperName = Annotated[str, pattern(r"^[a-z0-9_]{1,64}$", "it is a project's name, as in projects/<paper>")]
Commit = Annotated[str, pattern(r"^[0-9a-f]{40}$", "it is a full commit id: 40 hexadecimal digits, in quotes")]
Day = Annotated[date, BeforeValidator(_date), WithJsonSchema({"type": "string", "format": "date"})]
Long = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000)]


class ReviewHead(Part):
    """The front matter of a review."""

    reviewer: Handle
    """Your public handle, which is also the file's name."""
    paper: PaperName
    round: Annotated[int, Field(ge=1, le=9)]
    """Which review this is of the paper: 1, or 2 after a revision that is reviewed again."""
    commit: Commit
    """What was reviewed: 40 hexadecimal digits, in quotes."""
    checklist: Annotated[int, Field(ge=1, le=999)]
    """The version of the checklist that is answered; items that came later are not asked for."""
    conflict_of_interest: Text
    """'none', or what binds you to the team."""
    hardware: Text
    """What you ran it on."""
    minutes: Annotated[int, Field(ge=1, le=60_000)] | None
    """The time the review took you."""
    ai_use: Long
    """'none', or which tools you used, and for what."""
    recommendation: Literal["accept", "minor", "major", "reject"] | None
    """accept, minor (corrections), major (revision) or reject."""


class ResponseHead(Part):
    """The front matter of a response."""

    paper: PaperName
    round: Annotated[int, Field(ge=1, le=9)]
    commit: Commit
    """The commit that the reviews are about."""


class DecisionHead(Part):
    """The front matter of a decision."""

    paper: PaperName
    editor: Handle
    """Your public handle."""
    round: Annotated[int, Field(ge=1, le=9)]
    decision: Literal["accept", "revise", "reject"] | None
    """accept, revise or reject."""
    date: Day | None
    """The day of the decision, like 2026-12-01."""


# -- What stands in the files ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where something is: a file of the repository, lines of it, or a notebook's cell."""

    path: str
    first: int | None = None  # line
    last: int | None = None
    cell: str | None = None  # its id, or its number from 1

    def __str__(self) -> str:
        if self.cell is not None:
            return f"{self.path}#{self.cell}"
        if self.first is None:
            return self.path
        return f"{self.path}:{self.first}" + (f"-{self.last}" if self.last != self.first else "")


_PLACE = re.compile(
    r"([A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*)(?::(\d{1,6})(?:-(\d{1,6}))?|#([A-Za-z0-9_-]{1,64}))?", re.A
)


def parse_place(text: str) -> Place | None:
    """`path`, `path:line`, `path:first-last` or `path.ipynb#cell`, from the root; None if it is no such."""
    match = _PLACE.fullmatch(text)
    if match is None or len(text) > 300:
        return None
    path, first, last, cell = match.groups()
    if any(set(part) == {"."} or part == ".git" for part in path.split("/")) or path.startswith("-"):
        return None
    if cell is not None:
        return Place(path, cell=cell) if path.endswith(".ipynb") else None
    if first is None:
        return Place(path)
    begin, end = int(first), int(last or first)
    return Place(path, begin, end) if 1 <= begin <= end else None


@dataclass(frozen=True)
class Evidence:
    """What supports a tick: a place, or the output of something that was run."""

    kind: Literal["place", "probe", "check", "command"]
    subject: str  # the place, probe, rules or command as written
    place: Place | None
    digest: str | None  # sha256 of the output
    remark: str
    line: int


@dataclass(frozen=True)
class Answer:
    """One item of the checklist as a reviewer left it."""

    item: str
    ticked: bool
    line: int
    evidence: tuple[Evidence, ...] = ()
    findings: tuple[tuple[str, int], ...] = ()  # id, line
    not_applicable: str | None = None
    unwritten: bool = False


@dataclass(frozen=True)
class Finding:
    """Something that a reviewer, or the editor, found wrong."""

    id: str  # F1, F2, ... of a reviewer; E1, E2, ... of the editor
    severity: Severity
    places: tuple[Place, ...]
    text: str
    line: int
    items: tuple[str, ...] = ()  # of the checklist, that it is about
    same_as: tuple[str, ...] | None = None  # the editor says which findings these are: carol/F1; () for none
    unwritten: bool = False


@dataclass(frozen=True)
class Review:
    """One reviewer's review."""

    shown: str
    head: ReviewHead
    answers: dict[str, Answer]
    findings: dict[str, Finding]
    unwritten: tuple[tuple[int, str], ...]  # line, and what is to be written there
    summary: str = ""

    @property
    def reviewer(self) -> str:
        return self.head.reviewer


@dataclass(frozen=True)
class Reply:
    """The team's answer to one finding."""

    key: str  # carol/F1
    kind: Literal["fixed", "disputed", "answered"] | None  # None: still to be written
    line: int
    commit: str | None = None
    tests: tuple[str, ...] = ()  # path::name
    no_test: str | None = None
    elsewhere: str | None = None  # why the commit does not touch the place
    text: str = ""


@dataclass(frozen=True)
class Response:
    """The team's answers."""

    shown: str
    head: ResponseHead
    replies: dict[str, Reply]
    unwritten: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Ruling:
    """What the editor says of a disputed finding: it is upheld, or overruled."""

    key: str
    verdict: Literal["upheld", "overruled"] | None
    text: str
    line: int


@dataclass(frozen=True)
class Decision:
    """The editor's decision."""

    shown: str
    head: DecisionHead
    reasons: str
    rulings: dict[str, Ruling]
    findings: dict[str, Finding]
    unwritten: tuple[tuple[int, str], ...]


# -- Markdown of a fixed form ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A line of a file: its number, its text, whether it is code between fences."""

    number: int
    text: str
    fenced: bool = False


@dataclass
class Block:
    """A heading and the lines below it, up to the next one of its level."""

    number: int
    title: str
    lines: list[Line] = field(default_factory=list)


_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)[ \t#]*")
_DOT = re.compile(r"\s+[·•|–-]\s+")  # between the parts of a heading
_ACTS = re.compile(r"<[A-Za-z/!?]")
_LINK = re.compile(r"(?:\]\(\s*<?|^\s{0,3}\[[^\]]*\]:\s*<?)\s*([A-Za-z][A-Za-z0-9+.-]*):")


class _Form:
    """A file being read: its lines, and what is wrong with them."""

    def __init__(self, text: str, shown: str, head: type[BaseModel]):
        self.shown = shown
        self.problems: list[Problem] = []
        self.places = 0
        source, first, body, body_first = split_front_matter(text, rules="REV", shown=shown)
        self.head = parse_yaml(source, head, rules="REV", shown=shown, first_line=first)
        lines = [*enumerate(source.split("\n"), first), *enumerate(body.split("\n"), body_first)]
        self.unwritten = tuple(_unwritten(lines))
        self.lines = list(self._lines(body, body_first))

    def problem(self, line: int, number: str, message: str) -> None:
        self.problems.append(Problem(self.shown, line, f"REV-{number}", message))

    def _lines(self, body: str, first: int) -> Iterable[Line]:
        fence, opened = "", 0
        for number, text in enumerate(body.split("\n"), first):
            if len(text) > MAX_LINE:
                self.problem(number, "014", f"a line of more than {MAX_LINE} characters; break it.")
                continue
            match = _FENCE.fullmatch(text)
            if fence:
                if match and match[1].startswith(fence) and not match[2].strip():
                    fence = ""
                yield Line(number, text, True)
            elif match and "`" not in match[2]:
                fence, opened = match[1], number
                yield Line(number, text, True)
            else:
                self._inert(number, text)
                yield Line(number, text.rstrip())
        if fence:
            self.problem(opened, "014", f"the code that begins here has no end; close it with a line {fence}.")

    def _inert(self, number: int, text: str) -> None:
        plain = re.sub(r"`[^`]*`", "", text)
        if _ACTS.search(plain):
            message = "HTML has no place here, nor do comments that readers do not see; put code into `backticks`."
            self.problem(number, "015", message)
        for scheme in _LINK.findall(plain):
            if scheme.lower() not in ("http", "https", "mailto"):
                self.problem(number, "015", f"a link to '{scheme[:20]}:'; links are to https:// or to files.")

    def sections(self, known: Sequence[str], needed: Sequence[str]) -> dict[str, Block]:
        """The parts under headings of the second level, by title."""
        found: dict[str, Block] = {}
        here: Block | None = None
        for line in self.lines:
            match = None if line.fenced else _HEADING.fullmatch(line.text)
            level = len(match[1]) if match else 0
            if match and level == 2:
                title = match[2]
                if title not in known:
                    message = f"unknown section '{title[:60]}'.{nearest(title, known)} Sections: {', '.join(known)}."
                    self.problem(line.number, "014", message)
                elif title in found:
                    message = f"the section '{title}' stands twice (first on line {found[title].number}); keep one."
                    self.problem(line.number, "014", message)
                here = found.setdefault(title, Block(line.number, title))
            elif here is not None:
                here.lines.append(line)
            elif level != 1 and line.text.strip():
                message = f"text before the first section; it goes below '## {known[0]}'."
                self.problem(line.number, "014", message)
        for title in needed:
            if title not in found:
                last = self.lines[-1].number if self.lines else 1
                self.problem(last, "014", f"the section '## {title}' is missing; take it from the template.")
        return found

    def blocks(self, section: Block | None, what: str) -> list[Block]:
        """The parts of a section under headings of the third level."""
        found: list[Block] = []
        for line in section.lines if section else ():
            match = None if line.fenced else _HEADING.fullmatch(line.text)
            if match and len(match[1]) == 3:
                found.append(Block(line.number, match[2]))
            elif match and len(match[1]) < 3:
                self.problem(line.number, "014", f"a heading of this level has no place here; {what}.")
            elif found:
                found[-1].lines.append(line)
            elif line.text.strip().rstrip(".").lower() not in ("", "none") and MARKER not in line.text:
                self.problem(line.number, "014", f"text that belongs to no heading; {what}.")
        return found

    def entries(self, block: Block, keys: Sequence[str]) -> tuple[dict[str, list[tuple[str, int]]], str]:
        """A block's lines `- key: value` by key, each with its line; and the rest as text, quotations left out."""
        values: dict[str, list[tuple[str, int]]] = {}
        text: list[str] = []
        for line in block.lines:
            match = None if line.fenced else re.fullmatch(r"- ([a-z][a-z/ -]{0,20}): (.*)", line.text)
            if match and match[1] in keys:
                values.setdefault(match[1], []).append((match[2].strip(), line.number))
            elif match and (hint := nearest(match[1], keys)):
                self.problem(line.number, "014", f"unknown entry '{match[1]}'.{hint}")
            elif line.fenced or not line.text.lstrip().startswith(">"):
                text.append(line.text)
        return values, "\n".join(text).strip()

    def place(self, text: str, line: int) -> Place | None:
        """A place in backticks, or a problem."""
        bare = text.strip().strip("`")
        self.places += 1
        if self.places > MAX_PLACES:
            if self.places == MAX_PLACES + 1:
                self.problem(line, "014", f"more than {MAX_PLACES} places in one file; name those that matter.")
            return None
        place = parse_place(bare)
        if place is None:
            message = f"'{bare[:80]}' is no place; write `path:line`, `path:first-last`, `path` or `path.ipynb#cell`,"
            self.problem(line, "023", f"{message} relative to the repository.")
        return place

    def once(self, kind: str, name: str, line: int, seen: dict[str, Any]) -> bool:
        """Whether a name is new; a problem if not."""
        if name in seen:
            message = f"the {kind} '{name}' stands twice (first on line {seen[name].line}); keep one."
            self.problem(line, "010", message)
        return name not in seen

    def findings(self, section: Block | None, letter: str, keys: Sequence[str]) -> dict[str, Finding]:
        """The findings of a section."""
        found: dict[str, Finding] = {}
        form = f"a finding begins '### {letter}1 · major · `path:line`'"
        for block in self.blocks(section, form):
            parts = _DOT.split(block.title, maxsplit=2)
            identity = parts[0]
            if not re.fullmatch(rf"{letter}[1-9][0-9]{{0,2}}", identity):
                self.problem(block.number, "014", f"'{block.title[:80]}' is no finding's head; {form}.")
                continue
            if len(found) >= MAX_FINDINGS:
                self.problem(
                    block.number, "014", f"more than {MAX_FINDINGS} findings; gather those that belong together."
                )
                break
            values, text = self.entries(block, keys)
            unwritten = MARKER in block.title or any(MARKER in line.text for line in block.lines)
            given = parts[1] if len(parts) > 1 else ""
            severity = next((s for s in SEVERITIES if s == given), None)
            if severity is None and not unwritten:
                message = f"{identity}: {given[:40]!r} is no severity.{nearest(given, SEVERITIES)} One of "
                self.problem(
                    block.number,
                    "027",
                    f"{message}{', '.join(SEVERITIES)}, as in '### {identity} · major · `path:line`'.",
                )
            listed = [p for p in parts[2].split(",") if p.strip()] if len(parts) > 2 and MARKER not in parts[2] else []
            places = [p for p in (self.place(text_, block.number) for text_ in listed) if p is not None]
            if not listed and not unwritten:
                self.problem(
                    block.number,
                    "027",
                    f"{identity}: no place; write '### {identity} · {given or 'major'} · `path:line`'.",
                )
            if not text and not unwritten:
                self.problem(block.number, "027", f"{identity}: no text; say what is wrong and how you know.")
            items = tuple(name.strip().strip("`") for value, _ in values.get("item", ()) for name in value.split(","))
            same: tuple[str, ...] | None = None
            if "same as" in values:
                said = [k.strip().strip("`") for value, _ in values["same as"] for k in value.split(",")]
                same = tuple(k for k in said if k != "none")
            if self.once("finding", identity, block.number, found):
                found[identity] = Finding(
                    identity, severity or "minor", tuple(places), text, block.number, items, same, unwritten
                )
        return found

    def finish(self) -> None:
        """Raise what was found wrong, if anything."""
        if self.problems:
            raise DocumentError(self.problems)


def _unwritten(lines: Iterable[tuple[int, str]]) -> Iterable[tuple[int, str]]:
    """The lines on which something is left to write: number, and what."""
    item = ""
    for number, line in lines:
        if match := _ITEM.fullmatch(line):
            item = f"`{match[2]}`: "
        elif not line.startswith(" "):
            item = ""
        if MARKER in line:
            yield number, item + line.partition(MARKER)[2].strip(' "')[:160]


# -- Reviews -----------------------------------------------------------------------------------------------------------

_ITEM = re.compile(r"- \[([ xX])\] `([^`]{1,80})`.*")
_ENTRY = re.compile(r"\s{2,}- ([A-Za-z/ -]{1,20}):\s*(.*)")
_ENTRIES = ("evidence", "finding", "n/a", "note")
_ITEM_FORM = (
    "below '## Checklist' stand headings '### …', items '- [x] `item` …' or '- [ ] `item` …', and below each, indented "
    "by two spaces, '- evidence: …', '- finding: F1', '- n/a: reason' or '- note: …'"
)


def parse_review(text: str, shown: str) -> Review:
    """Read a review; its form alone is checked here.

    Raises:
        DocumentError: with all problems of form.
    """
    form = _Form(text, shown, ReviewHead)
    sections = form.sections(("Summary", "Checklist", "Findings"), ("Checklist", "Findings"))
    answers: dict[str, Answer] = {}
    for name, ticked, number, entries in _items(form, sections.get("Checklist")):
        evidence: list[Evidence] = []
        findings: list[tuple[str, int]] = []
        reasons: list[str] = []
        for key, value, line in entries:
            if MARKER in key or MARKER in value:
                continue
            if key == "evidence":
                evidence += _evidence(form, value, line)
            elif key == "finding":
                for identity in re.split(r"[,\s]+", value.strip()):
                    if re.fullmatch(r"F[1-9][0-9]{0,2}", identity):
                        findings.append((identity, line))
                    else:
                        form.problem(line, "014", f"'{identity[:40]}' is no finding's id; write '- finding: F1'.")
            elif key == "n/a":
                reasons.append(value)
        unwritten = any(MARKER in key or MARKER in value for key, value, _ in entries)
        if form.once("item", name, number, answers):
            reason = " ".join(reasons).strip() if reasons else None
            answers[name] = Answer(name, ticked, number, tuple(evidence), tuple(findings), reason, unwritten)
    found = form.findings(sections.get("Findings"), "F", ("item",))
    for identity, finding in found.items():  # an item that names a finding is what the finding is about
        about = [a.item for a in answers.values() if identity in (name for name, _ in a.findings)]
        found[identity] = replace(finding, items=tuple(dict.fromkeys((*finding.items, *about))))
    form.finish()
    assert isinstance(form.head, ReviewHead)
    summary = "\n".join(line.text for line in sections["Summary"].lines).strip() if "Summary" in sections else ""
    return Review(shown, form.head, answers, found, form.unwritten, summary)


def _items(form: _Form, section: Block | None) -> list[tuple[str, bool, int, list[tuple[str, str, int]]]]:
    """The checklist's items: name, whether ticked, line, and the entries (key, value, line) below each."""
    items: list[tuple[str, bool, int, list[tuple[str, str, int]]]] = []
    for line in section.lines if section else ():
        text = line.text
        if not text.strip() or (not line.fenced and (_HEADING.fullmatch(text) or text.lstrip().startswith(">"))):
            continue
        if match := None if line.fenced else _ITEM.fullmatch(text):
            items.append((match[2], match[1] != " ", line.number, []))
        elif items and not line.fenced and (match := _ENTRY.fullmatch(text)):
            key, value = match[1], match[2]
            if key not in _ENTRIES and f"{key}:" != MARKER:
                known = ", ".join(_ENTRIES)
                form.problem(line.number, "014", f"unknown entry '{key}'.{nearest(key, _ENTRIES)} Entries: {known}.")
                continue
            items[-1][3].append((f"{key}:" if f"{key}:" == MARKER else key, value, line.number))
        elif items and items[-1][3] and not line.fenced and re.match(r" {4,}[^ -]", text):
            key, value, first = items[-1][3][-1]
            items[-1][3][-1] = (key, f"{value} {text.strip()}", first)  # a long entry, continued
        else:
            form.problem(line.number, "014", f"this line has no place in the checklist: {_ITEM_FORM}.")
    return items


_SPAN = re.compile(r"`([^`]+)`")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def _evidence(form: _Form, value: str, line: int) -> list[Evidence]:
    """What one line of evidence says: places in backticks, or one thing that was run with the digest of its output."""
    spans = _SPAN.findall(value)
    remark = _SPAN.sub("", value).strip(" ,;·–-")
    digests = [span for span in spans if span.startswith("sha256:")]
    subjects = [span for span in spans if not span.startswith("sha256:")]
    if not subjects:
        message = (
            "evidence names something in backticks: `path:line`, `path.ipynb#cell`, `probe NAME`, `check RULE`, or "
        )
        form.problem(line, "023", f"{message}`command …` with `sha256:…` of its output.")
        return []
    word, _, rest = subjects[0].partition(" ")
    kind = next((k for k in _RUN if k == word), None)
    if kind is None:
        places = [(subject, form.place(subject, line)) for subject in subjects]
        return [Evidence("place", s, place, None, remark, line) for s, place in places if place is not None]
    digest = _DIGEST.fullmatch(digests[0]) if len(digests) == 1 else None
    if digest is None:
        message = f"`{subjects[0][:60]}` needs the digest of its output, `sha256:` and 64 hexadecimal digits"
        message += f"; 'referee review evidence <paper> \"{kind} …\"' writes this line"
        form.problem(line, "023", f"{message}.")
        return []
    shape = {
        "probe": r"[A-Za-z0-9_.-]{1,64}",
        "check": r"[A-Z]{2,3}-\d{3}(,? [A-Z]{2,3}-\d{3})*",
        "command": r".{1,500}",
    }
    if not re.fullmatch(shape[kind], rest.strip(), re.A):
        form.problem(line, "023", f"`{subjects[0][:60]}` does not name a {kind}, as in `{_EXAMPLE[kind]}`.")
        return []
    return [Evidence(kind, rest.strip(), None, digest[1], remark, line)]


_RUN: tuple[Literal["probe", "check", "command"], ...] = ("probe", "check", "command")
_EXAMPLE = {"probe": "probe bound", "check": "check NB-003", "command": "command make test"}


# -- Responses and decisions -------------------------------------------------------------------------------------------

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[FE][1-9][0-9]{0,2}")
_KINDS: tuple[Literal["fixed", "disputed", "answered"], ...] = ("fixed", "disputed", "answered")
_VERDICTS: tuple[Literal["upheld", "overruled"], ...] = ("upheld", "overruled")
T = TypeVar("T", bound=str)


def _keyed(form: _Form, section: Block | None, words: tuple[T, ...]) -> Iterable[tuple[Block, str, T | None]]:
    """Blocks headed '### carol/F1 · word'."""
    shape = f"write '### carol/F1 · {' | '.join(words)}'"
    for block in form.blocks(section, shape):
        parts = _DOT.split(block.title, maxsplit=1)
        key, given = parts[0], parts[1] if len(parts) > 1 else ""
        word = next((w for w in words if w == given), None)
        if not _KEY.fullmatch(key):
            form.problem(block.number, "014", f"'{block.title[:80]}' does not begin with a finding's name; {shape}.")
        elif word is None and MARKER not in given:
            form.problem(
                block.number, "014", f"{key}: '{given[:40]}' is none of {', '.join(words)}.{nearest(given, words)}"
            )
        else:
            yield block, key, word


def parse_response(text: str, shown: str) -> Response:
    """Read a response; see `parse_review`."""
    form = _Form(text, shown, ResponseHead)
    section = form.sections(("Summary", "Answers"), ("Answers",)).get("Answers")
    replies: dict[str, Reply] = {}
    for block, key, kind in _keyed(form, section, _KINDS):
        values, said = form.entries(block, ("commit", "test", "no test", "elsewhere"))
        commits = [(value.strip("`"), line) for value, line in values.get("commit", ()) if MARKER not in value]
        for value, line in commits:
            if not re.fullmatch(r"[0-9a-f]{7,40}", value):
                form.problem(line, "014", f"{key}: '{value[:60]}' is no commit id; 7 to 40 hexadecimal digits.")
        if len(commits) > 1:
            form.problem(commits[1][1], "010", f"{key}: a second commit; name the one that fixes it, the last of them.")
        tests = [(value.strip("`"), line) for value, line in values.get("test", ()) if MARKER not in value]
        if len(tests) > MAX_TESTS:
            form.problem(tests[MAX_TESTS][1], "014", f"{key}: more than {MAX_TESTS} tests; name the telling ones.")
        for value, line in tests[:MAX_TESTS]:
            path, _, name = value.partition("::")
            if parse_place(path) != Place(path) or not re.fullmatch(
                r"[A-Za-z_][A-Za-z0-9_]*(::[A-Za-z_]\w*)?(\[.*\])?", name, re.A
            ):
                form.problem(line, "014", f"{key}: '{value[:80]}' is no test; write `path::name`.")
        if form.once("answer", key, block.number, replies):
            replies[key] = Reply(
                key,
                kind,
                block.number,
                commits[0][0] if commits else None,
                tuple(value for value, _ in tests),
                _said(values.get("no test")),
                _said(values.get("elsewhere")),
                said,
            )
    form.finish()
    assert isinstance(form.head, ResponseHead)
    return Response(shown, form.head, replies, form.unwritten)


def parse_decision(text: str, shown: str) -> Decision:
    """Read a decision; see `parse_review`."""
    form = _Form(text, shown, DecisionHead)
    sections = form.sections(("Reasons", "Summary", "Rulings", "Findings"), ("Reasons", "Rulings", "Findings"))
    rulings: dict[str, Ruling] = {}
    for block, key, verdict in _keyed(form, sections.get("Rulings"), _VERDICTS):
        _, said = form.entries(block, ())
        if form.once("ruling", key, block.number, rulings):
            rulings[key] = Ruling(key, verdict, said, block.number)
    found = form.findings(sections.get("Findings"), "E", ("item", "same as"))
    for finding in found.values():
        for key in finding.same_as or ():
            if not _KEY.fullmatch(key):
                form.problem(
                    finding.line, "014", f"{finding.id}: 'same as: {key[:60]}' names no finding, like carol/F1."
                )
    form.finish()
    assert isinstance(form.head, DecisionHead)
    reasons = "\n".join(line.text for line in sections["Reasons"].lines).strip()
    return Decision(shown, form.head, reasons, rulings, found, form.unwritten)


def _said(values: list[tuple[str, int]] | None) -> str | None:
    text = " ".join(value for value, _ in values or () if MARKER not in value).strip()
    return text or None


# -- The folder of a paper's reviews -----------------------------------------------------------------------------------

RESPONSE, DECISION = "response.md", "decision.md"


@dataclass(frozen=True)
class Reviews:
    """All that was written about a paper, and what could not be read."""

    project: Project
    reviews: dict[str, Review]  # by reviewer
    response: Response | None
    decision: Decision | None
    problems: tuple[Problem, ...]

    @property
    def findings(self) -> dict[str, Finding]:
        """All findings by key, `carol/F1`; the editor's own too."""
        named = {f"{r.reviewer}/{f.id}": f for r in self.reviews.values() for f in r.findings.values()}
        if self.decision:
            named |= {f"{self.decision.head.editor}/{f.id}": f for f in self.decision.findings.values()}
        return named


def folder(project: Project) -> Path:
    """Where a paper's reviews lie."""
    return project.root / "reviews" / project.name


def load_review(path: Path, shown: str) -> Review:
    """Read a review. DocumentError lists what is wrong with its form."""
    return parse_review(read_text(path, rules="REV", shown=shown), shown)


def load_reviews(project: Project) -> Reviews:
    """Read all that was written about a paper; what cannot be read is among the problems."""
    base = folder(project)
    problems: list[Problem] = []
    reviews: dict[str, Review] = {}
    response: Response | None = None
    decision: Decision | None = None

    def read(path: Path, parse: Callable[[str, str], Any]) -> Any:
        shown = project.shown(path)
        try:
            found = parse(read_text(path, rules="REV", shown=shown), shown)
        except DocumentError as error:
            problems.extend(error.problems)
            return None
        if found.head.paper != project.name:
            message = (
                f"is about '{found.head.paper}' and lies among the reviews of '{project.name}'; move or correct it."
            )
            problems.append(Problem(shown, 2, "REV-013", message))
            return None
        return found

    if base.is_symlink() or base.parent.is_symlink():
        message = "is a symbolic link; put the folder itself there."
        return Reviews(project, {}, None, None, (Problem(project.shown(base), 1, "REV-013", message),))
    for path in sorted(base.iterdir()) if base.is_dir() else ():
        if path.name == RESPONSE:
            response = read(path, parse_response)
        elif path.name == DECISION:
            decision = read(path, parse_decision)
        elif path.suffix != ".md" or not HANDLE.fullmatch(path.stem) or path.stem.lower() in ("response", "decision"):
            shown, rule = ascii_only(project.shown(path)), "REV-013"
            message = "is neither a review (<handle>.md), nor response.md, nor decision.md; rename it."
            if not path.stem.isascii():
                rule, look = "REV-035", ascii_only(skeleton(path.stem))
                message = f"looks like '{look}.md' and is not: it holds letters of another script. Rename it."
            problems.append(Problem(shown, 1, rule, message))
        elif (review := read(path, parse_review)) is not None:
            if review.reviewer != path.stem:
                message = f"says it is by '{review.reviewer}'; the file's name is the reviewer's handle."
                problems.append(Problem(project.shown(path), 2, "REV-013", message))
            else:
                reviews[review.reviewer] = review
    return Reviews(project, reviews, response, decision, tuple(problems))


_CONFUSABLE = str.maketrans("0135|!аеорсухіјԁԛһӏνορτυγκ", "olesllaeopcyxijdqhlvoptuyk")


def skeleton(handle: str) -> str:
    """What a handle looks like at a glance: two with the same skeleton can be taken for each other."""
    text = unicodedata.normalize("NFKC", handle).lower().translate(_CONFUSABLE).replace("i", "l")
    return text.replace("rn", "m").replace("vv", "w").replace("-", "").replace("_", "")


def ascii_only(text: str) -> str:
    """Somebody's handle or file name as messages show it: what is not plain ASCII by its code."""
    return "".join(c if c.isascii() and c.isprintable() else f"<U+{ord(c):04X}>" for c in text[:120])


# -- Comparing findings ------------------------------------------------------------------------------------------------

SLACK = 3
"""Lines by which two places in a file may miss each other and still mean the same."""


def overlap(a: Place, b: Place) -> bool:
    """Whether two places mean the same spot: the same cell, or lines that meet within `SLACK`.

    A whole file is no spot: "the notebook" would be the same as everything in it.
    """
    if a.path != b.path:
        return False
    if a.first is None or b.first is None or a.last is None or b.last is None:
        return a.cell is not None and a.cell == b.cell
    return a.first <= b.last + SLACK and b.first <= a.last + SLACK


def likeness(a: Finding, b: Finding) -> int:
    """How surely two findings are about the same mistake: 0 (not), 1 (same file and item), 2 (same spot), 3 (both)."""
    pairs = [(p, q) for p in a.places for q in b.places]
    shared = bool(set(a.items) & set(b.items)) and any(p.path == q.path for p, q in pairs)
    return 2 * any(overlap(p, q) for p, q in pairs) + shared


def match(found: Sequence[Finding], key: Sequence[Finding]) -> dict[str, str]:
    """Which of a reviewer's findings are which of the key's (the editor's, or planted mistakes'): id -> id.

    Each is matched once at most; as many as possible, then the likest (`likeness`), then in order.
    """
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    if not found or not key:
        return {}
    gain = np.array([[float(likeness(a, b)) for b in key] for a in found])
    # A match more outweighs any likeness; the order decides between equals.
    order = np.add.outer(np.arange(len(found)), np.arange(len(key))) / (10.0 * (len(found) + len(key)) ** 2)
    score = np.where(gain > 0, 4.0 * min(len(found), len(key)) + gain - order, 0.0)
    rows, columns = linear_sum_assignment(score, maximize=True)
    return {found[i].id: key[j].id for i, j in zip(rows, columns, strict=True) if gain[i, j] > 0}


# -- JSON Schemas ------------------------------------------------------------------------------------------------------

SCHEMAS: dict[str, type[BaseModel]] = {
    "review.schema.json": ReviewHead,
    "response.schema.json": ResponseHead,
    "decision.schema.json": DecisionHead,
}


def json_schemas() -> dict[Path, str]:
    """The front matters' JSON Schemas: file -> text."""
    return {
        Path(__file__).with_name(name): schema_text(model, f"the front matter of a {name.split('.')[0]}")
        for name, model in SCHEMAS.items()
    }


if __name__ == "__main__":
    for path, text in json_schemas().items():
        path.write_text(text, encoding="utf-8")
