"""Reviews, the team's response, the editor's decision (REV): what no single line of them shows.

Their form is checked where they are read (`referee.reviews`, `referee.documents`); here they are held against the
checklist, the commit that was reviewed, the course, the history and each other.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from common.errors import UserError, nearest
from referee.assignment import is_assigned, load_assignment
from referee.checks.base import Found, Severity, Submission, check, register
from referee.documents import DocumentError
from referee.evidence import Snapshot, check_says, checkout, command_says, probes_say
from referee.reviews import (
    DECISION,
    RESPONSE,
    Evidence,
    Finding,
    Reply,
    Review,
    Reviews,
    ascii_only,
    folder,
    load_reviews,
    skeleton,
)
from referee.stages import additional
from referee.words import number_of

CHECKLIST_PATH = "referee/checklist.yaml"
CHECKLIST_VERSION = re.compile(r"^version: (\d{1,3})\s*$", re.MULTILINE)

REVIEW: Mapping[str, Severity | None] = {"v1": "warning", "v2": "error", "published": "error"}
"""A review that is not in order closes the gate after it; `referee review check` calls everything an error."""

ANSWERS: Mapping[str, Severity | None] = {"v2": "error", "published": "error"}

READING: dict[str, tuple[str, str, str]] = {
    "001": ("The file can be read", "Only plain, bounded UTF-8 text is opened.", "Save it as plain UTF-8 text."),
    "002": ("The file begins with its fields", "Programs read them.", "Keep the head between two lines '---'."),
    "003": ("The fields are plain YAML", "Anchors, tags and depth can be used to harm.", "Write values out."),
    "004": ("No field stands twice", "Readers and programs could take different ones.", "Delete one."),
    "005": ("Every field is known", "A field mistyped is a field that nobody reads.", "Take names from the template."),
    "006": ("Every field is there", "A review without them cannot be weighed.", "Take them from the template."),
    "007": ("Values have their shape", "Programs rely on it.", "Write what the message asks for."),
    "008": ("Numbers are readable", "A number that YAML reads otherwise misleads.", "Write plain numbers."),
    "009": ("Names are known", "A name mistyped refers to nothing.", "Take the name that the message suggests."),
    "010": ("Items, findings and answers stand once", "Which of two would count?", "Keep one."),
    "011": ("The fields agree with each other", "Only one of two can be meant.", "Correct one."),
    "012": ("Text holds no control characters", "They can make text read otherwise than it is.", "Delete them."),
    "014": ("Sections and lines have the form", "What is not read cannot be enforced.", "Follow the template."),
    "015": ("Markdown is inert", "Reviews are shown on a site; comments in HTML hide text.", "Write plain Markdown."),
    "023": (
        "Evidence and places have a known form",
        "Evidence that a machine can look up is evidence that a reader can.",
        "Write `path:line`, `path.ipynb#cell`, or `probe NAME`, `check RULE`, `command …` with `sha256:…`.",
    ),
    "027": (
        "A finding has a severity, a place and a text",
        "Without them the team cannot answer it, and nobody can weigh it.",
        "Begin it with '### F1 · major · `path:line`' and say below what is wrong.",
    ),
}
for _number, (_title, _why, _fix) in READING.items():
    register(f"REV-{_number}", _title, why=_why, fix=_fix, severity=REVIEW)
register(
    "REV-034",
    "Only its author changes a review",
    why="A review that somebody else can soften is worth nothing.",
    fix="Change only files that are yours: your own review, your team's response, your decision as the editor.",
    severity="error",
)


def reviews(submission: Submission) -> Reviews:
    """The submission's reviews, read once."""
    if "reviews" not in submission.cache:
        submission.cache["reviews"] = load_reviews(submission.project)
    found = submission.cache["reviews"]
    assert isinstance(found, Reviews)
    return found


def assignment(submission: Submission) -> dict[str, tuple[str, ...]]:
    """Who reviews what; empty when nothing is assigned. DocumentError is reported under CRS rules."""
    if "assignment" not in submission.cache:
        submission.cache["assignment"] = load_assignment(submission.root)
    found: dict[str, tuple[str, ...]] = submission.cache["assignment"]
    return found


