"""For other programs: register.json with its schema, a feed of publications, robots.txt, and cards for social media.

`python -m referee.site.register` writes the model as JSON Schema to `referee/site/register.schema.json`, which the site
publishes beside the register.

Addresses are absolute only where the site's own address is known (SITE_URL); else they are relative to these files.
"""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from common.evaluation.metrics import NEAR
from common.records import Kind
from referee.schema import Direction, Part, Preset, find_metric
from referee.show import amended, summary
from referee.site.home import checked
from referee.site.model import Page, Site
from referee.site.pictures import card, default_card
from referee.site.review import stages
from referee.standing import Standing
from referee.verdicts import Evidence, Status, Verdict

ITEMS = 50  # that the feed holds

Stage = Literal["proposed", "v1", "v2", "published"]


class ScoreEntry(Part):
    """One measured number."""

    metric: str
    """Its name; `nll`, `elbo`, `bits_per_dim`, ... mean the same in all projects."""
    value: float
    stderr: float | None
    """Standard error over the examples, in the same unit; it does not cover the run's seed."""
    n: int
    """The examples it is a mean over."""
    unit: str
    kind: Kind
    """An exact value, a bound of it, or an estimate."""
    better: Direction | None
    """Which way is better, where the metric is known; with kind `bound` the exact value lies on that side. Near: at the
    value that samples of the data's own distribution would have, and worse on either side of it."""
    split: str
    weights: Literal["raw", "ema"]
    protocol: str
    """How it was measured. Scores are comparable only where metric, unit, split, data and protocol are equal."""


class RunEntry(Part):
    """A published run."""

    preset: str
    run: str
    record: str
    """Its record's path in the repository."""
    scores: list[ScoreEntry]
    data: dict[str, str]
    """Data set -> sha256 of its content."""
    seed: int
    steps: int
    parameters: int
    wall_s: float
    finished: str
    """UTC, ISO 8601."""
    commit: str
    """The commit it ran at; ends in + where files differed from it, empty outside git."""
    code_digest: str
    own_seed: bool
    """Whether its seed is the preset's own; another seed of the same run has an entry of its own."""


class ClaimEntry(Part):
    """Something that the paper says, and what it came to."""

    id: str
    kind: Literal["value", "ordering", "figure"]
    statement: str
    source: str
    """Where the paper says so."""
    certainty: Literal["seen", "mem"]
    """Whether the paper was looked at for it, or memory alone."""
    dataset: str
    preset: Preset
    """The preset it is about; of an ordering, the smallest at which it may be judged."""
    metric: str | None
    unit: str | None
    split: str | None
    runs: list[str]
    """The runs it is about; of an ordering, the best first."""
    paper_value: float | None
    paper_stderr: float | None
    """The paper's standard error, where it states one."""
    tolerance: float | None
    """How much worse than the paper still counts as within tolerance."""
    worse_by: tuple[float, float] | None
    """Of a value that was judged at its preset: how much worse it is than the paper's, at least and at most, given the
    errors of both; negative where it is better. Where the direction is "near": how far off."""
    verdict: Status
    stale: bool
    """Whether the code has changed since the records were made."""
    amended: bool
    """Whether it is not as it was when the proposal was accepted."""
    judged_at: str | None
    """The preset that was looked at."""
    value: float | None
    """Of several seeds, their mean."""
    stderr: float | None
    """Standard error over the examples; of several seeds, that of their mean, over seeds and examples."""
    n: int | None
    """The examples that each seed was scored on."""
    seeds: list[int]
    """The seeds that were averaged, where there are several."""
    spread: tuple[float, float] | None
    """The least and the most that one of these seeds came to, of a value."""
    protocol: str | None
    records: list[str]
    """Paths in the repository of the records that were looked at."""
    command: str
    """Runs it again."""
    notes: list[str]


class ReviewEntry(Part):
    """A review."""

    reviewer: str
    round: int
    commit: str
    """What was reviewed."""
    recommendation: str | None
    findings: dict[str, int]
    """How many of each severity."""


