"""A repository as the pages see it: read once, what is broken kept apart."""

import json
from pathlib import Path

import pytest

from common.errors import UserError
from referee.site.model import load_site
from tests.site.collection import VALUE, add, empty, publish


@pytest.fixture(autouse=True)
def _no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SITE_URL", "SITE_REPOSITORY"):
        monkeypatch.delenv(name, raising=False)


def test_a_project_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    root = empty(tmp_path)
    add(root, "good")
    add(root, "bad", claims=[VALUE, VALUE])  # one id twice
    site = load_site(root)
    assert [s.project.name for s in site.standings] == ["good"]
    (problem,) = site.problems
    assert problem.startswith("projects/bad/project.yaml:1: PRJ-010")
    with pytest.raises(KeyError):
        site.standing("bad")


def test_problems_are_of_records_reviews_and_probes_too(tmp_path: Path) -> None:
    root = empty(tmp_path)
    folder = add(root, "toys", reviewers=["carol"])
    (publish(root, "toys", "paper", "k50") / "record.json").write_text("{")
    (root / "reviews" / "toys" / "carol.md").write_text("no front matter")
    (folder / "results" / "probes.json").write_text('{"project": "other"}')
    (root / "course.yaml").write_text("name: x\nunknown: y\n")
    site = load_site(root)
    for part in ("record.json", "reviews/toys/carol.md:1: REV-002", "results/probes.json", "course.yaml:2: CRS-005"):
        assert [p for p in site.problems if part in p], part
    assert site.reviews("toys").reviews == {}
    assert site.probes == {}
    assert site.course.name == "A rolling collection"


def test_dates_come_from_the_history(repository: Path) -> None:
    site = load_site(repository)
    first, last = site.first("projects/toys/project.yaml"), site.last("projects/toys/project.yaml")
    assert first is not None
    assert last is not None
    assert (f"{first:%Y-%m-%d}", f"{last:%Y-%m-%d}") == ("2026-01-20", "2026-04-02")
    frozen = site.freeze("toys")
    assert frozen is not None
    assert frozen.commit.moment == first
    assert site.first("projects/none/project.yaml") is None
    assert site.assignment == {"toys": ("bo", "carol")}
    assert site.problems == ()


def test_without_a_history_there_are_no_dates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    root = empty(tmp_path)
    add(root, "toys")
    site = load_site(root)
    assert site.history is None
    assert site.first("projects/toys/project.yaml") is None
    assert site.freeze("toys") is None


def test_addresses_are_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = empty(tmp_path)
    monkeypatch.setenv("SITE_REPOSITORY", "https://example.org/a/b/")
    site = load_site(root)
    assert (site.repository, site.url) == ("https://example.org/a/b", "")
    for wrong in ("javascript:alert(1)", "example.org", 'https://example.org/"onclick=x'):
        monkeypatch.setenv("SITE_URL", wrong)
        with pytest.raises(UserError, match="SITE_URL is not an address"):
            load_site(root)


def test_what_the_probes_came_to(tmp_path: Path) -> None:
    root = empty(tmp_path)
    folder = add(root, "toys")
    probe = {"name": "bound", "statement": "L_1 <= L_2", "passed": True, "numbers": {"n": 8}, "detail": ""}
    run = {
        "project": "toys",
        "finished": "2026-01-02T03:04:05+00:00",
        "git_sha": "",
        "digest": "0" * 64,
        "environment": {"python": "3.11"},
        "probes": [probe],
    }
    path = folder / "results" / "probes.json"
    path.parent.mkdir()
    path.write_text(json.dumps(run))
    assert [p.name for p in load_site(root).probes["toys"].probes] == ["bound"]
