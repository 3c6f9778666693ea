"""A project's review as a conversation, and its timeline: parts of its page, as Markdown.

    conversation    decision, finding -> answer -> commit -> test -> ruling, who reviewed, the checklist with evidence
    timeline        proposed -> v1 -> reviews -> v2 -> published, with the amendments of claims; dates come from git

What reviewers, teams and editors wrote is shown as harmless HTML on one line each, in which no reader of Markdown finds
markup of its own.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from urllib.parse import quote
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape

from referee.assignment import is_assigned
from referee.checklist import load_checklist
from referee.checks.base import STAGES
from referee.course import DeadlineName
from referee.reviews import SEVERITIES, Answer, Evidence, Finding, Place, Reply, Review, Reviews
from referee.site.model import Site
from referee.site.readme import harmless
from referee.site.writing import macro, md
from referee.standing import Standing
from referee.status import DUE
from referee.words import number_of

RECOMMENDED = {"accept": "accept", "minor": "minor corrections", "major": "major revision", "reject": "reject"}
DECIDED = {"accept": "Accepted", "revise": "A revision is asked for", "reject": "Rejected"}


def inert(html: str) -> Markup:
    """HTML that stands on one line of Markdown and holds nothing that Markdown's readers look for at a line's begin."""
    return Markup(str(html).replace("`", "&#96;").replace("~", "&#126;").replace("\n", "&#10;"))


# -- The conversation --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """Something that can be looked up: how it is shown, where it leads ("" where nowhere), and what is said of it."""

    shown: str
    url: str = ""
    remark: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Word:
    """A ruling or an answer."""

    who: str
    kind: str | None
    text: Markup
    facts: Sequence[tuple[str, Sequence[Markup]]] = ()

    @property
    def verdict(self) -> str | None:
        return self.kind


@dataclass(frozen=True)
class Exchange:
    """A finding and what came of it."""

    key: str
    who: str
    role: str
    severity: str
    places: Sequence[Shown]
    text: Markup
    about: Sequence[str]  # items of the checklist
    also: Sequence[Word]  # the editor, who found the same
    reply: Word | None
    ruling: Word | None

    @property
    def anchor(self) -> str:
        return anchor(self.key)

    @property
    def state(self) -> str:
        """What became of it, in a word or two."""
        if self.ruling and self.ruling.kind:
            return f"disputed and {self.ruling.kind}"
        if self.reply and self.reply.kind:
            return self.reply.kind
        return "" if self.role == "editor" else "not answered yet"


def anchor(key: str) -> str:
    """Where a finding is on the page: carol/F1 -> finding-carol-F1."""
    return "finding-" + key.replace("/", "-")


class _Conversation:
    def __init__(self, site: Site, s: Standing):
        self.site = site
        self.s = s
        self.paper = s.project.name
        self.found: Reviews = site.reviews(self.paper)

    # -- What can be looked up -------------------------------------------------------------------------------------

    def at(self, commit: str, place: Place) -> Shown:
        """A place in a file as it was at a commit."""
        if not self.site.repository or not commit:
            return Shown(str(place))
        lines = ""
        if place.first is not None:
            lines = f"#L{place.first}" + (f"-L{place.last}" if place.last != place.first else "")
        return Shown(str(place), f"{self.site.repository}/blob/{commit}/{quote(place.path)}{lines}")

    def commit(self, sha: str) -> Shown:
        url = f"{self.site.repository}/commit/{sha}" if self.site.repository else ""
        return Shown(sha[:10], url)

    def prose(self, text: str, commit: str = "") -> Markup:
        base = f"{self.site.repository}/blob/{commit}/" if self.site.repository and commit else ""
        return inert(harmless(text, base))

    # -- Findings --------------------------------------------------------------------------------------------------

    def exchanges(self) -> Iterator[Exchange]:
        """The worst first; those of one severity in the order of reviewers and numbers, the editor's own last.

        What the editor found as well as a reviewer is one exchange.
        """
        items = load_checklist().items
        shared = self._shared()
        found: list[tuple[int, int, str, str, Finding, str]] = []
        for review in self.found.reviews.values():
            for f in review.findings.values():
                key = f"{review.reviewer}/{f.id}"
                found.append((SEVERITIES.index(f.severity), 0, key, "reviewer", f, review.head.commit))
        at = self._decided_at() if self.found.decision else ""
        if decision := self.found.decision:
            for f in decision.findings.values():
                if any(e is f for same in shared.values() for e in same):
                    continue
                key = f"{decision.head.editor}/{f.id}"
                found.append((SEVERITIES.index(f.severity), 1, key, "editor", f, at))
        for _, _, key, role, f, commit in sorted(found, key=lambda e: (e[0], e[1], _natural(e[2]))):
            yield Exchange(
                key,
                key.partition("/")[0],
                role,
                f.severity,
                [self.at(commit, p) for p in f.places],
                self.prose(f.text, commit),
                [items[i].text for i in f.items if i in items],
                [self._too(e, at) for e in shared.get(key, ())],
                self._reply(key),
                self._ruling(key),
            )

    def _shared(self) -> dict[str, list[Finding]]:
        """A reviewer's finding -> the editor's that are the same, as they are matched where reviews are measured."""
        found, decision = self.found, self.found.decision
        shared: dict[str, list[Finding]] = {}
        if decision is None or not decision.findings:
            return shared
        from referee.reviewing import score

        for review in found.reviews.values():
            for mine, theirs in score(review, found.response, decision, self.s.file.family).matches.items():
                shared.setdefault(f"{review.reviewer}/{mine}", []).append(decision.findings[theirs])
        return shared

    def _too(self, finding: Finding, commit: str) -> Word:
        """The editor's words where a reviewer found the same."""
        assert self.found.decision is not None
        kind = f"found it, too ({finding.id}, {finding.severity})"
        return Word(self.found.decision.head.editor, kind, self.prose(finding.text, commit))

    def _decided_at(self) -> str:
        changed = self.site.changed(f"reviews/{self.paper}/decision.md")
        return changed[-1][0].sha if changed else ""

    def _reply(self, key: str) -> Word | None:
        response = self.found.response
        reply: Reply | None = response.replies.get(key) if response else None
        if reply is None:
            return None
        facts: list[tuple[str, list[Markup]]] = []
        if reply.commit:
            facts.append(("commit", [_link(self.commit(reply.commit))]))
        if reply.tests:
            at = reply.commit or "HEAD"
            facts.append(("test", [_link(self._test(at, test)) for test in reply.tests]))
        if reply.no_test:
            facts.append(("no test", [inert(escape(reply.no_test))]))
        if reply.elsewhere:
            facts.append(("elsewhere", [inert(escape(reply.elsewhere))]))
        return Word("The team", reply.kind, self.prose(reply.text), facts)

    def _test(self, commit: str, test: str) -> Shown:
        path = test.partition("::")[0]
        return Shown(test, self.at(commit, Place(path)).url)

    def _ruling(self, key: str) -> Word | None:
        decision = self.found.decision
        ruling = decision.rulings.get(key) if decision else None
        if decision is None or ruling is None:
            return None
        return Word(decision.head.editor, ruling.verdict, self.prose(ruling.text))

    # -- The checklist ---------------------------------------------------------------------------------------------

    def groups(self) -> Iterator[dict[str, object]]:
        """The checklist by group: each item with what each reviewer said."""
        for group in load_checklist().groups:
            entries = []
            counts: Counter[str] = Counter()
            for item in group.items:
                answers = [
                    self._answer(review, review.answers[item.id])
                    for review in self.found.reviews.values()
                    if item.id in review.answers
                ]
                counts.update(str(a["kind"]) for a in answers)
                if answers:
                    entries.append({"text": item.text, "answers": answers})
            if entries:
                words = {"yes": "in order", "no": "with a finding", "na": "not applicable"}
                said = ", ".join(f"{counts[kind]} {word}" for kind, word in words.items() if counts[kind])
                yield {"title": group.title, "said": said, "entries": entries}

    def _answer(self, review: Review, answer: Answer) -> dict[str, object]:
        kind = "na" if answer.not_applicable else "yes" if answer.ticked else "no"
        findings = [{"id": f, "anchor": anchor(f"{review.reviewer}/{f}")} for f, _ in answer.findings]
        return {
            "who": review.reviewer,
            "kind": kind,
            "sign": {"yes": "✓", "no": "✗", "na": "–"}[kind],
            "word": {"yes": "in order", "no": "finding", "na": "not applicable"}[kind],
            "evidence": [self._evidence(review.head.commit, e) for e in answer.evidence],
            "findings": findings,
            "reason": answer.not_applicable or "",
        }

    def _evidence(self, commit: str, e: Evidence) -> Shown:
        if e.place is not None:
            there = self.at(commit, e.place)
            return Shown(there.shown, there.url, e.remark)
        return Shown(f"{e.kind} {e.subject}", "", e.remark, e.digest or "")

    # -- Reviewers -------------------------------------------------------------------------------------------------

    def reviewers(self) -> Iterator[dict[str, object]]:
        for review in self.found.reviews.values():
            head = review.head
            yield {
                "who": review.reviewer,
                "round": head.round,
                "recommendation": RECOMMENDED.get(head.recommendation or "", "nothing yet"),
                "summary": self.prose(review.summary, head.commit),
                "commit": self.commit(head.commit),
                "minutes": f"{head.minutes} minutes" if head.minutes else "not stated",
                "hardware": head.hardware,
                "conflicts": head.conflict_of_interest,
                "ai_use": head.ai_use,
            }


