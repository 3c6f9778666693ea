"""The gallery's filters and the tables' heads, in a browser, by keyboard, from a folder on disk."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from referee.site import build, home, results
from tests.site.collection import FAMILIES, many

ROOT = Path(__file__).parents[2]
N = 60


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home page and the results of a collection of invented projects."""
    root = many(tmp_path_factory.mktemp("many") / "repository", N)
    shutil.copy(ROOT / "mkdocs.yml", root)
    shutil.copytree(ROOT / "referee/site/theme", root / "referee/site/theme")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "MODULES", (home, results))
        return build.build(root).html


@pytest.fixture
def page(gallery: Path, visit: Any) -> Iterator[Any]:
    with visit(gallery / "index.html") as visited:
        yield visited.page
        assert visited.errors == []
        assert visited.asked == []


def shown(page: Any) -> list[str]:
    """The names of the projects that are seen, in order."""
    links = page.locator("#projects > li:visible h2 a")
    return [
        str(link).removesuffix(".html").rpartition("/")[2] for link in links.evaluate_all("a => a.map(x => x.href)")
    ]


def data(page: Any, name: str) -> list[str]:
    """What the projects that are seen say of themselves, in order."""
    found: list[str] = page.locator("#projects > li:visible").evaluate_all(f"l => l.map(x => x.dataset.{name})")
    return found


