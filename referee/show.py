"""What a terminal shows: tables of verdicts and scores. Text from files is never read as markup."""

import argparse
import dataclasses
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from datetime import date
from typing import TextIO, cast

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from common.records import Record
from referee.project import find_project, find_root, paper_names
from referee.standing import Standing, standing
from referee.verdicts import Evidence, Status, Verdict, all_scores, show_over_seeds, show_shortfall, show_step

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

AMENDED = "†"
"""The sign of a claim that was amended."""

TOO_GOOD = "(too good?)"
"""Stands behind the verdict on a value that is far better than the paper's."""

KINDS = ("ordering", "value", "figure")
"""The order in which claims are shown, from what a paper says to what it only shows."""

VERDICT = len("◔ compute-limited")  # letters: most verdicts fit, and what follows them is aligned


class _Trimmed(io.TextIOBase):
    """Standard output without the blanks by which lines are filled up to a width."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(sys.stdout, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        sys.stdout.write(re.sub(r"[ \t]+(?=\n|\Z)", "", text))
        return len(text)

    def flush(self) -> None:
        sys.stdout.flush()


def console() -> Console:
    """Where tables go; wide, and without blanks at the ends of lines, when nobody sees a terminal's edge."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, width=140, file=cast(TextIO, _Trimmed()))


def plain_table() -> Table:
    """A table without lines, as wide as its content."""
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")


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
                        "amendments": [a.model_dump(mode="json") for a in s.file.amendments],
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
            print_verdicts(s, runs=options.runs, every=options.all)
    for s in standings:
        for problem in s.problems:
            print(f"referee: {problem}", file=sys.stderr)
    return 1 if any(s.fell_short for s in standings) else 0


def verdict_text(verdict: Verdict) -> Text:
    """'✓ reproduced', in its colour; a stale one says so."""
    mark, style = MARKS[verdict.status]
    text = Text(f"{mark} {verdict.status}", style=style)
    if verdict.too_good:
        text.append(f" {TOO_GOOD}", style="bold yellow")
    if verdict.stale:
        text.append(" (stale)", style="bold red")
    return text


def print_verdicts(s: Standing, *, runs: bool = False, every: bool = False) -> None:
    """Claims and what they came to: orderings, then values, then figures. Made to fit 80 columns.

    Args:
        runs: it was judged by the runs on this machine; only said, not done here.
        every: list the claims of which there is nothing to look at, too, instead of counting them.
    """
    out = console()
    paper = s.file.paper
    source = s.project.shown(s.project.runs if runs else s.project.results)
    about = f" · {paper.title} · {paper.venue} {paper.year} · stage {s.file.stage}"
    out.print()
    out.print(Text.assemble((s.project.name, "bold"), about))
    out.print(Text(f"judged by the records in {source}", style="dim"))
    listed = [v for v in s.verdicts if every or not v.untried]
    marked = amended(s)
    for v in listed:
        if v.kind == "ordering":
            _print_in_full(out, v, marked)
    _print_values(out, [v for v in listed if v.kind == "value"], marked)
    for v in listed:
        if v.kind == "figure":
            _print_in_full(out, v, marked)
    out.print()
    if folded := len(s.verdicts) - len(listed):
        command = f"referee verdicts {s.project.name}{' --runs' if runs else ''} --all"
        out.print(Text(f"{MARKS['not attempted'][0]} {folded} not attempted: '{command}' lists them", style="dim"))
    if any(v.certainty == "mem" for v in listed):
        out.print(Text("* the published value is from memory and waits to be checked against the paper", style="dim"))
    for line in amendments(s):
        out.print(Text(f"{AMENDED} {line}", style="dim"))
    if any(v.stale for v in s.verdicts):
        stale = ", ".join(sorted({r for v in s.verdicts if v.stale for r in v.runs}))
        said = f"Stale: the code has changed since these ran: {stale}. Run them again and publish them."
        out.print(Text(said, style="bold red"))
    out.print(Text(summary(s.verdicts), style="bold"))


def _print_in_full(out: Console, v: Verdict, marked: Container[str]) -> None:
    """The verdict on an ordering or a figure, the claim in words, and what came out, a line each."""
    head = verdict_text(v)
    head.append(" " * max(0, VERDICT - len(head)))
    head = Text.assemble(head, f"  {_name(v, marked)}", (" *" if v.certainty == "mem" else "", "dim"))
    head.append(f", {judged_where(v)}", style="dim")
    lines = [Text(v.statement, style="bold"), *([] if v.untried else [Text(v.ours)])]
    lines += [Text(show_step(step), style="dim") for step in v.steps]
    lines += [Text(note) for note in v.notes]
    out.print()
    out.print(head)
    for line in lines:
        out.print(Padding(line, (0, 0, 0, 2)))


def _name(v: Verdict, marked: Container[str]) -> str:
    return f"{v.claim} {AMENDED}" if v.claim in marked else v.claim