def _link(shown: Shown) -> Markup:
    code = Markup("<code>{}</code>").format(shown.shown)
    return Markup('<a href="{}" rel="noopener">{}</a>').format(shown.url, code) if shown.url else code


def _natural(key: str) -> tuple[str, int]:
    who, _, number = key.partition("/")
    return who.lower(), int(re.sub(r"\D", "", number) or 0)


def _people(names: Iterable[str]) -> str:
    listed = list(names)
    return " and ".join(filter(None, [", ".join(listed[:-1]), *listed[-1:]]))


def summary(site: Site, paper: str) -> str:
    """The state of a project's review in a sentence or two, as text."""
    found = site.reviews(paper)
    if not found.reviews:
        return "Nobody has refereed this yet."
    return _summary(found, list(_Conversation(site, site.standing(paper)).exchanges()))


def _summary(found: Reviews, exchanges: Sequence[Exchange]) -> str:
    said = f"Refereed by {_people(found.reviews)}. "
    if not exchanges:
        said += "They found nothing wrong."
    else:
        severities = Counter(x.severity for x in exchanges)
        states = Counter(x.state for x in exchanges if x.state)
        each = ", ".join(f"{severities[s]} {s}" for s in SEVERITIES if severities[s])
        became = ", ".join(f"{n} {state}" for state, n in sorted(states.items(), key=lambda e: (-e[1], e[0])))
        said += f"{number_of(len(exchanges), 'finding')} ({each}){': ' if became else ''}{became}."
    if (decision := found.decision) and decision.head.decision:
        said += f" {DECIDED[decision.head.decision]} by {decision.head.editor}."
    return said


