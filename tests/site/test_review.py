"""The review as a conversation, and the timeline: what is said, when it was, and that none of it acts."""

import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import markdown
import pytest
import yaml

from referee.site import review
from referee.site.model import Site, load_site
from tests.site import refereed
from tests.site.refereed import ATTACKS, Refereed


@pytest.fixture
def site(repository: Path) -> Site:
    return load_site(repository)


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    """The collection, to be changed."""
    return Path(shutil.copytree(repository, tmp_path / "copy"))


def edit(root: Path, path: str, old: str, new: str) -> None:
    file = root / path
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def assign(root: Path, reviewers: str) -> None:
    (root / "reviews/assignment.yaml").write_text(f"seed: 1\ninputs: '{'0' * 64}'\nreviewers: {{{reviewers}}}\n")


def html(text: str) -> str:
    """Markdown as the site's own extensions make HTML of it."""
    listed = yaml.load((refereed.ROOT / "mkdocs.yml").read_text(), yaml.BaseLoader)["markdown_extensions"]
    names = [next(iter(e)) if isinstance(e, dict) else e for e in listed]
    return markdown.markdown(text, extensions=names)


class Read(HTMLParser):
    """The words of a page; its elements and attributes, and what is inside each article by its id."""

    def __init__(self, text: str):
        super().__init__()
        self.words = ""
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.articles: dict[str, str] = {}
        self.here = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.words += " "
        self.elements.append((tag, dict(attributes)))
        if tag == "article":
            self.here = dict(attributes)["id"] or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "article":
            self.here = ""

    def handle_data(self, data: str) -> None:
        self.words += data
        if self.here:
            self.articles[self.here] = " ".join(f"{self.articles.get(self.here, '')} {data}".split())


def steps(text: str) -> list[tuple[str, str, str]]:
    """The timeline's steps: its class, its day, its words."""
    found = re.findall(r'<li class="(done|open)">(.*?)</div></li>', text)
    read = []
    for state, step in found:
        day = re.search(r'datetime="([\d-]+)"', step)
        words = " ".join(Read(step).words.split())
        read.append((state, day[1] if day else "", words.removeprefix(day[1] if day else "").strip()))
    return read


# -- The conversation --------------------------------------------------------------------------------------------------


def test_each_finding_stands_with_its_answer_commit_test_and_ruling(site: Site) -> None:
    found = Read(html(review.conversation(site, "toys"))).articles
    fixed, disputed, asked = (found[f"finding-carol-F{n}"] for n in (1, 2, 3))
    response = site.reviews("toys").response
    assert response is not None
    fix = (response.replies["carol/F1"].commit or "")[:10]
    assert re.match(r"major carol/F1 projects/toys/toys.py:12 fixed carol reviewer The step is wrong", fixed)
    assert re.search(f"The team fixed The sign is right now. commit {fix} test projects/toys/test_toys.py::", fixed)
    assert re.search("disputed and overruled .* No word is missing. eve editor overruled It is complete.", disputed)
    assert re.search("question .* answered carol reviewer Why\\? .* The team answered Because it conv", asked)


def test_the_worst_is_told_first(site: Site) -> None:
    keys = list(Read(html(review.conversation(site, "toys"))).articles)
    assert keys == [f"finding-{who}-F{n}" for n in (1, 2, 3) for who in ("bo", "carol")]


def test_what_the_editor_found_as_well_is_told_with_it(site: Site, copy: Path) -> None:
    found = Read(html(review.conversation(site, "toys"))).articles
    assert "eve editor found it, too (E1, major) The sign." in found["finding-carol-F1"]
    assert "finding-eve-E1" not in found
    edit(copy, "reviews/toys/decision.md", "same as: carol/F1", "same as: none")
    found = Read(html(review.conversation(load_site(copy), "toys"))).articles
    assert "The sign." in found["finding-eve-E1"]
    assert "found it, too" not in found["finding-carol-F1"]


def test_a_finding_without_an_answer_says_so(copy: Path) -> None:
    (copy / "reviews/toys/response.md").unlink()
    (copy / "reviews/toys/decision.md").unlink()
    site = load_site(copy)
    assert "not answered yet" in Read(html(review.conversation(site, "toys"))).articles["finding-bo-F1"]
    said = "6 findings (2 major, 2 minor, 2 question): 6 not answered yet."
    assert review.summary(site, "toys") == f"Refereed by bo and carol. {said}"


def test_the_summary_counts_what_became_of_findings(site: Site) -> None:
    said = review.summary(site, "toys")
    assert said.startswith("Refereed by bo and carol. 6 findings (2 major, 2 minor, 2 question): ")
    for part in ("2 fixed", "2 answered", "1 disputed and overruled", "1 disputed and upheld", "Accepted by eve."):
        assert part in said


