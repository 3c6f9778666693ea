"""At every gate: what may pass, and what must be refused."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from referee.cli import main
from referee.history import Event, HistoryError, read_pushes
from referee.stages import Gate
from tests.referee.stages.conftest import COURSE, PROJECT, YAML, Repository, at, rules, said

Capture = pytest.CaptureFixture[str]

CODE = "projects/toy/toy.py"
REVIEW = """\
---
reviewer: {handle}
paper: toy
round: 1
commit: {commit}
---
"""
DECISION = """\
---
paper: toy
editor: edith
round: 1
decision: {decision}
date: 2027-02-20
---
## Reasons

It holds.

## Rulings

None.

## Findings

None.
"""


def review(repository: Repository, handle: str = "bo") -> tuple[str, str]:
    return f"reviews/toy/{handle}.md", REVIEW.format(handle=handle, commit=repository.git("rev-parse", "main"))


ASSIGNMENT = "reviews/assignment.yaml"


def assigned(reviewers: str) -> str:
    return f"seed: 1\ninputs: '{'0' * 64}'\nreviewers: {reviewers}\n"


def decision(word: str) -> tuple[str, str]:
    return "reviews/toy/decision.md", DECISION.format(decision=word)


def reviewed(repository: Repository, *more: tuple[str, str | None]) -> None:
    """Two reviews on main, and work begun on a branch."""
    repository.git("checkout", "--quiet", "main")
    files = (review(repository), review(repository, "cy"), *more)
    repository.commit(*files, date="2027-01-25T12:00:00+00:00")
    repository.git("checkout", "--quiet", "-B", "work")


# -- proposed ---------------------------------------------------------------------------------------------------------


def test_a_proposal(repository: Repository) -> None:
    repository.branch()
    repository.commit((YAML, PROJECT), date="2026-11-30T12:00:00+00:00")
    gate = repository.gate()
    assert gate.findings == []
    (judged,) = gate.judged
    assert str(judged.change) == "a new project at stage proposed, 1 file"
    assert judged.until == "due 2026-12-01 23:59 CET: in time"
    assert "referee check toy --stage proposed" in judged.requires[0]


@pytest.mark.parametrize("stage", ["v1", "v2", "published", "v7", "[v1]"])
def test_a_project_begins_with_its_proposal(repository: Repository, stage: str) -> None:
    repository.branch()
    repository.commit((YAML, at(stage)))
    assert "STG-001" in rules(repository.gate())
    assert "begins at stage proposed" in said(repository.gate())


def test_a_folder_without_project_yaml_is_no_project(repository: Repository) -> None:
    repository.branch()
    repository.commit((CODE, "x = 1\n"))
    assert rules(repository.gate()) == ["STG-001"]


def test_a_proposal_is_its_teams(repository: Repository) -> None:
    repository.branch()
    repository.commit((YAML, PROJECT))
    assert rules(repository.gate("bo")) == ["STG-011"]
    assert rules(repository.gate("ADA")) == []
    assert rules(repository.gate("edith")) == []
    assert rules(repository.gate(None)) == []  # who it is was not said


# -- deadlines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pushed", "expected", "says"),
    [
        ("2026-12-01T22:59:59+00:00", [], ""),  # the last second of the day in Berlin
        ("2026-12-01T23:00:00+00:00", ["warning STG-002"], "1 s after the deadline"),
        ("2026-12-02T22:59:59+00:00", ["warning STG-002"], "accepted with 25 % off"),
        ("2026-12-02T23:00:00+00:00", ["error STG-003"], "until 2026-12-02 23:59 CET"),
    ],
)
def test_a_deadline_to_the_second(repository: Repository, pushed: str, expected: list[str], says: str) -> None:
    repository.branch()
    head = repository.commit((YAML, PROJECT), date="2026-11-25T12:00:00+00:00")
    gate = repository.gate(now="2026-12-24T00:00:00+00:00", event=Event(head, datetime.fromisoformat(pushed)))
    assert [f"{f.severity} {f.rule}" for f in gate.findings] == expected
    assert says in said(gate)
    assert gate.open == (expected != ["error STG-003"])
    if expected:
        assert "when it was pushed, as the forge says" in said(gate)


def test_without_a_forge_the_committers_date_counts(repository: Repository) -> None:
    repository.branch()
    repository.commit((YAML, PROJECT), date="2026-12-04T12:00:00+01:00")
    gate = repository.gate()
    assert rules(gate) == ["STG-003"]
    assert "It counts from 2026-12-04 12:00 CET, the latest committer's date, since no event" in said(gate)


def test_deadlines_bind_no_editor(repository: Repository) -> None:
    repository.branch()
    repository.commit((YAML, PROJECT), date="2026-12-24T12:00:00+01:00")
    gate = repository.gate("edith")
    assert gate.findings == []
    assert gate.judged[0].until == "due 2026-12-01 23:59 CET; does not bind an editor"


def test_summer_time(repository: Repository) -> None:
    """The deadline is on the evening of the day that has 23 hours, and lateness is counted in real hours."""
    repository.commit(("course.yaml", COURSE.replace("2026-12-01", "2027-03-28").replace(", v1: 2027-01-15, reviews: "
                      "2027-01-29, v2: 2027-02-12", "")))  # fmt: skip
    repository.branch()
    head = repository.commit((YAML, PROJECT))
    for pushed, expected in [("2027-03-28T21:59:59Z", []), ("2027-03-29T21:59:59Z", ["STG-002"])]:
        gate = repository.gate(now="2027-06-01T00:00:00+00:00", event=Event(head, datetime.fromisoformat(pushed)))
        assert [f.rule for f in gate.findings] == expected
    late = Event(head, datetime(2027, 3, 29, 22, tzinfo=UTC))
    assert rules(repository.gate(now="2027-06-01T00:00:00+00:00", event=late)) == ["STG-003"]


def test_work_before_the_next_deadline_is_free(proposed: Repository) -> None:
    """A proposal's deadline does not bind what the team does for version 1."""
    proposed.commit((CODE, "x = 1\n"), date="2026-12-20T12:00:00+00:00")
    gate = proposed.gate()
    assert gate.findings == []
    assert gate.judged[0].until is None


