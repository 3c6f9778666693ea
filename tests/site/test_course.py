"""The course page and the status of the last full re-run."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from referee.nightly import FILE, Night, PaperNight
from referee.site import course
from referee.site.model import Site, load_site


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(repository, tmp_path / "copy"))


def page(site: Site, name: str) -> str:
    (found,) = (p for p in course.pages(site) if p.path == f"course/{name}.md")
    return str(found.text)


def rows(text: str) -> dict[str, list[str]]:
    """The rows of a page's tables by their first cell."""
    cells = [[c.strip() for c in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("| ")]
    return {row[0].strip(): row[1:] for row in cells}


def night(root: Path, *papers: PaperNight, **more: str) -> None:
    found = Night(commit="ab" * 20, finished=datetime(2026, 5, 6, 3, 4, tzinfo=UTC), papers=list(papers), **more)
    (root / FILE).parent.mkdir(exist_ok=True)
    (root / FILE).write_text(found.model_dump_json())


def fared(paper: str, errors: int = 0, warnings: int = 0, *said: str) -> PaperNight:
    return PaperNight(paper=paper, stage="v1", passed=not errors, errors=errors, warnings=warnings, said=list(said))


# -- The course --------------------------------------------------------------------------------------------------------


def test_the_course_says_its_dates_in_its_zone(repository: Path) -> None:
    text = page(load_site(repository), "index")
    found = rows(text)
    assert found["version 1"] == ["2026-02-28 23:59 CET"]
    assert found["version 2"] == ["2026-03-31 23:59 CEST"]
    assert "up to 24 hours late is accepted with 25 % of its points off" in text


def test_who_is_at_which_stage_and_what_is_awaited(repository: Path) -> None:
    text = page(load_site(repository), "index")
    found = rows(text)
    assert found["[toys](../projects/toys.md)"] == ["published", "–", "–", "bo ✓, carol ✓"]
    assert found["[early](../projects/early.md)"] == ["proposed", "version 1", "version 1: 2026-02-28 23:59 CET", "–"]
    assert found["[hostile](../projects/hostile.md)"][2] == "reviews: 2026-03-15 23:59 CET"
    assert text.index("toys.md") < text.index("hostile.md") < text.index("early.md")
    assert "1 proposed, 1 v1, 1 published." in text


def test_a_project_that_cannot_be_read_is_listed_without_a_page(copy: Path) -> None:
    (copy / "projects/early/project.yaml").write_text("stage: proposed\nfamily: [\n")
    assert rows(page(load_site(copy), "index"))["early"][0] == "proposed"


def test_people_by_role(repository: Path) -> None:
    found = rows(page(load_site(repository), "index"))
    assert found["developers"] == ["ada, bo"]
    assert found["editors"] == ["eve"]


def test_a_rolling_collection_has_no_dates(copy: Path) -> None:
    (copy / "course.yaml").unlink()
    text = page(load_site(copy), "index")
    assert "nothing has a deadline" in text
    assert "## Dates" not in text
    assert "## People" not in text


# -- The last full re-run ----------------------------------------------------------------------------------------------


def test_before_the_first_night_it_says_so(repository: Path) -> None:
    site = load_site(repository)
    text = page(site, "status")
    assert "**No full re-run yet.**" in text
    assert rows(text)["[toys](../projects/toys.md)"][1].endswith("of the present code")
    assert rows(text)["[early](../projects/early.md)"] == ["proposed", "none published"]
    assert course.rerun(site) == "none yet"


def test_a_good_night(copy: Path) -> None:
    night(copy, fared("toys"), fared("early", 0, 2), run="https://example.org/r/1", tests="success")
    site = load_site(copy)
    text = page(site, "status")
    assert "**All is well**: 2 projects passed every check." in text
    assert "2026-05-06 03:04 UTC, at the commit `ababababab` ([its page](https://example.org/r/1))" in text
    found = rows(text)
    assert found["[toys](../projects/toys.md)"][2] == "✓ passed"
    assert found["[early](../projects/early.md)"][2] == "✓ passed, 2 warnings"
    assert found["[hostile](../projects/hostile.md)"][2] == "not in it"
    assert course.rerun(site) == "2026-05-06, all passed"


def test_a_bad_night_says_what_failed_as_text(copy: Path) -> None:
    night(copy, fared("toys", 1, 0, "NB-004 x: <script>alert(1)</script> [press](javascript:alert(1))"), fared("early"))
    site = load_site(copy)
    text = page(site, "status")
    assert "**Not all is well**: 1 of 2 projects did not pass." in text
    assert rows(text)["[toys](../projects/toys.md)"][2] == "✗ 1 error, 0 warnings"
    assert "<script" not in text
    assert "](javascript" not in text
    assert course.rerun(site) == "2026-05-06, 1 of 2 failed"


@pytest.mark.parametrize("what", ["tests", "projects"])
def test_a_night_whose_own_jobs_failed_is_no_good_night(copy: Path, what: str) -> None:
    night(copy, fared("toys"), **{what: "failure"})
    site = load_site(copy)
    assert "**Not all is well**" in page(site, "status")
    assert "ended with `failure`." in page(site, "status")
    assert course.rerun(site) == "2026-05-06, something failed"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"papers": []}', '{"commit": "x"}'])
def test_a_status_that_is_none_is_named_and_the_site_stands(copy: Path, text: str) -> None:
    (copy / FILE).parent.mkdir(exist_ok=True)
    (copy / FILE).write_text(text)
    site = load_site(copy)
    assert "is no status of a night" in page(site, "status").replace("&#46;", ".")
    assert course.rerun(site) == "none yet"
