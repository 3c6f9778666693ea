"""The built sites, as a browser without a network shows them from a folder, and their links."""

import html
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.site.conftest import Visiting

REFEREED = {
    "home": "index.html",
    "project": "projects/toys.html",
    "proposal": "projects/early.html",
    "hostile project": "projects/hostile.html",
    "notebook": "projects/toys/notebook.html",
    "hostile notebook": "projects/hostile/notebook.html",
    "results": "results/toys.html",
    "all results": "results/index.html",
    "family": "families/vae.html",
    "families": "families/index.html",
    "guide": "guides/tutorial.html",
    "guides": "guides/index.html",
    "course": "course/index.html",
}
REAL = {
    "real home": "index.html",
    "real project": "projects/iwae.html",
    "real notebook": "projects/iwae/notebook.html",
    "real results": "results/mnist.html",
    "values in a fold": "results/binarized_mnist.html",
    "checks": "guides/checks.html",
    "metrics": "measuring/metrics.html",
    "speed": "measuring/benchmarks.html",
    "reference": "reference/index.html",
    "module": "reference/common.records.html",
}
PAGES = {name: ("refereed_site", path) for name, path in REFEREED.items()}
PAGES |= {name: ("real_site", path) for name, path in REAL.items()}

SHIFTS = """
window.shifted = 0;
new PerformanceObserver((list) => { for (const entry of list.getEntries()) window.shifted += entry.value; })
  .observe({ type: "layout-shift", buffered: true });
"""


@pytest.fixture(params=PAGES.values(), ids=PAGES)
def path(request: pytest.FixtureRequest) -> Path:
    """A page of each type."""
    site, name = request.param
    found: Path = request.getfixturevalue(site) / name
    return found


def test_a_page_is_quiet_stays_where_it_is_and_is_accessible(path: Path, visit: Visiting, axe: str) -> None:
    """All of it on one visit: in both themes, and on a phone."""
    with visit(path, script=SHIFTS, reduced_motion="reduce") as seen:
        page = seen.page
        page.evaluate("document.fonts.ready.then(() => new Promise((done) => setTimeout(done, 100)))")
        wrong = [f"moved by {moved:.3f}"] if (moved := page.evaluate("window.shifted")) > 0.02 else []
        page.evaluate(axe)
        page.add_style_tag(content="* { transition: none !important }")
        for theme, scheme in (("light", "default"), ("dark", "slate")):
            page.evaluate("(scheme) => { document.body.dataset.mdColorScheme = scheme; }", scheme)
            wrong += [f"{theme}: {barrier}" for barrier in _barriers(page)]
        page.set_viewport_size({"width": 360, "height": 800})
        page.evaluate("document.querySelectorAll('article details').forEach((fold) => { fold.open = true; })")
        if (width := page.evaluate("document.documentElement.scrollWidth")) > 360:
            wrong.append(f"{width} pixels wide on a screen of 360")
        assert [*wrong, *seen.errors, *seen.asked] == []


def test_dark_is_what_a_reader_asks_for(refereed_site: Path, visit: Visiting) -> None:
    for theme, scheme in (("light", "default"), ("dark", "slate")):
        with visit(refereed_site / "index.html", color_scheme=theme) as seen:
            assert seen.page.evaluate("document.body.dataset.mdColorScheme") == scheme


def _barriers(page: Any) -> list[str]:
    """What axe-core finds serious or critical, three examples of each."""
    found = page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false}).then((r) => r.violations)")
    return [
        f"{violation['id']}: {node['target']} {node['html'][:120]} {node['failureSummary'][-160:]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"][:3]
    ]


HARMLESS = """() => ({
  acted: window.pwned ?? null,
  handlers: [...document.querySelectorAll("article *")]
    .flatMap((e) => [...e.attributes]).filter((a) => a.name.startsWith("on")).map((a) => a.ownerElement.outerHTML),
  active: [...document.querySelectorAll(
    "article :is(script, style, link, iframe, object, embed, form, base, meta, svg script, foreignObject)"
  )].filter((e) => e.id !== "filters" && !/^(\\.\\.\\/)*assets\\//.test(e.getAttribute("src") ?? ""))
    .map((e) => e.outerHTML.slice(0, 200)),
  addresses: [...document.querySelectorAll("article [href], article [src], article [srcset], article [action]")]
    .flatMap((e) => [e.getAttribute("href"), e.getAttribute("src"), e.getAttribute("srcset"), e.getAttribute("action")])
    .filter((a) => a && !/^(https?:|mailto:|[#?]|[\\w.]+[^:]*$)/.test(a)),
  pictures: [...document.querySelectorAll("article img")].map((e) => e.src).filter((a) => !a.startsWith("file:")),
  ids: [...document.querySelectorAll("[id]")].map((e) => e.id).filter((id, i, all) => all.indexOf(id) !== i),
  outside: document.querySelectorAll(".md-overlay").length,
})"""


