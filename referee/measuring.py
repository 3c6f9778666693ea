"""`referee calibrate measure`: each known mistake against the tests, the probes and the checks.

A mistake is planted in a throw-away copy of the repository's tracked files, never in the working tree. There run the
tests and probes of the projects it touches, the tests of the part of `common` it is in, and `referee check`. What fails
there and does not fail without the mistake has caught it. Records of the copy are stamped with its code, as if the
mistake had been there when they were made: a stale record would catch everything and prove nothing.

Each answer is kept in docs/calibration.json as soon as it is there, with a digest of what it depends on: an interrupted
measurement continues, and a later one asks again only what changed. The table docs/calibration.md is written from it.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from common.errors import nearest
from common.records import write_text
from referee.calibrate import CalibrationError, Mutation, clone, commit, corpus, plant, restamp, tracked
from referee.checks import every_check
from referee.project import UsageError, find_root, paper_names
from referee.words import number_of

KEPT = Path("docs/calibration.json")
PAGE = Path("docs/calibration.md")
COLUMNS = ("tests", "probes", "checks")
APPLIED = "tests/common/probes/test_applied.py"
"""The probes applied to what no project uses yet; each test is named for its probe."""
MAX_OUTPUT = 4 * 1024 * 1024  # bytes of a command's output that are read

Caught = Mapping[str, Sequence[str]]
"""Column -> what failed."""

WITHOUT = "(none)"
"""The name under which the answers of a copy without a mistake are kept."""


def measure_command(options: argparse.Namespace) -> int:
    """`referee calibrate measure`."""
    if options.jobs < 1 or not options.timeout > 0:
        raise UsageError("--jobs and --timeout must be positive.")
    root = find_root()
    every = corpus(root)
    chosen = _chosen(every, options.only)
    kept = _Kept(root)
    if not options.table:
        with _stoppable():
            _measure(root, chosen, kept, fresh=options.fresh, jobs=options.jobs, timeout_s=options.timeout)
        kept.forget_others(every)
    write_text(root / PAGE, page(root, every, kept.answers))
    print(_summary(every, _measured(root, every, kept.answers)))
    print(PAGE.as_posix())
    return 0


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM ends us, and with us what we started, as Ctrl-C does.

    A shell lets what it starts in the background ignore Ctrl-C; what we start would inherit that, and tests of it fail.
    """
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _chosen(every: Mapping[str, Mutation], only: str | None) -> list[Mutation]:
    names = [name for name in (only or "").split(",") if name] or list(every)
    for name in names:
        if name not in every:
            raise UsageError(f"there is no mutation '{name[:80]}'.{nearest(name, every)}")
    return [every[name] for name in names]


# -- What is asked, and what was answered ------------------------------------------------------------------------------


def questions(root: Path, mutation: Mutation) -> list[str]:
    """What is asked about a mistake: 'pytest <path>', 'probe <paper>', 'check <paper>', 'reread <paper>'.

    Tests and probes do not look at what was published, so they are asked about code only. Where no project uses the
    code, the probes are those of `APPLIED`. About what was published (`reread`) the checks execute the notebook, too,
    and compare with what was committed before; a team whose code is mistaken from the start has executed its notebook
    with that code.
    """
    asked = []
    if mutation.is_code:
        asked += [f"pytest projects/{name}" for name in mutation.projects]
        if mutation.file.startswith("common/"):
            file = Path("tests") / mutation.file
            own = file.with_name(f"test_{file.name}")
            asked.append(f"pytest {(own if (root / own).is_file() else own.parent).as_posix()}")
            if not mutation.projects:
                asked.append(f"pytest {APPLIED}")
        asked += [f"probe {name}" for name in mutation.projects]
    return asked + [f"{'check' if mutation.is_code else 'reread'} {name}" for name in mutation.projects]


def _column(question: str) -> str:
    if question == f"pytest {APPLIED}" or question.startswith("probe "):
        return "probes"
    return "tests" if question.startswith("pytest ") else "checks"


def identity(mutation: Mutation) -> str:
    """A digest of what is planted; the words about it may change freely."""
    planted = [mutation.projects, mutation.file, mutation.find, mutation.replace, mutation.copy_of]
    return hashlib.sha256(json.dumps(planted).encode()).hexdigest()[:16]


