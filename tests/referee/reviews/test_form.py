"""What stands in reviews, responses and decisions is read; what has not the form is refused by rule and line."""

import json
import time
from collections.abc import Callable

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from referee.documents import DocumentError
from referee.reviews import (
    Place,
    json_schemas,
    parse_decision,
    parse_place,
    parse_response,
    parse_review,
)
from tests.referee.reviews.conftest import good_review

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVIEW = good_review("carol", COMMIT)

RESPONSE = f"""\
---
paper: toy
round: 1
commit: "{COMMIT}"
---

## Answers

### carol/F1 · fixed

> major: the step is wrong

- commit: abcdef1
- test: projects/toy/test_toy.py::test_right

It has the right sign now.

### carol/F2 · disputed

No word is missing.
"""

DECISION = """\
---
paper: toy
editor: eve
round: 1
decision: revise
date: 2026-12-01
---

## Reasons

Good work, one mistake.

## Rulings

### carol/F2 · overruled

It is complete.

## Findings

### E1 · critical · `projects/toy/toy.py:30`

- item: `faith-equations`
- same as: carol/F1

The step.

### E2 · minor · `projects/toy/toy.py`

- same as: none

A name.
"""

Parse = Callable[[str, str], object]


def test_a_review() -> None:
    review = parse_review(REVIEW, "carol.md")
    assert (review.reviewer, review.head.commit, review.head.minutes) == ("carol", COMMIT, 90)
    assert len(review.answers) == 27
    answer = review.answers["faith-equations"]
    assert answer.ticked
    assert answer.evidence[0].place == Place("projects/toy/toy.py", 1, 1)
    assert answer.evidence[0].remark == "as it should be"
    assert review.answers["data-source"].not_applicable == "invented data"
    assert list(review.findings) == ["F1", "F2", "F3"]  # what stands in a code block is no finding
    assert review.findings["F1"].severity == "major"
    assert review.findings["F1"].places == (Place("projects/toy/toy.py", 30, 32),)
    assert review.findings["F1"].text == "The step is wrong: it has another sign."
    assert review.findings["F2"].items == ("faith-deviations",)  # as the checklist says
    assert review.findings["F3"].places == (Place("projects/toy/toy.ipynb", cell="a1"),)
    assert REVIEW.split("\n")[review.findings["F1"].line - 1].startswith("### F1")


def test_a_response() -> None:
    response = parse_response(RESPONSE, "response.md")
    first, second = response.replies.values()
    assert (first.key, first.kind, first.commit) == ("carol/F1", "fixed", "abcdef1")
    assert first.tests == ("projects/toy/test_toy.py::test_right",)
    assert first.text == "It has the right sign now."  # without the quotation
    assert (second.kind, second.text) == ("disputed", "No word is missing.")


def test_a_decision() -> None:
    decision = parse_decision(DECISION, "decision.md")
    assert decision.head.decision == "revise"
    assert decision.rulings["carol/F2"].verdict == "overruled"
    assert decision.findings["E1"].same_as == ("carol/F1",)
    assert decision.findings["E1"].items == ("faith-equations",)
    assert decision.findings["E2"].same_as == ()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a/b.py", Place("a/b.py")),
        ("a/b.py:3", Place("a/b.py", 3, 3)),
        ("a/b.py:3-9", Place("a/b.py", 3, 9)),
        ("a/b.ipynb#12", Place("a/b.ipynb", cell="12")),
        (".github/workflows/ci.yml:3", Place(".github/workflows/ci.yml", 3, 3)),
        ("../b.py:3", None),
        ("/etc/passwd:1", None),
        ("a/./b.py", None),
        ("a//b.py", None),
        (".git/config", None),
        ("a/.git/config", None),
        ("--output=x", None),
        ("a/b.py:0", None),
        ("a/b.py:9-3", None),
        ("a/b.py#2", None),
        ("a/b.py:1:2", None),
        ("HEAD:a/b.py", None),
        ("a b.py", None),
        ("a/$(id).py", None),
        ("а/b.py", None),  # a Cyrillic letter
        ("", None),
        ("a" * 400, None),
    ],
)
def test_places(text: str, place: Place | None) -> None:
    assert parse_place(text) == place
    assert place is None or str(place) == text


SHA = "a" * 64
FIRST = "  - evidence: `projects/toy/toy.py:1` as it should be"
F1 = "### F1 · major · `projects/toy/toy.py:30-32`"
F1_ANSWER = "### carol/F1 · fixed"

