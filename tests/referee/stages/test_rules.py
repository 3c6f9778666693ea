"""The rules of stages as `referee check` asks them, of the files as they lie."""

from pathlib import Path

import pytest

from referee.checks import Outcome, Submission, every_check, run
from referee.project import Project, find_root
from tests.referee.stages.conftest import COURSE, PROJECT, YAML, Repository, at

OURS = [f"STG-{n:03}" for n in range(1, 15)] + [f"CRS-{n:03}" for n in range(1, 15)]


def outcome(repository: Repository, stage: str, base: str | None = None) -> Outcome:
    submission = Submission(Project(repository.root, "toy"), stage, base and repository.git("rev-parse", base))
    return run(submission, only=OURS)


def found(repository: Repository, stage: str, base: str | None = None) -> list[str]:
    return [f"{f.severity} {f.rule}:{f.line}" for f in outcome(repository, stage, base).findings]


def test_every_rule_of_the_gate_is_documented() -> None:
    assert set(OURS) <= set(every_check())


def test_a_proposal(repository: Repository) -> None:
    repository.branch()
    repository.write(YAML, PROJECT)  # not even committed
    assert found(repository, "proposed") == []
    repository.write(YAML, at("v1"))
    assert found(repository, "v1") == ["error STG-001:1"]


def test_one_step(proposed: Repository) -> None:
    proposed.write(YAML, at("v1"))
    assert found(proposed, "v1") == []
    proposed.commit((YAML, at("v2")))
    assert "error STG-001:1" in found(proposed, "v2")
    assert "error STG-001:1" in found(proposed, "v2", base="main")
    assert "error STG-001:1" not in found(proposed, "v2", base="work")  # nothing is changed by then


def test_claims_are_frozen_on_the_branch_that_accepts(proposed: Repository) -> None:
    proposed.commit((YAML, PROJECT.replace("tolerance: 0.5", "tolerance: 5")))
    assert found(proposed, "proposed") == ["error STG-006:7"]  # also when the change is committed on a branch
    assert found(proposed, "proposed", base="main") == ["error STG-006:7"]
    amended = "amendments:\n  - {claim: nll-k50, date: 2026-11-19, change: changed, reason: why}\n"
    proposed.write(YAML, PROJECT.replace("tolerance: 0.5", "tolerance: 5") + amended)
    assert found(proposed, "proposed") == ["error STG-007:12"]
    proposed.write(YAML, PROJECT + amended.replace("-19", "-20"))
    assert found(proposed, "proposed") == ["error STG-008:12"]


def test_a_shallow_clone_cannot_say(proposed: Repository, tmp_path: Path) -> None:
    proposed.git("checkout", "--quiet", "main")
    proposed.commit(("x", "y"))
    proposed.git("clone", "--quiet", "--depth", "1", f"file://{proposed.root}", str(tmp_path / "clone"))
    (finding,) = outcome(Repository(tmp_path / "clone"), "proposed").findings
    assert (finding.rule, finding.severity) == ("STG-006", "error")
    assert "git fetch --unshallow" in finding.message


def test_outside_git_history_has_nothing_to_say(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    repository.write(YAML, PROJECT)
    repository.write("course.yaml", COURSE)
    there = outcome(repository, "proposed")
    assert there.findings == ()
    assert set(there.skipped) == {"STG-001", "STG-006", "STG-007", "STG-008"}


def test_reviews_and_acceptance(submitted: Repository) -> None:
    submitted.write(YAML, at("v2"))
    assert found(submitted, "v2") == ["error STG-004:1"]
    submitted.commit((YAML, at("v2")))
    submitted.git("branch", "--quiet", "-f", "main")
    submitted.write(YAML, at("published"))
    assert found(submitted, "published") == ["error STG-004:1", "error STG-005:1"]


def test_the_team_is_known(proposed: Repository) -> None:
    proposed.write("course.yaml", COURSE.replace("handle: ada", "handle: adda"))
    (finding,) = outcome(proposed, "proposed").findings
    assert (finding.rule, finding.severity) == ("CRS-013", "warning")
    assert "Did you mean 'adda'?" in finding.message
    proposed.write("course.yaml", "name: rolling, nobody listed\n")
    assert found(proposed, "proposed") == []


@pytest.mark.parametrize("text", ["name: [", "name: x\ntimezone: Mars/Base", "x" * 300_000, "name: &a x"])
def test_a_course_that_cannot_be_used(proposed: Repository, text: str) -> None:
    proposed.write("course.yaml", text)
    assert [f.rule[:4] for f in outcome(proposed, "proposed").findings] == ["CRS-"]


def test_this_repositorys_projects() -> None:
    root = find_root(Path(__file__).parent)
    for name in ("iwae", "vae"):
        there = run(Submission(Project(root, name), "v1"), only=OURS)
        assert there.findings == ()