def depends(question: str) -> list[str]:
    """The files, as git's patterns, that an answer depends on."""
    what, subject = question.split(" ")
    project = f"projects/{subject}"
    if what == "pytest":
        folder = subject if Path(subject).suffix == "" else Path(subject).parent.as_posix()
        return ["common/*.py", f"{folder}/*.py"]
    if what == "probe":
        return ["common/*.py", f"{project}/{subject}.py", f"{project}/project.yaml"]
    return ["common/*.py", project, "referee/*.py", ":!referee/calibrate.py", ":!referee/measuring.py"]


class _Kept:
    """docs/calibration.json: mutation -> question -> {what was planted, what it depended on, what failed}.

    What fails without a mistake, too, is kept there alone.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.path = root, root / KEPT
        self._codes: dict[str, str] = {}
        try:
            self.answers: dict[str, dict[str, dict[str, Any]]] = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self.answers = {}
        except ValueError as error:
            raise CalibrationError(f"{KEPT.as_posix()} is not JSON ({error}); delete it and measure again.") from None

    def code(self, question: str) -> str:
        """A digest of the files an answer depends on, as they are in the working tree."""
        if question not in self._codes:
            digest = hashlib.sha256()
            for path in tracked(self.root, depends(question)):
                if (self.root / path).is_file():
                    digest.update(f"{path}\0".encode() + (self.root / path).read_bytes() + b"\0")
            self._codes[question] = digest.hexdigest()[:16]
        return self._codes[question]

    def get(self, name: str, planted: str, question: str) -> list[str] | None:
        """What failed, if that was measured on the present code."""
        answer = self.answers.get(name, {}).get(question, {})
        current = answer.get("planted") == planted and answer.get("code") == self.code(question)
        return list(answer["failed"]) if current else None

    def add(self, name: str, planted: str, question: str, failed: list[str]) -> None:
        answer = {"planted": planted, "code": self.code(question), "failed": failed}
        self.answers.setdefault(name, {})[question] = answer
        self._write()

    def forget_others(self, every: Mapping[str, Mutation]) -> None:
        """Drop the answers to what is not asked any more."""
        asked = {name: questions(self.root, mutation) for name, mutation in every.items()}
        asked[WITHOUT] = [question for each in asked.values() for question in each]
        self.answers = {
            name: {question: answer for question, answer in here.items() if question in asked[name]}
            for name, here in self.answers.items()
            if name in asked
        }
        self._write()

    def _write(self) -> None:
        write_text(self.path, json.dumps(dict(sorted(self.answers.items())), indent=1, ensure_ascii=False) + "\n")


def caught(root: Path, mutation: Mutation, answers: Mapping[str, Any]) -> Caught | None:
    """What noticed a mistake; None when not all was asked yet, or something else was planted then."""
    here = answers.get(mutation.id, {})
    by: dict[str, list[str]] = {column: [] for column in COLUMNS}
    for question in questions(root, mutation):
        answer = here.get(question, {})
        if answer.get("planted") != identity(mutation):
            return None
        by[_column(question)] += answer["failed"]
    return {column: list(dict.fromkeys(map(_brief, failed))) for column, failed in by.items()}


# -- Measuring ---------------------------------------------------------------------------------------------------------


def _measure(
    root: Path, mutations: Sequence[Mutation], kept: _Kept, *, fresh: bool, jobs: int, timeout_s: float
) -> None:
    """Plant each mistake in a copy of its own, ask what was not asked yet, and keep each answer."""
    todo = {m.id: [q for q in questions(root, m) if fresh or kept.get(m.id, identity(m), q) is None] for m in mutations}
    todo = {name: asked for name, asked in todo.items() if asked}
    print(f"{number_of(len(mutations), 'mistake')}, of which {len(todo)} have yet to be measured on the present code.")
    if not todo:
        return
    lock = threading.Lock()
    with _Commands(timeout_s) as commands, tempfile.TemporaryDirectory(prefix="calibrate-") as folder:
        clean = Path(folder) / "clean"
        clone(root, clean)
        restamp(clean, paper_names(clean))
        _require_own_code(commands, clean)
        commands.write_tables(clean)
        commit(clean)
        known: dict[str, list[str]] = {}
        for question in sorted({question for asked in todo.values() for question in asked}):
            answer = None if fresh else kept.get(WITHOUT, "", question)
            if answer is None:
                print(f"without a mistake: {question}", flush=True)
                answer = commands.ask(clean, question)
                if answer is None:
                    raise CalibrationError(
                        f"no answer from '{question}' in {timeout_s:.0f} s, although no mistake was planted: is the "
                        "machine busy? Ask again with a larger --timeout."
                    )
                kept.add(WITHOUT, "", question, answer)
            known[question] = answer

        def one(mutation: Mutation) -> float:
            start = time.monotonic()
            copy = Path(folder) / mutation.id
            try:
                shutil.copytree(clean, copy)
                plant(copy, [mutation])
                restamp(copy, mutation.projects)
                if mutation.file.endswith((".json", ".yaml")):  # whoever changed what a table shows wrote it anew
                    commands.write_tables(copy)
                for question in todo[mutation.id]:
                    failed = commands.ask(copy, question, known[question])
                    if failed is None:
                        print(f"{mutation.id}: no answer from '{question}' in {timeout_s:.0f} s", flush=True)
                        continue
                    caught_by = [each for each in failed if each not in known[question]]
                    with lock:
                        kept.add(mutation.id, identity(mutation), question, caught_by)
            finally:
                shutil.rmtree(copy, ignore_errors=True)
            return time.monotonic() - start

        with ThreadPoolExecutor(jobs) as pool:
            running = {pool.submit(one, mutation): mutation for mutation in mutations if mutation.id in todo}
            try:
                for number, done in enumerate(as_completed(running), start=1):
                    seconds, mutation = done.result(), running[done]
                    by = caught(root, mutation, kept.answers)
                    told = "not all was answered" if by is None else _told(by)
                    print(f"[{number}/{len(todo)}] {mutation.id}: {told} ({seconds:.0f} s)", flush=True)
            except BaseException:
                commands.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _told(by: Caught) -> str:
    return "; ".join(f"{column}: {', '.join(what)}" for column, what in by.items() if what) or "nobody"


def _brief(failed: str) -> str:
    """What failed, to be read in a table: 'test_iwae::test_bound', 'bound', 'RES-005'."""
    if match := re.match(rf"{re.escape(APPLIED)}::test_(\w+)", failed):
        return match[1]
    if match := re.match(r"(?:.*/)?(test_\w+)\.py::(\w+(?:::\w+)*)", failed):
        return f"{match[1]}::{match[2]}"
    if match := re.match(r"([A-Z]{2,4}-\d{3}) ", failed):
        return match[1]
    return failed


def _require_own_code(commands: "_Commands", copy: Path) -> None:
    """Python in the copy must import the copy's code: an installed package could come first."""
    look = "import common, pathlib; print(pathlib.Path(common.__file__).resolve().parents[1])"
    _, output = commands.run(copy, ["-c", look])
    if output.strip() != str(copy.resolve()):
        raise CalibrationError(f"a copy imports {output.strip()[:200]}, not its own code: nothing would be measured.")


