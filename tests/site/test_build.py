"""Pages become a tree, the tree a site: only what changed is written, and the old site stays until the end."""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.errors import UserError
from referee.cli import main
from referee.site import build as building
from referee.site.build import build, collect, navigation, write_tree
from referee.site.model import Page, Site, load_site
from tests.site.collection import add, empty, png, publish

ROOT = Path(__file__).parents[2]
Made = Callable[..., None]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(empty(tmp_path), ())


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """Modules that yield these pages, in place of the site's."""

    def put(**pages: Iterable[Page]) -> None:
        modules = [SimpleNamespace(__name__=name, pages=lambda _, found=found: found) for name, found in pages.items()]
        monkeypatch.setattr(building, "MODULES", modules)

    return put


@pytest.fixture
def small(tmp_path: Path, made: Made) -> Path:
    """A repository whose site is two pages."""
    root = empty(tmp_path)
    shutil.copy(ROOT / "mkdocs.yml", root)
    shutil.copytree(ROOT / "referee" / "site" / "theme", root / "referee" / "site" / "theme")
    made(one=[Page("index.md", "# Home\n\n[a](guides/a.md)\n")], two=[Page("guides/a.md", "# A\n\nText.\n")])
    return root


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


# -- The tree ----------------------------------------------------------------------------------------------------------


def test_pages_and_what_lies_beside_them(site: Site, made: Made) -> None:
    made(one=[Page("index.md", "# Home"), Page("a/x.md", "# X", {"a/x.png": b"png"})], two=[Page("b.json", b"{}")])
    pages, files, without = collect(site)
    assert list(pages) == ["index.md", "a/x.md", "b.json"]
    assert {"index.md": b"# Home", "a/x.md": b"# X", "a/x.png": b"png", "b.json": b"{}"}.items() <= files.items()
    assert "assets/site.css" in files
    assert without == []


def test_two_modules_that_make_the_same_path_are_refused(site: Site, made: Made) -> None:
    made(one=[Page("index.md")], two=[Page("x.md", "", {"index.md": b""})])
    with pytest.raises(UserError, match=r"two and one both make index\.md"):
        collect(site)


@pytest.mark.parametrize("path", ["/etc/x.md", "../x.md", "a/../../x.md", "a//x.md", "./x.md"])
def test_what_is_not_inside_the_tree_is_refused(path: str, site: Site, made: Made) -> None:
    made(one=[Page(path)])
    with pytest.raises(UserError, match="not inside the tree"):
        collect(site)


def test_no_link_leads_out_of_the_repository(site: Site, made: Made) -> None:
    folder = site.root / "projects" / "toys"
    folder.mkdir()
    (folder / "real").mkdir()
    (folder / "real" / "x.png").write_bytes(b"x")
    (folder / "linked").symlink_to("/etc")
    (folder / "x.png").symlink_to("/etc/hostname")
    made(one=[Page("a.md", "", {"a.png": folder / "real" / "x.png"})])
    assert collect(site)[1]["a.png"] == folder / "real" / "x.png"
    for path in (folder / "x.png", folder / "linked" / "hostname"):
        made(one=[Page("a.md", "", {"a.png": path})])
        with pytest.raises(UserError, match=r"projects/toys/\S+: is a link, or lies behind one"):
            collect(site)


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    tree, source = tmp_path / "tree", tmp_path / "source.png"
    source.write_bytes(b"one")
    write_tree(tree, {"a.md": b"A", "f/b.md": b"B", "f/c.png": source, "g/d.md": b"D"})
    assert (tree / "f" / "c.png").read_bytes() == b"one"
    inodes = {path: path.stat().st_ino for path in tree.rglob("*") if path.is_file()}
    write_tree(tree, {"a.md": b"A", "f/b.md": b"other", "f/c.png": source, "g/d.md": b"D"})
    changed = [path.name for path, inode in inodes.items() if path.stat().st_ino != inode]
    assert changed == ["b.md"]
    source.write_bytes(b"two")
    os.utime(source, ns=(1, 1))
    write_tree(tree, {"f/c.png": source})
    assert {p.relative_to(tree).as_posix(): p.read_bytes() for p in tree.rglob("*") if p.is_file()} == {
        "f/c.png": b"two"
    }
    assert not (tree / "g").exists()


