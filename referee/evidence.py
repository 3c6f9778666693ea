"""Evidence, looked up: places at a commit, and the output of checks and probes there.

Everything is read through `git` with lists of arguments; nothing of a commit is run except by `Checkout`'s probes and
commands, and those only when somebody asks for it.
"""

import ast
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from common.errors import UserError
from referee.project import Project
from referee.reviews import SLACK, Place

MAX_FILE = 8 * 1024 * 1024  # bytes of a file that is looked into
GIT_S, PROBE_S, COMMAND_S = 60, 600, 1200


class GitError(UserError):
    """What was asked of git cannot be answered; the message says why."""


def git(root: Path, *arguments: str, limit: int = MAX_FILE) -> bytes | None:
    """What git prints, None if it fails.

    Raises:
        GitError: git is missing, hangs, or prints more than `limit` bytes.
    """
    # Neither pagers, nor programs that a repository's configuration names for diffs, nor prompts.
    command = ["git", "--no-pager", "-c", "core.fsmonitor=false", "-C", str(root), *arguments]
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        ) as process:
            assert process.stdout is not None
            output = process.stdout.read(limit + 1)
            if len(output) > limit:
                process.kill()
                raise GitError(f"git {arguments[0]}: more than {limit // 1024} KiB.")
            return output if process.wait(GIT_S) == 0 else None
    except FileNotFoundError:
        raise GitError("git is not installed; reviews are pinned to commits.") from None
    except subprocess.TimeoutExpired:
        raise GitError(f"git {arguments[0]}: no answer in {GIT_S} seconds.") from None


@dataclass(frozen=True)
class Snapshot:
    """The repository at a commit."""

    root: Path
    commit: str  # 40 hexadecimal digits

    @classmethod
    def of(cls, root: Path, name: str) -> "Snapshot":
        """The commit of that name: HEAD, or 7 to 40 hexadecimal digits.

        Raises:
            GitError: there is none, or more than one.
        """
        if name != "HEAD" and not re.fullmatch(r"[0-9a-f]{7,40}", name):
            raise GitError(f"'{name[:60]}' is no commit id; 7 to 40 hexadecimal digits.")
        found = git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        if found is None:
            raise GitError(
                f"the commit {name[:12]} is not in this repository. Was the history edited, or only a part of it "
                "fetched (git fetch --unshallow)?"
            )
        return cls(root, found.decode("ascii").strip())

    @cached_property
    def _texts(self) -> dict[str, str | None]:
        return {}

    def kind(self, path: str) -> str | None:
        """What lies at a path: 'blob', 'link', 'tree', None for nothing."""
        listed = git(self.root, "ls-tree", "-z", self.commit, "--", path)
        entry = (listed or b"").split(b"\0")[0].decode("utf-8", "replace")
        if not entry or entry.partition("\t")[2] != path:
            return None
        mode, kind = entry.split()[:2]
        return "link" if mode == "120000" else kind

    def text(self, path: str) -> str | None:
        """The text of a file; None if there is no plain file of that name, or it is no text, or too large."""
        if path not in self._texts:
            self._texts[path] = None
            if self.kind(path) == "blob":
                size = git(self.root, "cat-file", "-s", f"{self.commit}:./{path}")
                if size is not None and int(size) <= MAX_FILE:
                    raw = git(self.root, "cat-file", "blob", f"{self.commit}:./{path}") or b""
                    self._texts[path] = raw.decode("utf-8", "replace") if b"\0" not in raw else None
        return self._texts[path]

    def wrong(self, place: Place) -> str | None:
        """Why a place is not there at this commit; None when it is."""
        kind = self.kind(place.path)
        at = f"at {self.commit[:10]}"
        if kind is None:
            return f"there is no '{place.path}' {at}"
        if place.first is None and place.cell is None:
            return None if kind in ("blob", "tree") else f"'{place.path}' is no file {at}"
        text = self.text(place.path)
        if text is None:
            return f"'{place.path}' is no text file {at}"
        if place.cell is not None:
            cells = notebook_cells(text)
            if place.cell not in cells and not (place.cell.isdecimal() and 1 <= int(place.cell) <= len(cells)):
                return (
                    f"'{place.path}' has no cell '{place.cell}' {at} (a number from 1 to {len(cells)}, or a cell's id)"
                )
            return None
        lines = len(text.splitlines())
        assert place.last is not None
        if place.last > lines:
            return f"'{place.path}' has {lines} lines {at}, not {place.last}"
        return None

    def has_test(self, path: str, name: str) -> bool:
        """Whether a Python file defines a test: `test_this`, or `TestThat::test_this`; parameters are not looked at."""
        text = self.text(path)
        if text is None or not path.endswith(".py") or len(text) > 1024 * 1024:
            return False
        try:
            here: Sequence[ast.stmt] = ast.parse(text).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
        for part in name.partition("[")[0].split("::"):
            found = [
                n
                for n in here
                if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and n.name == part
            ]
            if not found:
                return False
            here = found[-1].body
        return not isinstance(found[-1], ast.ClassDef)

    def is_before(self, other: "Snapshot") -> bool:
        """Whether this commit is an ancestor of the other, and not the same."""
        if self.commit == other.commit:
            return False
        return git(self.root, "merge-base", "--is-ancestor", self.commit, other.commit) is not None

    def changes(self) -> set[str]:
        """The paths that this commit changes, against its first parent."""
        listed = git(
            self.root, "diff-tree", "--root", "-r", "-m", "--first-parent", "--no-commit-id", "--name-only",
            "--no-renames", "-z", self.commit, limit=MAX_FILE,
        )  # fmt: skip
        return {os.fsdecode(name) for name in (listed or b"").split(b"\0") if name}

    def touched(self, place: Place, later: "Snapshot") -> bool:
        """Whether the place reads otherwise at a later commit (for a whole file or a cell: whether the file does)."""
        difference = git(
            self.root, "diff", "-U0", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames",
            self.commit, later.commit, "--", place.path,
        )  # fmt: skip
        if not difference or place.first is None or place.last is None:
            return bool(difference)
        for match in re.finditer(rb"^@@ -(\d+)(?:,(\d+))? \+", difference, re.M):
            first, count = int(match[1]), int(match[2] or 1)
            if first <= place.last + SLACK and place.first <= first + max(count - 1, 0) + SLACK:
                return True
        return False


