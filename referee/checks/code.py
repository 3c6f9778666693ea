"""TST and PRB: tests exist and pass, probes exist and pass. The paper's code runs in a process of its own."""

import ast
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from referee.checks.base import FROM_V1, WARN_FROM_V1, Found, Skip, Submission, check
from referee.checks.layout import literal_keys
from referee.checks.notebook import cells
from referee.loading import check_module

PATIENCE_S = {"offer": 120, "probes": 600, "tests": 900, "notebook": 900}
"""Seconds that something of the project's may take before it is stopped."""

TAIL = 400  # letters of a process's last words that a message repeats

EXPECTED = {
    "vae": ("bound",),
    "autoregressive": ("normalisation",),
    "flow": ("bijection",),
    "diffusion": ("schedule", "sampler"),
}
"""Probes of `common.probes` that a family is expected to name."""


# -- Without running anything ------------------------------------------------------------------------------------------


@check(
    "TST-001",
    "Tests exist and test something",
    why="The mathematics is proved by tests that fail when it is broken.",
    fix="Write tests against autograd, closed forms, quadrature or a slow reference, each with an assertion.",
    severity=FROM_V1,
)
def tests_exist(submission: Submission) -> Iterator[Found]:
    path = submission.at(f"test_{submission.name}.py")
    tests = _tests(submission.tree(path))
    for test in tests:
        if not any(_does(node) for node in ast.walk(test)):
            yield path, test.lineno, f"'{test.name}' tests nothing; say what has to hold, or delete it."
    if not any(_asserts(node) for test in tests for node in ast.walk(test)):
        yield path, 1, "asserts nothing; write functions test_… that assert what the paper's mathematics says."


def _tests(tree: ast.Module) -> list[ast.FunctionDef]:
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [f for f in functions if f.name.startswith("test")]


def _does(node: ast.AST) -> bool:
    """Whether a test can fail here at all: it calls something, or asserts what is not constant."""
    return isinstance(node, ast.Call) or _asserts(node)


def _asserts(node: ast.AST) -> bool:
    """Whether a node can fail a test: it asserts what is not constant, or calls what by its name asserts."""
    if isinstance(node, ast.Assert):
        return not isinstance(node.test, ast.Constant)
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return name.startswith(("assert", "check", "raises", "fail")) or name.endswith("_agree")
    return False


@check(
    "TST-002",
    "Tests are not switched off",
    why="A skipped test proves nothing and looks like one that passed.",
    fix="Make it pass, or delete it and say so in the README.",
    severity=WARN_FROM_V1,
)
def tests_are_on(submission: Submission) -> Iterator[Found]:
    path = submission.at(f"test_{submission.name}.py")
    for test in _tests(submission.tree(path)):
        for mark in test.decorator_list:
            name = ast.unparse(mark.func if isinstance(mark, ast.Call) else mark)
            if name in ("pytest.mark.skip", "pytest.mark.xfail", "unittest.skip", "unittest.expectedFailure"):
                yield path, mark.lineno, f"'{test.name}' is switched off ({name}); make it pass or delete it."


@check(
    "PRB-001",
    "Probes named in project.yaml are in the paper's file",
    why="A probe that is named and not offered is a promise without evidence.",
    fix="Add a tiny instance to PROBES, or take the name out of project.yaml.",
    severity=FROM_V1,
)
def probes_exist(submission: Submission) -> Iterator[Found]:
    offers = literal_keys(submission.tree(submission.project.paper_file), "PROBES")
    if offers is None:
        return  # made in another way: PRJ-013 asks the module itself
    for name in submission.file.probes:
        if name not in offers:
            message = f"names the probe '{name}', which PROBES does not offer ({', '.join(offers)}); add it there."
            yield submission.at("project.yaml"), 1, message


@check(
    "PRB-002",
    "The probes that a family calls for are named",
    why="What mathematics can check, a reviewer should not have to.",
    fix="Offer a tiny instance in PROBES and name it in project.yaml, or say in the README why it does not apply.",
    severity=WARN_FROM_V1,
)
def probes_fit_the_family(submission: Submission) -> Iterator[Found]:
    file = submission.file
    for name in EXPECTED.get(file.family, ()):
        if name not in file.probes:
            message = f"names no probe '{name}', which the family '{file.family}' calls for; add it to 'probes'."
            yield submission.at("project.yaml"), 1, message


# -- Running the paper's code ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Offer:
    """What a paper's module offers, as it says when it is asked."""

    presets: dict[str, dict[str, dict[str, Any]]]  # preset -> run -> configuration
    probes: list[str]


ASK = """\
import contextlib, dataclasses, json, sys
with contextlib.redirect_stdout(sys.stderr):
    from referee.project import Project
    from pathlib import Path
    paper = Project(Path(sys.argv[1]), sys.argv[2]).module()
    presets = {p: {r: dataclasses.asdict(c) for r, c in runs.items()} for p, runs in paper.PRESETS.items()}
print(json.dumps({"presets": presets, "probes": list(paper.PROBES)}))
"""


def offered(submission: Submission) -> Offer:
    """What the paper's module offers; Skip when it cannot be imported (PRJ-013 says so)."""
    answer = _offer(submission)
    if isinstance(answer, str):
        raise Skip
    return answer


def _offer(submission: Submission) -> Offer | str:
    if "offer" not in submission.cache:
        submission.cache["offer"] = _ask(submission)
    answer: Offer | str = submission.cache["offer"]
    return answer


