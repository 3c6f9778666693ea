"""A semester is played once: each step came out as it must, what must be refused was, and the tutorial tells it."""

import re
from pathlib import Path

import pytest

from tests.rehearsal.semester import play
from tests.rehearsal.stage import ROOT, Stage, tutorial


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return play(tmp_path_factory.mktemp("semester"))


def test_what_must_be_refused_was_refused(played: Stage) -> None:
    stages = {f"STG-{n:03}" for n in (1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14)}
    reviews = {f"REV-{n:03}" for n in (2, 21, 28, 29, 31, 32, 33, 34, 40, 41, 45)}
    assert set(played.refused) == stages | reviews | {"DOC-003"}


def test_the_projects_end_where_they_must(played: Stage) -> None:
    found = {p.parent.name: p.read_text() for p in (played.clone / "projects").glob("*/project.yaml")}
    stages = {paper: re.findall(r"^stage: (\w+)", text, flags=re.M) for paper, text in found.items()}
    assert stages == {"toys": ["published"], "blobs": ["v1"], "strokes": ["proposed"]}


def test_grades_say_what_was_late_and_what_did_not_come(played: Stage) -> None:
    private: Path = played.folder / "grades"
    assert {p.stem for p in private.glob("*.md")} == {"ada", "bo", "cy", "dan", "eva", "fay"}
    lines = (private / "grades.csv").read_text().splitlines()
    rows = {line.split(",")[0]: line.split(",") for line in lines[1:]}
    assert (rows["ada"][2], rows["cy"][2], rows["eva"][2]) == ("82", "24", "0")  # points of the project
    assert (rows["eva"][3], rows["bo"][3]) == ("100", "0")  # of reviewing


def test_the_tutorial_tells_what_happens(played: Stage) -> None:
    told = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    # Of the files that a resubmission changes, memory.json is one or not: a run needs the same megabytes, or others.
    told, now = (re.sub(r"(v1 → v2), \d+ files", r"\1, some files", text) for text in (told, tutorial(played)))
    assert told == now, "write it anew: python -m tests.rehearsal --write docs/tutorial.md"


def test_what_differs_from_day_to_day_is_not_told(played: Stage) -> None:
    text = tutorial(played)
    assert str(played.folder) not in text
    assert not re.search(r"\b[0-9a-f]{10,64}\b", text)
