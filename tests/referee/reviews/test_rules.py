"""What reviews, responses and decisions must be beyond their form: each rule, what it passes and what it finds."""

import re
import shutil
from pathlib import Path

import pytest

from common.errors import UserError
from referee.checklist import CHECKLIST_FILE, Checklist, load_checklist
from referee.checks import Submission, every_check, run
from referee.checks.reviews import may_not_review, not_theirs
from referee.documents import DocumentError, parse_yaml
from referee.evidence import Snapshot, check_says, command_says, end_of_block
from referee.reviewing import score
from referee.reviews import Place, load_review, skeleton
from tests.referee.reviews.conftest import COURSE, Cohort

FIRST = "  - evidence: `projects/toy/toy.py:1` as it should be"
SHA = "a" * 64


def respond(cohort: Cohort, *pairs: tuple[str, str]) -> None:
    """Review the paper, fix F1 in a commit of its own, dispute F2, answer F3; everything in order but `pairs`."""
    reviewed = cohort.git("rev-parse", "HEAD")
    cohort.review("carol")
    cohort.commit("a review")
    lines = cohort.read("projects/toy/toy.py").split("\n")
    lines[30] = lines[30] + "  # the right sign"
    cohort.write("projects/toy/toy.py", "\n".join(lines))
    fix = cohort.commit("the right sign")
    text = f"""\
---
paper: toy
round: 1
commit: "{reviewed}"
---

## Answers

### carol/F1 · fixed

- commit: {fix}
- test: projects/toy/test_toy.py::test_right

The sign is right now.

### carol/F2 · disputed

No word is missing.

### carol/F3 · answered

Because.
"""
    cohort.write("reviews/toy/response.md", text)
    cohort.edit("reviews/toy/response.md", *pairs)
    cohort.commit("a response")


def decide(cohort: Cohort, *pairs: tuple[str, str]) -> None:
    """A decision in which nothing is wrong but `pairs`."""
    text = """\
---
paper: toy
editor: eve
round: 1
decision: accept
date: 2026-12-01
---

## Reasons

Good.

## Rulings

### carol/F2 · overruled

It is complete.

## Findings

### E1 · major · `projects/toy/toy.py:31`

- item: `faith-equations`
- same as: carol/F1

The sign.
"""
    cohort.write("reviews/toy/decision.md", text)
    cohort.edit("reviews/toy/decision.md", *pairs)


def test_nothing_is_wrong_with_what_is_right(cohort: Cohort) -> None:
    assert cohort.says("v1") == []
    cohort.review("carol")
    assert [f.rule for f in cohort.outcome("v1").findings] == []
    assert cohort.says("v2") == [
        ("REV-040", "is missing: 3 findings wait; 'referee respond toy' begins it.")  # the gate is shut
    ]
    respond(cohort)
    assert cohort.says("v2") == []
    assert [rule for rule, _ in cohort.says("published")] == ["REV-047"]
    decide(cohort)
    assert cohort.says("published") == []


Case = tuple[tuple[str, str], str, str]
REVIEWS: dict[str, Case] = {
    "something left to write": (("It works.", "WRITE: something"), "REV-016", "left to write: something"),
    "an empty field": (("minutes: 90", "minutes:"), "REV-016", "'minutes' is empty"),
    "an item missing": ((f"- [x] `faith-equations` text\n{FIRST}\n", ""), "REV-020", "`faith-equations` is missing"),
    "an item invented": (("`faith-equations`", "`faith-equation`"), "REV-020", "Did you mean 'faith-equations'"),
    "a bare tick": ((f"{FIRST}\n", ""), "REV-021", "without evidence"),
    "a tick and n/a": ((FIRST, f"{FIRST}\n  - n/a: no equations"), "REV-021", "at once"),
    "a tick in spite of a finding": ((FIRST, f"{FIRST}\n  - finding: F1"), "REV-021", "in spite of F1"),
    "neither tick nor reason": (("  - n/a: invented data\n", ""), "REV-022", "no tick, no finding and no reason"),
    "n/a without a reason": (("  - n/a: invented data", "  - n/a: -"), "REV-022", "without a reason"),
    "a line too far": (("toy.py:1`", "toy.py:4000`"), "REV-024", "lines at"),
    "a file that is not there": (("toy.py:1`", "tyo.py:1`"), "REV-024", "there is no"),
    "a folder's line": (("toy/toy.py:1`", "toy:1`"), "REV-024", "no text file"),
    "a cell that is not there": (("toy.ipynb#a1", "toy.ipynb#b2"), "REV-024", "no cell 'b2'"),
    "a finding that is not there": (("- finding: F2, F3", "- finding: F2, F3, F4"), "REV-026", "no finding F4"),
    "a finding that no item names": (("- finding: F2, F3", "- finding: F2"), "REV-026", "named by no item"),
    "accepted in spite of it": (("recommendation: major", "recommendation: accept"), "REV-028", "in spite of F1"),
    "rejected without reason": (("F1 · major", "F1 · minor"), "REV-028", "without a critical or major"),
    "a checklist to come": (("checklist: 1", "checklist: 2"), "REV-020", "none after 1; correct"),
    "another paper's": (("paper: toy", "paper: other"), "REV-013", "lies among the reviews of 'toy'"),
    "another reviewer's": (("reviewer: carol", "reviewer: dave"), "REV-013", "the file's name"),
    "a conflict declared": (("of_interest: none", "of_interest: my sister"), "REV-031", "declares a conflict"),
    "broken form": (("## Checklist", "## Check"), "REV-014", "missing"),
}


