"""What all checks share: what they look at (`Submission`), what they say (`Finding`), and how they are run.

Rule ids are permanent, and their letters say what they are about:

    PRJ project.yaml    LAY layout      RES results     NB notebook   TST tests     PRB probes
    ORG origin          DOC README      SEC safety      REV reviews   CRS course    STG stages

A check yields places and messages; its rule and the stage at hand make findings of them. A finding of severity
*error* closes the gate. A check that breaks is a mistake of ours: it is reported under its own id, as an error.
"""

import ast
import dataclasses
import importlib
import itertools
import os
import pkgutil
import stat
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, get_args

from common.errors import UserError
from referee.checks.reading import MAX_SOURCE, Unreadable, parse_python, read_text
from referee.history import History
from referee.project import Project

if TYPE_CHECKING:
    from referee.course import Limits
    from referee.schema import ProjectFile
    from referee.standing import Standing

Severity = Literal["error", "warning", "note"]
Stage = Literal["proposed", "v1", "v2", "published"]
STAGES: tuple[Stage, ...] = get_args(Stage)
SEVERITIES: tuple[Severity, ...] = get_args(Severity)

Needs = Literal["files", "others", "code", "notebook"]
"""What a check takes: the submission's files; other projects too; running the paper's code; running the notebook."""

Found = tuple[Path, int, str]
"""What a check yields: file, line (1 when it has none), and a message that ends with what to do."""

MAX_FINDINGS = 50  # by one rule; nobody reads more
MAX_FILES = 4000
MAX_DEPTH = 8
CACHES = frozenset(
    {"__pycache__", ".ipynb_checkpoints", ".hypothesis", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".cache"}
)
"""Folders that tools leave behind; passed over unless they are committed."""


@dataclass(frozen=True)
class Finding:
    """Something wrong: by which rule, how bad, where, and what to do."""

    rule: str
    severity: Severity
    file: str  # relative to the repository
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.message}"


class Skip(Exception):
    """What a check would look at is missing or broken, and another rule has said so."""


@dataclass(frozen=True)
class Entry:
    """One thing in a project's folder, as it is: links are not followed."""

    path: Path
    kind: Literal["file", "link", "special", "folder"]
    size: int  # bytes


