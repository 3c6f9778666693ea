"""`course.yaml`: the cohort's name, dates, people, and what files may weigh.

`python -m referee.course` writes the model as JSON Schema to `referee/course.schema.json`. Problems of the file have
the rules CRS-001 to CRS-012 of `referee.documents`. A repository without the file is a rolling collection: no
deadlines, and nobody's role is known.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, PlainSerializer, model_validator

from common.errors import nearest
from referee.documents import pattern, read_yaml, refuse
from referee.schema import Handle, Name, Number, Part, Text, schema_text

FILE = "course.yaml"
WEEK = timedelta(days=7)
"""The least time between the deadline of version 1 and that of its reviews."""

DeadlineName = Literal["proposed", "v1", "reviews", "v2"]
Role = Literal["developer", "reviewer", "editor"]

_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}( [0-9]{2}:[0-9]{2})?$"


def _calendar(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise refuse("contradiction", f"{text} is not in the calendar") from None
    if not 2000 <= int(text[:4]) <= 2200:
        raise refuse("contradiction", f"the year {text[:4]} cannot be meant")
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # the last is what an unknown zone raises
        message = f"unknown time zone '{name}'. Write it as the IANA does, like Europe/Berlin"
        raise refuse("unknown_name", message) from None
    return name


Date = Annotated[
    str,
    pattern(_DATE, "it is a date, with a time or without: 2026-12-01 or 2026-12-01 18:00"),
    AfterValidator(_calendar),
]
Zone = Annotated[
    str,
    pattern(
        r"^[A-Za-z0-9_+-]{1,40}(/[A-Za-z0-9_+-]{1,40}){0,2}$", "it is the IANA's name of a zone, like Europe/Berlin"
    ),
    AfterValidator(_zone),
]
Share = Annotated[Number, Field(ge=0, le=1), PlainSerializer(float)]  # a number in the JSON Schema, too


class Deadlines(Part):
    """Until when things are submitted; each is optional. A date without a time means the end of that day."""

    proposed: Date | None = None
    v1: Date | None = None
    reviews: Date | None = None
    """At least a week after version 1."""
    v2: Date | None = None


class Late(Part):
    """What is late is accepted for so many hours with this share of its points off, and then refused."""

    hours: Annotated[int, Field(ge=0, le=24 * 31)] = 24
    penalty: Share = Decimal("0.25")


ProjectName = Annotated[str, pattern(r"^[a-z0-9_]{1,64}$", "it is a project's name")]
Points = Annotated[Number, Field(ge=0, le=100), PlainSerializer(float)]


class Costs(Part):
    """What a finding weighs, by its severity: the points that it costs a team that ships it, and its weight in what a
    reviewer found and missed."""

    critical: Points = Decimal(10)
    major: Points = Decimal(5)
    minor: Points = Decimal(1)


class Reviewing(Part):
    """What a review is worth: how its four measures weigh; together 1."""

    recall: Share = Decimal("0.4")
    """How much of what the editor found the reviewer has, too."""
    precision: Share = Decimal("0.2")
    """How much of what the reviewer found held."""
    coverage: Share = Decimal("0.2")
    """How much of the checklist is answered."""
    evidence: Share = Decimal("0.2")
    """How many of the answers cite something that is there."""

    @model_validator(mode="after")
    def _whole(self) -> "Reviewing":
        if (total := self.recall + self.precision + self.coverage + self.evidence) != 1:
            message = f"recall, precision, coverage and evidence make {total} together, not 1"
            raise refuse("contradiction", message, at=("evidence",))
        return self


class Grading(Part):
    """How grades are computed; docs/grading.md explains each number. v1 and v2 are together 1."""

    v1: Share = Decimal("0.4")
    v2: Share = Decimal("0.6")
    review: Share = Decimal("0.25")
    """The share of reviewing in the grade of somebody who has both a project and reviews."""
    findings: Costs = Costs()
    reviewing: Reviewing = Reviewing()
    contribution: Share = Decimal("0.25")
    """Whoever wrote less than this share of an equal part of a project's lines is shown to the editor."""

    @model_validator(mode="after")
    def _whole(self) -> "Grading":
        if self.v1 + self.v2 != 1:
            raise refuse("contradiction", f"v1 and v2 make {self.v1 + self.v2} together, not 1", at=("v2",))
        return self


class Limits(Part):
    """How large files may be."""

    notebook_kib: Annotated[int, Field(ge=1, le=100 * 1024)] = 2048
    weights_mib: Annotated[int, Field(ge=1, le=1024)] = 16
    file_mib: Annotated[int, Field(ge=1, le=1024)] = 16
    project_mib: Annotated[int, Field(ge=1, le=4096)] = 64


