"""A project's page in the browser: curves that tell their values, search in a folder."""

from pathlib import Path

from tests.site.conftest import Visiting


def test_the_slider_tells_the_values_at_a_step(refereed_site: Path, visit: Visiting) -> None:
    with visit(refereed_site / "projects" / "toys.html") as seen:
        figure = seen.page.locator("figure.curves").first
        slider, step, value = (figure.locator(what).first for what in ("input[type=range]", "output", ".reading b"))
        assert (step.inner_text(), value.inner_text()) == ("50", "−90.980")
        slider.focus()
        seen.page.keyboard.press("Home")
        assert (step.inner_text(), value.inner_text()) == ("1", "−115.00")
        seen.page.keyboard.press("ArrowRight")
        assert (step.inner_text(), value.inner_text()) == ("2", "−106.67")
        assert slider.get_attribute("aria-valuetext").startswith("step 2: ")
        assert figure.locator("svg:visible .cursor").evaluate("line => line.style.visibility") == "visible"
        assert seen.errors == []


def test_the_pointer_tells_them_too(refereed_site: Path, visit: Visiting) -> None:
    with visit(refereed_site / "projects" / "toys.html") as seen:
        figure = seen.page.locator("figure.curves").first
        chart = figure.locator("svg:visible")
        chart.scroll_into_view_if_needed()
        box = chart.bounding_box()
        seen.page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] / 2)
        step = int(figure.locator("output").inner_text())
        assert 2 < step < 49
        cursor = figure.locator("svg:visible .cursor").bounding_box()
        assert abs(cursor["x"] - (box["x"] + box["width"] * 0.3)) < box["width"] / 49


def test_without_a_script_the_values_at_the_end_are_there(refereed_site: Path, visit: Visiting) -> None:
    with visit(refereed_site / "projects" / "toys.html", java_script_enabled=False) as seen:
        figure = seen.page.locator("figure.curves").first
        assert figure.locator("output").inner_text() == "50"
        assert figure.locator(".reading b").first.inner_text() == "−90.980"
        assert figure.locator("input").is_disabled()


def test_search_works_in_a_folder(refereed_site: Path, visit: Visiting) -> None:
    with visit(refereed_site / "projects" / "early.html") as seen:
        seen.page.keyboard.press("/")
        seen.page.keyboard.type("missed explained network", delay=10)  # the theme looks at keys, not at the value
        found = seen.page.locator(".md-search-result__link[href*='projects/toys.html']").first
        found.wait_for(state="attached", timeout=15_000)
        assert seen.errors == []
        assert seen.asked == []
