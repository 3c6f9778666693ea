"""A page per project: what was claimed, what came out, whether to believe it, how to run it.

A reader decides in ten seconds by what stands on top (verdicts, who refereed, a picture), and in ten minutes by the
rest. Everything comes from `project.yaml`, the published records, the README, the reviews and the history.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from common.records import PRESETS_ORDER, folder_seed
from referee.intervals import interval_picture
from referee.plots import Series
from referee.probed import ProbeRun, probe_digest, show_number
from referee.report import (
    GROUPS,
    STAGES,
    bibtex,
    commands,
    counts,
    how_far,
    how_run,
    learning_curves,
    remembered,
    run_again,
    runs_compared,
    score_rows,
    waits,
    what_runs_are,
)
from referee.schema import FigureClaim
from referee.show import AMENDED, KINDS, amended, duration, judged_where, shortfall_in_words, summary, worth_saying
from referee.site import review
from referee.site.home import begin, checked, how_to_run
from referee.site.model import Page, Site
from referee.site.pictures import shown
from referee.site.readme import DEVIATIONS, KNOW, RESULTS, RUN, read
from referee.site.writing import SLUGS, picture, png_size, render
from referee.standing import Standing, figure_file
from referee.verdicts import Evidence, Verdict, minus, show_step

MAX_PICTURES = 40


@dataclass(frozen=True)
class Picture:
    """A published picture.

    Attributes:
        path: beside the page.
        file: in the repository.
        size: width and height in pixels.
        caption: what is seen.
        detail: where it is from.
    """

    path: str
    file: Path
    size: tuple[int, int]
    caption: str
    detail: str

    @property
    def src(self) -> str:
        return quote(self.path)


def pages(site: Site) -> Iterable[Page]:
    """`projects/<paper>.md` of every project, with the records and pictures that it shows."""
    for s in site.standings:
        yield page(site, s)


def page(site: Site, s: Standing) -> Page:
    """A project's page."""
    name = s.project.name
    presets = [p for p in PRESETS_ORDER if p in s.evidence]
    main = presets[-1] if presets else None
    pictures = list(_pictures(s, main))
    first = shown(s)
    readme = read(s.project, site.repository)
    frozen = site.freeze(name)
    own = [e for runs in s.evidence.values() for e in runs.values()]
    records = [each for e in own for each in (e, *e.others)]
    command, takes = how_to_run(s)
    probes = site.probes.get(name)
    text = render(
        "project.md.j2",
        s=s,
        name=name,
        paper=s.file.paper,
        stage=STAGES[s.file.stage],
        refereed=checked(site, s),
        readme=readme,
        lead=readme.lead,
        made_of_it=readme.section(RESULTS),
        know=readme.section(KNOW),
        ran=readme.section(RUN),
        differs=readme.section(DEVIATIONS),
        picture=next((p for p in pictures if first and p.file == first.path), None),
        pictures=pictures,
        counts=counts(s),
        remembered=remembered(s.verdicts),
        how_far=how_far(s),
        summary=summary(s.verdicts),
        slugs=SLUGS,
        groups=_groups(s),
        amended=amended(s),
        sign=AMENDED,
        settled=_day(frozen.commit.moment) if frozen else None,
        settled_by=frozen.commit.short if frozen else None,
        stale=sorted({run for v in s.verdicts if v.stale for run in v.runs}),
        newest=max((e.record.finished[:10] for e in records), default=None),
        records=len(own),
        seeds=_seeds(own),
        command=command,
        takes=takes,
        probes=probes.probes if probes else (),
        probed=_probed(s, probes),
        main=main,
        differ=what_runs_are(s, main),
        dots=runs_compared(s, main),
        curves=[
            chart
            | {
                "data": json.dumps(_data(chart["series"])),
                "last": _last(chart["series"]),
                "end": max(line.x[-1] for line in chart["series"]),
            }
            for chart in learning_curves(s, s.project.results, main)
        ],
        scores=[score_rows(preset, s.evidence[preset]) for preset in reversed(presets)],
        runs=[how_run(e) for preset in reversed(presets) for e in s.evidence[preset].values()],
        presets=commands(s, presets),
        bibtex=bibtex(s),
        notebook=(s.project.folder / f"{name}.ipynb").is_file(),
        conversation=Markup(review.conversation(site, name)),
        timeline=Markup(review.timeline(site, name)),
        repository=site.repository,
        family_page=(site.root / "docs" / "families" / f"{s.file.family}.md").is_file(),
        guide=(site.root / "docs" / "readers.md").is_file(),
        beside=lambda path: quote(path.removeprefix("projects/")),
        judged_where=judged_where,
        run_again=run_again,
        run_of=_run_of,
        begin=begin,
        worth_saying=worth_saying,
        interval_picture=interval_picture,
        shortfall_in_words=shortfall_in_words,
        show_step=show_step,
        picture_tag=picture,
        show_number=show_number,
        duration=duration,
    )
    files: dict[str, bytes | Path] = {p.path: p.file for p in pictures}
    files |= {e.path.removeprefix("projects/"): site.root / e.path for e in records}
    return Page(f"projects/{name}.md", _unfenced(text), _under("projects/", files))