class ProjectEntry(Part):
    """A paper's implementation."""

    name: str
    page: str
    """Its page's address."""
    title: str
    authors: list[str]
    venue: str
    year: int
    arxiv: str | None
    family: str
    stage: Stage
    refereed: bool
    """Whether it was reviewed and accepted."""
    published: date | None
    team: list[str]
    """Public handles."""
    licence: str
    probes: list[str]
    reviews: list[ReviewEntry]
    decision: Literal["accept", "revise", "reject"] | None
    verdicts: dict[Status, int]
    """How many claims came to what."""
    claims: list[ClaimEntry]
    runs: list[RunEntry]
    problems: list[str]
    """What is wrong with its records."""


class Register(Part):
    """All projects of a collection: what each paper claims, what came out, who checked."""

    schema_: str = Field(alias="$schema")
    """The address of this schema."""
    version: Literal[1]
    """Of this format. Fields may be added to a version; none changes its meaning or goes."""
    name: str
    """The collection's."""
    url: str | None
    """Where the site is published; addresses are relative to it, or to this file where it is not known."""
    projects: list[ProjectEntry]


def pages(site: Site) -> Iterable[Page]:
    """register.json and its schema, feed.xml, robots.txt, and the cards."""
    cards = {f"assets/cards/projects/{s.project.name}.png": card(site, s) for s in site.standings}
    yield Page("register.json", register(site), {"assets/cards/site.png": default_card(site), **cards})
    yield Page("register.schema.json", json_schema())
    yield Page("feed.xml", feed(site))
    yield Page("robots.txt", robots(site))


def register(site: Site) -> str:
    """The register as text."""
    made = Register.model_validate(
        {
            "$schema": "register.schema.json",
            "version": 1,
            "name": site.course.name,
            "url": f"{site.url}/" if site.url else None,
            "projects": [_project(site, s) for s in site.standings],
        }
    )
    return json.dumps(made.model_dump(mode="json", by_alias=True), indent=1, ensure_ascii=False) + "\n"


def _project(site: Site, s: Standing) -> ProjectEntry:
    paper = s.file.paper
    written = site.reviews(s.project.name)
    marked = amended(s)
    counts: dict[Status, int] = {}
    for status in get_args(Status):
        if n := sum(v.status == status for v in s.verdicts):
            counts[status] = n
    return ProjectEntry(
        name=s.project.name,
        page=f"projects/{s.project.name}.html",
        title=paper.title,
        authors=paper.authors,
        venue=paper.venue,
        year=paper.year,
        arxiv=paper.arxiv,
        family=s.file.family,
        stage=s.file.stage,
        refereed=s.file.stage == "published",
        published=published(site, s),
        team=[m.handle for m in s.file.team],
        licence=s.file.licence,
        probes=s.file.probes,
        reviews=[
            ReviewEntry(
                reviewer=r.reviewer,
                round=r.head.round,
                commit=r.head.commit,
                recommendation=r.head.recommendation,
                findings=_severities(r.findings.values()),
            )
            for _, r in sorted(written.reviews.items())
        ],
        decision=written.decision.head.decision if written.decision else None,
        verdicts=counts,
        claims=[_claim(v, c, v.claim in marked) for v, c in zip(s.verdicts, s.file.claims, strict=True)],
        runs=[_run(each, each is e) for runs in s.evidence.values() for e in runs.values() for each in (e, *e.others)],
        problems=s.problems,
    )


