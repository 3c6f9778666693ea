"""A semester, played from the course's set-up to the grades.

Three teams: `toys` goes all the way; `blobs` is late, and one of its reviews never comes; `strokes` misses version 1.
"""

import json
import re
from pathlib import Path

from tests.rehearsal.stage import Stage, set_up

TITLES = {"toys": "Toys in Proportion", "blobs": "Blobs All the Way Down", "strokes": "Strokes of Few Components"}
TEAMS = {"toys": ("ada", "bo"), "blobs": ("cy", "dan"), "strokes": ("eva", "fay")}

PROPORTIONS = "torch.softmax(self.mixing, 0), n,"
MISTAKE = "torch.ones_like(self.mixing), n,"  # samples as if all components were equally likely

COURSE = """\
name: Deep generative models, spring
timezone: Europe/Berlin
deadlines: {proposed: 2026-03-01, v1: 2026-04-01, reviews: 2026-04-15, v2: 2026-05-01}
late: {hours: 24, penalty: 0.25}
reviewers_per_project: 2
people:
  - {handle: ada, roles: [developer, reviewer], expertise: [mixture]}
  - {handle: bo, roles: [developer, reviewer], expertise: [mixture]}
  - {handle: cy, roles: [developer, reviewer], conflicts: [eva]}
  - {handle: dan, roles: [developer, reviewer]}
  - {handle: eva, roles: [developer, reviewer], expertise: [mixture]}
  - {handle: fay, roles: [developer, reviewer], expertise: [mixture]}
  - {handle: edith, roles: [editor]}
"""

AMENDMENT = "  - {claim: a-value, date: 2026-03-29, change: changed, reason: The paper allows 0.4 nats.}"

MARKS = """\
marks:
  - {paper: toys, version: v1, points: 70}
  - {paper: toys, version: v2, points: 90}
  - {paper: blobs, version: v1, points: 80}
authors:
  ada: [ada@example.org]
  bo: [bo@example.org]
  cy: [cy@example.org]
  dan: [dan@example.org]
  eva: [eva@example.org]
  fay: [fay@example.org]
"""


def play(folder: Path) -> Stage:
    """The whole semester, in a new folder."""
    stage = set_up(folder, COURSE)
    begin(stage)
    propose(stage)
    version_1(stage)
    assign(stage)
    review(stage)
    version_2(stage)
    decide(stage)
    grade(stage)
    return stage


def begin(stage: Stage) -> None:
    stage.scene(
        "The course",
        "The editor, edith, begins with a copy of this repository. She sets dates and enters people in `course.yaml`:",
    )
    stage.say("```yaml\n" + COURSE + "```")
    stage.commit("The course", who="edith")
    stage.git("push", "--quiet", "--set-upstream", "origin", "main")
    stage.branch("dates")
    with stage.attempt("Nobody else moves a date. When ada tries:", who="ada", refuses="STG-011"):
        stage.edit("course.yaml", "v1: 2026-04-01", "v1: 2026-04-08")


# -- Proposals ---------------------------------------------------------------------------------------------------------


def propose(stage: Stage) -> None:
    stage.scene(
        "Proposals", "Each team begins with `referee new` and writes its claims. The team of `toys`, ada and bo:"
    )
    for paper, team in TEAMS.items():
        stage.branch(paper)
        command = (
            f'referee new {paper} --title "{TITLES[paper]}" --authors "Ann Author" --venue ICLR --year 2016 '
            f"--family mixture --team {','.join(team)}"
        )
        if paper == "toys":
            stage.run(command)
            stage.say("As long as something is left to write, the proposal may not be submitted:")
            stage.refusal("referee check toys", "DOC-003")
        else:
            stage.quietly(command)
        write_up(stage, paper)
        stage.commit(f"Propose {paper}", who=team[0], at="2026-02-20T12:00:00Z")
        if paper == "toys":
            stage.say("Written up, committed and pushed, it passes the gate, and edith merges it:")
            stage.gate("ada")
        elif paper == "strokes":
            stage.say(
                "A change counts from when the forge received it, whatever its commits say. Had the proposal of "
                "`strokes` been pushed on the fifth of March:"
            )
            stage.gate("eva", pushed="2026-03-05T12:00:00Z", refuses="STG-003")
            stage.say("Pushed on the 20th of February, it is in time, and so is that of `blobs`.")
        stage.merge(paper)
    stage.branch("toys")
    stage.say("From now on the claims are frozen, and things come in their order.")
    easier = "A claim that is made easier after it was accepted:"
    with stage.attempt(easier, who="ada", refuses="STG-006"):
        stage.edit("projects/toys/project.yaml", "tolerance: 0.5", "tolerance: 5.0")
    with stage.attempt("An amendment with a date that is still to come:", who="ada", refuses="STG-007"):
        stage.edit("projects/toys/project.yaml", "tolerance: 0.5", "tolerance: 0.4")
        amend(stage, AMENDMENT.replace("2026-03-29", "2098-01-01"))
    with stage.attempt("Version 2 before version 1:", who="ada", refuses="STG-001 STG-004 STG-014"):
        stage.edit("projects/toys/project.yaml", "stage: proposed", "stage: v2")
    with stage.attempt("Somebody who is not of the team:", who="cy", refuses="STG-011"):
        stage.edit("projects/toys/README.md", "# Toys in Proportion", "# Toys out of Proportion")
    with stage.attempt("A review of what is only proposed:", who="eva", refuses="REV-002 STG-004"):
        stage.write("reviews/toys/eva.md", "Nice.\n")


