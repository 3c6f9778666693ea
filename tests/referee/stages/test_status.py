"""All projects at a glance, and the command that assigns reviewers."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from referee.assignment import load_assignment
from referee.cli import main
from referee.course import Course, load_course
from referee.documents import DocumentError
from referee.stages import declared, duration, stated_stage, stated_team
from referee.status import Status, status
from tests.referee.stages.conftest import COURSE, PROJECT, YAML, Repository, at

Capture = pytest.CaptureFixture[str]
NOW = datetime(2027, 1, 10, 12, tzinfo=UTC)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three teams at v1, no git."""
    write(tmp_path / "pyproject.toml", "")
    write(tmp_path / "course.yaml", COURSE)
    for name, handle in [("toy", "ada"), ("game", "bo"), ("ball", "cy")]:
        write(tmp_path / f"projects/{name}/project.yaml", at("v1").replace("handle: ada", f"handle: {handle}"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def of(root: Path, course: Course | None = None, assigned: tuple[str, ...] = ("bo", "cy")) -> Status:
    return status(root, "toy", course or load_course(root), {"toy": assigned}, NOW)


def test_from_proposal_to_publication(root: Path) -> None:
    file, folder = root / YAML, root / "reviews/toy"
    write(file, PROJECT)
    assert of(root).open == ("version 1",)
    assert of(root).due == "v1 by 2027-01-15 23:59 CET (in 5 days 10 h)"
    write(file, at("v1"))
    assert of(root).reviewers == {"bo": False, "cy": False}
    assert of(root).open == ("reviews: 0 of 2",)
    assert of(root).due == "reviews by 2027-01-29 23:59 CET (in 19 days 10 h)"
    write(folder / "bo.md", "## Findings\n### F1 · major · `a:1`\n### F2 · minor · `a:2`\n")
    assert of(root).open == ("reviews: 1 of 2", "answers: 2 of 2 findings")
    write(folder / "cy.md", "### F1 · major · `a:1`\n")
    write(folder / "response.md", "### bo/F1 · fixed\n### bo/F2 ·\n### cy/F1 · disputed\n")
    assert of(root).open == ("answers: 1 of 3 findings",)
    assert of(root).due == "v2 by 2027-02-12 23:59 CET (in 33 days 10 h)"
    write(folder / "response.md", "### bo/F1 · fixed\n### bo/F2 · answered\n### cy/F1 · disputed\n")
    assert of(root).open == ("version 2",)
    write(file, at("v2"))
    assert of(root).open == ("a decision",)
    for word, waits in [("accept", "to be published"), ("revise", "a revision"), ("reject", "nothing: rejected")]:
        write(folder / "decision.md", f"---\ndecision: {word}\n---\n")
        assert of(root).open == (waits,)
    write(file, at("published"))
    assert of(root) == Status("toy", "published", {"bo": True, "cy": True}, (), (), None)


def test_who_was_not_assigned_is_waited_for_by_nobody(root: Path, capsys: Capture) -> None:
    write(root / "reviews/toy/dee.md", "x")
    write(root / "reviews/toy/BO.md", "x")
    assert of(root).reviewers == {"bo": True, "cy": False}
    assert of(root).additional == ("dee",)
    assert of(root).open == ("reviews: 1 of 2",)
    assert status(root, "toy", load_course(root), {}, NOW).open == ("version 2",)  # nothing is assigned: all count
    assert status(root, "toy", load_course(root), {"game": ["bo"]}, NOW).open == ("reviews: 0 of 2",)
    write(root / "reviews/assignment.yaml", "seed: 1\ninputs: " + "a" * 64 + "\nreviewers:\n  toy: [bo, cy]\n")
    assert main(["status", "toy"]) == 0
    assert "+ dee" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("written", "amended"),
    [
        ("", False),
        ("amendments: []\n", False),
        ("amendments: [{claim: a, date: 2027-01-02, change: added, reason: r}]\n", True),
        ("amendments:\n  - {claim: a, date: 2027-01-02, change: added, reason: r}\n", True),
        ("amendments:  # two\n\n# the first\n- claim: a\n  date: 2027-01-02\n- claim: b\n", True),
    ],
)
def test_amended_claims_are_marked(root: Path, capsys: Capture, written: str, amended: bool) -> None:
    write(root / YAML, f"{written}{at('v1')}")
    assert of(root).amended is amended
    assert main(["status"]) == 0
    assert capsys.readouterr().out.count("†") == (2 if amended else 0)  # the project, and what it means


def test_a_deadline_that_has_passed(root: Path) -> None:
    write(root / YAML, PROJECT)
    late = status(root, "toy", load_course(root), {}, NOW + timedelta(days=7))
    assert late.due == "v1 by 2027-01-15 23:59 CET (1 day 13 h ago)"


@pytest.mark.parametrize("text", ["", "stage: v9", "stage: [", "\x00", "- stage: v1"])
def test_a_file_without_a_stage(root: Path, text: str) -> None:
    write(root / YAML, text)
    found = of(root)
    assert found.stage is None
    assert found.open == ("a stage in project.yaml",)


@pytest.mark.parametrize(
    "text",
    [
        PROJECT,
        PROJECT.replace("team: [{handle: ada, role: everything}]", "team:\n- handle: ada\n  role: all\n- {handle: Bo}"),
        PROJECT.replace("team: [{handle: ada, role: everything}]", "team: [\n  {handle: ada, role: x},\n\n]"),
        PROJECT.replace("stage: proposed", "stage: 'v1'  # now"),
        PROJECT.replace("team: [{handle: ada, role: everything}]", ""),
        "",
    ],
)
def test_the_quick_look_sees_what_the_reader_sees(text: str) -> None:
    read = declared(text)
    assert (stated_stage(text), stated_team(text)) == (read.stage, read.team)


def test_the_table(root: Path, capsys: Capture) -> None:
    write(root / "reviews/assignment.yaml", "seed: 1\ninputs: " + "a" * 64 + "\nreviewers:\n  toy: [bo, cy]\n")
    write(root / "reviews/toy/bo.md", "x")
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert "✓ bo, · cy" in out
    assert not [line for line in out.split("\n") if line != line.rstrip()]  # it is no terminal
    assert "✓ written, · not yet" in out  # 'x' is no review that is in order
    assert "3 v1" in out
    assert main(["status", "toy", "--format", "json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["reviewers"] == {"bo": True, "cy": False}
    assert main(["status", "toi"]) == 2
    assert "Did you mean 'toy'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["status"], ["gate", "--base", "main"], ["assign", "--seed", "1", "--dry-run"]])
def test_no_torch(long_ago: Repository, arguments: list[str]) -> None:
    code = (
        "import sys; from referee.cli import main; status = main(sys.argv[1:]); "
        "heavy = {'torch', 'matplotlib', 'sklearn'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=long_ago.root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# -- referee assign ---------------------------------------------------------------------------------------------------

FOUR = COURSE + "".join(f"  - {{handle: {h}, roles: [reviewer]}}\n" for h in ("dee", "eli", "fay"))


def test_assign(root: Path, capsys: Capture) -> None:
    write(root / "course.yaml", FOUR)
    assert main(["assign", "--seed", "7", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "Nothing was written" in out
    assert "is no family" not in out
    write(root / "course.yaml", FOUR.replace("dee, roles: [reviewer]", "dee, roles: [reviewer], expertise: [vea]"))
    assert main(["assign", "--seed", "7", "--dry-run"]) == 0
    assert "'vea', the expertise of 'dee'" in " ".join(capsys.readouterr().out.split())
    write(root / "course.yaml", FOUR)
    assert load_assignment(root) == {}
    assert main(["assign", "--seed", "7"]) == 0
    text = (root / "reviews/assignment.yaml").read_text()
    first = load_assignment(root)
    assert sorted(first) == ["ball", "game", "toy"]
    assert sorted(h for handles in first.values() for h in handles) == ["ada", "bo", "cy", "dee", "eli", "fay"]
    capsys.readouterr()

    gone = first["toy"][0]  # drops out
    rest = "".join(line for line in FOUR.splitlines(keepends=True) if f"handle: {gone}," not in line)
    write(root / "course.yaml", rest)
    assert main(["assign", "--seed", "8"]) == 0
    out = capsys.readouterr().out
    assert f"{gone} does not review toy any more" in out
    assert out.count("(new)") == 1
    second = load_assignment(root)
    assert {k: v for k, v in second.items() if k != "toy"} == {k: v for k, v in first.items() if k != "toy"}

    write(root / "course.yaml", FOUR)
    (root / "reviews/assignment.yaml").unlink()
    assert main(["assign", "--seed", "7"]) == 0
    assert (root / "reviews/assignment.yaml").read_text() == text  # to the letter


def test_what_is_settled_stays(root: Path, capsys: Capture) -> None:
    write(root / "course.yaml", FOUR)
    assert main(["assign", "--seed", "7"]) == 0
    first = load_assignment(root)
    write(root / "projects/ball/project.yaml", at("v2").replace("handle: ada", "handle: cy"))
    assert main(["assign", "--seed", "9"]) == 0
    assert load_assignment(root) == first


def test_who_reviewed_before_there_was_an_assignment_is_entered(root: Path) -> None:
    write(root / "course.yaml", FOUR)
    write(root / "projects/ball/project.yaml", at("v2").replace("handle: ada", "handle: cy"))
    for name in ("ada", "dee", "stranger", "response", "decision"):
        write(root / f"reviews/ball/{name}.md", "x")
    assert main(["assign", "--seed", "7"]) == 0
    found = load_assignment(root)
    assert found["ball"] == ("ada", "dee")
    assert "cy" not in found["toy"]  # whose ada has reviewed cy's


def test_what_is_not_in_the_course_is_not_assigned(root: Path, capsys: Capture) -> None:
    write(root / "course.yaml", FOUR + "not_in_course: [ball, toy]\n")
    write(root / "projects/ball/project.yaml", at("v2").replace("handle: ada", "handle: cy"))
    for name in ("ada", "dee"):  # which counts for nobody's load
        write(root / f"reviews/ball/{name}.md", "x")
    assert main(["assign", "--seed", "7"]) == 0
    assert "Not in the course, and assigned to nobody: ball, toy." in capsys.readouterr().out
    assigned = load_assignment(root)
    assert {name: len(handles) for name, handles in assigned.items()} == {"ball": 0, "game": 2, "toy": 0}
    write(root / "reviews/toy/cy.md", "x")
    course = load_course(root)
    here = status(root, "toy", course, assigned, NOW)
    assert (here.reviewers, here.additional, here.due) == ({"cy": True}, (), None)
    assert status(root, "game", course, assigned, NOW).due is not None
    assert main(["status"]) == 0
    assert "Not in the course: ball, toy" in capsys.readouterr().out
    write(root / "course.yaml", FOUR + "not_in_course: [ball, game, toy]\n")
    assert main(["assign", "--seed", "7"]) == 0
    assert "No project of the course stands at v1" in capsys.readouterr().out


def test_no_assignment_is_possible(root: Path, capsys: Capture) -> None:
    assert main(["assign", "--seed", "7"]) == 1
    err = capsys.readouterr().err
    assert "no assignment of 3 people to 3 projects at 2 reviewers each" in err
    assert "teams that review each other" in err
    assert not (root / "reviews").exists()


def test_nobody_reviews(root: Path, capsys: Capture) -> None:
    write(root / "course.yaml", "name: x\n")
    assert main(["assign", "--seed", "7"]) == 2
    assert "lists nobody with the role reviewer" in capsys.readouterr().err


def test_no_project_waits(root: Path, capsys: Capture) -> None:
    for name in ("toy", "game", "ball"):
        write(root / f"projects/{name}/project.yaml", PROJECT)
    assert main(["assign", "--seed", "7"]) == 0
    assert "nothing to assign" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("seed: 1\n", "CRS-006"),
        ("seed: x\ninputs: " + "a" * 64, "CRS-007"),
        ("seed: 1\ninputs: no", "CRS-007"),
        ("seed: 1\ninputs: " + "a" * 64 + "\nreviewers: {../x: [ada]}", "CRS-007"),
        ("seed: 1\ninputs: " + "a" * 64 + "\nreviewers: {toy: ['a b']}", "CRS-007"),
        ("seed: 1\ninputs: &a [*a]", "CRS-003"),
    ],
)
def test_an_assignment_that_cannot_be_used(root: Path, text: str, rule: str) -> None:
    write(root / "reviews/assignment.yaml", text)
    with pytest.raises(DocumentError) as caught:
        load_assignment(root)
    assert rule in {p.rule for p in caught.value.problems}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (40, "40 s"), (60, "1 min"), (7500, "2 h 5 min"), (86400, "1 day"), (-200000, "2 days 7 h")],
)
def test_durations(seconds: int, words: str) -> None:
    assert duration(timedelta(seconds=seconds)) == words


@pytest.mark.parametrize(
    "text",
    [
        '{"family": "vae", "stage": "v1"}',
        '{\n "note": "stage: v2",\n "stage": "v1"\n}',
        "{family: vae, stage: v1}",
        "'stage': v1\nfamily: vae\n",
        '{"stage": 1}',
        '{"stage": "v1"',
    ],
)
def test_the_stage_is_seen_however_the_file_is_written(text: str) -> None:
    assert stated_stage(text) == declared(text).stage
