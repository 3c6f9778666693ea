"""A semester, played from the course's set-up to the grades."""

import json
import re
from pathlib import Path

from tests.rehearsal.stage import Stage, set_up

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
  - {handle: cy, roles: [reviewer], expertise: [mixture]}
  - {handle: dan, roles: [reviewer]}
  - {handle: edith, roles: [editor]}
"""


def play(folder: Path) -> Stage:
    """The whole semester in a new folder."""
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
        "The editor, edith, begins with a copy of this repository and sets dates and people in `course.yaml`.",
    )
    stage.commit("The course", who="edith")
    stage.git("push", "--quiet", "--set-upstream", "origin", "main")
    stage.say("```yaml\n" + COURSE + "```")


def propose(stage: Stage) -> None:
    stage.branch("toys")
    stage.run(
        'referee new toys --title "Toys in Proportion" --authors "Ada Maker" --venue ICLR --year 2016 '
        "--family mixture --team ada,bo"
    )
    write_up(stage, "toys")
    stage.commit("Propose toys", who="ada", at="2026-02-20T12:00:00Z")
    stage.gate("ada")
    stage.merge("toys")
    stage.branch("toys")
    with stage.attempt("Version 2 before version 1 skips a stage:", who="ada", refuses="STG-001 STG-004 STG-014"):
        stage.edit("projects/toys/project.yaml", "stage: proposed", "stage: v2")
    with stage.attempt("A claim made easier after it was accepted:", who="ada", refuses="STG-006"):
        stage.edit("projects/toys/project.yaml", "tolerance: 0.5", "tolerance: 5.0")


def write_up(stage: Stage, paper: str) -> None:
    """Write what the template leaves to the team."""
    folder = stage.clone / "projects" / paper
    for path in sorted(folder.iterdir()):
        if path.suffix == ".ipynb":
            notebook = json.loads(path.read_text())
            for cell in notebook["cells"]:
                cell["source"] = written("".join(cell["source"])).splitlines(keepends=True)
            path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
        elif path.is_file():
            path.write_text(written(path.read_text()))


def written(text: str) -> str:
    text = re.sub(r'"WRITE: ([^"]*)"', r'"A toy: \1"', text)
    return re.sub(r"WRITE: ", "A toy: ", text)


def version_1(stage: Stage) -> None:
    stage.branch("toys")
    code, tests = "projects/toys/toys.py", "projects/toys/test_toys.py"
    stage.edit(code, PROPORTIONS, MISTAKE)
    (test,) = re.findall(r"def test_samples_follow.*?\n\n\n", stage.text(tests), flags=re.S)
    stage.edit(tests, test, "")
    stage.commit("The model", who="ada", at="2026-03-28T12:00:00Z")
    results(stage, "toys")
    stage.edit("projects/toys/project.yaml", "stage: proposed", "stage: v1")
    stage.commit("Version 1 of toys", who="ada", at="2026-03-30T12:00:00Z")
    stage.run("referee check toys")
    stage.gate("ada")
    stage.merge("toys")


def results(stage: Stage, paper: str) -> None:
    """Run the smoke preset, publish it, and let notebook and README show it."""
    stage.run(f"referee run {paper} --preset smoke --publish --quiet", shows=None)
    stage.run(f"jupyter nbconvert --to notebook --execute --inplace projects/{paper}/{paper}.ipynb", shows=None)
    stage.run("referee tables")


def assign(stage: Stage) -> None:
    stage.branch("assignment")
    stage.run("referee assign --seed 1")
    stage.commit("Who reviews what", who="edith", at="2026-04-02T12:00:00Z")
    stage.gate("edith")
    stage.merge("assignment")
    stage.say("Nobody reviews their own project:")
    stage.refusal("referee review start toys --as bo", "REV-032")


EVIDENCE = r"def log_prob"  # where the code answers an item of the checklist, if nothing better is known


def review(stage: Stage) -> None:
    for who, day in (("cy", 10), ("dan", 12)):
        stage.branch(f"review-{who}")
        stage.run(f"referee review start toys --as {who}")
        fill_review(stage, who)
        stage.run("referee review check toys")
        stage.commit("Review of toys", who=who, at=f"2026-04-{day}T12:00:00Z")
        stage.gate(who)
        stage.merge(f"review-{who}")


def line_of(stage: Stage, path: str, what: str) -> str:
    """A place: the first line of a file that holds these words."""
    number = next(n for n, line in enumerate(stage.text(path).splitlines(), 1) if what in line)
    return f"{path}:{number}"


def fill_review(stage: Stage, who: str) -> None:
    path, code = f"reviews/toys/{who}.md", "projects/toys/toys.py"
    text = stage.text(path)
    text = re.sub(r"conflict_of_interest: .*", "conflict_of_interest: none", text)
    text = re.sub(r"hardware: .*", "hardware: a laptop with two cores", text)
    text = re.sub(r"minutes: .*", "minutes: 90", text)
    text = re.sub(r"ai_use: .*", "ai_use: none", text)
    text = re.sub(r"recommendation: .*", f"recommendation: {'major' if who == 'cy' else 'minor'}", text)
    text = re.sub(r"WRITE: what the project does.*", "A mixture of Bernoullis, small and clear.", text)
    place = line_of(stage, code, "def log_prob")
    items = {"eval-samples": "F1"} if who == "cy" else {"faith-deviations": "F1", "train-convergence": "F2"}
    for item, finding in items.items():
        text = re.sub(rf"- \[ \] (`{item}`.*(?:\n  >.*)*\n)  - WRITE.*", rf"- [ ] \1  - finding: {finding}", text)
    text = re.sub(r"- \[ \] (`.*(?:\n  >.*)*\n)  - WRITE.*", rf"- [x] \1  - evidence: `{place}`", text)
    ambiguity = line_of(stage, "projects/toys/project.yaml", "deviations:")
    if who == "cy":
        wrong = line_of(stage, code, MISTAKE)
        found = f"### F1 · major · `{wrong}`\n\nSamples are drawn as if all components were equally likely."
    else:
        found = (
            f"### F1 · minor · `{ambiguity}`\n\nSay which data were binarised how.\n\n"
            f"### F2 · question · `{place}`\n\nIs the curve of the likelihood flat at the end?"
        )
    text = re.sub(r"## Findings\n\nWRITE.*", lambda _: f"## Findings\n\n{found}", text)
    stage.write(path, text)


def version_2(stage: Stage) -> None:
    stage.branch("toys")
    code, tests = "projects/toys/toys.py", "projects/toys/test_toys.py"
    stage.edit(code, MISTAKE, PROPORTIONS)
    template = stage.text("templates/project/test_paper.py")
    (test,) = re.findall(r"def test_samples_follow.*?\n\n\n", template, flags=re.S)
    stage.edit(tests, "def test_one_component", f"{test}def test_one_component")
    fix = stage.commit("Samples follow the proportions", who="bo", at="2026-04-20T12:00:00Z")
    results(stage, "toys")
    stage.run("referee respond toys")
    path = "reviews/toys/response.md"
    answers = {
        "cy/F1": f"fixed\n\n- commit: {fix}\n- test: {tests}::test_samples_follow_the_model\n\nThey do now.",
        "dan/F1": "disputed\n\nThe README says it: once, with a fixed seed.",
        "dan/F2": "answered\n\nAt the smoke preset it still falls, and nothing is claimed there.",
    }
    head, *_ = re.split(r"^### ", stage.text(path), flags=re.M)
    stage.write(path, head + "\n\n".join(f"### {key} · {said}" for key, said in answers.items()) + "\n")
    stage.edit("projects/toys/project.yaml", "stage: v1", "stage: v2")
    stage.commit("Version 2 of toys", who="ada", at="2026-04-29T12:00:00Z")
    stage.run("referee check toys")
    stage.gate("ada")
    stage.merge("toys")


def decide(stage: Stage) -> None:
    stage.branch("decision")
    stage.run("referee decide toys --as edith")
    path = "reviews/toys/decision.md"
    text = stage.text(path)
    text = re.sub(r"decision: .*", "decision: accept", text, count=1)
    text = re.sub(r"date: .*", "date: 2026-05-06", text, count=1)
    text = re.sub(r"WRITE: why; .*", "It does what it says, and a review made it better.", text)
    text = re.sub(r"WRITE upheld or overruled|WRITE: upheld or overruled", "overruled", text)
    text = re.sub(r"WRITE: why\.", "The README does say it.", text)
    place = line_of(stage, "projects/toys/toys.py", PROPORTIONS)
    found = (
        f"### E1 · major · `{place}`\n\nSamples ignored the proportions.\n\n- item: `eval-samples`\n- same as: cy/F1"
    )
    text = re.sub(r"## Findings\n\nWRITE.*", lambda _: f"## Findings\n\n{found}", text)
    stage.write(path, text)
    stage.edit("projects/toys/project.yaml", "stage: v2", "stage: published")
    stage.run("referee tables")
    stage.run("referee review check toys")
    stage.run("referee review score toys")
    stage.commit("Decision on toys", who="edith", at="2026-05-06T12:00:00Z")
    stage.run("referee check toys")
    stage.gate("edith")
    stage.merge("decision")


MARKS = """\
marks:
  - {paper: toys, version: v1, points: 70}
  - {paper: toys, version: v2, points: 90}
authors:
  ada: [ada@example.org]
  bo: [bo@example.org]
"""


def grade(stage: Stage) -> None:
    private = stage.folder / "grades"
    private.mkdir(mode=0o700)
    (private / "marks.yaml").write_text(MARKS)
    stage.run("referee grade --private ../grades")
    stage.say("```text\n" + (private / "grades.csv").read_text() + "```")
