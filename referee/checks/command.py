"""`referee check`: look at submissions, and say what is wrong to people, programs, GitHub, or a pull request."""

import argparse
import dataclasses
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from common.records import write_text
from referee.checks.base import (
    SEVERITIES,
    STAGES,
    Check,
    Finding,
    Needs,
    Outcome,
    Severity,
    Submission,
    every_check,
    printable,
    run,
)
from referee.checks.reading import Unreadable, read_text
from referee.history import History
from referee.project import Project, UsageError, find_project, find_root, paper_names
from referee.stages import stated_stage

DOCUMENT = "docs/checks.md"

MARKS: dict[Severity, tuple[str, str]] = {
    "error": ("✗", "bold red"),
    "warning": ("!", "bold yellow"),
    "note": ("·", "dim"),
}

PARTS = {
    "PRJ": "`project.yaml`",
    "LAY": "Layout",
    "RES": "Results",
    "NB": "Notebook",
    "TST": "Tests",
    "PRB": "Probes",
    "ORG": "Origin and originality",
    "DOC": "README",
    "SEC": "Safety",
    "REV": "Reviews, responses, decisions",
    "CRS": "`course.yaml`",
    "STG": "Stages and amendments",
}


def check_command(options: argparse.Namespace) -> int:
    """`referee check`: 0 when no finding is an error, 1 when one is."""
    root = find_root()
    if options.document:
        path = root / DOCUMENT
        write_text(path, document())
        print(f"wrote {DOCUMENT}")
        return 0
    only = {rule.strip().upper() for rule in options.only.split(",") if rule.strip()} if options.only else None
    if only and (unknown := sorted(only - set(every_check()))):
        raise UsageError(f"check: there is no rule '{printable(unknown[0])[:40]}'. They are listed in {DOCUMENT}.")
    if options.papers and options.changed is not None:
        raise UsageError("check: name papers, or --changed, not both.")
    base: str | None = None
    if options.changed is not None:
        base = History(root).merge_base(options.changed)
        projects = [Project(root, name) for name in changed(root, base) if exists(root, name)]
    else:
        projects = [named(root, name) for name in dict.fromkeys(options.papers)]
        projects = projects or [find_project(root, name) for name in paper_names(root)]
    needs: list[Needs] = ["files"]
    needs += ["others", "code", "notebook"] if options.run else []
    needs += ["notebook"] if options.notebooks else []
    outcomes = [
        run(Submission(project, options.stage or stage_of(project), base), needs=needs, only=only, tell=teller(project))
        for project in projects
    ]
    {"table": print_table, "json": print_json, "github": print_github, "markdown": print_markdown}[options.format](
        outcomes
    )
    return 1 if any(outcome.errors for outcome in outcomes) else 0


def teller(project: Project) -> Callable[[Check], None] | None:
    """Tells somebody who waits at a terminal which check of a project is at work; None when nobody does."""
    if not sys.stderr.isatty():
        return None
    return lambda entry: print(f"{project.name}: {entry.rule} {entry.title} …", file=sys.stderr, flush=True)


# -- Which projects ----------------------------------------------------------------------------------------------------


def exists(root: Path, name: str) -> bool:
    """Whether there is a project's folder, or a link in its place."""
    folder = root / "projects" / name
    return folder.is_dir() or folder.is_symlink()


def named(root: Path, name: str) -> Project:
    """A project by name, also one whose project.yaml is missing; UsageError when there is no such folder."""
    plain = name not in ("", ".", "..") and not re.search(r"[/\\\0]", name)
    return Project(root, name) if plain and exists(root, name) else find_project(root, name)


def stage_of(project: Project) -> str:
    """The stage that project.yaml states, even when the rest of the file cannot be used; else the first."""
    try:
        text = read_text(project.folder / "project.yaml")
    except Unreadable:
        return STAGES[0]
    stated = stated_stage(text)
    return stated if stated in STAGES else STAGES[0]


def changed(root: Path, base: str) -> list[str]:
    """The projects with files (theirs or their reviews') that differ from `base`, or are not committed yet."""
    history = History(root)
    listed = [
        history.git("diff", "--name-only", "--no-renames", "--no-ext-diff", "-z", base, "--", "projects", "reviews"),
        history.git("ls-files", "--others", "--exclude-standard", "-z", "--", "projects", "reviews"),
    ]
    names = [os.fsdecode(name) for output in listed for name in (output or b"").split(b"\0") if name]
    paths = [name.split("/") for name in names]
    deep = {p[1] for p in paths if len(p) > 2}
    flat = {p[1] for p in paths if len(p) == 2 and (root / "projects" / p[1]).is_symlink()}
    return sorted(deep | flat)


# -- How findings are shown --------------------------------------------------------------------------------------------


def counted(findings: Iterable[Finding]) -> str:
    """'2 errors, 1 warning'; '' when there is none."""
    counts = Counter(f.severity for f in findings)
    return ", ".join(f"{counts[s]} {s}{'s' * (counts[s] > 1)}" for s in SEVERITIES if counts[s])


def verdict(outcome: Outcome) -> str:
    """'1 error, 2 warnings · 40 checks passed', and what waits."""
    n = len(outcome.passed)
    parts = [counted(outcome.findings) or "nothing found", f"{n} check{'s' if n != 1 else ''} passed"]
    if outcome.skipped:
        parts.append(f"{len(outcome.skipped)} had nothing to look at")
    return " · ".join(parts)