def write_up(stage: Stage, paper: str) -> None:
    """Write what the template leaves to the team: here, its own words."""
    for path in sorted((stage.clone / "projects" / paper).iterdir()):
        if path.suffix == ".ipynb":
            notebook = json.loads(path.read_text(encoding="utf-8"))
            for cell in notebook["cells"]:
                cell["source"] = "".join(cell["source"]).replace("WRITE:", "A toy:").splitlines(keepends=True)
            path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        elif path.is_file():
            path.write_text(path.read_text(encoding="utf-8").replace("WRITE:", "A toy:"), encoding="utf-8")


# -- Version 1 ---------------------------------------------------------------------------------------------------------


def version_1(stage: Stage) -> None:
    stage.scene(
        "Version 1",
        "The team of `toys` writes its code, and makes a mistake that no test of theirs sees: samples are drawn as if "
        "all components were equally likely. They run it, publish the results, and let notebook and README show them:",
    )
    stage.branch("toys")
    tests = "projects/toys/test_toys.py"
    stage.edit("projects/toys/toys.py", PROPORTIONS, MISTAKE)
    stage.edit(tests, the_test(stage), "")
    stage.commit("The model", who="bo", at="2026-03-28T12:00:00Z")
    results(stage, "toys")
    stage.say("A claim was too easy. It is put right with an amendment, which is shown wherever the claim is:")
    stage.edit("projects/toys/project.yaml", "tolerance: 0.5", "tolerance: 0.4")
    amend(stage, AMENDMENT)
    stage.say(f"```yaml\namendments:\n{AMENDMENT}\n```")
    stage.edit("projects/toys/project.yaml", "stage: proposed", "stage: v1")
    stage.quietly("referee tables toys")
    stage.commit("Version 1 of toys", who="ada", at="2026-03-30T12:00:00Z")
    stage.say("The forge looks at it, and then runs it, in a job that holds nothing worth having:")
    stage.pull_request("submission.yml", "ada")
    with stage.attempt("A commit from the future:", who="ada", refuses="STG-010", at="2026-03-30T12:00:00Z"):
        stage.write("projects/toys/README.md", stage.text("projects/toys/README.md") + "\nMore.\n")
        stage.clock = "2098-01-01T12:00:00Z"
    stage.clock = "2026-03-30T12:00:00Z"
    stage.merge("toys")

    stage.say("The team of `blobs` has its version ready after midnight.")
    stage.branch("blobs")
    results(stage, "blobs", shown=False)
    stage.edit("projects/blobs/project.yaml", "stage: proposed", "stage: v1")
    stage.commit("Version 1 of blobs", who="cy", at="2026-04-01T20:00:00Z")
    stage.say("Two days after the deadline it would have been refused, although the commit says that it is in time:")
    stage.gate("cy", pushed="2026-04-04T08:00:00Z", refuses="STG-003")
    stage.say("Ten hours after it, it is accepted with a quarter of its points off:")
    stage.gate("cy", pushed="2026-04-02T08:00:00Z")
    stage.say(
        "Whatever the commit says, that is when it came. edith keeps what the forge's event says for the grades, in a "
        "folder of her own, before she merges it:"
    )
    (stage.folder / "grades").mkdir(mode=0o700)
    stage.run("referee gate --base origin/main --event ../event.json --private ../grades", shows="^counts from")
    stage.merge("blobs", at="2026-04-02T08:00:00Z")
    stage.say("`strokes` submits nothing, and stays a proposal.")


def amend(stage: Stage, entry: str) -> None:
    stage.edit("projects/toys/project.yaml", "\ndeviations:", f"\namendments:\n{entry}\n\ndeviations:")


