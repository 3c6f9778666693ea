"""Grades equal those computed by hand, come out again to the byte, and never get into the repository.

The history that is graded: `toy` by ada and bo, reviewed by carol (in time) and dan (ten hours late), decided by eve;
`other` by carol, who submits no version 2.
"""

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import jsonschema
import pytest
import yaml

from common.errors import UserError
from referee.checklist import load_checklist
from referee.cli import main
from referee.documents import DocumentError
from referee.grades import private_folder, render, write_all
from referee.grading import SCHEMA_FILE, Grades, compute, json_schema, show, verify
from referee.history import Event, History, keep_push, read_pushes
from referee.project import UsageError
from referee.reviews import parse_review
from referee.stages import open_gate

COURSE = """\
name: A cohort
deadlines: {v1: 2027-01-15, reviews: 2027-01-29, v2: 2027-02-12}
people:
  - {handle: ada, roles: [developer]}
  - {handle: bo, roles: [developer]}
  - {handle: carol, roles: [developer, reviewer]}
  - {handle: dan, roles: [reviewer]}
  - {handle: eve, roles: [editor]}
"""

MARKS = """\
marks:
  - {paper: toy, version: v1, points: 80}
  - {paper: toy, version: v2, points: 90, note: "Clear | and <b>short</b>"}
  - {paper: other, version: v1, points: 70}
authors:
  ada: [ada@x]
  bo: ["Bo B"]
  carol: [carol@x]
"""

PROJECT = """\
stage: {stage}
family: vae
paper: {{title: Toys, authors: [A], venue: ICLR, year: 2016}}
team: [{team}]
licence: MIT
claims:
  - {{id: c, kind: ordering, source: s, certainty: mem, statement: a < b, metric: nll, dataset: toys, preset: laptop,
     runs: [a, b]}}
"""

AUTHORS = {"ada": "Ada <ada@x>", "bo": "Bo B <b@laptop>", "carol": "C <carol@x>", "dan": "D <d@x>", "eve": "E <e@x>"}