class Person(Part):
    """Somebody who takes part, by public handle."""

    handle: Handle
    roles: Annotated[list[Role], Field(min_length=1)]
    expertise: list[Name] = Field(default_factory=list)
    """Families or papers that the person would like to review, like vae."""
    conflicts: list[Handle] = Field(default_factory=list)
    """People whose work this person does not review, and who do not review this person's."""


@dataclass(frozen=True)
class Deadline:
    """The last second that is in time."""

    name: DeadlineName
    moment: datetime  # aware, in the course's zone

    def __str__(self) -> str:
        return show_time(self.moment)


@dataclass(frozen=True)
class Lateness:
    """How something that is due stands to its deadline.

    Attributes:
        by: how long after the deadline it comes; in time when not above 0.
        until: the last moment at which it is accepted.
        share: of its points that is left: 1 in time, 0 refused.
        refused: whether it comes after `until`.
    """

    deadline: Deadline
    by: timedelta
    until: datetime
    share: Decimal
    refused: bool


class Course(Part):
    """`course.yaml`: a cohort."""

    name: Text
    timezone: Zone = "UTC"
    deadlines: Deadlines = Deadlines()
    late: Late = Late()
    reviewers_per_project: Annotated[int, Field(ge=1, le=10)] = 2
    reviews_per_reviewer: Annotated[int, Field(ge=1, le=50)] | None = None
    """The most reviews that a person is given; no limit when not stated."""
    grading: Grading = Grading()
    limits: Limits = Limits()
    people: list[Person] = Field(default_factory=list, max_length=5000)
    not_in_course: list[ProjectName] = Field(default_factory=list, max_length=5000)
    """Projects that stand here and are not the course's: no deadline, assignment or grade is about them."""

    @model_validator(mode="after")
    def _coherent(self) -> "Course":
        self._check_people()
        self._check_order()
        for i, name in enumerate(self.not_in_course):
            if name in self.not_in_course[:i]:
                raise refuse("repeated", f"'{name}' stands twice; delete one", at=("not_in_course", i))
        return self

    def _check_people(self) -> None:
        known: dict[str, str] = {}
        for i, person in enumerate(self.people):
            at = ("people", i, "handle")
            if (key := _key(person.handle)) in known:
                raise refuse(
                    "repeated", f"the handle '{person.handle}' stands twice; give each person one entry", at=at
                )
            known[key] = person.handle
            if len(set(person.roles)) < len(person.roles):
                raise refuse("contradiction", "a role stands twice", at=("people", i, "roles"))
        for i, person in enumerate(self.people):
            for j, other in enumerate(person.conflicts):
                place = ("people", i, "conflicts", j)
                if _key(other) == _key(person.handle):
                    raise refuse("contradiction", "a conflict with oneself goes without saying; delete it", at=place)
                if _key(other) not in known:
                    hint = nearest(other, known.values())
                    raise refuse("unknown_name", f"nobody here has the handle '{other}'.{hint}", at=place)

    def _check_order(self) -> None:
        stated = list(self.all_deadlines())
        for earlier, later in pairwise(stated):
            if later.moment <= earlier.moment:
                message = f"'{later.name}' ends before '{earlier.name}' does ({earlier}); deadlines follow one another"
                raise refuse("contradiction", message, at=("deadlines", later.name))
        v1, reviews = self.deadline("v1"), self.deadline("reviews")
        if v1 and reviews and reviews.moment.astimezone(UTC) - v1.moment.astimezone(UTC) < WEEK - timedelta(hours=2):
            message = f"reviewers get at least a week after version 1 ({v1})"  # an hour may be lost to summer time
            raise refuse("contradiction", message, at=("deadlines", "reviews"))

    def deadline(self, name: DeadlineName) -> Deadline | None:
        """A deadline, None where there is none."""
        text: str | None = getattr(self.deadlines, name)
        return Deadline(name, last_second(text, ZoneInfo(self.timezone))) if text else None

    def lateness(self, name: DeadlineName, moment: datetime) -> Lateness | None:
        """How something that counts from a moment stands to a deadline; None where there is no such deadline."""
        if (deadline := self.deadline(name)) is None:
            return None
        until = deadline.moment.astimezone(UTC) + timedelta(hours=self.late.hours)  # real hours, summer time or not
        in_time, refused = moment <= deadline.moment, moment > until
        share = Decimal(1) if in_time else Decimal(0) if refused else 1 - self.late.penalty
        return Lateness(deadline, moment - deadline.moment, until, share, refused)

    def all_deadlines(self) -> Iterator[Deadline]:
        """Those that are stated, in the order of the process."""
        yield from filter(None, map(self.deadline, get_args(DeadlineName)))

    def includes(self, paper: str) -> bool:
        """Whether a project is the course's."""
        return paper not in self.not_in_course

    def person(self, handle: str) -> Person | None:
        """Somebody by handle; forges do not tell capitals from small letters in handles, and neither does this."""
        return next((p for p in self.people if _key(p.handle) == _key(handle)), None)

    def has_role(self, handle: str, role: Role) -> bool:
        """Whether somebody has a role. Where nobody is listed, no role is known."""
        person = self.person(handle)
        return person is not None and role in person.roles

    def in_conflict(self, one: str, other: str) -> bool:
        """Whether either of two people declared a conflict with the other."""
        sides = ((self.person(one), other), (self.person(other), one))
        return any(p is not None and _key(q) in map(_key, p.conflicts) for p, q in sides)