def test_what_is_under_review_stands_still(submitted: Repository) -> None:
    submitted.commit((CODE, "x = 1\n"), date="2027-01-20T12:00:00+00:00")
    assert rules(submitted.gate()) == ["STG-003"]
    assert "goes into version 2" in said(submitted.gate())


# -- steps ------------------------------------------------------------------------------------------------------------


def test_version_1(proposed: Repository) -> None:
    proposed.commit((YAML, at("v1")), (CODE, "x = 1\n"), date="2027-01-14T12:00:00+00:00")
    gate = proposed.gate()
    assert gate.findings == []
    assert [str(j.change) for j in gate.judged] == ["proposed → v1, 2 files"]


@pytest.mark.parametrize("stage", ["v2", "published", "v3"])
def test_no_stage_is_skipped(proposed: Repository, stage: str) -> None:
    proposed.commit((YAML, at(stage)))
    assert "STG-001" in rules(proposed.gate())


def test_no_stage_goes_back(submitted: Repository) -> None:
    submitted.commit((YAML, at("proposed")))
    assert rules(submitted.gate()) == ["STG-001"]
    assert "goes back. Its next stage is v2." in said(submitted.gate())


def test_a_stage_that_no_reader_sees_is_no_stage(proposed: Repository) -> None:
    proposed.commit((YAML, at("v1") + "stage: published\n"))  # twice: the checks of project.yaml refuse it, too
    gate = proposed.gate()
    assert [c.step for c in gate.changes] == [("proposed", "v1")]


def test_version_2_needs_its_reviews(submitted: Repository) -> None:
    submitted.commit((YAML, at("v2")), date="2027-02-10T12:00:00+00:00")
    assert rules(submitted.gate()) == ["STG-004"]
    assert "needs 2 reviews; there are 0" in said(submitted.gate())
    submitted.git("checkout", "--quiet", "main")
    reviewed(submitted)
    submitted.commit((YAML, at("v2")), ("reviews/toy/response.md", "x"), date="2027-02-10T12:00:00+00:00")
    assert submitted.gate().findings == []


def test_published_needs_the_editors_acceptance(submitted: Repository) -> None:
    reviewed(submitted, (YAML, at("v2")))
    submitted.commit((YAML, at("published")))
    assert rules(submitted.gate()) == ["STG-005"]
    submitted.commit(decision("revise"))
    assert "is 'revise'" in said(submitted.gate("edith"))
    submitted.commit(decision("accept"))
    assert rules(submitted.gate("ada")) == ["STG-011"]  # nobody accepts their own work
    assert submitted.gate("edith").findings == []


