"""Where the rehearsal plays: a bare repository as the forge, one clone to work in, a clock of its own, and a script.

Every step is one sentence and the commands that make it; all is written down for the tutorial. Commands run as people
type them, in processes of their own, with the referee of the copy.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

ROOT = Path(__file__).parents[2]
FORGE = "course/papers"
SHOWN = r"^[\w-]+: |^\w+( at stage|:? · )|^(\d+ errors?|nothing found)|^::|^The gate"
"""Of what the steps print: the changes, the findings, the verdict."""


@dataclass
class Stage:
    """A forge and a clone in `folder`; `script` is the Markdown that the tutorial consists of.

    `clock` is when commits are made and pushed, in UTC: the past, so that it never lies ahead of the real clock.
    """

    folder: Path
    clock: str = "2026-02-16T09:00:00Z"
    script: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # the rules by which something was refused, in order

    @property
    def clone(self) -> Path:
        return self.folder / "papers"

    # -- Words ---------------------------------------------------------------------------------------------------------

    def scene(self, title: str, what: str) -> None:
        self.script.append(f"## {title}\n\n{what}")

    def say(self, what: str) -> None:
        self.script.append(what)

    # -- Commands ------------------------------------------------------------------------------------------------------

    def run(self, command: str, *, shows: str | None = "", fails: bool = False) -> str:
        """Run a command in the clone and write it down.

        Args:
            command: as it is typed. No shell sees it.
            shows: a regular expression: the lines of what is printed that the tutorial shows ('' all, None none).
            fails: whether it has to be refused.

        Raises:
            AssertionError: it came out otherwise.
        """
        words = shlex.split(command)
        words = [sys.executable, "-m", *words] if words[0] in ("referee", "pytest") else words
        done = subprocess.run(
            words, cwd=self.clone, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        said = done.stdout
        assert (done.returncode != 0) == fails, f"{command}: exit status {done.returncode}\n{said}"
        assert "Traceback" not in said, said
        shown = "" if shows is None else "\n".join(line for line in said.splitlines() if re.search(shows, line))
        self.script.append("```console\n" + f"$ {command}\n{self.normal(shown)}".strip() + "\n```")
        return said

    def quietly(self, command: str) -> None:
        """Run a command that the tutorial does not show."""
        length = len(self.script)
        self.run(command, shows=None)
        del self.script[length:]

    def git(self, *words: str) -> str:
        """A git command that the tutorial does not show."""
        done = subprocess.run(["git", *words], cwd=self.clone, env=self._environment, capture_output=True, text=True)
        assert done.returncode == 0, f"git {' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    def text(self, path: str) -> str:
        return (self.clone / path).read_text(encoding="utf-8")

    def write(self, path: str, text: str) -> None:
        file = self.clone / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def edit(self, path: str, old: str, new: str) -> None:
        text = self.text(path)
        assert text.count(old) == 1, f"{path} holds {text.count(old)} times: {old}"
        self.write(path, text.replace(old, new))

    # -- The forge -----------------------------------------------------------------------------------------------------

    def branch(self, name: str) -> None:
        self.git("switch", "--quiet", "--force-create", name, "main")

    def commit(self, message: str, *, who: str, at: str | None = None) -> str:
        """Commit everything; the commit's id."""
        self.clock = at or self.clock
        self.git("add", "--all")
        self.git("-c", f"user.name={who}", "-c", f"user.email={who}@example.org", "commit", "--quiet", "-m", message)
        return self.git("rev-parse", "HEAD")

    def gate(self, who: str, *, pushed: str | None = None, refuses: str | None = None) -> None:
        """What the forge's gate says to a pull request: submission.yml's own step, with the event's payload.

        Args:
            pushed: when the forge received it, if not by the clock.
            refuses: the rules that shut the gate, all of them; open when not given.
        """
        workflow = self._workflow("submission.yml")
        (step,) = (step for step in workflow["jobs"]["gate"]["steps"] if step["name"] == "referee gate")
        said = self._step(
            step, self._inputs(workflow, self._event(who, pushed)), fails=refuses is not None, shows=SHOWN
        )
        if refuses is not None:
            rules = set(re.findall(r"^::error .*title=([A-Z]{3}-\d{3})", said, flags=re.M))
            assert rules == set(refuses.split()), said
            self.refused += refuses.split()

    def pull_request(self, name: str, who: str) -> None:
        """Everything that a workflow does with a pull request: the steps of all its jobs, which have to succeed.

        Actions (checking out, setting up, keeping files) are the rehearsal's: the clone has what they bring.
        """
        workflow, event = self._workflow(name), self._event(who)
        outputs: dict[str, str] = {}  # of the steps before, by name; each job here sets others
        for job in workflow["jobs"].values():
            matrix = job.get("strategy", {}).get("matrix", {})
            for papers in json.loads(outputs["papers"]) if matrix else [""]:
                environment = self._inputs({"env": {**workflow["env"], **job.get("env", {})}}, event, papers)
                for step in job["steps"]:
                    if "run" not in step or "failure" in step.get("if", ""):  # nothing has failed
                        continue
                    shown = ">>" not in step["run"]  # what is printed, and not kept for another step
                    self._step(step, environment, shows=SHOWN if shown else None, silent=not shown)
                    for line in (self.folder / "output").read_text().splitlines():
                        key, _, value = line.partition("=")
                        outputs[key] = value

    def _workflow(self, name: str) -> dict[str, Any]:
        text = self.text(f".github/workflows/{name}")
        workflow: dict[str, Any] = yaml.load(text, Loader=yaml.BaseLoader)  # to which 'on' is a word
        return workflow

    def _event(self, who: str, pushed: str | None = None) -> dict[str, Any]:
        """The payload of a pull request's event, which also lies where the workflows find it."""
        event = self._payload(who, pushed or self.clock)
        (self.folder / "event.json").write_text(json.dumps(event))
        return event

    def _inputs(self, workflow: dict[str, Any], event: dict[str, Any], papers: str = "") -> dict[str, str]:
        """The environment of a workflow's steps, its expressions looked up in the event."""

        def value(match: re.Match[str]) -> str:
            if match[1] == "matrix.papers":
                return papers
            here: Any = {"github": {"event": event}}
            for key in match[1].split("."):
                here = here[key]
            return str(here)

        stated = {key: re.sub(r"\$\{\{ ([\w.-]+) \}\}", value, text) for key, text in workflow["env"].items()}
        files = {"GITHUB_EVENT_PATH": "event.json", "GITHUB_OUTPUT": "output", "GITHUB_STEP_SUMMARY": "summary.md"}
        return stated | {key: f"../{name}" for key, name in files.items()} | {"RUNNER_TEMP": ".."}

    def _step(
        self, step: dict[str, Any], environment: dict[str, str], *, shows: str | None, fails: bool = False,
        silent: bool = False,
    ) -> str:  # fmt: skip
        """A workflow's step, as it stands there; what it prints."""
        (self.folder / "output").write_text("")
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=self.clone,
            env={**self._environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said = done.stdout
        assert (done.returncode != 0) == fails, f"{step['name']}: exit status {done.returncode}\n{said}"
        assert "Traceback" not in said, said
        if not silent:
            command = re.sub(r"(\.\./)?\.venv/bin/", "", step["run"])
            command = re.sub(r'"\$(\w+)"', lambda match: environment[match[1]], command)
            lines = [line for line in said.splitlines() if shows is not None and re.search(shows, line)]
            self.script.append("```console\n" + self.normal(f"$ {command}\n" + "\n".join(lines)).strip() + "\n```")
        return said

    @contextmanager
    def attempt(self, what: str, *, who: str, refuses: str, at: str | None = None) -> Iterator[None]:
        """A change that the gate has to refuse, by these rules; it is taken back afterwards.

        The body makes the change; `at` is when the forge receives it, if not by the clock.
        """
        begin = self.git("rev-parse", "HEAD")
        if what:
            self.say(what)
        yield
        self.commit(what or "work", who=who, at=self.clock)
        self.gate(who, pushed=at, refuses=refuses)
        self.git("reset", "--quiet", "--hard", begin)

    def refusal(self, command: str, rule: str) -> None:
        """A command that has to be refused, by this rule."""
        said = self.run(command, shows=rf"{rule}|^ {{4}}", fails=True)
        assert rule in said, said
        self.refused.append(rule)

    def merge(self, branch: str, at: str | None = None) -> None:
        """The editor merges what passed the gate, and the forge has it."""
        self.clock = at or self.clock
        self.git("switch", "--quiet", "main")
        name = ["-c", "user.name=edith", "-c", "user.email=edith@example.org"]
        self.git(*name, "merge", "--quiet", "--no-ff", "-m", f"Merge {branch}", branch)
        self.git("push", "--quiet", "origin", "main")

    def _payload(self, who: str, pushed: str) -> dict[str, Any]:
        """A pull_request event of a fork, with the fields that the workflow and the referee look at."""
        person = {"login": who, "id": 1, "type": "User", "site_admin": False}
        head, base = self.git("rev-parse", "HEAD"), self.git("rev-parse", "origin/main")
        here = {"full_name": FORGE, "fork": False, "default_branch": "main"}
        fork = {"full_name": f"{who}/papers", "fork": True, "pushed_at": pushed}
        return {
            "action": "synchronize",
            "number": 1,
            "pull_request": {
                "number": 1,
                "state": "open",
                "user": person,
                "updated_at": pushed,
                "head": {"ref": "work", "sha": head, "user": person, "repo": fork},
                "base": {"ref": "main", "sha": base, "repo": here},
            },
            "repository": here,
            "sender": person,
        }

    def normal(self, text: str) -> str:
        """Text without what differs from one day, machine or version of the checks to another."""
        text = text.replace(str(self.folder), "..")
        pattern = r"^::(error|warning|notice) file=([^,:]*),line=(\d+),title=([\w-]+)::(.*)"
        text = re.sub(pattern, annotated, text, flags=re.M)
        text = re.sub(r"\b[0-9a-f]{64}\b", "<sha256>", text)
        text = re.sub(r"\b[0-9a-f]{10,40}\b", "<commit>", text)  # one in a hundred begins with ten digits
        text = re.sub(r"\b\d+ checks passed", "… checks passed", text)
        text = re.sub(r"^(The gate is \w+)\b.*|( deselected) in .*", r"\1\2", text, flags=re.M)
        lines = (line.rstrip() for line in text.splitlines() if not line.startswith("not asked: "))
        return "\n".join(lines).strip("\n")

    @property
    def _environment(self) -> dict[str, str]:
        return {
            **{name: os.environ[name] for name in ("TMPDIR", "SYSTEMROOT") if name in os.environ},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.folder / "home"),
            "PYTHONPATH": str(self.clone),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "100",
            "NO_COLOR": "1",
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_AUTHOR_DATE": self.clock,
            "GIT_COMMITTER_DATE": self.clock,
        }


