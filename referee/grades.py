"""Grades, written: a table, an explanation for each person, and all of it for programs, outside of the repository.

`referee.grading` computes them.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from common.errors import UserError
from common.records import write_text
from referee.course import show_time
from referee.documents import DocumentError, read_text
from referee.grading import (
    GRADED,
    MARKS,
    Grades,
    PersonGrade,
    ProjectGrade,
    ReviewGrade,
    Taken,
    compute,
    key_of,
    mean,
    show,
)
from referee.history import History, printable, read_pushes
from referee.project import HANDLE, UsageError, find_root
from referee.reviews import DECISION, Place

FORMAT = 1  # of grades.json


def grade_command(options: argparse.Namespace) -> int:
    """`referee grade`."""
    root = find_root()
    folder = private_folder(root, options.private)
    if not (folder / MARKS).exists():
        message = f"there is no {MARKS} in it, which holds the editor's marks; docs/grading.md has one to begin with."
        raise UsageError(f"--private {printable(options.private, 200)}: {message}")
    text = read_text(folder / MARKS, rules="MRK", shown=MARKS)
    grades = compute(root, text, options.as_of, read_pushes(folder))
    files = render(grades)
    write_all(folder, files)
    if options.format == "json":
        print(files["grades.json"], end="")
    else:
        _print(grades, folder)
    return 0


def _print(grades: Grades, folder: Path) -> None:
    from rich.text import Text

    from referee.show import console, plain_table

    table = plain_table()
    for column in ("handle", "grade", "project", "reviewing", "open", "look at"):
        table.add_column(column, justify="right" if column in ("grade", "project", "reviewing", "open") else "left")
    for p in grades.people:
        cells = (show(p.grade), show(p.project), show(p.reviewing), str(len(p.open) or ""), " ".join(p.look_at))
        table.add_row(*map(Text, (p.handle, *cells)))
    zone = ZoneInfo(grades.course.timezone)
    as_of = show_time(grades.as_of.astimezone(zone))
    lines = [f"{len(grades.people)} people, as of {as_of}, from the commit {grades.commit[:10]}."]
    lines.append(f"Written to {folder}: grades.csv, grades.json, and an explanation for each person.")
    passed = [d for d in grades.course.all_deadlines() if grades.as_of <= d.moment < datetime.now(UTC)]
    if passed:
        today = datetime.now(zone).date().isoformat()
        lines.append(f"The deadline {passed[-1].name} ({passed[-1]}) has passed since: --as-of {today} counts it.")
    if any(p.work.unknown for p in grades.projects):
        lines.append(f"Some who committed are nobody in {MARKS} ('authors'); grades.json lists them by project.")
    out = console()
    out.print(table)
    out.print(Text("\n" + "\n".join(lines)))


# -- What is written ---------------------------------------------------------------------------------------------------


def render(grades: Grades) -> dict[str, str]:
    """The files: name -> text. `grades.json` comes last, with the digests of the others."""
    files = {"grades.csv": _csv(grades)} | {f"{p.handle}.md": explain(grades, p) for p in grades.people}
    outputs = {name: hashlib.sha256(text.encode("utf-8")).hexdigest() for name, text in files.items()}
    return {**files, "grades.json": json.dumps({**plain(grades), "outputs": outputs}, indent=1) + "\n"}


def _csv(grades: Grades) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("handle", "grade", "project", "reviewing", "projects", "reviews", "open", "look_at"))
    for p in grades.people:
        numbers = ["" if v is None else show(v) for v in (p.grade, p.project, p.reviewing)]
        lists = (sorted(x.paper.name for x in p.projects), sorted(r.paper for r in p.reviews))
        writer.writerow((p.handle, *numbers, *map(" ".join, lists), "; ".join(p.open), " ".join(p.look_at)))
    return out.getvalue()


def plain(grades: Grades) -> dict[str, Any]:
    """All that grades were computed from and came to, for programs."""
    return {
        "format": FORMAT,
        "commit": grades.commit,
        "as_of": grades.as_of.astimezone(UTC).isoformat(),
        "inputs": dict(grades.inputs),
        "grading": json.loads(grades.course.grading.model_dump_json()),
        "late": json.loads(grades.course.late.model_dump_json()),
        "projects": [_plain_project(p) for p in grades.projects],
        "people": [
            {
                "handle": p.handle,
                "grade": _number(p.grade),
                "project": _number(p.project),
                "reviewing": _number(p.reviewing),
                "reviews": [_plain_review(r) for r in p.reviews],
                "open": list(p.open),
                "look_at": list(p.look_at),
            }
            for p in grades.people
        ],
    }


def _plain_project(project: ProjectGrade) -> dict[str, Any]:
    return {
        "paper": project.paper.name,
        "points": _number(project.points),
        "versions": [
            {
                "version": v.version,
                **_came(v.taken),
                "points": _number(v.points),
                "off": _number(v.off),
                "counts": _number(v.counts),
                "said": v.said,
            }
            for v in project.versions
        ],
        "findings": [
            {"finding": c.key, "severity": c.severity, "points": _number(c.points), "why": c.why}
            for c in project.charges
        ],
        "lines": {h: _number(n) for h, n in sorted(project.work.lines.items())},
        "commits": dict(sorted(project.work.commits.items())),
        "unknown_authors": list(project.work.unknown),
    }


def _plain_review(review: ReviewGrade) -> dict[str, Any]:
    return {
        "paper": review.paper,
        **_came(review.taken),
        "points": _number(review.points),
        "additional": review.extra,
        "said": review.said,
        "measures": {m.name: _number(m.value) for m in review.measures},
        "matches": dict(sorted(review.score.matches.items())) if review.score else {},
        "missed": list(review.missed),
    }


def _came(taken: Taken | None) -> dict[str, Any]:
    if taken is None or taken.arrival is None:
        return {"commit": None, "counted": None, "share": None}
    counted = taken.arrival.counted
    return {
        "commit": taken.arrival.commit,
        "counted": counted.moment.astimezone(UTC).isoformat(),
        "clocks": list(counted.wrong),
        "share": _number(taken.share),
    }


def _number(value: Fraction | None) -> float | None:
    return None if value is None else float(show(value, 4))


# -- Explanations ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Links:
    """Links to the repository where it can be looked at, else the same as code."""

    web: str | None

    def commit(self, sha: str) -> str:
        return f"[`{sha[:10]}`]({self.web}/commit/{sha})" if self.web else f"`{sha[:10]}`"

    def place(self, place: Place | str, sha: str) -> str:
        path = place if isinstance(place, str) else place.path
        line = "" if isinstance(place, str) or place.first is None else f"#L{place.first}"
        return f"[`{place}`]({self.web}/blob/{sha}/{path}{line})" if self.web else f"`{place}`"


def explain(grades: Grades, person: PersonGrade) -> str:
    """One person's explanation, from which the grade can be recomputed by hand."""
    links = _Links(grades.web)
    review = Fraction(grades.course.grading.review)
    as_of = show_time(grades.as_of.astimezone(ZoneInfo(grades.course.timezone)))
    lines = [f"# {person.handle}: {show(person.grade)}", ""]
    lines.append(f"As of {as_of}, from the commit {links.commit(grades.commit)}, of 100 points, by docs/grading.md.")
    lines += ["Numbers are shown rounded; computed is with exact ones.", ""]
    if person.project is not None and person.reviewing is not None:
        parts = f"{show(1 - review)} × {show(person.project)} + {show(review)} × {show(person.reviewing)}"
        lines.append(f"Grade = (1 − review) × project + review × reviewing = {parts} = **{show(person.grade)}**")
    elif person.project is not None:
        lines.append(f"Grade = project = **{show(person.grade)}**: there is no review to count.")
    elif person.reviewing is not None:
        lines.append(f"Grade = reviewing = **{show(person.grade)}**: there is no project to count.")
    else:
        lines.append("There is nothing to grade yet.")
    if person.open:
        lines += ["", "This is not final; still open:", "", *(f"- {text}" for text in person.open)]
    counted = [r.points for r in person.reviews if not r.extra]
    sums = {"Project": [p.points for p in person.projects], "Reviewing": counted}
    for name, values in sums.items():
        known = [v for v in values if v is not None]
        if len(known) > 1:
            lines += ["", f"{name} = ({' + '.join(map(show, known))}) / {len(known)} = {show(mean(known))}"]
    for project in person.projects:
        lines += ["", *_explain_project(grades, project, person.handle, links)]
    for each in person.reviews:
        lines += ["", *_explain_review(grades, each, links)]
    return "\n".join(lines) + "\n"