@dataclass(frozen=True)
class Submission:
    """A project as it is submitted. Everything is read when it is first asked for, once.

    Attributes:
        project: whose folder it is.
        stage: what it is submitted for.
        base: the git commit it is compared with, None when there is none.
    """

    project: Project
    stage: str
    base: str | None = None

    @property
    def name(self) -> str:
        return self.project.name

    @property
    def root(self) -> Path:
        return self.project.root

    def at(self, path: str) -> Path:
        """A file of the project's folder."""
        return self.project.folder / path

    @property
    def file(self) -> "ProjectFile":
        """`project.yaml`; ProjectError when it is not as it should be, which `run` turns into PRJ findings.

        Skip when it is a link, which could lead anywhere: SEC-001 says so.
        """
        if self.linked:
            raise Skip
        read = self._file
        if isinstance(read, UserError):
            raise read
        return read

    @cached_property
    def _file(self) -> "ProjectFile | UserError":
        try:
            return self.project.load()
        except UserError as error:
            return error  # kept, too: a file that takes long to refuse is refused once

    @cached_property
    def standing(self) -> "Standing":
        """Claims, records and verdicts. Skip when a record (RES-001) or the paper's code (LAY-004) cannot be read."""
        from referee.checks.results import records
        from referee.standing import standing

        if self.linked or any(isinstance(record, str) for record in records(self).values()):
            raise Skip
        _ = self.file  # what is wrong with it is known by now
        if self.has(f"{self.name}.py"):
            self.tree(self.project.paper_file)
        return standing(self.project)

    @cached_property
    def limits(self) -> "Limits":
        """How large files may be here: `course.yaml` says so."""
        from referee.course import load_course

        return load_course(self.root).limits

    @cached_property
    def tracked(self) -> frozenset[str] | None:
        """The project's committed or staged paths, relative to the repository; None outside git."""
        listed = History(self.root).git("ls-files", "-z", "--", f"projects/{self.name}")
        return None if listed is None else frozenset(os.fsdecode(name) for name in listed.split(b"\0") if name)

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """All that lies in the project's folder, sorted; at most `MAX_FILES` of them and `MAX_DEPTH` folders deep."""
        return tuple(sorted(self._walk(self.project.folder), key=lambda e: e.path))

    @cached_property
    def linked(self) -> bool:
        """Whether there is a symbolic link anywhere, so that a file may be another than it seems."""
        return any(e.kind == "link" for e in self.entries)

    def _walk(self, folder: Path) -> Iterator[Entry]:
        if folder.is_symlink():
            yield Entry(folder, "link", 0)
            return
        count = 0
        todo = [(folder, 0)]
        while todo:
            folder, depth = todo.pop()
            try:
                inside = list(os.scandir(folder))
            except OSError:
                continue
            for item in inside:
                path = Path(item.path)
                if item.name in CACHES and not self._committed(path):
                    continue
                count += 1
                if count > MAX_FILES:
                    return
                mode = item.stat(follow_symlinks=False)
                if stat.S_ISLNK(mode.st_mode):
                    yield Entry(path, "link", 0)
                elif stat.S_ISDIR(mode.st_mode):
                    yield Entry(path, "folder", 0)
                    if depth < MAX_DEPTH:
                        todo.append((path, depth + 1))
                elif stat.S_ISREG(mode.st_mode):
                    yield Entry(path, "file", mode.st_size)
                else:
                    yield Entry(path, "special", 0)

    def _committed(self, folder: Path) -> bool:
        inside = folder.relative_to(self.root).as_posix() + "/"
        return self.tracked is not None and any(path.startswith(inside) for path in self.tracked)

    def files(self, *suffixes: str) -> list[Entry]:
        """The plain files with one of these suffixes (all when none is given); links are not among them."""
        return [e for e in self.entries if e.kind == "file" and (not suffixes or e.path.suffix.lower() in suffixes)]

    def has(self, path: str) -> bool:
        """Whether the project holds this plain file."""
        return any(e.kind == "file" and e.path == self.at(path) for e in self.entries)

    def text(self, path: Path) -> str:
        """The text of a file; Skip when it is missing (LAY-001) or cannot be read (LAY-003)."""
        if path not in self._texts:
            try:
                self._texts[path] = read_text(path)
            except Unreadable:
                self._texts[path] = None
        if (text := self._texts[path]) is None:
            raise Skip
        return text

    def tree(self, path: Path) -> ast.Module:
        """The syntax tree of a Python file; Skip when it is missing, or is not Python (LAY-004)."""
        if path not in self._trees:
            text = self.text(path)
            try:
                self._trees[path] = parse_python(text) if len(text) <= MAX_SOURCE else None
            except Unreadable:
                self._trees[path] = None
        if (tree := self._trees[path]) is None:
            raise Skip
        return tree

    @cached_property
    def cache(self) -> dict[str, Any]:
        """Where a module of checks keeps what several of its functions need."""
        return {}

    @cached_property
    def _texts(self) -> dict[Path, str | None]:
        return {}

    @cached_property
    def _trees(self) -> dict[Path, ast.Module | None]:
        return {}


Look = Callable[[Submission], Iterable[Found]]


@dataclass(frozen=True)
class Check:
    """A rule: what it asks, why, how to satisfy it, how severe it is at each stage, and the function that looks."""

    rule: str
    title: str
    why: str
    fix: str
    severity: Mapping[str, Severity | None] = field(hash=False)
    needs: Needs = "files"
    look: Look | None = field(default=None, hash=False)  # None: the reading of a file applies it


REGISTRY: dict[str, Check] = {}