def conversation(site: Site, paper: str) -> str:
    """A project's review, as Markdown without a heading of its own; its parts have headings of the third level.

    Args:
        paper: a project that the site has.
    """
    s = site.standing(paper)
    found = site.reviews(paper)
    talk = _Conversation(site, s)
    parts: list[str] = []
    if found.problems:
        files = _people(dict.fromkeys(p.file for p in found.problems))
        parts.append(
            f'<p class="warn" role="alert">{inert(escape(f"Not shown, since it has not the form: {files}."))}</p>'
        )
    if not found.reviews:
        return "\n\n".join([*parts, _nobody(site, s)]) + "\n"
    exchanges = list(talk.exchanges())
    parts.append(md(_summary(found, exchanges)))
    if (decision := found.decision) and decision.head.decision:
        head = decision.head
        when = f", {head.date}" if head.date else ""
        words = Markup('<p class="who"><b>{}</b> by <b>{}</b>{}</p>').format(
            DECIDED[decision.head.decision], head.editor, when
        )
        parts.append("### Decision")
        parts.append(f'<div class="decision d-{head.decision}">{inert(words)}{talk.prose(decision.reasons)}</div>')
    if exchanges:
        parts.append("### Findings and answers")
        parts += [inert(_line(macro("review.html.j2", "exchange", x))) for x in exchanges]
    parts.append("### Reviewers")
    parts += [inert(_line(macro("review.html.j2", "reviewer", r))) for r in talk.reviewers()]
    parts.append("### Checklist")
    parts.append("Each item as each reviewer answered it, with what they say supports it.")
    parts.append(inert(_line(macro("review.html.j2", "checklist", list(talk.groups())))))
    return "\n\n".join(parts) + "\n"


def _line(html: str) -> str:
    """A template's lines as one."""
    return re.sub(r"\n\s*", " ", html.strip())


def _nobody(site: Site, s: Standing) -> str:
    """What it means that nobody has reviewed it."""
    paper, needed = s.project.name, site.course.reviewers_per_project
    if s.file.stage == "proposed":
        return (
            "This is a proposal: its claims are fixed, and there is nothing to review before version 1.\n\n"
            "[How reviewing works](../guides/reviewers.md)"
        )
    assigned = site.assignment.get(paper, ())
    waiting = f" {_people(map(md, assigned))} will." if assigned else ""
    return (
        f"**Nobody has refereed this yet.**{waiting}\n\n"
        "What that means: the verdicts are computed from the team's own records, by the same rules for everybody. "
        "Nobody else has run the code, held it against the paper line by line, or looked for what is missing. "
        f"It takes {number_of(needed, 'review')}, and an answer to each finding, before it can be published.\n\n"
        f"Be the first: [how to review](../guides/reviewers.md), `referee review start {paper} --as <your handle>`."
    )


