"""Notebooks as Markdown: what a team wrote comes out, what would act does not, and nothing is converted twice."""

import base64
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import markdown
import pytest

from referee.project import Project
from referee.site import notebooks
from referee.site.model import Page, Site, load_site
from tests.site.refereed import ATTACKS, FLAG, notebook, png, shown

ACTIVE = re.compile(
    r"<(?:script|style|iframe|object|embed|form|input|button|svg|math|link|meta|base|noscript|details)"
    r"|<img(?! src=\"notebook/)"
    r"|<[^<>]*\son\w+\s*="
    r"|<[^<>]*(?:href|src|srcset|action|style)\s*=\s*[\"']?\s*(?:javascript|data|url\()",
    re.IGNORECASE,
)
"""HTML that does something, or asks somebody: of tags as they are, not of text that shows some."""


@pytest.fixture
def site(repository: Path, tmp_path: Path) -> Site:
    """The refereed collection, to be changed."""
    root = tmp_path / "copy"
    shutil.copytree(repository, root, ignore=shutil.ignore_patterns(".git", "build"))
    return load_site(root)


def page(site: Site, cells: list[dict[str, Any]] | str) -> Page:
    """The page of a notebook of these cells."""
    text = cells if isinstance(cells, str) else notebook(cells)
    (site.root / "projects" / "toys" / "toys.ipynb").write_text(text, encoding="utf-8")
    return notebooks.page(site, site.standing("toys"))


def text(site: Site, *cells: dict[str, Any]) -> str:
    found = page(site, list(cells)).text
    assert isinstance(found, str)
    return found


def said(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "source": source}


def ran(source: str, *outputs: dict[str, Any]) -> dict[str, Any]:
    return {"cell_type": "code", "source": source, "outputs": list(outputs)}


def printed(what: str) -> dict[str, Any]:
    return {"output_type": "stream", "name": "stdout", "text": what}


def html(source: str) -> str:
    """As mkdocs would make it: the extensions of mkdocs.yml."""
    front = source.split("---\n", 2)[2]
    extensions = ["abbr", "admonition", "attr_list", "def_list", "footnotes", "md_in_html", "tables", "toc"]
    pymdownx = ["arithmatex", "details", "highlight", "superfences", "tabbed"]
    return markdown.markdown(
        front,
        extensions=[*extensions, *(f"pymdownx.{name}" for name in pymdownx)],
        extension_configs={"pymdownx.arithmatex": {"generic": True}, "pymdownx.tabbed": {"alternate_style": True}},
    )


# -- What comes out ----------------------------------------------------------------------------------------------------


def test_words_code_and_what_it_printed(site: Site) -> None:
    made = html(text(site, said("# Toys\n\nSome *words*."), ran("print(1)", printed("1\n"))))
    assert "<h1" in made and ">Toys</h1>" in made  # noqa: PT018
    assert "Some <em>words</em>." in made
    assert '<span class="nb">print</span>' in made
    assert re.search(r"<pre[^>]*>1</pre>", made)


def test_headings_are_headings_of_the_page(site: Site) -> None:
    cells = (said("# Toys\n\n## 1. The $k$ of `k` {: #x }\n\ntext"), said("# Again\n\nUnder\n-----\n\n```\n# no\n```"))
    made = html(text(site, *cells))
    assert re.findall(r"<h(\d)[^>]*>(.*?)</h\d>", unescape(made)) == [
        ("1", "Toys"),
        ("2", '1. The <span class="arithmatex">\\(k\\)</span> of k {: #x }'),
        ("2", "Again"),
        ("2", "Under"),
    ]
    assert "<code># no\n</code>" in made


def test_without_a_heading_the_paper_gives_the_title(site: Site) -> None:
    assert "<h1" in html(text(site, said("words")))
    assert "A Paper on Toys</h1>" in html(text(site, said("words")))


def test_formulas_stay_formulas(site: Site) -> None:
    made = html(text(site, said("$a_1 < b_2$ and\n\n$$\\sum_i *w*_i$$")))
    assert r'<span class="arithmatex">\(a_1 &lt; b_2\)</span>' in made
    assert re.search(r'class="arithmatex">\\\[\\sum_i \*w\*_i\\\]', made)