@pytest.mark.parametrize("name", ["hostile project", "hostile notebook", "home", "all results"])
def test_what_is_hostile_comes_out_harmless(name: str, refereed_site: Path, visit: Visiting) -> None:
    with visit(refereed_site / REFEREED[name]) as seen:
        for element in seen.page.query_selector_all("article a, article summary, article td, article h1, article h2")[
            :99
        ]:
            element.dispatch_event("mouseover")
            element.dispatch_event("focus")
        seen.page.wait_for_timeout(100)
        found = seen.page.evaluate(HARMLESS)
        assert found["acted"] is None
        assert found["handlers"] == []
        assert found["active"] == []
        assert found["addresses"] == []
        assert found["pictures"] == []
        assert found["ids"] == []
        assert found["outside"] == 1  # the theme's own
        assert seen.asked == []
        assert seen.errors == []


def test_formulas_are_set(refereed_site: Path, visit: Visiting) -> None:
    with visit(refereed_site / REFEREED["notebook"]) as seen:
        assert seen.page.evaluate("document.querySelectorAll('.arithmatex').length") == 3
        assert seen.page.evaluate("document.querySelectorAll('.arithmatex .katex-html').length") == 3
        assert seen.page.evaluate("document.querySelectorAll('.katex-error').length") == 0
        assert seen.page.evaluate("document.fonts.check('1em KaTeX_Main')")


def test_every_formula_is_one_that_katex_knows(real_site: Path, visit: Visiting) -> None:
    found = {
        (page.name, html.unescape(formula))
        for page in sorted(real_site.rglob("*.html"))
        for formula in re.findall(r'class="arithmatex">\\[(\[](.*?)\\[)\]]<', page.read_text("utf-8"), re.DOTALL)
    }
    assert len(found) > 20
    known = """(all) => all.flatMap(([page, tex]) => {
      try { katex.renderToString(tex); return []; } catch (error) { return [`${page}: ${error.message}`]; }
    })"""
    with visit(real_site / REAL["real notebook"]) as seen:
        assert seen.page.evaluate(known, sorted(found)) == []


@pytest.mark.parametrize("name", ["home", "project", "notebook", "all results"])
def test_what_acts_is_reached_by_keyboard_and_shows_it(name: str, refereed_site: Path, visit: Visiting) -> None:
    """Tab visits every control of a page's own content that is seen, in order, and each shows that it is the one."""
    with visit(refereed_site / REFEREED[name]) as seen:
        page = seen.page
        wanted = page.evaluate("""() => {
              const acts = "a[href], button, input, select, summary, [tabindex='0']";
              const seen = [...document.querySelectorAll(`article :is(${acts})`)]
                .filter((e) => e.checkVisibility() && !e.disabled && e.tabIndex >= 0 && !e.matches(".headerlink")
                               && (e.type !== "radio" || e.checked));
              seen.forEach((e, i) => { e.dataset.at = i; });
              return seen.length;
            }""")
        assert wanted > 3
        reached, unseen = [], []
        page.evaluate("const all = document.querySelector('article'); all.tabIndex = -1; all.focus()")
        for _ in range(wanted * 3):
            page.keyboard.press("Tab")
            at, inside, shown = page.evaluate("""() => {
                  const e = document.activeElement;
                  const outlined = (e) => {
                    const style = e && getComputedStyle(e);
                    return style && style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
                  };
                  const around = [e, e.labels?.[0], e.closest("li"), e.closest("label")];
                  return [e.dataset.at ?? null, Boolean(e.closest("article")), around.some(outlined)];
                }""")
            if not inside:
                break
            if at is not None and int(at) not in reached:
                reached.append(int(at))
                if not shown:
                    unseen.append(page.evaluate("document.activeElement.outerHTML.slice(0, 150)"))
        assert sorted(reached) == list(range(wanted))
        assert unseen == []


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("paper on toys", "projects/toys.html"),
        ("bits_per_dim", "results/toys.html"),
        ("autoregressive", "families/autoregressive.html"),
    ],
)
def test_search_works_from_a_folder(words: str, found: str, refereed_site: Path, visit: Visiting) -> None:
    with visit(refereed_site / "index.html") as seen:
        seen.page.keyboard.press("/")
        seen.page.keyboard.type(words, delay=10)
        seen.page.wait_for_selector(f".md-search-result__link[href*='{found}']", state="attached", timeout=15_000)
        assert seen.errors == []