def _explain_project(grades: Grades, project: ProjectGrade, handle: str, links: _Links) -> Iterator[str]:
    name = project.paper.name
    yield f"## Project {name}: {show(project.points)}"
    yield ""
    yield "| version | weight | commit | points | off for findings | share left | counts | came |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for v in project.versions:
        commit = links.commit(v.taken.arrival.commit) if v.taken and v.taken.arrival else "–"
        cells = (show(v.points), show(v.off), show(v.taken.share) if v.taken else "–", show(v.counts), _cell(v.said))
        yield f"| {v.version} | {show(v.weight)} | {commit} | {' | '.join(cells)} |"
    yield ""
    known = [v for v in project.versions if v.counts is not None]
    if known:
        above = " + ".join(f"{show(v.weight)} × {show(v.counts)}" for v in known)
        below = " + ".join(show(v.weight) for v in known)
        yield "A version counts (points − off) × share left, and never less than 0."
        yield f"Project = ({above}) / ({below}) = {show(project.points)}"
    for v in project.versions:
        if v.note:
            yield f"\n{v.version}: {_cell(v.note)}"
    if project.charges:
        yield "\nThe editor's findings; each costs, unless a reviewer reported it and it was fixed:\n"
    for c in project.charges:
        decision = links.place(f"reviews/{name}/{DECISION}", grades.commit)
        places = ", ".join(links.place(place, grades.commit) for place in c.places)
        yield f"- {c.key} in {decision}: {c.severity}, {places}: {show(c.points)} off ({c.why})"
    if (mine := project.work.lines.get(key_of(handle))) is not None:
        commits = project.work.commits.get(key_of(handle), 0)
        everything = sum(project.work.lines.values(), Fraction(0))
        wrote = f"{show(mine, 0)} of {show(everything, 0)}, in {commits} commit{'s' if commits != 1 else ''}"
        yield f"\nLines you wrote, which are no part of the grade: {wrote}."


