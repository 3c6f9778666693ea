"""A history that is read at once says the same as one that is asked file by file."""

import shutil
from pathlib import Path

import pytest

from referee.history import History
from referee.site.past import Past
from tests.site.refereed import Refereed

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(repository, tmp_path / "copy"))


def paths(root: Path) -> list[str]:
    listed = (
        History(root).git("log", "--format=", "--name-only", "-z", "--", "projects", "reviews", "course.yaml") or b""
    )
    return sorted({path.strip() for path in listed.decode().split("\0") if path.strip()})


def test_every_file_has_the_history_that_git_tells_of_it(repository: Path) -> None:
    past, asked = Past(repository), History(repository)
    assert len(paths(repository)) > 20
    for path in paths(repository):
        assert past.of_path(path, "HEAD") == asked.of_path(path, "HEAD"), path
    assert past.of_path("projects/nobody/project.yaml", "HEAD") == []


def test_merges_deletions_and_hostile_names_are_told_alike(copy: Path) -> None:
    made = Refereed(copy)
    head = f"\x01{'a' * 40} 1"
    for name in ("with space", "ümlaut", head, "M", "D", "line\nbreak", f"x\n{head}"):
        made.write(f"projects/toys/{name}", "1")
    named = made.commit("2026-05-01", "names")
    made.git("switch", "-q", "-c", "work")
    (copy / "reviews/toys/bo.md").unlink()
    made.write("projects/toys/with space", "2")
    made.commit("2026-05-02", "work")
    made.write("projects/toys/with space", "3")
    made.commit("2026-05-03", "more work")
    made.git("switch", "-q", "main")
    made.day = "2026-05-04"
    made.git("merge", "-q", "--no-ff", "-m", "merged", "work")
    past, asked = Past(copy), History(copy)
    for path in paths(copy):
        if "\x01" in path:  # looks like the head of a commit
            assert [commit.sha == named for commit, _ in past.of_path(path, "HEAD")] == [True]
        else:
            assert past.of_path(path, "HEAD") == asked.of_path(path, "HEAD"), repr(path)
    assert [there for _, there in past.of_path("reviews/toys/bo.md", "HEAD")] == [True, False]
    assert len(past.of_path("projects/toys/with space", "HEAD")) == 2  # the merge counts, not what it merges


def test_stages_are_read_from_the_files_themselves(copy: Path) -> None:
    """Not from what a difference looks like; a folder, a link or a huge file in a project's place has none."""
    made = Refereed(copy)
    made.write("projects/odd/project.yaml/inside", "stage: v1\n")
    made.write("projects/huge/project.yaml", "stage: v1\n" + "#" * 300_000)
    made.write("projects/strange/project.yaml", "stage: v9\n")
    made.write("projects/noted/project.yaml", "note: |\n  stage: published\nstage: v1\n")
    (copy / "projects/linked").mkdir()
    (copy / "projects/linked/project.yaml").symlink_to("../toys/project.yaml")
    made.commit("2026-05-01", "odd ones")
    past = Past(copy)
    assert [stage for _, stage in past.stages("toys")] == ["proposed", "v1", "v2", "published"]
    assert [stage for _, stage in past.stages("hostile")] == ["v1"]
    assert [stage for _, stage in past.stages("noted")] == ["v1"]
    for paper in ("odd", "huge", "strange", "linked", "nobody"):
        assert past.stages(paper) == [], paper


def test_more_files_than_are_asked_for_at_once(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {paper: Past(copy).stages(paper) for paper in ("toys", "early", "hostile")}
    monkeypatch.setattr("referee.site.past.AT_ONCE", 2)
    past = Past(copy)
    assert {paper: past.stages(paper) for paper in expected} == expected


def test_a_history_that_was_not_fetched_whole_is_asked_as_before(repository: Path, tmp_path: Path) -> None:
    git = Refereed(tmp_path)
    git.git("clone", "-q", "--depth", "2", repository.as_uri(), str(tmp_path / "shallow"))
    past = Past(tmp_path / "shallow")
    assert past.of_path("reviews/toys/decision.md", "HEAD") == History(past.root).of_path(
        "reviews/toys/decision.md", "HEAD"
    )
