"""The stages of a project and the changes between them: what a change is, whether it may be made, what it requires.

    proposed ──▶ v1 ──▶ v2 ──▶ published        one step at a time, never back

All of it is decided from files and history: a change is what differs between the merge base and a commit. Files of the
base are trusted (who is of the team, who is an editor, what was amended before), files of the change are not.

Claims freeze when the proposal is accepted, which is the commit of the base branch that brings the project. From then
on a claim is added, changed or removed only together with a dated entry in `amendments`, and such an entry stays. What
a claim *says* is frozen; where it was found (`source`, `certainty`, `note`) may be put right at any time.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from referee.assignment import ASSIGNMENT, AssignmentFile, assignment_at, for_anybody, is_assigned
from referee.checks.base import STAGES, Finding
from referee.course import FILE as COURSE
from referee.course import ROLLING, Course, DeadlineName, Lateness, look_alikes, not_expertise, not_projects, show_time
from referee.documents import DocumentError, Tree, parse_yaml
from referee.history import Commit, Counted, Event, History, HistoryError, printable, when
from referee.project import PAPER_NAME

PROVENANCE = frozenset({"source", "certainty", "note"})
"""Fields of a claim that say where it was found, not what it says."""

Kind = Literal[
    "new", "step", "edit", "withdrawal", "review", "response", "decision", "course", "assignment", "other"
]  # fmt: skip


# -- What a project.yaml declares --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Declared:
    """What a `project.yaml` says of stage, team and claims, as far as it can be read: it may be of another time, whose
    rules differed, or wrong in ways that the checks of `project.yaml` name."""

    stage: str | None
    team: frozenset[str]  # handles in small letters
    claims: Mapping[str, Mapping[str, Any]]  # id -> what it says
    amendments: tuple[Mapping[str, Any], ...]
    line: Callable[[tuple[str | int, ...]], int] = field(default=lambda _: 1, compare=False)


def declared(text: str) -> Declared:
    """Read the text of a `project.yaml`; never fails."""
    tree = Tree("project.yaml", "PRJ")
    try:
        data = tree.value(tree.compose(text), ())
    except DocumentError:
        data = None
    if not isinstance(data, dict):
        return Declared(stated_stage(text), stated_team(text), {}, ())
    stage = data.get("stage")
    handles = [m.get("handle") for m in _entries(data, "team")]
    claims = {c["id"]: _said(c) for c in _entries(data, "claims") if isinstance(c.get("id"), str)}
    return Declared(
        stage if isinstance(stage, str) else None,
        frozenset(h.lower() for h in handles if isinstance(h, str)),
        claims,
        tuple(_entries(data, "amendments")),
        tree.line,
    )


def stated_stage(text: str) -> str | None:
    """The stage alone, without reading the rest of the file, which may be wrong: far faster. A file in braces, like
    JSON, is read whole."""
    stage = re.search(r"^(['\"]?)stage\1[ \t]*:[ \t]*['\"]?(\w+)", text, re.MULTILINE)
    if stage or not text.lstrip().startswith("{"):
        return stage[2] if stage else None
    tree = Tree("project.yaml", "PRJ")
    try:
        data = tree.value(tree.compose(text), ())
    except DocumentError:
        return None
    said = data.get("stage") if isinstance(data, dict) else None
    return said if isinstance(said, str) else None


def stated_team(text: str) -> frozenset[str]:
    """The team's handles alone, in small letters, without reading the claims."""
    block = re.search(r"^team:.*(?:\n(?:[ \t\]}-].*)?)*", text, re.MULTILINE)
    tree = Tree("project.yaml", "PRJ")
    try:
        data = tree.value(tree.compose(block[0]), ()) if block else None
    except DocumentError:
        data = None
    team = [m.get("handle") for m in _entries(data, "team")] if isinstance(data, dict) else []
    return frozenset(h.lower() for h in team if isinstance(h, str))


