"""`referee grade`: grades from the repository and the editor's private marks. docs/grading.md says it in full.

    version    points of the editor, less what findings cost, less what lateness costs
    project    the versions, weighted
    review     100 × (recall, precision, coverage and evidence, weighted), less what lateness costs
    grade      (1 − review) × the mean of the projects + review × the mean of the reviews

All that is public is read from one commit and the history that leads to it, never from the working tree: when a change
came and whether it was in time is decided as by `referee gate`. What is private lies in a folder outside of the
repository: `marks.yaml`, which the editor writes, and `pushes.json`, which the gate writes. The grades go there, too.
Numbers are fractions until they are shown, and no clock is read: the same commit, date and private files give the same
bytes.

`python -m referee.grading` writes the JSON Schema of `marks.yaml`.
"""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, StringConstraints, model_validator

from common.errors import UserError, nearest
from referee.assignment import assignment_at, is_assigned
from referee.checklist import load_checklist
from referee.course import Course, Date, DeadlineName, Grading, last_second, show_time
from referee.documents import DocumentError, Path_, Problem, Tree, parse_yaml, pattern, refuse
from referee.evidence import Snapshot
from referee.history import (
    PUSHES,
    Commit,
    Counted,
    Event,
    History,
    HistoryError,
    printable,
    pushes_text,
    when,
)
from referee.loading import parse_project
from referee.project import HANDLE, PAPER_NAME, UsageError
from referee.reviewing import Score, score
from referee.reviews import (
    DECISION,
    RESPONSE,
    Decision,
    PaperName,
    Place,
    Response,
    Review,
    parse_decision,
    parse_response,
    parse_review,
)
from referee.reviews import Commit as CommitId
from referee.schema import Handle, Number, Part, ProjectFile, Text, schema_text
from referee.stages import changes, course_at

MARKS = "marks.yaml"
Version = Literal["v1", "v2"]
VERSIONS: tuple[Version, ...] = ("v1", "v2")
GRADED = ("critical", "major", "minor")  # severities; a question costs nothing


# -- marks.yaml --------------------------------------------------------------------------------------------------------

Identity = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
OwnFinding = Annotated[str, pattern(r"^E[1-9][0-9]{0,2}$", "it is one of the editor's findings, like E1")]


class _Timed(Part):
    received: Date | None = None
    """When the forge received it, in the course's time zone; the committers' dates count where it is not stated."""
    excused: Text | None = None
    """Why it may be late without a cost."""
    note: Text | None = None
    """A word to those who are graded."""


class Mark(_Timed):
    """What the editor gives a version of a project."""

    paper: PaperName
    version: Version
    points: Annotated[Number, Field(ge=0, le=100)]
    """0 to 100, for the work as a whole; what findings and lateness cost is taken off by the machine."""
    commit: CommitId | None = None
    """The commit of the main branch that was marked, where it is not the last that came in time."""
    new: list[OwnFinding] = Field(default_factory=list)
    """The editor's findings that came with version 2: no reviewer could see them."""


class ReviewNote(_Timed):
    """What the editor states about a review; a review needs no entry."""

    paper: PaperName
    reviewer: Handle


class Marks(Part):
    """`marks.yaml`: what only the editor knows."""

    marks: Annotated[list[Mark], Field(max_length=5000)]
    reviews: list[ReviewNote] = Field(default_factory=list, max_length=5000)
    authors: dict[Handle, list[Identity]] = Field(default_factory=dict)
    """The names and e-mail addresses under which people commit, by handle."""

    @model_validator(mode="after")
    def _once(self) -> "Marks":
        seen: set[tuple[str, ...]] = set()
        for i, mark in enumerate(self.marks):
            if (mark.paper, mark.version) in seen:
                message = f"{mark.version} of '{mark.paper}' has two marks; keep one"
                raise refuse("repeated", message, at=("marks", i))
            seen.add((mark.paper, mark.version))
            if mark.new and mark.version != "v2":
                raise refuse("contradiction", "only version 2 can have what version 1 had not", at=("marks", i, "new"))
        for i, note in enumerate(self.reviews):
            if (key := (note.paper, "review", key_of(note.reviewer))) in seen:
                message = f"the review of '{note.paper}' by '{note.reviewer}' stands twice; keep one entry"
                raise refuse("repeated", message, at=("reviews", i))
            seen.add(key)
        owner: dict[str, str] = {}
        for handle, names in self.authors.items():
            for name in names:
                if (other := owner.setdefault(key_of(name), handle)) != handle:
                    message = f"'{name}' is '{other}' already; who commits under a name is one person"
                    raise refuse("repeated", message, at=("authors", handle))
        if len({key_of(handle) for handle in self.authors}) < len(self.authors):
            raise refuse("repeated", "a handle stands twice; capitals make no difference", at=("authors",))
        return self


