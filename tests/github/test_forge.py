"""What the workflows ask of GitHub: a fake API of the standard library answers, with payloads of the real shape."""

import io
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from common.errors import UserError
from referee import forge, nightly
from referee.cli import main

REPOSITORY = "somewhere/papers"
HEAD = "a" * 40
OLD = "b" * 40


# -- A fake GitHub -----------------------------------------------------------------------------------------------------


class Moved(NamedTuple):
    """A thing that lies elsewhere."""

    to: str


class GitHub:
    """Answers GET from `things`; keeps what was written in `written`."""

    def __init__(self):
        self.things: dict[str, object] = {}
        self.written: list[tuple[str, str, dict]] = []
        self.asked: list[tuple[str, dict]] = []
        self.tokens: set[str | None] = set()
        self.told: dict[str, str | None] = {}  # path -> the token that came with the last request

    def serve(self, request, method):
        url = urlsplit(request.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.tokens.add(request.headers.get("Authorization"))
        self.told[url.path] = request.headers.get("Authorization")
        if method != "GET":
            body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
            self.written.append((method, url.path, body))
            return 201, {"number": 77}
        self.asked.append((url.path, query))
        if url.path not in self.things:
            return 404, {"message": "Not Found"}
        thing = self.things[url.path]
        if isinstance(thing, Moved):
            return 302, thing.to
        if isinstance(thing, list):
            page, size = int(query["page"]), int(query["per_page"])
            thing = thing[(page - 1) * size : page * size]
        return 200, thing


@pytest.fixture
def github(monkeypatch):
    fake = GitHub()

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            status, body = fake.serve(self, self.command)
            if status == 302:
                self.send_response(302)
                self.send_header("Location", body)
                self.end_headers()
                return
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
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
    monkeypatch.setenv("GITHUB_API_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("GITHUB_REPOSITORY", REPOSITORY)
    monkeypatch.setenv("GITHUB_TOKEN", "a-token")
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
    monkeypatch.delenv("GITHUB_RUN_ID", raising=False)
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


def user(login, kind="User"):
    return {"login": login, "id": 1, "type": kind}


def pull(number=12, head=HEAD, state="open", author="ada", full_name=REPOSITORY):
    return {
        "number": number,
        "state": state,
        "user": user(author),
        "head": {"ref": "iwae-v1", "sha": head, "repo": {"full_name": "ada/papers"}},
        "base": {"ref": "main", "sha": "c" * 40, "repo": {"full_name": full_name}},
    }


def finished(name="submission", head=HEAD, branch="iwae-v1", owner="ada"):
    """A workflow_run event, of a fork: `pull_requests` is empty, as it is on GitHub."""
    return {
        "action": "completed",
        "workflow_run": {
            "id": 1589141559,
            "name": name,
            "event": "pull_request",
            "status": "completed",
            "conclusion": "failure",
            "head_branch": branch,
            "head_sha": head,
            "html_url": f"https://github.com/{REPOSITORY}/actions/runs/1589141559",
            "pull_requests": [],
            "head_repository": {"full_name": f"{owner}/papers", "fork": True, "owner": user(owner)},
        },
        "repository": {"full_name": REPOSITORY, "default_branch": "main"},
        "sender": user(owner),
    }


@pytest.fixture
def summary(tmp_path):
    folder = tmp_path / "summary"
    folder.mkdir()
    (folder / "2-check.md").write_text("### iwae\n\n| rule | what |\n| --- | --- |\n| NB-001 | run `it` again |\n")
    (folder / "1-gate.md").write_text("**v1** is allowed now.\n")
    return folder


def comment(tmp_path, summary, event=None, *more):
    path = tmp_path / "event.json"
    path.write_text(json.dumps(event if event is not None else finished()))
    return main(["forge", "comment", str(summary), "--event", str(path), *more])


# -- comment -----------------------------------------------------------------------------------------------------------


def test_the_summary_becomes_a_comment_on_the_pull_request_of_that_commit(github, tmp_path, summary):
    github.things["/repos/somewhere/papers/pulls"] = [pull(11, head=OLD), pull(13, full_name="ada/papers"), pull(12)]
    github.things["/repos/somewhere/papers/issues/12/comments"] = []
    assert comment(tmp_path, summary) == 0
    assert github.asked[0][1]["head"] == "ada:iwae-v1"
    assert github.tokens == {"Bearer a-token"}
    [(method, path, body)] = github.written
    assert (method, path) == ("POST", "/repos/somewhere/papers/issues/12/comments")
    assert body["body"].startswith("<!-- referee:submission -->\n**v1** is allowed now.")
    assert "| NB-001 | run `it` again |" in body["body"]
    assert HEAD[:12] in body["body"]


def test_the_comment_is_kept_up_to_date_and_nobody_elses_is_touched(github, tmp_path, summary):
    mark = "<!-- referee:submission -->"
    github.things["/repos/somewhere/papers/pulls"] = [pull()]
    github.things["/repos/somewhere/papers/issues/12/comments"] = [
        {"id": 1, "user": user("ada"), "body": f"{mark} I am the referee"},
        {"id": 2, "user": None, "body": mark},  # whose account is gone
        {"id": 3, "user": user("github-actions[bot]", "Bot"), "body": "<!-- referee:review -->"},
        *({"id": i, "user": user("bo"), "body": "hm"} for i in range(10, 130)),  # ours is on the second page
        {"id": 4, "user": user("github-actions[bot]", "Bot"), "body": f"{mark}\nold"},
    ]
    assert comment(tmp_path, summary) == 0
    [(method, path, _)] = github.written
    assert (method, path) == ("PATCH", "/repos/somewhere/papers/issues/comments/4")


@pytest.mark.parametrize(
    "pulls", [[], [pull(head=OLD)], [pull(full_name="ada/papers")]], ids=["closed", "moved", "other"]
)
def test_nothing_is_said_where_the_commit_is_no_head_any_more(github, tmp_path, summary, pulls):
    github.things["/repos/somewhere/papers/pulls"] = pulls
    assert comment(tmp_path, summary) == 0
    assert github.written == []


@pytest.mark.parametrize("branch", ["$(touch x)", "a&state=closed", 'x"; rm -rf /', "bö/ü#1"])
def test_a_hostile_branch_stays_one_value_of_the_query(github, tmp_path, summary, branch):
    github.things["/repos/somewhere/papers/pulls"] = []
    assert comment(tmp_path, summary, finished(branch=branch)) == 0
    assert github.asked[0][1]["head"] == f"ada:{branch}"
    assert github.asked[0][1]["state"] == "open"


def altered(**changes):
    event = finished()
    event["workflow_run"].update(changes)
    return event


@pytest.mark.parametrize(
    "event",
    [
        altered(name="evil\n@everyone"),
        altered(name=["submission"]),
        altered(head_sha="HEAD"),
        altered(head_sha="a" * 39 + "é"),
        altered(html_url="https://example.org/login"),
        altered(html_url="https://github.com/x) [here](https://example.org"),
        {"workflow_run": None},
        {},
        [],
        None,
        "text",
    ],
)
def test_an_event_that_is_not_as_it_should_be_is_refused(github, tmp_path, summary, event, capsys):
    path = tmp_path / "event.json"
    path.write_text(json.dumps(event))
    assert main(["forge", "comment", str(summary), "--event", str(path)]) == 1
    assert "event" in capsys.readouterr().err
    assert github.asked == github.written == []


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 100_000, b" " * (5 << 20)], ids=range(5))
def test_an_event_that_is_no_json_is_refused(github, tmp_path, summary, raw, capsys):
    path = tmp_path / "event.json"
    path.write_bytes(raw)
    assert main(["forge", "comment", str(summary), "--event", str(path)]) == 2
    assert main(["forge", "comment", str(summary), "--event", str(tmp_path / "none")]) == 2
    assert github.asked == github.written == []


