"""A small cohort in a git repository: a paper by `team-a`, another by `bo`, reviewers, an editor."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from referee.checklist import load_checklist
from referee.checks import Outcome, Submission, run
from referee.project import Project
from referee.reviews import MARKER

COURSE = """\
name: A cohort
people:
  - {handle: team-a, roles: [developer]}
  - {handle: bo, roles: [developer, reviewer]}
  - {handle: carol, roles: [reviewer]}
  - {handle: dave, roles: [reviewer], conflicts: [team-a]}
  - {handle: frida, roles: [developer]}
  - {handle: eve, roles: [editor]}
"""

TESTS = "def test_right():\n    assert True\n\n\nclass TestMore:\n    def test_inside(self):\n        assert True\n"

NOTEBOOK = '{"cells": [{"id": "a1", "cell_type": "markdown", "source": "x"}, {"cell_type": "code", "source": "1"}]}'


class Cohort:
    """The repository, and short ways to change and look at it."""

    def __init__(self, root: Path):
        self.root = root
        self.project = Project(root, "toy")
        self.clock = 1_700_000_000

    def git(self, *arguments: str) -> str:
        dates = {f"GIT_{who}_DATE": f"{self.clock} +0000" for who in ("AUTHOR", "COMMITTER")}
        names = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        done = subprocess.run(
            ["git", "-C", str(self.root), *arguments],
            env={**os.environ, **dates, **names},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def commit(self, message: str = "work") -> str:
        """Commit everything; the commit's id."""
        self.clock += 3600
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def write(self, path: str, text: str) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8", errors="surrogateescape")
        return target

    def read(self, path: str) -> str:
        return (self.root / path).read_text(encoding="utf-8")

    def edit(self, path: str, *pairs: tuple[str, str]) -> None:
        text = self.read(path)
        for old, new in pairs:
            assert old in text, old
            text = text.replace(old, new, 1)
        self.write(path, text)

    def review(self, handle: str = "carol", *pairs: tuple[str, str], commit: str | None = None) -> str:
        """Write a review with nothing wrong but these replacements; its path."""
        path = f"reviews/toy/{handle}.md"
        self.write(path, good_review(handle, commit or self.git("rev-parse", "HEAD")))
        self.edit(path, *pairs)
        return path

    def outcome(self, stage: str = "v2", *, code: bool = False) -> Outcome:
        rules = [f"REV-{n:03}" for n in range(1, 60)]
        return run(Submission(self.project, stage), needs=("files", "code") if code else ("files",), only=rules)

    def says(self, stage: str = "v2", *, code: bool = False) -> list[tuple[str, str]]:
        """Rule and message of all errors."""
        return [(f.rule, f.message) for f in self.outcome(stage, code=code).findings if f.severity == "error"]


def good_review(handle: str, commit: str) -> str:
    """A review of the paper with two findings and a question, in which nothing is wrong."""
    lines = [
        "---",
        f"reviewer: {handle}",
        "paper: toy",
        "round: 1",
        f'commit: "{commit}"',
        "checklist: 1",
        "conflict_of_interest: none",
        "hardware: a laptop",
        "minutes: 90",
        "ai_use: none",
        "recommendation: major",
        "---",
        "",
        "# Review",
        "",
        "## Summary",
        "",
        "It works.",
        "",
        "## Checklist",
        "",
    ]
    for i, name in enumerate(load_checklist().for_family("vae")):
        lines.append(f"- [{' ' if i in (1, 2, 3) else 'x'}] `{name}` text")
        if i == 1:
            lines.append("  - finding: F1")
        elif i == 2:
            lines.append("  - finding: F2, F3")
        elif i == 3:
            lines.append("  - n/a: invented data")
        else:
            lines.append("  - evidence: `projects/toy/toy.py:1` as it should be")
    lines += [
        "",
        "## Findings",
        "",
        "### F1 · major · `projects/toy/toy.py:30-32`",
        "",
        "The step is wrong: it has another sign.",
        "",
        "### F2 · minor · `projects/toy/README.md`",
        "",
        "```",
        "### F9 · major · `not a heading`",
        "```",
        "",
        "A word is missing.",
        "",
        "### F3 · question · `projects/toy/toy.ipynb#a1`",
        "",
        "Why?",
        "",
    ]
    return "\n".join(lines)


def filled(text: str) -> str:
    """A review as `referee review start` writes it, filled in with as little as it takes."""
    for old, new in (
        ('"WRITE: none, or what binds you to the team"', "none"),
        ('"WRITE: what you ran it on"', "a laptop"),
        ('"WRITE: none, or which tools you used, and for what"', "none"),
        ("minutes:  ", "minutes: 5  "),
        ("recommendation:  ", "recommendation: accept  "),
    ):
        assert old in text, old
        text = text.replace(old, new)
    text = re.sub(r"- \[ \] (.*\n(?:  > .*\n)*)  - WRITE: .*", r"- [x] \1  - evidence: `projects/toy/toy.py:1`", text)
    text = re.sub(r"## Findings\n\nWRITE: .*", "## Findings\n\nNone.", text)
    text = re.sub(r"WRITE: what the project does.*", "It works.", text)
    assert MARKER not in text
    return text


@pytest.fixture
def cohort(root: Path, monkeypatch: pytest.MonkeyPatch) -> Cohort:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    monkeypatch.chdir(root)
    made = Cohort(root)
    made.write("course.yaml", COURSE)
    made.write(".gitignore", "__pycache__/\nruns/\n")
    made.write("projects/toy/test_toy.py", TESTS)
    made.write("projects/toy/toy.ipynb", NOTEBOOK)
    theirs = made.read("projects/toy/project.yaml").replace("handle: team-a", "handle: bo")
    made.write("projects/other/project.yaml", theirs)
    made.git("init", "-q", "-b", "main")
    made.commit("version 1")
    return made