def the_test(stage: Stage) -> str:
    """The test that sees the mistake, as the template has it."""
    (test,) = re.findall(r"def test_samples_follow.*?\n\n\n", stage.text("templates/project/test_paper.py"), flags=re.S)
    return test


def results(stage: Stage, paper: str, shown: bool = True) -> None:
    """Run the smoke preset, publish it, and let notebook and README show it."""
    for command in (
        f"referee run {paper} --preset smoke --publish --quiet",
        f"jupyter nbconvert --to notebook --execute --inplace projects/{paper}/{paper}.ipynb",
        f"referee tables {paper}",
    ):
        if shown:
            stage.run(command, shows=None)
        else:
            stage.quietly(command)


# -- Reviews -----------------------------------------------------------------------------------------------------------


def assign(stage: Stage) -> None:
    stage.scene("Reviewers", "edith has reviewers assigned: nobody their own, no two teams each other, no conflicts.")
    stage.branch("assignment")
    stage.run("referee assign --seed 1")
    assert "toys: [eva, fay]" in stage.text("reviews/assignment.yaml")
    stage.commit("Who reviews what", who="edith", at="2026-04-02T12:00:00Z")
    stage.gate("edith")
    stage.merge("assignment")
    stage.say("Nobody reviews their own project, or in spite of a conflict:")
    stage.refusal("referee review start toys --as bo", "REV-032")
    stage.refusal("referee review start blobs --as eva", "REV-031")


def review(stage: Stage) -> None:
    stage.scene(
        "Reviews",
        "A review is pinned to a commit. What checks and probes can answer is answered, with its evidence; the rest is "
        "the reviewer's. eva begins:",
    )
    for who, day in (("eva", 10), ("fay", 12)):
        stage.branch(f"review-{who}")
        path = f"reviews/toys/{who}.md"
        if who == "fay":
            stage.say("fay reviews `toys`, too: a minor finding, and a question.")
            stage.quietly("referee review start toys --as fay --no-probes")
        else:
            stage.run("referee review start toys --as eva")
            stage.say(
                "She works through the checklist. An item that is only ticked says nothing that others can check:"
            )
        fill_review(stage, "toys", who)
        if who == "eva":
            whole = stage.text(path)
            stage.write(path, re.sub(r"(- \[x\] `faith-equations`.*(?:\n  >.*)*)\n  - evidence.*", r"\1", whole))
            stage.refusal("referee review check toys", "REV-021")
            stage.write(path, whole)
            stage.say("With evidence for each, and a finding where the samples are wrong, the review is whole:")
            stage.run("referee review check toys")
            stage.say("```markdown\n" + whole[whole.index("### F1") :].strip() + "\n```")
        stage.commit(f"Review of toys by {who}", who=who, at=f"2026-04-{day}T12:00:00Z")
        if who == "eva":
            stage.pull_request("review.yml", "eva")
        stage.merge(f"review-{who}")
    stage.say("ada reviews `blobs` and finds nothing. Now cy, who wrote it, cannot review what is ada's any more:")
    stage.branch("review-ada")
    stage.quietly("referee review start blobs --as ada --no-probes")
    fill_review(stage, "blobs", "ada")
    stage.quietly("referee review check blobs")
    stage.commit("Review of blobs by ada", who="ada", at="2026-04-13T12:00:00Z")
    stage.merge("review-ada")
    stage.refusal("referee review start toys --as cy", "REV-033")
    stage.say("fay reviews it as well. Others were assigned to it, so hers is one more than those it needs:")
    stage.branch("review-more")
    stage.quietly("referee review start blobs --as fay --no-probes")
    fill_review(stage, "blobs", "fay")
    stage.commit("Review of blobs by fay", who="fay", at="2026-04-14T12:00:00Z")
    stage.gate("fay")
    stage.merge("review-more")
    stage.branch("edit")
    with stage.attempt("A review is its author's. When ada makes it kinder:", who="ada", refuses="REV-034 REV-028"):
        stage.edit("reviews/toys/eva.md", "recommendation: major", "recommendation: minor")
    with stage.attempt(
        "What was reviewed stays in the history; another commit is not it:", who="eva", refuses="REV-029 STG-009"
    ):
        text = stage.text("reviews/toys/eva.md")
        stage.write("reviews/toys/eva.md", re.sub(r'commit: "[0-9a-f]{40}"', f'commit: "{"a1" * 20}"', text, count=1))
    with stage.attempt(
        "bo's review of `blobs` comes five days late:", who="bo", refuses="REV-002 STG-003", at="2026-04-20T12:00:00Z"
    ):
        stage.write("reviews/blobs/bo.md", "All is well.\n")