@pytest.mark.parametrize("case", REVIEWS.values(), ids=REVIEWS)
def test_reviews(cohort: Cohort, case: Case) -> None:
    pair, rule, says = case
    cohort.review("carol", pair)
    found = cohort.says()
    assert any(r == rule and says in m for r, m in found), found
    assert {r for r, _ in found} <= {rule, "REV-040", "REV-022", "REV-026"}, found  # and not much else


RESPONSES: dict[str, Case] = {
    "a finding passed over": (("### carol/F2 · disputed\n\nNo word is missing.\n", ""), "REV-040", "carol/F2 (minor)"),
    "an answer to nothing": (("carol/F3", "carol/F4"), "REV-040", "nobody has a finding carol/F4"),
    "no commit": (("- commit: ", "Commit "), "REV-041", "no commit is named"),
    "no test": (("- test: projects/toy/test_toy.py::test_right\n", ""), "REV-043", "names no test"),
    "a test that is not there": (("::test_right", "::test_wrong"), "REV-043", "no test 'projects/toy/test_toy.py"),
    "a class for a test": (("::test_right", "::TestMore"), "REV-043", "there is no test"),
    "a dispute without a word": (("No word is missing.\n", ""), "REV-044", "without a word"),
    "an answer that does nothing": (("F2 · disputed", "F2 · answered"), "REV-044", "no question"),
}


@pytest.mark.parametrize("case", RESPONSES.values(), ids=RESPONSES)
def test_responses(cohort: Cohort, case: Case) -> None:
    pair, rule, says = case
    respond(cohort, pair)
    found = cohort.says()
    assert any(r == rule and says in m for r, m in found), found


def test_a_fix_comes_after_the_review_and_touches_the_place(cohort: Cohort) -> None:
    respond(cohort)
    fix = cohort.git("rev-parse", "HEAD~1")
    response = "reviews/toy/response.md"

    def with_commit(commit: str, *pairs: tuple[str, str]) -> list[tuple[str, str]]:
        before = cohort.read(response)
        cohort.edit(response, (fix, commit), *pairs)
        found = cohort.says()
        cohort.write(response, before)
        return found

    reviewed = cohort.git("rev-parse", "HEAD~3")
    assert "does not come after" in with_commit(reviewed)[0][1]
    assert "no commit abcdef012345" in with_commit("abcdef0123456789")[0][1]
    assert with_commit(fix[:10]) == []
    cohort.write("README.md", "Something else.\n")
    elsewhere = cohort.commit("elsewhere")
    assert [rule for rule, _ in with_commit(elsewhere)] == ["REV-042"]
    why = ("- test:", "- elsewhere: the README was wrong, not the code\n- test:")
    assert with_commit(elsewhere, why) == []
    cohort.edit("projects/toy/toy.py", ("k: int = 1  # samples", "k: int = 1  # the samples"))
    far = cohort.commit("the same file, far away")
    assert with_commit(far) == []  # the place reads otherwise since the fix before it
    cohort.git("checkout", "-q", "-b", "aside", reviewed)
    cohort.edit("projects/toy/toy.py", ("def build", "# x\n# y\ndef build"))
    aside = cohort.commit("on another branch")
    cohort.git("checkout", "-q", "main")
    assert "not on this branch" in with_commit(aside)[0][1]


