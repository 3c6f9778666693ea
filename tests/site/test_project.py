"""A project's page says what was claimed, what came out, whether to believe it, how to run it; nothing on it acts."""

import json
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown import Markdown
from mkdocs.config import load_config

from common.records import PRESETS_ORDER
from referee.probed import save_probes
from referee.project import Project
from referee.report import run_again
from referee.show import MARKS
from referee.site import project
from referee.site.model import Page, Site, load_site
from referee.site.readme import harmless, read
from tests.site.collection import ORDERING, VALUE, add, empty, png, publish, score
from tests.site.refereed import ATTACKS, FLAG

ROOT = Path(__file__).parents[2]
VOID = {"img", "input", "br", "col", "hr", "line", "circle", "rect", "path", "polyline"}


class Seen(HTMLParser):
    """What stands in a page's HTML: tags with their attributes, text by the id it stands under, ids, addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def values(self, attribute: str, tag: str = "") -> list[str]:
        return [attrs[attribute] for name, attrs in self.tags if attribute in attrs and tag in ("", name)]


def page_of(site: Site, paper: str) -> Page:
    return project.page(site, site.standing(paper))


@cache
def _reader() -> Markdown:
    """Markdown as mkdocs.yml has it."""
    config = load_config(str(ROOT / "mkdocs.yml"), docs_dir=str(ROOT / "docs"))
    return Markdown(extensions=config["markdown_extensions"], extension_configs=config["mdx_configs"])


def seen(page: Page) -> Seen:
    """The page as HTML, without what mkdocs puts around it."""
    _, _, body = str(page.text).partition("\n---\n")
    return Seen(_reader().reset().convert(body))


@pytest.fixture(scope="module")
def refereed(repository: Path) -> Site:
    return load_site(repository)


@pytest.fixture(scope="module")
def toys(refereed: Site) -> Page:
    return page_of(refereed, "toys")


# -- What a reader finds -----------------------------------------------------------------------------------------------


def test_every_verdict_is_there_in_words(refereed: Site, toys: Page) -> None:
    text = seen(toys).text
    statuses = {v.status for v in refereed.standing("toys").verdicts}
    assert statuses == set(MARKS)
    for status in MARKS:
        assert f"{MARKS[status][0]} {status}" in text or f"{MARKS[status][0]} 1 {status}" in text, status
    tally = re.search(r'<ul class="tally".*?</ul>', str(toys.text), re.DOTALL)
    assert tally
    for status in MARKS:
        assert status in tally[0]


def test_every_claim_can_be_linked_to_and_run_again(refereed: Site, toys: Page) -> None:
    found = seen(toys)
    for v in refereed.standing("toys").verdicts:
        assert found.values("id").count(f"claim-{v.claim}") == 1
        if not v.untried:
            assert run_again(v) in found.text
            assert v.ours.rpartition("/")[2] in found.text
        if v.kind == "value":
            assert v.paper in found.text
    assert "Measured, nll: toys, L_10." in found.text  # once for a table
    assert "k50 better than k5 by 1" in found.text
    assert found.text.count("from memory, not yet checked") >= 4


def test_what_is_shown_lies_beside_the_page(refereed: Site, toys: Page) -> None:
    for page in (toys, page_of(load_site(ROOT), "vae")):
        found = seen(page)
        beside = [a for a in (*found.values("href", "a"), *found.values("src", "img")) if "/results/" in a]
        assert beside
        for address in beside:
            assert f"projects/{address}" in page.files, address
        for path, content in page.files.items():
            assert isinstance(content, Path)
            assert content.is_file()
            assert path.startswith(f"projects/{page.path.removeprefix('projects/').removesuffix('.md')}/")


def test_weights_that_were_kept_say_where_they_are_from(tmp_path: Path) -> None:
    root = empty(tmp_path)
    add(root, "toys", claims=[VALUE])
    origin = {"finished": "2026-01-01", "git_sha": "c" * 40, "hardware": {"cpu": "B CPU"}, "environment": {}}
    publish(root, "toys", "paper", "k50", weights_sha256="d" * 64, trained=origin)
    publish(root, "toys", "paper", "k5", weights_sha256="e" * 64)
    text = seen(page_of(load_site(root), "toys")).text
    kept = f"finished 2026-01-01, commit {'c' * 40}, on B CPU"
    assert f"{'d' * 64}, trained by the same training code before: {kept}" in text
    assert f"Weights{'e' * 64}Data" in text.replace(" ", "")
    assert text.count("trained by the same training code") == 1


def test_pictures_take_their_room_and_are_described(toys: Page) -> None:
    pictures = [attrs for tag, attrs in seen(toys).tags if tag == "img"]
    assert len(pictures) >= 3
    for attrs in pictures:
        assert attrs["alt"]
        assert (attrs["width"], attrs["height"]) == ("320", "320")
    assert [("loading" in attrs) for attrs in pictures][:2] == [False, True]  # the first is seen at once


def test_a_value_is_shown_with_the_errors_of_both_sides(tmp_path: Path) -> None:
    root = empty(tmp_path)
    weighed = {**VALUE, "paper_stderr": 0.05}
    add(root, "toys", claims=[weighed, {**weighed, "id": "elsewhere", "run": "k5"}])
    publish(root, "toys", "paper", "k50", score(value=84.9, stderr=0.05))
    publish(root, "toys", "laptop", "k5", score(value=84.9, stderr=0.05))
    page = page_of(load_site(root), "toys")
    text = seen(page).text
    assert "84.7 ± 0.05 nats" in text
    said = "within tolerance: worse by 0.20 nats, between 0.01 and 0.39; tolerance 0.5"
    assert re.findall(r'<title id="(weighed-[^"]*)">([^<]*)</title>', str(page.text)) == [("weighed-nll-k50", said)]
    assert "Worse by 0.20 nats, between 0.01 and 0.39; tolerance 0.5." in text


def two_presets(tmp_path: Path, **claim: str) -> Path:
    """An ordering claimed for laptop and shown at workstation, beside a value that nobody has run as it was claimed."""
    root = empty(tmp_path)
    add(root, "toys", claims=[VALUE, {**ORDERING, **claim}])
    for preset in ("laptop", "workstation"):
        for run, nll, k in (("k50", 84.0, 50), ("k5", 86.0, 5)):
            publish(root, "toys", preset, run, score(value=nll), config={"k": k, "sizes": [2, 3]}, seed=7)
    return root


def test_an_ordering_says_at_which_preset_and_with_how_much_training_it_was_shown(tmp_path: Path) -> None:
    root = two_presets(tmp_path)
    text = seen(page_of(load_site(root), "toys")).text
    assert "✓ reproduced at workstation" in text
    assert "compute-limitedat workstation; claimed for paper" in text.replace("compute-limited at", "compute-limitedat")
    said = "1 ordering judged at preset workstation: 3,000"
    rest = (
        "; none of these ran at preset paper, with the paper's own schedule. One seed each (7); ± is over test examples"
    )
    assert f"{said} training steps{rest}" in text
    publish(root, "toys", "paper", "k50", score(), steps=120_000)
    text = seen(page_of(load_site(root), "toys")).text  # of k5 nothing is known, so nothing is said
    assert f"{said} training steps (k50: 3,000 of the paper preset's 120,000, 2.5 %). One seed each (7)" in text


def test_an_ordering_of_samplers_says_that_nothing_was_trained(tmp_path: Path) -> None:
    root = two_presets(tmp_path)
    for run in ("k50", "k5"):
        publish(root, "toys", "workstation", run, score(), steps=0)
    text = seen(page_of(load_site(root), "toys")).text
    assert "1 ordering judged at preset workstation: nothing trained, but taken from another project. One seed" in text


def test_the_command_makes_what_stands_beside_it(tmp_path: Path) -> None:
    text = seen(page_of(load_site(two_presets(tmp_path)), "toys")).text
    assert "run it againreferee run toys --preset workstation --only k50,k5" in text
    assert (
        "referee run toys --preset workstation --only k50as claimed:referee run toys --preset paper --only k50" in text
    )


def test_what_was_remembered_is_counted(tmp_path: Path) -> None:
    text = seen(page_of(load_site(two_presets(tmp_path / "a", certainty="mem")), "toys")).text
    assert "✓ reproduced1 of them from memory" in text
    assert "for 1 of the 2 claims, what the paper says was remembered and is not yet checked" in text
    assert "rom memory" not in seen(page_of(load_site(two_presets(tmp_path / "b")), "toys")).text


def test_names_of_runs_are_explained_by_their_settings(tmp_path: Path) -> None:
    text = seen(page_of(load_site(two_presets(tmp_path)), "toys")).text
    assert "Runk k55 k5050 " in text  # not the sizes, which are the same
    assert text.index("What the names of the runs stand for, at preset workstation") < text.index("nll: 2 runs")


def test_how_it_was_measured_stands_in_the_row_where_rows_differ(tmp_path: Path) -> None:
    root = two_presets(tmp_path)
    (root / "projects/toys/project.yaml").unlink()
    (root / "projects/toys").rename(root / "old")
    add(root, "toys", claims=[VALUE, {**VALUE, "id": "other", "run": "k5"}])
    publish(root, "toys", "paper", "k50", score(protocol="L_10"))
    publish(root, "toys", "paper", "k5", score(protocol="L_20"))
    text = seen(page_of(load_site(root), "toys")).text
    assert "measured: L_10" in text
    assert "measured: L_20" in text
    assert "Measured," not in text
    publish(root, "toys", "paper", "k5", score(protocol="L_10"))
    text = seen(page_of(load_site(root), "toys")).text
    assert "measured: L_10" not in text
    assert text.count("Measured, nll: L_10.") == 1


def test_how_to_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = two_presets(tmp_path)
    setup = "make setup && source .venv/bin/activate"
    text = seen(page_of(load_site(root), "toys")).text
    assert setup in text
    assert text.index(setup) < text.index("referee run toys --preset laptop #")
    assert "git clone" not in text
    monkeypatch.setenv("SITE_REPOSITORY", "https://forge.example/group/papers")
    found = seen(page_of(load_site(root), "toys"))
    assert "git clone https://forge.example/group/papers" in found.text
    assert "https://forge.example/group/papers/blob/HEAD/projects/toys/toys.py" in found.values("href", "a")


def test_the_teams_reading_and_the_reviews_come_first(toys: Page) -> None:
    order = [str(toys.text).index(f"{{ #{name}") for name in ("reading", "claims", "review", "compared", "curves")]
    assert order == sorted(order)
    assert "The gap of <em>missed</em>" in str(toys.text)[order[0] : order[1]]


def test_who_refereed_and_what_they_said(refereed: Site, toys: Page) -> None:
    text = seen(toys).text
    assert "Refereed by bo and carol, and accepted." in text
    assert "The step is wrong: it has another sign." in text
    assert "3 amended" not in text
    assert "1 amended since" in text
    early = seen(page_of(refereed, "early")).text
    assert "Only claims so far" in early
    assert "Refereed by" not in early


def test_what_the_team_wrote(toys: Page, refereed: Site) -> None:
    text = str(toys.text)
    assert "The paper shows that more samples help." in text
    assert r'<span class="arithmatex">\(L_k \le \log p(x)\)</span>' in text
    assert "The gap of <em>missed</em> is explained by its network." in text
    assert "Maker &amp; Player" not in text.split("## What was claimed")[0].split("## What the paper says")[1]
    assert "The team has not written it down yet." in str(page_of(refereed, "early").text)


def test_deviations_borrowed_code_and_how_to_cite(toys: Page) -> None:
    text = seen(toys).text
    for part in (
        "§5all of itsome of itunknown",
        "the shape of the loop",
        "@inproceedings{maker2016a,",
        "licence MIT",
    ):
        assert part in text, part
    assert "referee run toys --preset paper # 4 runs" in text


def test_learning_curves_tell_their_values(toys: Page) -> None:
    found = seen(toys)
    data, *_ = [json.loads(value) for value in found.values("data-lines")]
    lines = re.findall(r"<polyline", str(toys.text))
    assert len(lines) % len(data) == 0  # one for wide screens, one for phones
    for line in data:
        assert len(line["x"]) == len(line["y"]) == 50
        assert line["y"][-1] == pytest.approx(-90 - 50 / 51, abs=1e-3)
    assert "−90.980" in found.text
    for points in found.values("points", "polyline")[: len(data)]:
        assert len(points.split()) == 50


def test_stale_results_and_broken_records_are_said_on_top(tmp_path: Path) -> None:
    root = empty(tmp_path)
    folder = add(root, "toys", claims=[VALUE, ORDERING])
    (folder / "toys.py").write_text("x = 1\n")
    publish(root, "toys", "paper", "k50")
    (publish(root, "toys", "laptop", "k5") / "record.json").write_text("{")
    text = seen(page_of(load_site(root), "toys")).text.split("What the paper says")[0]
    assert "Stale. The code has changed since these ran: k50" in text
    assert "projects/toys/results/laptop/k5/record.json: not readable as JSON" in text


def test_a_project_without_results(tmp_path: Path) -> None:
    root = empty(tmp_path)
    add(root, "toys", stage="proposed", claims=[VALUE, ORDERING])
    page = page_of(load_site(root), "toys")
    text = seen(page).text
    assert "1 not attempted" in text
    for missing in ("Learning curves", "Pictures", "All scores", "The notebook"):
        assert missing not in str(page.text)
    assert page.files == {}


def test_pages_are_light(real_site: Path) -> None:
    """Without pictures: HTML, and what it loads."""
    for name in ("iwae", "vae"):
        html = real_site / "projects" / f"{name}.html"
        found = Seen(html.read_text(encoding="utf-8"))
        loaded = {*found.values("src", "script"), *(a["href"] for t, a in found.tags if a.get("rel") == "stylesheet")}
        weight = html.stat().st_size + sum((html.parent / a.split("?")[0]).stat().st_size for a in loaded if a)
        assert weight <= 600 * 1024, (name, weight)


# -- Nothing acts ------------------------------------------------------------------------------------------------------


def test_hostile_text_stays_text(refereed: Site) -> None:
    page = page_of(refereed, "hostile")
    found = seen(page)
    assert_harmless(found)
    assert found.unbalanced == []
    assert found.open == []
    assert not re.search(r"^\s*(```|~~~)", str(page.text), re.MULTILINE)
    assert FLAG in found.text  # shown, as text


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_readme_is_made_harmless(attack: str) -> None:
    for base in ("", "https://example.org/r/blob/HEAD/projects/x/"):
        assert_harmless(Seen(harmless(attack, base)))


def assert_harmless(found: Seen) -> None:
    for tag, attrs in found.tags:
        assert tag not in ("script", "style", "iframe", "object", "embed", "form", "base", "meta", "link", "math"), tag
        for name, value in attrs.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in ("style", "srcdoc", "formaction", "autofocus"), (tag, name)
            if name == "href":
                assert re.match(r"(https://|#|[a-z0-9_./-]+(\.html|\.json|\.md|\.png)(#|$))", value, re.A), value
            if name == "src":
                assert re.match(r"hostile/results/[a-z0-9_./-]+\.png$", value, re.A), value


def test_a_picture_cannot_pretend_to_be_a_page(tmp_path: Path) -> None:
    root = empty(tmp_path)
    figures = [("notebook.md", png()), (".hidden.png", b"no png"), ("big.png", b"\x89PNG\r\n\x1a\n")]
    claims = [
        {"id": f"f{i}", "kind": "figure", "source": "Figure 1", "certainty": "seen", "statement": "seen"}
        | {"dataset": "mnist", "preset": "laptop", "figure": name}
        for i, (name, _) in enumerate(figures)
    ]
    folder = add(root, "toys", claims=claims)
    for name, content in figures:
        (folder / name).write_bytes(content)
    assert page_of(load_site(root), "toys").files == {}


# -- README ------------------------------------------------------------------------------------------------------------


def readme(tmp_path: Path, text: str, repository: str = "") -> tuple[str, dict[str, str]]:
    folder = tmp_path / "projects" / "toys"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(text)
    found = read(Project(tmp_path, "toys"), repository)
    return str(found.lead), {title: str(prose) for title, prose in found.sections}


def test_prose_of_a_readme(tmp_path: Path) -> None:
    text = """# Toys