def key_of(text: str) -> str:
    return text.lower()


# -- What the history tells --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arrival:
    """A change, as the main branch got it."""

    commit: str  # of the main branch
    counted: Counted
    revision: bool = False  # it follows the decision 'revise': no deadline binds it
    decided: bool = False  # it follows the editor's findings, which are public from then on


@dataclass
class Story:
    """What became of one project."""

    versions: dict[Version, list[Arrival]] = field(default_factory=lambda: {v: [] for v in VERSIONS})
    reviews: dict[str, list[Arrival]] = field(default_factory=lambda: defaultdict(list))  # by handle as written
    decided: bool = False
    revision: bool = False


def main_branch(history: History) -> list[Commit]:
    """The commits of the branch that is checked out, as that branch sees them (a merge is one), oldest first.

    Raises:
        HistoryError: there are none, or they are not all here.
    """
    if not history.exists:
        raise HistoryError("there is no git repository with a commit here; grades are computed from its history.")
    if history.shallow:
        raise HistoryError("only a part of the history was fetched, and grades need it all: git fetch --unshallow.")
    listed = (history.git("rev-list", "--first-parent", "--reverse", "HEAD") or b"").decode("ascii", "replace")
    return [history.at(sha) for sha in listed.split()]


def stories(history: History, branch: Sequence[Commit], pushes: Mapping[str, datetime]) -> dict[str, Story]:
    """What each project did, and when, along the main branch."""
    found: dict[str, Story] = defaultdict(Story)
    listed = history.git("log", "--first-parent", "--format=%H", branch[-1].sha, "--", "projects", "reviews") or b""
    telling = set(listed.decode("ascii", "replace").split())
    nothing = (history.git("hash-object", "-t", "tree", os.devnull) or b"").decode("ascii").strip()
    for commit in branch:
        if commit.sha not in telling:
            continue
        parents = history.parents(commit.sha)
        counted = arrival(history, commit, parents, pushes)
        for change in changes(history, parents[0] if parents else nothing, commit.sha):
            if change.paper is None:
                continue
            story = found[change.paper]
            here = Arrival(commit.sha, counted, story.revision, story.decided)
            stage = change.after.stage if change.after else None
            if change.kind in ("new", "step", "edit"):
                if stage in VERSIONS:
                    story.versions[stage].append(here)
                if stage in ("v2", "published"):  # a history that begins later than the project
                    story.versions["v1"] = story.versions["v1"] or [here]
                if stage == "published":
                    story.versions["v2"] = story.versions["v2"] or [here]
            elif change.kind == "withdrawal":
                del found[change.paper]
            elif change.kind == "review":
                name = change.paths[0].rpartition("/")[2]
                if name.endswith(".md") and HANDLE.fullmatch(name[:-3]):
                    story.reviews[name[:-3]].append(here)
            elif change.kind == "decision":
                decision = _decision_then(history, commit.sha, change.paper)
                story.revision = decision is not None and decision.head.decision == "revise"
                public = decision is not None and bool(decision.head.decision or decision.findings)
                story.decided = story.decided or public
    return found


def arrival(history: History, commit: Commit, parents: Sequence[str], pushes: Mapping[str, datetime]) -> Counted:
    """When a commit of the main branch counts: the commits that it merges by the rule of `referee gate`, and never
    later than it was merged.

    Args:
        pushes: when the forge received commits, by id, as far as is known.
    """
    merged = commit.moment or datetime.fromtimestamp(0, UTC)

    def counted(base: str, head: str) -> Counted:
        event = Event(head, pushes[head]) if head in pushes else None
        return when(history, base, head, event, merged)

    if not parents:
        return Counted(merged, "the committer's date")
    if len(parents) == 1:
        return counted(parents[0], commit.sha)
    all_ = [counted(history.merge_base(parents[0], head), head) for head in parents[1:]]
    latest = max(all_, key=lambda c: c.moment)
    return replace(latest, moment=min(latest.moment, merged), wrong=tuple(w for c in all_ for w in c.wrong))


def _decision_then(history: History, commit: str, paper: str) -> Decision | None:
    path = f"reviews/{paper}/{DECISION}"
    try:
        text = history.text(commit, path)
        return parse_decision(text, path) if text is not None else None
    except DocumentError:
        return None


@dataclass(frozen=True)
class Work:
    """What the authors of a project's text wrote: lines, and commits that touch it."""

    lines: Mapping[str, Fraction]  # by handle
    commits: Mapping[str, int]
    unknown: tuple[str, ...]  # names that are nobody's in marks.yaml


WRITTEN = (".py", ".md", ".yaml")