# What is done to a right file; the rule that must refuse it; what the message says.
REVIEWS: dict[str, tuple[str, str, str, str]] = {
    "no front matter": ("---\nreviewer", "reviewer", "REV-002", "does not begin with"),
    "front matter without end": (
        "recommendation: major\n---",
        "recommendation: major",
        "REV-002",
        "missing after them",
    ),
    "not yaml": ("round: 1", "round: [1", "REV-002", "not YAML"),
    "an anchor": ("round: 1", "round: &a 1", "REV-003", "anchor"),
    "a tag": ("round: 1", "round: !!python/name:os.system 1", "REV-003", "tag"),
    "a bomb": ("round: 1", "round: " + "[" * 50_000, "REV-003", "deep"),
    "a field twice": ("round: 1", "round: 1\nround: 2", "REV-004", "stands twice"),
    "a field mistyped": ("minutes: 90", "minuets: 90", "REV-005", "Did you mean 'minutes'"),
    "a field missing": ("ai_use: none\n", "", "REV-006", "'ai_use' is missing"),
    "a handle that is a path": ("reviewer: carol", "reviewer: ../../etc", "REV-007", "public handle"),
    "a look-alike handle": ("reviewer: carol", "reviewer: cаrol", "REV-007", "public handle"),
    "a commit that is a branch": (f'"{COMMIT}"', "main", "REV-007", "40 hexadecimal"),
    "a commit that is an option": (f'"{COMMIT}"', '"--upload-pack=touch x"', "REV-007", "40 hexadecimal"),
    "a number as commit": (f'"{COMMIT}"', "1" * 40, "REV-007", "put it in quotes"),
    "negative minutes": ("minutes: 90", "minutes: -1", "REV-007", "greater than"),
    "a recommendation of one's own": ("recommendation: major", "recommendation: great", "REV-007", "accept, minor"),
    "a path as paper": ("paper: toy", "paper: ../toy", "REV-007", "project's name"),
    "an escape in the fields": ("hardware: a laptop", 'hardware: "\\e[2J"', "REV-012", "U+001B"),
    "text that reads backwards": ("It works.", "It \u202eworks.", "REV-012", "U+202E"),
    "text nobody sees": ("It works.", "It works.\u200b", "REV-012", "U+200B"),
    "an item twice": (FIRST, f"{FIRST}\n- [x] `faith-equations` x\n{FIRST}", "REV-010", "stands twice"),
    "a finding twice": (F1, f"{F1}\n\nText.\n\n{F1}", "REV-010", "stands twice"),
    "an unknown section": ("## Summary", "## Sumary", "REV-014", "Did you mean 'Summary'"),
    "a section twice": ("## Findings", "## Summary\n\n## Findings", "REV-014", "stands twice"),
    "no findings section": ("## Findings", "### Findings", "REV-014", "'## Findings' is missing"),
    "text in the checklist": (FIRST, f"{FIRST}\nAll fine.", "REV-014", "no place in the checklist"),
    "an unknown entry": (FIRST, FIRST.replace("evidence", "evidense"), "REV-014", "Did you mean 'evidence'"),
    "a finding's id that is none": ("- finding: F1", "- finding: the first", "REV-014", "no finding's id"),
    "a heading that is no finding": (F1, "### Something · major · `a.py`", "REV-014", "no finding's head"),
    "the editor's letter": (F1, F1.replace("F1", "E1"), "REV-014", "no finding's head"),
    "code without end": ("```\n\nA word", "\nA word", "REV-014", "no end"),
    "a very long line": ("It works.", "x" * 5000, "REV-014", "break it"),
    "a script": ("It works.", "<script>alert(1)</script>", "REV-015", "HTML"),
    "a hidden comment": ("It works.", "It works. <!-- no -->", "REV-015", "HTML"),
    "a link that acts": ("It works.", "[It](javascript:alert(1)) works.", "REV-015", "javascript"),
    "a reference that acts": ("It works.", "[it]: data:text/html,x", "REV-015", "data"),
    "more places than anybody looks at": (
        FIRST,
        FIRST + "\n  - evidence: `a.py:1`" * 1001,
        "REV-014",
        "more than 1000",
    ),
    "evidence of nothing": (FIRST, "  - evidence: I looked", "REV-023", "in backticks"),
    "evidence outside": (FIRST, "  - evidence: `../../etc/passwd:1`", "REV-023", "no place"),
    "evidence as a command of the shell": (FIRST, "  - evidence: `toy.py:1; rm -rf /`", "REV-023", "no place"),
    "a probe without digest": (FIRST, "  - evidence: `probe bound`", "REV-023", "digest"),
    "a check with a short digest": (FIRST, "  - evidence: `check NB-001` `sha256:abc`", "REV-023", "digest"),
    "a check that is none": (FIRST, f"  - evidence: `check everything` `sha256:{SHA}`", "REV-023", "does not name"),
    "a severity of one's own": (F1, F1.replace("major", "huge"), "REV-027", "no severity"),
    "a finding without place": (F1, "### F1 · major", "REV-027", "no place"),
    "a finding without text": ("The step is wrong: it has another sign.", "", "REV-027", "no text"),
}
RESPONSES: dict[str, tuple[str, str, str, str]] = {
    "a date for a commit": ("- commit: abcdef1", "- commit: yesterday", "REV-014", "no commit id"),
    "an option for a commit": ("- commit: abcdef1", "- commit: --output=x", "REV-014", "no commit id"),
    "two commits": ("- commit: abcdef1", "- commit: abcdef1\n- commit: abcdef2", "REV-010", "second commit"),
    "a test that is none": ("::test_right", "", "REV-014", "no test"),
    "a test outside": ("projects/toy/test_toy.py", "../test_toy.py", "REV-014", "no test"),
    "an answer of one's own": (F1_ANSWER, "### carol/F1 · wontfix", "REV-014", "none of fixed"),
    "an answer to nobody": (F1_ANSWER, "### F1 · fixed", "REV-014", "finding's name"),
    "an answer twice": ("### carol/F2 · disputed", F1_ANSWER, "REV-010", "stands twice"),
    "an entry mistyped": ("- commit: abcdef1", "- comit: abcdef1", "REV-014", "Did you mean 'commit'"),
    "more tests than anybody runs": ("- test: ", "- test: a.py::b\n" * 21 + "- test: ", "REV-014", "more than 20"),
    "no answers": ("## Answers", "## Summary", "REV-014", "'## Answers' is missing"),
}
DECISIONS: dict[str, tuple[str, str, str, str]] = {
    "a date that is none": ("date: 2026-12-01", "date: 2026-13-01", "REV-007", "date"),
    "a date as a number": ("date: 2026-12-01", "date: 20261201", "REV-011", "like 2026-12-01"),
    "a decision of one's own": ("decision: revise", "decision: maybe", "REV-007", "accept, revise, reject"),
    "a ruling of one's own": ("carol/F2 · overruled", "carol/F2 · perhaps", "REV-014", "none of upheld"),
    "the same as nothing": ("same as: carol/F1", "same as: carol", "REV-014", "names no finding"),
    "no reasons": ("## Reasons", "## Summary", "REV-014", "'## Reasons' is missing"),
}


