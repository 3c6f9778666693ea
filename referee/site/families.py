"""A page per family of models: its idea, by hand in docs/families; its projects and probes, from the repository."""

import ast
import importlib.util
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from referee.checklist import load_checklist
from referee.documents import parse_yaml, split_front_matter
from referee.project import UsageError
from referee.schema import Name, Part, Slug, Text
from referee.show import MARKS
from referee.site.guides import where
from referee.site.links import rewrite
from referee.site.model import Page, Site
from referee.site.writing import badge, md, table
from referee.standing import Standing
from referee.tables import fill
from referee.verdicts import Status

FOLDER = "docs/families"


class Head(Part):
    """The front matter of a page about a family."""

    family: Slug
    """As in `family` of a project.yaml."""
    title: Text
    probes: list[Name]
    """Those of `common.probes` that apply to it."""


@dataclass(frozen=True)
class Family:
    """A family of models: what is written about it (nothing, where `text` is empty) and its projects."""

    name: str
    title: str
    probes: tuple[str, ...]
    text: str
    members: tuple[Standing, ...]

    @property
    def path(self) -> str:
        """Its page in the tree."""
        return page(self.name)


def page(family: str) -> str:
    """Where a family's page stands in the tree."""
    return f"families/{family}.md"


def families(site: Site) -> list[Family]:
    """The families that something is written about or that a project belongs to, in the checklist's order.

    Raises:
        DocumentError: the front matter of a page is wrong.
        UsageError: a page lies under another name than that of its family, or names a probe that there is not.
    """
    found: dict[str, Family] = {}
    known = list(load_checklist().families)
    members: dict[str, list[Standing]] = {}
    for s in site.standings:
        members.setdefault(s.file.family, []).append(s)
    for path in sorted((site.root / FOLDER).glob("*.md")):
        shown = f"{FOLDER}/{path.name}"
        source, first, body, _ = split_front_matter(path.read_text(encoding="utf-8"), rules="FAM", shown=shown)
        head = parse_yaml(source, Head, rules="FAM", shown=shown, first_line=first)
        if head.family != path.stem:
            raise UsageError(f"{shown}: is about the family '{head.family}'; call it {head.family}.md.")
        if unknown := [name for name in head.probes if name not in registry()]:
            raise UsageError(f"{shown}: there is no probe '{unknown[0]}'. Probes: {', '.join(registry())}.")
        there = tuple(members.get(path.stem, ()))
        found[path.stem] = Family(path.stem, head.title, tuple(head.probes), body.strip() + "\n", there)
    for name, standings in members.items():
        if name not in found:
            found[name] = Family(name, name, (), "", tuple(standings))
    order = {name: i for i, name in enumerate(known)}
    return sorted(found.values(), key=lambda f: (order.get(f.name, len(order)), f.name))


class Probe(NamedTuple):
    """An executable check of the mathematics: what it checks, and the module that has it."""

    checks: str
    module: str


@cache
def registry() -> dict[str, Probe]:
    """The probes there are, as `common.probes` lists and imports them; it is read, not run."""
    found = importlib.util.find_spec("common")
    assert found is not None
    assert found.origin is not None
    source = (Path(found.origin).parent / "probes" / "__init__.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    listed = re.findall(r"^    ([a-z_]+) {2,}(\S.*)$", ast.get_docstring(tree, clean=False) or "", re.MULTILINE)
    imported = {a.name: n.module or "" for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
    return {name: Probe(checks, imported[name]) for name, checks in listed if name != "probe"}


def pages(site: Site) -> Iterable[Page]:
    """`families/index.md` and `families/<family>.md`."""
    found = families(site)
    yield Page("families/index.md", _index(found))
    known = where(site)
    for family in found:
        source = f"{FOLDER}/{family.name}.md"
        text = family.text or (
            f"# {md(family.name)}\n\nNothing is written about this family yet.\n\n## Projects\n\n"
            "<!-- referee:projects -->\n<!-- /referee:projects -->\n"
        )
        text = rewrite(text, source, family.path, known, site.root, site.repository)
        explained = (site.root / "common" / "__init__.py").is_file()
        generated = {"projects": partial(projects, family), "probes": partial(probes, family, explained)}
        yield Page(family.path, fill(text, generated, source))


def _index(found: Iterable[Family]) -> str:
    rows = []
    said = load_checklist().families
    for family in found:
        counts = Counter(v.status for s in family.members for v in s.verdicts)
        rows.append(
            [
                f"[{md(family.title)}]({family.name}.md)",
                md(said.get(family.name, "")),
                str(len(family.members)) if family.members else "none yet",
                badges(counts),
            ]
        )
    lead = (
        "What models of a kind have in common: the idea, its equation, what a machine can check, and what usually goes "
        "wrong. A project belongs to one family, which decides what its reviewers look at."
    )
    return f"# Families of models\n\n{lead}\n\n" + table(["family", "what it is", "projects", "claims"], rows)


def badges(counts: Mapping[Status, int]) -> str:
    """Verdicts with how many there are of each, in the order of `MARKS`."""
    return " ".join(badge(status, counts[status]) for status in MARKS if counts.get(status))


def projects(family: Family) -> str:
    """How the family's projects differ: paper, year, data, measures, what their claims came to."""
    if not family.members:
        return (
            "None yet. [Propose a paper](../guides/developers.md): "
            f"`referee new <paper> --family {family.name} …` begins one.\n"
        )
    return table(["project", "year", "data", "measured", "stage", "claims"], list(_rows(family.members)))


def _rows(members: Iterable[Standing]) -> Iterator[list[str]]:
    for s in sorted(members, key=lambda s: (s.file.paper.year, s.project.name)):
        measured = dict.fromkeys(v.metric for v in s.verdicts if v.metric)
        yield [
            f"[{md(s.file.paper.title)}](../projects/{s.project.name}.md)",
            str(s.file.paper.year),
            ", ".join(md(name) for name in dict.fromkeys(c.dataset for c in s.file.claims)),
            ", ".join(md(name) for name in measured),
            s.file.stage,
            badges(Counter(v.status for v in s.verdicts)),
        ]


def probes(family: Family, explained: bool) -> str:
    """Which probes apply, what each checks, and which projects offer it.

    Args:
        explained: whether the site has the reference of `common`, to link to.
    """
    offered = [name for s in family.members for name in s.file.probes if name in registry()]
    rows = []
    for name in dict.fromkeys([*family.probes, *offered]):
        users = [
            f"[{md(s.project.name)}](../projects/{s.project.name}.md)" for s in family.members if name in s.file.probes
        ]
        probe = registry()[name]
        shown = f"[`{name}`](../reference/{probe.module}.md#{name})" if explained else f"`{name}`"
        rows.append([shown, md(probe.checks), ", ".join(users) or "–"])
    return table(["probe", "checks that", "offered by"], rows)
