"""Stages, amendments and the course (STG, CRS): what a project's history allows it to be.

Most of it is about a change, so `referee gate` finds it; the rules are entered here with the others.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from common.errors import nearest
from referee.checks.base import STAGES, Found, Severity, Skip, Submission, check, register
from referee.course import Course, load_course
from referee.history import History, HistoryError
from referee.stages import Amiss, claims_amiss, declared, too_few

_READING: dict[str, tuple[str, str, str]] = {
    "001": ("the file can be read", "Only plain, bounded UTF-8 text is opened.", "Save it as plain UTF-8 text."),
    "002": ("the file is YAML", "Everything else is read from it.", "Go to the line named; quotes often help."),
    "003": ("plain YAML", "Anchors, tags and depth can be used to harm.", "Write each value out where it is used."),
    "004": ("no field stands twice", "Readers and programs could take different ones.", "Delete one of the two."),
    "005": ("every field is known", "A mistyped field would be ignored in silence.", "Use the name suggested."),
    "006": ("every required field is there", "Other rules rely on it.", "Add the field that is named."),
    "007": ("every value has its type and shape", "Programs read it.", "Write it in the form the message names."),
    "008": ("numbers are readable", "Shares and limits are taken as written.", "Write digits and a point: 0.25."),
    "009": ("time zone and people are known", "A name mistyped refers to nothing.", "Use the name suggested."),
    "010": ("handles stand once", "Roles and conflicts of a person stand in one place.", "Join the two entries."),
    "011": (
        "dates and shares agree with each other",
        "Deadlines follow one another, reviewers get a week, shares make a whole.",
        "Correct the one that the message names.",
    ),
    "012": ("text holds no control characters", "They can make text read otherwise than it is.", "Delete them."),
}
for _number, (_title, _why, _fix) in _READING.items():
    register(f"CRS-{_number}", f"course.yaml: {_title}", why=_why, fix=_fix, severity="error")

register(
    "CRS-014",
    "course.yaml: no two handles can be taken for each other",
    why="Who is called much like somebody else can borrow their name: rn reads as m, l as 1 or I, a hyphen as nothing.",
    fix="Ask both people. Handles that are right may stay; 'referee gate' says it when course.yaml changes.",
    severity="warning",
)

register(
    "CRS-015",
    "course.yaml: what is not in the course is a project",
    why="A name mistyped leaves nothing out: its project is assigned and graded like the others.",
    fix="Correct the name in 'not_in_course'; 'referee gate' says it when course.yaml changes.",
    severity="warning",
)

register(
    "CRS-016",
    "course.yaml: expertise is a family or a paper",
    why="Reviews go first to those who know the family or the paper; a name mistyped matches none.",
    fix="Write a family of referee/checklist.yaml or a project's name. 'referee gate' and 'referee assign' say it.",
    severity="warning",
)

_AT_THE_GATE: dict[str, tuple[Severity, str, str, str]] = {
    "STG-002": (
        "warning",
        "The change comes in time",
        "Reviewers plan with the dates. What is a little late is taken, at a price that is known beforehand.",
        "Submit before the deadline in course.yaml; a commit counts from when it was pushed.",
    ),
    "STG-003": (
        "error",
        "The change does not come too late",
        "What is under review must stand still, and late work cannot be reviewed.",
        "Put the change into the next version, or ask the editor.",
    ),
    "STG-009": (
        "error",
        "History is whole: what was reviewed is still there",
        "A review of a commit that is gone is a review of nothing; a forced push can hide what was.",
        "Push the missing commit again; fetch the whole history (git fetch --unshallow).",
    ),
    "STG-010": (
        "error",
        "The commits' dates can be",
        "Where the forge does not tell when a commit was pushed, its date decides whether it came in time.",
        "Set the machine's clock right and make the commit again.",
    ),
    "STG-011": (
        "error",
        "Who makes a change may make it",
        "A project is its team's, a decision the editor's.",
        "Take the change back, or ask the team or the editor to make it.",
    ),
    "STG-012": (
        "error",
        "What was submitted stays on record",
        "A project, review or course that disappears takes its history from those who relied on it.",
        "Put the files back. A proposal may still be withdrawn.",
    ),
    "STG-013": (
        "warning",
        "A submission changes projects and reviews, and nothing else",
        "Common code and rules concern everybody.",
        "Propose such a change by itself; a maintainer looks at it.",
    ),
    "STG-014": (
        "error",
        "The checks of the new stage pass",
        "A stage is what its checks say it is.",
        "'referee check <paper> --stage <stage>' lists what is to be done.",
    ),
}
for _rule, (_severity, _title, _why, _fix) in _AT_THE_GATE.items():
    register(_rule, _title, why=_why, fix=_fix, severity=_severity)


def _file(submission: Submission) -> Path:
    return submission.at("project.yaml")


def _course(submission: Submission) -> Course:
    """The course; DocumentError is reported under CRS rules."""
    if "course" not in submission.cache:
        submission.cache["course"] = load_course(submission.root)
    course = submission.cache["course"]
    assert isinstance(course, Course)
    return course


def _history(submission: Submission) -> tuple[History, str]:
    """The history, and the commit where the change at hand begins. Skip outside git."""
    history = History(submission.root)
    if not history.exists:
        raise Skip
    return history, submission.base or history.merge_base(history.base_branch())


@check(
    "CRS-013",
    "The course knows everybody of the team",
    why="Conflicts of interest, roles and grades go by the handles in course.yaml.",
    fix="Ask the editor to enter the person in course.yaml, or correct the handle.",
    severity="warning",
)
def team_is_known(submission: Submission) -> Iterator[Found]:
    course = _course(submission)
    if not course.people or not course.includes(submission.name):
        return
    for member in submission.file.team:
        if course.person(member.handle) is None:
            hint = nearest(member.handle, [p.handle for p in course.people])
            message = f"course.yaml knows nobody called '{member.handle}'.{hint} Correct it, or ask the editor."
            yield _file(submission), 1, message


@check(
    "STG-001",
    "A project moves one stage at a time, forward",
    why="Each stage is looked at by others; a skipped stage is a skipped look.",
    fix="proposed, v1, v2, published: set the next one, in a change of its own.",
)
def one_step(submission: Submission) -> Iterator[Found]:
    history, base = _history(submission)
    text = history.text(base, f"projects/{submission.name}/project.yaml")
    before = declared(text).stage if text is not None else None
    stage = submission.file.stage
    line = declared(submission.text(_file(submission))).line(("stage",))
    if before is None and stage != "proposed":
        yield _file(submission), line, f"a new project begins at stage proposed, not {stage}; propose it first."
    elif before in STAGES and STAGES.index(stage) - [*STAGES].index(before) not in (0, 1):
        yield _file(submission), line, f"from {before} to {stage} is not one step forward; take one at a time."


@check(
    "STG-004",
    "Version 2 follows enough reviews",
    why="A project that nobody looked at is not refereed.",
    fix="Wait for as many reviews as course.yaml asks for (reviewers_per_project). Once reviewers are assigned, theirs "
    "count; until then, everybody's who may review.",
    severity={"v2": "error", "published": "error"},
)
def enough_reviews(submission: Submission) -> Iterator[Found]:
    from referee.checks.reviews import assignment, reviews

    written = reviews(submission).reviews
    if message := too_few(_course(submission), assignment(submission), submission.name, written):
        yield _file(submission), 1, message


@check(
    "STG-005",
    "What is published was accepted",
    why="The editor's decision is the last of the gates.",
    fix="Wait for 'decision: accept' in reviews/<paper>/decision.md.",
    severity={"published": "error"},
)
def accepted(submission: Submission) -> Iterator[Found]:
    from referee.checks.reviews import reviews

    decision = reviews(submission).decision
    stated = decision.head.decision if decision else None
    if stated != "accept":
        what = f"is '{stated}'" if stated else "is not there yet"
        message = f"published needs the editor's decision 'accept', which {what}; wait for it."
        yield _file(submission), 1, message


def _amiss(submission: Submission, rule: str) -> Iterator[Found]:
    if "claims_amiss" not in submission.cache:
        history, base = _history(submission)
        present = declared(submission.text(_file(submission)))
        try:
            found = claims_amiss(history, submission.name, base, present, datetime.now(UTC))
        except HistoryError as error:
            found = [("STG-006", 1, str(error))]
        submission.cache["claims_amiss"] = found
    amiss: list[Amiss] = submission.cache["claims_amiss"]
    yield from ((_file(submission), line, message) for found_by, line, message in amiss if found_by == rule)


@check(
    "STG-006",
    "Claims stay as the accepted proposal has them, or are amended",
    why="A claim that is changed once results are known proves nothing.",
    fix="Take the change back, or add to 'amendments' in project.yaml: claim, date, change, reason.",
)
def claims_are_frozen(submission: Submission) -> Iterator[Found]:
    yield from _amiss(submission, "STG-006")


@check(
    "STG-007",
    "Amendments are dated as they were made",
    why="The date tells a reader whether the claim was changed before or after the results.",
    fix="Write the day on which the amendment is made: after the proposal was accepted, not in the future.",
)
def amendments_are_dated(submission: Submission) -> Iterator[Found]:
    yield from _amiss(submission, "STG-007")


@check(
    "STG-008",
    "Amendments lead from the accepted claims to the present ones, and stay",
    why="An amendment that does not fit the claims hides what was changed.",
    fix="One entry for each change, oldest first; correct its claim's id and kind. Never delete one.",
)
def amendments_are_coherent(submission: Submission) -> Iterator[Found]:
    yield from _amiss(submission, "STG-008")