def _print_values(out: Console, values: Sequence[Verdict], marked: Container[str]) -> None:
    """Tables of verdict, claim, paper and ours: one for each preset that was looked at."""
    groups: dict[str, list[Verdict]] = {}
    for v in values:
        groups.setdefault(f"Values {judged_where(v)}", []).append(v)
    longest = max((len(_name(v, marked)) for v in values), default=0)
    wide = out.width >= 110
    for title, group in groups.items():
        table = plain_table()
        table.add_column("verdict", no_wrap=True, min_width=VERDICT)
        table.add_column("claim", overflow="fold", min_width=min(longest, 24))
        table.add_column("paper", no_wrap=True, justify="right", min_width=7)
        table.add_column("ours", no_wrap=True, justify="right")
        if wide:
            table.add_column("source", style="dim")
        for v in group:
            paper = v.paper if v.untried else v.paper.removesuffix(f" {v.unit}")  # ours says the unit
            if not wide:
                paper = paper.replace(" ± ", "\n± ")  # on a line of its own, since ours has to fit beside it
            said = Text.assemble(paper, (" *" if v.certainty == "mem" else "", "dim"))
            ours = v.ours.removesuffix(v.other_data)
            if not wide:
                ours = ours.replace(" (", "\n(")  # over seeds
            table.add_row(
                verdict_text(v), Text(_name(v, marked)), said, Text(ours), *([Text(v.source)] if wide else [])
            )
        out.print()
        out.print(Text(title, style="bold"))
        out.print(table)
        for v in group:
            short = [] if v.status == "reproduced" else shortfall_in_words(v)
            for note in [*short, *worth_saying(v)]:
                out.print(Padding(Text(f"{v.claim}: {note}"), (0, 0, 0, 2)))


def judged_where(v: Verdict) -> str:
    """'at laptop', or 'at smoke, on digits; claimed for paper' where only a smaller preset ran."""
    if v.judged_at is None:
        return f"claimed for {v.preset}"
    return f"at {v.judged_at}{v.other_data}" + (f"; claimed for {v.preset}" if v.below else "")


def worth_saying(verdict: Verdict) -> list[str]:
    """The notes that say more than the columns of a table."""
    return [n for n in verdict.notes if not re.fullmatch(r"Only the \w+ preset ran(, on [\w, ]+)?\.", n)]


def shortfall_in_words(verdict: Verdict) -> list[str]:
    """How a value that was judged compares with the paper's, as a sentence; none of any other verdict."""
    if verdict.shortfall is None:
        return []
    said = show_shortfall(verdict.shortfall, verdict.unit or "")
    return [f"{said[:1].upper()}{said[1:]}."]


def in_words(verdict: Verdict) -> list[str]:
    """What the columns of a table do not say: the errors of a value, notes, and the steps of an ordering."""
    steps = ["; ".join(map(show_step, verdict.steps)) + "."] if verdict.steps else []
    return [*shortfall_in_words(verdict), *worth_saying(verdict), *steps]


def amended(s: Standing) -> frozenset[str]:
    """The claims, by id, that are not as they were accepted."""
    return frozenset(a.claim for a in s.file.amendments)


def amendments(s: Standing, name: Callable[[str], str] = str, said: Callable[[str], str] = str) -> list[str]:
    """Which claims were amended, when and why: one line for all that changed on one day for one reason.

    Args:
        name: how a claim's id is written.
        said: how a reason is written.
    """
    groups: dict[tuple[date, str, str], list[str]] = {}
    for a in s.file.amendments:
        groups.setdefault((a.date, a.change, a.reason), []).append(name(a.claim))
    return [
        f"{change.capitalize()} {day}, after the proposal was accepted: {', '.join(claims)}. {said(reason)}"
        for (day, change, reason), claims in groups.items()
    ]


def summary(verdicts: Iterable[Verdict]) -> str:
    """'3 reproduced, 18 compute-limited', in the order of `MARKS`."""
    verdicts = list(verdicts)
    counts = Counter(v.status for v in verdicts)
    said = [f"{counts[status]} {status}" for status in MARKS if counts[status]]
    if n := sum(v.too_good for v in verdicts):
        said[0] += f" ({n} too good?)"  # it is among the reproduced ones, which come first
    return ", ".join(said) or "no claims"


def print_scores(records: Sequence[Record]) -> None:
    """What came out of some runs, one line a score; below it how each was measured.

    Of a run that was made with several seeds, the mean over them.
    """
    table = plain_table()
    for column in ("run", "score", "value", "n", "time"):
        table.add_column(column, no_wrap=True, justify="left" if column in ("run", "score") else "right")
    by_run: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        by_run.setdefault((record.project, record.preset, record.run), []).append(record)
    measured: dict[str, dict[str, None]] = {}  # protocol -> the scores it is of, in order
    for own, *others in by_run.values():
        evidence = Evidence(own, "", others=tuple(Evidence(other, "") for other in others))
        for i, (score, spread) in enumerate(all_scores(evidence)):
            run, took = (own.run, duration(own.wall_s + sum(o.wall_s for o in others))) if i == 0 else ("", "")
            cells = (run, score.name, show_over_seeds(score, spread), f"{score.n:,}", took)
            table.add_row(*(Text(cell) for cell in cells))
            measured.setdefault(score.protocol, {})[score.name] = None
    print_measured(table, measured)


def print_measured(table: Table, measured: Mapping[str, Iterable[str]]) -> None:
    """A table of scores, and beneath it how they were measured: protocol -> the scores it is of."""
    out = console()
    out.print()
    out.print(table)
    out.print()
    for protocol, names in measured.items():
        out.print(Text(f"{', '.join(names)}: {protocol}", style="dim"))
    out.print()


def duration(seconds: float) -> str:
    """'42 s', '3 min 20 s', '2 h 5 min'."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {s} s" if s else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