def test_a_change_far_away_in_the_same_file_is_no_fix(cohort: Cohort) -> None:
    reviewed = cohort.git("rev-parse", "HEAD")
    cohort.edit("projects/toy/toy.py", ('"""An invented paper."""', '"""Another paper."""'))
    far = cohort.commit("far away")
    respond(cohort)
    fix = cohort.git("rev-parse", "HEAD~1")
    for name in ("carol.md", "response.md"):
        cohort.edit(f"reviews/toy/{name}", (far, reviewed))
    assert cohort.says() == []
    cohort.edit("reviews/toy/response.md", (fix, far))
    assert [rule for rule, _ in cohort.says()] == ["REV-042"]


DEVIATIONS = """\
deviations:
- what: one
  why: >
    it is

    long
- what: two
note: other
"""


def test_a_place_that_begins_a_block_is_the_block(cohort: Cohort) -> None:
    """A finding about a list is met by an entry at its end, and one about an entry is not."""
    path = "projects/toy/notes.yaml"
    cohort.write(path, "# notes\ndeviations:\n" + "- what: one\n  why: none\n" * 8)
    before = Snapshot(cohort.root, cohort.commit())
    cohort.write(path, cohort.read(path) + "- what: two\n")
    after = Snapshot(cohort.root, cohort.commit())
    touched = [line for line in range(1, 19) if before.touched(Place(path, line, line), after)]
    assert touched == [2, 15, 16, 17, 18]  # the list, and lines within three of the end of their entry


@pytest.mark.parametrize(
    ("path", "text", "ends"),
    [
        ("a.yaml", DEVIATIONS, [7, 6, 6, 4, 5, 6, 7, 8]),
        ("a.py", "def f(\n    a,\n) -> int:\n    x = 1\n\n    return x\n\n\ny = 2\n", [6, 2, 6, 4, 5, 6, 7, 8, 9]),
        ("a.md", "# A\n## B\ntext\n## C\n# D\n", [4, 3, 3, 4, 6]),
    ],
)
def test_where_a_block_ends(path: str, text: str, ends: list[int]) -> None:
    lines = text.split("\n")
    assert [end_of_block(lines, n, path) for n in range(1, len(ends) + 1)] == ends


DECISIONS: dict[str, Case] = {
    "no editor": (("editor: eve", "editor: carol"), "REV-045", "no editor"),
    "an editor nobody knows": (("editor: eve", "editor: mallory"), "REV-045", "no editor"),
    "one of the team": (("editor: eve", "editor: team-a"), "REV-045", "of the team"),
    "no reasons": (("Good.\n", ""), "REV-045", "no reasons"),
    "a ruling on nothing": (("### carol/F2", "### carol/F1"), "REV-045", "not disputed"),
    "a ruling without a word": (("It is complete.\n", ""), "REV-045", "without a word"),
    "the same as nothing": (("same as: carol/F1", "same as: carol/F7"), "REV-046", "nobody found"),
    "upheld and not fixed": (("overruled", "upheld"), "REV-047", "was upheld"),
}


@pytest.mark.parametrize("case", DECISIONS.values(), ids=DECISIONS)
def test_decisions(cohort: Cohort, case: Case) -> None:
    pair, rule, says = case
    respond(cohort)
    decide(cohort, pair)
    found = cohort.says("published")
    assert any(r == rule and says in m for r, m in found), found


def test_what_is_upheld_is_fixed_before_it_is_accepted(cohort: Cohort) -> None:
    respond(cohort)
    assert cohort.says() == []
    decide(cohort, ("overruled", "upheld"))
    assert [rule for rule, _ in cohort.says()] == ["REV-048"]
    decide(cohort, ("### carol/F2 · overruled\n\nIt is complete.", "None."))
    assert [rule for rule, _ in cohort.says()] == ["REV-048"]
    decide(cohort, ("decision: accept", "decision: reject"), ("overruled", "upheld"))
    assert cohort.says() == []
    cohort.edit("projects/toy/README.md", ("\n", " more\n"))
    fix = cohort.commit("a word more")
    said = f"F2 · fixed\n\n- commit: {fix}\n- no test: words"
    cohort.edit("reviews/toy/response.md", ("F2 · disputed", said))
    cohort.commit("the response")
    decide(cohort, ("overruled", "upheld"))
    assert cohort.says() == cohort.says("published") == []


def test_the_editors_findings_are_owed_an_answer_when_it_goes_on(cohort: Cohort) -> None:
    respond(cohort)
    decide(cohort, ("decision: accept", "decision: revise"))
    assert ("REV-040", "eve/E1 (major) is not answered; write '### eve/E1 · fixed' or '### eve/E1 · disputed'.") in (
        cohort.says("v2")
    )