def test_a_revision_is_not_bound_by_the_deadline_it_missed(submitted: Repository) -> None:
    reviewed(submitted, (YAML, at("v2")), decision("revise"))
    submitted.commit((CODE, "x = 2\n"), date="2027-03-10T12:00:00+00:00")
    gate = submitted.gate()
    assert gate.findings == []
    assert gate.judged[0].until == "due 2027-02-12 23:59 CET; does not bind what is to be revised"
    submitted.git("checkout", "--quiet", "-B", "other", "main")
    submitted.commit(decision("accept"))
    submitted.git("branch", "--quiet", "-f", "main")
    submitted.commit((CODE, "x = 3\n"), date="2027-03-10T12:00:00+00:00")
    assert rules(submitted.gate()) == ["STG-003"]


# -- people -----------------------------------------------------------------------------------------------------------


def test_nobody_joins_a_team_by_themselves(submitted: Repository) -> None:
    submitted.commit((YAML, at("v1").replace("handle: ada", "handle: bo")), date="2027-01-12T00:00:00+00:00")
    assert "STG-011" in rules(submitted.gate("bo"))


def test_nobody_makes_themselves_an_editor(submitted: Repository) -> None:
    submitted.commit(
        ("course.yaml", COURSE.replace("ada, roles: [developer", "ada, roles: [editor, developer")), decision("accept")
    )
    assert rules(submitted.gate("ada")) == ["STG-011", "STG-011"]


def test_dates_and_assignments_are_the_editors(repository: Repository) -> None:
    repository.branch()
    repository.commit(
        ("course.yaml", COURSE.replace("v1: 2027-01-15", "v1: 2027-01-16")), (ASSIGNMENT, assigned("{toy: [bo]}"))
    )
    assert rules(repository.gate("ada")) == ["STG-011", "STG-011"]
    assert repository.gate("edith").findings == []
    repository.commit((ASSIGNMENT, assigned("{toy: 3}")))
    assert rules(repository.gate("edith")) == ["CRS-007"]
    repository.commit((ASSIGNMENT, assigned("{toy: [bo]}")))
    repository.commit(("course.yaml", COURSE.replace("v1: 2027-01-15", "v1: 2027-01-45")))
    assert rules(repository.gate("edith")) == ["CRS-011"]


def test_who_may_change_the_course_is_said(repository: Repository) -> None:
    repository.branch()
    repository.commit(("course.yaml", COURSE.replace("edith", "emil")))
    assert rules(repository.gate("emil")) == ["STG-011"]
    assert "'emil' is no editor in course.yaml (edith)" in said(repository.gate("emil"))
    assert repository.gate("edith").open


@pytest.mark.parametrize(("name", "says"), [("toy", ""), ("toi", "no project 'toi'. Did you mean 'toy'?")])
def test_what_is_not_in_the_course_is_a_project(submitted: Repository, name: str, says: str) -> None:
    submitted.commit(("course.yaml", f"{COURSE}not_in_course: [{name}]\n"))
    gate = submitted.gate("edith")
    assert [(f.rule, f.severity, f.line) for f in gate.findings] == ([("CRS-015", "warning", 10)] if says else [])
    assert says in said(gate)


@pytest.mark.parametrize(
    ("name", "says"), [("vae", ""), ("toy", ""), ("flows", "'cy', is no family and no project. Did you mean 'flow'?")]
)
def test_expertise_is_a_family_or_a_paper(submitted: Repository, name: str, says: str) -> None:
    people = COURSE.replace("cy, roles: [developer, reviewer]", f"cy, roles: [reviewer], expertise: [{name}]")
    submitted.commit(("course.yaml", people))
    gate = submitted.gate("edith")
    assert [(f.rule, f.severity, f.line) for f in gate.findings] == ([("CRS-016", "warning", 8)] if says else [])
    assert says in said(gate)