# -- The timeline ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """Something that happened to a project, or is still to come."""

    day: date | None
    title: str
    detail: str = ""
    done: bool = True
    order: int = 0  # among those of one day
    listed: Sequence[tuple[str, str]] = field(default=())
    fold: str = ""

    @property
    def when(self) -> str:
        return self.day.isoformat() if self.day else ""


VERSION = {"proposed": "Proposed", "v1": "Version 1", "v2": "Version 2", "published": "Published"}


def timeline(site: Site, paper: str) -> str:
    """What happened to a project and what is to come, as Markdown: one list, without a heading."""
    steps = [*_in_order(happened(site, paper)), *coming(site, paper)]
    return str(inert(_line(macro("review.html.j2", "timeline", steps)))) + "\n"


def _in_order(steps: Iterable[Step]) -> list[Step]:
    """By day, and within a day as the process goes; what has no date follows what comes before it in the process."""
    dated: list[tuple[date, int, Step]] = []
    last = date.min
    for step in sorted(steps, key=lambda s: s.order):
        last = step.day or last
        dated.append((last, step.order, step))
    return [step for _, _, step in sorted(dated, key=lambda e: e[:2])]


def stages(site: Site, paper: str) -> list[tuple[datetime | None, str]]:
    """When a project reached which stage, as far as the history tells."""
    return site.history.stages(paper) if site.history else []


def happened(site: Site, paper: str) -> Iterator[Step]:
    """What the history, the reviews and the amendments tell of a project."""
    s, found = site.standing(paper), site.reviews(paper)
    zone = ZoneInfo(site.course.timezone)

    def day(moment: datetime | None) -> date | None:
        return moment.astimezone(zone).date() if moment else None

    frozen = site.freeze(paper)
    reached = stages(site, paper) or [(None, s.file.stage)]
    for i, (moment, stage) in enumerate(reached):
        detail = ""
        if i == 0 and frozen:
            fixed = number_of(len(frozen.declared.claims), "claim")
            detail = f"{fixed} fixed." if stage == "proposed" else f"It began here; {fixed} in the file then."
        yield Step(day(moment), VERSION[stage], detail, order=10 * STAGES.index(stage) if i or moment is None else -1)
    for review in found.reviews.values():
        recommended = RECOMMENDED.get(review.head.recommendation or "", "nothing yet")
        detail = f"Recommends: {recommended}. {number_of(len(review.findings), 'finding')}."
        first = site.first(review.shown)
        yield Step(day(first), f"Review by {review.reviewer}", detail, order=12)
    if response := found.response:
        kinds = Counter(r.kind for r in response.replies.values() if r.kind)
        detail = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
        yield Step(day(site.last(response.shown)), "The team answers", f"{detail}." if detail else "", order=18)
    if (decision := found.decision) and decision.head.decision:
        when = decision.head.date or day(site.last(decision.shown))
        title = f"{DECIDED[decision.head.decision]} by {decision.head.editor}"
        yield Step(when, title, order=25)
    by_day: dict[date, list[tuple[str, str]]] = {}
    for a in s.file.amendments:
        by_day.setdefault(a.date, []).append((a.claim, f"{a.change}: {a.reason}"))
    for when, entries in by_day.items():
        title = f"{number_of(len(entries), 'claim')} amended"
        yield Step(when, title, order=5, listed=entries, fold="Which, and why")


def coming(site: Site, paper: str) -> Iterator[Step]:
    """What a project still waits for, with its deadline where there is one."""
    s, found = site.standing(paper), site.reviews(paper)
    stage = s.file.stage
    decision = found.decision.head.decision if found.decision else None
    if stage == "published" or decision == "reject":
        return

    def due(name: DeadlineName | None) -> str:
        deadline = site.course.deadline(name) if name else None
        return f"Due {deadline}." if deadline else ""

    if stage == "proposed":
        yield Step(None, "Version 1", due(DUE["proposed"]), done=False)
    if stage in ("proposed", "v1"):
        asked = [h for h in found.reviews if is_assigned(site.assignment, paper, h)]
        missing = site.course.reviewers_per_project - len(asked)
        if missing > 0:
            yield Step(None, number_of(missing, "review").capitalize(), due("reviews"), done=False)
        yield Step(None, "Answers, and version 2", due(DUE["v1"]), done=False)
    yield Step(None, "The editor's decision" if decision is None else "Publication", done=False)
