"""The home page: which papers are here, which claims held, who checked, how to run them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from common.records import PRESETS_ORDER
from referee.checks.base import STAGES
from referee.show import MARKS, duration
from referee.site.course import rerun
from referee.site.measuring import CONFORMANCE
from referee.site.model import Page, Site
from referee.site.pictures import shown, thumbnail
from referee.site.writing import SLUGS, png_size, render
from referee.standing import Standing
from referee.verdicts import Status, Verdict
from referee.words import number_of

SHORT: tuple[Status, ...] = (
    *("not reproduced", "trend only", "compute-limited", "inconclusive", "not attempted"),
    *("within tolerance", "reproduced", "for a person to judge"),
)
"""Verdicts on values, those that fall shortest of the paper first."""

AUTHORS = 3  # that a card names
DECIDED: Mapping[str | None, str] = {
    "accept": "accepted, to be published",
    "revise": "to be revised",
    "reject": "rejected",
}
"""What an editor decided, in words, of what is not published."""


@dataclass(frozen=True)
class Numbers:
    """The collection in numbers."""

    papers: int
    claims: int
    reproduced: int
    remembered: int  # of those reproduced, claims that nobody has looked up in the paper
    refereed: int  # accepted by an editor after reviews
    verdicts: tuple[tuple[str, int], ...]  # how many claims came to what, those that occur


@dataclass(frozen=True)
class Card:
    """What the gallery says of a project."""

    name: str
    title: str
    authors: str
    venue: str
    year: int
    family: str
    stage: str
    datasets: tuple[str, ...]
    counts: tuple[tuple[str, int], ...]
    remembered: int  # claims that nobody has looked up in the paper
    spoken: tuple[tuple[str, str, str], ...]  # verdict, claim in words, at which preset and with how much training
    checked: str
    command: str
    takes: str
    newest: str  # when its last run finished
    broken: bool
    picture: Path | None
    size: tuple[int, int] | None
    seen: str  # what the picture shows

    @property
    def words(self) -> str:
        """What the text filter looks through."""
        return " ".join((self.name, self.title, self.authors, self.venue, str(self.year), self.family)).lower()

    @property
    def share(self) -> float:
        """Claims reproduced of claims made."""
        made = sum(n for _, n in self.counts)
        return dict(self.counts).get("reproduced", 0) / made if made else 0.0


def pages(site: Site) -> Iterable[Page]:
    """The home page, and the gallery's pictures."""
    cards = [card(site, s) for s in site.standings]
    cards.sort(key=lambda c: (-STAGES.index(c.stage), c.title.lower(), c.name))
    text = render(
        "home.md.j2",
        name=site.course.name,
        numbers=numbers(site.standings),
        cards=cards,
        facets=facets(cards),
        slugs=SLUGS,
        marks={status: mark for status, (mark, _) in MARKS.items()},
        stages=STAGES,
        rerun=rerun(site),
        begin=begin(site.repository),
        repository=site.repository,
        explained=(site.root / "docs" / "readers.md").is_file(),
        measured=(site.root / CONFORMANCE).is_file(),
    )
    yield Page("index.md", text, {f"assets/gallery/{c.name}.png": c.picture for c in cards if c.picture})


def numbers(standings: Iterable[Standing]) -> Numbers:
    """Count claims by verdict, and projects by what was done about them."""
    standings = list(standings)
    verdicts = [v for s in standings for v in s.verdicts]
    counts = _counts(verdicts)
    return Numbers(
        papers=len(standings),
        claims=sum(n for _, n in counts),
        reproduced=dict(counts).get("reproduced", 0),
        remembered=sum(v.status == "reproduced" and v.certainty == "mem" for v in verdicts),
        refereed=sum(s.file.stage == "published" for s in standings),
        verdicts=counts,
    )


def _counts(verdicts: Iterable[Verdict]) -> tuple[tuple[str, int], ...]:
    found = Counter(v.status for v in verdicts)
    return tuple((status, found[status]) for status in MARKS if found[status])


def card(site: Site, s: Standing) -> Card:
    """What the gallery says of a project."""
    paper = s.file.paper
    command, takes = how_to_run(s)
    records = [e.record for runs in s.evidence.values() for e in runs.values()]
    picture = thumbnail(site, s)
    seen = shown(s) if picture else None
    more = " et al." if len(paper.authors) > AUTHORS else ""
    return Card(
        name=s.project.name,
        title=_line(paper.title),
        authors=_line(", ".join(paper.authors[:AUTHORS])) + more,
        venue=_line(paper.venue),
        year=paper.year,
        family=s.file.family,
        stage=s.file.stage,
        datasets=tuple(dict.fromkeys(c.dataset for c in s.file.claims)),
        counts=_counts(s.verdicts),
        remembered=sum(v.certainty == "mem" for v in s.verdicts),
        spoken=tuple(spoken(s)),
        checked=checked(site, s),
        command=command,
        takes=takes,
        newest=max((r.finished for r in records), default=""),
        broken=s.fell_short,
        picture=picture,
        size=png_size(picture) if picture else None,
        seen=_line(seen.what) if seen else "",
    )


