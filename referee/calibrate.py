"""Calibration: known mistakes, planted on purpose, measure those who should find them.

The corpus (`referee/mutations/*.yaml`) holds small, realistic, silent mistakes in real projects and in what they stand
on. Each is data: the exact text it replaces, why it matters, and who is expected to notice. It serves twice:

    referee calibrate measure    plants each mistake in a throw-away copy and asks the tests, the probes and the checks
    referee calibrate start      gives a reviewer a copy with a few of them; which ones is written in a sealed key
    referee calibrate score      compares what the reviewer found with the key
"""

import argparse
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from common.digest import code_digest
from common.errors import UserError
from common.records import write_text
from referee.documents import pattern, read_text, read_yaml, refuse
from referee.project import HANDLE, Project, UsageError, find_project, find_root
from referee.reviews import Finding, Place, Review, load_review, match
from referee.schema import Handle, InsidePath, Name, Part, Slug, Text
from referee.words import number_of

MUTATIONS = Path("referee/mutations")
"""Where the corpus is, from the repository's root."""

Severity = Literal["critical", "major", "minor"]
SEVERITIES: tuple[Severity, ...] = ("critical", "major", "minor")

Code = Annotated[str, StringConstraints(max_length=4000)]
Catcher = Annotated[
    str,
    pattern(
        r"^(tests|person|probe [a-z]+|check [A-Z]{2,4}-\d{3})$",
        "it is 'tests', 'probe bound', 'check RES-005' or 'person'",
    ),
]


class CalibrationError(UserError):
    """A mistake that cannot be planted, or a key that does not fit a review."""


class Mutation(Part):
    """One mistake: what it replaces, and what is expected to notice it."""

    id: Slug
    projects: list[Name]
    """The projects whose numbers or pages it changes; none when no project uses the code yet."""
    file: InsidePath
    find: Annotated[Code, StringConstraints(min_length=1)] | None = None
    """The exact text that is replaced; stands once in the file."""
    replace: Code = ""
    copy_of: InsidePath | None = None
    """Instead of replacing text: the whole file becomes a copy of this one."""
    mistake: Text
    """What is done wrong, in one sentence."""
    item: Slug
    """The item of the reviewer's checklist it falls under."""
    severity: Severity
    why: Text
    """Why it matters, in one sentence."""
    caught_by: Annotated[list[Catcher], Field(min_length=1)]
    """What is expected to notice it."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.find is None) == (self.copy_of is None):
            raise refuse("contradiction", "either 'find' or 'copy_of' is needed")
        if self.find == self.replace or self.file == self.copy_of:
            raise refuse("contradiction", "it changes nothing")
        return self

    @property
    def is_code(self) -> bool:
        """Whether tests and probes could notice it: they do not look at what was published."""
        return self.file.endswith(".py")


class _Corpus(Part):
    mutations: Annotated[list[Mutation], Field(min_length=1)]


def corpus(root: Path) -> dict[str, Mutation]:
    """All mutations of the repository by id, in the order of the files and of their lines.

    Raises:
        DocumentError: a file of the corpus is not as it should be (rules CAL-001 to CAL-012).
        CalibrationError: there is no corpus, or an id stands twice.
    """
    files = sorted((root / MUTATIONS).glob("*.yaml"))
    if not files:
        raise CalibrationError(f"{MUTATIONS.as_posix()}/ holds no mutations: there is nothing to plant.")
    found: dict[str, Mutation] = {}
    for path in files:
        shown = path.relative_to(root).as_posix()
        for mutation in read_yaml(path, _Corpus, rules="CAL", shown=shown).mutations:
            if mutation.id in found:
                raise CalibrationError(f"{shown}: the id '{mutation.id}' is used twice; give each mutation its own.")
            found[mutation.id] = mutation
    return found


# -- Planting ----------------------------------------------------------------------------------------------------------


def plant(root: Path, mutations: Iterable[Mutation]) -> dict[str, Place]:
    """Change the files below `root`, all or none of them.

    Returns:
        Where each mistake now stands, by mutation: the lines that differ, or the line before which some are missing;
        no line for a file that was exchanged.

    Raises:
        CalibrationError: a text does not stand exactly once, a file is missing, or two mutations meet.
    """
    changed: dict[str, bytes] = {}
    places: dict[str, Place] = {}
    by_file: dict[str, list[Mutation]] = {}
    for mutation in mutations:
        by_file.setdefault(mutation.file, []).append(mutation)
    for file, here in by_file.items():
        if any(m.copy_of for m in here):
            if len(here) > 1:
                raise CalibrationError(f"{file}: {here[0].id} and {here[1].id} change the same file.")
            changed[file] = _read(root, here[0], str(here[0].copy_of))
            places[here[0].id] = Place(file)
            continue
        text, where = _edited(_read(root, here[0], file).decode(), here)
        changed[file] = text.encode()
        places |= where
    for file, content in changed.items():
        (root / file).write_bytes(content)
    return places


def _read(root: Path, mutation: Mutation, file: str) -> bytes:
    try:
        return (root / file).read_bytes()
    except OSError as error:
        raise CalibrationError(
            f"mutation '{mutation.id}' does not apply: {file} cannot be read ({error.strerror}). "
            f"Adapt it in {MUTATIONS.as_posix()}/, or take it out."
        ) from None


def _edited(text: str, mutations: Sequence[Mutation]) -> tuple[str, dict[str, Place]]:
    """A file's text with several mistakes in it, and where each one stands then."""
    spots: list[tuple[int, int, Mutation]] = []
    for m in mutations:
        assert m.find is not None
        if (times := text.count(m.find)) != 1:
            raise CalibrationError(
                f"mutation '{m.id}' does not apply: its text stands {times} times in {m.file}, not once. "
                f"Adapt it to the present code in {MUTATIONS.as_posix()}/, or take it out."
            )
        start = text.index(m.find)
        spots.append((start, start + len(m.find), m))
    spots.sort(key=lambda spot: spot[0])
    for (_, end, one), (start, _, other) in itertools.pairwise(spots):
        if start < end:
            raise CalibrationError(f"{one.file}: {one.id} and {other.id} change the same text.")
    done, at, places = "", 0, {}
    for start, end, m in spots:
        done += text[at:start]
        above, old, new = done.count("\n"), text[start:end].split("\n"), m.replace.split("\n")
        done, at = done + m.replace, end
        head = _alike(old, new)
        tail = _alike(old[head:][::-1], new[head:][::-1])
        places[m.id] = Place(m.file, above + head + 1, above + max(head + 1, len(new) - tail))
    return done + text[at:], places