def test_no_deadline_binds_what_is_not_in_the_course(submitted: Repository) -> None:
    submitted.commit(("projects/toy/toy.py", "x = 1\n"), date="2027-03-01T12:00:00+00:00")
    assert rules(submitted.gate("ada")) == ["STG-003"]
    submitted.git("checkout", "--quiet", "main")
    submitted.commit(("course.yaml", f"{COURSE}not_in_course: [toy]\n"))
    submitted.git("checkout", "--quiet", "-B", "work")
    submitted.commit(("projects/toy/toy.py", "x = 1\n"), date="2027-03-01T12:00:00+00:00")
    gate = submitted.gate("ada")
    assert gate.findings == []
    assert [j.until for j in gate.judged] == ["not in the course: no deadline"]


@pytest.mark.parametrize("handle", ["rnary", "rn-ary", "CY1", "B0", "cyl"])
def test_handles_that_resemble_each_other(repository: Repository, handle: str) -> None:
    people = COURSE + "".join(f"  - {{handle: {h}, roles: [reviewer]}}\n" for h in ("mary", "cyI", handle))
    repository.branch()
    repository.commit(("course.yaml", people))
    gate = repository.gate("edith")
    (finding,) = gate.findings
    assert (finding.rule, finding.severity, finding.line) == ("CRS-014", "warning", 12)
    assert f"'{handle}' can be taken for '{'mary' if 'n' in handle else 'bo' if '0' in handle else 'cyI'}'" in said(
        gate
    )
    assert gate.open  # the editor may know better


def test_a_review(submitted: Repository) -> None:
    submitted.commit(review(submitted), date="2027-01-28T12:00:00+00:00")
    gate = submitted.gate("bo")
    assert gate.findings == []
    assert str(gate.judged[0].change) == "review by bo"
    for somebody in ("cy", "edith", "ada"):
        assert rules(submitted.gate(somebody)) == ["REV-034"]


def test_only_reviews_by_those_assigned_open_version_2(submitted: Repository) -> None:
    def step(reviewers: str, *handles: str) -> Gate:
        """Version 2 after reviews by these, with this assignment."""
        submitted.git("checkout", "--quiet", "-B", "main", first)
        submitted.commit((ASSIGNMENT, assigned(reviewers)), *(review(submitted, h) for h in handles))
        submitted.git("checkout", "--quiet", "-B", "work")
        submitted.commit((YAML, at("v2")), date="2027-02-01T12:00:00+00:00")
        return submitted.gate()

    first = submitted.git("rev-parse", "main")
    assert rules(step("{toy: [BO, cy]}", "bo", "cy", "dee")) == []
    gate = step("{toy: [bo, cy]}", "bo", "dee")
    assert rules(gate) == ["STG-004"]
    assert "there is 1 by those assigned (bo, cy), and 1 more that does not count" in said(gate)
    gate = step("{ball: [bo, cy]}", "bo", "cy")
    assert rules(gate) == ["STG-004"]
    assert "nobody is assigned to 'toy'" in said(gate)
    assert rules(step("{ball: [bo, cy], toy: []}", "bo", "cy")) == []  # entered for nobody in particular
    gate = step("{ball: [bo, cy], toy: []}", "bo")
    assert "version 2 needs 2 reviews; there is 1 in reviews/toy/" in said(gate)
    assert rules(step("{}", "bo", "cy")) == []  # nothing is assigned: everybody's count
    submitted.commit((ASSIGNMENT, assigned("{toy: [bo, dee]}")))
    assert rules(submitted.gate("ada")) == ["STG-011"]  # the base's assignment holds, and only an editor changes it


def test_a_review_by_somebody_not_assigned_is_an_additional_one(submitted: Repository) -> None:
    submitted.git("checkout", "--quiet", "main")
    submitted.commit((ASSIGNMENT, assigned("{toy: [cy]}")))
    submitted.git("checkout", "--quiet", "-B", "work")
    for handle, warnings in (("bo", ["REV-036"]), ("cy", [])):
        submitted.git("reset", "--quiet", "--hard", "main")
        submitted.commit(review(submitted, handle), date="2027-01-28T12:00:00+00:00")
        gate = submitted.gate(handle)
        assert gate.open
        assert rules(gate, "warning") == warnings


def test_an_assignment_that_cannot_be_read_stops_the_gate(submitted: Repository) -> None:
    submitted.git("checkout", "--quiet", "main")
    submitted.commit((ASSIGNMENT, "seed: ["))
    submitted.git("checkout", "--quiet", "-B", "work")
    submitted.commit(review(submitted), date="2027-01-28T12:00:00+00:00")
    with pytest.raises(HistoryError, match="an editor mends it"):
        _ = submitted.gate("bo").findings