def line_of(stage: Stage, path: str, what: str) -> str:
    """A place: the first line of a file that holds these words."""
    number = next(n for n, line in enumerate(stage.text(path).splitlines(), 1) if what in line)
    return f"{path}:{number}"


PLACES = {  # where the code answers an item of the checklist; the rest is in log_prob
    "train": "def train(",
    "eval": "def evaluate(",
    "data": "Binarise(data.levels)",
    "code": "class Mixture",
    "res": "PRESETS: dict",
}


FINDINGS = (
    {  # of toys: reviewer -> findings: the item, the severity, the file and the words that lead to the place, the text
        "eva": [
            ("eval-samples", "major", "toys.py", MISTAKE, "Samples are drawn as if all components were equally likely.")
        ],
        "fay": [
            ("faith-deviations", "minor", "project.yaml", "deviations:", "Say which data were binarised, and how."),
            (
                "train-convergence",
                "question",
                "toys.py",
                "def train(",
                "Is the curve of the likelihood flat at the end?",
            ),
        ],
    }
)
RECOMMENDED = {"eva": "major", "fay": "minor", "ada": "accept"}


def fill_review(stage: Stage, paper: str, who: str) -> None:
    """What a reviewer writes into the form."""
    path = f"reviews/{paper}/{who}.md"
    text = stage.text(path)
    fields = {"conflict_of_interest": "none", "hardware": "a laptop with two cores", "minutes": "90", "ai_use": "none"}
    for name, value in {**fields, "recommendation": RECOMMENDED[who]}.items():
        text = re.sub(rf"^{name}: .*", f"{name}: {value}", text, count=1, flags=re.M)
    text = re.sub(r"WRITE: what the project does.*", "A mixture of Bernoullis, small and clear.", text)
    findings = FINDINGS[who] if paper == "toys" else []
    items = {item: f"F{n}" for n, (item, *_) in enumerate(findings, 1)}

    def answer(match: re.Match[str]) -> str:
        item, form = match[1], match[2]
        if item in items:
            return f"- [ ] `{item}`{form}  - finding: {items[item]}"
        words = PLACES.get(item.partition("-")[0], "def log_prob")
        return f"- [x] `{item}`{form}  - evidence: `{line_of(stage, f'projects/{paper}/{paper}.py', words)}`"

    text = re.sub(r"- \[ \] `([\w-]+)`(.*(?:\n  >.*)*\n)  - WRITE.*", answer, text)
    found = [
        f"### {items[item]} · {severity} · `{line_of(stage, f'projects/{paper}/{file}', words)}`\n\n{said}"
        for item, severity, file, words, said in findings
    ]
    written = "\n\n".join(found) or "None."
    stage.write(path, re.sub(r"## Findings\n\nWRITE.*", lambda _: f"## Findings\n\n{written}", text))


# -- Version 2 ---------------------------------------------------------------------------------------------------------


def version_2(stage: Stage) -> None:
    stage.scene(
        "Version 2",
        "The team of `toys` writes the test that would have caught the mistake, sees it fail, mends the code, and "
        "makes its results anew, since they are of other code now.",
    )
    stage.branch("answers")
    theirs = "The answers are the team's. When eva, who has reviewed it, gives them:"
    with stage.attempt(theirs, who="eva", refuses="REV-034"):
        stage.quietly("referee respond toys")
    stage.branch("toys")
    code, tests = "projects/toys/toys.py", "projects/toys/test_toys.py"
    stage.edit(tests, "def test_one_component", f"{the_test(stage)}def test_one_component")
    only = f"pytest -p no:cacheprovider {tests} -k samples"
    stage.run(only, shows=r"^FAILED", fails=True)
    stage.edit(code, MISTAKE, PROPORTIONS)
    stage.run(only, shows=r"^\d+ passed")
    fix = stage.commit("Samples follow the proportions", who="bo", at="2026-04-20T12:00:00Z")
    results(stage, "toys")
    stage.edit("projects/toys/project.yaml", "stage: v1", "stage: v2")
    stage.say("Every finding wants an answer:")
    stage.run("referee respond toys")
    answers = {
        "eva/F1": f"fixed\n\n- commit: {fix}\n- test: {tests}::test_samples_follow_the_model\n\nThey do now.",
        "fay/F1": "disputed\n\nThe README says it: once, with a fixed seed.",
        "fay/F2": "answered\n\nAt the smoke preset it still falls, and nothing is claimed there.",
    }
    respond(stage, {key: said for key, said in answers.items() if key != "fay/F1"})
    stage.say("As long as one is left out:")
    stage.refusal("referee check toys", "REV-040")
    respond(stage, answers)
    stage.say("A commit that was there before the mistake was found is no fix:")
    reviewed = re.findall(r'commit: "?([0-9a-f]{40})', stage.text("reviews/toys/eva.md"))[0]
    respond(stage, {**answers, "eva/F1": answers["eva/F1"].replace(fix, reviewed)})
    stage.refusal("referee review check toys", "REV-041")
    respond(stage, answers)
    stage.say("All three answered, version 2 may be submitted:")
    answered = stage.text("reviews/toys/response.md")
    stage.say("```markdown\n" + re.sub(fix, "<commit>", answered[answered.index("### ") :]).strip() + "\n```")
    stage.commit("Version 2 of toys", who="ada", at="2026-04-29T12:00:00Z")
    stage.run("referee check toys")
    stage.gate("ada")
    stage.merge("toys")
    stage.branch("blobs")
    lacking = "`blobs` has two reviews, but only one by those assigned, and has to wait:"
    with stage.attempt(lacking, who="cy", refuses="STG-004"):
        stage.edit("projects/blobs/project.yaml", "stage: v1", "stage: v2")
    stage.branch("toys")
    with stage.attempt("An amendment stays on record; taking it away:", who="ada", refuses="STG-006 STG-008"):
        text = stage.text("projects/toys/project.yaml")
        stage.write("projects/toys/project.yaml", re.sub(r"amendments:\n.*\n\n", "", text))


