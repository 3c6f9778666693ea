"""What the workflows ask of GitHub, as commands that run the same on a laptop: `referee forge ...`.

    papers     the projects that a change touches, or all of them
    comment    put a workflow's summary on its pull request
    approved   has an editor approved this very commit for a GPU?
    issue      open or update the one issue that says what failed at night
    status     what a night's jobs left, as one file that the site can show
    fetch      the last night's status, from GitHub to where `referee site build` looks for it

The API is that of GITHUB_API_URL (GitHub's own when not set), asked about GITHUB_REPOSITORY with GITHUB_TOKEN. What it
and an event say is checked before it is used; what a pull request brought is data, bounded and disarmed.
"""

import argparse
import json
import os
import re
import sys
import unicodedata
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.errors import UserError
from referee.history import History, printable
from referee.project import PAPER_NAME, UsageError, find_root, paper_names

APPROVED = "approved-for-gpu"
"""The line that an approving review must hold."""

MAX_PAGES = 10  # of a hundred entries
MAX_ANSWER = 16 * 1024 * 1024  # bytes of one answer of the API
MAX_EVENT = 4 * 1024 * 1024  # bytes of an event
MAX_FILES = 16  # files of a summary, status files of a night
MAX_FILE = 256 * 1024  # bytes of each
MAX_BODY = 60_000  # letters; GitHub takes 65,536
MAX_GROUPS = 256  # jobs of a matrix that GitHub takes
COMMIT = re.compile(r"[0-9a-f]{40}")
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


class ForgeError(UserError):
    """GitHub, or what it told us, is not as it should be."""


# -- Commands ----------------------------------------------------------------------------------------------------------


def forge_command(options: argparse.Namespace) -> int:
    """`referee forge papers | comment | approved | issue | status | fetch`."""
    commands = {
        "papers": papers_command,
        "comment": comment_command,
        "approved": approved_command,
        "issue": issue_command,
        "status": status_command,
        "fetch": fetch_command,
    }
    return commands[options.what](options)


def papers_command(options: argparse.Namespace) -> int:
    """The projects that changed since the base, or all: a line each, or one line for a workflow's matrix."""
    root = find_root()
    if options.groups < 1:
        raise UsageError("--groups: at least 1.")
    papers = paper_names(root) if options.base is None else changed_papers(root, options.base, options.under)
    if options.format == "lines":
        print("".join(f"{paper}\n" for paper in papers), end="")
    else:  # 'papers=[...]', as GITHUB_OUTPUT takes it
        print(f"papers={json.dumps(groups(papers, options.groups))}")
    return 0


def comment_command(options: argparse.Namespace) -> int:
    """Put the summary of a finished run on its pull request: one comment a workflow, kept up to date."""
    run = run_of(read_json(options.event, MAX_EVENT))
    mark = f"<!-- referee:{run['name']} -->"
    told = disarm("\n\n".join(text for _, text in texts(options.folder, ".md")))
    told = told or f"The workflow *{run['name']}* left no summary: it broke off before it could say what is wrong."
    foot = f"\n\n---\nAbout {run['head_sha'][:12]}, from [this run]({run['html_url']}), whose page shows all of it."
    body = f"{mark}\n{cut(told, MAX_BODY - len(mark) - len(foot) - 1)}{foot}"
    if options.dry_run:
        print(body)
        return 0
    number = pull_of(run)
    if number is None:
        print("No open pull request has this commit as its head any more: nothing to say.", file=sys.stderr)
        return 0
    there = f"/repos/{repository()}/issues/{number}/comments"
    ours = (c["id"] for c in every(there) if is_ours(c) and str(c.get("body", "")).startswith(mark))
    if (known := next(ours, None)) is not None:
        api("PATCH", f"/repos/{repository()}/issues/comments/{int(known)}", {"body": body})
    else:
        api("POST", there, {"body": body})
    print(f"Pull request {number}: {'updated' if known is not None else 'commented'}.", file=sys.stderr)
    return 0


def approved_command(options: argparse.Namespace) -> int:
    """Print `commit=...` if an editor has approved this very commit for a GPU; a ForgeError says why not."""
    if not COMMIT.fullmatch(options.commit):
        raise UsageError(f"'{printable(options.commit)}' is no commit: give all its 40 digits (0-9, a-f).")
    editors = editors_of(find_root())
    pull = api("GET", f"/repos/{repository()}/pulls/{options.pull}")
    reviews = list(every(f"/repos/{repository()}/pulls/{options.pull}/reviews"))
    editor = approval(pull, reviews, options.commit, editors)
    print(f"{editor} has approved {options.commit} for a GPU.", file=sys.stderr)
    print(f"commit={options.commit}")
    return 0


