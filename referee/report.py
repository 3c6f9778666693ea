"""One self-contained HTML page about a paper: claims, verdicts, curves, samples, scores, and how to run it again.

The page asks nothing of the network: its style is inside it, pictures are data URIs, charts are inline SVG, and it
has no script. Everything from files is untrusted and escaped.
"""

import argparse
import base64
import json
import math
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common.errors import RecordError, UserError
from common.records import PRESETS_ORDER, Record, Score, read_metrics, write_text
from referee.intervals import interval_picture
from referee.plots import Dot, Series, dot_chart, line_chart, thin
from referee.project import find_project, find_root
from referee.schema import METRICS, FigureClaim, find_metric, metric_called
from referee.show import AMENDED, KINDS, MARKS, amendments, duration, judged_where, shortfall_in_words, summary
from referee.standing import Standing, figure_file, standing
from referee.tables import added_up, hardware_line
from referee.verdicts import Evidence, Verdict, all_scores, show, show_score, show_spread, show_step
from referee.words import number_of

WIDE, NARROW = 880, 350  # pixels of the two versions of a chart
MAX_PICTURE = 3 * 1024 * 1024
MAX_PICTURES = 40
MAX_LINES = 10  # in one chart
STAGES = {
    "proposed": ("Reproduction", "claims only"),
    "v1": ("Reproduction", "submitted, not yet reviewed"),
    "v2": ("Reproduction", "reviewed and revised, not yet decided"),
    "published": ("Refereed reproduction", "reviewed and accepted"),
}
"""What a page calls itself, and what has been done about it: refereed is what has been reviewed and decided."""

GROUPS = (
    ("Orderings", "Which run is better than which; judged through paired differences where examples were kept."),
    ("Values", "Numbers the paper prints, each judged at the preset it is about, with the errors of both sides."),
    ("Figures", "Pictures are for people to compare; no machine calls them reproduced."),
)
"""What each kind of claim is called, and how it is judged; in the order of `KINDS`."""

CURVES = {
    "bound": "training bound, nats",
    "elbo": "training ELBO, nats",
    "loss": "training loss",
    "val_bound": "validation bound, nats",
    "test_bound": "test bound, nats",
}

OBJECTIVES = (
    " They show convergence; runs with different objectives (other losses, other numbers of samples) cannot be ranked "
    "by them."
)
"""What curves of what is trained on do not say."""


def report_command(options: argparse.Namespace) -> int:
    """`referee report`."""
    project = find_project(find_root(), options.paper)
    judged = standing(project, runs=options.runs)
    output = Path(options.output) if options.output else project.runs / "report.html"
    page = write_report(judged, runs=options.runs, output=output)
    if options.open:
        import webbrowser

        webbrowser.open(page.as_uri())
    print(page)
    return 0


def write_report(s: Standing, *, runs: bool, output: Path) -> Path:
    """Write the page; returns its path.

    Raises:
        UserError: it cannot be written there.
    """
    text = render(s, runs=runs)
    try:
        write_text(output, text)
    except OSError as error:
        raise UserError(f"the report cannot be written to {output}: {error.strerror}.") from None
    return output.resolve()


def render(s: Standing, *, runs: bool = False) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    base = s.project.runs if runs else s.project.results
    presets = [p for p in PRESETS_ORDER if p in s.evidence]
    other = sorted(set(s.evidence) - set(PRESETS_ORDER))
    main = max((p for p in presets), key=PRESETS_ORDER.index, default=None)
    pictures, left_out = _pictures(s, base, main)
    return environment.get_template("report.html").render(
        project=s.project.name,
        claims_file=s.project.shown(s.project.folder / "project.yaml"),
        stage=STAGES[s.file.stage],  # what it is, how far it is
        file=s.file,
        paper=s.file.paper,
        counts=counts(s),
        summary=summary(s.verdicts),
        marks={status: mark for status, (mark, _) in MARKS.items()},
        groups=[
            (title, about, judged, waiting)
            for kind, (title, about) in zip(KINDS, GROUPS, strict=True)
            for judged in [[v for v in s.verdicts if v.kind == kind and not waits(v)]]
            for waiting in [[v for v in s.verdicts if v.kind == kind and waits(v)]]
            if judged or waiting
        ],
        amended=AMENDED,
        amendments=amendments(s),
        stale=sorted({run for v in s.verdicts if v.stale for run in v.runs}),
        problems=s.problems,
        source=s.project.shown(base),
        main=main,
        dots=runs_compared(s, main),
        curves=learning_curves(s, base, main),
        pictures=pictures,
        left_out=left_out,
        scores=[score_rows(preset, s.evidence[preset]) for preset in [*reversed(presets), *other]],
        runs=[how_run(e) for preset in [*reversed(presets), *other] for e in s.evidence[preset].values()],
        presets=commands(s, presets),
        bibtex=bibtex(s),
        duration=duration,
        show_step=show_step,
        interval_picture=interval_picture,
        shortfall_in_words=shortfall_in_words,
        judged_where=judged_where,
        run_again=run_again,
        any_from_memory=any(v.certainty == "mem" for v in s.verdicts),
        finished=max((e.record.finished for p in s.evidence.values() for e in p.values()), default=None),
    )