def authorship(history: History, tip: str, authors: Mapping[str, Sequence[str]]) -> dict[str, Work]:
    """Who wrote how many lines of each project, by handle in small letters.

    Counted are lines that commits add to Python, Markdown and YAML, without results and without notebooks, whose lines
    are mostly a program's. A commit with co-authors counts in equal parts. A name counts as somebody's only if
    `authors` says so: the e-mail address first, else the name.
    """
    listed = history.git(
        "log", "--no-merges", "-M", "-z", "--numstat", "--no-ext-diff", "--no-textconv",
        "--format=%H%x00%an%x00%ae%x00%(trailers:key=Co-authored-by,valueonly,unfold,separator=%x1f)",
        tip, "--", "projects", limit=64 * 1024 * 1024,
    )  # fmt: skip
    owner = {key_of(name): key_of(handle) for handle, names in authors.items() for name in names}
    lines: dict[str, dict[str, Fraction]] = defaultdict(lambda: defaultdict(Fraction))
    commits: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    unknown: dict[str, set[str]] = defaultdict(set)
    tokens = iter((listed or b"").decode("utf-8", "replace").split("\0"))
    sha, people = "", [("", "")]
    for token in tokens:
        if "\t" not in token:  # a commit; its fields stand in known places, whatever they hold
            if not re.fullmatch(r"[0-9a-f]{40,64}", token):
                continue
            sha, name, mail, also = token, next(tokens, ""), next(tokens, ""), next(tokens, "")
            people = list(dict.fromkeys([(name, mail), *map(_person, also.split("\x1f")[:50] if also else ())]))
            continue
        added, _, path = token.strip("\n").split("\t", 2)
        if not path:  # moved: the old name, then the new one
            next(tokens, "")
            path = next(tokens, "")
        match = re.fullmatch(r"projects/([a-z0-9_]+)/(.*)", path, re.S)
        if match is None:
            continue
        paper, inside = match[1], match[2]
        text = inside.endswith(WRITTEN) and not inside.startswith("results/")
        part = Fraction(int(added) if text and added.isdecimal() else 0, len(people))
        for name, mail in people:
            if (handle := owner.get(key_of(mail)) or owner.get(key_of(name))) is None:
                unknown[paper].add(printable(f"{name} <{mail}>", 120))
            else:
                lines[paper][handle] += part
                commits[paper][handle].add(sha)
    return {
        paper: Work(
            dict(lines[paper]), {h: len(c) for h, c in commits[paper].items()}, tuple(sorted(unknown[paper]))[:100]
        )
        for paper in sorted({*lines, *unknown})
    }


def _person(trailer: str) -> tuple[str, str]:
    name, _, mail = trailer.strip().partition("<")
    return name.strip(), mail.rstrip("> ")


# -- What was written, at one commit -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Paper:
    """All that counts about one project."""

    name: str
    file: ProjectFile
    story: Story
    response: Response | None
    decision: Decision | None
    assigned: tuple[str, ...]  # reviewers
    extra: frozenset[str]  # who reviewed it, although it was assigned to others


def papers_at(history: History, tip: str, told: Mapping[str, Story]) -> list[Paper]:
    """The projects at a commit, by name.

    Raises:
        DocumentError: with all that cannot be read.
    """
    problems: list[Problem] = []

    def read(path: str, parse: Callable[[str, str], Any]) -> Any:
        text = history.text(tip, path)
        try:
            return parse(text, f"{path} at {tip[:10]}") if text is not None else None
        except DocumentError as error:
            problems.extend(error.problems)
            return None

    found: list[Paper] = []
    assigned = assignment_at(history, tip)
    for name in sorted(history.names(tip, "projects")):
        if not PAPER_NAME.fullmatch(name):
            continue
        file = read(f"projects/{name}/project.yaml", parse_project)
        response = read(f"reviews/{name}/{RESPONSE}", parse_response)
        decision = read(f"reviews/{name}/{DECISION}", parse_decision)
        if file is not None:
            story = told.get(name) or Story()
            extra = frozenset(h for h in story.reviews if not is_assigned(assigned, name, h))
            found.append(Paper(name, file, story, response, decision, assigned.get(name, ()), extra))
    if problems:
        raise DocumentError(problems)
    return found


# -- Versions ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Taken:
    """Which change counts, and what its lateness costs."""

    arrival: Arrival | None  # None: nothing came
    share: Fraction  # of the points that is left: 1 in time, 0 refused
    said: str  # in words