def register(
    rule: str,
    title: str,
    *,
    why: str,
    fix: str,
    severity: Severity | Mapping[str, Severity | None],
    needs: Needs = "files",
    look: Look | None = None,
) -> None:
    """Enter a rule. One without a function is applied where a file is read, as PRJ-001 to PRJ-012 are."""
    if rule in REGISTRY:
        raise ValueError(f"two checks have the id {rule}: {REGISTRY[rule].title!r} and {title!r}")
    by_stage: dict[str, Severity | None] = dict.fromkeys(STAGES, None)
    by_stage.update(dict.fromkeys(STAGES, severity) if isinstance(severity, str) else severity)
    REGISTRY[rule] = Check(rule, title, why, fix, by_stage, needs, look)


_READING = (
    ("001", "The file can be read", "What cannot be read cannot be judged.", "Save it as UTF-8, below the size limit."),
    ("002", "The file is YAML", "Everything else is computed from it.", "Go to the line named; quotes often help."),
    (
        "003",
        "Plain YAML: one document, no anchors, aliases or tags, not nested too deeply",
        "Anchors and tags can make a small file huge or run code when it is read.",
        "Write each value out where it is used.",
    ),
    ("004", "No field stands twice", "Readers and programs would see different values.", "Delete one of the two."),
    ("005", "Every field is known", "A mistyped field would be ignored in silence.", "Use the name suggested."),
    ("006", "Every required field is there", "Other rules rely on it.", "Add the field; the message gives an example."),
    ("007", "Every value has its type and shape", "Programs read it.", "Write it in the form the message names."),
    ("008", "Numbers are readable", "A value is compared as printed.", "Write digits and a point: 84.78."),
    ("009", "Metrics are known", "A unit and a better direction belong to each.", "Use one of the list, or add yours."),
    ("010", "Ids are unique", "Verdicts and reviews refer to them.", "Give each entry an id of its own."),
    ("011", "Nothing contradicts itself", "A claim at odds with its metric cannot be judged.", "Follow the message."),
    (
        "012",
        "Text holds no control characters, paths stay inside the project",
        "Invisible characters deceive readers; a path out of the project could name any file.",
        "Delete the character; name a path relative to the project's folder.",
    ),
)
"""The rules of every file that `referee.documents` reads: number, what is asked, why, how to satisfy it."""


def register_reading(prefix: str, file: str) -> None:
    """Enter the rules of a file that people write, as PRJ-001 to PRJ-012 for project.yaml."""
    for number, title, why, fix in _READING:
        register(f"{prefix}-{number}", f"{file}: {title[0].lower()}{title[1:]}", why=why, fix=fix, severity="error")


def check(
    rule: str,
    title: str,
    *,
    why: str,
    fix: str,
    severity: Severity | Mapping[str, Severity | None] = "error",
    needs: Needs = "files",
) -> Callable[[Look], Look]:
    """Make a function a check.

    Args:
        rule: its permanent id.
        title: what it asks, as a statement that holds when all is well.
        severity: at all stages, or stage by stage; None, or a stage left out: not asked there.
        needs: what it takes; all but "files" is done on demand only.
    """

    def enter(look: Look) -> Look:
        register(rule, title, why=why, fix=fix, severity=severity, needs=needs, look=look)
        return look

    return enter


FROM_V1: Mapping[str, Severity | None] = dict.fromkeys(("v1", "v2", "published"), "error")
"""An error from the first version on; not asked of a proposal."""

WARN_FROM_V1: Mapping[str, Severity | None] = dict.fromkeys(("v1", "v2", "published"), "warning")
NOTE_FROM_V1: Mapping[str, Severity | None] = dict.fromkeys(("v1", "v2", "published"), "note")


def every_check() -> dict[str, Check]:
    """All rules by id, in order of their ids."""
    import referee.checks as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return dict(sorted(REGISTRY.items()))


@dataclass(frozen=True)
class Outcome:
    """What the checks said of one submission."""

    name: str
    stage: str
    findings: tuple[Finding, ...]
    passed: tuple[str, ...]  # rules that looked and found nothing
    skipped: tuple[str, ...]  # rules whose object is missing or broken, of which another rule speaks
    waiting: tuple[str, ...]  # rules that were not asked for: they run code or read other projects
    subject: str | None = None  # what was looked at, where it is not the submission for a stage

    @property
    def about(self) -> str:
        """What was looked at, in words."""
        return self.subject or f"stage {self.stage}"

    @property
    def errors(self) -> int:
        """How many findings close the gate."""
        return sum(f.severity == "error" for f in self.findings)