def test_a_summary_is_bounded_and_links_are_not_followed(github, tmp_path, capsys):
    folder = tmp_path / "summary"
    folder.mkdir()
    secret = tmp_path / "secret.txt"
    secret.write_text("a-secret")
    (folder / "0.md").symlink_to(secret)
    (folder / "1.md").write_text("x" * 1_000_000)
    for i in range(100):
        (folder / f"2-{i}.md").write_text("y" * 10)
    assert comment(tmp_path, folder, None, "--dry-run") == 0
    body = capsys.readouterr().out
    assert len(body) < 65_536
    assert "a-secret" not in body
    assert "(cut here)" in body
    assert body.rstrip().endswith("whose page shows all of it.")
    assert github.asked == []  # a dry run asks nobody
    read = list(forge.texts(str(folder), ".md"))
    assert len(read) == forge.MAX_FILES
    assert max(len(text) for _, text in read) == forge.MAX_FILE


def test_a_run_that_broke_off_says_so(github, tmp_path, capsys):
    (tmp_path / "summary").mkdir()
    assert comment(tmp_path, tmp_path / "summary", None, "--dry-run") == 0
    assert "broke off" in capsys.readouterr().out


def test_a_refusal_of_the_api_is_a_message(github, tmp_path, summary, capsys):
    assert comment(tmp_path, summary) == 1
    assert "GitHub answered 404 to GET /repos/somewhere/papers/pulls" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("GITHUB_TOKEN", "", "GITHUB_TOKEN"),
        ("GITHUB_REPOSITORY", "papers", "owner/name"),
        ("GITHUB_REPOSITORY", "a/b/../c", "owner/name"),
        ("GITHUB_API_URL", "http://api.example.org", "https"),
        ("GITHUB_API_URL", "file:///etc", "https"),
    ],
)
def test_a_wrong_environment_is_a_message(github, monkeypatch, tmp_path, summary, capsys, name, value, said):
    monkeypatch.setenv(name, value)
    assert comment(tmp_path, summary) == 2
    assert said in capsys.readouterr().err
    assert github.asked == []