def _alike(a: Sequence[str], b: Sequence[str]) -> int:
    """How many lines two texts begin with in common."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def tracked(root: Path, paths: Sequence[str] = ()) -> list[str]:
    """The files that git tracks, all or those that match git's patterns; some may be missing in the working tree.

    Raises:
        CalibrationError: git cannot list them.
    """
    command = ["git", "-C", str(root), "ls-files", "-z", "--", *paths]
    try:
        done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        raise CalibrationError(f"{root} is no git repository: which files belong to it is not known.") from None
    return [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]


def copy_tracked(root: Path, target: Path, *, without: Sequence[str] = ()) -> None:
    """Copy the tracked files as they are in the working tree; links and missing files are passed over.

    Args:
        without: paths to leave out, files or folders.
    """
    for path in tracked(root):
        if any(path == left or path.startswith(f"{left}/") for left in without):
            continue
        if (root / path).is_file() and not (root / path).is_symlink():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / path, target / path)


def restamp(root: Path, projects: Iterable[str]) -> None:
    """Make the records of a copy say that its present code made them.

    A mistake that was in the code from the start leaves no stale record behind; without this, every planted one would.
    """
    for name in projects:
        project = Project(root, name)
        if not project.paper_file.is_file():
            continue
        now = f'"code_digest": "{code_digest(project.paper_file)}"'
        for path in project.results.glob("*/*/**/record.json"):
            text = path.read_text(encoding="utf-8")
            path.write_text(re.sub(r'"code_digest": "[0-9a-f]{64}"', now, text), encoding="utf-8")


# -- A reviewer's exercise ---------------------------------------------------------------------------------------------

LEFT_OUT = (MUTATIONS.as_posix(), "docs/calibration.md", "docs/calibration.json", "tests", "reviews", "course.yaml")
"""What is not in a reviewer's copy: all that would tell where to look (tests, too), and the course's business."""

EXERCISE = """\
# An exercise in reviewing

`projects/{paper}` and what it stands on in `common/` are here as if submitted for review, with {mistakes} planted in
them: in the code, or in what was published. Find them as you would in a real submission. A comparison with the
repository this was copied from would show them at once, and nothing about you.

Work in this folder, and call Python with `-m`, so that it is this code that runs:

    python -m referee run {paper} --preset smoke
    python -m referee probe {paper}
    python -m referee check {paper}