def test_the_checklist_gives_evidence_findings_and_reasons(site: Site) -> None:
    text = review.conversation(site, "toys")
    read = Read(html(text))
    items = list(review.load_checklist().items.values())
    for item in items:
        assert (" ".join(item.text.split()) in " ".join(read.words.split())) == ("vae" not in item.not_for)
    assert read.words.count("invented data") == 2
    assert {a["href"] for tag, a in read.elements if tag == "a" and "finding" in (a.get("href") or "")} == {
        f"#finding-{who}-F{n}" for who in ("bo", "carol") for n in (1, 2, 3)
    }
    assert "Faithfulness 2 in order, 4 with a finding" in " ".join(read.words.split())


def test_who_reviewed_says_with_what_and_how_long(site: Site) -> None:
    words = " ".join(Read(html(review.conversation(site, "toys"))).words.split())
    assert "carol recommends: minor corrections It works." in words
    assert "Time 90 minutes Ran it on a laptop Conflicts none Use of AI none" in words


def test_places_lead_to_the_reviewed_commit_where_the_repository_is_known(site: Site) -> None:
    assert "<a href=" not in re.sub(r'<a href="#[^>]*>', "", review.conversation(site, "toys"))
    text = review.conversation(replace(site, repository="https://example.org/papers"), "toys")
    commit = site.reviews("toys").reviews["carol"].head.commit
    assert f'href="https://example.org/papers/blob/{commit}/projects/toys/toys.py#L12" rel="noopener"' in text
    response = site.reviews("toys").response
    assert response is not None
    assert f'href="https://example.org/papers/commit/{response.replies["carol/F1"].commit}"' in text


def test_without_reviews_it_says_what_that_means(site: Site) -> None:
    text = review.conversation(site, "hostile")
    assert "**Nobody has refereed this yet.**" in text
    assert "It takes 2 reviews" in text
    assert "`referee review start hostile --as <your handle>`" in text
    assert "(../guides/reviewers.md)" in text
    assert "nothing to review before version 1" in review.conversation(site, "early")
    assert review.summary(site, "early") == "Nobody has refereed this yet."


def test_those_who_will_review_are_named(copy: Path) -> None:
    assign(copy, "hostile: [bo, carol]")
    assert "bo and carol will." in review.conversation(load_site(copy), "hostile")


def test_a_review_that_cannot_be_read_is_missed(copy: Path) -> None:
    edit(copy, "reviews/toys/carol.md", "minutes: 90", "minutes: many")
    text = review.conversation(load_site(copy), "toys")
    assert "Not shown, since it has not the form: reviews/toys/carol.md." in Read(html(text)).words
    assert "finding-bo-F1" in text
    assert "carol recommends" not in Read(html(text)).words


def test_code_that_people_quote_comes_out_to_the_letter(copy: Path) -> None:
    """Also where its lines look like markup of the page around it."""
    quoted = "```py\nx = 1\n```\n\n# no heading\n~~~\n$$\n- no item\n    deep\n$$\n~~~\n| a | b |"
    edit(copy, "reviews/toys/carol.md", "Why?", f"See:\n\n`````\n{quoted}\n`````\n\nWhy `a~~b`?")
    text = html(review.conversation(load_site(copy), "toys"))
    (shown,) = re.findall(r"<pre><code>(.*?)</code></pre>", text, re.DOTALL)
    assert unescape(shown).strip("\n") == quoted
    assert "Why a~~b ?" in Read(text).articles["finding-carol-F3"]


HARMLESS = {"id", "class", "href", "rel", "title", "datetime", "role", "aria-hidden"}


@pytest.mark.parametrize("attack", ATTACKS, ids=range(len(ATTACKS)))
def test_nothing_that_people_wrote_acts(copy: Path, attack: str) -> None:
    """Wherever the form of a review, an answer or a decision lets text through, it is text."""
    line = " ".join(attack.split()).replace("'", "''")
    for path, field in (("carol.md", "hardware: a laptop"), ("carol.md", "ai_use: none")):
        edit(copy, f"reviews/toys/{path}", field, f"{field.partition(':')[0]}: '{line}'")
    fenced = f"`````\n{attack}\n`````" if "`````" not in attack else f"``````\n{attack}\n``````"
    for path, old in (
        ("carol.md", "It works."),
        ("carol.md", "Why?"),
        ("response.md", "The sign is right now."),
        ("decision.md", "It is complete."),
    ):
        edit(copy, f"reviews/toys/{path}", old, f"{fenced}\n\nand {{: onclick=window.pwned=1 }}")
    site = load_site(copy)
    shown = [site.reviews("toys").reviews.get("carol"), site.reviews("toys").response, site.reviews("toys").decision]
    read = Read(html(review.conversation(site, "toys") + review.timeline(site, "toys")))
    assert {tag for tag, _ in read.elements}.isdisjoint(
        {"script", "img", "svg", "iframe", "style", "link", "object", "embed", "form", "input", "base", "meta", "math"}
    )
    for _, attributes in read.elements:
        assert set(attributes) <= HARMLESS
        assert (attributes.get("href") or "#").startswith(("#", "https://", "../guides/"))
    assert any(shown) or "\x02" in attack  # what holds control characters is refused as a whole


