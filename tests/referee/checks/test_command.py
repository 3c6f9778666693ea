"""`referee check`: which projects it looks at, what it says to whom, its exit status; and that checks can be added."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from referee.checks import base, command
from referee.checks.base import Finding, Outcome, Skip, Submission, check, every_check, run
from referee.cli import main
from referee.project import Project, find_root

Capture = pytest.CaptureFixture[str]
ONLY = ["--only", "LAY-001,LAY-004,DOC-003,SEC-001,SEC-005"]


@pytest.fixture
def inside(damage: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Commands run inside the invented repository."""
    monkeypatch.chdir(damage.root)
    return damage


def git(root: Path, *arguments: str) -> None:
    who = ["-c", "user.name=ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(root), *who, *arguments], check=True, capture_output=True)


def test_the_table_says_rule_place_and_remedy(inside: Any, capsys: Capture) -> None:
    inside.append("README.md", "\n\nTODO\n")
    assert main(["check", "toy", *ONLY]) == 1
    out = capsys.readouterr().out
    lines = len((inside.folder / "README.md").read_text().splitlines())
    assert f"DOC-003  projects/toy/README.md:{lines}" in out
    assert "'TODO' is left; write what belongs there." in out
    assert "1 error" in out
    assert "stays shut" in out
    inside.replace("README.md", "TODO", "")
    assert main(["check", "toy", *ONLY]) == 0
    assert "nothing found · 5 checks passed" in capsys.readouterr().out
    assert main(["check", "toy", "--only", "LAY-001"]) == 0
    assert "nothing found · 1 check passed" in capsys.readouterr().out


def test_json(inside: Any, capsys: Capture) -> None:
    inside.delete("README.md")
    assert main(["check", "toy", "--format", "json", *ONLY]) == 1
    answer = json.loads(capsys.readouterr().out)
    (paper,) = answer["papers"]
    assert not answer["passed"]
    assert (paper["paper"], paper["stage"], paper["counts"]["error"]) == ("toy", "v1", 1)
    assert paper["findings"][0] == {
        "rule": "LAY-001",
        "severity": "error",
        "file": "projects/toy/README.md",
        "line": 1,
        "message": "is missing; add it.",
    }


def test_who_waits_at_a_terminal_is_told(inside: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda at=terminal: at)
        main(["check", "toy", "--run", "--only", "ORG-004,LAY-001"])
        said = capsys.readouterr()
        assert said.err.startswith("toy: ORG-004 ") == terminal
        assert "LAY-001" not in said.err


def test_annotations_are_escaped(capsys: Capture) -> None:
    """Text from a submission can neither end an annotation nor begin a command of its own."""
    finding = Finding("SEC-008", "error", "projects/toy/a,b:c.md", 3, "100%\r\n::set-output name=x::y")
    command.print_github([Outcome("toy", "v1", (finding,), (), (), ())])
    first, *_ = capsys.readouterr().out.splitlines()
    message = "100%25%0D%0A::set-output name=x::y"
    assert first == f"::error file=projects/toy/a%2Cb%3Ac.md,line=3,title=SEC-008::{message}"


def test_a_comment_mentions_and_links_nobody(capsys: Capture) -> None:
    evil = "@everyone #1 <script>x</script> [x](https://x.org) | `a` www.x.org ![i](//x.org)"
    finding = Finding("DOC-005", "error", "projects/toy/x.md", 1, evil)
    command.print_markdown([Outcome("toy", "v1", (finding,), (), (), ())])
    row = capsys.readouterr().out.splitlines()[-2]
    assert row.count(" | ") == 3  # the table keeps its columns
    for live in ("@everyone", "#1", "<script", "[x]", "://", "www.", "`a`"):
        assert live not in row


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nope"], "unknown paper 'nope'"),
        (["../toy"], "unknown paper"),
        (["toy", "--stage", "v3"], "invalid choice"),
        (["toy", "--only", "NB-999"], "no rule 'NB-999'"),
        (["toy", "--changed", "main"], "not both"),
        (["--changed", "no-such-branch"], "git knows no commit"),
        (["--changed", "--upload-pack=x"], "expected one argument"),
        (["--changed=--output=x"], "knows no commit"),
    ],
)
def test_wrong_usage(inside: Any, capsys: Capture, arguments: list[str], says: str) -> None:
    git(inside.root, "init", "-q")
    assert main(["check", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_only_what_changed_is_looked_at(inside: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are not read: what is wrong with them is of no account, and they may be many."""
    other = inside.root / "projects" / "other"
    other.mkdir()
    (other / "project.yaml").write_text("not: a project\n")
    git(inside.root, "init", "-q", "-b", "main")
    git(inside.root, "add", "-A")
    git(inside.root, "commit", "-qm", "before")
    git(inside.root, "switch", "-qc", "work")
    assert main(["check", "--changed", "main", *ONLY]) == 0
    assert "No project to check" in capsys.readouterr().out

    inside.append("README.md", "\nmore\n")  # not committed
    opened: list[str] = []
    real = Path.open

    def noted(self: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(str(self))
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", noted)
    assert main(["check", "--changed", "main", "--format", "json", *ONLY]) == 0
    assert [p["paper"] for p in json.loads(capsys.readouterr().out)["papers"]] == ["toy"]
    assert not [path for path in opened if "/other/" in path]
    git(inside.root, "commit", "-qam", "change")
    main(["check", "--changed", "main", "--format", "json", *ONLY])
    assert [p["paper"] for p in json.loads(capsys.readouterr().out)["papers"]] == ["toy"]


def test_new_linked_reviewed_and_removed_projects_count_as_changed(inside: Any, capsys: Capture) -> None:
    for name in ("kept", "removed", "reviewed"):
        (inside.root / "projects" / name).mkdir()
        (inside.root / "projects" / name / "project.yaml").write_text("stage: proposed\n")
    git(inside.root, "init", "-q", "-b", "main")
    git(inside.root, "add", "-A")
    git(inside.root, "commit", "-qm", "before")
    (inside.root / "projects" / "removed" / "project.yaml").unlink()
    (inside.root / "projects" / "removed").rmdir()
    (inside.root / "projects" / "new").mkdir()
    (inside.root / "projects" / "new" / "notes.md").write_text("x")
    (inside.root / "projects" / "linked").symlink_to("/etc")
    (inside.root / "reviews" / "reviewed").mkdir(parents=True)
    (inside.root / "reviews" / "reviewed" / "bo.md").write_text("x")
    assert main(["check", "--changed", "main", "--format", "json", *ONLY]) == 1
    papers = {p["paper"]: {f["rule"] for f in p["findings"]} for p in json.loads(capsys.readouterr().out)["papers"]}
    assert set(papers) == {"linked", "new", "reviewed"}
    assert papers["linked"] >= {"SEC-001"}
    assert "LAY-001" in papers["new"]


def test_a_folder_without_project_yaml_is_checked_by_name(inside: Any, capsys: Capture) -> None:
    inside.delete("project.yaml")
    assert main(["check", "toy", *ONLY]) == 1
    assert "projects/toy/project.yaml" in capsys.readouterr().out


def test_the_stage_is_what_project_yaml_states(inside: Any) -> None:
    assert command.stage_of(inside.project) == "v1"
    inside.replace("project.yaml", "stage: v1", "stage: 'v2' # soon")
    assert command.stage_of(inside.project) == "v2"
    inside.replace("project.yaml", "stage: 'v2'", "stage: final")
    assert command.stage_of(inside.project) == "proposed"


def test_checking_stays_light(inside: Any) -> None:
    code = (
        "import sys; from referee.cli import main; status = main(sys.argv[1:]); "
        "heavy = {'torch', 'matplotlib', 'IPython', 'nbformat', 'scipy'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    arguments = ["check", "toy", *ONLY]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=inside.root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_page_is_in_step() -> None:
    page = find_root() / command.DOCUMENT
    assert page.read_text(encoding="utf-8") == command.document(), "run: referee check --document"
    for entry in every_check().values():
        assert f"### {entry.rule}: {entry.title}" in page.read_text(encoding="utf-8")


# -- The registry ------------------------------------------------------------------------------------------------------


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    every_check()
    mine: dict[str, Any] = {}
    monkeypatch.setattr(base, "REGISTRY", mine)
    return mine


def test_a_check_is_one_function(registry: dict[str, Any], submitted: Project) -> None:
    @check("DOC-901", "It is there", why="So.", fix="Put it there.", severity={"v1": "warning", "v2": "error"})
    def it_is_there(submission: Submission) -> Iterator[base.Found]:
        yield submission.at("it.md"), 3, "is not\nthere."

    assert run(Submission(submitted, "proposed")).findings == ()
    (finding,) = run(Submission(submitted, "v1")).findings
    assert finding == Finding("DOC-901", "warning", "projects/toy/it.md", 3, "is not there.")
    assert str(finding) == "projects/toy/it.md:3: DOC-901: is not there."
    assert run(Submission(submitted, "v1")).errors == 0
    assert run(Submission(submitted, "v2")).errors == 1


def test_of_one_rule_so_many_findings_are_shown_and_the_others_counted(
    registry: dict[str, Any], submitted: Project
) -> None:
    @check("DOC-901", "Is seen often", why="So.", fix="So.")
    def often(submission: Submission) -> Iterator[base.Found]:
        yield from ((submission.at("a.md"), line, "again.") for line in range(1, 1001))

    findings = run(Submission(submitted, "v1")).findings
    assert len(findings) == base.MAX_FINDINGS + 1
    assert [f.line for f in findings[:3]] == [1, 2, 3]
    assert findings[-1].message == "and 950 more by this rule; put the others right first."


def test_an_id_is_given_once(registry: dict[str, Any]) -> None:
    base.register("DOC-901", "One", why="So.", fix="So.", severity="error")
    with pytest.raises(ValueError, match="two checks"):
        base.register("DOC-901", "Two", why="So.", fix="So.", severity="error")


def test_a_check_that_breaks_is_said_to_be_broken(registry: dict[str, Any], submitted: Project) -> None:
    @check("DOC-901", "Breaks", why="So.", fix="So.", severity="note")
    def breaks(submission: Submission) -> Iterator[base.Found]:
        yield submission.at("a.md"), 1, "seen before it broke."
        raise ZeroDivisionError("by zero")

    (finding,) = run(Submission(submitted, "v1")).findings
    assert (finding.rule, finding.severity) == ("DOC-901", "error")  # whatever it would have been
    assert "the check itself failed (ZeroDivisionError: by zero, at test_command.py:" in finding.message


def test_what_another_rule_speaks_of_is_skipped(registry: dict[str, Any], submitted: Project) -> None:
    @check("DOC-901", "Skips", why="So.", fix="So.")
    def skips(submission: Submission) -> Iterator[base.Found]:
        yield submission.at("a.md"), 1, "seen before it stopped."
        raise Skip

    outcome = run(Submission(submitted, "v1"))
    assert (outcome.findings, outcome.passed, outcome.skipped) == ((), (), ("DOC-901",))


def test_what_runs_code_waits_until_it_is_asked(registry: dict[str, Any], submitted: Project) -> None:
    @check("DOC-901", "Runs", why="So.", fix="So.", needs="code")
    def runs(submission: Submission) -> Iterator[base.Found]:
        yield submission.at("a.md"), 1, "ran."

    assert run(Submission(submitted, "v1")).waiting == ("DOC-901",)
    assert run(Submission(submitted, "v1"), needs=("files", "code")).errors == 1


def test_the_guides_example_is_a_check_that_works(registry: dict[str, Any], damage: Any) -> None:
    guide = (find_root() / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Add a check")[2]
    example = guide.partition("```python\n")[2].partition("```")[0]
    exec(example, {"check": check, "Submission": Submission, "Iterator": Iterator, "Found": base.Found})
    assert run(Submission(damage.project, "v2")).findings == ()
    damage.replace("README.md", "Maker & Player, ", "")
    first, second = run(Submission(damage.project, "v2")).findings
    assert first.message == "does not name Ada Maker; add them below the title."
    assert (second.severity, run(Submission(damage.project, "v1")).errors) == ("error", 0)