def snapshot(submission: Submission, commit: str) -> Snapshot | None:
    """The repository at a commit that a file names; None when it is not there (REV-029, REV-041)."""
    cache: dict[str, Snapshot | None] = submission.cache.setdefault("snapshots", {})
    if commit not in cache:
        try:
            cache[commit] = Snapshot.of(submission.root, commit)
        except UserError:
            cache[commit] = None
    return cache[commit]


def _path(submission: Submission, name: str) -> Path:
    return folder(submission.project) / name


def _of(submission: Submission, review: Review) -> Path:
    return _path(submission, f"{review.reviewer}.md")


# -- One review --------------------------------------------------------------------------------------------------------


@check(
    "REV-013",
    "Files lie where they belong",
    why="A review is found by its paper and its reviewer's handle.",
    fix="Keep reviews/<paper>/<handle>.md, response.md and decision.md, and nothing else there.",
    severity=REVIEW,
)
def in_place(submission: Submission) -> Iterator[Found]:
    if problems := reviews(submission).problems:
        raise DocumentError(problems)
    yield from ()


@check(
    "REV-016",
    "Nothing is left to write",
    why="A form half filled in looks like a review.",
    fix="Replace every 'WRITE:' by what it asks for, and fill in the fields that are empty.",
    severity=REVIEW,
)
def written(submission: Submission) -> Iterator[Found]:
    there = reviews(submission)
    for document, name in (
        *((r, f"{r.reviewer}.md") for r in there.reviews.values()),
        (there.response, RESPONSE),
        (there.decision, DECISION),
    ):
        if document is None:
            continue
        path = _path(submission, name)
        for line, what in document.unwritten:
            yield path, line, f"left to write: {what or 'what the word asks for'}"
        for field, value in document.head:
            if value is None:
                yield path, 2, f"the field '{field}' is empty; fill it in."


@check(
    "REV-020",
    "Every item of the checklist that applies is answered",
    why="What nobody looked at must not pass as looked at.",
    fix="Take the missing items from 'referee review start'; answer what does not apply with n/a and the reason. "
    "A review is judged by the version of the checklist that its head names, which is no older than that of the "
    "reviewed commit: what was added later is not missing.",
    severity=REVIEW,
)
def checklist_complete(submission: Submission) -> Iterator[Found]:
    from referee.checklist import load_checklist

    checklist = load_checklist()
    known = checklist.items
    for review in reviews(submission).reviews.values():
        version = review.head.checklist
        if version > checklist.version:
            message = f"answers version {version} of the checklist, and there is none after {checklist.version}"
            yield _of(submission, review), 2, f"{message}; correct 'checklist' in the head."
            continue
        then = snapshot(submission, review.head.commit)
        asked = CHECKLIST_VERSION.search((then.text(CHECKLIST_PATH) if then else None) or "")
        if asked is not None and version < int(asked[1]):
            message = f"answers version {version} of the checklist, and the reviewed commit holds version {asked[1]}"
            message += "; take what is new from 'referee review start', and correct 'checklist' in the head."
            yield _of(submission, review), 2, message
        wanted = checklist.for_family(submission.file.family, version)
        for name in wanted:
            if name not in review.answers:
                yield _of(submission, review), 1, f"the item `{name}` is missing: {wanted[name].text}. Add it."
        for name, answer in review.answers.items():
            if name not in known:
                message = f"the checklist has no item '{name[:60]}'.{nearest(name, known)} Correct or remove it."
                yield _of(submission, review), answer.line, message


@check(
    "REV-021",
    "A tick has evidence",
    why="A bare tick says nothing that a reader could check.",
    fix="Below the item write '- evidence: ' and what you looked at: `path:line`, `path.ipynb#cell`, `probe NAME` …",
    severity=REVIEW,
)
def ticks_have_evidence(submission: Submission) -> Iterator[Found]:
    for review in reviews(submission).reviews.values():
        for answer in review.answers.values():
            path = _of(submission, review)
            if answer.unwritten or not answer.ticked:
                continue
            if not answer.evidence:
                yield path, answer.line, f"`{answer.item}` is ticked without evidence; add a line '  - evidence: …'."
            if answer.not_applicable is not None:
                yield path, answer.line, f"`{answer.item}` is ticked and n/a at once; untick it, or delete the n/a."
            for name, line in answer.findings:
                finding = review.findings.get(name)
                if finding is not None and finding.severity in ("critical", "major"):
                    yield path, line, f"`{answer.item}` is ticked in spite of {name} ({finding.severity}); untick it."


