"""`course.yaml`: what it may say, when a deadline ends, and that this repository's own is right."""

import json
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import jsonschema
import pytest
import yaml

from referee.course import ROLLING, SCHEMA_FILE, Course, json_schema, last_second, load_course
from referee.documents import DocumentError, parse_yaml
from referee.project import find_root

COURSE = """\
name: Generative models, winter 2026
timezone: Europe/Berlin
deadlines: {proposed: 2026-12-01, v1: 2027-01-15 18:00, reviews: 2027-01-29, v2: 2027-02-12}
late: {hours: 24, penalty: 0.25}
reviewers_per_project: 2
people:
  - {handle: ada, roles: [developer, reviewer], expertise: [vae], conflicts: [bo]}
  - {handle: bo, roles: [developer, reviewer]}
  - {handle: edith, roles: [editor]}
"""


def parse(text: str) -> Course:
    return parse_yaml(text, Course, rules="CRS", shown="course.yaml")


def test_a_right_file() -> None:
    course = parse(COURSE)
    assert [f"{d.name} {d}" for d in course.all_deadlines()] == [
        "proposed 2026-12-01 23:59 CET",
        "v1 2027-01-15 18:00 CET",
        "reviews 2027-01-29 23:59 CET",
        "v2 2027-02-12 23:59 CET",
    ]
    assert course.has_role("EDITH", "editor")  # as forges do, capitals make no difference
    assert not course.has_role("ada", "editor")
    assert course.in_conflict("bo", "Ada")  # either direction
    assert not course.in_conflict("bo", "edith")
    assert course.reviews_per_reviewer is None


@pytest.mark.parametrize(
    ("old", "new", "line", "rule", "says"),
    [
        ("Europe/Berlin", "Europe/Berln", 2, "CRS-009", "unknown time zone"),
        ("Europe/Berlin", "../../etc/passwd", 2, "CRS-007", "IANA"),
        ("Europe/Berlin", "Europe", 2, "CRS-009", "unknown time zone"),  # a folder of the database
        ("2026-12-01", "2026-11-31", 3, "CRS-011", "not in the calendar"),
        ("2026-12-01", "0026-12-01", 3, "CRS-011", "the year 0026"),
        ("2026-12-01", "1.12.2026", 3, "CRS-007", "2026-12-01 18:00"),
        ("2026-12-01", "2026-12-01 25:00", 3, "CRS-011", "not in the calendar"),
        ("2027-01-29", "2027-01-20", 3, "CRS-011", "at least a week"),
        ("2027-02-12", "2027-01-29", 3, "CRS-011", "'v2' ends before 'reviews'"),
        ("2026-12-01", "2027-01-16", 3, "CRS-011", "'v1' ends before 'proposed'"),
        ("v2: 2027", "v3: 2027", 3, "CRS-005", "Known: proposed, v1, reviews, v2"),
        ("penalty: 0.25", "penalty: 25", 4, "CRS-007", "less than or equal to 1"),
        ("hours: 24", "hours: -1", 4, "CRS-007", "hours"),
        ("project: 2", "project: 0", 5, "CRS-007", "reviewers_per_project"),
        ("conflicts: [bo]", "conflicts: [boo]", 7, "CRS-009", "Did you mean 'bo'"),
        ("conflicts: [bo]", "conflicts: [ADA]", 7, "CRS-011", "oneself"),
        ("handle: bo", "handle: ADA", 8, "CRS-010", "stands twice"),
        ("handle: bo", "handle: аda", 8, "CRS-007", "public handle"),  # the first letter is Cyrillic
        ("[editor]", "[editor, editor]", 9, "CRS-011", "a role stands twice"),
        ("[editor]", "[edtor]", 9, "CRS-007", "Did you mean 'editor'"),
        ("[editor]", "[]", 9, "CRS-007", "at least 1"),
        ("name: Gen", "not_in_course: [toy, toy]\nname: Gen", 1, "CRS-010", "'toy' stands twice"),
        ("name: Gen", "not_in_course: [../toy]\nname: Gen", 1, "CRS-007", "a project's name"),
        ("name: Gen", "grading: {v1: 0.5, v2: 0.6}\nname: Gen", 1, "CRS-011", "1.1 together"),
    ],
)
def test_mistakes_are_named(old: str, new: str, line: int, rule: str, says: str) -> None:
    assert old in COURSE
    with pytest.raises(DocumentError) as caught:
        parse(COURSE.replace(old, new, 1))
    (problem,) = caught.value.problems
    assert (problem.line, problem.rule) == (line, rule)
    assert says in problem.message


def test_a_week_for_reviewers_may_lose_an_hour_to_summer_time() -> None:
    parse(COURSE.replace("v1: 2027-01-15 18:00", "v1: 2027-03-22").replace("01-29", "03-29").replace("02-12", "04-12"))


@pytest.mark.parametrize(
    ("text", "zone", "utc"),
    [
        ("2026-12-01", "Europe/Berlin", "2026-12-01 22:59:59"),
        ("2026-03-29", "Europe/Berlin", "2026-03-29 21:59:59"),  # a day of 23 hours
        ("2026-10-25", "Europe/Berlin", "2026-10-25 22:59:59"),  # a day of 25 hours
        ("2026-10-25 02:30", "Europe/Berlin", "2026-10-25 01:30:00"),  # comes twice: the later one
        ("2026-03-29 02:30", "Europe/Berlin", "2026-03-29 01:30:00"),  # never comes: an hour after 01:30
        ("2026-03-07", "America/Havana", "2026-03-08 04:59:59"),  # the next day begins at 01:00
        ("2026-10-31", "America/Havana", "2026-11-01 03:59:59"),  # the next day's first hour comes twice
        ("2018-02-17", "America/Sao_Paulo", "2018-02-18 02:59:59"),  # its last hour comes twice
        ("2024-02-29", "UTC", "2024-02-29 23:59:59"),
        ("2026-12-31", "Pacific/Kiritimati", "2026-12-31 09:59:59"),
    ],
)
def test_when_a_deadline_ends(text: str, zone: str, utc: str) -> None:
    assert last_second(text, ZoneInfo(zone)).astimezone(UTC) == datetime.fromisoformat(utc).replace(tzinfo=UTC)


def test_without_a_file_the_collection_rolls(tmp_path: Path) -> None:
    assert load_course(tmp_path) is ROLLING
    assert list(ROLLING.all_deadlines()) == []
    (tmp_path / "course.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    with pytest.raises(DocumentError, match=r"CRS-001: is a symbolic link"):
        load_course(tmp_path)


def test_this_repository() -> None:
    course = load_course(find_root(Path(__file__).parent))
    assert list(course.all_deadlines()) == []
    assert course.people, "roles are known"
    assert course.not_in_course == []  # the collection is the course


def test_the_json_schema_is_current_and_describes_the_file() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == json_schema(), "run: python -m referee.course"
    schema = json.loads(json_schema())
    plain = yaml.load(COURSE, Loader=yaml.BaseLoader)  # dates stay text, as in our reader
    plain["reviewers_per_project"] = 2
    plain["late"] = {"hours": 24, "penalty": 0.25}
    jsonschema.validate(plain, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**plain, "timezoen": "UTC"}, schema)
