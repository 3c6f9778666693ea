"""Hand-written pages: every link of theirs is right on the site, code stays as it is, and nothing is left out."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from referee.show import MARKS
from referee.site import guides
from referee.site.links import anchor, headings, looked_up, rewrite
from referee.site.model import Site, load_site

ROOT = Path(__file__).parents[2]
WHERE = looked_up(
    {"docs/checks.md": "guides/checks.md", "README.md": "index.md", "CONTRIBUTING.md": "guides/index.md"},
    {"CONTRIBUTING.md": {"as-a-reviewer": "guides/reviewers.md"}},
)


def shown(text: str, source: str = "docs/tutorial.md", repository: str = "") -> str:
    """A page of docs/ as it stands on the site."""
    return rewrite(text, source, "guides/tutorial.md", WHERE, ROOT, repository)


# -- Links -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "becomes"),
    [
        ("[rules](checks.md)", "[rules](checks.md)"),
        ("[rules](./checks.md#prj-001)", "[rules](checks.md#prj-001)"),
        ("[home](../README.md)", "[home](../index.md)"),
        ("[part](../CONTRIBUTING.md#set-up)", "[part](index.md#set-up)"),
        ("[review](../CONTRIBUTING.md#as-a-reviewer)", "[review](reviewers.md#as-a-reviewer)"),
        ("[here](tutorial.md)", "[here](https://example.org/p/blob/HEAD/docs/tutorial.md)"),
        ("[code](../common/records.py#L3)", "[code](https://example.org/p/blob/HEAD/common/records.py#L3)"),
        ("[folder](../common)", "[folder](https://example.org/p/tree/HEAD/common)"),
        ("[a b](../a%20b.md)", "[a b](https://example.org/p/blob/HEAD/a%20b.md)"),
        ('[titled](checks.md "What is checked")', '[titled](checks.md "What is checked")'),
        ("[angles](<checks.md>)", "[angles](checks.md)"),
        ("[out](https://arxiv.org/abs/1312.6114)", "[out](https://arxiv.org/abs/1312.6114)"),
        ("[mail](mailto:a@example.org)", "[mail](mailto:a@example.org)"),
        ("[down](#below)", "[down](#below)"),
        ("[`f(x)`](checks.md) and [g [1]](checks.md)", "[`f(x)`](checks.md) and [g [1]](checks.md)"),
        ("[ref]: ../README.md", "[ref]: ../index.md"),
    ],
)
def test_a_link_leads_to_the_page_or_to_the_repository(link: str, becomes: str) -> None:
    assert shown(
        f"See {link}." if link[0] == "[" and "]: " not in link else link, repository="https://example.org/p"
    ) in (
        f"See {becomes}.",
        becomes,
    )


@pytest.mark.parametrize(
    ("link", "becomes"),
    [
        ("[the records](../common/records.py)", "the records (`../common/records.py`)"),
        ("[`common/records.py`](../common/records.py)", "`common/records.py`"),
        ("![a picture](picture.png)", "a picture (`picture.png`)"),
        ("[away](../../elsewhere.md)", "away (`../../elsewhere.md`)"),
        ("[still](checks.md)", "[still](checks.md)"),
    ],
)
def test_without_an_address_of_the_repository_a_file_is_named(link: str, becomes: str) -> None:
    assert shown(f"See {link}.") == f"See {becomes}."


@pytest.mark.parametrize(
    "code",
    [
        "```md\n[rules](../README.md)\n```",
        "~~~\n[rules](../README.md)\n```\n[rules](../README.md)\n~~~",
        "Write `[rules](../README.md)` here.",
        "Write ``[`rules`](../README.md)`` here.",
        "Over `two\nlines [rules](../README.md)` of code.",
        "$$\n- [rules](../README.md)\n$$",
    ],
)
def test_code_and_formulas_stay_as_they_are(code: str) -> None:
    assert shown(code) == code


def test_what_follows_code_is_a_link_again() -> None:
    text = "A lone ` sign.\n\n[rules](../README.md)\n\n```\nx\n```\n\n[rules](../README.md) and `code`"
    assert shown(text).count("(../index.md)") == 2


# -- Lists -------------------------------------------------------------------------------------------------------------


def test_lists_are_indented_as_every_reader_of_markdown_takes_them() -> None:
    item = "1. **One.** It goes\n   on.\n\n   ```sh\n   make\n     it\n   ```\n\n   - deep\n     down"
    written = f"Steps:\n{item}\n2. Two\n\nEnd."
    assert shown(written) == (
        "Steps:\n\n1. **One.** It goes\n    on.\n\n    ```sh\n    make\n      it\n    ```\n\n    - deep\n        down\n"
        "2. Two\n\nEnd."
    )
    assert shown("10. Ten\n    more\n") == "10. Ten\n    more\n"


# -- Guides ------------------------------------------------------------------------------------------------------------


def test_contributing_is_shown_whole_each_part_once() -> None:
    """Cut into pages, every line of it stands on one of them; but for links and the marks of headings."""
    site = load_site(ROOT)
    parts = [g for g in guides.guides(site) if g.source == "CONTRIBUTING.md"]
    assert {"guides/index.md", "guides/developers.md", "guides/reviewers.md", "guides/editors.md"} == {
        g.path for g in parts
    }
    on_pages = [line.lstrip("#").strip() for g in parts for line in g.text.splitlines() if line.strip()]
    for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines():
        if line.strip():
            assert on_pages.count(line.lstrip("#").strip()) >= 1, line
            if line.startswith("#"):
                assert on_pages.count(line.lstrip("#").strip()) == 1, line


def test_the_parts_keep_the_order_of_headings() -> None:
    for guide in guides.guides(load_site(ROOT)):
        levels = [level for _, level, _ in headings(guide.text)]
        assert levels[0] == 1, guide.path
        assert levels.count(1) == 1, guide.path
        assert all(b <= a + 1 for a, b in pairwise(levels)), guide.path


@pytest.mark.parametrize("repository", ["", "https://example.org/papers"])
def test_every_link_of_every_guide_leads_to_a_page_and_a_heading(repository: str) -> None:
    """On the site; and in the repository, where they are written."""
    site = load_site(ROOT)
    made = {p.path: str(p.text) for p in guides.pages(Site(**{**vars_of(site), "repository": repository}))}
    others = {"index.md", "course/index.md", "measuring/metrics.md", "measuring/benchmarks.md"}
    others |= {f"projects/{s.project.name}.md" for s in site.standings}
    for path, text in made.items():
        prose = re.sub(r"(?ms)^ *(```|~~~).*?^ *\1|`[^`\n]*`", "", text)
        for link in re.findall(r"\]\(([^)\s]+)", prose):
            if link.startswith(("https://", "http://", "mailto:")):
                continue
            there, _, mark = link.partition("#")
            target = (Path(path).parent / there).as_posix().replace("guides/../", "") if there else path
            assert target in made or target in others, (path, link)
            if mark and target in made:
                assert mark in {anchor(title) for _, _, title in headings(made[target])}, (path, link)
    for guide in {g.source: g for g in guides.guides(site)}.values():
        prose = re.sub(r"(?ms)^ *(```|~~~).*?^ *\1|`[^`\n]*`", "", (ROOT / guide.source).read_text())
        for link in re.findall(r"\]\(([^)\s#]+)", prose):
            if not re.match(r"[a-z]+:", link):
                assert (ROOT / guide.source).parent.joinpath(link).exists(), (guide.source, link)


def vars_of(site: Site) -> dict[str, object]:
    return {"root": site.root, "standings": site.standings, "course": site.course}


def test_every_page_of_docs_is_on_the_site() -> None:
    sources = {g.source for g in guides.guides(load_site(ROOT))}
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= sources


def test_the_readers_guide_explains_every_verdict() -> None:
    text = (ROOT / "docs" / "readers.md").read_text()
    for status, (mark, _) in MARKS.items():
        assert f"| {mark} {status} |" in text
    (page,) = (p for p in guides.pages(load_site(ROOT)) if p.path == "guides/readers.md")
    assert str(page.text).count('<span class="verdict v-') == len(MARKS)
    assert "verdicts.svg" not in str(page.text)  # drawn on the page itself, in its colours
    assert str(page.text).count('class="interval explained"') == 1


def test_a_repository_without_guides_has_none(tmp_path: Path) -> None:
    (tmp_path / "projects").mkdir()
    assert list(guides.pages(Site(tmp_path, ()))) == []


def test_guides_begin_with_how_to_get_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    def starts() -> list[str]:
        made = {page.path: str(page.text) for page in guides.pages(load_site(ROOT))}
        lines = [made[f"guides/{name}.md"].split("\n") for name in ("index", "readers")]
        return [before for page in lines for before, line in pairwise(page) if "make setup && source" in line]

    assert not any("git clone" in before for before in starts())
    monkeypatch.setenv("SITE_REPOSITORY", "https://forge.example/papers")
    assert {before.strip() for before in starts()} == {"git clone https://forge.example/papers papers && cd papers"}
