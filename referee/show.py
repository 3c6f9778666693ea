"""What a terminal shows: tables of verdicts and scores. Text from files is never read as markup."""

import argparse
import dataclasses
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.records import Record
from referee.project import find_project, find_root, paper_names
from referee.standing import Standing, standing
from referee.verdicts import Status, Verdict, show_score, show_step

MARKS: dict[Status, tuple[str, str]] = {
    "reproduced": ("✓", "bold green"),
    "within tolerance": ("≈", "green"),
    "trend only": ("↗", "yellow"),
    "inconclusive": ("±", "bold yellow"),
    "not reproduced": ("✗", "bold red"),
    "compute-limited": ("◔", "cyan"),
    "not attempted": ("·", "dim"),
    "for a person to judge": ("◉", "magenta"),
}
"""A sign and a colour for each verdict: never the colour alone."""


def console() -> Console:
    """Where tables go; wide when nobody sees a terminal's edge."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def verdicts_command(options: argparse.Namespace) -> int:
    """`referee verdicts`."""
    root = find_root()
    papers = [find_project(root, options.paper)] if options.paper else []
    papers = papers or [find_project(root, name) for name in paper_names(root)]
    standings = [standing(paper, runs=options.runs) for paper in papers]
    if options.format == "json":
        print(
            json.dumps(
                [
                    {
                        "project": s.project.name,
                        "stage": s.file.stage,
                        "verdicts": [dataclasses.asdict(v) for v in s.verdicts],
                        "problems": s.problems,
                    }
                    for s in standings
                ],
                indent=1,
            )
        )
    else:
        if not standings:
            print("There is no project yet.")
        for s in standings:
            print_verdicts(s, runs=options.runs)
    for s in standings:
        for problem in s.problems:
            print(f"referee: {problem}", file=sys.stderr)
    return 1 if any(s.fell_short for s in standings) else 0


def verdict_text(verdict: Verdict) -> Text:
    """'✓ reproduced', in its colour; a stale one says so."""
    mark, style = MARKS[verdict.status]
    text = Text(f"{mark} {verdict.status}", style=style)
    if verdict.stale:
        text.append(" (stale)", style="bold red")
    return text


def print_verdicts(s: Standing, *, runs: bool = False) -> None:
    """The table claim, paper, ours, verdict; below it what needs saying in words."""
    out = console()
    paper = s.file.paper
    out.print()
    out.print(
        Text.assemble((s.project.name, "bold"), f" · {paper.title} · {paper.venue} {paper.year} · stage {s.file.stage}")
    )
    source = s.project.shown(s.project.runs if runs else s.project.results)
    out.print(Text(f"judged by the records in {source}", style="dim"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("claim", no_wrap=True)
    table.add_column("paper")
    table.add_column("ours")
    table.add_column("verdict", no_wrap=True)
    table.add_column("at")
    for v in s.verdicts:
        said = Text(v.paper)
        if v.certainty == "mem":
            said.append(" *", style="dim")
        at = v.judged_at or "–"
        if v.judged_at and v.judged_at != v.preset:
            at += f" (claim: {v.preset})"
        table.add_row(Text(v.claim), said, Text(v.ours), verdict_text(v), Text(at))
    out.print(table)
    if any(v.certainty == "mem" for v in s.verdicts):
        out.print(Text("* the published value is from memory and waits to be checked against the paper", style="dim"))
    for v in s.verdicts:
        for line in in_words(v):
            out.print(Text.assemble((v.claim, "bold"), f": {line}"))
    if any(v.stale for v in s.verdicts):
        stale = ", ".join(sorted({r for v in s.verdicts if v.stale for r in v.runs}))
        out.print(
            Text(
                f"Stale: the code has changed since these ran: {stale}. Run them again and publish them.",
                style="bold red",
            )
        )
    out.print(Text(summary(s.verdicts), style="bold"))


def in_words(verdict: Verdict) -> list[str]:
    """What the columns of a table do not say: notes, and the steps of an ordering."""
    notes = [n for n in verdict.notes if not re.fullmatch(r"Only the \w+ preset ran\.", n)]
    return [*notes, *(["; ".join(map(show_step, verdict.steps)) + "."] if verdict.steps else [])]


def summary(verdicts: Iterable[Verdict]) -> str:
    """'3 reproduced, 18 compute-limited', in the order of `MARKS`."""
    counts = Counter(v.status for v in verdicts)
    return ", ".join(f"{counts[status]} {status}" for status in MARKS if counts[status]) or "no claims"


def print_scores(records: Sequence[Record]) -> None:
    """What came out of some runs: one line a score."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("run", "score", "value", "unit", "n", "protocol", "time"):
        table.add_column(column, justify="right" if column in ("value", "n", "time") else "left")
    for record in records:
        for i, score in enumerate(record.scores):
            cells = (
                record.run if i == 0 else "",
                score.name,
                show_score(score),
                score.unit,
                f"{score.n:,}",
                score.protocol,
                duration(record.wall_s) if i == 0 else "",
            )
            table.add_row(*(Text(cell) for cell in cells))
    console().print(table)


def duration(seconds: float) -> str:
    """'42 s', '3 min 20 s', '2 h 5 min'."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {s} s" if s else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