def waits(verdict: Verdict) -> bool:
    """A value that nobody has tried, and of which there is nothing to say but what the paper prints."""
    return verdict.kind == "value" and verdict.status == "not attempted" and not verdict.notes


def counts(s: Standing) -> list[tuple[str, str, int]]:
    """(status, mark, number) of each verdict that occurs."""
    return [
        (status, mark, n) for status, (mark, _) in MARKS.items() if (n := sum(v.status == status for v in s.verdicts))
    ]


def remembered(verdicts: Iterable[Verdict]) -> Counter[str]:
    """Verdict -> how many of these are of claims that were written from memory and not yet checked in the paper."""
    return Counter(v.status for v in verdicts if v.certainty == "mem")


def run_again(v: Verdict) -> str:
    """The command that makes what was judged, at the preset that was judged; that of the claim where nothing was."""
    return v.command.replace(f"--preset {v.preset}", f"--preset {v.judged_at or v.preset}", 1)


def how_far(s: Standing) -> list[str]:
    """What the verdicts on orderings rest on, a sentence for each preset at which some were judged: training steps,
    of how many for those of the runs that are there at preset `paper`, too, and seeds."""
    judged: dict[str, list[Verdict]] = {}
    for v in s.verdicts:
        if v.kind == "ordering" and v.judged_at is not None:
            judged.setdefault(v.judged_at, []).append(v)
    paper = {run: e.record.steps for run, e in s.evidence.get("paper", {}).items()}
    said = []
    for preset in sorted(judged, key=PRESETS_ORDER.index, reverse=True):
        group = judged[preset]
        runs = {run: s.evidence[preset][run].record for v in group for run in v.runs}
        steps = _range([r.steps for r in runs.values()])
        known = {name: (r.steps, paper[name]) for name, r in runs.items() if paper.get(name)}
        rest = ""
        if preset != "paper" and known:
            ours, full = (_range(counts) for counts in zip(*known.values(), strict=True))
            share = _shares([100 * done / whole for done, whole in known.values()])
            names = ", ".join(known) if len(known) <= 3 else f"{len(known)} of {len(runs)} runs"
            rest = f" ({names}: {ours} of the paper preset's {full}, {share} %)"
        elif preset != "paper":
            rest = "; none of these ran at preset paper, with the paper's own schedule"
        count = number_of(len(group), "ordering")
        trained = any(r.steps for r in runs.values())
        how_long = f"{steps} training step{'s' * (steps != '1')}{rest}"
        how_long = how_long if trained else "nothing trained, but taken from another project"
        said.append(f"{count} judged at preset {preset}: {how_long}. {_over_seeds(group, runs)}")
    return said


def _over_seeds(group: Sequence[Verdict], runs: Mapping[str, Record]) -> str:
    """How many seeds these orderings were judged by, and what their errors therefore cover."""
    several = sorted({len(v.seeds) for v in group if v.seeds})
    if not several:
        which = ", ".join(map(str, sorted({r.seed for r in runs.values()})))
        return f"One seed each ({which}); ± is over test examples, not over seeds."
    if all(v.seeds for v in group):
        return f"Means over {_range(several)} seeds; ± is over seeds and test examples."
    return f"Some are means over {_range(several)} seeds, with their errors; the others are of one seed each."


def _range(numbers: Sequence[int]) -> str:
    """'28,800', '9,600 to 28,800'."""
    return " to ".join(dict.fromkeys(f"{n:,}" for n in (min(numbers), max(numbers))))


def _shares(percent: Sequence[float]) -> str:
    """'2.5', '0.5 to 100'."""
    return " to ".join(dict.fromkeys(f"{x:.2g}" if x < 10 else f"{x:.0f}" for x in (min(percent), max(percent))))