def issue_command(options: argparse.Namespace) -> int:
    """Open, or bring up to date, the one issue that says what failed at night."""
    mark, title = "<!-- referee:nightly -->", "The nightly run failed"
    failures = [line for name, text in texts(options.folder, ".json") for line in failures_of(name, text)]
    told = disarm("\n".join(failures)) or "No check says why: a step before or after them failed."
    run = os.environ.get("GITHUB_RUN_ID", "")
    server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
    link = f"{server}/{repository()}/actions/runs/{run}" if run.isdecimal() else ""
    body = cut(f"{mark}\nThe last night that failed: {link or 'run by hand'}\n\n{told}", MAX_BODY)
    if options.dry_run:
        print(body)
        return 0
    there = f"/repos/{repository()}/issues"
    open_ones = every(there, {"state": "open", "creator": "github-actions[bot]"})
    ours = (i["number"] for i in open_ones if is_ours(i) and str(i.get("body", "")).startswith(mark))
    if (known := next(ours, None)) is not None:
        api("PATCH", f"{there}/{int(known)}", {"body": body})
    else:
        known = api("POST", there, {"title": title, "body": body})["number"]
    print(f"Issue {known} says what failed.", file=sys.stderr)
    return 0


def status_command(options: argparse.Namespace) -> int:
    """Print what a night's jobs left as one status; see `referee.nightly`."""
    from referee.nightly import gather

    found = gather((text for _, text in texts(options.folder, ".json", MAX_GROUPS)), find_root(), datetime.now(UTC))
    print(found.model_dump_json(indent=1))
    return 0


def fetch_command(options: argparse.Namespace) -> int:
    """Bring the last night's status from GitHub; leaves what is here where GitHub has none."""
    from common.records import write_text
    from referee.nightly import ARTIFACT, FILE, parse, unpacked

    root = find_root()
    artifact = last_artifact(ARTIFACT)
    if artifact is None:
        print(
            "GitHub keeps no status of a night: there was no full re-run yet, or it is too long ago.", file=sys.stderr
        )
        return 0
    archive = answer("GET", f"/repos/{repository()}/actions/artifacts/{artifact}/zip")
    raw = unpacked(archive)
    night = parse(raw, f"GitHub's {FILE.name}")
    (root / FILE).parent.mkdir(parents=True, exist_ok=True)
    write_text(root / FILE, raw.decode("utf-8"))
    print(f"{FILE.as_posix()}: the re-run that ended {night.finished:%Y-%m-%d %H:%M} UTC.", file=sys.stderr)
    return 0


def last_artifact(name: str) -> int | None:
    """The newest file of that name that a workflow of the main branch keeps.

    A pull request's workflow may keep files of any name, also from a branch that it calls main: those of other
    repositories are passed over.
    """
    main = get(api("GET", f"/repos/{repository()}"), "default_branch")
    listed = api("GET", f"/repos/{repository()}/actions/artifacts?{urllib.parse.urlencode({'name': name})}")
    for artifact in get(listed, "artifacts"):  # the newest first
        run = get(artifact, "workflow_run")
        ours = run and get(run, "repository_id") == get(run, "head_repository_id") and get(run, "head_branch") == main
        if ours and get(artifact, "name") == name and not get(artifact, "expired"):
            return int(get(artifact, "id"))
    return None


# -- What changed ------------------------------------------------------------------------------------------------------


def changed_papers(root: Path, base: str, under: str) -> list[str]:
    """The papers whose folder under `projects/` or `reviews/` differs between the merge base and HEAD.

    A project that was removed is not among them; one whose `project.yaml` is missing is, so that a check can say so.

    Raises:
        UsageError: the base is no commit here.
        HistoryError: it has no history in common with HEAD.
        ForgeError: a folder has a name that no paper can have.
    """
    history = History(root)
    differing = history.changes(history.merge_base(base), history.commit("HEAD"))
    paths = [change.path for change in differing if change.path.startswith(f"{under}/")]
    papers = {path.split("/")[1] for path in paths if path.count("/") >= 2}
    for paper in sorted(papers):
        if not PAPER_NAME.fullmatch(paper):
            raise ForgeError(
                f"{under}/{printable(paper)}: no paper can have this name; use small letters, digits and underscores."
            )
    return sorted(paper for paper in papers if under != "projects" or (root / under / paper).is_dir())


def groups(papers: list[str], at_most: int) -> list[str]:
    """Names joined by spaces into so many groups of about one size, since a matrix takes 256 jobs.

    >>> groups(["dcgan", "iwae", "vae"], 2)
    ['dcgan vae', 'iwae']
    """
    return [" ".join(papers[i::at_most]) for i in range(min(at_most, len(papers)))]


# -- Approval ----------------------------------------------------------------------------------------------------------