@check(
    "REV-022",
    "An item without a tick has a finding, or a reason why it does not apply",
    why="Otherwise nobody knows whether it was found wanting or forgotten.",
    fix="Below the item write '- finding: F1', or '- n/a: ' and the reason.",
    severity=REVIEW,
)
def unticked_have_reasons(submission: Submission) -> Iterator[Found]:
    for review in reviews(submission).reviews.values():
        for answer in review.answers.values():
            if answer.ticked or answer.unwritten:
                continue
            path = _of(submission, review)
            if answer.not_applicable is not None and len(answer.not_applicable) < 3:
                yield path, answer.line, f"`{answer.item}` is n/a without a reason; write '- n/a: ' and why."
            elif answer.not_applicable is not None and answer.findings:
                yield path, answer.line, f"`{answer.item}` is n/a and has a finding at once; delete one of them."
            elif answer.not_applicable is None and not answer.findings:
                message = f"`{answer.item}` has no tick, no finding and no reason; tick it with evidence, or write one."
                yield path, answer.line, message


@check(
    "REV-024",
    "Places exist at the reviewed commit",
    why="Evidence that cannot be looked up is none.",
    fix="Name the file and the lines as they are at the commit in the review's head ('git show COMMIT:path').",
    severity=REVIEW,
)
def places_exist(submission: Submission) -> Iterator[Found]:
    there = reviews(submission)
    for review in there.reviews.values():
        if (then := snapshot(submission, review.head.commit)) is None:
            continue
        cited = [(e.place, e.line) for a in review.answers.values() for e in a.evidence if e.place is not None]
        cited += [(place, f.line) for f in review.findings.values() for place in f.places]
        for place, line in cited:
            if (why := then.wrong(place)) is not None:
                yield _of(submission, review), line, f"{why}; correct the place."


@check(
    "REV-025",
    "Outputs that are cited come out again",
    why="A digest that nobody can reproduce proves nothing.",
    fix='Take the line from \'referee review evidence <paper> "check RULE"\' (or "probe NAME") at the reviewed commit.',
    severity=REVIEW,
    needs="code",
)
def outputs_reproducible(submission: Submission) -> Iterator[Found]:
    for review in reviews(submission).reviews.values():
        run = [e for a in review.answers.values() for e in a.evidence if e.kind != "place"]
        if not run or snapshot(submission, review.head.commit) is None:
            continue
        with checkout(submission.root, review.head.commit) as tree:
            for evidence in run:
                if (why := _differs(submission, tree, evidence)) is not None:
                    yield _of(submission, review), evidence.line, why


def _differs(submission: Submission, tree: Path, evidence: Evidence) -> str | None:
    """What is wrong with a cited output; None when it comes out again, or is not run again."""
    project = type(submission.project)(tree, submission.name)
    words = evidence.subject
    try:
        if evidence.kind == "check":
            said = check_says(project, project.load().stage, re.split(r"[, ]+", words), code=True)
        elif evidence.kind == "probe":
            said = probes_say(tree, submission.name, [words])[words]
        elif re.match(r"referee (check|probe) ", words):
            said = command_says(tree, words)
        else:
            return None  # the reviewer's own command: its digest stands as their word
    except UserError as error:
        return f"`{evidence.kind} {words}` cannot be run again: {error}"
    if not said.good:
        return f"`{evidence.kind} {words}` is no evidence for a tick: {said.shown}. Make it a finding."
    # A probe's printed numbers differ in their last digits between machines.
    if said.digest != evidence.digest and not words.startswith("referee probe "):
        return f"`{evidence.kind} {words}` gives another output (sha256:{said.digest}); look again."
    return None