def _both(draw: Callable[..., Markup], key: str) -> Markup:
    """A chart for wide screens and one for phones; the style sheet shows one of them."""
    return Markup("").join([draw(width=WIDE, key=f"{key}w"), draw(width=NARROW, key=f"{key}n")])


def _datasets(record: Record) -> str:
    return ", ".join(record.data_sha256) or "data not named"


def runs_compared(s: Standing, preset: str | None) -> list[dict[str, Any]]:
    """For each metric and data set of the main preset, its runs' test scores; the paper's value where it is claimed.

    Runs that give a score in parts (`active_units_1`, `active_units_2`, a layer each) have a chart of their own: their
    sums and the numbers of the others are not of the same thing.
    """
    if preset is None:
        return []
    claimed = {
        (c.run, c.metric, c.dataset): (float(c.paper_value), None if c.paper_stderr is None else float(c.paper_stderr))
        for c in s.file.claims
        if c.kind == "value" and c.preset == preset
    }
    found: dict[tuple[str, str, tuple[str, ...]], list[Dot]] = {}
    for run, evidence in s.evidence[preset].items():
        for own, (score, spread) in zip(evidence.record.scores, all_scores(evidence), strict=True):
            if find_metric(score.name) and score.split == "test":
                data = _datasets(evidence.record)
                reference = next(
                    (
                        claimed[run, score.name, d]
                        for d in evidence.record.data_sha256
                        if (run, score.name, d) in claimed
                    ),
                    (None, None),
                )
                values = spread.values if spread else ()
                dot = Dot(run, score.value, score.stderr, reference[0], reference[1], values)
                found.setdefault((score.name, data, parts_of(evidence.record, own)), []).append(dot)
    paired = {v.metric for v in s.verdicts if any(step.paired for step in v.steps)}
    charts = []
    for number, ((name, data, parts), dots) in enumerate(found.items()):
        if len(dots) < 2:
            continue
        metric = metric_called(name)
        dots.sort(key=lambda d: d.value, reverse=metric.direction == "higher")
        what = (name.replace("_", " ") if name in METRICS else name) + (f", {len(parts)} parts in all" if parts else "")
        unit = "" if metric.unit == "units" else f", {metric.unit}"
        counted = metric.unit == "units" and not any(
            c.kind == "value" and c.metric == name and c.direction == metric.direction for c in s.file.claims
        )  # more of what is only counted is not better unless a claim says so
        label = f"{what}{unit}" + ("" if counted else f" ({metric.direction} is better)")
        title = f"{what}: {len(dots)} runs on {data}: " + ", ".join(f"{d.label} {show(d.value)}" for d in dots)
        caption = f"{metric.what[:1].upper()}{metric.what[1:]}; {data}, preset {preset}, test split."
        if parts:
            caption += f" These runs give it in parts, which are added up here: {', '.join(parts)}."
        elif any(other for n, d, other in found if (n, d) == (name, data)):
            caption += " Runs that give it in parts are not comparable with these, and left out here."
        if any(d.reference is not None for d in dots):
            caption += " Rings are the paper's values"
            caption += ", with their errors where it states one." if any(d.reference_stderr for d in dots) else "."
        errors = any(d.stderr for d in dots)
        if errors:
            caption += " Bars are two standard errors either way, of each run by itself."
        if seeds := sorted({len(d.values) for d in dots if d.values}):
            caption += f" Where a run was made with several seeds ({_range(seeds)}), the dot is their mean, with the "
            caption += "errors of seeds and of test examples; the small marks above it are the seeds."
        charts.append(
            {
                "caption": caption,
                "paired": errors and name in paired,
                "svg": _both(
                    lambda width, key, dots=dots, title=title, label=label: dot_chart(
                        dots, title=title, x_label=label, width=width, key=key
                    ),
                    f"dot{number}",
                ),
            }
        )
    return charts


def parts_of(record: Record, score: Score) -> tuple[str, ...]:
    """The names of the scores that add up to this one, `<name>_1` and so on; () when it is not given in parts."""
    parts = [
        s for s in record.scores if re.fullmatch(rf"{re.escape(score.name)}_\d+", s.name) and s.split == score.split
    ]
    return tuple(s.name for s in parts) if parts and math.isclose(sum(s.value for s in parts), score.value) else ()


