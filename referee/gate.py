"""`referee gate`: what the commits since a base do, whether it may be done now, and why."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from referee.checks.base import STAGES, Finding, Submission, printable, run
from referee.checks.command import MARKS, annotation, counted, exists, inert
from referee.grades import private_folder
from referee.history import check_actor, keep_push, read_event
from referee.project import Project, UsageError, find_root
from referee.reviews import DECISION, RESPONSE
from referee.stages import Change, Gate, open_gate


def gate_command(options: argparse.Namespace) -> int:
    """`referee gate`: 0 when it is open, 1 when it is shut."""
    root = find_root()
    event = read_event(Path(options.event)) if options.event else None
    actor = check_actor(options.actor) if options.actor else None
    folder = private_folder(root, options.private) if options.private else None
    gate = open_gate(root, options.base, event, actor)
    if folder is not None:
        if not gate.counted.pushed or event is None or event.head is None:
            raise UsageError("gate: --private keeps when the forge received a commit, and no --event tells it.")
        keep_push(folder, event.head, gate.counted.moment)
    findings = list(gate.findings)
    for change in gate.changes:
        findings += out_of_order(root, change) if change.kind in ("review", "decision") else unready(root, gate, change)
    show = {"table": print_table, "json": print_json, "github": print_annotations, "markdown": print_markdown}
    show[options.format](gate, findings)
    return 1 if any(f.severity == "error" for f in findings) else 0


def unready(root: Path, gate: Gate, change: Change) -> list[Finding]:
    """STG-014: errors by the checks of the stage that a change submits a project for, counted in one finding."""
    stage = change.step[1]
    if change.kind not in ("new", "step") or change.paper is None or stage not in STAGES:
        return []
    outcome = run(Submission(Project(root, change.paper), stage, gate.base))
    ours = {f.rule for f in gate.findings}
    errors = [f for f in outcome.findings if f.severity == "error" and f.rule not in ours]
    if not errors:
        return []
    rules = sorted({f.rule for f in errors})
    some = ", ".join(rules[:6]) + (f" and {len(rules) - 6} more" if len(rules) > 6 else "")
    message = (
        f"the checks of stage {stage} find {len(errors)} error{'s' if len(errors) > 1 else ''} ({some}). "
        f"'referee check {change.paper} --stage {stage}' says what to do."
    )
    message += ask(change.paper, {f.file for f in errors})
    return [Finding("STG-014", "error", f"projects/{change.paper}/project.yaml", 1, message)]


def out_of_order(root: Path, change: Change) -> list[Finding]:
    """What `referee review check` finds wrong with a changed review or decision: once merged, it would keep the team's
    next version out, and the team may not mend it."""
    from referee.reviewing import check_reviews

    if change.paper is None or not exists(root, change.paper):
        return []
    outcome = check_reviews(Project(root, change.paper))
    return [f for f in outcome.findings if f.severity == "error" and f.file == change.paths[0]]


def ask(paper: str, files: set[str]) -> str:
    """Whom the team asks to mend files that are not its own; '' when there is none."""
    prefix = f"reviews/{paper}/"
    names = sorted(f.removeprefix(prefix) for f in files if f.startswith(prefix) and f != prefix + RESPONSE)
    whom = ["the editor" if name == DECISION else name.removesuffix(".md") for name in names]
    return f" Not yours to change: {', '.join(prefix + n for n in names)}; ask {', '.join(whom)}." if names else ""


# -- How it is shown ---------------------------------------------------------------------------------------------------


def summary(gate: Gate) -> list[str]:
    """What is looked at, by whom, and when it counts; a line each."""
    commits = len(gate.history.between(gate.base, gate.head))
    by = f"by {printable(gate.actor)}" if gate.actor else "by nobody named: who may make it was not checked (--actor)"
    return [
        f"{commits} commit{'s' if commits != 1 else ''} from {gate.base[:10]} to {gate.head[:10]}, {by}",
        f"counts from {gate.local(gate.counted.moment)}: {gate.counted.how}",
    ]


def verdict(gate: Gate, findings: list[Finding]) -> str:
    """'The gate is open.', or how many errors shut it; what it has not looked at is said here, too."""
    shut = any(f.severity == "error" for f in findings)
    found = f": {counted(findings)}" if findings else ""
    said = f"The gate is {'shut' if shut else 'open'}{found}."
    if left := gate.history.uncommitted():
        said += f" {left} file{'s are' if left != 1 else ' is'} changed and not committed: the gate has not seen them."
    return said


def print_table(gate: Gate, findings: list[Finding]) -> None:
    """For a terminal of 80 columns."""
    from rich.padding import Padding
    from rich.text import Text

    from referee.show import console

    out = console()
    out.print()
    for line in summary(gate):
        out.print(Text(line, style="dim"))
    if not gate.changes:
        out.print("Nothing changed.")
    for judged in gate.judged:
        out.print()
        out.print(Text.assemble((judged.change.paper or "repository", "bold"), f" · {judged.change}"))
        for line in filter(None, (judged.until, *judged.requires)):
            out.print(Padding(Text(line), (0, 0, 0, 2)))
    for finding in findings:
        mark, style = MARKS[finding.severity]
        place = finding.file if finding.line <= 1 else f"{finding.file}:{finding.line}"
        out.print()
        head = Text.assemble((f"{mark} {finding.severity:8}{finding.rule}", style), f"  {place}")
        out.print(head, soft_wrap=True)
        out.print(Padding(Text(finding.message), (0, 0, 0, 4), expand=False))
    out.print()
    out.print(Text(verdict(gate, findings), style="bold"))


def print_json(gate: Gate, findings: list[Finding]) -> None:
    """For programs."""
    report = {
        "open": not any(f.severity == "error" for f in findings),
        "base": gate.base,
        "head": gate.head,
        "actor": gate.actor,
        "counts_from": gate.counted.moment.isoformat(),
        "counts_how": gate.counted.how,
        "changes": [
            {
                "kind": judged.change.kind,
                "paper": judged.change.paper,
                "from": judged.change.step[0],
                "to": judged.change.step[1],
                "files": len(judged.change.paths),
                "is": str(judged.change),
                "deadline": judged.until,
                "requires": judged.requires,
            }
            for judged in gate.judged
        ],
        "findings": [asdict(f) for f in findings],
    }
    print(json.dumps(report, indent=1))


def print_annotations(gate: Gate, findings: list[Finding]) -> None:
    """Workflow commands that GitHub shows beside the lines of a pull request."""
    for line in summary(gate):
        print(line)
    for judged in gate.judged:
        print(f"{judged.change.paper or 'repository'}: {judged.change}")
    for finding in findings:
        print(annotation(finding))
    print(verdict(gate, findings))


def print_markdown(gate: Gate, findings: list[Finding]) -> None:
    """A summary for a pull request's page. Nothing in it is markup but our own."""
    shut = any(f.severity == "error" for f in findings)
    print(f"### {'❌' if shut else '✅'} Gate\n\n{inert(verdict(gate, findings))}\n")
    for line in summary(gate):
        print(f"- {inert(line)}")
    if gate.changes:
        print("\n| what | change | due | requires |\n| --- | --- | --- | --- |")
    for judged in gate.judged[:100]:
        cells = (
            judged.change.paper or "repository",
            str(judged.change),
            judged.until or "",
            "; ".join(judged.requires),
        )
        print(f"| {' | '.join(map(inert, cells))} |")
    if findings:
        print("\n|  | rule | where | what |\n| --- | --- | --- | --- |")
    for f in findings[:100]:
        where = f.file + (f":{f.line}" if f.line > 1 else "")
        print(f"| {MARKS[f.severity][0]} {f.severity} | {f.rule} | {inert(where)} | {inert(f.message)} |")
    print()
