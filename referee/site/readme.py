"""What a team writes about its project in its README, as harmless HTML: everything but the generated tables.

A README has the shape of `templates/project/README.md`. Its paragraphs before the first heading, but for the one that
names the authors, say what the paper says; the other prose stands in the section it belongs to.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

import markdown
import nh3
from markupsafe import Markup

from referee.project import Project
from referee.tables import MARKER

MAX_README = 256 * 1024  # bytes
MAX_BRACKETS = 250  # opening ones: of text with more, reading takes the square of their number
RESULTS, DEVIATIONS, RUN, KNOW = (
    "What was claimed, what came out",
    "What differs from the paper",
    "Run it",
    "What to know",
)

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_PLACEHOLDER = re.compile(r"^\W*WRITE:", re.MULTILINE)
_TAGS = {
    "p", "br", "hr", "em", "strong", "code", "pre", "sub", "sup", "a", "ul", "ol", "li", "blockquote", "dl", "dt", "dd",
    "table", "thead", "tbody", "tr", "th", "td", "h3", "h4", "h5", "h6", "span", "div",
}  # fmt: skip


@dataclass(frozen=True)
class Readme:
    """The prose of a README.

    Attributes:
        lead: what the paper says.
        sections: title -> its prose, in order; without those that hold none.
    """

    lead: Markup = field(default_factory=Markup)
    sections: tuple[tuple[str, Markup], ...] = ()

    def section(self, title: str) -> Markup:
        """The prose of one section; nothing where there is none."""
        return dict(self.sections).get(title, Markup(""))

    @property
    def others(self) -> list[tuple[str, Markup]]:
        """The sections that have no place of their own on the page."""
        return [(title, prose) for title, prose in self.sections if title not in (RESULTS, DEVIATIONS, RUN, KNOW)]


def read(project: Project, repository: str = "") -> Readme:
    """A project's README; an empty one where it cannot be read.

    Args:
        repository: where links to the project's files lead; without it they become plain text.
    """
    path = project.folder / "README.md"
    try:
        if path.is_symlink() or path.stat().st_size > MAX_README:
            return Readme()
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return Readme()
    base = f"{repository}/blob/HEAD/projects/{project.name}/" if repository else ""
    parts = list(_parts(text))
    _, before = parts[0]
    blocks = re.split(r"\n\s*\n", before.strip())
    lead = harmless("\n\n".join(b for b in blocks[1:] if not _PLACEHOLDER.match(b)), base)
    sections = [(title, harmless(_written(body), base)) for title, body in parts[1:]]
    return Readme(lead, tuple((title, prose) for title, prose in sections if prose))


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """Title and text of what stands before the first heading of the second level, and of each such section; without
    the title of the whole and without what is generated."""
    title, lines, fence, generated = "", list[str](), "", False
    for line in text.splitlines():
        if match := _FENCE.match(line):
            if not fence:
                fence = match[1]
            elif match[1].startswith(fence):
                fence = ""
        elif not fence:
            if marker := MARKER.match(line):
                generated = not marker[1]
                continue
            if not generated and (heading := re.fullmatch(r"(##?)\s+(.*?)[\s#]*", line)):
                if heading[1] == "##":
                    yield title, "\n".join(lines)
                    title, lines = heading[2], []
                continue
        if not generated:
            lines.append(line)
    yield title, "\n".join(lines)


def _written(text: str) -> str:
    """Without the paragraphs that somebody still has to write."""
    return "\n\n".join(block for block in re.split(r"\n\s*\n", text) if not _PLACEHOLDER.match(block))


def harmless(text: str, base: str = "") -> Markup:
    """Untrusted Markdown as HTML that does nothing: no scripts, styles, pictures or links that act.

    What is nested without reason, or made to take long, comes out as it was written.

    Args:
        base: what relative links are relative to; without it they are no links.
    """
    try:
        if text.count("[") > MAX_BRACKETS:
            raise RecursionError
        html = markdown.markdown(
            text,
            extensions=["tables", "fenced_code", "sane_lists", "pymdownx.arithmatex"],
            extension_configs={"pymdownx.arithmatex": {"generic": True}},
        )
    except RecursionError:
        return Markup("<pre>{}</pre>").format(text)

    def rewrite(url: str) -> str | None:
        if not base or url.startswith(("#", "/")) or "\\" in url:
            return None
        return base + quote(url, safe="/#.-_~%")

    clean = nh3.clean(
        html,
        tags=_TAGS,
        attributes={"a": {"href"}},
        allowed_classes={"span": {"arithmatex"}, "div": {"arithmatex"}},
        url_schemes={"http", "https", "mailto"},
        url_relative=rewrite,
        link_rel="noopener",
    )
    return Markup(clean.strip())