def approval(pull: Any, reviews: Iterable[Any], commit: str, editors: Iterable[str]) -> str:
    """The editor whose standing review approves this very commit for a GPU.

    An editor's last review that approves, asks for changes or was dismissed is the standing one. It must approve
    `commit`, which must still be the pull request's head, and hold a line that says `approved-for-gpu`.

    Raises:
        ForgeError: there is none, or the pull request has moved on.
    """
    if get(pull, "state") != "open":
        raise ForgeError("The pull request is not open.")
    if get(pull, "head", "sha") != commit:
        raise ForgeError("The commit is not the head of the pull request: read what was pushed, and approve that.")
    author = str(get(pull, "user", "login")).lower()
    may = {handle.lower() for handle in editors} - {author}
    standing: dict[str, Any] = {}
    for review in reviews:  # in the order in which they were made
        who = str(get(review, "user", "login") if get(review, "user") else "").lower()
        if who in may and get(review, "state") in ("APPROVED", "CHANGES_REQUESTED", "DISMISSED"):
            standing[who] = review
    for who, review in sorted(standing.items()):
        lines = [line.strip() for line in str(get(review, "body") or "").splitlines()]
        if get(review, "state") == "APPROVED" and get(review, "commit_id") == commit and APPROVED in lines:
            return who
    raise ForgeError(
        f"No editor of course.yaml other than the author approves {commit}.\n"
        f"An editor reads this very commit, then approves it in a review with a line '{APPROVED}'."
    )


def editors_of(root: Path) -> list[str]:
    """The handles of the course's editors, who are the maintainers."""
    from referee.course import load_course

    return [person.handle for person in load_course(root).people if "editor" in person.roles]


# -- Events and the API ------------------------------------------------------------------------------------------------


def run_of(event: Any) -> dict[str, str]:
    """What a `workflow_run` event says of the run: name, head_sha, head_branch, html_url, owner."""
    run = {key: str(get(event, "workflow_run", key)) for key in ("name", "head_sha", "head_branch", "html_url")}
    head = get(event, "workflow_run", "head_repository")  # None when the fork is gone
    run["owner"] = str(get(head, "owner", "login")) if head else ""
    server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
    if not re.fullmatch(r"[a-z][a-z-]{0,30}", run["name"]):
        raise ForgeError(f"The event names a workflow '{printable(run['name'])}', which is not one of ours.")
    if not COMMIT.fullmatch(run["head_sha"]):
        raise ForgeError("The event's head_sha is no commit.")
    if not re.fullmatch(re.escape(server) + r"/[\w./-]+", run["html_url"], re.ASCII):
        raise ForgeError("The event's html_url is no address of a run.")
    return run


def pull_of(run: Mapping[str, str]) -> int | None:
    """The open pull request whose head is the run's commit; None when it was closed or has moved on.

    It is looked for by branch, since events of forks do not name it, and never taken from what the run left behind.
    """
    query = {"state": "open", "head": f"{run['owner']}:{run['head_branch']}"}
    for pull in every(f"/repos/{repository()}/pulls", query):
        if get(pull, "head", "sha") == run["head_sha"] and get(pull, "base", "repo", "full_name") == repository():
            return int(get(pull, "number"))
    return None


def repository() -> str:
    """`owner/name`, from GITHUB_REPOSITORY."""
    name = os.environ.get("GITHUB_REPOSITORY", "")
    if not REPOSITORY.fullmatch(name):
        raise UsageError("GITHUB_REPOSITORY must name the repository, as owner/name.")
    return name