def _entries(data: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = data.get(name)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _said(claim: Mapping[str, Any]) -> dict[str, Any]:
    """What a claim says: its fields with their defaults, numbers by value."""
    fields = {k: v for k, v in claim.items() if k not in PROVENANCE and v is not None}
    if claim.get("kind") != "figure":
        fields = {"unit": "nats", "split": "test", **fields}
    return {k: Decimal(v) if isinstance(v, int) and not isinstance(v, bool) else v for k, v in fields.items()}


# -- Frozen claims and their amendments --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Freeze:
    """The acceptance of a proposal."""

    commit: Commit
    declared: Declared


def freeze(history: History, paper: str, branch: str) -> Freeze | None:
    """The commit by which a branch got a project, and the claims in it; None if it has not got it.

    A project that was withdrawn and proposed again counts from the second time.

    Raises:
        HistoryError: the beginning of the branch was not fetched.
    """
    path = f"projects/{paper}/project.yaml"
    arrived: tuple[Commit, str] | None = None
    for commit, there in history.of_path(path, branch):
        if not there:
            arrived = None
        elif arrived is None and (text := history.text(commit.sha, path)) is not None:
            arrived = commit, text
    return Freeze(arrived[0], declared(arrived[1])) if arrived else None


Amiss = tuple[str, int, str]  # rule, line of project.yaml, message

_CHANGES = ("added", "changed", "removed")


def amiss(
    frozen: Declared, accepted: datetime, present: Declared, today: datetime, base: Declared | None = None
) -> Iterator[Amiss]:
    """What is wrong between the frozen claims, the amendments, and the claims as they are.

    Args:
        frozen: as the proposal was accepted.
        accepted: when that was.
        present: as it is now.
        today: now.
        base: as it is where the change at hand begins, when there is a change.
    """
    entries = [(i, e) for i, e in enumerate(present.amendments) if _sound(e)]
    kept = len(base.amendments) if base else 0
    if base is not None and present.amendments[:kept] != base.amendments:
        gone = next(i for i, e in enumerate(base.amendments) if present.amendments[i : i + 1] != (e,))
        claim = printable(str(base.amendments[gone].get("claim")), 64)
        message = f"the amendment of '{claim}' was changed or taken away; what is amended stays on record. Put it back."
        yield "STG-008", present.line(("amendments",)), message
        kept = 0
    yield from _dates(entries, present, accepted, today)
    yield from _walk(entries, frozen, present)
    changed = _unamended(frozen, present, {(e["claim"], e["change"]) for _, e in entries}, accepted)
    if base is not None:  # what was amended before does not cover a further change
        fresh = {(e["claim"], e["change"]) for i, e in entries if i >= kept}
        changed = {**_unamended(base, present, fresh, accepted), **changed}
    for _, found in sorted(changed.items()):
        yield found


def claims_amiss(history: History, paper: str, base: str, present: Declared, now: datetime) -> list[Amiss]:
    """The same for a project of a repository; nothing while its proposal is not accepted.

    Args:
        base: a commit of the branch that accepts proposals, where the change at hand begins.

    Raises:
        HistoryError: the beginning of the branch was not fetched.
    """
    frozen = freeze(history, paper, base)
    if frozen is None:
        return []
    text = history.text(base, f"projects/{paper}/project.yaml")
    before = declared(text) if text is not None else None
    return list(amiss(frozen.declared, frozen.commit.moment or now, present, now, before))


def _sound(entry: Mapping[str, Any]) -> bool:
    """Whether an amendment has its form; if not, the rules of project.yaml say so."""
    claim, change, day = entry.get("claim"), entry.get("change"), entry.get("date")
    if not isinstance(claim, str) or change not in _CHANGES or not isinstance(day, str):
        return False
    try:
        date.fromisoformat(day)
    except ValueError:
        return False
    return True


def _dates(
    entries: list[tuple[int, Mapping[str, Any]]], present: Declared, accepted: datetime, today: datetime
) -> Iterator[Amiss]:
    # A date has no zone: it is right if it is right somewhere on earth, from 12 hours behind UTC to 14 ahead.
    first = (accepted.astimezone(UTC) - timedelta(hours=12)).date()
    last = (today.astimezone(UTC) + timedelta(hours=14)).date()
    latest = date.min
    for i, entry in entries:
        day = date.fromisoformat(entry["date"])
        where = f"amendment of '{entry['claim']}': "
        line = present.line(("amendments", i, "date"))
        if day > last:
            yield "STG-007", line, f"{where}{day} is in the future; write the day on which it is made."
        elif day < first:
            message = (
                f"{day} is before the claims were frozen (accepted {accepted:%Y-%m-%d}); write the day it is made."
            )
            yield "STG-007", line, where + message
        elif day < latest:
            yield "STG-007", line, f"{where}{day} stands after {latest}; amendments are listed as they were made."
        latest = max(latest, day)


def _walk(entries: list[tuple[int, Mapping[str, Any]]], frozen: Declared, present: Declared) -> Iterator[Amiss]:
    """Follow each claim from the acceptance through its amendments to the present."""
    by_claim: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for i, entry in entries:
        by_claim.setdefault(entry["claim"], []).append((i, entry))
    for claim, made in by_claim.items():
        there = claim in frozen.claims
        was_removed = False
        seen: set[tuple[str, str]] = set()
        for i, entry in made:
            line = present.line(("amendments", i))
            change = entry["change"]
            where = f"amendment of '{claim}': "
            if (change, entry["date"]) in seen:
                yield "STG-008", line, f"{where}stands twice; delete one."
            elif change == "added" and was_removed:
                message = "removed, and then added again: circular. Write one entry 'changed', or give it a new id."
                yield "STG-008", line, where + message
            elif (change == "added") == there:
                message = "was there already; it is 'changed' or 'removed'" if there else "was not there; it is 'added'"
                yield "STG-008", line, f"{where}the claim {message}."
            seen.add((change, entry["date"]))
            there, was_removed = change != "removed", was_removed or change == "removed"
        line = present.line(("amendments", made[-1][0]))
        changes = [entry["change"] for _, entry in made]
        if there and claim not in present.claims:
            yield "STG-008", line, f"amendment of '{claim}': no claim has this id. Correct the id, or write 'removed'."
        elif not there and claim in present.claims:
            yield "STG-008", line, f"amendment of '{claim}': says removed, but the claim stands. Remove one of the two."
        elif changes == ["changed"] and frozen.claims.get(claim) == present.claims.get(claim) and there:
            yield "STG-008", line, f"amendment of '{claim}': nothing of the claim has changed. Delete the entry."


def _unamended(
    before: Declared, present: Declared, amended: set[tuple[str, str]], accepted: datetime
) -> dict[str, Amiss]:
    """Claims that differ from an earlier state without an amendment that says so, by id."""
    found: dict[str, Amiss] = {}
    places = {claim: i for i, claim in enumerate(present.claims)}
    for claim in sorted(before.claims.keys() | present.claims.keys()):
        old, new = before.claims.get(claim), present.claims.get(claim)
        if old == new:
            continue
        change = "added" if old is None else "removed" if new is None else "changed"
        if (claim, change) in amended:
            continue
        line = present.line(("claims", places[claim])) if new is not None else present.line(("claims",))
        what = ""
        if old is not None and new is not None:
            fields = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
            what = f" ({', '.join(printable(f, 40) for f in fields)})"
        message = (
            f"claim '{printable(claim, 64)}' was {change}{what} after the claims were frozen "
            f"(accepted {accepted:%Y-%m-%d}). Take it back, or add to 'amendments': "
            f"{{claim: {printable(claim, 64)}, date: …, change: {change}, reason: …}}."
        )
        found[claim] = "STG-006", line, message
    return found


# -- What a change is --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """One thing that a set of commits does."""

    kind: Kind
    paper: str | None
    paths: tuple[str, ...]
    before: Declared | None = None
    after: Declared | None = None

    @property
    def step(self) -> tuple[str | None, str | None]:
        """The stage before and after."""
        return (self.before.stage if self.before else None, self.after.stage if self.after else None)

    @property
    def reviewer(self) -> str:
        """The handle of a review's file, whatever that is."""
        return self.paths[0].rpartition("/")[2].removesuffix(".md")

    def __str__(self) -> str:
        files = f"{len(self.paths)} file{'s' if len(self.paths) != 1 else ''}"
        old, new = (printable(s or "no stage", 20) for s in self.step)
        return {
            "new": f"a new project at stage {new}, {files}",
            "step": f"{old} → {new}, {files}",
            "edit": f"edited at stage {old}, {files}",
            "withdrawal": f"withdrawn at stage {old}, {files}",
            "review": f"review by {printable(self.reviewer, 60)}",
            "response": "the team's response",
            "decision": "the editor's decision",
            "course": "the course: dates, people, limits",
            "assignment": "who reviews what",
            "other": f"{files} outside of projects and reviews",
        }[self.kind]

    @property
    def deadline(self) -> DeadlineName | None:
        """The deadline by which such a change is due; None where there is none.

        What stands at v1 is under review: after its deadline it changes only as version 2, and so on. An accepted
        proposal is being worked at, and what is published may be corrected: neither has one.
        """
        _, new = self.step
        if self.kind == "new":
            return "proposed"
        if self.kind in ("step", "edit"):
            return "v1" if new == "v1" else "v2" if new == "v2" else None
        return "reviews" if self.kind == "review" else "v2" if self.kind == "response" else None


def changes(history: History, base: str, head: str) -> list[Change]:
    """What the commits between two commits do, a project at a time."""
    by_paper: dict[str, list[str]] = {}
    found: list[Change] = []
    other: list[str] = []
    for changed in history.changes(base, head):
        path = changed.path
        match = re.match(r"(projects|reviews)/([^/]+)(/|$)", path)  # a link may stand in a folder's place
        if match and PAPER_NAME.fullmatch(match[2]):
            if match[1] == "projects":
                by_paper.setdefault(match[2], []).append(path)
            else:
                name = path.rpartition("/")[2]
                kind: Kind = "response" if name == "response.md" else "decision" if name == "decision.md" else "review"
                found.append(Change(kind, match[2], (path,)))
        elif path in (COURSE, ASSIGNMENT):
            found.append(Change("course" if path == COURSE else "assignment", None, (path,)))
        else:
            other.append(path)
    for paper, paths in by_paper.items():
        file = f"projects/{paper}/project.yaml"
        before, after = (
            declared(text) if (text := history.text(commit, file)) is not None else None for commit in (base, head)
        )
        step: Kind = "edit"
        if before is None:
            step = "new"
        elif after is None:
            step = "withdrawal"
        elif before.stage != after.stage:
            step = "step"
        found.append(Change(step, paper, tuple(paths), before, after))
    order = ["new", "step", "edit", "withdrawal", "review", "response", "decision", "course", "assignment"]
    found.sort(key=lambda c: (c.paper or "~", order.index(c.kind), c.paths))
    return [*found, *([Change("other", None, tuple(other))] if other else [])]


# -- Whether it may be made --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judgement:
    """A change with its deadline and what it requires, in words."""

    change: Change
    until: str | None  # a deadline and how it was met
    requires: tuple[str, ...]


@dataclass(frozen=True)
class Gate:
    """What a set of commits does, and whether it may pass.

    Attributes:
        root: the working tree, which is at `head`.
        base, head: the commits, by id.
        course: as it is at the base.
        counted: when the commits count.
        actor: whose change it is; None if nobody said.
        now: the time.
        event: what the forge says.
    """

    history: History
    base: str
    head: str
    course: Course
    counted: Counted
    actor: str | None
    now: datetime
    event: Event | None = None

    @cached_property
    def changes(self) -> list[Change]:
        return changes(self.history, self.base, self.head)

    @cached_property
    def by_editor(self) -> bool:
        """Whether the change is an editor's."""
        return self.actor is not None and self.course.has_role(self.actor, "editor")

    @cached_property
    def assignment(self) -> dict[str, tuple[str, ...]]:
        """Who reviews what, as it is at the base."""
        try:
            return assignment_at(self.history, self.base)
        except DocumentError as error:
            raise HistoryError(
                f"{ASSIGNMENT} cannot be used; an editor mends it on the base branch:\n{error}"
            ) from None

    @cached_property
    def judged(self) -> list[Judgement]:
        """Each change with its deadline and what it requires."""
        return [Judgement(c, self._until(c), tuple(self._requires(c))) for c in self.changes]

    def lateness(self, change: Change) -> Lateness | None:
        """How a change stands to its deadline; None if none binds it."""
        if change.deadline is None or self.by_editor or not self._of_course(change):
            return None
        if change.deadline == "v2" and self._decision(change.paper or "", self.base) == "revise":
            return None
        return self.course.lateness(change.deadline, self.counted.moment)

    def _of_course(self, change: Change) -> bool:
        return change.paper is None or self.course.includes(change.paper)

    def _until(self, change: Change) -> str | None:
        if not self._of_course(change):
            return "not in the course: no deadline"
        if change.deadline is None or (deadline := self.course.deadline(change.deadline)) is None:
            return None
        if (late := self.lateness(change)) is None:
            return f"due {deadline}; does not bind {'an editor' if self.by_editor else 'what is to be revised'}"
        return f"due {deadline}: {'in time' if late.by <= timedelta(0) else f'{duration(late.by)} late'}"

    def _requires(self, change: Change) -> Iterator[str]:
        old, new = change.step
        if change.kind in ("new", "step", "edit") and new in STAGES:
            yield f"checks of stage {new}: referee check {change.paper} --stage {new}"
        if change.kind == "step" and new == "v2":
            n = self.course.reviewers_per_project
            yield f"{n} review{'s' if n != 1 else ''}, and an answer to every finding"
        if change.kind == "step" and new == "published":
            yield "the editor's decision 'accept'"
        if change.kind in ("step", "edit") and old in STAGES:
            yield "the claims of the proposal, or a dated amendment"

    # -- Findings ------------------------------------------------------------------------------------------------------

    @cached_property
    def findings(self) -> list[Finding]:
        """All that stands in the way, and what a person should know."""
        found = [*self._clocks(), *self._rewritten()]
        for change in self.changes:
            found += [*self._steps(change), *self._in_time(change), *self._who(change), *self._content(change)]
        rank = {"error": 0, "warning": 1, "note": 2}
        return sorted(set(found), key=lambda f: (rank[f.severity], f.rule, f.file, f.line, f.message))

    @property
    def open(self) -> bool:
        return not any(f.severity == "error" for f in self.findings)

    def _clocks(self) -> Iterator[Finding]:
        for wrong in self.counted.wrong:
            yield Finding("STG-010", "error", ".", 1, wrong)

    def _rewritten(self) -> Iterator[Finding]:
        if self.event is not None and self.event.rewritten is not None:
            message = f"a forced push took {self.event.rewritten[:10]} off the branch; push that commit again."
            yield Finding("STG-009", "error", ".", 1, message)
        for paper in sorted({c.paper for c in self.changes if c.paper}):
            yield from (
                Finding("STG-009", "error", file, line, message)
                for file, line, message in lost_commits(self.history, paper, self.head)
            )

    def _steps(self, change: Change) -> Iterator[Finding]:
        file = f"projects/{change.paper}/project.yaml"
        old, new = change.step
        line = change.after.line(("stage",)) if change.after else 1
        where = new if new in STAGES else None
        if change.kind == "new":
            if change.after is None:
                yield Finding("STG-001", "error", file, 1, "is missing; a project begins with a proposal in this file.")
            elif new != "proposed":
                message = f"a new project begins at stage proposed, not {printable(str(new), 20)}; propose it first."
                yield Finding("STG-001", "error", file, line, message)
        elif change.kind == "step":
            if where is None or old not in STAGES:
                message = f"from {printable(str(old), 20)} to {printable(str(new), 20)}: a stage is one of "
                yield Finding("STG-001", "error", file, line, f"{message}{', '.join(STAGES)}.")
            elif (steps := STAGES.index(where) - [*STAGES].index(old)) != 1:
                said = "goes back" if steps < 0 else "skips a stage"
                following = [*STAGES, None][[*STAGES].index(old) + 1]
                remedy = f"Its next stage is {following}." if following else "It has no next stage."
                yield Finding("STG-001", "error", file, line, f"from {old} to {new} {said}. {remedy}")
        elif change.kind == "withdrawal" and old != "proposed":
            message = f"a project at stage {printable(str(old), 20)} stays on record; put its files back."
            yield Finding("STG-012", "error", file, 1, message)

    def _in_time(self, change: Change) -> Iterator[Finding]:
        if (late := self.lateness(change)) is None or late.by <= timedelta(0):
            return
        deadline, file = late.deadline, _file(change)
        counts = f"It counts from {self.local(self.counted.moment)}, {self.counted.how}."
        was = f"{duration(late.by)} after the deadline ({deadline.name}: {deadline})"
        if not late.refused:
            off = f"{self.course.late.penalty * 100:f}".rstrip("0").rstrip(".")
            message = f"comes {was}: accepted with {off} % off. {counts} To avoid it, leave the change for later."
            yield Finding("STG-002", "warning", file, 1, message)
        else:
            until = self.local(late.until)
            following = {"v1": " What is new goes into version 2.", "v2": " Only an editor can change that now."}
            remedy = following.get(deadline.name, " Ask the editor.") if change.kind == "edit" else " Ask the editor."
            yield Finding(
                "STG-003", "error", file, 1, f"comes {was}; late work was taken until {until}. {counts}{remedy}"
            )

    def local(self, moment: datetime) -> str:
        """A moment by the course's clock."""
        return show_time(moment.astimezone(ZoneInfo(self.course.timezone)))

    def _who(self, change: Change) -> Iterator[Finding]:
        """Whether this person may make the change, by the base's files: nobody makes themselves a member or editor."""
        if self.actor is None:
            return
        actor, name = self.actor.lower(), printable(self.actor, 60)
        file = _file(change)
        if change.kind == "review":  # also against an editor
            if change.reviewer.lower() != actor:
                message = f"is {printable(change.reviewer, 40)}'s review, changed by '{name}'; take the change back."
                yield Finding("REV-034", "error", file, 1, message)
        elif change.kind == "response":
            text = self.history.text(self.base, f"projects/{change.paper}/project.yaml")
            if text is None or actor not in stated_team(text):
                message = f"'{name}' is not of the team; only the team answers its reviews. Take the change back."
                yield Finding("REV-034", "error", file, 1, message)
        elif self.by_editor:
            return
        elif change.kind in ("course", "assignment", "decision"):
            if any("editor" in p.roles for p in self.course.people):
                editors = ", ".join(printable(p.handle, 40) for p in self.course.people if "editor" in p.roles)
                message = f"'{name}' is no editor in {COURSE} ({editors}); only an editor changes this. Take it back."
                if change.kind == "course":
                    message += " A course that begins: CONTRIBUTING.md, As an editor."
                yield Finding("STG-011", "error", file, 1, message)
        elif (owner := change.before or change.after) is not None and actor not in owner.team:
            team = ", ".join(sorted(printable(h, 40) for h in owner.team)) or "nobody"
            message = f"'{name}' is not of the team ({team}); only the team or an editor changes a project."
            yield Finding("STG-011", "error", file, 1, message)

    def _content(self, change: Change) -> Iterator[Finding]:
        if change.kind == "other":
            some = ", ".join(printable(p, 60) for p in change.paths[:3])
            more = f" and {len(change.paths) - 3} more" if len(change.paths) > 3 else ""
            message = f"{some}{more}: outside of projects and reviews. Propose it by itself; a maintainer looks at it."
            mixed = len(self.changes) > 1  # with a submission, of which such a change is no part
            yield Finding("STG-013", "warning" if mixed else "note", _file(change), 1, message)
        elif change.kind == "course":
            yield from self._readable(COURSE, Course)
        elif change.kind == "assignment":
            yield from self._readable(ASSIGNMENT, AssignmentFile)
        elif change.paper is not None and change.kind in ("review", "response", "decision"):
            if self.history.text(self.head, f"projects/{change.paper}/project.yaml") is None:
                message = f"there is no project '{change.paper}'; name the folder as the project's."
                yield Finding("STG-004", "error", _file(change), 1, message)
            elif change.kind == "review":
                yield from self._reviewable(change)
        if change.kind in ("step", "edit") and change.before is not None and change.after is not None:
            yield from self._claims(change, change.after)
            if change.kind == "step" and change.after.stage == "v2":
                yield from self._reviewed(change)
            if change.kind == "step" and change.after.stage == "published":
                yield from self._accepted(change)

    def _readable(self, path: str, model: type[Course] | type[AssignmentFile]) -> Iterator[Finding]:
        text = self.history.text(self.head, path)
        if text is None:
            yield Finding("STG-012", "error", path, 1, "was taken away, or is no plain text; put it back.")
            return
        trees: list[Tree] = []
        try:
            read: Course | AssignmentFile = parse_yaml(
                text, model, rules="CRS", shown=path, also=lambda _, tree: trees.append(tree)
            )
        except DocumentError as error:
            for p in error.problems:
                yield Finding(p.rule, "error", p.file, p.line, printable(p.message, 1000))
            return
        for i, message in look_alikes(read) if isinstance(read, Course) else ():
            yield Finding("CRS-014", "warning", path, trees[0].line(("people", i, "handle")), message)
        if isinstance(read, Course):
            papers = self.history.names(self.head, "projects")
            for i, message in not_projects(read, papers):
                yield Finding("CRS-015", "warning", path, trees[0].line(("not_in_course", i)), message)
            for i, message in not_expertise(read, papers):
                yield Finding("CRS-016", "warning", path, trees[0].line(("people", i, "expertise")), message)

    def _claims(self, change: Change, after: Declared) -> Iterator[Finding]:
        for rule, line, message in claims_amiss(self.history, change.paper or "", self.base, after, self.now):
            yield Finding(rule, "error", _file(change), line, message)

    def _reviewable(self, change: Change) -> Iterator[Finding]:
        """A review is of a project that stands at v1, or at v2 in a further round."""
        if self.history.text(self.head, change.paths[0]) is None:
            yield Finding("STG-012", "error", _file(change), 1, "a review stays on record; put it back.")
            return
        text = self.history.text(self.base, f"projects/{change.paper}/project.yaml")
        stage = declared(text).stage if text is not None else None
        if stage not in ("v1", "v2"):
            message = f"'{change.paper}' stands at stage {stage or 'none'} and is not under review; wait for its v1."
            yield Finding("STG-004", "error", _file(change), 1, message)
        elif not is_assigned(self.assignment, change.paper or "", change.reviewer):
            message = additional(self.assignment, change.paper or "", change.reviewer)
            yield Finding("REV-036", "warning", _file(change), 1, message)

    def _reviewed(self, change: Change) -> Iterator[Finding]:
        names = self.history.names(self.head, f"reviews/{change.paper}")
        reviewers = sorted(n for n in names if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*\.md", n))
        reviewers = [n for n in reviewers if n.lower() not in ("response.md", "decision.md", "readme.md")]
        line = change.after.line(("stage",)) if change.after else 1
        handles = [n.removesuffix(".md") for n in reviewers]
        if message := too_few(self.course, self.assignment, change.paper or "", handles):
            yield Finding("STG-004", "error", f"projects/{change.paper}/project.yaml", line, message)

    def _accepted(self, change: Change) -> Iterator[Finding]:
        decision = self._decision(change.paper or "", self.head)
        if decision != "accept":
            stated = f"is '{decision}'" if decision else "is not there, or cannot be read"
            line = change.after.line(("stage",)) if change.after else 1
            message = (
                f"published needs the editor's decision 'accept' in reviews/{change.paper}/decision.md, which {stated}."
            )
            yield Finding("STG-005", "error", f"projects/{change.paper}/project.yaml", line, message)

    def _decision(self, paper: str, commit: str) -> str | None:
        """What the editor decided, as a commit has it; None if there is nothing that can be read."""
        from referee.reviews import parse_decision

        path = f"reviews/{paper}/decision.md"
        try:
            text = self.history.text(commit, path)
            return parse_decision(text, path).head.decision if text is not None else None
        except DocumentError:
            return None


def _file(change: Change) -> str:
    """The file that findings about a change are shown at."""
    if change.kind in ("new", "step", "edit", "withdrawal"):
        return f"projects/{change.paper}/project.yaml"
    return printable(change.paths[0], 200)


def too_few(course: Course, assignment: Mapping[str, Sequence[str]], paper: str, written: Iterable[str]) -> str | None:
    """What to say when a paper has not got the reviews that version 2 needs; None when it has.

    Args:
        written: the handles of those who have reviewed it.
    """
    handles = list(written)
    there = [h for h in handles if is_assigned(assignment, paper, h)]
    needed, more = course.reviewers_per_project, len(handles) - len(there)
    if len(there) >= needed:
        return None
    message = f"version 2 needs {needed} reviews; there {'is' if len(there) == 1 else 'are'} {len(there)}"
    if for_anybody(assignment, paper):
        return f"{message} in reviews/{paper}/. Wait for the others, or ask the editor."
    if not (whose := assignment.get(paper)):
        return f"{message} that count: nobody is assigned to '{paper}' ({ASSIGNMENT}). Ask the editor to assign it."
    message += f" by those assigned ({', '.join(whose)})"
    message += f", and {more} more that do{'es' if more == 1 else ''} not count" if more else ""
    return f"{message}. Wait for them, or ask the editor to assign others."


def additional(assignment: Mapping[str, Sequence[str]], paper: str, handle: str) -> str:
    """What to say of a review by somebody whom it was not assigned to."""
    whose = ", ".join(assignment.get(paper, ())) or "nobody"
    return (
        f"'{printable(handle, 40)}' is not assigned to '{paper}' ({ASSIGNMENT}: {whose}): an additional review. "
        "Its findings are answered like others; it does not count towards those that open version 2, nor for grades."
    )


def lost_commits(history: History, paper: str, head: str) -> Iterator[tuple[str, int, str]]:
    """Reviews whose reviewed commit is not part of the history any more: file, line, message."""
    folder = f"reviews/{paper}"
    for name in history.names(head, folder):
        if not name.endswith(".md") or (text := history.text(head, f"{folder}/{name}")) is None:
            continue
        match = re.search(r"\A---\n(?:(?!---).*\n)*?commit:[ \t]*['\"]?([0-9a-f]{40})\b", text)
        if match is None:
            continue
        line = text[: match.start(1)].count("\n") + 1
        sha = match[1]
        shown = f"{folder}/{printable(name, 80)}"
        if not history.has(sha):
            hint = (
                "it was not fetched: git fetch --unshallow."
                if history.shallow
                else "was the history edited? Restore it."
            )
            yield shown, line, f"the reviewed commit {sha[:10]} is gone; {hint}"
        elif not history.is_ancestor(sha, head):
            yield shown, line, f"the reviewed commit {sha[:10]} does not lead to this one; was the history edited?"


def course_at(history: History, commit: str) -> Course:
    """The course as it is at a commit; a rolling one where there is none, or none that can be read."""
    text = history.text(commit, COURSE)
    if text is None:
        return ROLLING
    try:
        return parse_yaml(text, Course, rules="CRS", shown=COURSE)
    except DocumentError as error:
        message = f"{COURSE} at {commit[:10]} cannot be used; an editor mends it on the base branch:\n{error}"
        raise HistoryError(message) from None


def open_gate(root: Path, base: str, event: Event | None, actor: str | None, now: datetime | None = None) -> Gate:
    """The gate for what is committed here since the merge base with `base`.

    Raises:
        UsageError: the base is unknown, or the event is about another commit.
        HistoryError: there is no common history, or too little of it was fetched.
    """
    history = History(root)
    now = now or datetime.now(UTC)
    head = history.commit("HEAD")
    start = history.merge_base(base, head)
    counted = when(history, start, head, event, now)
    if actor is None and event is not None:
        actor = event.actor
    return Gate(history, start, head, course_at(history, start), counted, actor, now, event)


def duration(time: timedelta) -> str:
    """'3 days', '2 h 5 min', '40 s': two units at most."""
    seconds = int(abs(time).total_seconds())
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, s = divmod(rest, 60)
    parts = [(days, "day" if days == 1 else "days"), (hours, "h"), (minutes, "min"), (s, "s")]
    first = next((i for i, (n, _) in enumerate(parts) if n), 3)
    return " ".join(f"{n} {unit}" for n, unit in parts[first : first + 2] if n or first == 3)
