"""The commands of reviewers, teams and editors: `referee review start | check | evidence | score`, `respond`, `decide`.

What is begun here is a form: it can be read by `referee.reviews` at once, and what is left to write in it is marked
'WRITE:'. Nothing that exists is overwritten.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import UserError
from common.records import write_text
from referee.assignment import is_assigned, load_assignment
from referee.checklist import Item, load_checklist
from referee.documents import DocumentError
from referee.evidence import Said, Snapshot, check_says, checkout, own_command_says, probes_say
from referee.history import History, printable
from referee.project import HANDLE, Project, UsageError, find_project, find_root
from referee.reviews import (
    DECISION,
    MARKER,
    RESPONSE,
    SEVERITIES,
    Decision,
    Finding,
    Reply,
    Response,
    Review,
    Reviews,
    folder,
    load_reviews,
    match,
    parse_decision,
    parse_response,
    parse_review,
)
from referee.stages import additional
from referee.words import number_of

if TYPE_CHECKING:
    from referee.checks import Outcome

WORD = re.compile(r"__([A-Z]+)__")


def review_command(options: argparse.Namespace) -> int:
    """`referee review`."""
    root = find_root()
    project = find_project(root, options.paper)
    if options.action == "start":
        return _start(project, options)
    if options.action == "check":
        return _check(project, options)
    if options.action == "evidence":
        return _evidence(project, options)
    return _score(project, options)


# -- referee review start ----------------------------------------------------------------------------------------------


def _start(project: Project, options: argparse.Namespace) -> int:
    handle = _handle(options.handle)
    path = folder(project) / f"{handle}.md"
    _new(project, path)
    refused = _may_not_review(project, handle)
    if refused:
        raise UserError("\n".join(f"{rule}: {message}" for rule, message in refused))
    then = Snapshot.of(project.root, options.commit or "HEAD")
    if then.kind(f"projects/{project.name}/project.yaml") != "blob":
        raise UserError(f"at {then.commit[:10]} there is no projects/{project.name}; name another commit.")
    if options.commit is None and History(project.root).git("status", "--porcelain", "--", f"projects/{project.name}"):
        raise UserError(
            f"projects/{project.name} holds changes that are not committed; a review is of a commit. "
            "Commit them, or name the commit: --commit HEAD."
        )
    with checkout(project.root, then.commit) as tree:
        there = Project(tree, project.name)
        file = there.load()
        items = load_checklist().for_family(file.family)
        answered = _answer(there, file.stage, items, file.probes, code=not options.no_probes)
    text = _fill(
        project.root,
        "review.md",
        {
            "REVIEWER": handle,
            "PAPER": project.name,
            "ROUND": str(options.round),
            "COMMIT": then.commit,
            "VERSION": str(load_checklist().version),
            "CHECKLIST": _checklist(items, answered, project.name),
        },
    )
    parse_review(text, project.shown(path))  # what we write can be read
    write_text(path, text)
    done = sum(lines[0] for lines in answered.values())
    print(f"{project.shown(path)}: {len(items)} items for the family '{file.family}', {done} answered by the machine.")
    if done:
        print("Look at those too: a machine sees only what it was made to see.")
    if not is_assigned(given := load_assignment(project.root), project.name, handle):
        print(additional(given, project.name, handle))
    print(f"What is left to write is marked '{MARKER}'. Then: referee review check {project.name}")
    return 0


def _answer(
    project: Project, stage: str, items: Mapping[str, Item], named: Sequence[str], *, code: bool
) -> dict[str, tuple[bool, list[str]]]:
    """What the machine answers first: item -> whether it is satisfied, and the lines that say why."""
    answered: dict[str, tuple[bool, list[str]]] = {}
    said: dict[str, Said] = {}
    why = ""
    if code and named and any(item.probes for item in items.values()):
        try:
            said = probes_say(project.root, project.name, named)
        except UserError as error:
            why = f"the probes could not be run ({_one_line(str(error))})"
    for name, item in items.items():
        if item.checks:
            try:
                result = check_says(project, stage, item.checks, code=code)
            except UserError:
                continue  # it runs code, and may not: the reviewer answers
            call = f"check {' '.join(item.checks)}"
            if result.good:
                answered[name] = True, [f"evidence: `{call}` `sha256:{result.digest}` {result.shown}"]
            else:
                shown = _one_line(result.shown)
                answered[name] = False, [f"{MARKER} `{call}` says: {shown} Write a finding, and '- finding: F1' here."]
        elif item.probes and (said or why):
            bad = why or "; ".join(f"{probe} {s.shown}" for probe, s in said.items() if not s.good)
            if bad:
                answered[name] = False, [f"{MARKER} {_one_line(bad)}. Write a finding, and '- finding: F1' here."]
            else:
                answered[name] = True, [
                    f"evidence: `probe {probe}` `sha256:{s.digest}` {_one_line(s.shown)}" for probe, s in said.items()
                ]
    return answered


def _checklist(items: Mapping[str, Item], answered: Mapping[str, tuple[bool, list[str]]], paper: str) -> str:
    """The checklist as a form: groups, items, what counts as good, and what the machine answered."""
    parts: list[str] = []
    for group in load_checklist().groups:
        shown = [item for item in group.items if item.id in items]
        if shown:
            parts += [f"### {group.title}", ""]
        for item in shown:
            ticked, lines = answered.get(item.id, (False, []))
            parts.append(f"- [{'x' if ticked else ' '}] `{item.id}` {item.text}")
            parts += [f"  > good: {item.good}", f"  > acceptable: {item.acceptable}"]
            parts.append(f"  > not acceptable: {item.not_acceptable}")
            cites = "'- evidence: `path:line`'"
            if item.commands:
                cites = f"what 'referee review evidence {paper} \"command …\"' prints"
            lines = lines or [f"{MARKER} tick it with {cites}, or '- finding: F1', or '- n/a: reason'"]
            parts += [f"  - {line}" for line in lines]
            parts.append("")
    return "\n".join(parts).rstrip()


# -- referee review check ----------------------------------------------------------------------------------------------

ABOUT_REVIEWS = range(1, 40)
ABOUT_RESPONSE = range(40, 45)
ABOUT_DECISION = (45, 46, 48)


def check_reviews(project: Project, *, code: bool = False) -> "Outcome":
    """Look at all that was written about a paper, and only at that: whether something is missing at a stage is
    `referee check`'s to say.

    Args:
        code: run cited checks, probes and commands again.
    """
    from referee.checks import Submission, every_check, run
    from referee.checks.base import Needs
    from referee.checks.command import teller

    there = load_reviews(project)
    numbers = [*ABOUT_REVIEWS]
    numbers += ABOUT_RESPONSE if there.response or (folder(project) / RESPONSE).is_file() else []
    numbers += ABOUT_DECISION if there.decision or (folder(project) / DECISION).is_file() else []
    rules = [f"REV-{n:03}" for n in numbers if f"REV-{n:03}" in every_check()]
    # Stage v2 alone asks for all of them; which stage the project is at makes no difference to what is written.
    needs: tuple[Needs, ...] = ("files", "code") if code else ("files",)
    outcome = run(Submission(project, "v2"), needs=needs, only=rules, tell=teller(project))
    return replace(outcome, subject="reviews, response and decision")


def _check(project: Project, options: argparse.Namespace) -> int:
    from referee.checks import Finding as Complaint
    from referee.checks import Submission
    from referee.checks.command import print_github, print_json, print_markdown, print_table
    from referee.checks.reviews import not_theirs

    outcome = check_reviews(project, code=options.run)
    if (options.changed is None) != (options.actor is None):
        raise UsageError("review check: --changed and --actor belong together: who changed these files?")
    if options.changed is not None:
        paths = _changed(project.root, options.changed)
        theirs = [
            Complaint("REV-034", "error", project.shown(p), n, m)
            for p, n, m in not_theirs(Submission(project, "v2"), paths, options.actor)
        ]
        outcome = replace(outcome, findings=(*theirs, *outcome.findings))
    show = {"table": print_table, "json": print_json, "github": print_github, "markdown": print_markdown}
    show[options.format]([outcome])
    return 1 if outcome.errors else 0


def _changed(root: Path, base: str) -> list[str]:
    """The paths that differ from where the present branch left another one, uncommitted changes included."""
    history = History(root)
    listed = history.git("diff", "--name-only", "--no-renames", "-z", history.merge_base(base), "--")
    return [name.decode("utf-8", "replace") for name in (listed or b"").split(b"\0") if name]


def _evidence(project: Project, options: argparse.Namespace) -> int:
    """`referee review evidence`: the line that cites a check, a probe or a command, with the digest of its output."""
    kind, _, rest = options.what.strip().partition(" ")
    names = [name for name in re.split(r"[, ]+", rest) if name]
    if kind not in ("check", "probe", "command") or not names:
        example = f'"check NB-003", "probe bound" or "command referee run {project.name} --preset smoke"'
        raise UsageError(f"review evidence: say what, like {example}.")
    then = Snapshot.of(project.root, options.commit or "HEAD")
    if kind == "command":
        said = own_command_says(project.root, then.commit, rest.strip())
        if said.good:
            print(f"  - evidence: `command {rest.strip()}` `sha256:{said.digest}` {_one_line(said.shown)}")
            return 0
        print(said.shown, file=sys.stderr)
        raise UserError(f"'{printable(rest, 80)}' failed at {then.commit[:10]}: no evidence for a tick, but a finding.")
    with checkout(project.root, then.commit) as tree:
        there = Project(tree, project.name)
        if kind == "check":
            results = {" ".join(names): check_says(there, there.load().stage, names, code=True)}
        else:
            results = probes_say(tree, project.name, names)
    for name, said in results.items():
        print(f"  - evidence: `{kind} {name}` `sha256:{said.digest}` {_one_line(said.shown)}")
    return 0 if all(said.good for said in results.values()) else 1


# -- referee respond, referee decide -----------------------------------------------------------------------------------


def respond_command(options: argparse.Namespace) -> int:
    """`referee respond`."""
    project = find_project(find_root(), options.paper)
    path = folder(project) / RESPONSE
    _new(project, path)
    there = _readable(project)
    if not there.reviews:
        raise UserError(
            f"nobody has reviewed '{project.name}' yet: there is no review in {project.shown(path.parent)}."
        )
    findings = there.findings
    text = _fill(
        project.root,
        RESPONSE,
        {
            "PAPER": project.name,
            "ROUND": str(max(r.head.round for r in there.reviews.values())),
            "COMMIT": _reviewed(there),
            "ANSWERS": "\n\n".join(_to_answer(key, finding) for key, finding in findings.items()) or "None.",
        },
    )
    parse_response(text, project.shown(path))
    write_text(path, text)
    print(f"{project.shown(path)}: {number_of(len(findings), 'finding')} to answer, each marked '{MARKER}'.")
    print(f"Then: referee review check {project.name}, and referee check {project.name} --stage v2")
    return 0


def _to_answer(key: str, finding: Finding) -> str:
    places = ", ".join(f"`{place}`" for place in finding.places)
    lines = [
        f"### {key} · {MARKER} fixed or disputed",
        "",
        f"> {finding.severity}, {places}: {_quote(finding.text)}",
        "",
    ]
    if finding.severity == "question":
        lines[0] = f"### {key} · {MARKER} answered, fixed or disputed"
        return "\n".join([*lines, f"{MARKER} the answer."])
    lines += [
        f"- commit: {MARKER} the commit that fixes it",
        f"- test: {MARKER} path::name, the test that would have caught it (or '- no test: ' and why)",
        f"- elsewhere: {MARKER} why the commit does not touch the place; delete this line if it does",
        "",
        f"{MARKER} what was done; or, if you dispute it, why, without the three lines above.",
    ]
    return "\n".join(lines)


def decide_command(options: argparse.Namespace) -> int:
    """`referee decide`."""
    from referee.course import load_course

    project = find_project(find_root(), options.paper)
    handle = _handle(options.handle)
    path = folder(project) / DECISION
    _new(project, path)
    course = load_course(project.root)
    if course.people and not course.has_role(handle, "editor"):
        editors = ", ".join(p.handle for p in course.people if "editor" in p.roles) or "nobody yet"
        raise UserError(f"REV-045: '{handle}' is no editor in course.yaml. Only an editor decides: {editors}.")
    if any(handle.lower() == member.handle.lower() for member in project.load().team):
        raise UserError(f"REV-045: '{handle}' is of the team; another editor decides.")
    there = _readable(project)
    disputed = {k: r for k, r in (there.response.replies if there.response else {}).items() if r.kind == "disputed"}
    rulings = [
        f"### {key} · {MARKER} upheld or overruled\n\n> {_quote(reply.text)}\n\n{MARKER} why."
        for key, reply in disputed.items()
    ]
    text = _fill(
        project.root,
        DECISION,
        {
            "PAPER": project.name,
            "EDITOR": handle,
            "ROUND": str(max([r.head.round for r in there.reviews.values()], default=1)),
            "DATE": datetime.now(UTC).date().isoformat(),
            "SUMMARY": _summary(project, there),
            "RULINGS": "\n\n".join(rulings) or "None.",
        },
    )
    parse_decision(text, project.shown(path))
    write_text(path, text)
    print(f"{project.shown(path)}: {number_of(len(there.findings), 'finding')}, {len(disputed)} disputed.")
    print(f"What is left to write is marked '{MARKER}'. Then: referee review check {project.name}")
    return 0


def _summary(project: Project, there: Reviews) -> str:
    """What the editor decides upon: verdicts, recommendations, findings with their answers."""
    from referee.show import summary
    from referee.standing import standing

    lines = [f"Claims: {summary(standing(project).verdicts)}.", ""]
    for review in there.reviews.values():
        head = review.head
        lines.append(
            f"- {head.reviewer} recommends {head.recommendation or 'nothing yet'} ({head.minutes or '?'} minutes)"
        )
    lines += ["", "| finding | severity | where | answer |", "| --- | --- | --- | --- |"] if there.findings else []
    for key, finding in there.findings.items():
        reply = there.response.replies.get(key) if there.response else None
        places = ", ".join(f"`{place}`" for place in finding.places)
        lines.append(f"| {key} | {finding.severity} | {places} | {_answer_in_short(reply)} |")
    return "\n".join(lines)


def _answer_in_short(reply: Reply | None) -> str:
    if reply is None or reply.kind is None:
        return "none yet"
    if reply.kind == "fixed":
        test = ", ".join(f"`{test}`" for test in reply.tests) or f"no test: {_quote(reply.no_test or '')}"
        return f"fixed in {(reply.commit or '?')[:10]}; {test}".replace("|", "\\|")
    return reply.kind


# -- referee review score ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tally:
    """Counts of one severity: the editor's findings that a reviewer has, and the reviewer's findings that held."""

    editor: int  # the editor's findings of this severity
    found: int  # of those, matched by the reviewer
    filed: int  # the reviewer's findings of this severity
    held: int  # of those: matched, fixed, or upheld
    refuted: int  # of those: overruled

    @property
    def recall(self) -> float | None:
        """Share of the editor's findings that the reviewer has."""
        return self.found / self.editor if self.editor else None

    @property
    def precision(self) -> float | None:
        """Share of the reviewer's findings that held, of those about which something is known."""
        known = self.held + self.refuted
        return self.held / known if known else None