def taken(arrivals: Sequence[Arrival], deadline: DeadlineName, stated: _Timed | None, course: Course) -> Taken:
    """The last change that came in time or late enough to be accepted; what came after it does not belong to it.

    Args:
        arrivals: oldest first; at least one.
        deadline: the name of the deadline.
        stated: what the editor says of it; `received` and `commit` are about one change.
    """
    zone = ZoneInfo(course.timezone)
    commit = getattr(stated, "commit", None)
    if commit is not None:
        arrivals = [a for a in arrivals if a.commit == commit]
    if stated is not None and stated.received is not None:
        moment = last_second(stated.received, zone).astimezone(UTC)
        arrivals = [replace(arrivals[-1], counted=Counted(moment, "as the editor states"))]
    if stated is not None and stated.excused is not None:
        return Taken(arrivals[-1], Fraction(1), f"excused: {stated.excused}")

    refused: Taken | None = None
    for here in reversed(arrivals):
        said = f"{show_time(here.counted.moment.astimezone(zone))}, {_by(here.counted)}"
        late = course.lateness(deadline, here.counted.moment)
        if late is None or here.revision:
            why = "no deadline" if late is None else "a revision, which no deadline binds"
            return Taken(here, Fraction(1), f"{said}: {why}")
        due, share = late.deadline, Fraction(late.share)
        if late.by <= timedelta(0):
            return Taken(here, share, f"{said}: in time (until {due})")
        if not late.refused:
            return Taken(here, share, f"{said}: late (due {due}), {percent(course.late.penalty)} off")
        refused = refused or Taken(here, share, f"{said}: refused (due {due}, and {course.late.hours} hours)")
    assert refused is not None  # there is at least one
    return refused


def _by(counted: Counted) -> str:
    return counted.how.partition(", since")[0]


def over(deadline: DeadlineName, course: Course, as_of: datetime) -> bool:
    """Whether nothing is taken any more, even late."""
    late = course.lateness(deadline, as_of)
    return late is not None and late.refused


@dataclass(frozen=True)
class Charge:
    """An editor's finding, and what it costs the team."""

    key: str  # eve/E1
    severity: str
    places: tuple[Place, ...]
    points: Fraction
    why: str


@dataclass(frozen=True)
class VersionGrade:
    """What a version is worth; `counts` is None while it is open."""

    version: Version
    weight: Fraction
    taken: Taken | None
    points: Fraction | None  # the editor's
    off: Fraction  # for findings
    counts: Fraction | None
    said: str
    note: str | None = None


@dataclass(frozen=True)
class ProjectGrade:
    """What a project is worth to each of its team."""

    paper: Paper
    versions: tuple[VersionGrade, ...]
    charges: tuple[Charge, ...]
    points: Fraction | None
    work: Work


# -- Reviews -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """One of a review's four measures; `value` is None where there is nothing to measure."""

    name: str
    weight: Fraction
    value: Fraction | None
    said: str


@dataclass(frozen=True)
class ReviewGrade:
    """What a review is worth; `points` is None while it is open, or where nothing can be measured."""

    paper: str
    reviewer: str
    taken: Taken | None
    review: Review | None
    score: Score | None
    measures: tuple[Measure, ...]
    points: Fraction | None
    said: str
    missed: tuple[str, ...] = ()  # keys of the editor's findings
    note: str | None = None
    open: bool = False
    extra: bool = False  # assigned to others: it counts for no grade


def weighted(measures: Iterable[Measure]) -> Fraction | None:
    """The mean of those that have a value, by weight; None if none has."""
    known = [(m.weight, m.value) for m in measures if m.value is not None and m.weight]
    total = sum((w for w, _ in known), Fraction(0))
    return sum((w * v for w, v in known), Fraction(0)) / total if total else None


def grade_review(
    history: History, paper: Paper, reviewer: str, stated: ReviewNote | None, new: Iterable[str], course: Course,
    as_of: datetime,
) -> ReviewGrade:  # fmt: skip
    """What one review of a paper is worth.

    Args:
        new: the editor's findings that the reviewed version did not have.
    """
    arrivals = [a for h, list_ in paper.story.reviews.items() if key_of(h) == key_of(reviewer) for a in list_]

    def bare(points: Fraction | None, said: str, *, open: bool = False, here: Taken | None = None) -> ReviewGrade:
        note = stated.note if stated else None
        return ReviewGrade(paper.name, reviewer, here, None, None, (), points, said, note=note, open=open)

    if not arrivals:
        if over("reviews", course, as_of):
            return bare(Fraction(0), "was not submitted")
        return bare(None, "is not submitted yet", open=True)
    early = [a for a in arrivals if not a.decided]  # later, the editor's findings are there to be copied
    here = taken(early or arrivals, "reviews", stated, course)
    assert here.arrival is not None
    if not here.share:
        return bare(Fraction(0), "came too late", here=here)
    path = f"reviews/{paper.name}/{reviewer}.md"
    try:
        text = history.text(here.arrival.commit, path)
        review = parse_review(text, path) if text is not None else None
    except (DocumentError, HistoryError):
        review = None
    if review is None or review.head.paper != paper.name or key_of(review.reviewer) != key_of(reviewer):
        return bare(Fraction(0), f"cannot be read at {here.arrival.commit[:10]}", here=here)
    decision = paper.decision if early else None
    if decision is not None:
        visible = {k: f for k, f in decision.findings.items() if k not in set(new)}
        decision = replace(decision, findings=visible)
    found = score(review, paper.response, decision, paper.file.family)
    measures = _measures(history, review, found, decision, course.grading)
    value = weighted(measures)
    due = [f.id for f in (decision.findings.values() if decision else ()) if f.severity in GRADED]
    editor = decision.head.editor if decision else ""
    missed = tuple(f"{editor}/{e}" for e in due if e not in found.matches.values())
    said = "" if early else "came after the decision: the editor's findings were public, and are not compared"
    return ReviewGrade(
        paper.name, reviewer, here, review, found, measures,
        None if value is None else 100 * value * here.share,
        said if value is not None else "nothing can be measured", missed, stated.note if stated else None,
        paper.decision is None,
    )  # fmt: skip