def test_a_review_comes_in_time_and_while_it_is_asked_for(proposed: Repository, submitted: Repository) -> None:
    submitted.commit(review(submitted), date="2027-01-31T12:00:00+00:00")
    assert rules(submitted.gate("bo")) == ["STG-003"]
    submitted.git("checkout", "--quiet", "-B", "early", "main~1")  # still proposed there
    submitted.git("branch", "--quiet", "-f", "main")
    submitted.commit(review(submitted), date="2026-12-24T12:00:00+00:00")
    assert rules(submitted.gate("bo")) == ["STG-004"]
    submitted.commit(("reviews/toy/bo.md", None), ("reviews/nothing/bo.md", "x"))
    assert rules(submitted.gate("bo")) == ["STG-004"]


def test_a_response_is_the_teams(submitted: Repository) -> None:
    reviewed(submitted)
    submitted.commit(("reviews/toy/response.md", "x"), date="2027-02-01T12:00:00+00:00")
    assert submitted.gate("ada").findings == []
    assert rules(submitted.gate("bo")) == ["REV-034"]
    assert rules(submitted.gate("edith")) == ["REV-034"]


def test_what_was_submitted_stays(submitted: Repository) -> None:
    reviewed(submitted)
    submitted.commit(("reviews/toy/bo.md", None))
    assert rules(submitted.gate("bo")) == ["STG-012"]
    submitted.git("checkout", "--quiet", "-B", "other", "main")
    submitted.commit((YAML, None))
    assert rules(submitted.gate("edith")) == ["STG-012"]
    submitted.git("checkout", "--quiet", "-B", "third", "main")
    submitted.commit(("course.yaml", None))
    assert rules(submitted.gate("edith")) == ["STG-012"]


def test_a_proposal_may_be_withdrawn(proposed: Repository) -> None:
    proposed.commit((YAML, None))
    assert proposed.gate().findings == []
    assert rules(proposed.gate("bo")) == ["STG-011"]


def test_other_files_are_for_a_maintainer(proposed: Repository) -> None:
    proposed.commit(("common/x.py", ""), ("projects/\x1b[31m/y", ""))
    gate = proposed.gate()
    assert [f"{f.severity} {f.rule}" for f in gate.findings] == ["note STG-013"]
    assert "\x1b" not in said(gate)
    proposed.commit((CODE, "x = 1\n"))  # hidden among a team's work
    assert [f"{f.severity} {f.rule}" for f in proposed.gate().findings] == ["warning STG-013"]


def test_a_link_in_a_folders_place(submitted: Repository) -> None:
    (submitted.root / "projects/other").symlink_to("toy")
    (submitted.root / "reviews").mkdir()
    (submitted.root / "reviews/toy").symlink_to("/etc")
    submitted.commit()
    assert {"STG-001", "STG-012"} <= set(rules(submitted.gate("ada")))


# -- history ----------------------------------------------------------------------------------------------------------


def test_the_reviewed_commit_is_gone(submitted: Repository) -> None:
    path, text = review(submitted)
    lost = submitted.commit((CODE, "x = 1\n"), date="2027-01-12T00:00:00+00:00")
    submitted.git("reset", "--quiet", "--hard", "main")
    for sha, says in [("1" * 40, "is gone"), (lost, "does not lead to this one")]:
        submitted.commit((path, text.replace(submitted.git("rev-parse", "main"), sha)))
        gate = submitted.gate("bo")
        assert rules(gate) == ["STG-009"]
        assert f"reviews/toy/bo.md:5: STG-009: the reviewed commit {sha[:10]} {says}" in said(gate)


def test_a_forced_push(submitted: Repository) -> None:
    head = submitted.commit((CODE, "x = 1\n"), date="2027-01-12T00:00:00+00:00")
    pushed = datetime(2027, 1, 12, tzinfo=UTC)
    assert rules(submitted.gate(event=Event(head, pushed, "ada", "b" * 40))) == ["STG-009"]


def test_clock_games(proposed: Repository) -> None:
    proposed.commit((YAML, at("v1")), date="2030-01-01T00:00:00+00:00")
    gate = proposed.gate(now="2026-12-10T00:00:00+00:00")
    assert rules(gate) == ["STG-010"]
    assert "from the future (2030-01-01 00:00 UTC)" in said(gate)