@dataclass(frozen=True)
class Score:
    """What a review was worth."""

    reviewer: str
    tallies: dict[str, Tally]  # by severity, and "all"
    matches: dict[str, str]  # the reviewer's finding -> the editor's
    answered: int  # items that are answered with evidence, a finding or a reason
    asked: int  # items that apply, in the version of the checklist that the review answers
    minutes: int | None


def score(review: Review, response: Response | None, decision: Decision | None, family: str) -> Score:
    """Compare a review with the editor's findings, and with what became of its own.

    The editor's `same as` counts first; what it does not mention is matched by `referee.reviews.match`.
    """
    mine = [f for f in review.findings.values() if f.severity != "question"]
    theirs = [f for f in (decision.findings.values() if decision else ()) if f.severity != "question"]
    matches: dict[str, str] = {}
    for finding in theirs:
        for key in finding.same_as or ():
            who, _, identity = key.partition("/")
            if who.lower() == review.reviewer.lower() and identity in review.findings:
                matches[identity] = finding.id
    left = [f for f in theirs if f.same_as is None]
    matches |= match([f for f in mine if f.id not in matches], left)

    def fate(finding: Finding) -> bool | None:
        key = f"{review.reviewer}/{finding.id}"
        ruling = decision.rulings.get(key) if decision else None
        if ruling is not None and ruling.verdict is not None:
            return ruling.verdict == "upheld"
        reply = response.replies.get(key) if response else None
        return True if finding.id in matches or (reply is not None and reply.kind == "fixed") else None

    def tally(severity: str | None) -> Tally:
        filed = [f for f in mine if severity in (None, f.severity)]
        due = [f for f in theirs if severity in (None, f.severity)]
        fates = [fate(f) for f in filed]
        return Tally(
            len(due), sum(f.id in matches.values() for f in due), len(filed), fates.count(True), fates.count(False)
        )

    wanted = load_checklist().for_family(family, review.head.checklist)
    answers = [review.answers[name] for name in wanted if name in review.answers]
    done = sum(bool(a.evidence if a.ticked else a.findings or a.not_applicable) for a in answers)
    graded = [s for s in SEVERITIES if s != "question"]
    tallies = {s: tally(s) for s in graded} | {"all": tally(None)}
    return Score(review.reviewer, tallies, matches, done, len(wanted), review.head.minutes)