# -- Who may review ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handle", "rule"),
    [
        ("carol", None),
        ("CAROL", None),  # forges do not tell capitals from small letters
        ("bo", None),
        ("eve", None),
        ("team-a", "REV-032"),
        ("Team-A", "REV-032"),
        ("dave", "REV-031"),
        ("frida", "REV-030"),
        ("mallory", "REV-030"),
        ("caro1", "REV-035"),
        ("teama", "REV-035"),
    ],
)
def test_who_may_review(cohort: Cohort, handle: str, rule: str | None) -> None:
    said = list(may_not_review(Submission(cohort.project, "v1"), handle))
    assert [r for r, _ in said][:1] == ([rule] if rule else []), said


def test_reciprocal_pairs(cohort: Cohort) -> None:
    cohort.edit("course.yaml", ("team-a, roles: [developer]", "team-a, roles: [developer, reviewer]"))
    assert not list(may_not_review(Submission(cohort.project, "v1"), "bo"))
    cohort.write("reviews/other/team-a.md", "whatever stands in it")
    said = list(may_not_review(Submission(cohort.project, "v1"), "bo"))
    assert [rule for rule, _ in said] == ["REV-033"]
    cohort.review("bo")
    assert "REV-033" in {rule for rule, _ in cohort.says()}
    assert not list(may_not_review(Submission(cohort.project, "v1"), "carol"))


def assign(cohort: Cohort, reviewers: str) -> None:
    cohort.write("reviews/assignment.yaml", f"seed: 1\ninputs: '{'0' * 64}'\nreviewers: {reviewers}\n")


def test_nobody_keeps_an_assigned_reviewer_away(cohort: Cohort) -> None:
    cohort.edit("course.yaml", ("team-a, roles: [developer]", "team-a, roles: [developer, reviewer]"))
    cohort.write("reviews/other/team-a.md", "whatever stands in it")  # an additional review of what is bo's
    assign(cohort, "{toy: [bo], other: [carol]}")
    assert not list(may_not_review(Submission(cohort.project, "v1"), "bo"))
    assign(cohort, "{toy: [carol], other: [team-a]}")  # not written yet, but to be
    (cohort.root / "reviews/other/team-a.md").unlink()
    assert [rule for rule, _ in may_not_review(Submission(cohort.project, "v1"), "bo")] == ["REV-033"]


def test_reviews_that_count_are_by_those_assigned(cohort: Cohort) -> None:
    def found(rule: str) -> list[str]:
        outcome = run(Submission(cohort.project, "v2"), only=[rule])
        return [f"{f.severity} {f.file.rpartition('/')[2]}: {f.message}" for f in outcome.findings]

    cohort.review("carol")
    cohort.review("bo")
    assert found("REV-036") == found("STG-004") == []  # nothing is assigned
    assign(cohort, "{toy: [Carol, dave]}")
    (said,) = found("REV-036")
    assert said.startswith("warning bo.md: 'bo' is not assigned to 'toy' (reviews/assignment.yaml: Carol, dave)")
    (said,) = found("STG-004")
    assert "there is 1 by those assigned (Carol, dave), and 1 more that does not count" in said
    assign(cohort, "{toy: [Carol, bo]}")
    assert found("REV-036") == found("STG-004") == []


def test_look_alikes_beside_each_other(cohort: Cohort) -> None:
    cohort.write("course.yaml", "name: rolling\n")  # nobody is listed
    cohort.review("carol")
    cohort.review("caro1")
    assert "REV-035" in {rule for rule, _ in cohort.says()}
    cohort.write("course.yaml", COURSE + "  - {handle: caro1, roles: [reviewer]}\n")  # the editor knows both
    assert "REV-035" not in {rule for rule, _ in cohort.says()}


@pytest.mark.parametrize(
    ("one", "other"),
    [("carol", "c\u0430rol"), ("carol", "\uff43\uff41\uff52\uff4f\uff4c"), ("carol", "caro1"), ("mary", "rnary")],
)
def test_skeletons(one: str, other: str) -> None:
    assert skeleton(one) == skeleton(other)
    assert skeleton("carol") != skeleton("karl")