By them.

It says *this*.

WRITE: more of it.

## Run it

```sh
## not a heading
referee run toys
```

## What was claimed, what came out

<!-- referee:claims -->

| a | table |
|---|---|
## not one either

<!-- /referee:claims -->

It held.

## Empty

<!-- referee:results -->
made
<!-- /referee:results -->
"""
    lead, sections = readme(tmp_path, text)
    assert lead == "<p>It says <em>this</em>.</p>"
    assert list(sections) == ["Run it", "What was claimed, what came out"]
    assert "## not a heading" in sections["Run it"]
    assert sections["What was claimed, what came out"] == "<p>It held.</p>"


def test_links_of_a_readme_lead_to_the_repository_or_nowhere(tmp_path: Path) -> None:
    text = "# T\n\nBy.\n\n[a](toys.py) [b](../../docs/x.md#y) [c](//evil.example/x) [d](/etc) [e](https://arxiv.org/abs/1)\n"
    lead, _ = readme(tmp_path, text)
    assert re.findall(r'href="([^"]*)"', lead) == ["https://arxiv.org/abs/1"]
    lead, _ = readme(tmp_path, text, "https://example.org/r")
    base = "https://example.org/r/blob/HEAD/projects/toys"
    expected = [f"{base}/toys.py", f"{base}/../../docs/x.md#y", "https://arxiv.org/abs/1"]
    assert re.findall(r'href="([^"]*)"', lead) == expected
    assert lead.count('rel="noopener"') == 5


def test_a_readme_that_is_no_text(tmp_path: Path) -> None:
    folder = tmp_path / "projects" / "toys"
    folder.mkdir(parents=True)
    nothing = read(Project(tmp_path, "toys"))
    assert (nothing.lead, nothing.sections) == ("", ())
    (folder / "README.md").write_bytes(b"\xff\xfe")
    assert read(Project(tmp_path, "toys")) == nothing
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("/etc/passwd")
    assert read(Project(tmp_path, "toys")) == nothing


# -- Probes ------------------------------------------------------------------------------------------------------------


def test_probes_with_their_numbers(tmp_path: Path) -> None:
    root = empty(tmp_path)
    folder = add(root, "toys", probes=["bound"])
    (folder / "toys.py").write_text("x = 1\n")
    text = seen(page_of(load_site(root), "toys")).text
    assert "Declared: bound. What they came to was not published" in text
    results = [
        {
            "name": "bound",
            "statement": "L_1 <= <b>L_2</b>",
            "passed": True,
            "numbers": {"mean_gap": -0.25},
            "detail": "",
        },
        {
            "name": "sum",
            "statement": "it is 1",
            "passed": False,
            "numbers": {"sum": float("nan")},
            "detail": "it is not",
        },
    ]
    save_probes(Project(root, "toys"), results, "2026-05-06T07:08:09+00:00")
    text = seen(page_of(load_site(root), "toys")).text
    assert "1 of 2 passed, 2026-05-06" in text
    assert "L_1 <= <b>L_2</b>" in text
    assert "mean gap −0.25" in text
    assert "✗ failed" in text
    assert "sum nan" in text
    assert "code has changed since" not in text
    (folder / "toys.py").write_text("x = 1  # a comment\n")
    assert "code has changed since" not in seen(page_of(load_site(root), "toys")).text
    (folder / "toys.py").write_text("x = 2\n")
    assert seen(page_of(load_site(root), "toys")).text.count("code has changed since") == 2


def test_all_presets_are_explained(toys: Page) -> None:
    text = seen(toys).text
    for preset in PRESETS_ORDER:
        assert re.search(rf"\b{preset} \(", text), preset