def _score(project: Project, options: argparse.Namespace) -> int:
    there = _readable(project)
    if not there.reviews:
        raise UserError(f"nobody has reviewed '{project.name}' yet.")
    family = project.load().family
    scores = [score(review, there.response, there.decision, family) for review in there.reviews.values()]
    if options.format == "json":
        print(
            json.dumps(
                {"paper": project.name, "decided": there.decision is not None, "scores": _plain(scores)}, indent=1
            )
        )
        return 0
    _print_scores(scores)
    if there.decision is None:
        print(f"The editor has not decided: there is nothing yet to compare with ({DECISION}).")
    return 0


def _plain(scores: Iterable[Score]) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = []
    for s in scores:
        shares = {k: {"recall": t.recall, "precision": t.precision} for k, t in s.tallies.items()}
        tallies = {k: {**asdict(t), **shares[k]} for k, t in s.tallies.items()}
        listed.append({**asdict(s), "tallies": tallies})
    return listed


def _print_scores(scores: Iterable[Score]) -> None:
    from rich import box
    from rich.table import Table

    from referee.show import console

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("reviewer", "severity", "recall", "precision", "filed", "checklist", "minutes"):
        table.add_column(column, justify="left" if column in ("reviewer", "severity") else "right")
    for s in scores:
        for i, (severity, t) in enumerate(s.tallies.items()):
            known = t.held + t.refuted
            cells = [s.reviewer if i == 0 else "", severity]
            cells += [_share(t.found, t.editor), _share(t.held, known), str(t.filed)]
            cells += [_share(s.answered, s.asked), str(s.minutes or "–")] if i == 0 else ["", ""]
            table.add_row(*cells)
        table.add_section()
    console().print(table)


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}" if whole else "–"