def _explain_review(grades: Grades, grade: ReviewGrade, links: _Links) -> Iterator[str]:
    yield f"## Review of {grade.paper}: {show(grade.points)}"
    yield ""
    if grade.extra:
        yield "It was assigned to others: an additional review, which is shown and counts for no grade.\n"
    path = f"reviews/{grade.paper}/{grade.reviewer}.md"
    if grade.taken is not None and grade.taken.arrival is not None:
        sha = grade.taken.arrival.commit
        yield f"{links.place(path, sha)} as of {links.commit(sha)}; {_cell(grade.taken.said)}."
    if grade.said:
        yield f"The review {grade.said}."
    if grade.note:
        yield f"\n{_cell(grade.note)}"
    if grade.score is None or grade.taken is None:
        return
    yield "\n| measure | weight | value | how |\n| --- | --- | --- | --- |"
    for m in grade.measures:
        yield f"| {m.name} | {show(m.weight)} | {show(m.value, 4)} | {_cell(m.said)} |"
    known = [m for m in grade.measures if m.value is not None and m.weight]
    if known:
        above = " + ".join(f"{show(m.weight)}·{show(m.value, 4)}" for m in known)
        below = " + ".join(show(m.weight) for m in known)
        yield f"\nReview = 100 × ({above}) / ({below}) × {show(grade.taken.share)} = {show(grade.points)}"
    yield "\n| severity | the editor's | of them found | yours | of them held | overruled |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for severity in GRADED:
        t = grade.score.tallies[severity]
        yield f"| {severity} | {t.editor} | {t.found} | {t.filed} | {t.held} | {t.refuted} |"
    if grade.score.matches:
        matched = sorted(grade.score.matches.items(), key=lambda m: int(m[0][1:]))
        yield "\nFound: " + ", ".join(f"{mine} is {theirs}" for mine, theirs in matched) + "."
    if grade.missed:
        decision = links.place(f"reviews/{grade.paper}/{DECISION}", grades.commit)
        yield f"\nMissed: {', '.join(grade.missed)} in {decision}."