def query(page: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def said(page: Any) -> str:
    return str(page.get_by_role("status").filter(has_text="project").inner_text())


def tab_to(page: Any, name: str) -> None:
    """Press Tab until a control of the filters has the focus."""
    for _ in range(60):
        if page.evaluate("document.activeElement.name || document.activeElement.id") == name:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to {name}")


def test_all_projects_are_shown_at_first(page: Any) -> None:
    assert len(shown(page)) == N
    assert said(page) == f"{N} projects"
    assert not page.locator("#clear").is_visible()


def test_typing_finds_by_words_in_any_order_whatever_the_case(page: Any) -> None:
    tab_to(page, "q")
    page.keyboard.type("KIND 59")
    assert shown(page) == ["p059"]
    assert said(page) == f"1 of {N} projects"
    assert query(page) == {"q": ["KIND 59"]}


def test_a_filter_is_chosen_by_keyboard_announced_and_kept_in_the_address(page: Any) -> None:
    tab_to(page, "family")
    page.keyboard.type("flow")
    expected = [i for i in range(N) if FAMILIES[i % 6] == "flow"]
    assert sorted(shown(page)) == [f"p{i:03}" for i in expected]
    assert said(page) == f"{len(expected)} of {N} projects"
    assert query(page) == {"family": ["flow"]}
    page.reload()
    assert len(shown(page)) == len(expected)
    assert page.locator("select[name=family]").input_value() == "flow"


def test_filters_narrow_each_other_and_are_taken_off_together(page: Any) -> None:
    for name, value in (("family", "vae"), ("stage", "published")):
        page.locator(f"select[name={name}]").select_option(value)
    assert set(data(page, "family")) == {"vae"}
    assert set(data(page, "stage")) == {"published"}
    tab_to(page, "clear")
    page.keyboard.press("Enter")
    assert len(shown(page)) == N
    assert query(page) == {}
    assert page.evaluate("document.activeElement.name") == "q"  # not lost with the button


def test_nothing_found_is_said(page: Any) -> None:
    tab_to(page, "q")
    page.keyboard.type("no such paper")
    assert shown(page) == []
    assert said(page) == f"0 of {N} projects"
    assert page.locator("#nothing").is_visible()


def test_the_order_can_be_changed_and_restored(page: Any) -> None:
    first = shown(page)
    order = page.locator("select[name=sort]")
    order.select_option("newest")
    years = [int(y) for y in data(page, "year")]
    assert years == sorted(years, reverse=True)
    order.select_option("title")
    titles = data(page, "title")
    assert titles == sorted(titles, key=lambda t: int(t.split()[1]))  # "Paper 9" before "Paper 10"
    order.select_option("held")
    held = [float(h) for h in data(page, "held")]
    assert held == sorted(held, reverse=True)
    assert query(page) == {"sort": ["held"]}
    order.select_option("")
    assert shown(page) == first


def test_an_address_brings_back_what_was_asked(gallery: Path, visit: Any) -> None:
    with visit(gallery / "index.html", anchor="?verdict=reproduced&sort=oldest&stage=nonsense") as visited:
        page = visited.page
        assert all("reproduced" in v.split() for v in data(page, "verdict"))
        assert 0 < len(shown(page)) < N
        years = data(page, "year")
        assert years == sorted(years)
        assert page.locator("select[name=stage]").input_value() == ""


def test_the_numbers_lead_to_the_projects_that_they_count(page: Any) -> None:
    page.locator(".front .verdicts a", has_text="not reproduced").click()
    page.wait_for_load_state()
    found = data(page, "verdict")
    assert 0 < len(found) < N
    assert all("not-reproduced" in v.split() for v in found)


def test_without_scripts_all_projects_are_there(gallery: Path, visit: Any) -> None:
    with visit(gallery / "index.html", java_script_enabled=False) as visited:
        assert visited.page.locator("#projects > li:visible").count() == N


def test_a_key_touches_only_the_cards_that_come_or_go(page: Any) -> None:
    """What makes it fast with hundreds of projects: nothing else is written, and nothing off the screen is laid out."""
    page.evaluate("""() => { window.changes = 0;
        new MutationObserver((all) => { window.changes += all.length; })
          .observe(document.getElementById("projects"), {subtree: true, childList: true, attributes: true}); }""")
    tab_to(page, "q")
    page.keyboard.type("paper")  # all of them
    assert page.evaluate("window.changes") == 0
    page.keyboard.type(" 59")
    assert shown(page) == ["p059"]
    hidden_once = page.evaluate("window.changes")
    assert hidden_once == N - 1
    styles = page.locator("#projects > li").evaluate_all(
        "l => [...new Set(l.map(x => getComputedStyle(x).contentVisibility))]"
    )
    assert styles == ["auto"]


def test_a_link_in_a_card_shows_that_it_has_the_focus(page: Any) -> None:
    page.locator("#projects h2 a").first.focus()
    outline = page.locator("#projects > li").first.evaluate("x => getComputedStyle(x).outlineStyle")
    assert outline == "solid"


def test_tab_stops_at_a_link_to_the_contents_and_nowhere_unseen(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#start"
    assert page.locator("#start").count() == 1
    tab_to(page, "q")
    page.evaluate("document.activeElement.blur(); document.querySelector('.md-search__input').focus()")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.checkVisibility({visibilityProperty: true, opacityProperty: true})")
    assert not page.evaluate("document.activeElement.matches('.md-search__scrollwrap, body')")


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen(gallery: Path, visit: Any, width: int) -> None:
    for path in ("index.html", "results/index.html", "results/mnist.html"):
        with visit(gallery / path, viewport={"width": width, "height": 740}) as visited:
            assert visited.page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_on_a_phone_all_filters_and_the_whole_name_are_seen(gallery: Path, visit: Any) -> None:
    with visit(gallery / "index.html", viewport={"width": 360, "height": 740}) as visited:
        for field in visited.page.locator("#filters :is(input, select)").all():
            box = field.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 360
        cut = visited.page.locator(".md-header__topic .md-ellipsis").first.evaluate(
            "x => x.scrollWidth > x.clientWidth || x.scrollHeight > x.clientHeight"
        )
        assert not cut


def test_an_address_that_asks_for_some_shows_no_others_first(gallery: Path, visit: Any) -> None:
    with visit(gallery / "index.html", anchor="?q=59") as visited:
        page = visited.page
        page.wait_for_timeout(200)
        moved = page.evaluate("""() => new Promise(done => { let sum = 0; new PerformanceObserver(l => {
            for (const e of l.getEntries()) sum += e.value; }).observe({type: "layout-shift", buffered: true});
            setTimeout(() => done(sum), 200); })""")
        assert shown(page) == ["p059"]
        assert moved < 0.02


# -- Tables of results -------------------------------------------------------------------------------------------------


def test_a_table_is_sorted_by_keyboard_and_says_so(gallery: Path, visit: Any) -> None:
    with visit(gallery / "results" / "mnist.html") as visited:
        page = visited.page
        table = page.locator("table.results").first
        column = table.locator("thead th", has_text="Paper")
        at = column.evaluate("x => x.cellIndex")

        def values() -> list[str | None]:
            found: list[str | None] = table.locator("tbody tr").evaluate_all(
                f"rows => rows.map(r => r.cells[{at}].dataset.value ?? null)"
            )
            return found

        button = column.get_by_role("button")
        button.focus()
        for direction in ("ascending", "descending"):
            page.keyboard.press("Enter")
            assert column.get_attribute("aria-sort") == direction
            numbers = [float(v) for v in values() if v is not None]
            assert numbers == sorted(numbers, reverse=direction == "descending")
            assert 1 < len(set(numbers)) < len(values())
            assert all(v is None for v in values()[len(numbers) :])  # what has no value stands last, either way
        head = table.locator("thead th", has_text="Run")
        head.get_by_role("button").click()
        assert column.get_attribute("aria-sort") is None
        names = table.locator("tbody th").all_inner_texts()
        assert names == sorted(names)
        assert visited.errors == []
