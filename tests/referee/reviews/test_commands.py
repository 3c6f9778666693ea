"""The commands as people use them: what they begin can be read, is kept, and lacks only what a person has to write."""

import json
from pathlib import Path

import pytest

from referee.cli import main
from referee.reviewing import score
from referee.reviews import MARKER, Finding, load_reviews, match, parse_decision, parse_place, parse_review
from tests.referee.reviews.conftest import Cohort, filled, good_review
from tests.referee.reviews.test_rules import decide, respond

TEMPLATES = Path(__file__).parents[3] / "templates"


def test_a_review_is_begun(cohort: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    head = cohort.git("rev-parse", "HEAD")
    assert main(["review", "start", "toy", "--as", "carol", "--no-probes"]) == 0
    assert "27 items for the family 'vae'" in capsys.readouterr().out
    text = cohort.read("reviews/toy/carol.md")
    review = load_reviews(cohort.project).reviews["carol"]
    assert review.head.commit == head
    assert len(review.answers) == 27
    done = [a for a in review.answers.values() if a.ticked]
    assert done
    assert all(e.kind == "check" for a in done for e in a.evidence)
    # It fails on what is left to write, and on nothing else.
    assert main(["review", "check", "toy", "--format", "json"]) == 1
    findings = json.loads(capsys.readouterr().out)["papers"][0]["findings"]
    lines = text.split("\n")
    assert {f["rule"] for f in findings} == {"REV-016"}
    assert all(MARKER in lines[f["line"] - 1] or "is empty" in f["message"] for f in findings)
    # Filled in, nothing is wrong, and what the machine said comes out again.
    cohort.write("reviews/toy/carol.md", filled(text))
    assert main(["review", "check", "toy", "--run"]) == 0
    capsys.readouterr()


def test_who_was_not_assigned_is_told(cohort: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    cohort.write("reviews/assignment.yaml", f"seed: 1\ninputs: '{'0' * 64}'\nreviewers: {{toy: [carol]}}\n")
    for handle, told in (("carol", False), ("bo", True)):
        assert main(["review", "start", "toy", "--as", handle, "--no-probes"]) == 0
        assert ("an additional review" in capsys.readouterr().out) == told


def test_nothing_is_overwritten(cohort: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    for command, name in (
        (["review", "start", "toy", "--as", "carol", "--no-probes"], "carol.md"),
        (["respond", "toy"], "response.md"),
        (["decide", "toy", "--as", "eve"], "decision.md"),
    ):
        path = cohort.write(f"reviews/toy/{name}", "my work")
        assert main(command) == 1
        assert "is there already and is kept" in capsys.readouterr().err
        assert path.read_text() == "my work"
        path.unlink()
        path.symlink_to("nowhere")
        assert main(command) == 1
        assert not (cohort.root / "reviews/toy/nowhere").exists()
        path.unlink()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("handle", "says", "status"),
    [
        ("team-a", "REV-032", 1),
        ("dave", "REV-031", 1),
        ("mallory", "REV-030", 1),
        ("caro1", "REV-035", 1),
        ("cаrol", "REV-035", 2),
        ("../../x", "no public handle", 2),
        ("response", "no public handle", 2),
    ],
)
def test_who_may_begin_a_review(
    cohort: Cohort, capsys: pytest.CaptureFixture[str], handle: str, says: str, status: int
) -> None:
    assert main(["review", "start", "toy", "--as", handle, "--no-probes"]) == status
    assert says in capsys.readouterr().err
    assert not (cohort.root / "reviews").exists()


def test_a_review_is_of_a_commit(cohort: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    first = cohort.git("rev-parse", "HEAD")
    cohort.edit("projects/toy/project.yaml", ("stage: v1", "stage: v1  # now"))
    assert main(["review", "start", "toy", "--as", "carol", "--no-probes"]) == 1
    assert "not committed" in capsys.readouterr().err
    assert main(["review", "start", "toy", "--as", "carol", "--no-probes", "--commit", first[:12]]) == 0
    assert load_reviews(cohort.project).reviews["carol"].head.commit == first
    for name in ("0" * 12, "main", "--help"):
        assert main(["review", "start", "toy", "--as", "bo", "--no-probes", f"--commit={name}"]) == 2
    capsys.readouterr()


def test_a_response_is_begun(cohort: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["respond", "toy"]) == 1
    assert "nobody has reviewed" in capsys.readouterr().err
    cohort.review("carol")
    cohort.review("bo")
    cohort.commit("reviews")
    assert main(["respond", "toy"]) == 0
    response = load_reviews(cohort.project).response
    assert response is not None
    assert sorted(response.replies) == [f"{who}/F{n}" for who in ("bo", "carol") for n in (1, 2, 3)]
    assert all(reply.kind is None for reply in response.replies.values())
    capsys.readouterr()
    assert main(["review", "check", "toy", "--format", "json"]) == 1
    findings = json.loads(capsys.readouterr().out)["papers"][0]["findings"]
    assert {f["rule"] for f in findings} == {"REV-016"}


def test_a_decision_is_begun(cohort: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    respond(cohort)
    for handle in ("carol", "team-a", "mallory"):
        assert main(["decide", "toy", "--as", handle]) == 1
        assert "REV-045" in capsys.readouterr().err
    assert main(["decide", "toy", "--as", "eve"]) == 0
    decision = load_reviews(cohort.project).decision
    assert decision is not None
    assert list(decision.rulings) == ["carol/F2"]
    text = cohort.read("reviews/toy/decision.md")
    assert "carol recommends major (90 minutes)" in text
    assert "| carol/F2 | minor | `projects/toy/README.md` | disputed |" in text
    capsys.readouterr()
    assert main(["review", "check", "toy", "--format", "json"]) == 1
    findings = json.loads(capsys.readouterr().out)["papers"][0]["findings"]
    assert {f["rule"] for f in findings} == {"REV-016"}


@pytest.mark.parametrize("form", ["table", "github", "markdown"])
def test_what_is_looked_at_is_said(cohort: Cohort, capsys: pytest.CaptureFixture[str], form: str) -> None:
    """The paper is at v1: that its reviews are held to the rules of v2 is no matter of its reader's."""
    cohort.review("carol")
    assert main(["review", "check", "toy", "--format", form]) == 0
    out = capsys.readouterr().out
    assert "reviews, response and decision" in out
    assert "v2" not in out


def test_an_acceptance_over_what_is_upheld_is_refused(cohort: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    respond(cohort)
    decide(cohort)
    assert main(["review", "check", "toy"]) == 0
    decide(cohort, ("overruled", "upheld"))
    capsys.readouterr()
    assert main(["review", "check", "toy"]) == 1
    assert "carol/F2 is upheld and not fixed: decide 'revise'" in capsys.readouterr().out.replace("\n    ", " ")


def test_a_review_that_is_out_of_order_stops_at_its_own_gate(
    cohort: Cohort, capsys: pytest.CaptureFixture[str]
) -> None:
    """Merged, it would stop the team's next version, and the team may not mend it: it is told whom to ask."""

    def gate(actor: str) -> tuple[int, str]:
        status = main(["gate", "--base", "main", "--actor", actor])
        return status, " ".join(capsys.readouterr().out.split())

    evidence = "  - evidence: `projects/toy/toy.py:1` as it should be"
    cohort.git("checkout", "-q", "-b", "work")
    cohort.review("carol", (evidence, f"{evidence}\n  - n/a: no equations"))
    cohort.commit("a review")
    status, out = gate("carol")
    assert status == 1
    assert "REV-021 reviews/toy/carol.md:22 `faith-equations` is ticked and n/a at once" in out
    cohort.edit("reviews/toy/carol.md", ("\n  - n/a: no equations", ""))
    cohort.commit("in order")
    assert gate("carol")[0] == 0
    cohort.edit("reviews/toy/carol.md", (evidence, "  - note: nothing"))
    cohort.commit("out of order")
    cohort.git("checkout", "-q", "-B", "main")
    cohort.review("bo", (evidence, f"{evidence}\n  - n/a: no equations"))
    cohort.commit("merged all the same")
    cohort.git("checkout", "-q", "-b", "v2")
    cohort.edit("projects/toy/project.yaml", ("stage: v1", "stage: v2"))
    cohort.commit("version 2")
    status, out = gate("team-a")
    assert status == 1
    assert "Not yours to change: reviews/toy/bo.md, reviews/toy/carol.md; ask bo, carol." in out


def test_who_changed_what(cohort: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    cohort.review("carol")
    cohort.commit("carol's review")
    base = cohort.git("rev-parse", "HEAD")
    cohort.edit("reviews/toy/carol.md", ("The step is wrong", "The step is fine"))
    cohort.commit("softened")
    command = ["review", "check", "toy", "--changed", base, "--actor"]
    assert main([*command, "carol"]) == 0
    capsys.readouterr()
    assert main([*command, "team-a"]) == 1
    assert "REV-034" in capsys.readouterr().out
    assert main([*command[:-1]]) == 2
    capsys.readouterr()


def test_evidence_for_a_line(cohort: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["review", "evidence", "toy", "check LAY-002"]) == 0
    line = capsys.readouterr().out.rstrip("\n")
    text = good_review("carol", cohort.git("rev-parse", "HEAD"))
    text = text.replace("  - evidence: `projects/toy/toy.py:1` as it should be", line, 1)
    evidence = parse_review(text, "it").answers["faith-equations"].evidence[0]
    assert (evidence.kind, evidence.subject) == ("check", "LAY-002")
    for what in ("LAY-002", "check", "rm -rf /"):
        assert main(["review", "evidence", "toy", what]) == 2
    assert main(["review", "evidence", "toy", "check NB-999"]) == 1
    capsys.readouterr()


def test_evidence_of_a_command(cohort: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    """It is run on what is committed, nothing of it stays, and its digest is the same however long it took."""

    def cited(code: str) -> str:
        cohort.write("say.py", code)
        cohort.commit()
        cohort.write("say.py", "broken(")  # not committed
        assert main(["review", "evidence", "toy", "command python say.py"]) == 0
        line = capsys.readouterr().out.rstrip("\n")
        text = good_review("carol", cohort.git("rev-parse", "HEAD"))
        text = text.replace("  - evidence: `projects/toy/toy.py:1` as it should be", line, 1)
        (evidence,) = parse_review(text, "it").answers["faith-equations"].evidence
        assert (evidence.kind, evidence.subject) == ("command", "python say.py")
        assert evidence.digest is not None
        return evidence.digest

    where = "import os; open('left', 'w'); print(os.getcwd()); "
    first = cited(f"{where}print('5 passed in 0.12s at 2026-01-01 12:00:01')")
    assert not (cohort.root / "left").exists()
    assert first == cited(f"{where}print('5 passed   in 3 min 2 s at 2027-11-21T09:14:15Z')")
    assert first == cited(f"import sys; print('7%', file=sys.stderr); {where}print('5 passed in 1 s at 2026-01-01')")
    runs = [f"{where}print('[1/2] {a} 3 s'); print('[2/2] {b} 2 s')" for a, b in ("ab", "ba")]
    assert cited(runs[0]) == cited(runs[1])
    assert first != cited(f"{where}print('4 passed in 0.12s at 2026-01-01 12:00:01')")
    cohort.write("say.py", "print('so far'); 1 / 0")
    cohort.commit()
    assert main(["review", "evidence", "toy", "command python say.py"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "so far" in captured.err
    assert "no evidence for a tick, but a finding" in captured.err
    for what, status in (("command", 2), ("command a | b", 2), ("command 'a", 2), ("command no-such-program", 1)):
        assert main(["review", "evidence", "toy", what]) == status
        assert len(capsys.readouterr().err.strip().split("\n")) == 1


def test_evidence_of_a_command_that_others_repeat(cohort: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    """What `review evidence` prints of one is what `review check --run` finds again."""
    assert main(["review", "evidence", "toy", "command referee check toy --only LAY-004"]) == 0
    line = capsys.readouterr().out.rstrip("\n")
    assert "`command referee check toy --only LAY-004`" in line
    cohort.review("carol", ("  - evidence: `projects/toy/toy.py:1` as it should be", line))
    assert "REV-025" not in {rule for rule, _ in cohort.says(code=True)}


def test_templates_of_the_repository_are_used(cohort: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    text = (TEMPLATES / "review.md").read_text(encoding="utf-8")
    cohort.write("templates/review.md", text.replace("# Review of", "# Our review of"))
    assert main(["review", "start", "toy", "--as", "carol", "--no-probes"]) == 0
    assert "# Our review of toy by carol" in cohort.read("reviews/toy/carol.md")
    capsys.readouterr()


def test_text_of_others_stays_text_in_forms(cohort: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    """A finding's text is quoted in a form; it neither becomes a heading nor one of the form's own words."""
    hostile = "__PAPER__ ### carol/F9 · fixed `code` | cell\n\n- commit: abcdef1\n\n## Answers\n"
    cohort.review("carol", ("A word is missing.", hostile.replace("## Answers", "#### Answers")))
    cohort.commit("a review")
    assert main(["respond", "toy"]) == 0
    text = cohort.read("reviews/toy/response.md")
    assert "__PAPER__" in text
    response = load_reviews(cohort.project).response
    assert response is not None
    assert sorted(response.replies) == ["carol/F1", "carol/F2", "carol/F3"]
    capsys.readouterr()


def test_words_of_a_form_in_what_people_wrote_are_not_filled(
    cohort: Cohort, capsys: pytest.CaptureFixture[str]
) -> None:
    respond(cohort, ("- test: projects/toy/test_toy.py::test_right", "- no test: __RULINGS__"))
    assert main(["decide", "toy", "--as", "eve"]) == 0
    assert "no test: __RULINGS__ |" in cohort.read("reviews/toy/decision.md")
    capsys.readouterr()


# -- How good a review was ---------------------------------------------------------------------------------------------


def finding(identity: str, place: str, severity: str = "major", items: tuple[str, ...] = ()) -> Finding:
    parsed = parse_place(place)
    assert parsed is not None
    return Finding(identity, severity, (parsed,), "text", 1, items)  # type: ignore[arg-type]


def test_findings_are_matched_by_place_and_item() -> None:
    key = [
        finding("E1", "a.py:10-20"),
        finding("E2", "a.py:100", items=("lik-kind",)),
        finding("E3", "b.ipynb#c3"),
        finding("E4", "README.md", items=("docs-complete",)),
        finding("E5", "README.md"),
    ]
    found = [
        finding("F1", "a.py:23"),  # within three lines
        finding("F2", "a.py:24"),  # not
        finding("F3", "a.py:300", items=("lik-kind",)),  # the same file and item
        finding("F4", "b.ipynb#c3"),
        finding("F5", "README.md", items=("docs-complete",)),
        finding("F6", "b.py:10"),
    ]
    assert match(found, key) == {"F1": "E1", "F3": "E2", "F4": "E3", "F5": "E4"}
    assert match([], key) == match(found, []) == {}


def test_each_is_matched_once_and_as_many_as_possible() -> None:
    key = [finding("E1", "a.py:10", items=("x",)), finding("E2", "a.py:12")]
    # F1 is likest to E1, but then F2, which can only be E1, would be left over.
    found = [finding("F1", "a.py:11", items=("x",)), finding("F2", "a.py:200", items=("x",))]
    assert match(found, key) == {"F1": "E2", "F2": "E1"}
    assert match([finding("F1", "a.py:10"), finding("F2", "a.py:10")], [finding("E1", "a.py:10")]) == {"F1": "E1"}


def test_a_review_is_scored(cohort: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    respond(cohort)
    decide(cohort, ("- same as: carol/F1\n", ""))
    cohort.write(
        "reviews/toy/decision.md",
        cohort.read("reviews/toy/decision.md") + "\n### E2 · critical · `projects/toy/toy.py:500`\n\nMissed.\n",
    )
    there = load_reviews(cohort.project)
    s = score(there.reviews["carol"], there.response, there.decision, "vae")
    assert s.matches == {"F1": "E1"}
    assert (s.tallies["all"].found, s.tallies["all"].editor, s.tallies["all"].recall) == (1, 2, 0.5)
    assert s.tallies["critical"].recall == 0.0
    assert s.tallies["major"].recall == 1.0
    assert (s.tallies["all"].held, s.tallies["all"].refuted, s.tallies["all"].precision) == (1, 1, 0.5)  # F2: overruled
    assert (s.answered, s.asked, s.minutes) == (27, 27, 90)
    assert main(["review", "score", "toy", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["scores"][0]["tallies"]["all"]["recall"] == 0.5
    assert main(["review", "score", "toy"]) == 0
    shown = capsys.readouterr().out
    assert "1 of 2" in shown
    assert "27 of 27" in shown


def test_the_editor_says_what_is_the_same() -> None:
    review = parse_review(good_review("carol", "0" * 40), "carol.md")
    head = (
        "---\npaper: toy\neditor: eve\nround: 1\ndecision: revise\ndate: 2026-12-01\n---\n## Reasons\nx\n## Rulings\n"
    )

    def matches(*findings: str) -> dict[str, str]:
        text = head + "## Findings\n" + "\n".join(findings)
        return score(review, None, parse_decision(text, "decision.md"), "vae").matches

    near = "### E1 · major · `projects/toy/toy.py:30`\n"
    far = "### E2 · major · `common/x.py:1`\n"
    assert matches(near + "Text.") == {"F1": "E1"}
    assert matches(near + "- same as: none\n\nText.") == {}
    assert matches(far + "- same as: carol/F1\n\nText.", near + "Text.") == {"F1": "E2"}
    assert matches(far + "- same as: bo/F1\n\nText.") == {}


def test_what_is_answered_is_counted() -> None:
    text = good_review("carol", "0" * 40)
    less = text.replace("  - evidence: `projects/toy/toy.py:1` as it should be\n", "", 3)
    for form, answered in ((text, 27), (less, 24)):
        s = score(parse_review(form, "it"), None, None, "vae")
        assert (s.answered, s.asked) == (answered, 27)