The tests are withheld, since they would tell: do not report that they are missing. The form of a review is in
`reviews/{paper}/{handle}.md`. Write your findings there, each with its severity and its place (`path:line`), and the
checklist as far as you were asked to. Then give that file back.
"""


class Planted(Part):
    """One entry of a key."""

    id: Slug
    severity: Severity
    item: Slug
    mistake: Text
    path: InsidePath
    first: int
    last: int


class Key(Part):
    """What was planted in a reviewer's copy. Stays with the editor."""

    handle: Handle
    paper: Name
    seed: int
    commit: str
    """The copy's only commit, to which its review is pinned."""
    mistakes: Annotated[list[Planted], Field(min_length=1)]


def eligible(every: Mapping[str, Mutation], paper: str) -> list[Mutation]:
    """What may be planted for a person: what no probe and no check answers before a reviewer looks."""
    return [
        m
        for m in every.values()
        if paper in m.projects and m.find is not None and not any(c.startswith(("probe", "check")) for c in m.caught_by)
    ]


def draw(root: Path, choices: Sequence[Mutation], n: int, seed: int, handle: str) -> list[Mutation]:
    """`n` mutations that can stand side by side; the same for the same corpus, seed and handle.

    Raises:
        CalibrationError: there are fewer than `n` of them.
    """
    order = random.Random(f"{seed} {handle}").sample(list(choices), len(choices))
    chosen: list[Mutation] = []
    for candidate in order:
        if len(chosen) == n:
            break
        if not any(_meet(root, candidate, other) for other in chosen):
            chosen.append(candidate)
    if len(chosen) < n:
        raise CalibrationError(
            f"only {number_of(len(chosen), 'mistake')} can be planted side by side, and {n} were asked for; "
            "ask for fewer."
        )
    return chosen


def _meet(root: Path, a: Mutation, b: Mutation) -> bool:
    """Whether two mutations cannot be planted together."""
    if a.file != b.file:
        return False
    if a.copy_of or b.copy_of:
        return True
    try:
        _edited(_read(root, a, a.file).decode(), (a, b))
    except CalibrationError:
        return True
    return False


def start_command(options: argparse.Namespace) -> int:
    """`referee calibrate start`."""
    root = find_root()
    paper = find_project(root, options.paper).name
    if not HANDLE.fullmatch(options.handle):
        raise UsageError(f"'{options.handle[:60]}' is no public handle: letters, digits and hyphens.")
    if options.mistakes < 1:
        raise UsageError(f"--mistakes {options.mistakes}: plant at least one.")
    into, private = Path(options.into).resolve(), Path(options.private).resolve()
    for flag, folder in (("--into", into), ("--private", private)):
        if folder.is_relative_to(root.resolve()):
            raise UsageError(f"{flag} {folder} lies inside the repository, where everybody would see it; name another.")
    if private.is_relative_to(into):
        raise UsageError(
            f"--private {private} lies inside the reviewer's folder: the key would be handed over with it."
        )
    if into.exists():
        raise UsageError(f"--into {into} exists already; name a folder that does not.")
    sealed = private / f"{options.handle}-{paper}.key.json"
    if sealed.exists():
        raise UsageError(f"{sealed} exists already: {options.handle} has an exercise on {paper}. Move it away first.")

    planted = draw(root, eligible(corpus(root), paper), options.mistakes, options.seed, options.handle)
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=".exercise-") as part:  # whole or not at all
        copy = Path(part) / "copy"
        copy_tracked(root, copy, without=LEFT_OUT)
        places = plant(copy, planted)
        restamp(copy, [paper])
        for test in copy.glob("projects/*/test_*.py"):
            test.unlink()
        write_text(
            copy / "EXERCISE.md",
            EXERCISE.format(paper=paper, handle=options.handle, mistakes=number_of(len(planted), "mistake")),
        )
        commit(copy)
        _form(copy, paper, options.handle)
        key = Key(
            handle=options.handle,
            paper=paper,
            seed=options.seed,
            commit=_git(copy, "rev-parse", "HEAD"),
            mistakes=[
                Planted(
                    id=m.id,
                    severity=m.severity,
                    item=m.item,
                    mistake=m.mistake,
                    path=m.file,
                    first=places[m.id].first or 1,
                    last=places[m.id].last or 1,
                )
                for m in planted
            ],
        )
        write_text(sealed, key.model_dump_json(indent=1) + "\n")
        sealed.chmod(0o600)
        copy.rename(into)
    print(f"{into}: for {options.handle}, to begin with EXERCISE.md")
    print(f"{sealed}: the key, for you alone")
    return 0