# -- disarm ------------------------------------------------------------------------------------------------------------

HOSTILE = {
    "a mention": ("ping @everyone", r"@\w"),
    "a team": ("ping @org/team", r"@\w"),
    "a picture": ("![x](https://example.org/x.png)", r"!\[|\]\("),
    "a link": ("[approve](https://example.org)", r"\]\(|://"),
    "a reference": ("[a][b]\n\n[b]: //example.org", r"\]\[|\]:"),
    "an address": ("see https://example.org and www.example.org", r"://|www\."),
    "HTML": ("<img src=x onerror=alert(1)><script>x</script>", r"<[A-Za-z/!?]"),
    "a comment that hides": ("<!-- referee:submission -->", r"<!"),
    "a harmless tag with more": ('<details open onclick="x">', r"<d"),
    "another issue": ("closes #12, GH-13, a/b#14", r"#\d|GH-\d"),
    "reversed text": ("\u202eevil\u202c", "[\u202e\u202c]"),
    "a terminal's escape": ("\x1b]0;x\x07", r"[\x1b\x07]"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_stranger_wrote_does_nothing(name):
    text, acts = HOSTILE[name]
    assert re.search(acts, text)
    assert not re.search(acts, forge.disarm(text))


def test_disarmed_text_keeps_its_form():
    kept = (
        "### iwae\n\n| a | b |\n| --- | --- |\n| `x < 1` | **1 error** |\n\n- [ ] one\n\n<details>\n\nmore\n</details>"
    )
    assert forge.disarm(kept) == kept


def test_the_markdown_of_referee_check_is_kept_as_it_is():
    command = pytest.importorskip("referee.checks.command")
    text = command.inert("see @ada, #12, https://example.org <b>")
    assert forge.disarm(text) == text  # already disarmed; nothing of it is broken


# -- approved ----------------------------------------------------------------------------------------------------------


def review(who="eve", commit=HEAD, state="APPROVED", body="approved-for-gpu", **more):
    return {"user": user(who), "commit_id": commit, "state": state, "body": body, "author_association": "NONE", **more}


APPROVES = {
    "an editor's approval": [review()],
    "with more said": [review(body="Read all of it.\r\n  approved-for-gpu  \r\nRuns on one card.")],
    "capitals in the handle": [review(who="Eve")],
    "after asking for changes": [review(state="CHANGES_REQUESTED", commit=OLD), review()],
    "and a remark afterwards": [review(), review(state="COMMENTED", body="thanks")],
    "another was not satisfied": [review(who="fay", state="CHANGES_REQUESTED"), review()],
}

DOES_NOT = {
    "nobody reviewed": [],
    "an earlier commit": [review(commit=OLD)],
    "only a remark": [review(state="COMMENTED")],
    "dismissed": [review(state="DISMISSED")],
    "approved, then dismissed": [review(), review(state="DISMISSED")],
    "asked for changes later": [review(), review(state="CHANGES_REQUESTED")],
    "approved again, not for a GPU": [review(), review(body="fine")],
    "approved an earlier commit later": [review(), review(commit=OLD)],
    "approved, but not for a GPU": [review(body="looks good")],
    "no body": [review(body=None)],
    "in the middle of a sentence": [review(body="I would say approved-for-gpu if it were")],
    "a reviewer, not an editor": [review(who="bo")],
    "a stranger": [review(who="mallory")],
    "a look-alike": [review(who="\u0435ve")],  # the first letter is Cyrillic
    "the author": [review(who="ada")],
    "an account that is gone": [review(user=None)],
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    root = tmp_path / "main"
    (root / "projects").mkdir(parents=True)
    (root / "pyproject.toml").write_text("")
    people = [
        "{handle: eve, roles: [editor]}",
        "{handle: fay, roles: [editor]}",
        "{handle: ada, roles: [developer, editor]}",
        "{handle: bo, roles: [reviewer]}",
    ]
    (root / "course.yaml").write_text("name: A course\npeople:\n" + "".join(f"  - {person}\n" for person in people))
    monkeypatch.chdir(root)
    return root


def approved(github, reviews, commit=HEAD, **of_pull):
    github.things["/repos/somewhere/papers/pulls/12"] = pull(**of_pull)
    github.things["/repos/somewhere/papers/pulls/12/reviews"] = reviews
    return main(["forge", "approved", "12", commit])


@pytest.mark.parametrize("name", APPROVES)
def test_an_approval_of_this_commit_opens(github, here, capsys, name):
    assert approved(github, APPROVES[name]) == 0
    assert capsys.readouterr().out == f"commit={HEAD}\n"


@pytest.mark.parametrize("name", DOES_NOT)
def test_anything_else_does_not(github, here, capsys, name):
    assert approved(github, DOES_NOT[name]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "approved-for-gpu" in err


def test_a_pull_request_that_moved_on_or_was_closed_does_not(github, here, capsys):
    assert approved(github, [review()], head=OLD) == 1
    assert approved(github, [review()], state="closed") == 1
    assert approved(github, [review(commit=OLD)], commit=OLD) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("commit", ["main", HEAD[:12], HEAD.upper(), HEAD + "\n", "$(id)" + HEAD[5:]])
def test_a_commit_is_its_forty_digits(github, here, commit):
    assert approved(github, [review()], commit=commit) == 2
    assert github.asked == []


def test_where_no_editor_is_named_nobody_approves(github, here):
    (here / "course.yaml").unlink()
    assert approved(github, [review()]) == 1


def test_reviews_beyond_the_first_page_count(github, here):
    remarks = [review(who="bo", state="COMMENTED") for _ in range(150)]
    assert approved(github, [*remarks, review()]) == 0


# -- issue -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def night(tmp_path):
    folder = tmp_path / "status"
    folder.mkdir()
    wrong = {"rule": "RES-003", "severity": "error", "file": "projects/iwae/x", "line": 1, "message": "ask @ada"}
    fine = {"rule": "NB-001", "severity": "warning", "file": "projects/iwae/y", "line": 1, "message": "hm"}
    text = json.dumps({"passed": False, "papers": [{"paper": "iwae", "findings": [wrong, fine]}]})
    (folder / "status-0.json").write_text(text)
    (folder / "status-1.json").write_text("Traceback")
    return folder


def test_a_night_that_failed_opens_one_issue_and_the_next_updates_it(github, night):
    there = "/repos/somewhere/papers/issues"
    github.things[there] = [{"number": 5, "user": user("ada"), "body": "<!-- referee:nightly -->"}]
    assert main(["forge", "issue", str(night)]) == 0
    [(method, path, body)] = github.written
    assert (method, path) == ("POST", there)
    assert "RES-003 projects/iwae/x" in body["body"]
    assert "@ada" not in body["body"]
    assert "NB-001" not in body["body"]
    assert "status-1: the checks broke off" in body["body"]

    ours = {"number": 77, "user": user("github-actions[bot]", "Bot"), "body": body["body"]}
    github.things[there] = [*github.things[there], ours]
    assert main(["forge", "issue", str(night)]) == 0
    assert github.written[1][:2] == ("PATCH", f"{there}/77")


# -- The status of a night ---------------------------------------------------------------------------------------------


def outcome(paper, *findings, stage="v1"):
    counts = {s: sum(f["severity"] == s for f in findings) for s in ("error", "warning", "note")}
    return {"paper": paper, "stage": stage, "passed": not counts["error"], "counts": counts, "findings": list(findings)}


def test_a_night_is_told_in_one_text(repository, tmp_path, monkeypatch, capsys):
    for name, value in {"GITHUB_RUN_ID": "9", "TESTS": "success", "PROJECTS": "failure"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
    monkeypatch.setenv("GITHUB_REPOSITORY", REPOSITORY)
    wrong = {
        "rule": "RES-003",
        "severity": "error",
        "file": "projects/iwae/x",
        "line": 1,
        "message": "no\x1b[31m " * 99,
    }
    odd = {"rule": "NB-001", "severity": "warning", "file": "projects/vae/y", "line": 1, "message": "hm"}
    folder = tmp_path / "left"
    folder.mkdir()
    (folder / "status-0.json").write_text(json.dumps({"papers": [outcome("iwae", wrong, odd), outcome("dcgan")]}))
    (folder / "status-1.json").write_text(json.dumps({"papers": [outcome("vae", odd)]}))
    (folder / "status-2.json").write_text('{"papers": [')
    assert main(["forge", "status", str(folder)]) == 0
    night = nightly.parse(capsys.readouterr().out.encode(), "what it printed")
    found = {p.paper: (p.passed, p.errors, p.warnings, len(p.said)) for p in night.papers}
    assert found == {
        "dcgan": (True, 0, 0, 0),
        "iwae": (False, 1, 1, 1),
        "realnvp": (False, 0, 0, 1),  # its job broke off
        "vae": (True, 0, 1, 1),
    }
    assert "\x1b" not in night.papers[1].said[0]
    assert len(night.papers[1].said[0]) <= nightly.MAX_WORDS
    assert (night.run, night.tests, night.projects) == (
        "https://github.com/somewhere/papers/actions/runs/9",
        "success",
        "failure",
    )
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True, check=True)
    assert night.commit == head.stdout.strip()
    assert not night.passed


NIGHT = {"commit": "a" * 40, "finished": "2026-11-21T03:04:05Z", "papers": []}


def archive(**files):
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as made:
        for name, text in files.items():
            made.writestr(name.replace("__", "/").replace("_json", ".json"), text)
    return written.getvalue()


def artifact(number, **more):
    run = {"repository_id": 1, "head_repository_id": 1, "head_branch": "main", **more.pop("run", {})}
    return {"id": number, "name": "night", "expired": False, "workflow_run": run, **more}


@pytest.fixture
def kept(github, repository):
    """What GitHub keeps: from a fork, from another branch, under another name, expired; then the right ones."""
    listed = [
        artifact(1, run={"head_repository_id": 2}),
        artifact(2, run={"head_branch": "trial"}),
        artifact(3, name="nights"),
        artifact(4, expired=True),
        artifact(5, workflow_run=None),
        artifact(6),
        artifact(7),
    ]
    there = f"/repos/{REPOSITORY}"
    base = os.environ["GITHUB_API_URL"]
    elsewhere = base.replace("127.0.0.1", "localhost")
    github.things[there] = {"default_branch": "main"}
    github.things[f"{there}/actions/artifacts"] = {"artifacts": listed}
    github.things[f"{there}/actions/artifacts/6/zip"] = Moved(f"{elsewhere}/storage/6")
    github.things["/storage/6"] = archive(night_json=json.dumps(NIGHT))
    return repository


def test_the_last_night_of_main_is_fetched(github, kept):
    assert main(["forge", "fetch"]) == 0
    assert nightly.last_night(kept).commit == "a" * 40
    assert github.told["/storage/6"] is None  # the token stays with GitHub


def test_where_no_night_is_kept_nothing_changes(github, kept, capsys):
    (kept / "build").mkdir()
    (kept / nightly.FILE).write_text(json.dumps(NIGHT))
    github.things[f"/repos/{REPOSITORY}/actions/artifacts"] = {"artifacts": []}
    assert main(["forge", "fetch"]) == 0
    assert "no full re-run yet" in capsys.readouterr().err
    assert nightly.last_night(kept) is not None


@pytest.mark.parametrize(
    "raw",
    [
        b"no archive",
        archive(),
        archive(night_json="{}"),
        archive(other_json=json.dumps(NIGHT)),
        archive(__etc__night_json=json.dumps(NIGHT)),
        archive(night_json=json.dumps(NIGHT), more_json=""),
        archive(night_json=json.dumps({**NIGHT, "run": "javascript:alert(1)"})),
        archive(night_json=json.dumps({**NIGHT, "surprise": 1})),
    ],
    ids=range(8),
)
def test_what_is_no_status_is_refused_and_not_kept(github, kept, raw, capsys):
    github.things["/storage/6"] = raw
    assert main(["forge", "fetch"]) != 0
    assert "Traceback" not in (said := capsys.readouterr().err)
    assert "night.json" in said
    assert not (kept / nightly.FILE).exists()


def test_an_archive_that_unpacks_to_too_much_is_refused(github, kept, monkeypatch):
    monkeypatch.setattr(nightly, "MAX_BYTES", 1000)
    github.things["/storage/6"] = archive(night_json=json.dumps(NIGHT) + " " * 2000)
    assert main(["forge", "fetch"]) != 0


# -- papers ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path, monkeypatch):
    root = tmp_path / "repository"
    for paper in ("dcgan", "iwae", "realnvp", "vae"):
        (root / "projects" / paper).mkdir(parents=True)
        (root / "projects" / paper / "project.yaml").write_text("stage: v1\n")
    (root / "pyproject.toml").write_text("")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    monkeypatch.chdir(root)
    git("init", "--quiet", "--initial-branch=main")
    commit()
    return root


def git(*arguments):
    subprocess.run(["git", "-c", "user.name=ada", "-c", "user.email=ada@example.org", *arguments], check=True)


def commit():
    git("add", "--all")
    git("commit", "--quiet", "--message=x")


def papers(capsys, *arguments):
    assert main(["forge", "papers", *arguments]) == 0
    return capsys.readouterr().out


def test_all_papers_or_those_that_changed(repository, capsys):
    assert papers(capsys) == 'papers=["dcgan", "iwae", "realnvp", "vae"]\n'
    git("checkout", "--quiet", "-b", "work")
    (repository / "projects" / "iwae" / "iwae.py").write_text("")
    (repository / "projects" / "vae" / "project.yaml").unlink()
    (repository / "projects" / "vae" / "vae.py").write_text("")  # still a folder: the check says what is missing
    (repository / "projects" / "dcgan" / "project.yaml").unlink()  # gone
    (repository / "projects" / "README.md").write_text("")
    (repository / "reviews" / "iwae").mkdir(parents=True)
    (repository / "reviews" / "iwae" / "bo.md").write_text("")
    (repository / "reviews" / "assignment.yaml").write_text("")
    commit()
    git("checkout", "--quiet", "main")
    (repository / "projects" / "realnvp" / "x.py").write_text("")  # what main did meanwhile is not the branch's
    commit()
    git("checkout", "--quiet", "work")
    assert papers(capsys, "--base", "main") == 'papers=["iwae", "vae"]\n'
    assert papers(capsys, "--base", "main", "--format", "lines") == "iwae\nvae\n"
    assert papers(capsys, "--base", "main", "--under", "reviews") == 'papers=["iwae"]\n'
    assert papers(capsys, "--base", "work") == "papers=[]\n"
    assert papers(capsys, "--base", "work", "--format", "lines") == ""


def test_no_groups_are_refused(repository, capsys):
    assert main(["forge", "papers", "--groups", "0"]) == 2
    assert capsys.readouterr().out == ""


def test_many_papers_are_spread_over_the_jobs_that_a_matrix_takes():
    names = [f"p{i}" for i in range(600)]
    spread = forge.groups(names, 256)
    assert len(spread) == 256
    assert sorted(" ".join(spread).split()) == sorted(names)
    assert {len(group.split()) for group in spread} == {2, 3}


@pytest.mark.parametrize("name", ["$(id)", "a b", "`id`", "a\nb", "-rf", "IWAE", "a'b", "\u202evae"])
def test_a_folder_with_a_name_that_a_shell_would_mind_is_refused(repository, capsys, name):
    git("checkout", "--quiet", "-b", "work")
    for under in ("projects", "reviews"):
        (repository / under / name).mkdir(parents=True)
        (repository / under / name / "x").write_text("")
    commit()
    for under in ("projects", "reviews"):
        assert main(["forge", "papers", "--base", "main", "--under", under]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert "no paper can have this name" in err
        assert "\u202e" not in err


@pytest.mark.parametrize("base", ["nowhere", "--output=x", "-x", "main..work", "", "$(id)", "0" * 40])
def test_a_base_that_is_no_commit_is_refused(repository, capsys, base):
    before = sorted(repository.iterdir())
    assert main(["forge", "papers", f"--base={base}"]) == 2
    assert sorted(repository.iterdir()) == before
    assert "Traceback" not in capsys.readouterr().err


def test_nothing_heavy_is_imported():
    code = "import sys, referee.forge; print([m for m in ('torch', 'numpy', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_errors_are_users_errors():
    assert issubclass(forge.ForgeError, UserError)
