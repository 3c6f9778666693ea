"""Sites built once a session, and a browser without a network to look at them."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from referee.site.build import build
from referee.site.vendor import AXE, KATEX, VendorError, fetch
from tests.site import refereed

ROOT = Path(__file__).parents[2]
LOCAL = ("file://", "data:", "blob:", "about:")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND"),
]


@pytest.fixture(scope="session")
def katex() -> None:
    """Needed where a formula has to be set; without it the test is skipped."""
    try:
        fetch(KATEX)
    except VendorError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    try:
        return fetch(AXE)["axe.min.js"].decode()
    except VendorError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The refereed collection (see `refereed`): not to be changed."""
    return refereed.make(tmp_path_factory.mktemp("refereed"))


@pytest.fixture(scope="session")
def refereed_site(katex: None, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The refereed collection's site, built without a warning: its folder of HTML."""
    return build(repository, strict=True, output=tmp_path_factory.mktemp("built")).html


@pytest.fixture(scope="session")
def real_site(katex: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This repository's site, built without a warning."""
    return build(ROOT, strict=True, output=tmp_path_factory.mktemp("real")).html


@dataclass
class Visit:
    """A page in the browser (Playwright's `Page`), and what went wrong on it.

    Attributes:
        errors: of its console and its scripts.
        asked: addresses outside of the folder that were asked for.
    """

    page: Any
    errors: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


Visiting = Callable[..., AbstractContextManager[Visit]]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser of this machine, whose network leads nowhere; the test is skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("CHROMIUM") or next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine; install one, or name it in CHROMIUM")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def visit(chromium: Any) -> Visiting:
    """Open a page as a reader does who has the site in a folder: `with visit(path, color_scheme="dark") as seen:`.

    Keywords are those of Playwright's `Browser.new_context`; `script` runs before the page's own, `anchor` is what
    stands behind the path.
    """

    @contextmanager
    def visiting(path: Path, *, anchor: str = "", script: str = "", **context: Any) -> Iterator[Visit]:
        opened = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        try:
            page = opened.new_page()
            made = Visit(page)
            page.on("console", lambda said: made.errors.append(said.text) if said.type == "error" else None)
            page.on("pageerror", lambda error: made.errors.append(str(error)))
            page.on("request", lambda r: None if r.url.startswith(LOCAL) else made.asked.append(r.url))
            if script:
                page.add_init_script(script)
            page.goto(path.as_uri() + anchor)
            yield made
        finally:
            opened.close()

    return visiting
