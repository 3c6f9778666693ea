"""Results by data set and metric, across projects: one table for each protocol, since only these are comparable.

A table holds scores of the same metric, unit, split and protocol on the same content of a data set, and nothing else.
Beside each stands what the paper prints for it, where the paper makes a claim. Runs of the preset `smoke` only try the
code, and are left out.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from common.records import Record, Score
from referee.report import parts_of
from referee.schema import METRIC_NAMES, Metric, ValueClaim, find_metric, metric_called
from referee.show import duration
from referee.site.model import Page, Site
from referee.site.writing import SLUGS, render
from referee.standing import Standing
from referee.verdicts import Verdict, all_scores, paper_value, show, show_score, show_spread


@dataclass(frozen=True)
class Row:
    """A score, and the paper's value for it."""

    standing: Standing
    record: Record
    score: Score
    path: str  # of the record
    claim: ValueClaim | None = None
    verdict: Verdict | None = None  # on that claim
    judged: bool = False  # whether the verdict is about this very record
    spread: str = ""  # '84.71 to 85.10, 5 seeds', where the score is a mean over several

    @property
    def project(self) -> str:
        return self.standing.project.name

    @property
    def value(self) -> str:
        """'≤ 84.90 ± 0.20', without the unit."""
        return show_score(self.score)

    @property
    def kind(self) -> str:
        """In words: a bound says which way."""
        if self.score.kind != "bound":
            return self.score.kind
        return "upper bound" if metric_called(self.score.name).direction == "lower" else "lower bound"

    @property
    def paper(self) -> str:
        return paper_value(self.claim) if self.claim else ""

    @property
    def took(self) -> str:
        return duration(self.record.wall_s)


@dataclass(frozen=True)
class Table:
    """Scores that are comparable, the best first."""

    protocol: str
    split: str
    unit: str
    content: str  # sha256 of the data set
    added: tuple[str, ...]  # the scores whose sum they are, where they are sums
    rows: list[Row] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        """What the scores are, in words."""
        return sorted({row.kind for row in self.rows})

    @property
    def title(self) -> str:
        sums = f", {len(self.added)} parts added up" if self.added else ""
        return (self.protocol or "no protocol stated") + sums

    @property
    def examples(self) -> str:
        """How many examples the scores are means over."""
        few, many = (pick(row.score.n for row in self.rows) for pick in (min, max))
        return f"{many:,} examples each" if few == many else f"{few:,} to {many:,} examples"


@dataclass(frozen=True)
class Section:
    """A metric on a data set."""

    name: str
    metric: Metric
    tables: tuple[Table, ...]
    orderings: tuple[tuple[str, Verdict], ...]  # project, verdict
    waiting: tuple[tuple[str, Verdict], ...]  # the papers' values that stand in no table

    @property
    def tried(self) -> bool:
        """Whether anything but 'not attempted' is said of the values that stand in no table."""
        return any(v.status != "not attempted" for _, v in self.waiting)

    @property
    def contents(self) -> int:
        """How many contents of the data set the tables are about."""
        return len({table.content for table in self.tables})


@dataclass(frozen=True)
class Sheet:
    """Everything about one data set."""

    dataset: str
    slug: str
    sections: tuple[Section, ...]

    @property
    def projects(self) -> list[str]:
        """Whose results or claims it holds."""
        rows = {row.project for s in self.sections for t in s.tables for row in t.rows}
        return sorted(rows | {p for s in self.sections for p, _ in (*s.waiting, *s.orderings)})

    @property
    def runs(self) -> int:
        """How many runs were scored on it."""
        return len({row.path for s in self.sections for t in s.tables for row in t.rows})


def pages(site: Site) -> Iterable[Page]:
    """`results/index.md`, and a page for each data set."""
    found = sheets(site.standings)
    guide = (site.root / "docs" / "readers.md").is_file()
    yield Page("results/index.md", render("results.md.j2", sheets=found))
    for sheet in found:
        yield Page(
            f"results/{sheet.slug}.md", render("dataset.md.j2", sheet=sheet, slugs=SLUGS, show=show, guide=guide)
        )