def spoken(s: Standing) -> list[tuple[str, str, str]]:
    """What a card says in words of single claims: the first ordering that was tried, the first that was not reproduced,
    and the value that fell shortest.

    Returns: for each its verdict, the claim, and where it was judged.
    """
    tried = [v for v in s.verdicts if not v.untried]
    orderings = [v for v in tried if v.kind == "ordering"]
    values = sorted((v for v in tried if v.kind == "value"), key=lambda v: SHORT.index(v.status))
    against = [v for v in orderings if v.status == "not reproduced"]
    said = [(v, v.statement) for v in dict.fromkeys((*orderings[:1], *against[:1]))]
    said += [(v, f"{v.source}: {v.paper} in the paper, {v.ours} here") for v in values[:1]]
    return [(v.status, words, _trained(s, v)) for v, words in said]


def _trained(s: Standing, v: Verdict) -> str:
    """'at laptop, 9,600 steps', of the claim's longest run; if the preset `paper` has it, too, out of how many."""
    if v.judged_at is None:
        return ""
    steps = {run: each.record.steps for run, each in s.evidence.get(v.judged_at, {}).items() if run in v.runs}
    longest = max(v.runs, key=lambda run: steps.get(run, 0), default="")
    if not steps.get(longest):
        return f"at {v.judged_at}"
    papers = s.evidence.get("paper", {})
    of = f" of {papers[longest].record.steps:,}" if v.judged_at != "paper" and longest in papers else ""
    many = f"{steps[longest]:,}{of} steps" if of else number_of(steps[longest], "step")
    return f"at {v.judged_at}, {many}"


def begin(repository: str) -> str:
    """The commands before all others, up to those that the cards show."""
    setup = "make setup && source .venv/bin/activate"
    return f"git clone {repository} papers && cd papers && {setup}" if repository else setup


def checked(site: Site, s: Standing) -> str:
    """Who refereed a project, in words."""
    if s.file.stage == "proposed":
        return "Claims only so far: there is nothing to referee yet."
    written = site.reviews(s.project.name)
    if not written.reviews:
        return "Nobody has refereed this yet."
    names = _listed(sorted(written.reviews))
    if s.file.stage == "published":
        return f"Refereed by {names}, and accepted."
    decided = DECIDED.get(written.decision.head.decision if written.decision else None, "not decided yet")
    return f"Reviewed by {names}; {decided}."


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def how_to_run(s: Standing) -> tuple[str, str]:
    """The command for the smallest preset on real data that was published, and about what it took; '' and '' while
    there is nothing to run."""
    published = [p for p in PRESETS_ORDER if p in s.evidence]
    preset = next((p for p in published if p != "smoke"), published[0] if published else "smoke")
    records = [e.record for e in s.evidence.get(preset, {}).values()]
    takes = ""
    if records:
        on = "with a GPU" if any(r.hardware.get("gpu") for r in records) else "on a CPU"
        took = sum(r.wall_s for r in records)
        takes = f"{duration(took if took < 120 else 60 * round(took / 60))} {on}"
    elif not published and not s.project.paper_file.is_file():
        return "", ""
    return f"referee run {s.project.name} --preset {preset}", takes


def facets(cards: Iterable[Card]) -> list[tuple[str, str, list[tuple[str, str, int]]]]:
    """What the gallery is filtered by: name, label, and the values that occur, each with its words and how often."""
    cards = list(cards)

    def of(values: Iterable[str]) -> Counter[str]:
        return Counter(values)

    families = of(c.family for c in cards)
    datasets = of(d for c in cards for d in c.datasets)
    verdicts = of(status for c in cards for status, _ in c.counts)
    stages = of(c.stage for c in cards)
    years = of(str(c.year) for c in cards)
    return [
        ("family", "Family", [(f, f, n) for f, n in sorted(families.items())]),
        ("data", "Data set", [(d, d, n) for d, n in sorted(datasets.items(), key=lambda item: item[0].lower())]),
        ("verdict", "Verdict", [(SLUGS[v], v, verdicts[v]) for v in MARKS if verdicts[v]]),
        ("stage", "Stage", [(stage, stage, stages[stage]) for stage in reversed(STAGES) if stages[stage]]),
        ("year", "Year", [(y, y, n) for y, n in sorted(years.items(), reverse=True)]),
    ]


def _line(text: str) -> str:
    return " ".join(text.split())