def test_only_its_author_changes_a_file(cohort: Cohort) -> None:
    def refused(actor: str) -> list[str]:
        mine = ["carol.md", "response.md", "decision.md"]
        paths = [*(f"reviews/toy/{name}" for name in mine), "reviews/other/x.md", "projects/toy/toy.py"]
        return [p.name for p, _, _ in not_theirs(Submission(cohort.project, "v1"), paths, actor)]

    assert refused("carol") == ["response.md", "decision.md"]
    assert refused("Carol") == ["response.md", "decision.md"]
    assert refused("team-a") == ["carol.md", "decision.md"]
    assert refused("eve") == ["carol.md", "response.md"]
    assert refused("mallory") == ["carol.md", "response.md", "decision.md"]


def test_outside_git_nothing_is_asked_of_it(cohort: Cohort) -> None:
    shutil.rmtree(cohort.root / ".git")
    assert cohort.says("v1") == []
    cohort.review("carol", commit="0" * 40)
    assert "REV-029" in {rule for rule, _ in cohort.says()}


# -- Places and histories ----------------------------------------------------------------------------------------------


def test_history_that_was_edited(cohort: Cohort) -> None:
    cohort.write("projects/toy/notes.md", "x")
    gone = cohort.commit("to be edited away")
    cohort.git("reset", "-q", "--hard", "HEAD~1")
    cohort.review("carol", commit=gone)
    assert ("REV-029", f"the commit {gone[:10]} is not in this branch's history; review one that is.") in cohort.says()
    cohort.review("carol", commit="f" * 40)
    assert any(rule == "REV-029" and "git knows no commit" in message for rule, message in cohort.says())


def test_places_are_those_of_the_commit_and_not_of_the_files(cohort: Cohort) -> None:
    cohort.review("carol")
    cohort.write("projects/toy/toy.py", "")
    assert "REV-024" not in {rule for rule, _ in cohort.says()}


def test_links_are_not_followed(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "carol.md").write_text("secret")
    (cohort.root / "reviews").mkdir()
    (cohort.root / "reviews" / "toy").symlink_to(outside)
    assert [rule for rule, message in cohort.says() if "symbolic link" in message] == ["REV-013"]
    (cohort.root / "reviews" / "toy").unlink()
    (cohort.root / "reviews" / "toy").mkdir()
    (cohort.root / "reviews" / "toy" / "carol.md").symlink_to(outside / "carol.md")
    said = cohort.says()
    assert [rule for rule, message in said if "symbolic link" in message] == ["REV-001"]
    assert not any("secret" in message for _, message in said)
    (cohort.root / "projects" / "toy" / "link.py").symlink_to("/etc/passwd")
    commit = cohort.commit("a link")
    then = Snapshot.of(cohort.root, commit)
    assert then.kind("projects/toy/link.py") == "link"
    assert then.wrong(Place("projects/toy/link.py", 1, 1)) is not None


@pytest.mark.parametrize("name", ["cаrol.md", "carol.txt", "Response.md", "-rf.md", "carol .md", "\x1b[2J.md"])
def test_names_of_files(cohort: Cohort, name: str) -> None:
    cohort.write(f"reviews/toy/{name}", "---\n---\n")
    found = [f for f in cohort.outcome().findings if f.rule in ("REV-013", "REV-035")]
    assert [f.rule for f in found] == ["REV-013" if name.isascii() else "REV-035"]
    assert all(f.file.isascii() and f.file.isprintable() for f in found)


@pytest.mark.parametrize(
    "command",
    ["make test", "referee run toy --preset smoke", "referee probe toy; id", "referee check toy --document",
     "referee check $(id)", "referee check ../toy", "referee", "referee probe 'toy", "sh -c 'referee check toy'"],
)  # fmt: skip
def test_no_other_command_is_run(cohort: Cohort, command: str) -> None:
    with pytest.raises(UserError):
        command_says(cohort.root, command)


def test_checks_of_reviews_are_no_evidence(cohort: Cohort) -> None:
    with pytest.raises(UserError, match="no evidence"):
        check_says(cohort.project, "v1", ["REV-025"], code=True)  # it would call itself
    with pytest.raises(UserError, match="there is no check"):
        check_says(cohort.project, "v1", ["NB-999"])


def test_outputs_are_made_again(cohort: Cohort) -> None:
    """A cited check is run again at the reviewed commit, whatever the files say now."""
    said = check_says(cohort.project, "v1", ["LAY-004"])
    assert said.good
    line = f"  - evidence: `check LAY-004` `sha256:{said.digest}`"
    cohort.review("carol", (FIRST, line))
    cohort.write("projects/toy/toy.py", "def (")
    assert "REV-025" not in {rule for rule, _ in cohort.says(code=True)}
    cohort.review("carol", (FIRST, line.replace(said.digest, SHA)))
    assert any(rule == "REV-025" and said.digest in message for rule, message in cohort.says(code=True))
    cohort.review("carol", (FIRST, f"  - evidence: `check NB-001` `sha256:{SHA}`"))
    assert any(rule == "REV-025" and "no evidence for a tick" in message for rule, message in cohort.says(code=True))