# -- The timeline ------------------------------------------------------------------------------------------------------


def test_the_timeline_dates_what_happened_by_the_history(site: Site) -> None:
    found = steps(review.timeline(site, "toys"))
    assert [(state, day) for state, day, _ in found] == [
        ("done", day)
        for day in (
            *("2026-01-20", "2026-02-20", "2026-03-10", "2026-03-10", "2026-03-20", "2026-03-20", "2026-03-20"),
            *("2026-04-02", "2026-04-02"),
        )
    ]
    words = [said for _, _, said in found]
    assert words[0] == "Proposed 9 claims fixed."
    assert words[1] == "Version 1"
    assert words[2:4] == ["Review by bo Recommends: accept. 3 findings.", words[3]]
    assert {words[4], words[5], words[6]} == {
        "1 claim amended missed changed: The table is of the other model.",
        "The team answers 2 fixed, 2 disputed, 2 answered.",
        "Version 2",
    }
    assert words[7:] == ["Accepted by eve", "Published"]


def test_the_timeline_says_what_is_to_come_and_until_when(site: Site) -> None:
    assert [(state, said) for state, _, said in steps(review.timeline(site, "early"))] == [
        ("done", "Proposed 1 claim fixed."),
        ("open", "open Version 1 Due 2026-02-28 23:59 CET."),
        ("open", "open 2 reviews Due 2026-03-15 23:59 CET."),
        ("open", "open Answers, and version 2 Due 2026-03-31 23:59 CEST."),
        ("open", "open The editor's decision"),
    ]


def test_a_project_that_began_at_version_1_says_so(site: Site) -> None:
    first = steps(review.timeline(site, "hostile"))[0]
    assert first[1] == "2026-02-20"
    assert first[2].startswith("Version 1 It began here; ")


def test_an_unasked_review_does_not_count(copy: Path) -> None:
    """Two reviews are due, and that of bo is not one of them."""
    written = refereed.review("bo", "0" * 40, "accept").replace("paper: toys", "paper: hostile")
    Refereed(copy).write("reviews/hostile/bo.md", written)
    for assignment, missing in (("hostile: [bo, carol]", "1 review"), ("hostile: [carol, eve]", "2 reviews")):
        assign(copy, assignment)
        coming = [said for state, _, said in steps(review.timeline(load_site(copy), "hostile")) if state == "open"]
        assert coming[0].startswith(f"open {missing} Due")


def test_days_are_those_of_the_course(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half past eleven at night in Greenwich is the next day in Berlin."""
    text = (copy / "projects/early/project.yaml").read_text()
    Refereed(copy).write("projects/late/project.yaml", text)
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2026-05-01T23:30:00+00:00")
    for words in (["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "late"]):
        subprocess.run(["git", "-C", str(copy), *words], check=True)
    assert steps(review.timeline(load_site(copy), "late"))[0][:2] == ("done", "2026-05-02")


def test_a_folder_without_a_history_has_an_order_without_days(repository: Path, tmp_path: Path) -> None:
    root = tmp_path / "plain"
    shutil.copytree(repository, root, ignore=shutil.ignore_patterns(".git"))
    found = steps(review.timeline(load_site(root), "toys"))
    assert [(day, said) for _, day, said in found if said.startswith(("Review", "Acc", "Pub"))] == [
        ("", "Review by bo Recommends: accept. 3 findings."),
        ("", "Review by carol Recommends: minor corrections. 3 findings."),
        ("2026-04-02", "Accepted by eve"),
        ("", "Published"),
    ]


def test_a_rejected_project_waits_for_nothing(copy: Path) -> None:
    edit(copy, "projects/toys/project.yaml", "stage: published", "stage: v2")
    edit(copy, "reviews/toys/decision.md", "decision: accept", "decision: reject")
    site = load_site(copy)
    found = steps(review.timeline(site, "toys"))
    assert all(state == "done" for state, _, _ in found)
    assert any(said == "Rejected by eve" for _, _, said in found)