def _severities(findings: Iterable[Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for finding in findings:
        found[finding.severity] = found.get(finding.severity, 0) + 1
    return dict(sorted(found.items()))


def _claim(v: Verdict, claim: Any, changed: bool) -> ClaimEntry:
    return ClaimEntry(
        id=v.claim,
        kind=claim.kind,
        statement=v.statement,
        source=v.source,
        certainty=claim.certainty,
        dataset=claim.dataset,
        preset=claim.preset,
        metric=v.metric,
        unit=v.unit,
        split=getattr(claim, "split", None),
        runs=[claim.run] if claim.kind == "value" else list(getattr(claim, "runs", [])),
        paper_value=v.paper_value,
        paper_stderr=v.paper_stderr,
        tolerance=v.tolerance,
        worse_by=_interval(v),
        verdict=v.status,
        stale=v.stale,
        amended=changed,
        judged_at=v.judged_at,
        value=v.value,
        stderr=v.stderr,
        n=v.n,
        seeds=list(v.seeds),
        spread=(min(v.spread.values), max(v.spread.values)) if v.spread else None,
        protocol=v.protocol or None,
        records=list(v.records),
        command=v.command,
        notes=list(v.notes),
    )


def _interval(v: Verdict) -> tuple[float, float] | None:
    short = v.shortfall
    return None if short is None or short.low is None or short.high is None else (short.low, short.high)


def _run(evidence: Evidence, own_seed: bool) -> RunEntry:
    record = evidence.record
    return RunEntry(
        preset=record.preset,
        run=record.run,
        record=evidence.path,
        scores=[
            ScoreEntry(
                metric=score.name,
                value=score.value,
                stderr=score.stderr,
                n=score.n,
                unit=score.unit,
                kind=score.kind,
                better=_better(score.name),
                split=score.split,
                weights=score.weights,
                protocol=score.protocol,
            )
            for score in record.scores
        ],
        data=record.data_sha256,
        seed=record.seed,
        steps=record.steps,
        parameters=record.parameters,
        wall_s=record.wall_s,
        finished=record.finished,
        commit=record.git_sha,
        code_digest=record.code_digest,
        own_seed=own_seed,
    )


def _better(name: str) -> Direction | None:
    """Which way a score is better: "near" for those of samples that have a best value between two worse sides."""
    if name.partition("[")[0] in NEAR and find_metric(name):
        return "near"
    return metric.direction if (metric := find_metric(name)) else None


SCHEMA_FILE = Path(__file__).with_name("register.schema.json")


def json_schema() -> str:
    """The model as JSON Schema, as text."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Register.model_json_schema(by_alias=True, mode="serialization"),
        "title": "register.json",
    }
    return json.dumps(schema, indent=1) + "\n"


# -- The feed ----------------------------------------------------------------------------------------------------------


def published(site: Site, s: Standing) -> date | None:
    """When a project was published: as the history has it, else the day on which it was accepted."""
    if s.file.stage != "published":
        return None
    moment = next((moment for moment, stage in stages(site, s.project.name) if stage == "published"), None)
    if moment is not None:
        return moment.astimezone(UTC).date()
    decision = site.reviews(s.project.name).decision
    return decision.head.date if decision and decision.head.decision == "accept" else None


def feed(site: Site) -> str:
    """RSS 2.0: the published projects, the latest first."""
    ET.register_namespace("atom", "http://www.w3.org/2005/Atom")
    root = ET.Element("rss", version="2.0")
    channel = ET.SubElement(root, "channel")

    def say(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
        ET.SubElement(parent, tag, attributes).text = xml_text(text)

    base = f"{site.url}/" if site.url else ""
    say(channel, "title", site.course.name)
    say(channel, "link", f"{base}index.html")
    say(channel, "description", "Papers whose implementations were refereed and published here.")
    say(channel, "language", "en")
    if site.url:
        ET.SubElement(
            channel,
            "{http://www.w3.org/2005/Atom}link",
            {"href": f"{base}feed.xml", "rel": "self", "type": "application/rss+xml"},
        )
    dated = [(day, s) for s in site.standings if (day := published(site, s))]
    dated.sort(key=lambda pair: (-pair[0].toordinal(), pair[1].project.name))
    for day, s in dated[:ITEMS]:
        paper = s.file.paper
        item = ET.SubElement(channel, "item")
        say(item, "title", paper.title)
        say(item, "link", f"{base}projects/{s.project.name}.html")
        said = f"{', '.join(paper.authors)}, {paper.venue} {paper.year}. {summary(s.verdicts)}. {checked(site, s)}"
        say(item, "description", said)
        say(item, "category", s.file.family)
        say(item, "guid", f"{s.project.name}, published {day}", isPermaLink="false")
        say(item, "pubDate", format_datetime(datetime.combine(day, time(), UTC), usegmt=True))
    ET.indent(root, " ")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def xml_text(text: str) -> str:
    """A line of text that XML can hold: some characters it cannot, however they are written."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", " ".join(text.split()))


def robots(site: Site) -> str:
    """Everything may be read; where the pages are listed, if the site's address is known."""
    listed = f"\nSitemap: {site.url}/sitemap.xml\n" if site.url else ""
    return f"User-agent: *\nAllow: /\n{listed}"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(json_schema(), encoding="utf-8")