def what_runs_are(s: Standing, preset: str | None) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """How the runs of a preset differ: the settings that are not the same in all of them, and each run's."""
    configs = {run: e.record.config for run, e in s.evidence[preset].items()} if preset else {}
    names = dict.fromkeys(name for config in configs.values() for name in config)
    differ = [n for n in names if len({json.dumps(c.get(n)) for c in configs.values()}) > 1]

    def said(value: object) -> str:
        if isinstance(value, list):
            return ", ".join(map(said, value)) or "none"
        return "–" if value is None else " ".join(str(value).split())

    return [n.replace("_", " ") for n in differ], [
        (run, [said(c.get(n)) for n in differ]) for run, c in configs.items()
    ]


def learning_curves(s: Standing, base: Path, preset: str | None) -> list[dict[str, Any]]:
    """Learning curves of the main preset: a chart for each data set and logged metric, and the lines in it."""
    if preset is None:
        return []
    found: dict[tuple[str, str], list[Series]] = {}
    for run, evidence in s.evidence[preset].items():
        try:
            rows = read_metrics(base / preset / run)
        except (RecordError, OSError):
            continue  # the page does without a curve; `referee verdicts` names broken records
        for name in _interesting(rows):
            points = [(r["step"], r[name]) for r in rows if _is_number(r.get("step")) and _is_number(r.get(name))]
            if len(points) > 1:
                x, y = zip(*points, strict=True)
                found.setdefault((_datasets(evidence.record), name), []).append(Series(run, x, y))
    charts: list[dict[str, Any]] = []
    for (data, name), series in found.items():
        for start in range(0, len(series), MAX_LINES):
            part = series[start : start + MAX_LINES]
            label = CURVES.get(name, name)
            title = f"Learning curves: {name} against step, {data}, for " + ", ".join(p.label for p in part)
            charts.append(
                {
                    "label": label,
                    "series": [thin(line) for line in part],
                    "caption": f"{data}, preset {preset}. Each point is a mean over the steps since the one before; "
                    "the very first are cut off." + (OBJECTIVES if len(part) > 1 and name in CURVES else ""),
                    "svg": _both(
                        lambda width, key, part=part, title=title, label=label: line_chart(
                            part, title=title, x_label="training step", y_label=label, width=width, key=key
                        ),
                        f"curve{len(charts)}",
                    ),
                }
            )
    return charts


def _interesting(rows: Sequence[dict[str, float]]) -> list[str]:
    """The logged metrics worth a chart: known ones if there are any, without a loss that only repeats a bound."""
    names = {name for row in rows for name in row}
    known = [name for name in CURVES if name in names]
    if len(known) > 1 and "loss" in known:
        known.remove("loss")
    return known or sorted(names - {"step", "epoch", "grad_norm", "lr"})[:2]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _pictures(s: Standing, base: Path, preset: str | None) -> tuple[list[dict[str, Any]], list[str]]:
    """Pictures as data URIs: first those of claims, then each run's; and the names of those left out."""
    wanted: list[tuple[Path, str, str]] = []
    for claim in s.file.claims:
        if isinstance(claim, FigureClaim) and (path := figure_file(s.project, base, claim.figure)):
            wanted.append((path, f"{claim.source}: {claim.statement}", "for a person to judge"))
    if preset is not None:
        for run in s.evidence[preset]:
            for path in sorted((base / preset / run).glob("*.png")):
                what = "samples" if path.stem == "samples" else path.stem.replace("_", " ")
                wanted.append((path, f"{run}: {what}", f"preset {preset}"))
    pictures: list[dict[str, Any]] = []
    left_out: list[str] = []
    seen: set[Path] = set()
    for path, caption, detail in wanted:
        if path in seen:
            continue
        seen.add(path)
        shown = s.project.shown(path)
        picture = read_picture(path) if len(pictures) < MAX_PICTURES and not path.is_symlink() else None
        if picture is None:
            left_out.append(shown)
        else:
            pictures.append({**picture, "caption": caption, "detail": detail, "path": shown})
    return pictures, left_out


def read_picture(path: Path) -> dict[str, Any] | None:
    """A PNG as a data URI with its size in pixels; None if it is no PNG or too large."""
    try:
        if path.stat().st_size > MAX_PICTURE:
            return None
        raw = path.read_bytes()
    except OSError:
        return None
    if raw[:8] != b"\x89PNG\r\n\x1a\n" or raw[12:16] != b"IHDR" or len(raw) < 33:
        return None
    width, height = struct.unpack(">II", raw[16:24])
    return {"src": f"data:image/png;base64,{base64.b64encode(raw).decode()}", "width": width, "height": height}


