"""Evidence, looked up: places at a commit, and the output of checks and probes there.

Nothing of a commit is run except its probes, and what a review says was run, and those only when somebody asks for it.
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
from referee.checks.reading import MAX_SOURCE, Unreadable, parse_python
from referee.history import History, HistoryError, printable
from referee.project import Project, UsageError
from referee.reviews import SLACK, Place

MAX_FILE = 8 * 1024 * 1024  # bytes of a file that is looked into
PROBE_S, COMMAND_S, OWN_S = 600, 1200, 3600


@dataclass(frozen=True)
class Snapshot:
    """The repository at a commit."""

    root: Path
    commit: str  # 40 hexadecimal digits

    @classmethod
    def of(cls, root: Path, name: str) -> "Snapshot":
        """The commit of that name: HEAD, or 7 to 40 hexadecimal digits.

        Raises:
            UsageError: there is none, or more than one.
        """
        if name != "HEAD" and not re.fullmatch(r"[0-9a-f]{7,40}", name):
            raise UsageError(f"'{printable(name, 60)}' is no commit id; 7 to 40 hexadecimal digits.")
        return cls(root, History(root).commit(name))

    @property
    def history(self) -> History:
        return History(self.root)

    @cached_property
    def _texts(self) -> dict[str, str | None]:
        return {}

    @cached_property
    def _kinds(self) -> dict[str, str | None]:
        return {}

    def kind(self, path: str) -> str | None:
        """What lies at a path: 'blob', 'link', 'tree', None for nothing."""
        if path not in self._kinds:
            self._kinds[path] = self._look(path)
        return self._kinds[path]

    def _look(self, path: str) -> str | None:
        listed = self.history.git("ls-tree", "-z", "--full-tree", self.commit, "--", path)
        entry = (listed or b"").split(b"\0")[0].decode("utf-8", "replace")
        if not entry or entry.partition("\t")[2] != path:
            return None
        mode, kind = entry.split()[:2]
        return "link" if mode == "120000" else kind

    def text(self, path: str) -> str | None:
        """The text of a file; None if there is no plain file of that name, or it is no text, or too large."""
        if path not in self._texts:
            try:
                self._texts[path] = self.history.text(self.commit, path, MAX_FILE)
            except HistoryError:
                self._texts[path] = None
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
        lines = text.count("\n") + (not text.endswith("\n"))
        if place.last is not None and place.last > lines:
            return f"'{place.path}' has {lines} lines {at}, not {place.last}"
        return None

    def has_test(self, path: str, name: str) -> bool:
        """Whether a Python file defines a test: `test_this`, or `TestThat::test_this`; parameters are not looked at."""
        text = self.text(path)
        if text is None or not path.endswith(".py") or len(text) > MAX_SOURCE:
            return False
        try:
            here: Sequence[ast.stmt] = parse_python(text).body
        except Unreadable:
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
        return self.commit != other.commit and self.history.is_ancestor(self.commit, other.commit)

    def changes(self) -> set[str]:
        """The paths that this commit changes, against its first parent."""
        parents = self.history.parents(self.commit)
        return {change.path for change in self.history.changes(parents[0], self.commit)} if parents else set()

    def touched(self, place: Place, later: "Snapshot") -> bool:
        """Whether the place, or within a few lines of it, reads otherwise at a later commit.

        For a whole file or a cell: whether the file does. A place that begins a block (a field with its entries, a
        function, a heading) is the block.
        """
        difference = self.history.git(
            "diff", "-U0", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames",
            self.commit, later.commit, "--", place.path,
        )  # fmt: skip
        if not difference or place.first is None or place.last is None:
            return bool(difference)
        text = self.text(place.path)
        last = place.last if text is None else max(place.last, end_of_block(text.split("\n"), place.first, place.path))
        for match in re.finditer(rb"^@@ -(\d+)(?:,(\d+))? \+", difference, re.M):
            first, count = int(match[1]), int(match[2] or 1)
            if first <= last + SLACK and place.first <= first + max(count - 1, 0) + SLACK:
                return True
        return False


def end_of_block(lines: Sequence[str], first: int, path: str) -> int:
    """The last line of what a line begins, by its number from 1: the line itself, if it begins nothing.

    What is indented more belongs to it, and list entries below a field of YAML, and closing brackets; to a heading of
    Markdown, all up to the next one of its level.
    """
    if not 1 <= first <= len(lines) or not (head := lines[first - 1]).strip():
        return first
    if path.endswith(".md") and (heading := re.match(r"(#{1,6}) ", head)):
        following = re.compile(rf"#{{1,{len(heading[1])}}} ")
        return next((n for n, line in enumerate(lines[first:], first) if following.match(line)), len(lines))
    depth = len(head) - len(head.lstrip())
    more = ")", "]", "}", *(["- "] if head.rstrip().endswith(":") else [])
    last = first
    for number, line in enumerate(lines[first:], first + 1):
        if not (inside := line.strip()):
            continue
        indent = len(line) - len(line.lstrip())
        if indent < depth or (indent == depth and not inside.startswith(more)):
            break
        last = number
    return last


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
def checkout(root: Path, commit: str, *, copy_always: bool = False) -> Iterator[Path]:
    """The repository with all files as they are at a commit: itself when it stands there unchanged, else a copy.

    The copy is a clone that borrows the objects; it is removed afterwards.

    Args:
        copy_always: a copy in any case, in which nothing lies that is not committed.
    """
    here = History(root)
    if here.commit("HEAD") == commit and not copy_always:
        status = here.git("status", "--porcelain", "--untracked-files=all", "--no-renames", "-z")
        changed = [entry[3:] for entry in (status or b"?").split(b"\0") if entry]
        if all(path.startswith((b"reviews/", b"runs/")) for path in changed):
            yield root
            return
    with tempfile.TemporaryDirectory(prefix="referee-") as folder:
        copy = Path(folder) / "repository"
        cloned = here.git("clone", "--quiet", "--shared", "--no-checkout", "--no-tags", "--", str(root), str(copy))
        if cloned is None or History(copy).git("checkout", "--quiet", "--detach", commit) is None:
            raise HistoryError(f"the files of {commit[:12]} could not be laid out. Is the temporary folder full?")
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


def own_command_says(root: Path, commit: str, command: str) -> Said:
    """Run a command as its reviewer types it, on a copy of a commit, with the programs of the present environment.

    `referee probe …` and `referee check …`, which others can repeat, are run and digested as `command_says` does. Of
    any other the digest is of what it prints without what differs from run to run (`steady`).

    Raises:
        UsageError: it is no plain command.
        UserError: it cannot be run.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"'{printable(command, 80)}' is no command: {error}.") from None
    if not words or "`" in command or len(command) > 500:
        raise UsageError(f"'{printable(command, 80)}': name one command, without backticks, of at most 500 characters.")
    if marks := [word for word in words if word in ("|", "&&", "||", ";", ">", ">>", "<", "&")]:
        message = f"'{marks[0]}' is the shell's, and no shell is asked; name one command, and it is digested as it is."
        raise UsageError(message)
    repeated = words[0] == "referee" and words[1:2] in (["probe"], ["check"])
    with checkout(root, commit, copy_always=not repeated) as tree:
        if repeated:
            return command_says(tree, command)
        if words[0] == "referee":
            words = [sys.executable, "-m", *words]
        programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        try:
            done = subprocess.run(
                words, cwd=tree, env={**_environment(tree), "PATH": programs}, capture_output=True,
                text=True, errors="replace", timeout=OWN_S, stdin=subprocess.DEVNULL, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise UserError(f"'{printable(command, 80)}' took more than {OWN_S} seconds.") from None
        except OSError as error:
            raise UserError(f"'{printable(command, 80)}' cannot be run ({error.strerror}).") from None
        if done.returncode != 0:
            last = f"{done.stdout}\n{done.stderr}".strip().split("\n")[-20:]
            return Said(False, steady(done.stdout), "\n".join(last))
        output = steady(done.stdout.replace(str(tree), "."))
    last = done.stdout.strip().split("\n")[-1:]
    return Said(True, output, f"exit status 0; {''.join(last) or 'nothing printed'}")


_STEADY = (
    (re.compile(r"\x1b\[[0-9;?]*[A-Za-z]"), ""),
    (re.compile(r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?: ?[+-]\d\d:?\d\d|Z)?)?"), "DATE"),
    (re.compile(r"\b\d{1,2}:\d\d(?::\d\d)?\b"), "TIME"),
    (re.compile(r"\b\d[\d.,]* ?[A-Za-z]*/s(?:ec)?\b"), "RATE"),
    (re.compile(r"(?:\b\d+(?:\.\d+)? ?(?:µs|ms|s|sec|seconds?|min|minutes?|h|hours?)\b[ ,]*)+"), "TIME "),
    (re.compile(r"([=─━-])\1{3,}"), r"\1"),  # rules are drawn as long as the rest of their line leaves room
    (re.compile(r"^\[\d+/\d+\] "), ""),
    (re.compile(r"[ \t]+"), " "),
)


def steady(output: str) -> str:
    """What a program printed, without what differs from run to run: dates, times, rates, colours, blanks, and in which
    order it came."""
    lines = []
    for line in output.replace("\r", "\n").split("\n"):
        for pattern, word in _STEADY:
            line = pattern.sub(word, line)
        lines.append(line.strip())
    return "\n".join(sorted(line for line in lines if line))


RERUN = ("--only", "--format", "--stage")
"""Options of a command that is run again from a review."""


def _environment(tree: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "120", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}


def _referee(tree: Path, arguments: list[str], limit: int) -> subprocess.CompletedProcess[str]:
    """Run the `referee` of a folder, on that folder."""
    command = [sys.executable, "-m", "referee", *arguments]
    try:
        return subprocess.run(
            command, cwd=tree, env=_environment(tree), capture_output=True, text=True, errors="replace", timeout=limit,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UserError(f"'referee {' '.join(arguments)}' took more than {limit} seconds.") from None