@check(
    "REV-026",
    "Findings and items refer to each other",
    why="A finding that belongs to no item is lost in the counts; an item's finding that is not there is a promise.",
    fix="Name the finding below the item it is about ('- finding: F1'), or write '- item: `item`' in the finding.",
    severity=REVIEW,
)
def findings_referenced(submission: Submission) -> Iterator[Found]:
    from referee.checklist import load_checklist

    known = load_checklist().items
    there = reviews(submission)
    for review in there.reviews.values():
        for answer in review.answers.values():
            for name, line in answer.findings:
                if name not in review.findings:
                    yield _of(submission, review), line, f"there is no finding {name}; write it below '## Findings'."
        for finding in review.findings.values():
            if not finding.items:
                message = (
                    f"{finding.id} is named by no item; write '- finding: {finding.id}' below the one it is about."
                )
                yield _of(submission, review), finding.line, message
    documents: list[tuple[Path, Iterable[Finding]]]
    documents = [(_of(submission, review), review.findings.values()) for review in there.reviews.values()]
    if there.decision:
        documents.append((_path(submission, DECISION), there.decision.findings.values()))
    for path, found in documents:
        for finding in found:
            for name in finding.items:
                if name not in known:
                    message = (
                        f"{finding.id}: the checklist has no item '{name[:60]}'.{nearest(name, known)} Correct it."
                    )
                    yield path, finding.line, message


@check(
    "REV-028",
    "The recommendation follows from the findings",
    why="An editor and a team must be able to see why.",
    fix="Change the recommendation, or the findings' severities.",
    severity=REVIEW,
)
def recommendation_follows(submission: Submission) -> Iterator[Found]:
    for review in reviews(submission).reviews.values():
        grave = [f.id for f in review.findings.values() if f.severity in ("critical", "major")]
        advice = review.head.recommendation
        if advice in ("accept", "minor") and grave:
            message = f"recommends '{advice}' in spite of {', '.join(grave)}; recommend 'major', or lower the severity."
            yield _of(submission, review), 2, message
        if advice in ("major", "reject") and not grave:
            yield _of(submission, review), 2, f"recommends '{advice}' without a critical or major finding; write why."


@check(
    "REV-029",
    "The reviewed commit is in the history and holds the project",
    why="Only then can everybody see what was reviewed.",
    fix="Write the full id of a commit of this branch; where history was edited, review again.",
    severity=REVIEW,
)
def commit_exists(submission: Submission) -> Iterator[Found]:
    there = reviews(submission)
    head = snapshot(submission, "HEAD") if there.reviews else None
    for review in there.reviews.values():
        path = _of(submission, review)
        try:
            then = Snapshot.of(submission.root, review.head.commit)
        except UserError as error:
            yield path, 2, str(error)
            continue
        if head is not None and then.commit != head.commit and not then.is_before(head):
            yield path, 2, f"the commit {then.commit[:10]} is not in this branch's history; review one that is."
        if then.kind(f"projects/{submission.name}/project.yaml") != "blob":
            yield path, 2, f"at {then.commit[:10]} there is no projects/{submission.name}; correct the commit."
    commits = {r.head.commit for r in there.reviews.values()}
    if there.response and commits and there.response.head.commit not in commits:
        message = "answers reviews of a commit that nobody reviewed; take the commit from the reviews' heads."
        yield _path(submission, RESPONSE), 2, message


# -- Who may review what -----------------------------------------------------------------------------------------------


def same(one: str, other: str) -> bool:
    """Whether two handles are one: forges do not tell capitals from small letters."""
    return one.lower() == other.lower()