def respond(stage: Stage, answers: dict[str, str]) -> None:
    """The team's response, with these answers."""
    path = "reviews/toys/response.md"
    head, *_ = re.split(r"^### ", stage.text(path), flags=re.M)
    stage.write(path, head + "\n\n".join(f"### {key} · {said}" for key, said in answers.items()) + "\n")


# -- Decision and grades -----------------------------------------------------------------------------------------------


def decide(stage: Stage) -> None:
    stage.scene("The decision", "Only edith publishes. When ada sets `published` by herself:")
    with stage.attempt("", who="ada", refuses="STG-005 STG-014"):
        stage.edit("projects/toys/project.yaml", "stage: v2", "stage: published")
    stage.say("Nor does she decide:")
    stage.refusal("referee decide toys --as ada", "REV-045")
    stage.say("edith looks at the project herself, rules on what is disputed, and accepts:")
    stage.branch("decision")
    stage.run("referee decide toys --as edith")
    path = "reviews/toys/decision.md"
    text = stage.text(path)
    text = re.sub(r"^decision: .*", "decision: accept", text, count=1, flags=re.M)
    text = re.sub(r"^date: .*", "date: 2026-05-06", text, count=1, flags=re.M)
    text = re.sub(r"WRITE: why; .*", "It does what it says, and a review made it better.", text)
    text = text.replace("WRITE: upheld or overruled", "overruled").replace("WRITE: why.", "The README does say it.")
    place = line_of(stage, "projects/toys/toys.py", PROPORTIONS)
    found = (
        f"### E1 · major · `{place}`\n\nSamples ignored the proportions.\n\n- item: `eval-samples`\n- same as: eva/F1"
    )
    stage.write(path, re.sub(r"## Findings\n\nWRITE.*", lambda _: f"## Findings\n\n{found}", text))
    stage.edit("projects/toys/project.yaml", "stage: v2", "stage: published")
    stage.run("referee review check toys")
    stage.say("What each reviewer found of what she found:")
    stage.run("referee review score toys")
    stage.commit("Decision on toys", who="edith", at="2026-05-06T12:00:00Z")
    stage.gate("edith")
    stage.merge("decision")
    stage.run("referee status", shows=r"^\d+ proposed")


def grade(stage: Stage) -> None:
    stage.scene(
        "Grades",
        "edith's marks lie in a folder of her own, and nowhere else. When `blobs` came lies there already, in "
        "`pushes.json`.",
    )
    private = stage.folder / "grades"
    (private / "marks.yaml").write_text(MARKS, encoding="utf-8")
    stage.say("```yaml\n" + MARKS + "```")
    stage.say("The repository is public, and no place for grades:")
    stage.run("referee grade --private .", shows="^referee", fails=True)
    stage.say("`blobs` pays for its ten hours, `strokes` for its version, bo for the review that did not come:")
    stage.run("referee grade --private ../grades --as-of 2026-05-06", shows=r"^(?!Written)")
    stage.say("Everybody gets an explanation to recompute it by hand. That of fay:")
    stage.say("~~~markdown\n" + stage.normal((private / "fay.md").read_text(encoding="utf-8")) + "\n~~~")