def _measures(
    history: History, review: Review, found: Score, decision: Decision | None, grading: Grading
) -> tuple[Measure, ...]:
    costs = {s: Fraction(getattr(grading.findings, s)) for s in GRADED}
    weights = {name: Fraction(getattr(grading.reviewing, name)) for name in type(grading.reviewing).model_fields}
    tallies = {s: found.tallies[s] for s in GRADED}
    recall = _share(
        [(costs[s], t.found, t.editor) for s, t in tallies.items()],
        "the editor has not decided" if decision is None else "the editor found nothing that counts",
    )
    precision = _share(
        [(costs[s], t.held, t.held + t.refuted) for s, t in tallies.items()], "of no finding it is known if it held"
    )
    covered = Fraction(found.answered, found.asked)
    verified, looked, wrong = verify(history, review)
    evidence = Fraction(verified, looked) if looked else None
    said = f"{verified} of {looked} answers" if looked else "nothing was cited that this command could look up"
    said += f"; not: {', '.join(wrong)}" if wrong else ""
    return (
        Measure("recall", weights["recall"], *recall),
        Measure("precision", weights["precision"], *precision),
        Measure("coverage", weights["coverage"], covered, f"{found.answered} of {found.asked} items answered"),
        Measure("evidence", weights["evidence"], evidence, said),
    )


def _share(parts: Sequence[tuple[Fraction, int, int]], nothing: str) -> tuple[Fraction | None, str]:
    """Σ weight × part / Σ weight × whole, and how it comes about."""
    used = [(w, part, whole) for w, part, whole in parts if whole]
    whole_ = sum((w * whole for w, _, whole in used), Fraction(0))
    if not whole_:
        return None, nothing
    part_ = sum((w * part for w, part, _ in used), Fraction(0))
    above = " + ".join(f"{show(w)}·{part}" for w, part, _ in used)
    below = " + ".join(f"{show(w)}·{whole}" for w, _, whole in used)
    return part_ / whole_, f"({above}) / ({below})"


def verify(history: History, review: Review) -> tuple[int, int, tuple[str, ...]]:
    """How many answers cite places that exist at the reviewed commit, of how many that should, and which do not.

    An answer that cites only checks or probes is left out: whether their output comes out again is looked up by
    `referee review check --run`. One that cites only commands of the reviewer's own cannot be looked up: it is left out
    where the checklist asks for such a command, and counts as not verified elsewhere.
    """
    items = load_checklist().items
    try:
        then = Snapshot.of(history.root, review.head.commit)
    except UserError:
        then = None
    verified, wrong = 0, []
    for answer in review.answers.values():
        if answer.not_applicable is not None and not answer.ticked:
            continue
        kinds = {e.kind for e in answer.evidence}
        asked = "command" in kinds and answer.item in items and items[answer.item].commands
        if "place" not in kinds and (asked or kinds & {"check", "probe"}):
            continue
        if not answer.ticked and not answer.findings:
            continue  # not answered: that is what coverage measures
        places = [e.place for e in answer.evidence if e.place is not None]
        places += [p for name, _ in answer.findings if name in review.findings for p in review.findings[name].places]
        if places and then is not None and all(then.wrong(place) is None for place in places):
            verified += 1
        else:
            wrong.append(answer.item)
    return verified, verified + len(wrong), tuple(wrong)


# -- Projects and people -----------------------------------------------------------------------------------------------