def may_not_review(submission: Submission, handle: str) -> Iterator[tuple[str, str]]:
    """Why somebody may not review this project: rule and message."""
    from referee.course import load_course

    course = load_course(submission.root)
    team = [member.handle for member in submission.file.team]
    if own := next((member for member in team if same(member, handle)), None):
        yield "REV-032", f"'{own}' is of the team; nobody reviews their own project."
        return
    if course.people and course.person(handle) is None:
        if near := next((p.handle for p in course.people if skeleton(p.handle) == skeleton(handle)), None):
            yield "REV-035", f"'{ascii_only(handle)}' looks like '{near}', and is not; use the handle in course.yaml."
        else:
            hint = nearest(handle, [p.handle for p in course.people])
            yield "REV-030", f"course.yaml knows nobody called '{ascii_only(handle)}'.{hint} Ask the editor."
    elif course.people and not (course.has_role(handle, "reviewer") or course.has_role(handle, "editor")):
        yield "REV-030", f"'{handle}' is no reviewer in course.yaml; ask the editor."
    for member in team:
        if skeleton(member) == skeleton(handle) and not (course.person(member) and course.person(handle)):
            yield "REV-035", f"'{ascii_only(handle)}' looks like '{member}' of the team; use another handle."
        elif course.in_conflict(handle, member):
            yield "REV-031", f"'{handle}' and '{member}' of the team have a conflict of interest (course.yaml)."
    for paper, member in _reciprocal(submission, handle, team):
        message = f"'{member}' of the team reviews '{paper}', which is '{handle}'s: nobody reviews each other. Ask the "
        yield "REV-033", f"{message}editor for another reviewer."


def _reciprocal(submission: Submission, handle: str, team: list[str]) -> Iterator[tuple[str, str]]:
    """Projects of the reviewer's that a member of the team reviews, or is to review.

    Somebody assigned gives way only to others assigned: nobody keeps them away by an additional review.
    """
    from referee.project import Project, paper_names

    base, given = submission.root / "reviews", assignment(submission)
    assigned = bool(given) and is_assigned(given, submission.name, handle)
    for paper in paper_names(submission.root):
        if paper == submission.name:
            continue
        reviewers = {h.lower() for h in given.get(paper, ())}
        if not assigned and (base / paper).is_dir():
            reviewers |= {path.stem.lower() for path in (base / paper).glob("*.md")}
        members = [member for member in team if member.lower() in reviewers]
        if members and any(same(handle, m.handle) for m in Project(submission.root, paper).load().team):
            yield paper, members[0]


def _reviewers(submission: Submission, rule: str) -> Iterator[Found]:
    """The reviewers who may not review this project, by one rule."""
    for review in reviews(submission).reviews.values():
        cache: dict[str, list[tuple[str, str]]] = submission.cache.setdefault("may_not_review", {})
        if review.reviewer not in cache:
            cache[review.reviewer] = list(may_not_review(submission, review.reviewer))
        for found, message in cache[review.reviewer]:
            if found == rule:
                yield _of(submission, review), 2, message


@check(
    "REV-030",
    "Reviewers are known to the course",
    why="A review counts because somebody answers for it.",
    fix="The editor adds the person to course.yaml, with the role reviewer.",
    severity=REVIEW,
)
def reviewers_known(submission: Submission) -> Iterator[Found]:
    yield from _reviewers(submission, "REV-030")


@check(
    "REV-031",
    "No reviewer has a conflict of interest with the team",
    why="Who is bound to the team cannot judge its work, nor be seen to.",
    fix="Ask the editor for another reviewer; write 'conflict_of_interest: none' only if there is none.",
    severity=REVIEW,
)
def no_conflicts(submission: Submission) -> Iterator[Found]:
    yield from _reviewers(submission, "REV-031")
    for review in reviews(submission).reviews.values():
        said = review.head.conflict_of_interest
        if said.strip(" .").lower() not in ("none", "no") and "WRITE:" not in said:
            message = (
                "declares a conflict of interest; the editor names another reviewer (write 'none' if there is none)."
            )
            yield _of(submission, review), 2, message


@check(
    "REV-032",
    "Nobody reviews their own project",
    why="A review is somebody else's judgement.",
    fix="Remove the review, or the handle from the team.",
    severity=REVIEW,
)
def not_their_own(submission: Submission) -> Iterator[Found]:
    yield from _reviewers(submission, "REV-032")


@check(
    "REV-033",
    "Nobody reviews each other",
    why="Two who judge each other have something to trade.",
    fix="'referee assign' gives no such pairs; ask the editor for another reviewer.",
    severity=REVIEW,
)
def no_reciprocal_pairs(submission: Submission) -> Iterator[Found]:
    yield from _reviewers(submission, "REV-033")