def annotated(match: re.Match[str]) -> str:
    """A finding as a forge's page has it: its rule and place above what it says."""
    level, file, line, rule, message = map(unquote, match.groups())
    mark = {"error": "✗", "warning": "!", "notice": "·"}[level]
    place = file if line == "1" else f"{file}:{line}"
    return f"{mark} {rule}  {place}\n" + textwrap.fill(message, 116, initial_indent="    ", subsequent_indent="    ")


def set_up(folder: Path, course: str) -> Stage:
    """A copy of this repository without its projects as the forge's first commit, with a course of its own."""
    stage = Stage(folder)
    stage.clone.mkdir(parents=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in sorted(listed.stdout.decode().split("\0")):
        source = ROOT / name
        project = name.startswith("projects/") and name.count("/") > 1
        if not name or project or name.startswith(("benchmarks/", "tests/")) or not source.is_file():
            continue
        target = stage.clone / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    stage.write("course.yaml", course)
    for place in (folder, stage.clone):  # where the workflows' steps expect what 'make setup' makes
        script = place / ".venv" / "bin" / "referee"
        script.parent.mkdir(parents=True)
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m referee "$@"\n')
        script.chmod(0o755)
    stage.git("init", "--quiet", "--initial-branch=main")
    stage.git("init", "--quiet", "--bare", "../origin.git")
    stage.git("remote", "add", "origin", str(folder / "origin.git"))
    return stage


INTRODUCTION = """\
# A semester, from beginning to end

How a course goes: three teams, an editor, and what is refused on the way. The commands and what they print are real,
of a rehearsal that the tests play (`tests/rehearsal`); hashes are left out. What the forge says to a pull request is
said by the steps of its workflows, with the event's payload; findings are shown as its page shows them.
[CONTRIBUTING.md](../CONTRIBUTING.md) has the same steps by role, [checks.md](checks.md) explains the rules. This page
is written by `python -m tests.rehearsal --write docs/tutorial.md`."""


def tutorial(stage: Stage) -> str:
    """What was played, as Markdown."""
    return "\n\n".join([INTRODUCTION, *stage.script]) + "\n"