@pytest.mark.parametrize(
    ("parse", "right", "case"),
    [
        *(pytest.param(parse_review, REVIEW, case, id=f"review: {name}") for name, case in REVIEWS.items()),
        *(pytest.param(parse_response, RESPONSE, case, id=f"response: {name}") for name, case in RESPONSES.items()),
        *(pytest.param(parse_decision, DECISION, case, id=f"decision: {name}") for name, case in DECISIONS.items()),
    ],
)
def test_hostile(parse: Parse, right: str, case: tuple[str, str, str, str]) -> None:
    old, new, rule, says = case
    assert old in right
    text = right.replace(old, new, 1)
    start = time.process_time()
    with pytest.raises(DocumentError) as caught:
        parse(text, "it.md")
    assert time.process_time() - start < 5  # not a measurement: bounded
    problems = caught.value.problems
    assert any(p.rule == rule and says in p.message for p in problems), [str(p) for p in problems]
    lines = text.split("\n")
    assert all(1 <= p.line <= len(lines) for p in problems)


def test_lines_are_those_of_the_file() -> None:
    text = REVIEW.replace(FIRST, "  - evidence: I looked", 1).replace("minutes: 90", "minutes: 90", 1)
    with pytest.raises(DocumentError) as caught:
        parse_review(text, "it.md")
    (problem,) = caught.value.problems
    assert text.split("\n")[problem.line - 1] == "  - evidence: I looked"


def test_all_problems_at_once() -> None:
    text = REVIEW.replace(FIRST, "  - evidence: I looked").replace(F1, F1.replace("major", "huge"))
    with pytest.raises(DocumentError) as caught:
        parse_review(text, "it.md")
    assert len(caught.value.problems) > 20


def test_a_great_deal_of_anything_is_refused_or_read_in_time() -> None:
    start = time.process_time()
    for filler in (
        "`" * 100_000,
        "- [x] `a` b\n" * 10_000,
        "### F1 · major · `a`\n" * 5_000,
        "[" * 100_000,
        "> " * 50_000,
    ):
        try:
            parse_review(
                REVIEW.replace("It works.", filler).replace("## Findings\n", f"## Findings\n{filler}\n"), "it.md"
            )
        except DocumentError as error:
            assert error.problems  # noqa: PT017
    assert time.process_time() - start < 20  # not a measurement


@settings(max_examples=30, deadline=None)
@given(st.integers(0, len(REVIEW)), st.integers(0, 40), st.text(max_size=30))
def test_any_change_is_read_or_refused(at: int, length: int, new: str) -> None:
    for parse, right in ((parse_review, REVIEW), (parse_response, RESPONSE), (parse_decision, DECISION)):
        text = right[:at] + new + right[at + length :]
        try:
            parse(text, "it.md")
        except DocumentError as error:
            if not all(p.rule.startswith("REV-0") and p.line >= 1 for p in error.problems):
                raise AssertionError(error.problems) from error


def test_the_json_schemas_are_in_step() -> None:
    for path, text in json_schemas().items():
        assert path.read_text(encoding="utf-8") == text, "run: python -m referee.reviews"
        jsonschema.Draft202012Validator.check_schema(json.loads(text))


def test_findings_are_bounded() -> None:
    many = "".join(f"\n### F{n} · minor · `a.py:1`\n\nText.\n" for n in range(4, 310))
    with pytest.raises(DocumentError, match="more than 300 findings"):
        parse_review(REVIEW + many, "it.md")