@check(
    "REV-035",
    "No handle can be taken for another",
    why="A handle that looks like somebody else's borrows their name.",
    fix="Use plain letters, and a handle that does not resemble another one.",
    severity=REVIEW,
)
def no_look_alikes(submission: Submission) -> Iterator[Found]:
    from referee.course import load_course

    yield from _reviewers(submission, "REV-035")
    course = load_course(submission.root)
    by_look: dict[str, str] = {}
    for review in reviews(submission).reviews.values():
        look = skeleton(review.reviewer)
        vouched = course.person(review.reviewer) and look in by_look and course.person(by_look[look])
        if look in by_look and not vouched:
            yield _of(submission, review), 2, f"'{review.reviewer}' looks like '{by_look[look]}'; use another handle."
        by_look.setdefault(look, review.reviewer)


@check(
    "REV-036",
    "Reviews are by those assigned",
    why="Whom an editor assigns has no stake in the project; friends could choose each other.",
    fix="Nothing is wrong: an additional review is welcome and answered like others. It does not count towards the "
    "reviews that open version 2, nor for grades. To make it count, the editor assigns it.",
    severity="warning",
)
def by_those_assigned(submission: Submission) -> Iterator[Found]:
    given = assignment(submission)
    for review in reviews(submission).reviews.values():
        if not is_assigned(given, submission.name, review.reviewer):
            yield _of(submission, review), 2, additional(given, submission.name, review.reviewer)


def not_theirs(submission: Submission, paths: Iterable[str], actor: str) -> Iterator[Found]:
    """REV-034: which of the changed paths somebody may not change.

    Args:
        paths: changed paths, relative to the repository; those outside `reviews/<paper>/` are not looked at.
        actor: the handle of who made the change, as the forge tells.
    """
    from referee.course import load_course

    course = load_course(submission.root)
    team = [member.handle for member in submission.file.team]
    for path in paths:
        if not path.startswith(f"reviews/{submission.name}/"):
            continue
        name = path.rpartition("/")[2]
        where = submission.root / path
        if name == RESPONSE:
            if not any(same(actor, member) for member in team):
                yield where, 1, f"'{ascii_only(actor)}' is not of the team ({', '.join(team)}); only the team answers."
        elif name == DECISION:
            if not course.has_role(actor, "editor"):
                yield where, 1, f"'{ascii_only(actor)}' is no editor in course.yaml; only an editor decides."
        elif not same(actor, name.removesuffix(".md")):
            whose = ascii_only(name.removesuffix(".md"))
            yield where, 1, f"is {whose}'s review, changed by '{ascii_only(actor)}'; take the change back."


# -- The team's answers ------------------------------------------------------------------------------------------------


def _fixes(submission: Submission) -> Iterator[tuple[Path, Reply, Finding, Snapshot]]:
    """Replies 'fixed' to findings that exist, with the commit that was reviewed."""
    there = reviews(submission)
    if there.response is None:
        return
    for key, reply in there.response.replies.items():
        finding = there.findings.get(key)
        review = there.reviews.get(key.partition("/")[0])
        commit = review.head.commit if review else there.response.head.commit
        then = snapshot(submission, commit)
        if reply.kind == "fixed" and finding is not None and then is not None:
            yield _path(submission, RESPONSE), reply, finding, then


@check(
    "REV-040",
    "Every finding is answered",
    why="A review that can be passed over in silence is no review.",
    fix="'referee respond <paper>' lists the findings; each is fixed, disputed or, if a question, answered.",
    severity=ANSWERS,
)
def all_answered(submission: Submission) -> Iterator[Found]:
    there = reviews(submission)
    path = _path(submission, RESPONSE)
    owed = dict(there.findings)
    if there.decision and there.decision.head.decision != "revise":
        owed = {k: f for k, f in owed.items() if not f.id.startswith("E")}  # answered only if it goes on
    if there.response is None:
        if owed:
            waits = number_of(len(owed), "finding waits", "findings wait")
            message = f"is missing: {waits}; 'referee respond {submission.name}' begins it."
            yield path, 1, message
        return
    for key, finding in owed.items():
        if key not in there.response.replies:
            message = (
                f"{key} ({finding.severity}) is not answered; write '### {key} · fixed' or '### {key} · disputed'."
            )
            yield path, 1, message
    for key, reply in there.response.replies.items():
        if key not in there.findings:
            hint = nearest(key, there.findings)
            yield path, reply.line, f"nobody has a finding {key}.{hint} Correct or remove the answer."