# -- claims -----------------------------------------------------------------------------------------------------------

FIRST, SECOND = "  - {id: nll-k50", "  - {id: more-helps"


def amended(project: str, *entries: tuple[str, str, str]) -> str:
    lines = [f"  - {{claim: {claim}, date: {day}, change: {change}, reason: why}}" for claim, day, change in entries]
    return project + "amendments:\n" + "\n".join(lines) + "\n"


LOOSER = PROJECT.replace("tolerance: 0.5", "tolerance: 5")
FEWER = PROJECT[: PROJECT.index(SECOND)]
MORE = PROJECT + PROJECT[PROJECT.index(SECOND) :].replace("more-helps", "more-still")


def claims(repository: Repository, text: str, date: str = "2026-12-10T12:00:00+00:00") -> list[str]:
    repository.commit((YAML, text), date=date)
    return [f"{f.rule}:{f.line}" for f in repository.gate().findings]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LOOSER, "claim 'nll-k50' was changed (tolerance)"),
        (FEWER, "claim 'more-helps' was removed"),
        (MORE, "claim 'more-still' was added"),
        (PROJECT.replace("id: more-helps", "id: more-hurts"), "claim 'more-hurts' was added"),
        (PROJECT.replace("paper_value: 84.70", "paper_value: 84.7, unit: bits"), "claim 'nll-k50' was changed (unit)"),
    ],
)
def test_claims_are_frozen(proposed: Repository, text: str, says: str) -> None:
    proposed.commit((YAML, text))
    assert set(rules(proposed.gate())) == {"STG-006"}
    assert says in said(proposed.gate())
    assert "(accepted 2026-11-20)" in said(proposed.gate())


@pytest.mark.parametrize(
    "text",
    [
        PROJECT.replace("certainty: mem", "certainty: seen").replace("Table 1", "Table 2, k=50"),
        PROJECT.replace("84.70", "84.7"),  # the same number
        PROJECT.replace("metric: nll, dataset", "metric: nll, unit: nats, split: test, dataset"),  # its defaults
        FEWER[: FEWER.index(FIRST)] + PROJECT[PROJECT.index(SECOND) :] + FEWER[FEWER.index(FIRST) :],  # their order
    ],
)
def test_what_a_claim_does_not_say_may_be_put_right(proposed: Repository, text: str) -> None:
    assert claims(proposed, text) == []


@pytest.mark.parametrize(
    ("text", "entry"),
    [(LOOSER, ("nll-k50", "changed")), (FEWER, ("more-helps", "removed")), (MORE, ("more-still", "added"))],
)
def test_an_amendment(proposed: Repository, text: str, entry: tuple[str, str]) -> None:
    assert claims(proposed, amended(text, (entry[0], "2026-12-10", entry[1]))) == []


@pytest.mark.parametrize(
    ("text", "entries", "expected", "says"),
    [
        (LOOSER, [("nll-k50", "2026-11-18", "changed")], ["STG-007"], "before the claims were frozen"),
        (LOOSER, [("nll-k50", "2026-12-12", "changed")], ["STG-007"], "is in the future"),
        (LOOSER, [("nll-k50", "2026-12-10", "removed")], ["STG-006", "STG-008"], "but the claim stands"),
        (LOOSER, [("nll-k50", "2026-12-10", "added")], ["STG-006", "STG-008"], "was there already"),
        (LOOSER, [("nll-k05", "2026-12-10", "changed")], ["STG-006", "STG-008", "STG-008"], "was not there"),
        (PROJECT, [("nll-k50", "2026-12-10", "changed")], ["STG-008"], "nothing of the claim has changed"),
        (PROJECT, [("more-still", "2026-12-10", "added")], ["STG-008"], "no claim has this id"),
        (LOOSER, [("nll-k50", "2026-12-10", "changed")] * 2, ["STG-008"], "stands twice"),
        (
            LOOSER,
            [("nll-k50", "2026-12-09", "removed"), ("nll-k50", "2026-12-10", "added")],
            ["STG-006", "STG-008"],
            "circular",
        ),
        (
            MORE,
            [("more-still", "2026-12-10", "added"), ("more-still", "2026-12-09", "changed")],
            ["STG-007"],
            "listed as they were made",
        ),
    ],
)
def test_amendments_that_do_not_hold(
    proposed: Repository, text: str, entries: list[tuple[str, str, str]], expected: list[str], says: str
) -> None:
    proposed.commit((YAML, amended(text, *entries)), date="2026-12-10T12:00:00+00:00")
    gate = proposed.gate()
    assert sorted(rules(gate)) == expected
    assert says in said(gate)