def test_pictures_are_files_of_their_size(site: Site) -> None:
    content = png(30, 20)
    encoded = base64.encodebytes(content).decode()
    made = page(site, [said("## Samples"), ran("show()", shown(image_png=encoded), shown(image_png=[encoded]))])
    assert [Path(p).name for p in made.files] == ["1.png", "2.png"]
    first = made.files["projects/toys/notebook/1.png"]
    assert isinstance(first, Path)
    assert first.read_bytes() == content
    one, two = re.findall(r"<img [^>]*>", str(made.text))
    assert 'src="notebook/1.png"' in one
    assert 'width="30" height="20"' in one
    assert "under “Samples”" in one
    assert "lazy" not in one
    assert 'loading="lazy"' in two


def test_the_size_of_a_jpeg(site: Site) -> None:
    jpeg = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x0b\x08\x00\x14\x00\x1e\x01\x01\x11\x00\xff\xd9"
    assert 'width="30" height="20"' in text(site, ran("x", shown(image_jpeg=base64.b64encode(jpeg).decode())))


@pytest.mark.parametrize(
    "content", [b"not a picture", b"<svg/>", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", png(20_000, 1)]
)
def test_what_is_no_picture_is_shown_as_text(content: bytes, site: Site) -> None:
    encoded = base64.b64encode(content).decode()
    made = page(site, [ran("x", shown(image_png=encoded, text_plain="<Figure>"))])
    assert made.files == {}
    assert "&lt;Figure&gt;" in str(made.text)


def test_tables_stay_tables(site: Site) -> None:
    table = "<style>td{}</style><table border=1 class=x><tr><th colspan=2>a</th></tr><tr><td>1<br>2</td></tr></table>"
    made = text(site, ran("frame", shown(text_html=table, text_plain="a 1 2")))
    assert '<table><tbody><tr><th colspan="2">a</th></tr><tr><td>1<br>2</td></tr></tbody></table>' in made
    assert "a 1 2" not in made


def test_colours_and_what_was_overwritten_are_left_out(site: Site) -> None:
    bar = "\x1b[31mred\x1b[0m\x1b]8;;http://x\x07link\n10%\r50%\r100%\nend\n"
    error = {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["\x1b[0;31mE\x1b[0m: v", "line"]}
    made = text(site, ran("run()", printed(bar), error))
    assert ">redlink\n100%\nend</pre>" in made
    assert 'class="nb-output nb-error"' in made
    assert ">E: v\nline</pre>" in made


def test_control_characters_are_left_out(site: Site) -> None:
    evil = "a\x00\x02wzxhzdk:0\x03\x9b\x7fb"
    made = text(site, said(f"{evil}\n\n# {evil}"), ran(evil, printed(evil), shown(text_html=f"<table>{evil}")))
    assert made.count("awzxhzdk:0b") + made.count("awzxhzdk&#58;0b") == 5
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", made)


def test_of_much_output_the_beginning_is_shown(site: Site) -> None:
    made = text(site, ran("run()", printed("x" * 2000 + "\n" + "line\n" * 1000)))
    assert made.count("line\n") < 300
    assert "… 801 more lines" in made
    assert "x" * 501 not in made


def test_an_output_of_unknown_kind_says_so(site: Site) -> None:
    widget = {"output_type": "display_data", "metadata": {}, "data": {"application/vnd.widget": {"x": 1}}}
    assert "An output of the kind application/vnd.widget is not shown." in text(site, ran("w", widget))


def test_code_and_outputs_are_left_out_of_the_search(site: Site) -> None:
    made = html(text(site, said("found"), ran("hidden", printed("hidden\n"), shown(image_png=""))))
    excluded = re.sub(r"<div[^>]*data-search-exclude.*?</div>", "", made, flags=re.DOTALL)
    assert "hidden" in made
    assert "hidden" not in excluded
    assert "found" in excluded


def test_links_to_the_projects_files_lead_to_the_repository(site: Site) -> None:
    source = notebook([said("[code](toys.py) [m](mailto:a@b)")])
    made, _ = notebooks.convert(source, site.standing("toys"), "https://h.org/o/r")
    assert 'href="https://h.org/o/r/blob/HEAD/projects/toys/toys.py"' in made
    assert 'href="mailto:a@b"' in made
    assert "toys.py" not in notebooks.convert(source, site.standing("toys"))[0]


# -- What does not -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_acts(attack: str, site: Site) -> None:
    """As text, as code, and as each kind of output: the page's HTML holds no tag, attribute or address that acts."""
    kinds = (
        "text_html",
        "text_markdown",
        "text_latex",
        "text_plain",
        "image_svg",
        "image_png",
        "application_javascript",
    )
    table = f"<table onclick='{FLAG}'><tr><td>{attack}</td></tr></table>"
    error = {"output_type": "error", "ename": "E", "evalue": attack, "traceback": [attack]}
    outputs = [shown(image_svg=attack), shown(image_png=attack), shown(application_javascript=attack)]
    outputs += [*(shown(**{f"text_{kind}": attack}) for kind in kinds), shown(text_html=table), printed(attack), error]
    made = page(site, [said(attack), ran(attack, *outputs), said(f"a\n\n{attack}\n\nb"), ran(f"```\n{attack}\n````")])
    assert made.files == {}
    found = html(str(made.text))
    assert ACTIVE.findall(found) == []
    assert not re.search(r'<[^<>]*\bid="(?:__|x)', found)
    assert not re.search(r"<div[^<>]*class=\"md-", found)
    assert "evil.example" not in re.sub(r">[^<]*<", "><", re.sub(r'href="https://evil.example/"?[^"]*"', "", found))


def test_a_cell_does_not_reach_into_the_next(site: Site) -> None:
    """Whatever a cell leaves open is closed before the next begins."""
    for attack in ATTACKS:
        made = html(text(site, said(attack), ran(attack, printed(attack)), said("## The end\n\nlast *words*")))
        assert re.search(
            r'<h2 id="the-end">The end</h2>\s*<div class="nb-text">\s*<p>last <em>words</em></p>', made
        ), attack


@pytest.mark.parametrize(
    "evil", ["[a][" * 20_000, "1. " * 4000, "*a " * 10_000, "# " + "#" * 20_000, "`" * 20_000, "\x1b]" * 20_000]
)
def test_text_made_to_take_long_does_not(evil: str, site: Site) -> None:
    page(site, [said(evil), ran("x", printed(evil), shown(text_html=f"<table>{evil}"))])


@pytest.mark.parametrize(
    "broken", ["", "[]", "{}", '{"cells": 1, "nbformat": 4}', "\0", '{"cells": [{}], "nbformat": 4}']
)
def test_what_is_no_notebook_is_a_page_that_says_so(broken: str, site: Site) -> None:
    made = str(page(site, broken).text)
    assert "The notebook cannot be shown: it " in made


def test_a_link_out_of_the_project_is_not_followed(site: Site, tmp_path: Path) -> None:
    secret = tmp_path / "secret.ipynb"
    secret.write_text(notebook([said("secret")]))
    path = site.root / "projects" / "toys" / "toys.ipynb"
    path.unlink()
    path.symlink_to(secret)
    assert "secret" not in str(notebooks.page(site, site.standing("toys")).text)


# -- The cache ---------------------------------------------------------------------------------------------------------


def test_a_notebook_is_converted_when_it_changed_and_only_then(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    converted: list[str] = []
    convert = notebooks.convert

    def counting(text: str, *rest: Any) -> tuple[str, dict[str, bytes]]:
        converted.append(text)
        return convert(text, *rest)

    monkeypatch.setattr(notebooks, "convert", counting)
    one = page(site, [said("one")])
    assert page(site, [said("one")]) == one
    assert len(converted) == 1
    assert "two" in str(page(site, [said("two")]).text)
    assert len(converted) == 2
    monkeypatch.setattr(notebooks, "_converter", lambda: "a later version")
    page(site, [said("two")])
    assert len(converted) == 3
    assert len(list((site.root / "build" / "cache" / "notebooks" / "toys").iterdir())) == 1


def test_an_interrupted_conversion_leaves_nothing_that_counts(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    cells = [ran("x", shown(image_png=base64.b64encode(png()).decode()))]
    with monkeypatch.context() as patch:
        patch.setattr(notebooks.os, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            page(site, cells)
    made = page(site, cells)
    assert len(made.files) == 1
    assert len(list((site.root / "build" / "cache" / "notebooks" / "toys").iterdir())) == 1


def test_pages_are_of_projects_with_a_notebook(site: Site) -> None:
    assert sorted(made.path for made in notebooks.pages(site)) == [
        "projects/hostile/notebook.md",
        "projects/toys/notebook.md",
    ]
    assert not notebooks.has_notebook(Project(site.root, "early"))