def grade_project(
    paper: Paper, reviews: Sequence[ReviewGrade], marks: Marks, course: Course, work: Work, as_of: datetime
) -> ProjectGrade:
    """What a project is worth."""
    charges = charged(paper, reviews, course.grading)
    submitted = [v for v in VERSIONS if paper.story.versions[v]]
    versions: list[VersionGrade] = []
    for version in VERSIONS:
        weight = Fraction(getattr(course.grading, version))
        arrivals = paper.story.versions[version]
        mark = next((m for m in marks.marks if (m.paper, m.version) == (paper.name, version)), None)
        if not arrivals or mark is None:
            closed = not arrivals and over(version, course, as_of)
            said = "was not submitted" if closed else "is not submitted yet"
            zero = Fraction(0) if closed else None
            versions.append(VersionGrade(version, weight, None, None, Fraction(0), zero, said))
            continue
        here = taken(arrivals, version, mark, course)
        points = Fraction(mark.points)
        off = sum((c.points for c in charges), Fraction(0)) if version == submitted[-1] else Fraction(0)
        counts = max(Fraction(0), points - off) * here.share
        versions.append(VersionGrade(version, weight, here, points, off, counts, here.said, mark.note))
    known = [(v.weight, v.counts) for v in versions if v.counts is not None]
    total = sum((w for w, _ in known), Fraction(0))
    value = sum((w * c for w, c in known), Fraction(0)) / total if total else None
    return ProjectGrade(paper, tuple(versions), charges, value, work)


def charged(paper: Paper, reviews: Sequence[ReviewGrade], grading: Grading) -> tuple[Charge, ...]:
    """What the editor's findings cost the team: each, unless a reviewer reported it and the team fixed it."""
    found: list[Charge] = []
    decision = paper.decision
    replies = paper.response.replies if paper.response else {}
    for finding in decision.findings.values() if decision else ():
        if finding.severity not in GRADED:
            continue
        assert decision is not None
        reported = [
            f"{r.score.reviewer}/{mine}"
            for r in reviews
            if r.score
            for mine, theirs in sorted(r.score.matches.items())
            if theirs == finding.id
        ]
        fixed = [key for key in reported if (reply := replies.get(key)) is not None and reply.kind == "fixed"]
        cost = Fraction(0) if fixed else Fraction(getattr(grading.findings, finding.severity))
        why = f"reported as {fixed[0]}, and fixed" if fixed else "no reviewer reported it"
        if reported and not fixed:
            why = f"reported as {', '.join(reported)}, and not fixed"
        found.append(Charge(f"{decision.head.editor}/{finding.id}", finding.severity, finding.places, cost, why))
    return tuple(found)


@dataclass(frozen=True)
class PersonGrade:
    """Somebody's grade; None where there is nothing to grade yet."""

    handle: str
    projects: tuple[ProjectGrade, ...]
    reviews: tuple[ReviewGrade, ...]
    project: Fraction | None
    reviewing: Fraction | None
    grade: Fraction | None
    open: tuple[str, ...]  # what is still to come
    look_at: tuple[str, ...]  # what the editor should look at; it changes no grade


def grade_person(
    handle: str, projects: Sequence[ProjectGrade], reviews: Sequence[ReviewGrade], marks: Marks, grading: Grading
) -> PersonGrade:
    """Somebody's grade, from their projects and reviews."""
    project = mean([p.points for p in projects])
    reviewing = mean([r.points for r in reviews if not r.extra])
    share = Fraction(grading.review)
    grade = project if reviewing is None else reviewing if project is None else None
    if project is not None and reviewing is not None:
        grade = (1 - share) * project + share * reviewing
    waits = [f"{p.paper.name} {v.version} {v.said}" for p in projects for v in p.versions if v.counts is None]
    waits += [
        f"the review of {r.paper} {r.said}" if r.score is None else f"{r.paper} is not decided"
        for r in reviews
        if r.open and not r.extra
    ]
    look = [flag for p in projects if (flag := contribution(handle, p, marks, grading)) is not None]
    look += [f"clock:{p.paper.name}" for p in projects for v in p.versions if _clock(v.taken)]
    look += [f"clock:{r.paper}" for r in reviews if _clock(r.taken)]
    look += [f"unreadable:{r.paper}" for r in reviews if "cannot be read" in r.said]
    return PersonGrade(
        handle, tuple(projects), tuple(reviews), project, reviewing, grade, tuple(waits), tuple(dict.fromkeys(look))
    )


def mean(values: Iterable[Fraction | None]) -> Fraction | None:
    """Of those that are there; None if none is."""
    known = [v for v in values if v is not None]
    return sum(known, Fraction(0)) / len(known) if known else None


def _clock(here: Taken | None) -> bool:
    return here is not None and here.arrival is not None and bool(here.arrival.counted.wrong)