def test_files_links_and_folders_take_each_others_places(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (tree / "x").symlink_to(outside)
    (tree / "y.md").symlink_to(outside / "kept")
    write_tree(tree, {"x/y.md": b"1", "y.md": b"2"})
    write_tree(tree, {"x": b"3", "y.md/z.md": b"4"})
    assert (tree / "x").read_bytes() == b"3"
    assert (tree / "y.md" / "z.md").read_bytes() == b"4"
    assert [p.name for p in outside.iterdir()] == ["kept"]
    assert (outside / "kept").read_text() == "kept"


def test_navigation() -> None:
    paths = ["projects/b.md", "guides/z.md", "guides/index.md", "results/x.md", "index.md", "register.json", "x.md"]
    nav = navigation(Page(path, f"# {path}") for path in paths)
    assert nav == [
        {"Papers": "index.md"},
        {"Results": [{"results/x.md": "results/x.md"}]},
        {"Guides": [{"guides/index.md": "guides/index.md"}, {"guides/z.md": "guides/z.md"}]},
    ]


# -- The site ----------------------------------------------------------------------------------------------------------


def test_the_same_repository_gives_the_same_bytes(repository: Path, refereed_site: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(repository, elsewhere, ignore=shutil.ignore_patterns("build"))
    again = build(elsewhere, output=tmp_path / "out").html
    assert digests(again) == digests(refereed_site)


class _Loaded(HTMLParser):
    """Addresses that a page loads by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and values.get("rel") in ("alternate", "canonical", "prev", "next"):
            return
        names = ("src", "srcset", "data", "poster", *(["href"] if tag == "link" else []))
        self.found += [value for name in names if (value := values.get(name))]


def test_no_page_loads_anything_from_elsewhere(refereed_site: Path) -> None:
    for page in refereed_site.rglob("*.html"):
        for address in _Loaded(page.read_text(encoding="utf-8")).found:
            assert not re.match(r"[a-z]+:|//", address), (page.name, address)
    for style in refereed_site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:|//)", style.read_text(encoding="utf-8")), style.name


def test_the_search_index_is_a_script_too(refereed_site: Path) -> None:
    index = (refereed_site / "search" / "search_index.json").read_text(encoding="utf-8")
    assert (refereed_site / "search" / "search_index.js").read_text(encoding="utf-8") == f"var __index = {index}"
    assert "A Paper on Toys" in index


def test_a_warning_is_said_and_strictly_an_error_that_leaves_the_old_site(small: Path, made: Made) -> None:
    built = build(small, strict=True)
    assert built.warnings == ()
    assert built.pages == 2
    before = digests(built.html)
    made(one=[Page("index.md", "# Changed\n\n[a](guides/none.md) [b](#nowhere)\n")])
    with pytest.raises(UserError) as error:
        build(small, strict=True)
    assert "guides/none.md" in str(error.value)
    assert "#nowhere" in str(error.value)
    assert str(small) not in str(error.value)
    assert digests(built.html) == before
    assert sorted(p.name for p in (small / "build" / "site").iterdir()) == [".lock", ".state.json", "html", "tree"]
    built = build(small)
    assert len(built.warnings) == 2
    assert "Changed" in (built.html / "index.html").read_text()


def test_what_is_wrong_with_one_project_is_said_and_the_site_is_built(small: Path) -> None:
    add(small, "toys")
    (publish(small, "toys", "paper", "k50") / "record.json").write_text("{")
    built = build(small)
    (warning,) = built.warnings
    assert warning.startswith("projects/toys/results/paper/k50/record.json")
    with pytest.raises(UserError, match=r"record\.json"):
        build(small, strict=True)


def test_an_interrupted_build_leaves_the_old_site(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    html = build(small).html
    before = digests(html)
    rename = os.replace

    def interrupted(source: Path, target: Path) -> None:
        if Path(source).name == ".new":
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patch:  # at the worst time: the old one is away, the new one not there
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build(small)
    assert digests(html) == before
    os.replace(html, html.with_name(".old"))  # as where the process was killed
    shutil.rmtree(small / "build" / "site" / "tree")
    monkeypatch.setattr(building, "_mkdocs", lambda *_, **__: pytest.fail("no further"))
    with pytest.raises(pytest.fail.Exception):
        build(small)
    assert digests(html) == before


def test_one_build_at_a_time(small: Path) -> None:
    output = small / "build" / "site"
    output.mkdir(parents=True)
    with open(output / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another build writes"):
            build(small)
    build(small)


def test_the_commands(small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(small)
    assert main(["site", "build", "--strict"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == ["2 pages", str(small / "build" / "site" / "html" / "index.html")]
    (small / "mkdocs.yml").unlink()
    assert main(["site", "build"]) == 1
    assert "has no mkdocs.yml" in capsys.readouterr().err
    assert main(["site"]) == 2


def test_a_port_that_is_taken_is_one_message(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import socket

    monkeypatch.chdir(small)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["site", "serve", "--port", str(port)]) == 2
    assert f"port {port} cannot be had" in capsys.readouterr().err


def test_every_module_that_makes_pages_is_asked() -> None:
    files = {path.stem for path in (ROOT / "referee" / "site").glob("*.py") if "\ndef pages(" in path.read_text()}
    assert {module.__name__.rpartition(".")[2] for module in building.MODULES} == files


def test_the_real_repository_has_no_problems() -> None:
    assert load_site(ROOT).problems == ()


# -- Building again what changed ---------------------------------------------------------------------------------------


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pages that mkdocs rendered, by path."""
    from mkdocs.structure.pages import Page as Rendered

    found: list[str] = []
    render = Rendered.render

    def noting(page: Rendered, *arguments: object) -> None:
        found.append(page.file.src_uri)
        render(page, *arguments)

    monkeypatch.setattr(Rendered, "render", noting)
    return found


def test_what_changed_is_built_and_all_is_as_if_built_anew(
    repository: Path, katex: None, tmp_path: Path, rendered: list[str]
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(repository, root, ignore=shutil.ignore_patterns("build"))
    build(root)
    everything = set(rendered)
    rendered.clear()
    build(root)
    assert rendered == []

    folder = root / "projects" / "toys"
    (folder / "README.md").write_text("# A Paper on Toys\n\nBy them.\n\nA wholly new sentence.\n")
    (folder / "results" / "laptop" / "small" / "samples.png").write_bytes(png(30, 20))
    again = build(root).html
    assert set(rendered) == {"projects/toys.md"}
    assert "A wholly new sentence" in (again / "search" / "search_index.json").read_text()
    rendered.clear()
    assert digests(again) == digests(build(root, output=tmp_path / "anew").html)
    assert set(rendered) == everything


def test_all_is_built_where_all_pages_show_what_changed(small: Path, made: Made, rendered: list[str]) -> None:
    def pages(title: str, *more: Page) -> None:
        made(one=[Page("index.md", "# Home"), Page("guides/a.md", f"# {title}"), *more])

    def again(**keywords: bool) -> list[str]:
        rendered.clear()
        build(small, **keywords)
        return sorted(rendered)

    pages("A")
    both = ["guides/a.md", "index.md"]
    assert again() == both
    assert again() == []
    assert again(strict=True) == both  # every link is checked
    assert again() == []
    pages("B")  # stands in the navigation
    assert again() == both
    pages("B", Page("x.md", "# X"))  # links to it are right now
    assert again() == [*both, "x.md"]
    pages("B")
    assert again() == both
    assert not (small / "build" / "site" / "html" / "x.html").exists()
    (small / "mkdocs.yml").write_text((small / "mkdocs.yml").read_text() + "copyright: someone\n")
    assert again() == both
    (small / "build" / "site" / ".state.json").write_text("{")
    assert again() == both


def test_a_warning_is_said_again_and_again(small: Path, made: Made) -> None:
    made(one=[Page("index.md", "# Home\n\n[gone](none.md)\n"), Page("guides/a.md", "# A")])
    for _ in range(2):
        (warning,) = build(small).warnings
        assert "none.md" in warning


def test_titles_in_the_navigation() -> None:
    def title(text: str) -> str:
        ((section,),) = (found.values() for found in navigation([Page("guides/index.md", text)]))
        ((name, _),) = section[0].items()
        return str(name)

    assert title('---\ntitle: "A \\u0026lt;b\\u0026gt;"\nhide: [navigation]\n---\n\n# Other\n') == "A &lt;b&gt;"
    assert title("---\nhide: [toc]\n---\nText.\n\n# `common.records` { #top }\n\n## Two\n") == "common.records"
    assert title("no heading") == "index"