def _ask(submission: Submission) -> Offer | str:
    command = [sys.executable, "-c", ASK, str(submission.root), submission.name]
    status, out, err = execute(command, submission.root, PATIENCE_S["offer"])
    if status != 0:
        return f"cannot be imported: {last_words(err)}"
    try:
        raw = json.loads(out)
        return Offer({p: dict(runs) for p, runs in raw["presets"].items()}, [str(p) for p in raw["probes"]])
    except (ValueError, KeyError, TypeError, AttributeError):
        return "offers PRESETS or PROBES of another form than common/experiment.py asks for"


@check(
    "PRJ-013",
    "project.yaml: presets, runs and probes named in the file exist in the paper's module",
    why="A claim about a run that nobody can start is never judged.",
    fix="Correct the name, or add the run to PRESETS.",
    severity=FROM_V1,
    needs="code",
)
def the_module_has_what_is_named(submission: Submission) -> Iterator[Found]:
    answer = _offer(submission)
    if isinstance(answer, str):
        yield submission.project.paper_file, 1, f"{answer}; correct it."
        return
    path = submission.at("project.yaml")
    text = submission.text(path)
    for problem in check_module(submission.file, answer.presets, answer.probes, path.name, text):
        yield path, problem.line, problem.message


@check(
    "PRB-003",
    "The probes pass",
    why="A probe states in numbers what must hold: this mask is causal, this bound stays below the likelihood.",
    fix="Run 'referee probe <paper>'; each says what failed and where to look.",
    severity=FROM_V1,
    needs="code",
)
def probes_pass(submission: Submission) -> Iterator[Found]:
    name = submission.name
    if not submission.file.probes:
        return
    command = [sys.executable, "-m", "referee", "probe", name, "--format", "json"]
    status, out, err = execute(command, submission.root, PATIENCE_S["probes"])
    try:
        failed = [(str(r["name"]), str(r["detail"])) for r in json.loads(out)["probes"] if not r["passed"]]
    except (ValueError, KeyError, TypeError):
        failed = []
    for probe, detail in failed:
        message = f"the probe '{probe}' fails: {detail[:TAIL]}"
        yield submission.project.paper_file, 1, f"{message} Run 'referee probe {name}'."
    if status != 0 and not failed:
        message = f"'referee probe {name}' ends with status {status}: {last_words(err or out)}"
        yield submission.project.paper_file, 1, f"{message}; correct it."


@check(
    "TST-003",
    "The tests pass",
    why="They are what a change is checked against.",
    fix="Run 'pytest projects/<paper>' and correct what fails.",
    severity=FROM_V1,
    needs="code",
)
def tests_pass(submission: Submission) -> Iterator[Found]:
    path = submission.at(f"test_{submission.name}.py")
    if not submission.has(path.name):
        raise Skip
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", str(path)]
    status, out, err = execute(command, submission.root, PATIENCE_S["tests"])
    if status != 0:
        failed = [line for line in out.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        for line in failed[:20]:
            test, _, why = line.partition(" ")[2].partition(" - ")
            yield path, 1, f"{test.rpartition('::')[2]} fails: {why[:TAIL] or 'see pytest'}. Correct it."
        if not failed:
            yield path, 1, f"pytest ends with status {status}: {last_words(out + err)}; correct it."


@check(
    "NB-010",
    "The notebook shows again what it shows",
    why="Executed anew on the committed results it must give the same outputs.",
    fix="Restart the kernel, run all cells, save; print numbers with as many digits as are stable.",
    severity=FROM_V1,
    needs="notebook",
)
def notebook_runs_again(submission: Submission) -> Iterator[Found]:
    cells(submission)  # what cannot be read is not executed
    path = submission.at(f"{submission.name}.ipynb")
    options = "-q -p no:xdist -p no:cacheprovider -o addopts= -o filterwarnings= --nbval --nbval-current-env"
    command = [sys.executable, "-m", "pytest", *options.split(), "--nbval-cell-timeout", "300", str(path)]
    status, out, err = execute(command, submission.root, PATIENCE_S["notebook"])
    if status != 0 and "Kernel died before replying" in out + err:  # two kernels asked for one port: begins again
        status, out, err = execute(command, submission.root, PATIENCE_S["notebook"])
    if status != 0:
        failed = [line for line in out.splitlines() if line.startswith("FAILED ")]
        named = [line.rpartition("::")[2].partition(" - ")[0] for line in failed]
        what = ", ".join(named[:5]) or last_words(out + err)
        yield path, 1, f"differs when it is executed again ({what}); run all cells and save, or print fewer digits."


def execute(command: Sequence[str], folder: Path, seconds: float) -> tuple[int, str, str]:
    """Run a command to its end: status, output, errors; status 124 when it was stopped for taking too long.

    It is stopped with all that it started; what is kept of its output is bounded; it is given nothing to read.
    """
    environment = {
        **{name: value for name, value in os.environ.items() if name != "MPLBACKEND"},  # a notebook has its own
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait asleep: several commands at a time are the rule here
        "PYTHONIOENCODING": "utf-8",
        "PYTHONDONTWRITEBYTECODE": "1",  # a check leaves nothing behind
    }
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=environment,
            start_new_session=True,
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = 124
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        texts = []
        for file in (out, err):
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 4 * 1024 * 1024))
            texts.append(file.read().decode("utf-8", "replace"))
    if status == 124:
        texts[1] += f"\nstopped after {seconds:.0f} s"
    return status, texts[0], texts[1]


def last_words(text: str) -> str:
    """The last line that says something, as messages repeat it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:TAIL] if lines else "nothing was said"