# -- Forms -------------------------------------------------------------------------------------------------------------


def _fill(root: Path, template: str, words: Mapping[str, str]) -> str:
    """A template with its words replaced, all at once: what is put in is not looked at again."""
    path = root / "templates" / template
    if not path.is_file():  # a repository without templates of its own takes ours
        path = Path(__file__).resolve().parents[1] / "templates" / template
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    return WORD.sub(lambda match: words.get(match[1], match[0]), text)


def _handle(text: str) -> str:
    if not HANDLE.fullmatch(text) or text.lower() in ("response", "decision"):
        shown = text[:60].encode("ascii", "backslashreplace").decode("ascii")
        raise UsageError(f"--as: '{shown}' is no public handle (REV-035): letters, digits and hyphens of ASCII.")
    return text


def _new(project: Project, path: Path) -> None:
    """Refuse to overwrite."""
    if path.exists() or path.is_symlink():
        raise UserError(f"{project.shown(path)} is there already and is kept. Edit it, or move it away to begin anew.")
    for parent in (path.parent, path.parent.parent):
        if parent.is_symlink():
            raise UserError(f"{project.shown(parent)} is a symbolic link (REV-013); put the folder itself there.")


def _may_not_review(project: Project, handle: str) -> list[tuple[str, str]]:
    from referee.checks import Submission
    from referee.checks.reviews import may_not_review

    return list(may_not_review(Submission(project, "v1"), handle))


def _readable(project: Project) -> Reviews:
    """The paper's reviews; what cannot be read has to be put right first."""
    there = load_reviews(project)
    if there.problems:
        raise DocumentError(there.problems)
    return there


def _reviewed(there: Reviews) -> str:
    """The commit that most reviews are of."""
    commits = [r.head.commit for r in there.reviews.values()]
    return max(commits, key=commits.count)


def _one_line(text: str) -> str:
    """Somebody's text, short and on one line, without marks that could end a code span or act."""
    words = " ".join(text.split()).replace("`", "'").replace("<", "‹").replace(MARKER, "")
    return words if len(words) <= 400 else words[:397] + "..."


def _quote(text: str) -> str:
    """The beginning of somebody's text, to be quoted."""
    words = _one_line(text)
    return words if len(words) <= 200 else words[:197] + "..."