def score_rows(preset: str, runs: dict[str, Evidence] | Any) -> dict[str, Any]:
    rows = []
    for run, evidence in runs.items():
        for i, (score, spread) in enumerate(all_scores(evidence)):
            rows.append(
                {
                    "run": run if i == 0 else "",
                    "span": len(evidence.record.scores),
                    "score": score,
                    "value": show_score(score),
                    "spread": show_spread(spread) if spread else "",
                }
            )
    return {"preset": preset, "rows": rows}


def how_run(evidence: Evidence) -> dict[str, Any]:
    record = evidence.record
    return {
        "record": record,
        "path": evidence.path,
        "config": json.dumps(record.config),
        "hardware": hardware_line(record.hardware),
        "trained": _origin(record.trained),
        "wall": duration(record.wall_s),
        "timings": ", ".join(f"{stage} {duration(t)}" for stage, t in record.timings_s.items()),
        "others": evidence.others,  # the same with other seeds
    }


def _origin(trained: Mapping[str, Any]) -> str:
    """'finished 2026-01-02T03:04:05+00:00, commit 0a1b…, on Intel Xeon, 2 cores', of weights that were kept."""
    if not trained:
        return ""
    on = hardware_line(trained.get("hardware", {}))
    parts = [f"finished {trained.get('finished', 'at no time')}", f"commit {trained.get('git_sha') or 'unknown'}"]
    return ", ".join(parts + ([f"on {on}"] if on else []))


def commands(s: Standing, presets: Iterable[str]) -> list[dict[str, str]]:
    """The command of each preset that ran or is claimed, and what it took."""
    claimed = {c.preset for c in s.file.claims}
    lines = []
    for preset in PRESETS_ORDER:
        if preset in presets:
            records = [e.record for e in s.evidence[preset].values()]
            on = "; ".join(sorted({hardware_line(r.hardware) for r in records}))
            note = f"{added_up(records)}{_together(records)}, on {on}"
        elif preset in claimed:
            note = "claims are about this preset; it has not run here"
        else:
            continue
        lines.append({"command": f"referee run {s.project.name} --preset {preset}", "note": note})
    return lines


def _together(records: Sequence[Record]) -> str:
    """Up to how many run at a time, where each had a share of the cores: their times add up to more than it took."""
    at_once = [
        cores // threads
        for cores, threads in ((r.hardware.get("cores"), r.hardware.get("threads")) for r in records)
        if isinstance(cores, int) and isinstance(threads, int) and threads > 0
    ]
    if any(r.hardware.get("gpu") for r in records):
        return ""  # a GPU is for one run after the other
    most = min(max(at_once, default=1), len(records))
    return f", up to {most} at a time" if most > 1 else ""


def bibtex(s: Standing) -> str:
    """The paper, and this reproduction of it."""

    def plain(text: str) -> str:
        text = re.sub(r"[\\{}]", "", " ".join(text.split()))
        return re.sub(r"([&%$#_])", r"\\\1", text)

    paper = s.file.paper
    surname = re.sub(r"[^a-z]", "", paper.authors[0].split()[-1].lower()) or "paper"
    word = re.sub(r"[^a-z]", "", paper.title.split()[0].lower())
    lines = [
        f"@inproceedings{{{surname}{paper.year}{word},",
        f"  title     = {{{{{plain(paper.title)}}}}},",
        f"  author    = {{{' and '.join(plain(a) for a in paper.authors)}}},",
        f"  booktitle = {{{plain(paper.venue)}}},",
        f"  year      = {{{paper.year}}},",
    ]
    if paper.arxiv:
        lines += [f"  eprint    = {{{paper.arxiv}}},", "  archiveprefix = {arXiv},"]
    lines += ["}", ""]
    team = " and ".join(plain(m.handle) for m in s.file.team)
    years = [e.record.finished[:4] for p in s.evidence.values() for e in p.values()]
    shas = sorted({e.record.git_sha for p in s.evidence.values() for e in p.values() if e.record.git_sha})
    lines += [
        f"@software{{refereed-{s.project.name},",
        f"  title  = {{{STAGES[s.file.stage][0]} of ``{plain(paper.title)}''}},",
        f"  author = {{{team}}},",
    ]
    if years:
        lines.append(f"  year   = {{{plain(max(years))}}},")
    if len(shas) == 1:
        lines.append(f"  version = {{{plain(shas[0][:12])}}},")
    lines.append(f"  note   = {{Refereed generative models, projects/{plain(s.project.name)}, stage {s.file.stage}}},")
    return "\n".join([*lines, "}"])
