"""What other programs read: the register and its schema, the feed, robots.txt, cards, what pages say of themselves."""

import json
import shutil
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
from PIL import Image

from referee.site import build, home, project, register
from referee.site.model import Page, load_site
from referee.site.pictures import CARD, card
from referee.stages import STAGES
from tests.referee.stages.conftest import Repository
from tests.site.collection import ORDERING, VALUE, add, empty, png, publish, score

ROOT = Path(__file__).parents[2]
URL = "https://example.org/papers"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SITE_URL", raising=False)
    return empty(tmp_path / "repository")


def made(root: Path) -> dict[str, str]:
    return {page.path: str(page.text) for page in register.pages(load_site(root))}


def read(root: Path) -> dict[str, Any]:
    text = made(root)
    data: dict[str, Any] = json.loads(text["register.json"])
    jsonschema.Draft202012Validator(json.loads(text["register.schema.json"])).validate(data)
    return data


# -- The register ------------------------------------------------------------------------------------------------------


def test_the_committed_schema_is_the_models() -> None:
    assert register.SCHEMA_FILE.read_text() == register.json_schema(), "run 'python -m referee.site.register'"
    jsonschema.Draft202012Validator.check_schema(json.loads(register.json_schema()))


def test_the_schema_explains_itself_and_refuses_what_it_does_not_know(root: Path) -> None:
    add(root, "toy")
    data = read(root)
    schema = json.loads(made(root)["register.schema.json"])
    assert "comparable only where" in schema["$defs"]["ScoreEntry"]["properties"]["protocol"]["description"]
    data["projects"][0]["verdict"] = "reproduced"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(data)


def test_the_real_repository_has_a_register() -> None:
    data = json.loads(register.register(load_site(ROOT)))
    assert [p["name"] for p in data["projects"]] == sorted(p.parent.name for p in ROOT.glob("projects/*/project.yaml"))
    jsonschema.Draft202012Validator(json.loads(register.json_schema())).validate(data)


def test_a_collection_without_projects_has_a_register_and_a_feed(root: Path) -> None:
    assert read(root)["projects"] == []
    assert items(root) == []


def test_claims_are_registered_with_what_they_came_to(root: Path) -> None:
    add(root, "toy", claims=[VALUE, ORDERING], amendments=[amendment("more-helps")])
    for run, value in (("k50", 85.0), ("k5", 90.0)):
        publish(root, "toy", "paper", run, score(value=value, stderr=0.05))
    (entry,) = read(root)["projects"]
    value, ordering = entry["claims"]
    assert (value["verdict"], value["paper_value"], value["value"], value["stderr"]) == (
        "within tolerance",
        84.7,
        85.0,
        0.05,
    )
    assert value["paper_stderr"] is None
    assert value["worse_by"] == pytest.approx((0.3 - 0.1 - 0.05, 0.3 + 0.1 + 0.05))
    assert ordering["worse_by"] is None
    assert (value["protocol"], value["runs"], value["amended"]) == ("mnist, L_10", ["k50"], False)
    assert (ordering["verdict"], ordering["runs"], ordering["amended"]) == ("reproduced", ["k50", "k5"], True)
    assert ordering["judged_at"] == "paper"
    assert entry["verdicts"] == {"reproduced": 1, "within tolerance": 1}
    for claim in entry["claims"]:
        for record in claim["records"]:
            assert (root / record).is_file()
        assert claim["command"].startswith("referee run toy --preset ")


def test_runs_are_registered_with_what_makes_them_comparable(root: Path) -> None:
    add(root, "toy")
    kept = [score(name=name) for name in ("odd", "copying[raw-pixels]", "recall[raw-pixels]")]
    publish(root, "toy", "paper", "k50", score(name="elbo", value=-84.9), *kept, data={"mnist": "f" * 64})
    ((run,),) = [p["runs"] for p in read(root)["projects"]]
    assert (run["data"], run["commit"], run["steps"]) == ({"mnist": "f" * 64}, "b" * 40, 3000)
    assert [(s["metric"], s["kind"], s["better"]) for s in run["scores"]] == [
        ("elbo", "bound", "higher"),
        ("odd", "bound", None),
        ("copying[raw-pixels]", "bound", "near"),
        ("recall[raw-pixels]", "bound", "higher"),
    ]