@check(
    "REV-041",
    "A fix names a commit made after the reviewed one",
    why="The fix can be looked at, and was not there when the finding was made.",
    fix="Write '- commit: ' and the id of the commit that fixes it; it must be on this branch.",
    severity=ANSWERS,
)
def fixes_have_commits(submission: Submission) -> Iterator[Found]:
    for path, reply, _, then in _fixes(submission):
        if reply.commit is None:
            yield path, reply.line, f"{reply.key} is fixed, but no commit is named; write '- commit: ' and its id."
            continue
        fix, head = snapshot(submission, reply.commit), snapshot(submission, "HEAD")
        if fix is None or head is None:
            yield path, reply.line, f"{reply.key}: there is no commit {reply.commit[:12]} here; was history edited?"
        elif not then.is_before(fix):
            message = (
                f"{reply.key}: the commit {reply.commit[:12]} does not come after the reviewed {then.commit[:10]}."
            )
            yield path, reply.line, f"{message} Name the commit that fixes it."
        elif fix.commit != head.commit and not fix.is_before(head):
            yield path, reply.line, f"{reply.key}: the commit {reply.commit[:12]} is not on this branch; merge it."


@check(
    "REV-042",
    "A fix touches the place, or says why not",
    why="A commit elsewhere fixes something else, unless there is a reason.",
    fix="Name the commit that changes the place of the finding, or write '- elsewhere: ' and why it is fixed there.",
    severity=ANSWERS,
)
def fixes_touch_the_place(submission: Submission) -> Iterator[Found]:
    for path, reply, finding, then in _fixes(submission):
        if reply.commit is None or reply.elsewhere or (fix := snapshot(submission, reply.commit)) is None:
            continue
        changed = fix.changes()
        if not any(place.path in changed and then.touched(place, fix) for place in finding.places):
            places = ", ".join(map(str, finding.places))
            message = (
                f"{reply.key}: the commit {reply.commit[:12]} does not touch {places}; say why ('- elsewhere: …')."
            )
            yield path, reply.line, message


@check(
    "REV-043",
    "A fix names the test that would have caught it",
    why="A mistake that no test guards against comes back.",
    fix="Write '- test: path::name', or '- no test: ' and why there can be none.",
    severity=ANSWERS,
)
def fixes_have_tests(submission: Submission) -> Iterator[Found]:
    for path, reply, _, _ in _fixes(submission):
        if not reply.tests and not reply.no_test:
            message = f"{reply.key} names no test; write '- test: path::name', or '- no test: ' and why."
            yield path, reply.line, message
        head = snapshot(submission, "HEAD")
        for test in reply.tests:
            file, _, name = test.partition("::")
            if head is None or not head.has_test(file, name):
                yield path, reply.line, f"{reply.key}: there is no test '{test[:100]}' in the last commit; correct it."


@check(
    "REV-044",
    "A dispute has a reason, and only a question is merely answered",
    why="The editor rules on reasons.",
    fix="Say below the heading why the finding is wrong; a finding that is no question is fixed or disputed.",
    severity=ANSWERS,
)
def disputes_have_reasons(submission: Submission) -> Iterator[Found]:
    there = reviews(submission)
    for key, reply in (there.response.replies if there.response else {}).items():
        path = _path(submission, RESPONSE)
        finding = there.findings.get(key)
        if reply.kind in ("disputed", "answered") and not reply.text:
            yield path, reply.line, f"{key} is {reply.kind} without a word; say why."
        if reply.kind == "answered" and finding is not None and finding.severity != "question":
            yield path, reply.line, f"{key} is no question ({finding.severity}); it is fixed or disputed."


# -- The editor's decision ---------------------------------------------------------------------------------------------