def contribution(handle: str, project: ProjectGrade, marks: Marks, grading: Grading) -> str | None:
    """A word for the editor if somebody wrote far less than an equal part of their project, or if nobody can tell."""
    team = {key_of(m.handle) for m in project.paper.file.team}
    if len(team) < 2:
        return None
    if key_of(handle) not in {key_of(h) for h in marks.authors}:
        return f"unmapped:{project.paper.name}"
    lines = {h: project.work.lines.get(h, Fraction(0)) for h in team}
    if not any(lines.values()):
        return None
    enough = Fraction(grading.contribution) * sum(lines.values()) / len(team)
    return f"contribution:{project.paper.name}" if lines[key_of(handle)] < enough else None


@dataclass(frozen=True)
class Grades:
    """All grades, and what they were computed from."""

    commit: str
    as_of: datetime
    course: Course
    inputs: Mapping[str, str]  # sha256 of the private files, by name
    web: str | None  # where the repository can be looked at
    projects: tuple[ProjectGrade, ...]
    people: tuple[PersonGrade, ...]


def compute(
    root: Path, text: str, as_of: str | None = None, pushes: Mapping[str, datetime] = MappingProxyType({})
) -> Grades:
    """All grades.

    Args:
        root: the repository.
        text: of `marks.yaml`.
        pushes: when the forge received commits, by id, as far as is known.
        as_of: "2027-02-12" (its end) or "2027-02-12 18:00", in the course's zone; the last commit's date when not
            given. Neither later commits nor later deadlines count.

    Raises:
        DocumentError: of `marks.yaml`, or of a file in the repository.
        HistoryError: the history is not enough.
        UsageError: there is no such date, or nothing had happened by then.
    """
    trees: list[Tree] = []
    marks = parse_yaml(text, Marks, rules="MRK", shown=MARKS, also=lambda _, tree: trees.append(tree))
    history = History(root)
    branch = main_branch(history)
    now = branch[-1].moment or datetime.fromtimestamp(0, UTC)
    if as_of is not None:
        now = moment_of(as_of, course_at(history, branch[-1].sha))
        branch = branch[: max((i for i, c in enumerate(branch, 1) if c.moment and c.moment <= now), default=0)]
        if not branch:
            raise UsageError(f"--as-of {as_of}: there was no commit yet.")
    tip = branch[-1].sha
    course = course_at(history, tip)
    papers = [p for p in papers_at(history, tip, stories(history, branch, pushes)) if course.includes(p.name)]
    if problems := mismatches(marks, trees[0], papers, course):
        raise DocumentError(problems)
    work = authorship(history, tip, marks.authors)
    projects: list[ProjectGrade] = []
    reviews: list[ReviewGrade] = []
    for paper in papers:
        new = {e for m in marks.marks if m.paper == paper.name for e in m.new}
        here: list[ReviewGrade] = []
        spelled = {key_of(h): h for h in (*paper.assigned, *paper.story.reviews)}  # as their files are named
        for _, reviewer in sorted(spelled.items()):
            stated = next(
                (n for n in marks.reviews if (n.paper, key_of(n.reviewer)) == (paper.name, key_of(reviewer))), None
            )
            grade = grade_review(history, paper, reviewer, stated, new, course, now)
            here.append(replace(grade, extra=reviewer in paper.extra))
        reviews += here
        wrote = work.get(paper.name, Work({}, {}, ()))
        projects.append(grade_project(paper, here, marks, course, wrote, now))
    people = [
        grade_person(
            handle,
            [p for p in projects if key_of(handle) in {key_of(m.handle) for m in p.paper.file.team}],
            [r for r in reviews if key_of(r.reviewer) == key_of(handle)],
            marks,
            course.grading,
        )
        for handle in graded_people(course, projects, reviews)
    ]
    private = {MARKS: text, **({PUSHES: pushes_text(pushes)} if pushes else {})}
    inputs = {name: hashlib.sha256(content.encode("utf-8")).hexdigest() for name, content in private.items()}
    return Grades(tip, now, course, inputs, web_address(history), tuple(projects), tuple(people))


def unique(handles: Iterable[str]) -> list[str]:
    """Each person once, in order; capitals make no difference."""
    return [h for _, h in sorted({key_of(h): h for h in sorted(handles, reverse=True)}.items())]


def graded_people(course: Course, projects: Iterable[ProjectGrade], reviews: Iterable[ReviewGrade]) -> list[str]:
    """Everybody with a project, a review, or a role that has them, as the course spells them; no editors."""
    known = {key_of(p.handle): p for p in course.people}
    handles = [p.handle for p in course.people]
    handles += [m.handle for p in projects for m in p.paper.file.team] + [r.reviewer for r in reviews]
    spelled = {key_of(h): known[key_of(h)].handle if key_of(h) in known else h for h in unique(handles)}
    return [h for key, h in sorted(spelled.items()) if key not in known or set(known[key].roles) != {"editor"}]