def api(method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """One request to GitHub's API; its answer's JSON.

    Raises:
        UsageError: no token, or an address that would send it in the clear.
        ForgeError: no answer, or one that is no success.
    """
    raw = answer(method, path, body)
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise ForgeError(f"GitHub's answer to {method} {path} is no JSON.") from None


def answer(method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
    """One request to GitHub's API; its answer as it is. The token does not follow where the answer leads elsewhere.

    Raises:
        UsageError: no token, or an address that would send it in the clear.
        ForgeError: no answer, or one that is no success.
    """
    base, token = os.environ.get("GITHUB_API_URL", "https://api.github.com"), os.environ.get("GITHUB_TOKEN", "")
    if not re.match(r"https://|http://(127\.0\.0\.1|localhost)[:/]", base):
        raise UsageError("GITHUB_API_URL must begin with https://.")
    if not token:
        raise UsageError("GITHUB_TOKEN is not set: `export GITHUB_TOKEN=$(gh auth token)`, or try --dry-run.")
    request = urllib.request.Request(base.rstrip("/") + path, method=method)
    request.add_header("Accept", "application/vnd.github+json")
    request.add_header("X-GitHub-Api-Version", "2022-11-28")
    request.add_header("User-Agent", "referee")
    request.add_unredirected_header("Authorization", f"Bearer {token}")
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            raw: bytes = response.read(MAX_ANSWER + 1)
    except urllib.error.HTTPError as error:
        said = printable(error.read(500).decode(errors="replace"))
        raise ForgeError(f"GitHub answered {error.code} to {method} {path}: {said}") from None
    except OSError as error:
        raise ForgeError(f"GitHub gave no answer to {method} {path}: {printable(str(error))}") from None
    if len(raw) > MAX_ANSWER:
        raise ForgeError(f"GitHub's answer to {method} {path} is too large.")
    return raw


def every(path: str, query: Mapping[str, str] | None = None) -> Iterator[Any]:
    """The entries of a list of the API, page by page."""
    for page in range(1, MAX_PAGES + 1):
        asked = urllib.parse.urlencode({**(query or {}), "per_page": "100", "page": str(page)})
        entries = api("GET", f"{path}?{asked}")
        if not isinstance(entries, list):
            raise ForgeError(f"GitHub's answer to GET {path} is no list.")
        yield from entries
        if len(entries) < 100:
            return
    raise ForgeError(f"GitHub lists more than {100 * MAX_PAGES} entries at {path}.")


def get(value: Any, *keys: str) -> Any:
    """A value inside JSON objects.

    Raises:
        ForgeError: it is not there.
    """
    for i, key in enumerate(keys):
        if not isinstance(value, dict) or key not in value:
            raise ForgeError(f"The event or answer has no '{'.'.join(keys[: i + 1])}'.")
        value = value[key]
    return value


def is_ours(entry: Any) -> bool:
    """Whether a comment or an issue was written by the workflows."""
    return bool(get(entry, "user")) and get(entry, "user", "login") == "github-actions[bot]"


# -- What a stranger wrote ---------------------------------------------------------------------------------------------


def read_json(path: str, limit: int) -> Any:
    """A JSON file, bounded.

    Raises:
        UsageError: it cannot be read, is too large, or is no JSON.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise UsageError(f"{printable(path)} cannot be read: {error.strerror}.") from None
    if len(raw) > limit:
        raise UsageError(f"{printable(path)} is larger than {limit // 1024} KiB.")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise UsageError(f"{printable(path)} is no JSON.") from None


def texts(folder: str, suffix: str, at_most: int = MAX_FILES) -> Iterator[tuple[str, str]]:
    """Name and text of a folder's plain files with this suffix, in order of their names; what is too much is cut."""
    paths = sorted(path for path in Path(folder).glob(f"*{suffix}") if path.is_file() and not path.is_symlink())
    for path in paths[:at_most]:
        with path.open("rb") as file:
            yield path.stem, file.read(MAX_FILE).decode("utf-8", errors="replace")


def failures_of(name: str, text: str) -> list[str]:
    """The findings of severity error in what `referee check --format json` printed, as lines of a list."""
    try:
        outcomes = json.loads(text)
    except (ValueError, RecursionError):
        return [f"- {name}: the checks broke off; the run's page shows where."]
    return [f"- {line}" for line in errors_in(outcomes)]


def errors_in(value: Any) -> Iterator[str]:
    """Every finding of severity error, at whatever depth."""
    if isinstance(value, dict):
        if value.get("severity") == "error" and "rule" in value:
            yield " ".join(printable(str(value.get(key, ""))) for key in ("rule", "file", "message"))
        else:
            for inner in value.values():
                yield from errors_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from errors_in(inner)


BREAK = "\u200b"  # a space of no width: parts a sign from what would make it act, and is not seen
HARMLESS = r"(?:/?details>|/?summary>|br>|!-- -->)"  # the last parts signs as BREAK does
ACTS = re.compile(
    rf"(?<=<)(?!{HARMLESS})(?=[A-Za-z/!?])"  # HTML
    r"|(?<=@)(?=[\w-])"  # mentions
    r"|(?<=!)(?=\[)|(?<=\])(?=[(\[:])"  # pictures and links
    r"|(?<=:)(?=//)|(?<=www)(?=\.)"  # addresses
    r"|(?<=#)(?=\d)|(?<=\bGH)(?=-\d)",  # other issues
    re.IGNORECASE,
)


def disarm(text: str) -> str:
    """Markdown that keeps its tables, lists and code, but mentions nobody, links nowhere and loads nothing."""
    seen = "".join(c for c in text.replace("\t", " ") if c == "\n" or not unicodedata.category(c).startswith("C"))
    return ACTS.sub(BREAK, seen).strip()


def cut(text: str, length: int) -> str:
    """The beginning of a text that is too long, which then says so."""
    note = "\n\n(cut here)"
    return text if len(text) <= length else text[: length - len(note)] + note
