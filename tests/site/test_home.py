"""The home page says which papers are here, which claims held, who checked, and how to run them."""

from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image

from referee.site import home
from referee.site.model import Site, load_site
from referee.site.pictures import MAX_SIDE, shown, thumbnail
from referee.verdicts import Status
from tests.site.collection import ORDERING, VALUE, add, empty, png, publish, score


class Cards(HTMLParser):
    """The page's tags, and the gallery's entries with their text and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cards: list[dict[str, str]] = []
        self.text: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        found = {k: v or "" for k, v in attrs}
        if "data-words" in found:
            self.text.append("")
            self.cards.append(found)
        elif tag == "a" and self.cards and "href" not in self.cards[-1]:
            self.cards[-1]["href"] = found["href"]

    def handle_data(self, data: str) -> None:
        if self.text:
            self.text[-1] += data


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return empty(tmp_path / "repository")


def page(root: Path) -> str:
    (made,) = home.pages(load_site(root))
    assert made.path == "index.md"
    return str(made.text)


def cards(root: Path) -> Cards:
    return Cards(page(root))


def test_a_collection_without_projects_has_a_home(root: Path) -> None:
    assert cards(root).cards == []
    assert "0 projects" in page(root)


def test_the_collection_in_numbers(root: Path) -> None:
    add(root, "one", claims=[VALUE, {**VALUE, "id": "not-tried", "run": "other"}], stage="published")
    publish(root, "one", "paper", "k50", score(value=84.0))
    add(root, "two")
    publish(root, "two", "paper", "k50", score(value=85.0, stderr=0.05))  # within the tolerance of 0.5
    found = home.numbers(load_site(root).standings)
    assert (found.papers, found.claims, found.reproduced, found.refereed) == (2, 3, 1, 1)
    assert dict(found.verdicts) == {"reproduced": 1, "within tolerance": 1, "not attempted": 1}


def test_a_card_links_to_its_page_and_says_its_verdicts_in_words(root: Path) -> None:
    add(root, "toy", claims=[VALUE, ORDERING])
    publish(root, "toy", "paper", "k50", score(value=90.0))
    found = cards(root)
    assert found.cards[0]["href"] == "projects/toy.html"
    for words in ("1 not reproduced", "1 not attempted", "A Paper on toy", "Ada Maker, Bo Player", "ICLR 2016", "vae"):
        assert words in found.text[0]


def test_a_card_says_in_words_what_an_ordering_and_a_value_came_to_and_where(root: Path) -> None:
    untried = {**ORDERING, "id": "untried", "statement": "nobody looked", "runs": ["a", "b"]}
    add(root, "toy", claims=[untried, VALUE, ORDERING, {**ORDERING, "id": "again"}])
    publish(root, "toy", "laptop", "k50", score(value=84.0), steps=2000)
    publish(root, "toy", "laptop", "k5", score(value=80.0), steps=3000)
    (s,) = load_site(root).standings
    assert home.spoken(s) == [
        ("not reproduced", "k=50 is better than k=5", "at laptop, 3,000 steps"),
        (
            *("compute-limited", "Table 1, k=50: 84.7 nats in the paper, ≤ 84.00 ± 0.20 nats here"),
            "at laptop, 2,000 steps",
        ),
    ]
    assert "not reproduced: k=50 is better than k=5 (at laptop, 3,000 steps)" in cards(root).text[0]


def test_a_card_says_which_part_of_the_papers_training_there_was_where_that_is_known(root: Path) -> None:
    add(root, "toy", claims=[ORDERING])
    for run in ("k50", "k5"):
        publish(root, "toy", "laptop", run, steps=3000)
    publish(root, "toy", "paper", "k50", steps=90_000)
    assert "(at laptop, 3,000 of 90,000 steps)" in cards(root).text[0]
    publish(root, "toy", "laptop", "k5", steps=4000)  # the longest now, of which nobody knows the whole
    assert "(at laptop, 4,000 steps)" in cards(root).text[0]


def test_a_card_shows_the_value_that_fell_shortest(root: Path) -> None:
    add(root, "toy", claims=[VALUE, {**VALUE, "id": "far", "run": "k5", "source": "Table 1, k=5"}])
    publish(root, "toy", "paper", "k50", score(value=84.0))
    publish(root, "toy", "paper", "k5", score(value=90.0))
    (s,) = load_site(root).standings
    assert [(status, words[:13]) for status, words, _ in home.spoken(s)] == [("not reproduced", "Table 1, k=5:")]


def test_a_card_shows_an_ordering_that_was_not_reproduced_wherever_it_stands(root: Path) -> None:
    wrong = {**ORDERING, "id": "wrong", "statement": "k=5 is better than k=50", "runs": ["k5", "k50"]}
    add(root, "toy", claims=[ORDERING, {**ORDERING, "id": "again"}, wrong])
    publish(root, "toy", "laptop", "k50", score(value=80.0))
    publish(root, "toy", "laptop", "k5", score(value=84.0))
    (s,) = load_site(root).standings
    assert [(status, words) for status, words, _ in home.spoken(s)] == [
        ("reproduced", "k=50 is better than k=5"),
        ("not reproduced", "k=5 is better than k=50"),
    ]


def test_every_verdict_has_its_place_among_the_values_of_a_card() -> None:
    assert sorted(home.SHORT) == sorted(get_args(Status))


def test_claims_that_were_remembered_are_counted_as_such(root: Path) -> None:
    remembered = {**VALUE, "certainty": "mem"}
    add(root, "toy", claims=[VALUE, {**remembered, "id": "mem"}, {**remembered, "id": "untried", "run": "other"}])
    publish(root, "toy", "paper", "k50", score(value=84.0))
    assert home.numbers(load_site(root).standings).remembered == 1
    assert "Of the 2 reproduced, 1 was remembered, and not yet checked against the paper." in page(root)
    assert "2 remembered, not yet checked" in cards(root).text[0]
    add(root, "seen", claims=[VALUE])
    assert sum("remembered" in text for text in cards(root).text) == 1


def test_it_says_what_has_not_been_refereed(root: Path) -> None:
    assert "none has been yet" not in page(root)
    folder = add(root, "toy")
    assert "none has been yet" in page(root)
    (folder / "project.yaml").write_text((folder / "project.yaml").read_text().replace('"v1"', '"published"'))
    assert "none has been yet" not in page(root)


def test_it_says_how_to_begin(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "<code>make setup &amp;&amp; source .venv/bin/activate</code>" in page(root)
    monkeypatch.setenv("SITE_REPOSITORY", "https://forge.example/group/papers/")
    address = "https://forge.example/group/papers"
    assert f"<code>git clone {address} papers &amp;&amp; cd papers &amp;&amp; make setup &amp;&amp; source" in page(
        root
    )
    assert f'<a href="{address}" rel="noopener">' in page(root)


@pytest.mark.parametrize(
    ("stage", "reviewers", "says"),
    [
        ("proposed", (), "there is nothing to referee yet"),
        ("v1", (), "Nobody has refereed this yet."),
        ("v1", ("ada",), "Reviewed by ada; not decided yet."),
        ("v2", ("ada", "bo"), "Reviewed by ada and bo; not decided yet."),
        ("published", ("ada", "bo", "cy"), "Refereed by ada, bo and cy, and accepted."),
    ],
)
def test_a_card_says_who_checked(root: Path, stage: str, reviewers: tuple[str, ...], says: str) -> None:
    add(root, "toy", stage=stage, reviewers=reviewers, accepted=stage == "published")
    assert says in cards(root).text[0]


@pytest.mark.parametrize(
    ("decision", "says"),
    [
        ("accept", "accepted, to be published"),
        ("revise", "to be revised"),
        ("reject", "rejected"),
        ("null", "not decided yet"),
    ],
)
def test_a_card_says_what_the_editor_decided(root: Path, decision: str, says: str) -> None:
    add(root, "toy", stage="v2", reviewers=("ada",), accepted=True)
    path = root / "reviews/toy/decision.md"
    path.write_text(path.read_text().replace("decision: accept", f"decision: {decision}"))
    assert f"Reviewed by ada; {says}." in cards(root).text[0]


def test_a_card_says_how_to_run_it_on_real_data_and_how_long_that_takes(root: Path) -> None:
    folder = add(root, "toy", stage="proposed")
    assert "referee run" not in cards(root).text[0]  # there is no code yet
    (folder / "toy.py").write_text("")
    assert "referee run toy --preset smoke" in cards(root).text[0]
    publish(root, "toy", "smoke", "k50")
    publish(root, "toy", "laptop", "k50", wall_s=70.0)
    publish(root, "toy", "laptop", "k5", wall_s=54.0)
    publish(root, "toy", "paper", "k50", wall_s=9000.0, hardware={"cpu": "A CPU", "gpu": "A GPU"})
    assert "referee run toy --preset laptop · 2 min on a CPU" in cards(root).text[0]


def test_a_card_says_when_verdicts_may_no_longer_hold(root: Path) -> None:
    add(root, "toy")
    publish(root, "toy", "paper", "k50")
    assert "stale" not in cards(root).text[0]
    (root / "projects/toy/toy.py").write_text("CHANGED = True\n")
    assert "stale" in cards(root).text[0]


def test_what_was_published_stands_first(root: Path) -> None:
    for name, stage in (("a", "proposed"), ("b", "v1"), ("c", "published"), ("d", "v1"), ("e", "v2")):
        add(root, name, stage=stage)
    assert [c["href"] for c in cards(root).cards] == [f"projects/{name}.html" for name in "cebda"]


def test_a_card_carries_what_it_is_filtered_and_ordered_by(root: Path) -> None:
    other = {**VALUE, "id": "other", "dataset": "omniglot", "run": "k1"}
    add(root, "toy", claims=[VALUE, other], family="flow", paper={"authors": ["Émile Pár"], "year": 2019})
    publish(root, "toy", "paper", "k50", score(value=84.0))
    (found,) = cards(root).cards
    assert found["data-family"] == "flow"
    assert found["data-data"].split() == ["mnist", "omniglot"]
    assert found["data-verdict"].split() == ["reproduced", "not-attempted"]
    assert (found["data-stage"], found["data-year"]) == ("v1", "2019")
    assert "émile pár" in found["data-words"]
    assert float(found["data-held"]) == 0.5


def test_filters_offer_what_occurs_and_how_often(root: Path) -> None:
    add(root, "a", family="flow")
    add(root, "b", family="vae", stage="published", paper={"year": 2020})
    add(root, "c", family="vae", claims=[VALUE, {**VALUE, "id": "again"}])
    site = load_site(root)
    found = {key: values for key, _, values in home.facets([home.card(site, s) for s in site.standings])}
    assert found["family"] == [("flow", "flow", 1), ("vae", "vae", 2)]
    assert found["data"] == [("mnist", "mnist", 3)]  # projects, not claims
    assert found["verdict"] == [("not-attempted", "not attempted", 3)]
    assert found["stage"] == [("published", "published", 1), ("v1", "v1", 2)]
    assert found["year"] == [("2020", "2020", 1), ("2016", "2016", 2)]


def test_nothing_from_a_file_is_markup(root: Path) -> None:
    attack = '"><script>alert(1)</script>\n\n```\n<img src=x onerror=alert(1)> [x](javascript:alert(1))'
    add(
        root,
        "toy",
        claims=[ORDERING | {"statement": attack}],
        paper={"title": attack, "authors": [attack], "venue": attack},
    )
    for run in ("k50", "k5"):
        publish(root, "toy", "laptop", run, picture=png())
    (root / "course.yaml").write_text("name: '<script>alert(2)</script>'\n")
    tags = cards(root).tags
    assert [attrs.get("src") for tag, attrs in tags if tag == "script"] == ["assets/gallery.js"]
    assert [attrs["src"] for tag, attrs in tags if tag == "img"] == ["assets/gallery/toy.png"]
    assert not any(name.startswith("on") for _, attrs in tags for name in attrs)
    assert "\n```" not in page(root)


# -- Pictures ----------------------------------------------------------------------------------------------------------


def sited(root: Path) -> tuple[Site, Path | None]:
    site = load_site(root)
    (s,) = site.standings
    found = shown(s)
    return site, found.path.relative_to(s.project.results) if found else None


def test_the_picture_is_of_the_run_that_is_claimed_best_at_the_largest_preset(root: Path) -> None:
    add(root, "toy", claims=[VALUE, ORDERING])
    assert sited(root)[1] is None
    for preset, runs in (("smoke", ("k50",)), ("laptop", ("a", "k5", "k50")), ("paper", ("a",))):
        for run in runs:
            publish(root, "toy", preset, run, picture=png() if preset != "paper" else None)
    assert sited(root)[1] == Path("laptop/k50/samples.png")
    (root / "projects/toy/results/laptop/k50/samples.png").unlink()
    assert sited(root)[1] == Path("laptop/a/samples.png")


def test_the_picture_is_rather_of_an_ordering_that_came_out_as_claimed(root: Path) -> None:
    reverse = {**ORDERING, "id": "reverse", "runs": ["k5", "k50"]}
    add(root, "toy", claims=[reverse, ORDERING])
    publish(root, "toy", "laptop", "k5", score(value=90.0), picture=png())
    publish(root, "toy", "laptop", "k50", score(value=80.0), picture=png())
    assert sited(root)[1] == Path("laptop/k50/samples.png")


def test_a_picture_is_never_a_link_nor_huge_nor_broken(root: Path, tmp_path: Path) -> None:
    add(root, "toy", claims=[VALUE])
    folder = publish(root, "toy", "laptop", "k50")
    secret = tmp_path / "secret.png"
    secret.write_bytes(png())
    (folder / "samples.png").symlink_to(secret)
    assert sited(root)[1] is None
    (folder / "samples.png").unlink()
    (folder / "samples.png").write_bytes(png(MAX_SIDE + 1, 1))
    assert sited(root)[1] is None
    (folder / "samples.png").write_bytes(png()[:60])  # its head is right, nothing else is
    site, found = sited(root)
    assert found is not None
    assert thumbnail(site, site.standings[0]) is None
    assert "<img" not in page(root)


def test_pictures_take_their_room_and_say_what_they_show(root: Path) -> None:
    for i in range(8):
        add(root, f"p{i}")
        publish(root, f"p{i}", "laptop", "k50", picture=png(40, 24))
    pictures = [attrs for tag, attrs in cards(root).tags if tag == "img"]
    assert {(p["width"], p["height"]) for p in pictures} == {("24", "24")}
    assert {p["alt"] for p in pictures} == {"Samples of k50, preset laptop"}
    assert [p.get("loading") for p in pictures[-2:]] == ["lazy", "lazy"]
    assert "loading" not in pictures[0]  # it is seen at once


def test_the_gallery_shows_the_upper_left_corner_drawn_once(root: Path) -> None:
    add(root, "toy")
    publish(root, "toy", "laptop", "k50", picture=png(600, 500, shade=40))
    site = load_site(root)
    first = thumbnail(site, site.standings[0])
    assert first is not None
    with Image.open(first) as image:
        assert image.size == (480, 480)
        assert image.convert("L").getpixel((5, 5)) == pytest.approx(255 - 40, abs=2)
        assert image.convert("L").getpixel((470, 470)) == pytest.approx(40, abs=2)
    drawn, when = first.read_bytes(), first.stat().st_mtime_ns
    assert thumbnail(site, site.standings[0]) == first
    assert first.stat().st_mtime_ns == when
    first.unlink()
    again = thumbnail(site, site.standings[0])
    assert again == first
    assert again.read_bytes() == drawn


def test_the_same_repository_gives_the_same_page(root: Path) -> None:
    for name in ("b", "a"):
        add(root, name)
        publish(root, name, "laptop", "k50", picture=png())
    assert page(root) == page(root)