def test_reviews_and_the_decision_are_registered(root: Path) -> None:
    add(root, "toy", stage="published", reviewers=("bo", "ada"), accepted=True)
    add(root, "unread")
    add(root, "waiting", stage="v2", reviewers=("ada",), accepted=True)
    toy, unread, waiting = read(root)["projects"]
    assert (waiting["decision"], waiting["refereed"], waiting["published"]) == ("accept", False, None)
    assert [(r["reviewer"], r["recommendation"], r["findings"]) for r in toy["reviews"]] == [
        ("ada", "minor", {"minor": 1}),
        ("bo", "minor", {"minor": 1}),
    ]
    assert (toy["decision"], toy["refereed"], toy["published"]) == ("accept", True, "2026-05-03")
    assert (unread["reviews"], unread["decision"], unread["refereed"], unread["published"]) == ([], None, False, None)


def test_what_is_wrong_with_records_is_registered(root: Path) -> None:
    folder = add(root, "toy")
    (folder / "results/paper/k50").mkdir(parents=True)
    (folder / "results/paper/k50/record.json").write_text("{")
    (entry,) = read(root)["projects"]
    assert "record.json" in entry["problems"][0]
    assert str(root) not in json.dumps(entry)


def test_addresses_are_relative_until_the_sites_own_is_known(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(root, "toy", stage="published", accepted=True, reviewers=("ada",))
    assert (read(root)["url"], read(root)["projects"][0]["page"]) == (None, "projects/toy.html")
    assert "http" not in made(root)["robots.txt"]
    assert "http" not in made(root)["feed.xml"]
    monkeypatch.setenv("SITE_URL", f"{URL}/")
    assert read(root)["url"] == f"{URL}/"
    assert f"Sitemap: {URL}/sitemap.xml" in made(root)["robots.txt"].splitlines()
    assert [item.findtext("link") for item in items(root)] == [f"{URL}/projects/toy.html"]


def amendment(claim: str) -> dict[str, str]:
    return {"claim": claim, "date": "2026-04-01", "change": "changed", "reason": "it was misread"}


# -- The feed ----------------------------------------------------------------------------------------------------------


def items(root: Path) -> list[ET.Element]:
    feed = ET.fromstring(made(root)["feed.xml"])
    assert (feed.tag, feed.get("version")) == ("rss", "2.0")
    for needed in ("title", "link", "description"):
        assert feed.findtext(f"channel/{needed}")
    return feed.findall("channel/item")


def test_the_feed_holds_what_was_published_and_nothing_else(root: Path) -> None:
    for stage in STAGES:
        add(root, stage, stage=stage, reviewers=("ada",), accepted=stage == "published")
    (item,) = items(root)
    assert item.findtext("title") == "A Paper on published"
    assert "1 not attempted. Refereed by ada, and accepted." in (item.findtext("description") or "")
    assert item.find("guid[@isPermaLink='false']") is not None
    moment = parsedate_to_datetime(item.findtext("pubDate") or "")
    assert moment == datetime(2026, 5, 3, tzinfo=UTC)


def test_what_is_published_without_any_date_is_not_announced(root: Path) -> None:
    add(root, "toy", stage="published")
    assert items(root) == []


def test_the_latest_publication_stands_first_dated_by_the_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SITE_URL", raising=False)
    repository = Repository(empty(tmp_path / "r"))
    repository.git("init", "--quiet", "--initial-branch=main")
    for name in ("a", "b", "c"):
        add(repository.root, name, stage="v2")
    repository.commit(date="2026-03-01T12:00:00+00:00")
    for day, name in ((10, "b"), (20, "a"), (15, "c")):
        path = repository.root / "projects" / name / "project.yaml"
        # One key a line: the history looks for the line that begins with "stage:".
        lines = [f"{k}: {json.dumps(v)}" for k, v in json.loads(path.read_text()).items() if k != "stage"]
        path.write_text("\n".join(["stage: published", *lines, ""]))
        repository.commit(date=f"2026-06-{day}T12:00:00+00:00")
    found = [
        (i.findtext("link"), parsedate_to_datetime(i.findtext("pubDate") or "").day) for i in items(repository.root)
    ]
    assert found == [("projects/a.html", 20), ("projects/c.html", 15), ("projects/b.html", 10)]


def test_no_text_breaks_the_feed(root: Path) -> None:
    title = "A & B </title> ]]> 😀 <script>"
    add(root, "toy", stage="published", accepted=True, reviewers=("ada",), paper={"title": title})
    (item,) = items(root)
    assert item.findtext("title") == title
    assert register.xml_text("a\x00\x07\x1b\ufffe b\r\n c") == "a b c"


# -- Cards, and what pages say of themselves ---------------------------------------------------------------------------


def test_every_project_has_a_card_the_same_each_time(root: Path) -> None:
    add(root, "toy", paper={"title": "Words " * 60, "authors": ["Nobody" * 40]}, family="a-family-" * 6 + "x")
    publish(root, "toy", "laptop", "k50", picture=png(64, 48))
    add(root, "bare")
    drawn = []
    for _ in range(2):
        shutil.rmtree(root / "build", ignore_errors=True)
        (page,) = [p for p in register.pages(load_site(root)) if p.files]
        drawn.append({path: file.read_bytes() for path, file in page.files.items() if isinstance(file, Path)})
    assert sorted(drawn[0]) == [
        "assets/cards/projects/bare.png",
        "assets/cards/projects/toy.png",
        "assets/cards/site.png",
    ]
    assert drawn[0] == drawn[1]
    for path in page.files.values():
        with Image.open(str(path)) as image:
            assert image.size == CARD
            assert len(image.convert("RGB").getcolors(1 << 20) or []) > 8  # something is drawn


def test_a_card_changes_with_what_it_says(root: Path) -> None:
    add(root, "toy")
    site = load_site(root)
    first = card(site, site.standings[0])
    assert card(site, site.standings[0]) == first
    publish(root, "toy", "paper", "k50")
    site = load_site(root)
    assert card(site, site.standings[0]) != first


def test_a_broken_picture_leaves_the_words(root: Path) -> None:
    add(root, "toy")
    publish(root, "toy", "laptop", "k50", picture=png()[:60])
    site = load_site(root)
    with Image.open(card(site, site.standings[0])) as image:
        assert image.size == CARD


class Head(HTMLParser):
    """A page's meta elements by name, its title, and the scripts in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.meta: dict[str, str] = {}
        self.title, self.inside = "", ""
        self.inline: list[str] = []
        self.links: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.inside = tag
        if tag == "meta" and (name := found.get("property") or found.get("name")):
            self.meta[name] = found.get("content") or ""
        if tag == "link":
            self.links.append(found)

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "title" and not self.title:
            self.title = data
        if self.inside == "script":
            self.inline.append(data)


@pytest.mark.parametrize("url", ["", URL])
def test_pages_say_of_themselves_what_social_media_ask(root: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SITE_URL", url)
    attack = "\"'></title><script>alert(1)</script>"
    add(root, "toy", paper={"title": f"Toys & more {attack}"})
    shutil.copy(ROOT / "mkdocs.yml", root)
    shutil.copytree(ROOT / "referee/site/theme", root / "referee/site/theme")
    by_hand = ModuleType("by_hand")
    by_hand.pages = lambda site: [Page("guides/x.md", '# A "guide" & `<b>`\n')]  # type: ignore[attr-defined]
    monkeypatch.setattr(build, "MODULES", (home, project, register, by_hand))
    html = build.build(root).html
    guide = Head((html / "guides/x.html").read_text())
    assert guide.meta["og:title"] == 'A "guide" & <b>'
    page, front = (Head((html / path).read_text()) for path in ("projects/toy.html", "index.html"))
    assert page.meta["og:title"] == f"Toys & more {attack}"
    assert page.title.startswith("Toys & more \"'></title>")
    assert not any("alert(1)" in script for script in [*page.inline, *front.inline])
    assert page.meta["og:description"].startswith("Toys & more")
    assert page.meta["og:type"] == "article"
    assert front.meta["og:type"] == "website"
    assert {"href": "../feed.xml", "type": "application/rss+xml"}.items() <= next(
        link.items() for link in page.links if "feed" in (link["rel"] or "")
    )
    if url:
        assert page.meta["og:url"] == f"{URL}/projects/toy.html"
        for found, path in ((page, "projects/toy"), (front, "site")):
            assert found.meta["og:image"] == f"{URL}/assets/cards/{path}.png"
            assert (html / f"assets/cards/{path}.png").is_file()
    else:
        assert not {"og:url", "og:image"} & {*page.meta, *front.meta}
    for name in ("sitemap.xml", "sitemap.xml.gz", "404.html"):  # without an address they would be empty, or misled
        assert (html / name).is_file() == bool(url)