def print_table(outcomes: Sequence[Outcome]) -> None:
    """For a terminal of 80 columns."""
    from rich.padding import Padding
    from rich.text import Text

    from referee.show import console

    out = console()
    if not outcomes:
        out.print("No project to check.")
    for outcome in outcomes:
        out.print()
        out.print(Text.assemble((outcome.name, "bold"), f" · {outcome.about}"))
        for finding in outcome.findings:
            mark, style = MARKS[finding.severity]
            place = finding.file if finding.line <= 1 else f"{finding.file}:{finding.line}"
            head = Text.assemble((f"{mark} {finding.severity:8}{finding.rule}", style), f"  {place}")
            out.print(head, soft_wrap=True)
            out.print(Padding(Text(finding.message), (0, 0, 0, 4), expand=False))
        out.print(Text(verdict(outcome), style="bold"))
        if outcome.waiting:
            waits = f"not asked: {', '.join(outcome.waiting)} (with --run; they run code or read other projects)"
            out.print(Text(waits, style="dim"))
        if outcome.errors:
            out.print(Text("The gate stays shut until the errors are put right.", style="bold red"))
    if any(outcome.findings for outcome in outcomes):
        out.print(Text(f"\nWhat each rule asks, why, and how to satisfy it: {DOCUMENT}", style="dim"))


def print_json(outcomes: Sequence[Outcome]) -> None:
    """For programs."""
    papers = [
        {
            "paper": printable(outcome.name),
            "stage": outcome.stage,
            "about": outcome.about,
            "passed": outcome.errors == 0,
            "counts": {s: sum(f.severity == s for f in outcome.findings) for s in SEVERITIES},
            "findings": [dataclasses.asdict(f) for f in outcome.findings],
            "rules": {
                "passed": outcome.passed,
                "skipped": outcome.skipped,
                "waiting": outcome.waiting,
            },
        }
        for outcome in outcomes
    ]
    print(json.dumps({"passed": not any(o.errors for o in outcomes), "papers": papers}, indent=1))


def print_github(outcomes: Sequence[Outcome]) -> None:
    """Workflow commands that GitHub shows beside the lines of a pull request."""
    for outcome in outcomes:
        for finding in outcome.findings:
            print(annotation(finding))
        print(f"{printable(outcome.name)} · {outcome.about}: {verdict(outcome)}")


def annotation(finding: Finding) -> str:
    """A finding as a workflow command."""
    level = {"error": "error", "warning": "warning", "note": "notice"}[finding.severity]
    place = f"file={_property(finding.file)},line={finding.line},title={_property(finding.rule)}"
    return f"::{level} {place}::{_data(finding.message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def print_markdown(outcomes: Sequence[Outcome]) -> None:
    """A summary for a pull request's page. Nothing in it is markup but our own."""
    if not outcomes:
        print("No project changed.")
    for outcome in outcomes:
        mark = "❌" if outcome.errors else "✅"
        print(f"### {mark} {inert(printable(outcome.name))} · {outcome.about}\n\n{verdict(outcome)}.\n")
        if not outcome.findings:
            continue
        print("|  | rule | where | what |\n| --- | --- | --- | --- |")
        for f in outcome.findings[:100]:
            mark = MARKS[f.severity][0]
            where = f.file.removeprefix(f"projects/{outcome.name}/") + (f":{f.line}" if f.line > 1 else "")
            rule = f.rule if f.rule not in every_check() else every_check()[f.rule].title
            print(f"| {mark} {f.severity} | {f.rule}: {inert(rule)} | {inert(where)} | {inert(f.message)} |")
        if len(outcome.findings) > 100:
            print(f"\nand {len(outcome.findings) - 100} more: run `referee check`.")
        print()


def inert(text: str) -> str:
    """Text as text in a comment on GitHub: no markup, no link, nobody mentioned, no issue referred to."""
    from referee.tables import md

    text = re.sub(r"[@#]|(?<=:)(?=//)|(?<=www)(?=\.)", lambda m: m[0] + "\ue000", text)
    return md(text).replace("\ue000", "<!-- -->")


# -- The page that documents them --------------------------------------------------------------------------------------


def document() -> str:
    """`docs/checks.md`: every rule, what it asks, why, how to satisfy it, how severe it is at which stage."""
    lines = [
        "# Checks",
        "",
        "<!-- made by: referee check --document -->",
        "",
        "What `referee check <paper>` looks at. An **error** closes the gate of a stage, a **warning** is for a person",
        "to judge, a **note** is said and does no harm. Ids are permanent. Rules marked *on demand* run the paper's",
        "code or read other projects: `referee check <paper> --run` asks them too.",
        "",
    ]
    every = every_check()
    for prefix, title in PARTS.items():
        rules = [entry for rule, entry in every.items() if rule.partition("-")[0] == prefix]
        if not rules:
            continue
        lines += [f"## {title}", ""]
        for entry in rules:
            lines += [f"### {entry.rule}: {entry.title}", "", *_paragraphs(entry), ""]
    return "\n".join(lines).rstrip() + "\n"


def _paragraphs(entry: Check) -> list[str]:
    stages = ", ".join(f"{stage}: {severity}" for stage in STAGES if (severity := entry.severity[stage]))
    same = set(entry.severity.values())
    when = f"{same.pop()} at every stage" if len(same) == 1 else stages
    asked = {
        "files": "",
        "others": " *On demand:* reads other projects.",
        "code": " *On demand:* runs the paper's code.",
        "notebook": " *On demand:* executes the notebook; `--notebooks` asks this one alone.",
    }[entry.needs]
    return [f"*Why.* {entry.why}", "", f"*How to satisfy it.* {entry.fix}", "", f"*Severity.* {when}.{asked}"]