def run(
    submission: Submission,
    *,
    needs: Iterable[Needs] = ("files",),
    only: Iterable[str] | None = None,
    tell: Callable[[Check], None] | None = None,
) -> Outcome:
    """Look at a submission.

    Args:
        needs: what the checks may take.
        only: these rules, not all.
        tell: is called before a check that takes more than files, and so more than a moment.
    """
    allowed, chosen = set(needs), None if only is None else set(only)
    findings: set[Finding] = set()
    passed: list[str] = []
    skipped: list[str] = []
    waiting: list[str] = []
    unread: dict[int, UserError] = {}
    for rule, entry in every_check().items():
        severity = entry.severity[submission.stage]
        if entry.look is None or severity is None or (chosen is not None and rule not in chosen):
            continue
        if entry.needs not in allowed:
            waiting.append(rule)
            continue
        if tell is not None and entry.needs != "files":
            tell(entry)
        try:
            found = {_finding(submission, rule, severity, *place) for place in entry.look(submission)}
        except Skip:
            skipped.append(rule)
            continue
        except UserError as error:
            if getattr(error, "problems", None):
                unread[id(error)] = error  # one file that cannot be read, of which every check learns
                skipped.append(rule)
                continue
            found = {_broken(submission, entry, error)}
        except Exception as error:
            found = {_broken(submission, entry, error)}
        findings |= found
        if not found:
            passed.append(rule)
    for unreadable in unread.values():
        findings |= _of_reading(submission, unreadable)
    return Outcome(
        submission.name, submission.stage, tuple(_ordered(findings)), tuple(passed), tuple(skipped), tuple(waiting)
    )


def _ordered(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Findings by severity, rule and place; of one rule at most `MAX_FINDINGS`, the last of which counts the others."""
    rank = {name: i for i, name in enumerate(SEVERITIES)}
    ordered = sorted(findings, key=lambda f: (rank[f.severity], f.rule, f.file, f.line, f.message))
    for _, group in itertools.groupby(ordered, key=lambda f: (f.severity, f.rule)):
        alike = list(group)
        yield from alike[:MAX_FINDINGS]
        if (more := len(alike) - MAX_FINDINGS) > 0:
            message = f"and {more:,} more by this rule; put the others right first."
            yield dataclasses.replace(alike[-1], message=message)


def _finding(submission: Submission, rule: str, severity: Severity, path: Path, line: int, message: str) -> Finding:
    return Finding(rule, severity, printable(shown(submission, path)), line, printable(message))


def printable(text: str) -> str:
    """Text from anywhere as one line that no terminal or page acts on: other characters become their code, U+202E."""
    unsafe = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    text = " ".join(text.split())
    return "".join(f"<U+{ord(c):04X}>" if unicodedata.category(c) in unsafe else c for c in text)


def shown(submission: Submission, path: Path) -> str:
    """A path as messages show it: relative to the repository, with / between its parts."""
    if path.is_relative_to(submission.root):
        return path.relative_to(submission.root).as_posix()
    return PurePosixPath(path).as_posix()


def _of_reading(submission: Submission, error: UserError) -> set[Finding]:
    """The problems of a file that could not be read, under their own rules."""
    findings: set[Finding] = set()
    for problem in getattr(error, "problems", ()):
        entry = REGISTRY.get(problem.rule)
        severity = entry.severity[submission.stage] if entry else "error"
        if severity is not None:
            found = Finding(problem.rule, severity, printable(problem.file), problem.line, printable(problem.message))
            findings.add(found)
    return findings


def _broken(submission: Submission, entry: Check, error: Exception) -> Finding:
    """A check that failed by itself: nobody can say that the submission passes it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}:{last.lineno}"
    message = (
        f"the check itself failed ({type(error).__name__}: {str(error)[:200]}, at {where}). This is a mistake of "
        "the check, not of the submission; please report it. The gate stays shut until it is put right."
    )
    return _finding(submission, entry.rule, "error", submission.project.folder, 1, message)