def notebook_cells(text: str) -> list[str]:
    """The ids of a notebook's cells in order, '' for those without; [] when it is no notebook."""
    try:
        cells = json.loads(text)["cells"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    if not isinstance(cells, list):
        return []
    return [str(cell.get("id", "")) if isinstance(cell, dict) else "" for cell in cells]


# -- What checks, probes and commands say ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """What something that was run came to."""

    good: bool
    output: str  # what the digest is taken of
    shown: str  # for people

    @property
    def digest(self) -> str:
        """sha256 of the output."""
        return hashlib.sha256(self.output.encode("utf-8")).hexdigest()


@contextmanager
def checkout(root: Path, commit: str) -> Iterator[Path]:
    """The repository with all files as they are at a commit: itself when it stands there unchanged, else a copy.

    The copy is a clone that borrows the objects; it is removed afterwards.
    """
    if Snapshot.of(root, "HEAD").commit == commit:
        changed = git(root, "status", "--porcelain", "--untracked-files=all", "--", ".", ":!reviews", ":!runs")
        if changed == b"":
            yield root
            return
    with tempfile.TemporaryDirectory(prefix="referee-") as folder:
        copy = Path(folder) / "repository"
        cloned = git(root, "clone", "--quiet", "--shared", "--no-checkout", "--no-tags", "--", str(root), str(copy))
        if cloned is None or git(copy, "checkout", "--quiet", "--detach", commit) is None:
            raise GitError(f"the files of {commit[:12]} could not be laid out.")
        yield copy


def check_says(project: Project, stage: str, rules: Sequence[str], *, code: bool = False) -> Said:
    """What checks say of a project; several count as one that asks for them all.

    Args:
        code: run also those that run the paper's code.

    Raises:
        UserError: there is no such check, it is about reviews themselves, or it runs code and may not.
    """
    from referee.checks import Submission, every_check, run
    from referee.checks.base import Needs

    known = every_check()
    needs: list[Needs] = ["files", "others", *(["code", "notebook"] if code else [])]  # type: ignore[list-item]
    for rule in rules:
        if rule not in known:
            raise UserError(f"there is no check '{rule[:20]}'.")
        if rule.startswith(("REV", "STG", "CRS")):
            raise UserError(f"the check {rule} is not about the project's work: it is no evidence in a review of it.")
        if known[rule].needs not in needs:
            raise UserError(f"the check {rule} runs code.")
    outcome = run(Submission(project, stage), needs=needs, only=rules)
    found = [f for f in outcome.findings if f.severity != "note"]
    silent = [rule for rule in rules if rule in outcome.skipped]
    output = {
        "passed": [r for r in rules if r in outcome.passed],
        "skipped": silent,
        "findings": [[f.rule, f.severity, f.file, f.line, f.message] for f in outcome.findings],
    }
    words = [f"{f.rule} at {f.file}:{f.line}: {f.message}" for f in found]
    words += [f"{rule} could not look" for rule in silent if not found]
    return Said(not words, json.dumps(output, sort_keys=True), "; ".join(words) or "satisfied")


def probes_say(tree: Path, paper: str, names: Sequence[str] | None = None) -> dict[str, Said]:
    """Run a paper's probes, in a process of their own: name -> what each came to.

    Numbers differ in their last digits between machines, so the digest is of the statement and the verdict.

    Args:
        tree: the repository's folder to run in.
        names: these probes; all that the paper offers when not given.

    Raises:
        UserError: they could not be run.
    """
    only = ["--only", ",".join(names)] if names else []
    done = _referee(tree, ["probe", paper, "--format", "json", *only], PROBE_S)
    try:
        results: list[dict[str, Any]] = json.loads(done.stdout)["probes"]
    except (ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(f"the probes of {paper} could not be run: {last[:300]}") from None
    said: dict[str, Said] = {}
    for result in results:
        numbers = ", ".join(
            f"{k} {v if isinstance(v, str) else format(v, '.4g')}" for k, v in result["numbers"].items()
        )
        verdict = "passed" if result["passed"] else f"failed: {' '.join(str(result['detail']).split())[:200]}"
        output = json.dumps([result["name"], result["statement"], result["passed"]])
        said[result["name"]] = Said(bool(result["passed"]), output, f"{verdict}{'; ' if numbers else ''}{numbers}")
    return said


def command_says(tree: Path, command: str) -> Said:
    """Run `referee probe …` or `referee check …` as a review names it; nothing else is run.

    Raises:
        UserError: it is another command.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    plain = all(re.fullmatch(r"[A-Za-z0-9_.,:=-]+", word) for word in words)
    if len(words) < 3 or words[0] != "referee" or words[1] not in ("probe", "check") or not plain:
        raise UserError(f"'{command[:80]}' is not run again: only 'referee probe …' and 'referee check …' are.")
    if any(word.startswith("--") and word.partition("=")[0] not in RERUN for word in words[2:]):
        raise UserError(f"'{command[:80]}' is not run again with these options; only {', '.join(RERUN)} are.")
    done = _referee(tree, words[1:], COMMAND_S)
    shown = f"exit status {done.returncode}"
    return Said(done.returncode == 0, done.stdout, shown)


RERUN = ("--only", "--format", "--stage")
"""Options of a command that is run again from a review."""


def _referee(tree: Path, arguments: list[str], limit: int) -> subprocess.CompletedProcess[str]:
    """Run the `referee` of a folder, on that folder."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "120", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "referee", *arguments]
    try:
        return subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, errors="replace", timeout=limit,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UserError(f"'referee {' '.join(arguments)}' took more than {limit} seconds.") from None
