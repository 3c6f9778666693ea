"""Where the hand-written pages stand: guides for developers, reviewers, editors and readers, and what they refer to.

CONTRIBUTING.md is cut into pages: each section 'As a …' is the guide of these people, the rest is the page that leads
to them. Other pages are shown as they are. Links are made right by `links`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from referee.intervals import EXPLAINED, explanation
from referee.project import paper_names
from referee.show import MARKS
from referee.site import measuring
from referee.site.links import Where, anchor, headings, looked_up, rewrite
from referee.site.model import Page, Site
from referee.site.writing import badge

CONTRIBUTING = "CONTRIBUTING.md"
INDEX = "guides/index.md"
LISTED = (
    "docs/readers.md",
    CONTRIBUTING,
    "reviews/README.md",
    "docs/tutorial.md",
    "docs/cluster.md",
    "docs/checks.md",
    "docs/grading.md",
    "docs/calibration.md",
    ".github/workflows/README.md",
    "docs/gpu_runner.md",
    "benchmarks/README.md",
)
"""Hand-written pages in the order of the navigation; further ones of docs/ follow."""

NAMES = {
    "reviews/README.md": "guides/reviews.md",
    ".github/workflows/README.md": "guides/workflows.md",
    "benchmarks/README.md": "guides/benchmarks.md",
}
"""Where those stand whose file's name does not say it."""

_PICTURE = re.compile(rf"^!\[[^\]]*\]\({re.escape(EXPLAINED.name)}\)$", re.MULTILINE)
_PEOPLE = re.compile(r"As an? (\w+)")


@dataclass(frozen=True)
class Guide:
    """A hand-written page: where it lies in the repository, where in the tree, and its text."""

    source: str
    path: str
    text: str


def guides(site: Site) -> Iterator[Guide]:
    """All hand-written pages but those about families, with links as they are in the repository."""
    found = sorted(p for p in (site.root / "docs").glob("*.md") if p.is_file() and not p.is_symlink())
    names = [*LISTED, *(f"docs/{p.name}" for p in found if f"docs/{p.name}" not in LISTED)]
    for name in names:
        path = site.root / name
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        if name == CONTRIBUTING:
            yield from _parts(text)
        else:
            yield Guide(name, NAMES.get(name, f"guides/{path.name}"), text)


def _parts(text: str) -> Iterator[Guide]:
    """CONTRIBUTING.md as the page that leads to the guides, and the guides."""
    lines = text.split("\n")
    cuts = [(number - 1, title) for number, level, title in headings(text) if level == 2]
    ends = [start for start, _ in cuts[1:]] + [len(lines)]
    rest = lines[: cuts[0][0]] if cuts else lines
    people: list[Guide] = []
    for (start, title), end in zip(cuts, ends, strict=True):
        if match := _PEOPLE.fullmatch(title):
            body = _raised("\n".join(lines[start:end]))
            people.append(Guide(CONTRIBUTING, f"guides/{match[1]}s.md", f"{body.rstrip()}\n"))
        else:
            rest = [*rest, *lines[start:end]]
    titles = [title for _, title in cuts if _PEOPLE.fullmatch(title)]
    links = "".join(f"- [{title}]({CONTRIBUTING}#{anchor(title)})\n" for title in titles)
    lead = "\n".join(rest)
    first = lead.find("\n## ")
    first = len(lead) if first < 0 else first
    yield Guide(CONTRIBUTING, INDEX, f"{lead[:first].rstrip()}\n\n{links}{lead[first:].rstrip()}\n")
    yield from people


def _raised(text: str) -> str:
    """A section with its headings one level up."""
    lines = text.split("\n")
    for number, level, _ in headings(text):
        if level > 1:
            lines[number - 1] = lines[number - 1].lstrip()[1:]
    return "\n".join(lines)


def where(site: Site) -> Where:
    """What the site has of the repository's files, for links from hand-written pages."""
    places = {"README.md": "index.md", CONTRIBUTING: INDEX, "course.yaml": "course/index.md"}
    marks: dict[str, dict[str, str]] = {CONTRIBUTING: {}}
    for guide in guides(site):
        if guide.source != CONTRIBUTING:
            places[guide.source] = guide.path
            continue
        for _, _, title in headings(guide.text):
            marks[CONTRIBUTING].setdefault(anchor(title), guide.path)
    readable = {s.project.name for s in site.standings}
    for paper in paper_names(site.root):
        if paper in readable:
            for name in ("", "/README.md", "/project.yaml"):
                places[f"projects/{paper}{name}"] = f"projects/{paper}.md"
    for path in sorted((site.root / "docs" / "families").glob("*.md")):
        places[f"docs/families/{path.name}"] = f"families/{path.name}"
    if (site.root / measuring.CONFORMANCE).is_file():
        places |= dict.fromkeys((measuring.CONFORMANCE, "benchmarks/conformance"), measuring.METRICS_PAGE)
    if any((site.root / measuring.BENCHMARKS).glob("*.json")):
        places[measuring.BENCHMARKS] = measuring.SPEED_PAGE
    return looked_up(places, marks)


def pages(site: Site) -> Iterable[Page]:
    """`guides/*.md`."""
    known = where(site)
    for guide in guides(site):
        text = rewrite(_drawn(guide.text), guide.source, guide.path, known, site.root, site.repository)
        yield Page(guide.path, _badged(_cloned(text, site.repository)))


def _cloned(text: str, repository: str) -> str:
    """A page whose commands begin with what gets the repository, where its address is known."""
    if not repository:
        return text
    return re.sub(
        r"^( *)(?=make setup && source )", rf"\1git clone {repository} papers && cd papers\n\1", text, flags=re.M
    )


def _drawn(text: str) -> str:
    """The drawn explanation of verdicts as a part of the page, in whose colours it then is."""
    return _PICTURE.sub(lambda _: f"<figure>{explanation(alone=False).strip()}</figure>", text)


def _badged(text: str) -> str:
    """Verdicts in the cells of a table as they look elsewhere on the site."""
    for status, (mark, _) in MARKS.items():
        text = text.replace(f"\n| {mark} {status} |", f"\n| {badge(status)} |")
    return text