class _Commands:
    """Runs Python in a copy: one thread of arithmetic each, at low priority, bounded in time, stopped together."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def __enter__(self) -> "_Commands":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End everything that still runs, and begin nothing more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                _end(process)

    def run(self, folder: Path, arguments: Sequence[str]) -> tuple[int | None, str]:
        """Python's exit status, None when its time was over, and the end of what it wrote."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }
        low = ["nice", "-n", "19"] if shutil.which("nice") else []
        with tempfile.TemporaryFile() as output:
            with self._lock:
                if self._stopped:
                    raise CalibrationError("stopped.")
                # A process group of its own, so that it ends with all that it started.
                process = subprocess.Popen(
                    [*low, sys.executable, *arguments],
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    process_group=0,
                )
                self._running.add(process)
            try:
                status: int | None = process.wait(self.timeout_s)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                _end(process)
                with self._lock:
                    self._running.discard(process)
            if self._stopped:  # what it wrote may be half of it
                raise CalibrationError("stopped.")
            output.seek(max(0, output.seek(0, os.SEEK_END) - MAX_OUTPUT))
            return status, output.read().decode("utf-8", "replace")

    def ask(self, folder: Path, question: str, known: Sequence[str] | None = None) -> list[str] | None:
        """What fails in a copy: names of tests and probes, findings as 'RULE file: message'; None: it took too long.

        Args:
            known: what fails without a mistake. When given, tests leave these out and end at the first other failure.
        """
        what, subject = question.split(" ")
        if what == "probe":
            return self.probes(folder, subject)
        if what in ("check", "reread"):
            return self.findings(folder, subject, reread=what == "reread", changed=known is not None)
        if known is None or subject == APPLIED:  # each probe is asked
            return self.tests(folder, subject, [])
        return self.tests(folder, subject, ["-x", *(f"--deselect={name}" for name in known)])

    def tests(self, folder: Path, path: str, options: Sequence[str]) -> list[str] | None:
        """The tests that fail, by pytest's names."""
        quiet = ["-q", "--tb=no", "-rfE", "-p", "no:cacheprovider", "--color=no"]
        status, output = self.run(folder, ["-m", "pytest", path, *quiet, *options])
        if status is None:
            return None
        failed = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE)
        return failed if failed or status == 0 else [f"{path} (pytest ends with {status})"]

    def probes(self, folder: Path, paper: str) -> list[str] | None:
        """The probes that fail."""
        status, output = self.run(folder, ["-m", "referee", "probe", paper, "--format", "json"])
        if status is None:
            return None
        tree = _json(output)
        if not isinstance(tree, dict) or "probes" not in tree:
            return [f"(the probes end with {status})"]
        return [probe["name"] for probe in tree["probes"] if not probe["passed"]]

    def findings(self, folder: Path, paper: str, *, reread: bool, changed: bool) -> list[str] | None:
        """What the checks find, but for those that run the tests and the probes, which are asked by themselves.

        Args:
            reread: execute the notebook, too, and
            changed: compare with the copy's commit, from which a mistake in what was published differs.
        """
        left_out = {"TST-003", "PRB-003"} | (set() if reread else {"NB-010"})
        rules = ",".join(sorted(set(every_check()) - left_out))
        which = ["--changed", "HEAD"] if reread and changed else [paper]
        status, output = self.run(
            folder, ["-m", "referee", "check", *which, "--run", "--only", rules, "--format", "json"]
        )
        if status is None:
            return None
        tree = _json(output)
        if not isinstance(tree, dict) or "papers" not in tree:
            raise CalibrationError(f"referee check {paper} ends with {status} in a copy:\n{output.strip()[-2000:]}")
        return [f"{f['rule']} {f['file']}: {f['message']}" for each in tree["papers"] for f in each["findings"]]

    def write_tables(self, folder: Path) -> None:
        """Generate all tables anew."""
        status, output = self.run(folder, ["-m", "referee", "tables"])
        if status != 0:
            raise CalibrationError(f"referee tables ends with {status} in a copy:\n{output.strip()[-2000:]}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and all that it started, if anything is left of them."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _json(output: str) -> Any:
    """The JSON document in a command's output, None when there is none; warnings may stand before it."""
    for match in re.finditer(r"^[\[{]", output, re.MULTILINE):
        with contextlib.suppress(ValueError):
            return json.JSONDecoder().raw_decode(output, match.start())[0]
    return None


# -- The table ---------------------------------------------------------------------------------------------------------

INTRODUCTION = """\
# Which mistakes are caught, and by whom

<!-- Written by `referee calibrate measure`; do not edit. -->

The referee's tests, probes and checks are worth what they notice. To know what that is, each of the mistakes below was
planted, alone, in a throw-away copy of this repository, and everything that could notice it was run there:

- **tests**: those of the projects whose numbers it changes, and of the part of `common` it is in, up to the first that
  fails;
- **probes**: those that the projects name; where no project uses the code yet, those that
  [`test_applied.py`](../tests/common/probes/test_applied.py) applies to it;
- **checks**: `referee check`. A mistake in code is planted as if it had been there when the records were made, so no
  record is stale; for one in what was published the notebook is executed, too, and what is submitted is compared with
  what was there before. Tests and probes do not look at what was published.

Some tests and checks were written because a mistake below had gone unnoticed. So the numbers say what is guarded, not
what share of unknown mistakes would be found.

The mistakes stand in [`referee/mutations/`](../referee/mutations). To measure again what has changed since, or one of
them:

```sh
referee calibrate measure
referee calibrate measure --only {example}
```
"""


def _measured(root: Path, every: Mapping[str, Mutation], answers: Mapping[str, Any]) -> dict[str, Caught]:
    found = {name: caught(root, mutation, answers) for name, mutation in every.items()}
    return {name: by for name, by in found.items() if by is not None}


def _person_only(mutation: Mutation) -> bool:
    """Whether nobody expects a machine to notice it."""
    return mutation.caught_by == ["person"]


def _group(mutation: Mutation) -> str:
    """Where it is planted, as the page's headings say it."""
    if not mutation.is_code:
        return "what was published"
    return "`common`" if mutation.file.startswith("common/") else f"`projects/{mutation.projects[0]}`"


def _counts(every: Mapping[str, Mutation], measured: Mapping[str, Caught]) -> list[int]:
    """Mistakes measured; noticed by tests, by probes, by checks; left to a person; noticed by nobody."""
    unnoticed = [name for name, by in measured.items() if not any(by.values())]
    person = sum(_person_only(every[name]) for name in unnoticed)
    noticed_by = [sum(bool(by[column]) for by in measured.values()) for column in COLUMNS]
    return [len(measured), *noticed_by, person, len(unnoticed) - person]


def _summary(every: Mapping[str, Mutation], measured: Mapping[str, Caught]) -> str:
    """How many mistakes were caught, in one line."""
    n, tests, probes, checks, person, nobody = _counts(every, measured)
    missing = len(every) - n
    return (
        f"{number_of(n, 'mistake')}: {n - person - nobody} noticed "
        f"({tests} by tests, {probes} by probes, {checks} by checks), "
        f"{person} that only a person can see, {nobody} by nobody."
        + (f" {missing} more are not measured yet." if missing else "")
    )


def silent(mutation: Mutation, by: Caught) -> list[str]:
    """Who was expected to notice a mistake and did not."""
    column = {"tests": by["tests"], "probe": by["probes"], "check": by["checks"]}
    wanting = []
    for catcher in mutation.caught_by:
        who, _, name = catcher.partition(" ")
        if who in column and not (name in column[who] if name else column[who]):
            wanting.append(catcher)
    return wanting


def page(root: Path, every: Mapping[str, Mutation], answers: Mapping[str, Any]) -> str:
    """docs/calibration.md: the table *mistake × caught by*, from what was measured."""
    measured = _measured(root, every, answers)
    groups: dict[str, list[str]] = {}
    for name in sorted(measured, key=lambda name: not every[name].is_code):
        groups.setdefault(_group(every[name]), []).append(name)
    lines = [
        INTRODUCTION.format(example=next(iter(every))),
        f"**{_summary(every, measured)}**",
        "",
        "| planted in | mistakes | tests | probes | checks | only a person | nobody |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for group, names in groups.items():
        counts = _counts(every, {name: measured[name] for name in names})
        lines.append(f"| {group} | {' | '.join(map(str, counts))} |")
    lines.append(f"| all | {' | '.join(map(str, _counts(every, measured)))} |")
    if wanting := {name: missed for name, by in measured.items() if (missed := silent(every[name], by))}:
        lines += ["", "Expected to notice, and did not:", ""]
        lines += [f"- `{name}`: {', '.join(missed)}." for name, missed in wanting.items()]
    for group, names in groups.items():
        columns = [column for column in COLUMNS if every[names[0]].is_code or column == "checks"]
        lines += ["", f"## Planted in {group}", ""]
        lines.append(f"| mistake | severity | {' | '.join(columns)} |")
        lines.append(f"| --- | --- |{' --- |' * len(columns)}")
        for name in names:
            cells = [", ".join(f"`{each}`" for each in measured[name][column]) or "–" for column in columns]
            who = "<br>**only a person**" if _person_only(every[name]) else "<br>**nobody**"
            told = "" if any(measured[name].values()) else who
            mistake = every[name].mistake.replace("|", "\\|")
            lines.append(f"| `{name}`{told}<br><sub>{mistake}</sub> | {every[name].severity} | {' | '.join(cells)} |")
    failing = sorted({_brief(each) for answer in answers.get(WITHOUT, {}).values() for each in answer["failed"]})
    if failing:
        lines += ["", f"Failed without any mistake, and so not counted: {', '.join(f'`{each}`' for each in failing)}."]
    return "\n".join([*lines, ""])