def _seeds(runs: Sequence[Evidence]) -> str:
    """'one seed a run', 'several seeds of 2 runs, one of the others'."""
    several = sum(bool(e.others) for e in runs)
    if not several:
        return "one seed a run"
    return "several seeds a run" if several == len(runs) else f"several seeds of {several} of them"


def _run_of(path: str) -> str:
    """The run that a record is of, by its path; with the seed where it is not the preset's own."""
    *_, run, folder, _ = path.split("/")
    seed = folder_seed(folder)
    return folder if seed is None else f"{run}, seed {seed}"


def _under(folder: str, files: dict[str, bytes | Path]) -> dict[str, bytes | Path]:
    return {f"{folder}{path}": content for path, content in files.items()}


def _unfenced(text: str) -> str:
    """The page without code fences: in HTML that stands in Markdown, a line of text could open one."""
    return text.replace("```", "&#96;" * 3).replace("~~~", "&#126;" * 3)


def _groups(s: Standing) -> list[dict[str, Any]]:
    """The kinds of claims with their verdicts: those of which there is something to say, and values nobody tried."""
    groups = []
    for kind, (title, about) in zip(KINDS, GROUPS, strict=True):
        verdicts = [v for v in s.verdicts if v.kind == kind]
        if verdicts:
            groups.append(
                {
                    "title": title,
                    "about": about,
                    "judged": [v for v in verdicts if not waits(v)],
                    "waiting": [v for v in verdicts if waits(v)],
                    "outcome": _outcome(verdicts),
                    "measured": _measured(verdicts),
                }
            )
    return groups


def _measured(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """Metric -> how it was measured, of those that were measured the same way in several rows."""
    found: dict[str, list[str]] = {}
    for v in verdicts:
        if v.metric and v.protocol:
            found.setdefault(v.metric, []).append(v.protocol)
    return {metric: how[0] for metric, how in found.items() if len(how) > 1 and len(set(how)) == 1}


def _outcome(verdicts: Sequence[Verdict]) -> str:
    """'All 4 reproduced', '10 compute-limited, 25 not attempted'."""
    if all(v.status == verdicts[0].status for v in verdicts) and len(verdicts) > 1:
        return f"All {len(verdicts)} {verdicts[0].status}"
    return summary(verdicts)


def _pictures(s: Standing, main: str | None) -> Iterable[Picture]:
    """Pictures of claims first, then those of the largest preset's runs."""
    found: list[tuple[Path, str, str]] = []
    for claim in s.file.claims:
        if isinstance(claim, FigureClaim) and (path := figure_file(s.project, s.project.results, claim.figure)):
            found.append((path, f"{claim.source}: {claim.statement}", "a claim, for a person to judge"))
    for run in s.evidence[main] if main else ():
        for path in sorted((s.project.results / str(main) / run).glob("*.png")):
            found.append((path, f"{run}: {path.stem.replace('_', ' ')}", f"preset {main}"))
    if (first := shown(s)) is not None:
        found.append((first.path, first.what, ""))
    seen: set[Path] = set()
    for path, caption, detail in found:
        if path in seen or path.suffix != ".png" or len(seen) >= MAX_PICTURES:
            continue
        seen.add(path)
        size = png_size(path)
        if size is not None and path.is_relative_to(s.project.folder):
            beside = path.relative_to(s.project.folder.parent).as_posix()
            yield Picture(beside, path, size, " ".join(caption.split()), detail)


def _probed(s: Standing, run: ProbeRun | None) -> dict[str, Any] | None:
    """When the probes were run, how many passed, and whether the code has changed since."""
    if run is None:
        return None
    try:
        stale = s.digest is None or probe_digest(s.project) != run.digest
    except (OSError, SyntaxError, UnicodeDecodeError):
        stale = True
    return {"day": run.finished[:10], "stale": stale, "passed": sum(p.passed for p in run.probes)}


def _data(series: Sequence[Series]) -> list[dict[str, Any]]:
    """Lines for the script that tells their values under the pointer."""
    return [{"x": [float(x) for x in s.x], "y": [float(f"{y:.5g}") for y in s.y]} for s in series]


def _last(series: Sequence[Series]) -> list[tuple[str, str]]:
    """Each line's name and last value, to five digits as `assets/curves.js` writes them."""

    def digits(value: float) -> str:
        places = max(0, 4 - math.floor(math.log10(abs(value)))) if value else 0
        return minus(f"{value:,.{min(places, 9)}f}")

    return [(s.label, digits(s.y[-1])) for s in series]


def _day(moment: datetime | None) -> str | None:
    return f"{moment:%Y-%m-%d}" if moment else None