def _form(folder: Path, paper: str, handle: str) -> None:
    """Write the form of a review into a copy, by the copy's own code."""
    command = [sys.executable, "-m", "referee", "review", "start", paper, "--as", handle, "--no-probes"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or error
        raise CalibrationError(f"the form of the review could not be written: {str(said).strip()[-300:]}") from None


def clone(root: Path, target: Path) -> None:
    """The tracked files as they are in the working tree, above the history, which tells what was accepted when."""
    _git(root, "clone", "--quiet", "--shared", "--no-checkout", "--template=", ".", str(target))
    copy_tracked(root, target)


def commit(folder: Path) -> None:
    """Commit all that is in a folder, made a repository of its own if it is none."""
    identity = ["-c", "user.name=exercise", "-c", "user.email=exercise@example.org", "-c", "commit.gpgsign=false"]
    _git(folder, "init", "--quiet", "--template=")
    _git(folder, "add", "--all")
    _git(folder, *identity, "commit", "--quiet", "--allow-empty", "--message", "As submitted")


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=120, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or error
        raise CalibrationError(f"git {arguments[0]} failed in {folder}: {str(said).strip()[:300]}") from None
    return done.stdout.strip()


# -- What a reviewer found ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """A review compared with the key."""

    handle: str
    paper: str
    found: Mapping[str, str]  # mutation -> the finding that names it
    missed: tuple[str, ...]
    other: tuple[str, ...]  # findings about something else; questions are not counted
    precision: float | None  # share of the findings that name a planted mistake; None without findings
    recall: float
    recall_by_severity: Mapping[str, tuple[int, int]]  # found, planted
    minutes: int | None


def compare(review: Review, key: Key) -> Result:
    """What a review found of what was planted, by the rule that compares reviewers with the editor (`reviews.match`).

    A finding that names nothing planted counts against precision, yet it may be right: a person reads those.

    Raises:
        CalibrationError: the review is not the one the key is for.
    """
    if (review.reviewer, review.head.paper) != (key.handle, key.paper):
        raise CalibrationError(
            f"{review.shown} is {review.reviewer}'s review of {review.head.paper}, "
            f"the key is for {key.handle}'s of {key.paper}."
        )
    if review.head.commit != key.commit:
        raise CalibrationError(f"{review.shown} is about commit {review.head.commit[:12]}, the key about another copy.")
    findings = [f for f in review.findings.values() if f.severity != "question"]
    planted = [
        Finding(m.id, m.severity, (Place(m.path, m.first, m.last),), m.mistake, 1, (m.item,)) for m in key.mistakes
    ]
    by_finding = match(findings, planted)
    found = {mutation: finding for finding, mutation in by_finding.items()}
    by_severity: dict[str, tuple[int, int]] = {}
    for severity in SEVERITIES:
        these = [m.id for m in key.mistakes if m.severity == severity]
        if these:
            by_severity[severity] = (sum(name in found for name in these), len(these))
    return Result(
        handle=key.handle,
        paper=key.paper,
        found=found,
        missed=tuple(m.id for m in key.mistakes if m.id not in found),
        other=tuple(f.id for f in findings if f.id not in by_finding),
        precision=len(found) / len(findings) if findings else None,
        recall=len(found) / len(key.mistakes),
        recall_by_severity=by_severity,
        minutes=review.head.minutes,
    )


def score_command(options: argparse.Namespace) -> int:
    """`referee calibrate score`."""
    path = Path(options.key)
    try:
        key = Key.model_validate_json(read_text(path, rules="CAL"))
    except ValidationError as error:
        raise CalibrationError(
            f"{path}: not a key of 'referee calibrate start' ({error.error_count()} faults)."
        ) from None
    result = compare(load_review(Path(options.review), options.review), key)
    if options.format == "json":
        print(json.dumps(asdict(result), indent=1))
        return 0
    print(f"{result.handle} on {result.paper}" + (f", {number_of(result.minutes, 'minute')}" if result.minutes else ""))
    for m in key.mistakes:
        what = f"found as {result.found[m.id]}" if m.id in result.found else "missed"
        print(f"  {what:12} {m.severity:9} {m.path}:{m.first}  {m.mistake}")
    for name in result.other:
        print(f"  {name}: names nothing that was planted; it may be right all the same, so read it")
    share = "no findings" if result.precision is None else f"{result.precision:.0%}"
    by = ", ".join(f"{severity} {found} of {n}" for severity, (found, n) in result.recall_by_severity.items())
    print(f"precision {share} · recall {result.recall:.0%} ({by})")
    return 0