# -- The checklist -----------------------------------------------------------------------------------------------------


def test_the_checklist() -> None:
    checklist = load_checklist()
    assert len(checklist.groups) == 11
    assert len(checklist.items) == 27
    assert set(checklist.items) - set(checklist.for_family("gan")) == {"lik-kind", "lik-dequantisation", "lik-probes"}
    assert len(checklist.for_family("a-family-nobody-knows")) == 27
    assert checklist.items["faith-equations"].text in CHECKLIST_FILE.read_text(encoding="utf-8")


@pytest.fixture
def grown(monkeypatch: pytest.MonkeyPatch) -> Checklist:
    """A second version: one item more, and one that is not asked any more."""
    text = CHECKLIST_FILE.read_text(encoding="utf-8").replace("version: 1\n", "version: 2\n", 1)
    first, second = "      - id: faith-equations\n", "      - id: faith-architecture\n"
    text = text.replace(first, f"{first}        until: 1\n").replace(second, f"{second}        since: 2\n")
    checklist = parse_yaml(text, Checklist, rules="CHK", shown="checklist.yaml")
    monkeypatch.setattr("referee.checklist.load_checklist", lambda: checklist)
    monkeypatch.setattr("referee.reviewing.load_checklist", lambda: checklist)
    return checklist


def test_a_review_is_judged_by_the_version_that_it_answers(cohort: Cohort, grown: Checklist) -> None:
    old = grown.for_family("vae", 1)
    assert len(old) == 26
    assert grown.for_family("vae").keys() ^ old.keys() == {"faith-equations", "faith-architecture"}

    def missing() -> set[str]:
        return {re.findall("`(.*?)`", message)[0] for rule, message in cohort.says() if rule == "REV-020"}

    item = f"- [x] `faith-equations` text\n{FIRST}\n"
    later = "- [ ] `faith-architecture` text\n  - finding: F1\n"
    other = ("- finding: F2, F3", "- finding: F1, F2, F3")  # where F1 goes when its item is left out
    for version, gone, lacks in (
        (1, (), set()),  # an answer to what came later is no mistake
        (1, ((later, ""), other), set()),
        (1, ((item, ""),), {"faith-equations"}),
        (2, ((item, ""),), set()),
        (2, ((later, ""), other), {"faith-architecture"}),
    ):
        path = cohort.review("carol", ("checklist: 1", f"checklist: {version}"), *gone)
        assert missing() == lacks, (version, gone)
        s = score(load_review(cohort.root / path, path), None, None, "vae")
        assert (s.answered, s.asked) == (26 - len(lacks), 26), (version, gone)


def test_a_review_answers_no_older_checklist_than_the_reviewed_commit_has(cohort: Cohort, grown: Checklist) -> None:
    early = cohort.git("rev-parse", "HEAD")
    cohort.write("referee/checklist.yaml", "version: 2\n")
    late = cohort.commit("a new checklist")
    cohort.review("carol", commit=early)
    assert "REV-020" not in {rule for rule, _ in cohort.says()}
    cohort.review("carol", commit=late)
    assert any(r == "REV-020" and "the reviewed commit holds version 2" in m for r, m in cohort.says())


@pytest.mark.parametrize("versions", ["since: 2", "until: 2", "since: 1\n        until: 0"])
def test_items_are_asked_in_versions_that_there_are(
    versions: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = "      - id: faith-equations\n"
    file = tmp_path / "checklist.yaml"
    file.write_text(CHECKLIST_FILE.read_text(encoding="utf-8").replace(first, f"{first}        {versions}\n"))
    monkeypatch.setattr("referee.checklist.CHECKLIST_FILE", file)
    with pytest.raises(DocumentError, match="CHK-0"):
        load_checklist.__wrapped__()


def test_machines_answer_with_checks_that_exist() -> None:
    known = every_check()
    for item in load_checklist().items.values():
        assert (item.first == "machine") == bool(item.checks or item.probes), item.id
        for rule in item.checks:
            assert rule in known, f"{item.id} names {rule}"
            assert not rule.startswith(("REV", "STG", "CRS"))