class Term:
    """A repository, and short ways to make history in it."""

    def __init__(self, root: Path):
        self.root = root
        self.private = root.parent / "private"

    def git(self, *arguments: str, date: str = "2026-12-01 12:00", who: str = "eve") -> str:
        name, _, mail = AUTHORS[who].partition(" <")
        stamps = {f"GIT_{p}_DATE": f"{date}:00 +0000" for p in ("AUTHOR", "COMMITTER")}
        names = {f"GIT_{p}_NAME": name for p in ("AUTHOR", "COMMITTER")}
        mails = {f"GIT_{p}_EMAIL": mail.rstrip(">") for p in ("AUTHOR", "COMMITTER")}
        done = subprocess.run(
            ["git", "-C", str(self.root), *arguments],
            env={**os.environ, **stamps, **names, **mails},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def commit(self, date: str, who: str = "eve", message: str = "work", **files: str) -> str:
        """Commit files (`__` stands for `/`, the ending `_md` for `.md`); the commit's id."""
        for name, text in files.items():
            path, _, ending = name.replace("__", "/").rpartition("_")
            self.write(f"{path}.{ending}", text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message, date=date, who=who)
        return self.git("rev-parse", "HEAD")

    def stage(self, paper: str, stage: str, *team: str) -> str:
        return PROJECT.format(stage=stage, team=", ".join(f"{{handle: {h}, role: all}}" for h in team))

    def grades(self, marks: str = MARKS, as_of: str | None = None) -> Grades:
        return compute(self.root, marks, as_of, read_pushes(self.private))

    def totals(self, marks: str = MARKS, as_of: str | None = None) -> dict[str, str]:
        return {p.handle: show(p.grade) for p in self.grades(marks, as_of).people}


def review(commit: str, handle: str, paper: str, *findings: str, cites: str | None = None) -> str:
    """A review in which every item is answered; the first ones with the findings."""
    lines = ["---", f"reviewer: {handle}", f"paper: {paper}", "round: 1", f'commit: "{commit}"']
    lines += ["checklist: 1", "conflict_of_interest: none", "hardware: a laptop", "minutes: 60", "ai_use: none"]
    lines += ["recommendation: major", "---", "", "## Checklist", ""]
    for i, item in enumerate(load_checklist().for_family("vae"), start=1):
        if i <= len(findings):
            lines += [f"- [ ] `{item}` text", f"  - finding: F{i}"]
        else:
            lines += [f"- [x] `{item}` text", f"  - evidence: `{cites or f'projects/{paper}/{paper}.py:1'}`"]
    lines += ["", "## Findings", ""]
    for i, finding in enumerate(findings, start=1):
        lines += [f"### F{i} · {finding}", "", "It is wrong.", ""]
    return "\n".join(lines) + "\n"


def decision(paper: str, *findings: str, rulings: str = "None.", said: str = "accept") -> str:
    head = f"---\npaper: {paper}\neditor: eve\nround: 1\ndecision: {said}\ndate: 2027-02-20\n---\n\n"
    found = "\n".join(f"### E{i} · {finding}\n\nIt is wrong.\n" for i, finding in enumerate(findings, start=1))
    return f"{head}## Reasons\n\nGood.\n\n## Rulings\n\n{rulings}\n\n## Findings\n\n{found or 'None.'}\n"


RESPONSE = """\
---
paper: toy
round: 1
commit: "{commit}"
---

## Answers

### carol/F1 · fixed

- commit: {fix}
- no test: none is possible

Done.

### carol/F2 · disputed

It is right.
"""

FOUND = ("critical · `projects/toy/toy.py:30`", "major · `projects/toy/toy.py:80`", "minor · `projects/toy/toy.py:99`")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository, made once."""
    os.environ["GIT_CONFIG_GLOBAL"] = os.environ["GIT_CONFIG_SYSTEM"] = "/dev/null"
    term = Term(tmp_path_factory.mktemp("term") / "repository")
    term.root.mkdir()
    term.git("init", "-q", "-b", "main")
    code = "".join(f"line {i}\n" for i in range(120))
    toy, other = term.stage("toy", "proposed", "ada", "bo"), term.stage("other", "proposed", "carol")
    term.commit("2026-12-01 12:00", course_yaml=COURSE, pyproject_toml="", projects__toy__project_yaml=toy)
    term.commit("2026-12-02 12:00", projects__other__project_yaml=other)
    v1 = toy.replace("proposed", "v1")
    term.commit("2027-01-15 12:00", "ada", projects__toy__project_yaml=v1, projects__toy__toy_py=code)
    seen = term.commit(
        "2027-01-15 13:00",
        "carol",
        projects__other__project_yaml=other.replace("proposed", "v1"),
        projects__other__other_py=code,
    )
    carol = review(seen, "carol", "toy", FOUND[0], "minor · `projects/toy/toy.py:60`")
    term.commit("2027-01-28 12:00", "carol", reviews__toy__carol_md=carol)
    dan = review(seen, "dan", "toy", "minor · `projects/toy/toy.py:10`")
    term.commit("2027-01-30 09:59", "dan", reviews__toy__dan_md=dan)
    fix = term.commit("2027-02-01 12:00", "bo", projects__toy__toy_py=code.replace("line 29\n", "line\n"))
    answers = RESPONSE.format(commit=seen, fix=fix)
    v2 = {"projects__toy__project_yaml": toy.replace("proposed", "v2"), "reviews__toy__response_md": answers}
    term.commit("2027-02-10 12:00", "ada", **v2)
    ruled = "### carol/F2 · overruled\n\nIt is right."
    term.commit("2027-02-20 12:00", "eve", reviews__toy__decision_md=decision("toy", *FOUND, rulings=ruled))
    return term.root


@pytest.fixture
def term(made: Path, tmp_path: Path) -> Term:
    shutil.copytree(made, tmp_path / "repository")
    term = Term(tmp_path / "repository")
    term.private.mkdir()
    (term.private / "marks.yaml").write_text(MARKS)
    return term


def one(term: Term, handle: str, **how: str) -> Fraction:
    found = next(p.grade for p in term.grades(**how).people if p.handle == handle)
    assert found is not None
    return found


TOY = Fraction(4, 10) * 80 + Fraction(6, 10) * (90 - 5 - 1)  # E1 was reported and fixed
CAROL = 100 * (Fraction(4, 10) * Fraction(10, 16) + Fraction(2, 10) * Fraction(10, 11) + Fraction(4, 10))
DAN = 100 * (Fraction(2, 10) + Fraction(2, 10)) / Fraction(8, 10) * Fraction(3, 4)  # no recall; precision unknown


def test_grades_as_computed_by_hand(term: Term) -> None:
    grades = {p.handle: p for p in term.grades().people}
    assert list(grades) == ["ada", "bo", "carol", "dan"]  # no editor
    assert grades["ada"].grade == grades["bo"].grade == TOY
    assert grades["carol"].reviewing == CAROL
    assert grades["carol"].project == Fraction(4, 10) * 70  # version 2 was never submitted
    assert grades["carol"].grade == Fraction(3, 4) * Fraction(4, 10) * 70 + Fraction(1, 4) * CAROL
    assert grades["dan"].grade == DAN == Fraction(75, 2)


CHANGES: list[tuple[str, str, str, str]] = [  # of course.yaml or marks.yaml -> who, and their grade then
    ("marks", "points: 80}", "points: 60}", "ada 74.4"),
    ("course", "name:", "grading: {v1: 1, v2: 0}\nname:", "ada 80"),
    ("course", "name:", "grading: {v1: 0, v2: 1}\nname:", "ada 84"),
    ("course", "name:", "grading: {findings: {major: 0}}\nname:", "ada 85.4"),
    ("course", "name:", "grading: {findings: {minor: 40}}\nname:", "ada 59"),
    ("course", "name:", "grading: {findings: {critical: 0, major: 0, minor: 0}}\nname:", "carol 46"),
    ("course", "name:", "grading: {review: 1}\nname:", "carol 83.18"),
    ("course", "name:", "grading: {review: 0}\nname:", "carol 28"),
    ("course", "name:", "grading: {reviewing: {recall: 1, precision: 0, coverage: 0, evidence: 0}}\nname:", "dan 0"),
    ("course", "name:", "grading: {reviewing: {recall: 0, precision: 1, coverage: 0, evidence: 0}}\nname:", "dan –"),
    ("course", "name:", "grading: {reviewing: {recall: 0, precision: 0, coverage: 1, evidence: 0}}\nname:", "dan 75"),
    ("course", "name:", "late: {hours: 24, penalty: 0}\nname:", "dan 50"),
    ("course", "name:", "late: {hours: 24, penalty: 0.5}\nname:", "dan 25"),
    ("course", "name:", "late: {hours: 9, penalty: 0.25}\nname:", "dan 0"),
    ("marks", "authors:", "reviews: [{paper: toy, reviewer: dan, received: 2027-01-29 23:00}]\nauthors:", "dan 50"),
    ("marks", "authors:", "reviews: [{paper: toy, reviewer: dan, excused: ill}]\nauthors:", "dan 50"),
    ("marks", "points: 90,", "points: 90, received: 2027-02-13 18:00,", "ada 69.8"),
    ("marks", "points: 90,", "points: 90, received: 2027-02-14 18:00,", "ada 32"),
    ("marks", "points: 90,", "points: 90, received: 2027-02-14 18:00, excused: ill,", "ada 82.4"),
    ("marks", "points: 90,", "points: 3,", "ada 32"),  # never below nothing
    ("marks", "points: 90,", "points: 90, new: [E2],", "carol 44.64"),  # she could not see it
    ("marks", "points: 90,", "points: 90, new: [E2],", "ada 82.4"),  # but the team shipped it
]


@pytest.mark.parametrize(("which", "old", "new", "then"), CHANGES)
def test_each_rule_counts(term: Term, which: str, old: str, new: str, then: str) -> None:
    marks = MARKS.replace(old, new, 1) if which == "marks" else MARKS
    if which == "course":
        term.commit("2027-02-21 12:00", course_yaml=COURSE.replace(old, new, 1))
    who, grade = then.split()
    assert term.totals(marks)[who] == grade


def test_a_team_that_leaves_unfixed_what_it_was_told_pays(term: Term) -> None:
    path = "reviews/toy/response.md"
    text = (term.root / path).read_text().replace("F1 · fixed", "F1 · disputed")
    term.write(path, text)
    term.commit("2027-02-21 12:00")
    assert one(term, "ada") == TOY - Fraction(6, 10) * 10
    assert "reported as carol/F1, and not fixed" in render(term.grades())["ada.md"]


def test_what_comes_after_the_deadline_is_no_part_of_a_version(term: Term) -> None:
    arrived = {v.version: v.taken for v in term.grades().projects[1].versions}
    assert arrived["v1"] is not None
    assert "in time" in arrived["v1"].said  # though bo's change of 1 February is at stage v1, too
    marks = MARKS.replace("points: 80}", f"points: 80, commit: '{term.git('log', '-1', '--format=%H', 'HEAD~2')}'}}")
    assert one(term, "ada", marks=marks) == Fraction(6, 10) * 84  # an editor who marks that one gets what is refused


def test_findings_copied_from_the_decision_count_for_nothing(term: Term) -> None:
    before = term.totals()
    path = "reviews/toy/dan.md"
    seen = term.git("rev-parse", "HEAD~5")
    term.write(path, review(seen, "dan", "toy", *FOUND))
    term.commit("2027-02-21 12:00", "dan")
    assert term.totals() == before
    assert term.totals(MARKS + "reviews: [{paper: toy, reviewer: dan, received: 2027-01-20}]\n")["dan"] == "50"


def test_a_change_that_is_merged_late_counts_by_its_own_date(term: Term) -> None:
    term.git("checkout", "-q", "-b", "late", "HEAD")
    v2 = term.stage("other", "v2", "carol")
    term.commit("2027-02-12 20:00", "carol", projects__other__project_yaml=v2)  # pretends; its base is of 20 February
    term.git("checkout", "-q", "main")
    term.git("merge", "-q", "--no-ff", "-m", "merge", "late", date="2027-02-22 12:00")
    marks = MARKS.replace("authors:", "  - {paper: other, version: v2, points: 100}\nauthors:")
    assert (
        one(term, "carol", marks=marks) == Fraction(3, 4) * 28 + Fraction(1, 4) * CAROL
    )  # setting a clock back: refused
    term.git("reset", "-q", "--hard", "HEAD~1")
    term.git("checkout", "-q", "-b", "early", "HEAD~1")
    term.commit("2027-02-12 20:00", "carol", projects__other__project_yaml=v2)
    term.git("checkout", "-q", "main")
    term.git("merge", "-q", "--no-ff", "-m", "merge", "early", date="2027-02-22 12:00")
    assert one(term, "carol", marks=marks) == Fraction(3, 4) * (28 + 60) + Fraction(1, 4) * CAROL


@pytest.mark.parametrize(
    ("pushed", "gate_says", "share"),
    [
        (None, "", Fraction(1)),  # the commit's own date, which is set back
        ("2027-02-12 20:00", "", Fraction(1)),
        ("2027-02-13 20:00", "warning STG-002", Fraction(3, 4)),
        ("2027-02-15 20:00", "error STG-003", Fraction(0)),
    ],
)
def test_gate_and_grade_agree_on_when_a_change_came(
    term: Term, pushed: str | None, gate_says: str, share: Fraction
) -> None:
    term.git("reset", "-q", "--hard", "HEAD~1")  # before the decision
    term.git("checkout", "-q", "-b", "work", "HEAD")
    v2 = term.stage("other", "v2", "carol")
    head = term.commit("2027-02-11 12:00", "carol", projects__other__project_yaml=v2)
    moment = datetime.fromisoformat(f"{pushed}+00:00") if pushed else None
    gate = open_gate(term.root, "main", Event(head, moment), "carol", datetime(2027, 2, 17, tzinfo=UTC))
    late = [f"{f.severity} {f.rule}" for f in gate.findings if f.rule in ("STG-002", "STG-003")]
    assert " ".join(late) == gate_says
    if moment is not None:
        keep_push(term.private, head, gate.counted.moment)
    term.git("checkout", "-q", "main")
    term.git("merge", "-q", "--no-ff", "-m", "merge", "work", date="2027-02-16 12:00")
    marks = MARKS.replace("authors:", "  - {paper: other, version: v2, points: 100}\nauthors:")
    grades = term.grades(marks)
    (version,) = [v for p in grades.projects if p.paper.name == "other" for v in p.versions if v.version == "v2"]
    assert version.taken is not None
    assert version.taken.share == share
    assert ("when it was pushed, as the forge says" if pushed else "the latest committer's date") in version.said
    assert ("pushes.json" in grades.inputs) == (pushed is not None)


def test_a_push_is_kept_at_its_earliest_and_privately(term: Term) -> None:
    first, again = datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 1, 2, tzinfo=UTC)
    for head, moment in (("a" * 40, again), ("b" * 40, again), ("a" * 40, first), ("a" * 40, again)):
        keep_push(term.private, head, moment)
    assert read_pushes(term.private) == {"a" * 40: first, "b" * 40: again}
    assert (term.private / "pushes.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["[]", "{", '{"main": "2027-01-01T00:00:00+00:00"}', '{"%s": "soon"}' % ("a" * 40)])
def test_pushes_that_cannot_be_read_are_refused(
    term: Term, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (term.private / "pushes.json").write_text(text)
    monkeypatch.chdir(term.root)
    assert main(["grade", "--private", "../private"]) == 2
    assert "pushes.json" in capsys.readouterr().err
    assert not (term.private / "grades.csv").exists()


def test_an_earlier_date_shows_what_was_open_then(term: Term) -> None:
    marks = MARKS.replace('  - {paper: toy, version: v2, points: 90, note: "Clear | and <b>short</b>"}\n', "")
    early = {p.handle: p for p in term.grades(marks, "2027-01-20").people}
    assert early["ada"].grade == 80
    assert any("v2 is not submitted yet" in text for text in early["ada"].open)
    assert early["dan"].grade is None
    with pytest.raises(DocumentError, match=r"MRK-013: v2 of 'toy' is submitted and has no mark"):
        term.grades(marks)
    with pytest.raises(UsageError, match="no commit yet"):
        term.grades(as_of="2020-01-01")
    with pytest.raises(UsageError, match="is no date"):
        term.grades(as_of="yesterday")


def test_who_was_assigned_and_wrote_nothing_gets_nothing(term: Term) -> None:
    assigned(term, "{other: [dan], toy: [carol, Dan]}")
    assert one(term, "dan") == DAN / 2
    assert "was not submitted" in render(term.grades())["dan.md"]


def test_an_additional_review_counts_for_the_team_and_for_no_grade(term: Term) -> None:
    assigned(term, "{toy: [carol], other: [dan]}")
    assert one(term, "dan") == 0  # of the one that was assigned, nothing came
    explained = render(term.grades())["dan.md"]
    assert "an additional review, which is shown and counts for no grade" in explained
    assert "Reviewing = (" not in explained  # one number alone is no sum
    assigned(term, "{toy: [dan], other: []}")
    grades = {p.handle: p for p in term.grades().people}
    assert grades["dan"].grade == DAN
    assert grades["carol"].reviewing is None
    assert grades["ada"].grade == TOY  # carol's finding was fixed all the same


def assigned(term: Term, reviewers: str) -> None:
    text = f"seed: 1\ninputs: '{'0' * 64}'\nreviewers: {reviewers}\n"
    term.commit("2027-02-21 12:00", reviews__assignment_yaml=text)


def test_without_marks_it_is_said_where_they_go(
    term: Term, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(term.root)
    (empty := term.root.parent / "empty").mkdir()
    assert main(["grade", "--private", str(empty)]) == 2
    assert "there is no marks.yaml in it" in capsys.readouterr().err
    assert not list(empty.iterdir())


def test_a_command_is_left_out_where_the_checklist_asks_for_one(term: Term) -> None:
    text = review(term.git("rev-parse", "HEAD~5"), "dan", "toy")
    items = load_checklist().for_family("vae")
    line = "- [x] `{}` text\n  - evidence: {}\n"
    place, command = "`projects/toy/toy.py:1`", f"`command make test` `sha256:{'a' * 64}`"

    def found(item: str) -> tuple[int, int, tuple[str, ...]]:
        cited = text.replace(line.format(item, place), line.format(item, command))
        assert cited != text
        return verify(History(term.root), parse_review(cited, "it"))

    n = len(items)
    assert verify(History(term.root), parse_review(text, "it")) == (n, n, ())
    left_out = {item for item in items if found(item) == (n - 1, n - 1, ())}
    assert left_out == {"repro-install", "repro-regenerated"}
    assert {item for item in items if found(item) == (n - 1, n, (item,))} == items.keys() - left_out


def test_evidence_that_is_not_there_costs(term: Term) -> None:
    seen = term.git("rev-parse", "HEAD~5")
    term.git("reset", "-q", "--hard", "HEAD~1")  # before the decision
    text = review(seen, "dan", "toy", "minor · `projects/toy/toy.py:10`", cites="projects/toy/toy.py:999")
    term.commit("2027-02-12 12:00", "dan", reviews__toy__dan_md=text)
    marks = MARKS + "reviews: [{paper: toy, reviewer: dan, excused: ill}]\n"
    items = len(load_checklist().for_family("vae"))
    (found,) = [r for p in term.grades(marks).people if p.handle == "dan" for r in p.reviews]
    assert next(m.value for m in found.measures if m.name == "evidence") == Fraction(1, items)


def test_who_wrote_little_is_shown_to_the_editor_and_not_marked_down(term: Term) -> None:
    people = {p.handle: p for p in term.grades().people}
    assert people["bo"].look_at == ("contribution:toy",)
    assert people["bo"].grade == people["ada"].grade
    term.commit(
        "2027-02-21 12:00", "ada", "together\n\nCo-authored-by: Bo B <b@phone>", projects__toy__more_py="x\n" * 400
    )
    grades = term.grades()
    assert grades.projects[1].work.lines["bo"] == 1 + 400 / 2
    people = {p.handle: p for p in grades.people}
    assert people["bo"].look_at == ()
    unmapped = MARKS.replace('  bo: ["Bo B"]\n', "")
    grades = term.grades(unmapped)
    assert next(p.look_at for p in grades.people if p.handle == "bo") == ("unmapped:toy",)  # never guessed
    assert "Bo B <b@laptop>" in grades.projects[1].work.unknown


def test_moved_files_and_results_are_nobodys_lines(term: Term) -> None:
    before = term.grades().projects[1].work.lines
    term.git("mv", "projects/toy/toy.py", "projects/toy/moved.py")
    term.commit(
        "2027-02-21 12:00", "bo", projects__toy__results__big_md="x\n" * 500, projects__toy__nb_ipynb="x\n" * 500
    )
    assert term.grades().projects[1].work.lines == before


def test_the_same_inputs_give_the_same_bytes(term: Term) -> None:
    first = render(term.grades())
    assert render(term.grades()) == first
    shuffled = MARKS.replace("  - {paper: other, version: v1, points: 70}\n", "").replace(
        "marks:\n", "marks:\n  - {paper: other, version: v1, points: 70}\n"
    )
    again = render(term.grades(shuffled))
    assert {k: v for k, v in again.items() if k != "grades.json"} == {
        k: v for k, v in first.items() if k != "grades.json"
    }
    term.write("reviews/toy/dan.md", "not committed")
    term.write("course.yaml", "not: committed")
    assert render(term.grades()) == first


def test_names_make_no_difference(term: Term) -> None:
    """Everybody renamed, in every file and commit: the same grades under other names."""
    before = term.totals()
    new = {"ada": "zoe", "bo": "abe", "carol": "Yan", "dan": "cid", "eve": "max"}
    swap = "; ".join(f"s/\\b{old}\\b/{name}/g" for old, name in new.items())
    files = "git ls-files -z | xargs -0 sed -i -E '" + swap + "'"
    move = "; ".join(
        f"[ -e reviews/toy/{o}.md ] && git mv reviews/toy/{o}.md reviews/toy/{n}.md" for o, n in new.items()
    )
    script = f"{files}; {move}; git add -A"
    env = {**os.environ, "FILTER_BRANCH_SQUELCH_WARNING": "1"}
    command = ["git", "-C", str(term.root), "filter-branch", "--tree-filter", script]
    subprocess.run(command, env=env, check=True, capture_output=True)  # what the reviews are of is still there
    marks = MARKS
    for old, name in new.items():
        marks = marks.replace(f"  {old}: [", f"  {name}: [")
    assert term.totals(marks) == {new[h]: g for h, g in sorted(before.items(), key=lambda x: new[x[0]].lower())}


def test_an_explanation_suffices_to_recompute(term: Term) -> None:
    term.git("remote", "add", "origin", "https://token@github.com/o/papers.git")
    files = render(term.grades())
    carol = files["carol.md"]
    assert "Grade = (1 − review) × project + review × reviewing = 0.75 × 28 + 0.25 × 83.18 = **41.8**" in carol
    assert "(10·1 + 5·0 + 1·0) / (10·1 + 5·1 + 1·1)" in carol
    assert "Found: F1 is E1." in carol
    assert "Missed: eve/E2, eve/E3" in carol
    assert "https://github.com/o/papers/blob/" in carol
    assert "token" not in "".join(files.values())
    ada = files["ada.md"]
    assert "Project = (0.4 × 80 + 0.6 × 84) / (0.4 + 0.6) = 82.4" in ada
    assert "eve/E2" in ada
    assert "carol/F1, and fixed" in ada
    assert "Clear \\| and ‹b>short‹/b>" in ada
    assert "F1 is E1" not in ada  # others' reviews are theirs
    (row,) = [r for r in csv.DictReader(files["grades.csv"].splitlines()) if r["handle"] == "carol"]
    assert row == {
        "handle": "carol", "grade": "41.8", "project": "28", "reviewing": "83.18", "projects": "other",
        "reviews": "toy", "open": "", "look_at": "",
    }  # fmt: skip


def test_what_is_not_in_the_course_is_not_graded(term: Term) -> None:
    (term.root / "course.yaml").write_text(COURSE.replace("  - {handle: ada, roles: [developer]}\n", "")
                                           + "not_in_course: [toy]\n")  # fmt: skip
    term.commit("2027-02-21 12:00")
    with pytest.raises(DocumentError, match=r"MRK-009: 'toy' is not in the course"):
        term.grades()
    marks = "marks: [{paper: other, version: v1, points: 70}]\n"
    assert term.totals(marks) == {"bo": "–", "carol": "28", "dan": "–"}  # ada is nobody in the course


# -- marks.yaml --------------------------------------------------------------------------------------------------------

WRONG: list[tuple[str, str, str, str]] = [
    ("points: 80", "points: 101", "MRK-007", "less than or equal to 100"),
    ("points: 80", "points: eighty", "MRK-008", "not a number"),
    ("points: 80", "points: .nan", "MRK-008", "not a number"),
    ("version: v1, points: 80", "version: v3, points: 80", "MRK-007", "v1, v2"),
    ("paper: other", "paper: othr", "MRK-009", "Did you mean 'other'"),
    ("paper: other", "paper: ../toy", "MRK-007", "a project's name"),
    ("version: v2", "version: v1", "MRK-010", "two marks"),
    ("paper: other, version: v1", "paper: other, version: v2", "MRK-011", "not in the history"),
    ("points: 80", "points: 80, commit: '" + "0" * 40 + "'", "MRK-011", "one of these did"),
    ("points: 80", "points: 80, new: [E1]", "MRK-011", "only version 2"),
    ("points: 90", "points: 90, new: [E9]", "MRK-009", "no finding E9"),
    ("points: 80", "points: 80, pionts: 80", "MRK-005", "unknown field"),
    ("points: 80", "points: 80, received: tomorrow", "MRK-007", "a date"),
    ("points: 80", "points: 80, note: \"\x1b[2J\"", "MRK-002", "U+001B"),
    ("  ada: [ada@x]", "  ada: [ada@x, Bo B]", "MRK-010", "'Bo B' is 'ada' already"),
    ("  ada: [ada@x]", "  aad: [ada@x]", "MRK-009", "Did you mean 'ada'"),
    ("  ada: [ada@x]", "  Bo: [ada@x]", "MRK-010", "capitals make no difference"),
    ("  ada: [ada@x]", "  '../ada': [ada@x]", "MRK-007", "public handle"),
    ("authors:", "reviews: [{paper: toy, reviewer: eve}]\nauthors:", "MRK-009", "no review of 'toy' by 'eve'"),
    ("authors:", "a: &a [x]\nb: *a\nauthors:", "MRK-003", "an anchor"),
    ("authors:", "a: !!python/object/apply:os.system [id]\nauthors:", "MRK-003", "a tag"),
    ("authors:", "a: " + "[" * 40 + "]" * 40 + "\nauthors:", "MRK-003", "nested"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "rule", "says"), WRONG)
def test_marks_that_cannot_be_are_refused(
    term: Term, old: str, new: str, rule: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert old in MARKS
    (term.private / "marks.yaml").write_text(MARKS.replace(old, new, 1))
    monkeypatch.chdir(term.root)
    assert main(["grade", "--private", str(term.private)]) == 1
    error = capsys.readouterr().err
    assert f"{rule}: " in error
    assert says in error
    assert [p.name for p in term.private.iterdir()] == ["marks.yaml"]


def test_the_json_schema_is_current() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == json_schema(), "run: python -m referee.grading"
    jsonschema.validate(yaml.load(MARKS, Loader=yaml.SafeLoader), json.loads(json_schema()))


# -- The private folder ------------------------------------------------------------------------------------------------


def test_the_command_writes_only_there(
    term: Term, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(term.root)
    assert main(["grade", "--private", "../private"]) == 0
    assert "contribution:toy" in capsys.readouterr().out
    names = ["ada.md", "bo.md", "carol.md", "dan.md", "grades.csv", "grades.json", "marks.yaml"]
    assert sorted(p.name for p in term.private.iterdir()) == names
    assert {p.stat().st_mode & 0o077 for p in term.private.iterdir() if p.name != "marks.yaml"} == {0}
    assert term.git("status", "--porcelain", "--ignored") == ""
    text = (term.private / "grades.json").read_text()
    assert main(["grade", "--private", "../private", "--format", "json"]) == 0
    assert capsys.readouterr().out == text == (term.private / "grades.json").read_text()


Place = Callable[[Term], Path]


def _link(term: Term) -> Path:
    (term.root / "secret").mkdir()
    link = term.root.parent / "link"
    link.symlink_to(term.root / "secret")
    return link


def _worktree(term: Term) -> Path:
    term.git("worktree", "add", "-q", str(term.root.parent / "tree"), "HEAD")
    return term.root.parent / "tree" / "projects"


@pytest.mark.parametrize(
    "place",
    [
        lambda t: t.root,
        lambda t: t.root / "projects" / "toy",
        lambda t: t.root / ".git",
        lambda t: t.private / ".." / "repository" / "reviews",
        _link,
        _worktree,
    ],
)
def test_no_grades_in_the_repository(term: Term, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place(term)
    shutil.copy(term.private / "marks.yaml", folder)
    before = sorted(folder.iterdir())
    with pytest.raises(UsageError, match="lies inside the repository"):
        private_folder(term.root, str(folder))
    monkeypatch.chdir(term.root)
    assert main(["grade", "--private", str(folder)]) == 2
    assert sorted(folder.iterdir()) == before


def test_marks_that_lie_in_the_repository_are_not_read_through_a_link(
    term: Term, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (term.private / "marks.yaml").rename(term.root / "marks.yaml")
    (term.private / "marks.yaml").symlink_to(term.root / "marks.yaml")
    monkeypatch.chdir(term.root)
    assert main(["grade", "--private", str(term.private)]) == 1
    assert "MRK-001: is a symbolic link" in capsys.readouterr().err
    assert main(["grade", "--private", str(term.private / "nothing")]) == 2


def test_a_link_is_replaced_and_what_it_leads_to_is_not(term: Term) -> None:
    (term.private / "grades.csv").symlink_to(term.root / "course.yaml")
    write_all(term.private, {"grades.csv": "new", "grades.json": "{}"})
    assert not (term.private / "grades.csv").is_symlink()
    assert (term.root / "course.yaml").read_text() == COURSE


def test_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all(tmp_path, {"grades.csv": "old", "ada.md": "old", "grades.json": "{}"})
    before = {p.name: p.read_text() for p in tmp_path.iterdir()}
    (tmp_path / "zoe.md").mkdir()
    with pytest.raises(UserError, match=r"'zoe.md' is a folder.*nothing was changed"):
        write_all(tmp_path, {"grades.csv": "new", "zoe.md": "new", "grades.json": "{}"})
    (tmp_path / "zoe.md").rmdir()
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == before
    moved = os.replace
    calls: list[str] = []

    def failing(source: Path, target: Path) -> None:
        calls.append(str(target))
        if str(target) == str(tmp_path / "grades.json") and "broken" not in calls:
            calls.append("broken")
            raise OSError(28, "No space left on device")
        moved(source, target)

    monkeypatch.setattr("referee.grades.os.replace", failing)
    with pytest.raises(UserError, match="No space left"):
        write_all(tmp_path, {"bo.md": "new", "grades.csv": "new", "grades.json": "{}"})
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == before


def test_the_explanation_of_who_has_left_goes_unless_it_was_edited(term: Term) -> None:
    write_all(term.private, render(term.grades()))
    term.commit("2027-02-21 12:00", course_yaml=COURSE + "  - {handle: gil, roles: [reviewer]}\n")
    write_all(term.private, render(term.grades()))
    assert (term.private / "gil.md").exists()
    term.commit("2027-02-22 12:00", course_yaml=COURSE)
    write_all(term.private, render(term.grades()))
    assert not (term.private / "gil.md").exists()
    (term.private / "notes.md").write_text("mine")
    write_all(term.private, render(term.grades()))
    assert (term.private / "notes.md").read_text() == "mine"


def test_a_part_of_the_history_is_not_enough(term: Term, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{term.root}", str(tmp_path / "part")], check=True)
    with pytest.raises(UserError, match="git fetch --unshallow"):
        compute(tmp_path / "part", MARKS)