@pytest.mark.parametrize(
    ("day", "expected"),
    [("2026-11-18", ["STG-007"]), ("2026-11-19", []), ("2026-12-11", []), ("2026-12-12", ["STG-007"])],
)
def test_a_date_is_right_if_it_is_right_somewhere_on_earth(
    repository: Repository, day: str, expected: list[str]
) -> None:
    repository.commit((YAML, PROJECT), date="2026-11-20T11:00:00+00:00")  # still the 19th in Samoa
    repository.branch()
    text = amended(LOOSER, ("nll-k50", day, "changed"))
    repository.commit((YAML, text), date="2026-12-10T12:00:00+00:00")  # the 11th already on Kiritimati
    assert rules(repository.gate()) == expected


def test_a_claim_may_come_and_go(proposed: Repository) -> None:
    entries = [("more-still", "2026-12-08", "added"), ("more-still", "2026-12-10", "removed")]
    assert claims(proposed, amended(PROJECT, *entries)) == []


def test_each_change_needs_its_own_amendment(proposed: Repository) -> None:
    first = ("nll-k50", "2026-12-10", "changed")
    proposed.git("checkout", "--quiet", "main")
    proposed.commit((YAML, amended(LOOSER, first)), date="2026-12-10T12:00:00+00:00")
    proposed.git("checkout", "--quiet", "-B", "work")
    looser_still = LOOSER.replace("tolerance: 5", "tolerance: 50")
    assert [c[:7] for c in claims(proposed, amended(looser_still, first))] == ["STG-006"]
    second = ("nll-k50", "2026-12-11", "changed")
    assert claims(proposed, amended(looser_still, first, second), "2026-12-11T12:00:00+00:00") == []
    # and back to what it was at first: also a change
    assert [c[:7] for c in claims(proposed, amended(PROJECT, first), "2026-12-11T12:00:00+00:00")] == [
        "STG-006",
        "STG-008",
    ]
    assert claims(proposed, amended(PROJECT, first, second), "2026-12-11T12:00:00+00:00") == []


def test_amendments_stay(proposed: Repository) -> None:
    first = ("nll-k50", "2026-12-10", "changed")
    proposed.git("checkout", "--quiet", "main")
    proposed.commit((YAML, amended(LOOSER, first)), date="2026-12-10T12:00:00+00:00")
    proposed.git("checkout", "--quiet", "-B", "work")
    for text in (PROJECT, amended(LOOSER, ("nll-k50", "2026-12-09", "changed"))):
        proposed.commit((YAML, text))
        assert "STG-008" in rules(proposed.gate())
        assert "stays on record" in said(proposed.gate())


def test_a_project_proposed_again_starts_anew(proposed: Repository) -> None:
    proposed.git("checkout", "--quiet", "main")
    proposed.commit((YAML, None), date="2026-12-01T12:00:00+00:00")
    proposed.commit((YAML, LOOSER), date="2026-12-02T12:00:00+00:00")
    proposed.git("checkout", "--quiet", "-B", "work")
    assert claims(proposed, at("v1", LOOSER)) == []


@pytest.mark.parametrize(
    "text", ["", "- 1", "stage: v1\nclaims: 3\nteam: x\namendments: {a: 1}", "a: &a [*a]", "\x00", "{"]
)
def test_what_cannot_be_read_opens_nothing(proposed: Repository, text: str) -> None:
    proposed.commit((YAML, text))
    assert not proposed.gate().open


# -- the command ------------------------------------------------------------------------------------------------------


def event_file(repository: Repository, tmp_path: Path, login: str = "ada") -> str:
    path = tmp_path / "event.json"
    head = {"sha": repository.git("rev-parse", "HEAD"), "repo": {"pushed_at": "2025-12-20T12:00:00Z"}}
    path.write_text(json.dumps({"pull_request": {"head": head, "user": {"login": login}}}))
    return str(path)