@pytest.mark.parametrize(
    ("words", "first"), [("nll", "projects/"), ("AIS", "projects/"), ("NICE", "families/"), ("omniglot", "results/")]
)
def test_search_leads_first_to(words: str, first: str, real_site: Path, visit: Visiting) -> None:
    """Projects by what they measure, families by their own abbreviations, results by their data."""
    with visit(real_site / "index.html") as seen:
        seen.page.keyboard.press("/")
        seen.page.keyboard.type(words, delay=10)
        link = seen.page.locator(".md-search-result__link").first
        link.wait_for(state="attached", timeout=15_000)
        seen.page.wait_for_timeout(300)
        assert f"/{first}" in (link.evaluate("a => a.href") or "")


# -- Links, which need no browser --------------------------------------------------------------------------------------


class Parsed(HTMLParser):
    """A page's addresses and anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []  # tag, address
        self.anchors: set[str] = set()
        self.images: list[dict[str, str]] = []
        self.twice: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if name := given.get("id"):
            (self.twice if name in self.anchors else self.anchors).add(name)
        if tag == "a" and "name" in given:
            self.anchors.add(given["name"])
        self.links += [(tag, given[name]) for name in ("href", "src") if name in given]
        if tag == "img":
            self.images.append(given)


@pytest.fixture(scope="module", params=["refereed_site", "real_site"])
def parsed(request: pytest.FixtureRequest) -> dict[Path, Parsed]:
    """Every page of a site."""
    root: Path = request.getfixturevalue(request.param)
    pages = sorted(root.rglob("*.html"))
    return {page: Parsed(page.read_text(encoding="utf-8")) for page in pages}


def _targets(parsed: dict[Path, Parsed]) -> Iterator[tuple[Path, str, Path, str]]:
    """Page, address, file and anchor that it leads to, of all addresses inside of the site."""
    for page, content in parsed.items():
        for _, address in content.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            yield page, address, target, unquote(parts.fragment)


def test_every_link_leads_somewhere(parsed: dict[Path, Parsed]) -> None:
    broken = []
    for page, address, target, anchor in _targets(parsed):
        known = parsed.get(target)
        if not target.is_file() or (anchor and known and anchor not in known.anchors | {"__skip", "__search"}):
            broken.append(f"{page.name}: {address}")
    assert sorted(set(broken)) == []


def test_nothing_is_fetched_from_elsewhere(parsed: dict[Path, Parsed]) -> None:
    """Links may lead away; scripts, pictures and style sheets do not come from there."""
    for page, content in parsed.items():
        away = [a for tag, a in content.links if tag not in ("a", "area") and urlsplit(a).netloc]
        assert away == [], page.name
    root = next(p for p in parsed if p.name == "index.html" and (p.parent / "assets").is_dir()).parent
    for sheet in root.rglob("*.css"):
        for address in re.findall(r"url\(\s*[\"']?([^\"')]+)", sheet.read_text("utf-8")):
            if not address.startswith(("data:", "#")):
                assert (sheet.parent / urlsplit(address).path).is_file(), f"{sheet.name}: {address}"


def test_pictures_say_what_is_seen_and_take_their_room(parsed: dict[Path, Parsed]) -> None:
    for page, content in parsed.items():
        for picture in content.images:
            assert picture.get("alt"), f"{page.name}: {picture}"
            assert all(picture.get(side, "").isdigit() for side in ("width", "height")), f"{page.name}: {picture}"


def test_ids_are_given_once(parsed: dict[Path, Parsed]) -> None:
    assert {page.name: found.twice for page, found in parsed.items() if found.twice} == {}


def test_every_page_can_be_found_from_home(parsed: dict[Path, Parsed]) -> None:
    leads: dict[Path, set[Path]] = {}
    for page, _, target, _ in _targets(parsed):
        leads.setdefault(page, set()).add(target)
    home = min(parsed, key=lambda p: len(p.parts))
    home = next(p for p in parsed if p.name == "index.html" and len(p.parts) == len(home.parts))
    found, todo = set[Path](), [home]
    while todo:
        page = todo.pop()
        if page not in found:
            found.add(page)
            todo += leads.get(page, ())
    assert set(parsed) - found == set()
