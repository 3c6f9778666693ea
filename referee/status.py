"""`referee status`: all projects at a glance: stage, what the next one waits for, when it is due, who reviews.

It reads as little of each file as it can, so that hundreds of projects take seconds; `referee check` and `referee gate`
say whether what is there is right.
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from referee.assignment import for_anybody, is_assigned, load_assignment
from referee.checks.base import STAGES
from referee.checks.reading import Unreadable, read_text
from referee.course import Course, Deadline, DeadlineName, load_course
from referee.history import printable
from referee.project import find_project, find_root, paper_names
from referee.stages import duration, stated_stage

FINDING = re.compile(r"^### ([FE][0-9]{1,4})\b", re.MULTILINE)
ANSWER = re.compile(r"^### ([A-Za-z0-9-]{1,39}/[FE][0-9]{1,4}) · (fixed|disputed|answered)\b", re.MULTILINE)
AMENDMENT = re.compile(r"^amendments:(?:[ \t]*(?:#.*)?\n)*[ \t]*(?:-|\[\s*\{)", re.MULTILINE)
DECISION = re.compile(r"^decision:[ \t]*['\"]?(accept|revise|reject)\b", re.MULTILINE)
DUE: dict[str, DeadlineName] = {"proposed": "v1", "v1": "v2"}
"""The deadline of the next stage."""


@dataclass(frozen=True)
class Status:
    """Where a project stands.

    Attributes:
        stage: None when `project.yaml` does not say.
        reviewers: those assigned, or else those who have written, with whether they have.
        additional: those who have written although others are assigned.
        open: what the next stage waits for, in words.
        due: the next deadline; None where there is none.
        amended: whether claims were amended after they had been accepted.
    """

    paper: str
    stage: str | None
    reviewers: dict[str, bool]
    additional: tuple[str, ...]
    open: tuple[str, ...]
    due: str | None
    amended: bool = False


def status_command(options: argparse.Namespace) -> int:
    """`referee status`."""
    root = find_root()
    names = [find_project(root, name).name for name in dict.fromkeys(options.papers)] or paper_names(root)
    course = load_course(root)
    assignment = load_assignment(root)
    now = datetime.now(UTC)
    found = [status(root, name, course, assignment, now) for name in names]
    if options.format == "json":
        print(json.dumps([asdict(s) for s in found], indent=1))
    else:
        print_table(course, found, now)
    return 0


def status(root: Path, paper: str, course: Course, assignment: Mapping[str, Sequence[str]], now: datetime) -> Status:
    """Where a project stands.

    Args:
        assignment: project -> handles; empty when nothing is assigned.
    """
    try:
        text = read_text(root / "projects" / paper / "project.yaml")
    except Unreadable:
        text = ""
    stage = stated_stage(text)
    amended = AMENDMENT.search(text) is not None
    folder = root / "reviews" / paper
    texts: dict[str, str] = {}
    for path in sorted(folder.glob("*.md")) if folder.is_dir() and not folder.is_symlink() else ():
        try:
            texts[path.stem] = read_text(path)
        except Unreadable:
            continue
    response, decision = texts.pop("response", ""), texts.pop("decision", "")
    wrote = {h.lower(): h for h in texts if h.lower() != "readme"}
    additional = tuple(h for h in wrote.values() if not is_assigned(assignment, paper, h))
    whose = wrote.values() if for_anybody(assignment, paper) else assignment.get(paper, ())
    reviewers = {h: h.lower() in wrote for h in whose}
    waits: list[str] = []
    if stage not in STAGES:
        waits.append("a stage in project.yaml")
    elif stage == "proposed":
        waits.append("version 1")
    elif stage == "v1":
        written, needed = sum(reviewers.values()), course.reviewers_per_project
        if written < needed:
            waits.append(f"reviews: {written} of {needed}")
        findings = {f"{h}/{f}" for h, text in texts.items() for f in FINDING.findall(text)}
        answered = {key for key, _ in ANSWER.findall(response)}
        if left := len(findings - answered):
            waits.append(f"answers: {left} of {len(findings)} findings")
        if not waits:
            waits.append("version 2")
    elif stage == "v2":
        said = DECISION.search(decision)
        waits.append(
            {"accept": "to be published", "revise": "a revision", "reject": "nothing: rejected"}[said[1]]
            if said
            else "a decision"
        )
    due = next_deadline(course, stage, reviewers, now) if course.includes(paper) else None
    return Status(paper, stage if stage in STAGES else None, reviewers, additional, tuple(waits), due, amended)


def next_deadline(course: Course, stage: str | None, reviewers: dict[str, bool], now: datetime) -> str | None:
    """'v1 by 2027-01-15 23:59 CET (in 12 days)': of the reviews while they are awaited, else of the next stage."""
    first = awaited(course, stage, reviewers)
    if first is None:
        return None
    left = first.moment - now
    return (
        f"{first.name} by {first} ({f'in {duration(left)}' if left.total_seconds() >= 0 else f'{duration(left)} ago'})"
    )


def awaited(course: Course, stage: str | None, reviewers: Mapping[str, bool]) -> Deadline | None:
    """The deadline that comes next for a project; None where there is none."""
    waiting: list[DeadlineName] = []
    if stage == "v1" and sum(reviewers.values()) < course.reviewers_per_project:
        waiting.append("reviews")
    if stage in DUE:
        waiting.append(DUE[stage])
    deadlines: list[Deadline] = [d for name in waiting if (d := course.deadline(name)) is not None]
    return deadlines[0] if deadlines else None


def print_table(course: Course, found: list[Status], now: datetime) -> None:
    """For a terminal of 80 columns: one line a project, counts below."""
    from rich.text import Text

    from referee.show import AMENDED, console, plain_table

    out = console()
    table = plain_table()
    for column in ("project", "stage", "waits for", "due", "reviewers"):
        table.add_column(column, overflow="fold")
    for s in found:
        names = [f"{'✓' if written else '·'} {printable(h, 40)}" for h, written in s.reviewers.items()]
        names += [f"+ {printable(h, 40)}" for h in s.additional]
        cells = (
            f"{s.paper} {AMENDED}" if s.amended else s.paper,
            s.stage or "?",
            "; ".join(s.open),
            s.due or "",
            ", ".join(names),
        )
        table.add_row(*(Text(cell) for cell in cells))
    out.print()
    out.print(Text(f"{course.name} · {now:%Y-%m-%d %H:%M} UTC", style="dim"))
    out.print()
    out.print(table if found else "There is no project yet.")
    if outside := [s.paper for s in found if not course.includes(s.paper)]:
        out.print()
        out.print(Text(f"Not in the course: {', '.join(outside)}", style="dim"))
    if any(s.amended for s in found):
        out.print()
        said = (
            f"{AMENDED} claims were amended after they had been accepted: 'referee verdicts <paper>' says when and why"
        )
        out.print(Text(said, style="dim"))
    if any(s.reviewers or s.additional for s in found):
        out.print()
        said = "✓ written, · not yet, + additional; whether a review is in order: 'referee review check <paper>'"
        out.print(Text(said, style="dim"))
    counts = [f"{n} {stage}" for stage in STAGES if (n := sum(s.stage == stage for s in found))]
    out.print()
    out.print(Text(", ".join(counts) or "no stages", style="bold"))