@check(
    "REV-045",
    "An editor decides, with reasons, on what is disputed",
    why="A decision is somebody's who may make it, and can be followed.",
    fix="The editor is in course.yaml and not of the team; each ruling is on a disputed finding and says why.",
    severity=ANSWERS,
)
def decision_in_order(submission: Submission) -> Iterator[Found]:
    from referee.course import load_course

    there = reviews(submission)
    if (decision := there.decision) is None:
        return
    path = _path(submission, DECISION)
    course = load_course(submission.root)
    editor = decision.head.editor
    if course.people and not course.has_role(editor, "editor"):
        yield path, 2, f"'{editor}' is no editor in course.yaml; only an editor decides."
    for member in submission.file.team:
        if same(member.handle, editor):
            yield path, 2, f"'{editor}' is of the team; another editor decides."
        elif course.in_conflict(editor, member.handle):
            yield path, 2, f"'{editor}' has a conflict of interest with '{member.handle}'; another editor decides."
    if not decision.reasons:
        yield path, 1, "gives no reasons; write them below '## Reasons'."
    disputed = {k for k, r in (there.response.replies if there.response else {}).items() if r.kind == "disputed"}
    for key, ruling in decision.rulings.items():
        reply = there.response.replies.get(key) if there.response else None
        mended = ruling.verdict == "upheld" and reply is not None and reply.kind == "fixed"
        if key not in disputed and not mended:
            yield path, ruling.line, f"{key} is not disputed in {RESPONSE}; remove the ruling or correct its name."
        if ruling.verdict and not ruling.text:
            yield path, ruling.line, f"{key} is {ruling.verdict} without a word; say why."


@check(
    "REV-046",
    "Matches that the editor states exist",
    why="They decide what a reviewer found and missed.",
    fix="Write '- same as: carol/F1' with a finding that a review holds, or '- same as: none'.",
    severity=ANSWERS,
)
def matches_exist(submission: Submission) -> Iterator[Found]:
    there = reviews(submission)
    if there.decision is None:
        return
    for finding in there.decision.findings.values():
        for key in finding.same_as or ():
            if key not in there.findings:
                message = (
                    f"{finding.id} is the same as {key}, which nobody found.{nearest(key, there.findings)} Correct it."
                )
                yield _path(submission, DECISION), finding.line, message


@check(
    "REV-047",
    "Every dispute is ruled, and what is upheld is fixed",
    why="A finding that stays open must not be published over.",
    fix="The editor rules in decision.md: '### carol/F2 · upheld' or '· overruled'; what is upheld is then fixed.",
    severity={"v2": "note", "published": "error"},
)
def disputes_are_ruled(submission: Submission) -> Iterator[Found]:
    there = reviews(submission)
    rulings = there.decision.rulings if there.decision else {}
    for key, reply in (there.response.replies if there.response else {}).items():
        if reply.kind != "disputed":
            continue
        ruling = rulings.get(key)
        if ruling is None or ruling.verdict is None:
            yield _path(submission, RESPONSE), reply.line, f"{key} is disputed; the editor rules in {DECISION}."
        elif ruling.verdict == "upheld":
            yield _path(submission, RESPONSE), reply.line, f"{key} was upheld by the editor; fix it, and say so here."


@check(
    "REV-048",
    "Nothing is accepted over a finding that was upheld, or not ruled",
    why="'accept' publishes the project as it is, mistakes included.",
    fix="Rule on every dispute. Where one is upheld, decide 'revise'; accept when the team has fixed it and says so in "
    "its response. Once the project is at stage published, REV-047 asks the same.",
    severity={"v2": "error"},
)
def accepted_without_open_disputes(submission: Submission) -> Iterator[Found]:
    there = reviews(submission)
    decision = there.decision
    if decision is None or decision.head.decision != "accept":
        return
    path = _path(submission, DECISION)
    for key, reply in (there.response.replies if there.response else {}).items():
        if reply.kind != "disputed":
            continue
        ruling = decision.rulings.get(key)
        if ruling is None:
            yield path, 1, f"{key} is disputed and not ruled; write '### {key} · upheld' or '· overruled', and why."
        elif ruling.verdict == "upheld":
            message = f"{key} is upheld and not fixed: decide 'revise', and accept when {RESPONSE} says that it is."
            yield path, ruling.line, message