def _cell(text: str) -> str:
    """Text on one line that ends no table's cell and acts nowhere."""
    return printable(" ".join(text.split()), 2000).replace("|", "\\|").replace("<", "‹")


# -- The private folder ------------------------------------------------------------------------------------------------


def private_folder(root: Path, given: str) -> Path:
    """The editor's folder, all links followed; it is neither in the repository nor in another working tree of it.

    Raises:
        UsageError: it is, or there is no such folder.
    """
    shown = printable(given)
    try:
        folder = Path(given).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        raise UsageError(f"--private {shown}: there is no such folder; make it, with {MARKS} in it.") from None
    if not folder.is_dir():
        raise UsageError(f"--private {shown} is no folder.")
    for tree in _public(root):
        for part in (folder, *folder.parents):
            if part.samefile(tree):  # by identity: another spelling, a link or a mount leads to the same place
                message = f"--private {shown} lies inside the repository ({printable(str(part))}), where grades would "
                raise UsageError(message + "be public; name a folder outside of it.")
    return folder


def _public(root: Path) -> Iterator[Path]:
    """The repository's working trees, and where git keeps it."""
    history = History(root)
    listed = (history.git("worktree", "list", "--porcelain", "-z") or b"").split(b"\0")
    kept = history.git("rev-parse", "--path-format=absolute", "--git-common-dir") or b""
    names = [entry.removeprefix(b"worktree ") for entry in listed if entry.startswith(b"worktree ")]
    for path in (root, *(Path(os.fsdecode(name)) for name in (*names, kept.rstrip(b"\n")) if name)):
        if path.exists():
            yield path


def write_all(folder: Path, files: Mapping[str, str]) -> None:
    """Put files into a folder, readable by their owner alone: all of them or none.

    Explanations that an earlier call wrote and this one does not are taken away.

    Raises:
        UserError: it cannot be done; the folder is as it was.
    """
    names = [*files, *(name for name in _earlier(folder) if name not in files)]
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".grades-") as part:
            new, old = Path(part) / "new", Path(part) / "old"
            old.mkdir()
            for name, text in files.items():
                write_text(new / name, text)
                (new / name).chmod(0o600)
            for name in names:
                if (folder / name).is_dir() and not (folder / name).is_symlink():
                    raise OSError(0, f"'{name}' is a folder")
            done: list[str] = []
            try:
                for name in names:
                    done.append(name)
                    if os.path.lexists(folder / name):
                        os.replace(folder / name, old / name)  # a link itself, never what it leads to
                    if name in files:
                        os.replace(new / name, folder / name)
            except BaseException:
                for name in reversed(done):
                    if os.path.lexists(old / name):
                        os.replace(old / name, folder / name)
                    elif name in files:
                        (folder / name).unlink(missing_ok=True)
                raise
    except OSError as error:
        why = error.strerror or "the disk says no"
        raise UserError(f"{folder}: the grades cannot be written ({why}); nothing was changed.") from None


def _earlier(folder: Path) -> list[str]:
    """The explanations that an earlier call wrote, as its grades.json says; only those still as they were written."""
    try:
        outputs = json.loads(read_text(folder / "grades.json", rules="MRK", limit=64 * 1024 * 1024))["outputs"]
    except (DocumentError, ValueError, KeyError, TypeError, RecursionError):
        return []
    found: list[str] = []
    for name, digest in outputs.items() if isinstance(outputs, dict) else ():
        if not name.endswith(".md") or not re.fullmatch(HANDLE, name[:-3]):
            continue
        try:
            text = read_text(folder / name, rules="MRK", limit=4 * 1024 * 1024)
        except DocumentError:
            continue
        if hashlib.sha256(text.encode("utf-8")).hexdigest() == digest:
            found.append(name)
    return found