@pytest.mark.parametrize("form", ["table", "json", "github", "markdown"])
def test_the_command(
    long_ago: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, form: str
) -> None:
    monkeypatch.chdir(long_ago.root)
    long_ago.commit((CODE, "x = 1\n"), (YAML, PROJECT + "# a | b ::error::\n"), date="2025-12-20T12:00:00+00:00")
    options = ["gate", "--base", "main", "--event", event_file(long_ago, tmp_path), "--format", form]
    assert main(options) == 0
    out = capsys.readouterr().out
    assert "edited at stage proposed, 2 files" in out
    assert main([*options, "--actor", "bo"]) == 1
    out = capsys.readouterr().out
    assert "STG-011" in out
    if form == "json":
        report = json.loads(out)
        assert report["open"] is False
        assert report["counts_from"] == "2025-12-20T12:00:00+00:00"
        assert report["changes"][0]["kind"] == "edit"
    if form == "github":
        assert f"\n::error file={YAML},line=1,title=STG-011::'bo' is not of the team (ada)" in out


def test_what_is_not_committed_is_said(long_ago: Repository, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(long_ago.root)
    assert main(["gate", "--base", "main", "--actor", "ada"]) == 0
    assert "not committed" not in capsys.readouterr().out
    for path, left in ((CODE, "1 file is"), (YAML, "2 files are")):
        long_ago.write(path, "x = 1\n")
        assert main(["gate", "--base", "main", "--actor", "ada"]) == 0
        assert f"The gate is open. {left} changed and not committed" in capsys.readouterr().out


def test_the_checks_of_a_new_stage_are_asked(
    long_ago: Repository, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(long_ago.root)
    long_ago.commit((YAML, at("v1")), date="2025-12-20T12:00:00+00:00")
    assert main(["gate", "--base", "main", "--actor", "ada"]) == 1
    out = capsys.readouterr().out
    assert "STG-014" in out
    assert "the checks of stage v1 find" in out.replace("\n    ", " ")
    assert "The gate is shut: 1 error" in out


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (["--base", "nowhere"], 2, "git knows no commit 'nowhere'"),
        (["--base=--output=x"], 2, "git knows no commit '--output=x'"),
        (["--base", "main", "--event", "none.json"], 2, "is missing"),
        (["--base", "main", "--actor", "a b"], 2, "is no handle"),
        ([], 2, "--base"),
    ],
)
def test_mistakes_of_the_caller(
    long_ago: Repository, monkeypatch: pytest.MonkeyPatch, capsys: Capture, options: list[str], status: int, says: str
) -> None:
    monkeypatch.chdir(long_ago.root)
    assert main(["gate", *options]) == status
    assert says in capsys.readouterr().err


def test_a_course_that_cannot_be_used(repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    repository.commit(("course.yaml", "name: [\n"))
    monkeypatch.chdir(repository.root)
    assert main(["gate", "--base", "main"]) == 1
    assert "CRS-002" in capsys.readouterr().err


def test_the_gate_keeps_when_a_commit_was_pushed(
    long_ago: Repository, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(long_ago.root)
    head = long_ago.commit((CODE, "x = 1\n"), date="2025-11-21T12:00:00+00:00")
    (private := long_ago.root.parent / "private").mkdir()
    pull = {"head": {"sha": head}, "user": {"login": "ada"}, "updated_at": "2025-12-24T12:00:00Z"}
    event = long_ago.root.parent / "event.json"
    event.write_text(json.dumps({"pull_request": pull}))
    given = ["gate", "--base", "main", "--event", str(event), "--private"]
    main([*given, str(private)])
    assert read_pushes(private) == {head: datetime(2025, 12, 24, 12, tzinfo=UTC)}
    assert "--private" not in capsys.readouterr().err
    assert main([*given, str(long_ago.root)]) == 2  # public
    assert "inside the repository" in capsys.readouterr().err
    assert main(["gate", "--base", "main", "--private", str(private)]) == 2  # no forge told anything
    assert "no --event tells it" in capsys.readouterr().err
    event.write_text(json.dumps({"pull_request": {**pull, "updated_at": "2999-01-01T12:00:00Z"}}))
    assert main([*given, str(private)]) == 2  # nor can that be
    assert read_pushes(private) == {head: datetime(2025, 12, 24, 12, tzinfo=UTC)}