def moment_of(text: str, course: Course) -> datetime:
    """The last second of a date, or a time, in the course's zone. UsageError when it is none."""
    try:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}( [0-9]{2}:[0-9]{2})?", text):
            raise ValueError
        return last_second(text, ZoneInfo(course.timezone)).astimezone(UTC)
    except (ValueError, OverflowError):
        shown = printable(text, 40)
        raise UsageError(f"--as-of: '{shown}' is no date; write 2027-02-12 or '2027-02-12 18:00'.") from None


def mismatches(marks: Marks, tree: Tree, papers: Sequence[Paper], course: Course) -> list[Problem]:
    """What the marks say and the repository does not bear out (MRK-009, MRK-011), and marks owed (MRK-013)."""
    found: list[Problem] = []
    by_name = {p.name: p for p in papers}

    def problem(at: Path_, number: str, message: str) -> None:
        found.append(Problem(MARKS, tree.line(at), f"MRK-{number}", message))

    for i, mark in enumerate(marks.marks):
        if not course.includes(mark.paper):
            problem(("marks", i, "paper"), "009", f"'{mark.paper}' is not in the course (not_in_course); delete this.")
            continue
        if (paper := by_name.get(mark.paper)) is None:
            problem(("marks", i, "paper"), "009", f"there is no project '{mark.paper}'.{nearest(mark.paper, by_name)}")
            continue
        came = [a.commit for a in paper.story.versions[mark.version]]
        if not came:
            message = f"{mark.version} of '{mark.paper}' is not in the history by then; delete the mark."
            problem(("marks", i), "011", message)
        elif mark.commit is not None and mark.commit not in came:
            message = f"no change of {mark.version} of '{mark.paper}' came with {mark.commit[:10]}; one of these did: "
            problem(("marks", i, "commit"), "011", message + f"{', '.join(c[:10] for c in came[-8:])}.")
        own = list(paper.decision.findings) if paper.decision else []
        for name in mark.new:
            if name not in own:
                message = f"the decision on '{mark.paper}' has no finding {name}."
                problem(("marks", i, "new"), "009", message + nearest(name, own))
    for i, note in enumerate(marks.reviews):
        reviewers = [*by_name[note.paper].story.reviews] if note.paper in by_name else []
        if key_of(note.reviewer) not in map(key_of, reviewers):
            message = f"there is no review of '{note.paper}' by '{note.reviewer}'.{nearest(note.reviewer, reviewers)}"
            problem(("reviews", i), "009", message)
    handles = unique([p.handle for p in course.people] + [m.handle for p in papers for m in p.file.team])
    for handle in marks.authors:
        if key_of(handle) not in map(key_of, handles):
            message = f"nobody here has the handle '{handle}'.{nearest(handle, handles)}"
            problem(("authors", handle), "009", message)
    given = {(m.paper, m.version) for m in marks.marks}
    for paper in papers:
        for version in VERSIONS:
            if paper.story.versions[version] and (paper.name, version) not in given:
                message = f"{version} of '{paper.name}' is submitted and has no mark; add "
                entry = (
                    f"'- {{paper: {paper.name}, version: {version}, points: …}}', or name an earlier date (--as-of)."
                )
                problem(("marks",), "013", message + entry)
    return found


def web_address(history: History) -> str | None:
    """Where the repository's `origin` can be looked at in a browser, if it says so: https://github.com/owner/name."""
    address = (history.git("config", "--get", "remote.origin.url") or b"").decode("utf-8", "replace").strip()
    match = re.fullmatch(
        r"(?:https://(?:[^@/]*@)?|ssh://git@|git@)([A-Za-z0-9.-]+)[:/]([\w.-]+)/([\w.-]+?)(?:\.git)?/?", address, re.A
    )
    return f"https://{match[1]}/{match[2]}/{match[3]}" if match else None


# -- Numbers ----------------------------------------------------------------------------------------------------------


def show(value: Fraction | Decimal | None, places: int = 2) -> str:
    """A number to so many places, halves away from zero, without zeros that say nothing; '–' for none."""
    if value is None:
        return "–"
    exact = Fraction(value)
    unit = Fraction(1, 10**places)
    whole = int(abs(exact) / unit + Fraction(1, 2))
    text = f"{Decimal(whole) * Decimal(10) ** -places:f}".rstrip("0").rstrip(".") if places else str(whole)
    return f"-{text}" if exact < 0 and whole else text


def percent(share: Decimal) -> str:
    return f"{show(Fraction(share) * 100)} %"


# -- JSON Schema -------------------------------------------------------------------------------------------------------

SCHEMA_FILE = Path(__file__).with_name("marks.schema.json")


def json_schema() -> str:
    """The model of `marks.yaml` as JSON Schema, as text."""
    return schema_text(Marks, MARKS)


if __name__ == "__main__":
    SCHEMA_FILE.write_text(json_schema(), encoding="utf-8")