def look_alikes(course: Course) -> Iterator[tuple[int, str]]:
    """People whose handle can be taken for somebody's who stands before them: their place in `people`, and what to say.

    They may be there: handles are given elsewhere, and an editor who has seen both can vouch for them.
    """
    from referee.reviews import skeleton

    first: dict[str, str] = {}
    for i, person in enumerate(course.people):
        other = first.setdefault(skeleton(person.handle), person.handle)
        if other != person.handle:
            message = f"'{person.handle}' can be taken for '{other}'. Make sure that both are who they seem to be."
            yield i, message


def not_projects(course: Course, names: Iterable[str]) -> Iterator[tuple[int, str]]:
    """What `not_in_course` names and is none of the projects: its place there, and what to say."""
    known = list(names)
    for i, name in enumerate(course.not_in_course):
        if name not in known:
            yield i, f"there is no project '{name}'.{nearest(name, known)} Correct the name, or delete it."


def not_expertise(course: Course, papers: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Expertise that is neither a family nor a paper here: the person's place in `people`, and what to say.

    It may be there, of a paper that is still to be proposed; until then nobody is assigned by it.
    """
    from referee.checklist import load_checklist

    known = {*load_checklist().families, *papers}
    for i, person in enumerate(course.people):
        for name in person.expertise:
            if name not in known:
                message = f"'{name}', the expertise of '{person.handle}', is no family and no project."
                yield i, f"{message}{nearest(name, known)} Families: {', '.join(load_checklist().families)}."


ROLLING = Course(name="A rolling collection")


def load_course(root: Path) -> Course:
    """The repository's course; a rolling one where there is no `course.yaml`.

    Raises:
        DocumentError: with all problems of the file.
    """
    path = root / FILE
    if not path.is_symlink() and not path.exists():
        return ROLLING
    return read_yaml(path, Course, rules="CRS", shown=FILE)


def last_second(text: str, zone: ZoneInfo) -> datetime:
    """The last second that is in time: of the day, where no time is given, else the time itself.

    Where the clocks change, a time that comes twice means the later one, and a time that is skipped the same distance
    from midnight, so that nobody's deadline comes earlier than it reads.

    Args:
        text: "2026-12-01" or "2026-12-01 18:00".
    """
    day = datetime.fromisoformat(text)
    if re.search(":", text):
        return max(_real(day, zone, fold=0), _real(day, zone, fold=1), key=lambda t: t.astimezone(UTC))
    next_day = day + timedelta(days=1)  # on the calendar: a day may have 23 or 25 hours
    return (_real(next_day, zone, fold=0).astimezone(UTC) - timedelta(seconds=1)).astimezone(zone)


def _real(wall: datetime, zone: ZoneInfo, *, fold: int) -> datetime:
    """A wall clock's time as a moment; one that is skipped becomes a real one."""
    return wall.replace(tzinfo=zone, fold=fold).astimezone(UTC).astimezone(zone)


def show_time(moment: datetime) -> str:
    """'2026-12-01 23:59 CET'; seconds where they are not 0 or 59."""
    seconds = "" if moment.second in (0, 59) else f":{moment.second:02}"
    return f"{moment:%Y-%m-%d %H:%M}{seconds} {moment.tzname()}"


def _key(handle: str) -> str:
    return handle.lower()


SCHEMA_FILE = Path(__file__).with_name("course.schema.json")


def json_schema() -> str:
    """The model of `course.yaml` as JSON Schema, as text."""
    return schema_text(Course, FILE)


if __name__ == "__main__":
    SCHEMA_FILE.write_text(json_schema(), encoding="utf-8")
