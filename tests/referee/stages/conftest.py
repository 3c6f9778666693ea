"""A small course in a repository of its own, with dates that are fixed."""

import os
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from referee.history import Event
from referee.stages import Gate, open_gate

COURSE = """\
name: A course
timezone: Europe/Berlin
deadlines: {proposed: 2026-12-01, v1: 2027-01-15, reviews: 2027-01-29, v2: 2027-02-12}
late: {hours: 24, penalty: 0.25}
people:
  - {handle: ada, roles: [developer, reviewer]}
  - {handle: bo, roles: [developer, reviewer]}
  - {handle: cy, roles: [developer, reviewer]}
  - {handle: edith, roles: [editor]}
"""

PROJECT = """\
stage: proposed
family: vae
paper: {title: A Paper on Toys, authors: [Ada Maker], venue: ICLR, year: 2016}
team: [{handle: ada, role: everything}]
licence: MIT
claims:
  - {id: nll-k50, kind: value, source: Table 1, certainty: mem, metric: nll, dataset: toys, preset: paper, run: k50,
     paper_value: 84.70, direction: lower, tolerance: 0.5}
  - {id: more-helps, kind: ordering, source: section 5, certainty: mem, statement: k=50 < k=5, metric: nll,
     dataset: toys, preset: laptop, runs: [k50, k5]}
"""

BEGIN = "2026-11-01T12:00:00+00:00"


@dataclass
class Repository:
    """A git repository that knows nothing of this machine's configuration."""

    root: Path
    clock: str = BEGIN
    environment: dict[str, str] = field(default_factory=dict)

    def git(self, *arguments: str, date: str | None = None) -> str:
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("GIT_")},
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_SYSTEM": "/dev/null",
            "GIT_AUTHOR_NAME": "ada",
            "GIT_AUTHOR_EMAIL": "ada@example.org",
            "GIT_COMMITTER_NAME": "ada",
            "GIT_COMMITTER_EMAIL": "ada@example.org",
            "GIT_AUTHOR_DATE": date or self.clock,
            "GIT_COMMITTER_DATE": date or self.clock,
            **self.environment,
        }
        done = subprocess.run(
            ["git", "-C", str(self.root), *arguments], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def commit(self, *files: tuple[str, str | None], date: str | None = None, message: str = "work") -> str:
        """Commit these files (None: deleted); later commits are made no earlier."""
        for path, text in files:
            if text is None:
                (self.root / path).unlink()
            else:
                self.write(path, text)
        self.clock = date or self.clock
        self.git("add", "-A")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def branch(self, name: str = "work") -> None:
        """Continue on a new branch from the present commit."""
        self.git("checkout", "--quiet", "-b", name)

    def gate(self, actor: str | None = "ada", now: str | None = None, event: Event | None = None) -> Gate:
        moment = datetime.fromisoformat(now) if now else datetime.fromisoformat(self.clock)
        return open_gate(self.root, "main", event, actor, moment.astimezone(UTC))


YAML = "projects/toy/project.yaml"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """The course set up on main; work goes on a branch."""
    root = tmp_path / "course"
    root.mkdir()
    made = Repository(root)
    made.git("init", "--quiet", "--initial-branch=main")
    made.commit(("pyproject.toml", ""), ("projects/__init__.py", ""), ("course.yaml", COURSE))
    return made


@pytest.fixture
def proposed(repository: Repository) -> Repository:
    """A proposal accepted on main."""
    repository.commit((YAML, PROJECT), date="2026-11-20T12:00:00+00:00", message="proposal accepted")
    repository.branch()
    return repository


@pytest.fixture
def submitted(proposed: Repository) -> Repository:
    """Version 1 accepted on main."""
    proposed.git("checkout", "--quiet", "main")
    proposed.commit((YAML, at("v1")), date="2027-01-10T12:00:00+00:00", message="version 1")
    proposed.git("checkout", "--quiet", "-B", "work")
    return proposed


@pytest.fixture
def long_ago(repository: Repository) -> Repository:
    """A proposal accepted at a time that is past by any clock, for commands, which ask the real one."""
    repository.commit((YAML, PROJECT), date="2025-11-20T12:00:00+00:00", message="proposal accepted")
    repository.branch()
    return repository


def at(stage: str, project: str = PROJECT) -> str:
    return project.replace("stage: proposed", f"stage: {stage}")


def rules(gate: Gate, severity: str = "error") -> list[str]:
    return [f.rule for f in gate.findings if f.severity == severity]


def said(gate: Gate) -> str:
    return "\n".join(map(str, gate.findings))