def sheets(standings: Iterable[Standing]) -> list[Sheet]:
    """All data sets that a result or a claim is about, by name."""
    standings = list(standings)
    tables: dict[tuple[str, str], dict[tuple[str, ...], Table]] = {}
    shown: set[tuple[str, str]] = set()  # project, claim: that stand in a table
    for s in standings:
        for dataset, content, added, row in _rows(s):
            key = (row.score.protocol, row.score.split, row.score.unit, content, *added)
            group = tables.setdefault((dataset, row.score.name), {})
            table = group.setdefault(key, Table(row.score.protocol, row.score.split, row.score.unit, content, added))
            table.rows.append(row)
            if row.claim:
                shown.add((row.project, row.claim.id))
    orderings: dict[tuple[str, str], list[tuple[str, Verdict]]] = {}
    waiting: dict[tuple[str, str], list[tuple[str, Verdict]]] = {}
    for s in standings:
        for claim, verdict in zip(s.file.claims, s.verdicts, strict=True):
            if claim.kind == "figure":
                continue
            place = (claim.dataset, claim.metric)
            if claim.kind == "ordering" and not verdict.untried:
                orderings.setdefault(place, []).append((s.project.name, verdict))
            elif claim.kind == "value" and (s.project.name, claim.id) not in shown:
                waiting.setdefault(place, []).append((s.project.name, verdict))
    every = {*tables, *orderings, *waiting}
    metrics = sorted(
        {metric for _, metric in every}, key=lambda m: (METRIC_NAMES.index(m) if m in METRIC_NAMES else 99, m)
    )
    names = sorted({dataset for dataset, _ in every}, key=lambda name: (name.lower(), name))
    slugs = _slugs(names)
    return [
        Sheet(
            name,
            slugs[name],
            tuple(
                _section(metric, tables.get(at, {}).values(), orderings.get(at, ()), waiting.get(at, ()))
                for metric in metrics
                if (at := (name, metric)) in every
            ),
        )
        for name in names
    ]


def _section(
    name: str,
    tables: Iterable[Table],
    orderings: Iterable[tuple[str, Verdict]],
    waiting: Iterable[tuple[str, Verdict]],
) -> Section:
    """A metric's tables, those with most examples first, each with the best first."""
    metric = metric_called(name)
    sign = 1 if metric.direction == "lower" else -1
    tables = sorted(tables, key=lambda t: (-max(r.score.n for r in t.rows), t.protocol, t.content, t.added))
    for table in tables:
        table.rows.sort(key=lambda r: (sign * r.score.value, r.project, r.record.run, r.record.preset))
    papers = sorted(waiting, key=lambda w: (sign * (w[1].paper_value or 0.0), w[0], w[1].claim))
    return Section(name, metric, tuple(tables), tuple(orderings), tuple(papers))


def _rows(s: Standing) -> Iterator[tuple[str, str, tuple[str, ...], Row]]:
    """Data set, digest of its content, the scores whose sum it is, and the score: of every published run beyond
    `smoke`, for every known metric."""
    judged = {v.claim: v for v in s.verdicts}
    claims = [c for c in s.file.claims if c.kind == "value"]
    for preset, runs in s.evidence.items():
        if preset == "smoke":
            continue
        for run, evidence in runs.items():
            for own, (score, spread) in zip(evidence.record.scores, all_scores(evidence), strict=True):
                if find_metric(score.name) is None:
                    continue
                over, parts = show_spread(spread) if spread else "", parts_of(evidence.record, own)
                for dataset, content in evidence.record.data_sha256.items():
                    wanted = (run, score.name, dataset, score.split, score.unit)
                    claim = next((c for c in claims if (c.run, c.metric, c.dataset, c.split, c.unit) == wanted), None)
                    verdict = judged[claim.id] if claim else None
                    about = verdict is not None and evidence.path in verdict.records
                    row = Row(s, evidence.record, score, evidence.path, claim, verdict, about, over)
                    yield dataset, content, parts, row


def _slugs(names: Iterable[str]) -> dict[str, str]:
    """A file's name for each data set: the same name where that is plain, and never one twice.

    Records say what their data are called; that may be anything, and some names mean something to builders of sites.
    """
    found: dict[str, str] = {}
    taken = {"index", "readme"}
    for name in names:
        slug = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:60].strip("-")
        if not slug or slug.lower() in taken:
            slug = f"{slug}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".strip("-")
        taken.add(slug.lower())
        found[name] = slug
    return found
