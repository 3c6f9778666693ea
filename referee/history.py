"""What git and the forge know: what changed since a base, files at a commit, when a commit counts.

git is called with lists of arguments, never through a shell; names of branches, authors and titles are data, and reach
a terminal only through `printable`. Output is bounded, and so is time.
"""

import json
import os
import re
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from common.errors import UserError
from referee.project import UsageError

LIMIT = 16 * 1024 * 1024  # bytes that git may print
SECONDS = 60  # that git may take
MAX_COMMITS = 10_000
MAX_EVENT = 8 * 1024 * 1024  # bytes; GitHub's payloads have at most 25 MB, those of pull requests far less
SKEW = timedelta(minutes=10)  # that a clock may be ahead
BIRTH = datetime(2005, 4, 7, tzinfo=UTC)  # of git: no commit is older

_SHA = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_HANDLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}(\[bot\])?")


class HistoryError(UserError):
    """What git knows is not enough to say what is asked; the message says what to do."""


@dataclass(frozen=True)
class Commit:
    """A commit and the clock of whoever made it."""

    sha: str
    seconds: int  # since 1970, as the committer's clock had it; may be anything

    @property
    def moment(self) -> datetime | None:
        """When it was made; None if no clock that works can have said so."""
        try:
            return datetime.fromtimestamp(self.seconds, UTC)
        except (OverflowError, OSError, ValueError):
            return None

    @property
    def short(self) -> str:
        return self.sha[:10]


@dataclass(frozen=True)
class Change:
    """A path that differs. A file that moved was deleted in one place and added in the other."""

    status: str  # A added, D deleted, M modified, T of another type
    path: str


@dataclass(frozen=True)
class History:
    """A repository's history.

    Attributes:
        root: the working tree.
    """

    root: Path

    def git(self, *arguments: str, limit: int = LIMIT, given: IO[bytes] | None = None) -> bytes | None:
        """What git prints; None when it fails.

        Args:
            limit: bytes that it may print.
            given: a file that it reads from; nothing when not given.

        Raises:
            HistoryError: git is not installed, takes too long, or prints too much.
        """
        # No pager, no prompt, no lock, no program named by a repository's configuration, paths taken literally.
        command = ["git", "--no-pager", "-c", "core.fsmonitor=false", "-C", str(self.root), *arguments]
        environment = {
            **os.environ,
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "LC_ALL": "C",
        }
        late = False
        try:
            process = subprocess.Popen(
                command,
                stdin=given or subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
        except FileNotFoundError:
            raise HistoryError("git is not installed; it knows what changed and when.") from None

        def stop() -> None:
            nonlocal late
            late = True
            process.kill()

        timer = threading.Timer(SECONDS, stop)
        timer.start()
        try:
            with process:
                assert process.stdout is not None
                output = process.stdout.read(limit + 1)
                if len(output) > limit:
                    process.kill()
                    raise HistoryError(f"git {arguments[0]} prints more than {limit // 1024:,} KiB.")
        finally:
            timer.cancel()
        if late:
            raise HistoryError(f"git {arguments[0]} has not answered for {SECONDS} seconds.")
        return output if process.returncode == 0 else None

    def _text(self, *arguments: str, limit: int = LIMIT) -> str | None:
        output = self.git(*arguments, limit=limit)
        return None if output is None else output.decode("utf-8", "surrogateescape")

    @cached_property
    def exists(self) -> bool:
        """Whether this is a git repository with at least one commit."""
        return self._text("rev-parse", "--verify", "--quiet", "HEAD^{commit}") is not None

    @cached_property
    def shallow(self) -> bool:
        """Whether only a part of the history was fetched."""
        return (self._text("rev-parse", "--is-shallow-repository") or "").strip() == "true"

    @property
    def _deepen(self) -> str:
        return "Only a part of the history was fetched: run 'git fetch --unshallow' (in a workflow: 'fetch-depth: 0')."

    def commit(self, ref: str) -> str:
        """The id of the commit that a name stands for.

        Raises:
            UsageError: there is none.
        """
        plain = not ref.startswith("-") and "\0" not in ref
        found = (
            self._text("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}") if plain else None
        )
        if found is None or not _SHA.fullmatch(found.strip()):
            hint = self._deepen if self.shallow else "Fetch it first, or name another."
            raise UsageError(f"git knows no commit '{printable(ref, 80)}'. {hint}")
        return found.strip()

    def has(self, sha: str) -> bool:
        """Whether a commit is here."""
        return bool(_SHA.fullmatch(sha)) and self.git("cat-file", "-e", f"{sha}^{{commit}}") is not None

    def is_ancestor(self, earlier: str, later: str) -> bool:
        """Whether a commit is, or leads to, another one; both by id."""
        return self.git("merge-base", "--is-ancestor", earlier, later) is not None

    def merge_base(self, base: str, head: str = "HEAD") -> str:
        """The commit from which `head` departed from `base`.

        Raises:
            UsageError: one of them is unknown.
            HistoryError: they have no history in common.
        """
        one, other = self.commit(base), self.commit(head)
        found = self._text("merge-base", one, other)
        if found is None:
            why = self._deepen if self.shallow else "Was the history edited, or is this another repository's branch?"
            raise HistoryError(f"'{printable(base, 80)}' and '{printable(head, 80)}' have no history in common. {why}")
        return found.strip()

    def changes(self, base: str, head: str) -> list[Change]:
        """The paths that differ between two commits, sorted."""
        listed = self._text("diff-tree", "-r", "-z", "--no-renames", "--name-status", base, head)
        if listed is None:
            raise HistoryError(f"git cannot compare {base[:10]} and {head[:10]}.")
        parts = listed.split("\0")
        return sorted((Change(s[:1], p) for s, p in zip(parts[0::2], parts[1::2], strict=False)), key=lambda c: c.path)

    def text(self, commit: str, path: str, limit: int = 256 * 1024) -> str | None:
        """A plain file at a commit; None when there is no such file, or it is a link, a folder, or no UTF-8.

        Raises:
            HistoryError: it is larger than `limit` bytes.
        """
        listed = self._text("ls-tree", "-z", "--full-tree", commit, "--", path)
        match = re.match(r"100\d{3} blob ([0-9a-f]+)\t", listed or "")
        if match is None:
            return None
        try:
            raw = self.git("cat-file", "blob", match[1], limit=limit)
        except HistoryError:
            message = f"{printable(path, 200)} at {commit[:10]} is larger than {limit // 1024} KiB; make it smaller."
            raise HistoryError(message) from None
        try:
            return None if raw is None else raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            return None

    def names(self, commit: str, folder: str) -> list[str]:
        """The names in a folder at a commit; none when there is no such folder."""
        listed = self._text("ls-tree", "-z", "--full-tree", "--name-only", commit, "--", f"{folder.rstrip('/')}/")
        return [path.rpartition("/")[2] for path in (listed or "").split("\0") if path]

    def of_path(self, path: str, tip: str) -> list[tuple[Commit, bool]]:
        """The commits by which a file changed on a branch, oldest first, and whether each leaves the file there.

        A merge counts as one change, made when it was merged.

        Raises:
            HistoryError: the branch's beginning was not fetched.
        """
        listed = self._text(
            "log", "--first-parent", "--no-renames", "--name-status", "-z",
            "--format=%x01%H %ct %P", f"--max-count={MAX_COMMITS}", tip, "--", path,
        )  # fmt: skip
        found: list[tuple[Commit, bool]] = []
        for entry in (listed or "").split("\x01")[1:]:
            head, _, rest = entry.partition("\0")
            sha, seconds, *parents = head.split()
            found.append((Commit(sha, _whole(seconds)), not rest.strip("\0\n").startswith("D")))
            rooted = bool(parents)
        if found and not rooted and self.shallow:
            raise HistoryError(f"git does not know here since when there is {printable(path)}. {self._deepen}")
        return found[::-1]

    def between(self, base: str, head: str) -> list[Commit]:
        """The commits that lead from `base` to `head`, newest first, without `base`."""
        listed = self._text("log", "--format=%H %ct", f"--max-count={MAX_COMMITS + 1}", head, f"^{base}")
        commits = [Commit(sha, _whole(seconds)) for sha, seconds in map(str.split, (listed or "").splitlines())]
        if len(commits) > MAX_COMMITS:
            raise HistoryError(f"more than {MAX_COMMITS:,} commits since {base[:10]}; name a nearer base.")
        return commits

    def at(self, sha: str) -> Commit:
        """A commit with its date."""
        listed = self._text("log", "--no-walk", "--format=%H %ct", sha)
        if not listed or len(parts := listed.split()) != 2:
            raise HistoryError(f"git cannot read the commit {sha[:10]}.")
        return Commit(parts[0], _whole(parts[1]))

    def parents(self, sha: str) -> list[str]:
        """The parents of a commit."""
        return (self._text("rev-list", "--no-walk", "--parents", sha) or "").split()[1:]

    def uncommitted(self) -> int:
        """How many files of projects and reviews differ from the last commit, or are not in it."""
        listed = self._text("status", "--porcelain", "-z", "--untracked-files=all", "--", "projects", "reviews")
        return sum(1 for entry in (listed or "").split("\0") if entry)

    def base_branch(self) -> str:
        """Where this branch is going to: what the remote calls its main branch, else main, else this branch itself."""
        for ref in ("refs/remotes/origin/HEAD", "refs/remotes/origin/main", "refs/heads/main", "refs/heads/master"):
            if self._text("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}") is not None:
                return ref
        return "HEAD"


def _whole(text: str) -> int:
    """git prints a date that it cannot represent as an empty or a huge number."""
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) else -1


# -- What the forge tells ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """What a forge says about a change: GitHub's payload of an event, as its workflows find it.

    Attributes:
        head: the commit it is about; None when it is about none.
        pushed: when the forge received it, by the forge's clock; None when it does not say.
        actor: whose change it is.
        rewritten: the commit that a forced push to a branch took off it.
    """

    head: str | None = None
    pushed: datetime | None = None
    actor: str | None = None
    rewritten: str | None = None


def read_event(path: Path) -> Event:
    """Read an event's payload.

    A pull request counts by when its branch was last pushed to, and a push by when the forge received it: both are
    the forge's own clock. What the payload tells of the commits themselves is the committers' clocks, and not used.

    Raises:
        UsageError: the file cannot be read, or is no payload.
    """
    from referee.checks.reading import Unreadable, parse_json, read_text

    try:
        data = parse_json(read_text(path, MAX_EVENT))
    except Unreadable as error:
        raise UsageError(f"the event {printable(str(path), 200)} {error}.") from None
    if not isinstance(data, dict):
        raise UsageError(f"the event {printable(str(path), 200)} is no JSON object.")
    pull = data.get("pull_request")
    if isinstance(pull, dict):
        head = _sha(_in(pull, "head", "sha"))
        pushed = _moment(_in(pull, "head", "repo", "pushed_at"))
        updated = _moment(pull.get("updated_at"))
        # Somebody may have pushed to another branch of the same repository since.
        moments = [m for m in (pushed, updated) if m is not None]
        return Event(head, min(moments) if moments else None, _handle(_in(pull, "user", "login")))
    head = _sha(data.get("after"))
    before = _sha(data.get("before"))
    return Event(
        head,
        _moment(_in(data, "repository", "pushed_at")) if head else None,
        _handle(_in(data, "sender", "login")),
        before if head and data.get("forced") is True else None,
    )


PUSHES = "pushes.json"
"""In the editor's private folder: when the forge received which commit, as its events said at the gate."""


def read_pushes(folder: Path) -> dict[str, datetime]:
    """When the forge received commits, by their ids, as far as it was kept in an editor's folder.

    Raises:
        UsageError: the file is not as `keep_push` writes it.
    """
    from referee.checks.reading import Unreadable, parse_json, read_text

    path = folder / PUSHES
    if not path.is_symlink() and not path.exists():
        return {}
    shown = printable(str(path), 200)
    try:
        data = parse_json(read_text(path, MAX_EVENT))
    except Unreadable as error:
        raise UsageError(f"{shown}:{error.line}: {error}. Restore it, or delete it and state 'received'.") from None
    pushes = {_sha(head): _moment(at) for head, at in data.items()} if isinstance(data, dict) else {}
    found = {head: at for head, at in pushes.items() if head is not None and at is not None}
    if not isinstance(data, dict) or len(found) < len(data):
        wrong = "is no JSON object of commits and moments"
        raise UsageError(f"{shown}: {wrong}. Restore it, or delete it and state 'received'.")
    return found


def keep_push(folder: Path, head: str, pushed: datetime) -> None:
    """Keep when the forge received a commit: the earliest time it said, for what was pushed stays pushed.

    Raises:
        UsageError: what is kept already cannot be read, or the file cannot be written.
    """
    pushes = read_pushes(folder)
    pushes[head] = min(pushed, pushes.get(head, pushed))
    try:
        from common.records import write_text  # which imports numpy, and only this needs it

        write_text(folder / PUSHES, pushes_text(pushes))
        (folder / PUSHES).chmod(0o600)
    except OSError as error:
        raise UsageError(f"{printable(str(folder / PUSHES), 200)} cannot be written ({error.strerror}).") from None


def pushes_text(pushes: Mapping[str, datetime]) -> str:
    """The content of `pushes.json`."""
    return json.dumps({sha: at.astimezone(UTC).isoformat() for sha, at in sorted(pushes.items())}, indent=1) + "\n"


def _in(data: Mapping[str, Any], *names: str) -> Any:
    here: Any = data
    for name in names:
        here = here.get(name) if isinstance(here, dict) else None
    return here


def _sha(value: Any) -> str | None:
    return value if isinstance(value, str) and _SHA.fullmatch(value) and set(value) != {"0"} else None


def _handle(value: Any) -> str | None:
    return value if isinstance(value, str) and _HANDLE.fullmatch(value) else None


def _moment(value: Any) -> datetime | None:
    """GitHub writes moments as ISO 8601 in UTC, and as seconds since 1970 in a push's repository."""
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str) and len(value) <= 40:
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, OverflowError, OSError):
        pass
    return None


def check_actor(handle: str) -> str:
    """A handle given on the command line. UsageError when it cannot be one."""
    if not _HANDLE.fullmatch(handle):
        raise UsageError(f"'{printable(handle, 60)}' is no handle: letters, digits and hyphens.")
    return handle


# -- When a change counts ----------------------------------------------------------------------------------------------


_CLOCK = "Set the clock right, then: git commit --amend --no-edit --reset-author (a rebase, for older commits)."


@dataclass(frozen=True)
class Counted:
    """When a change counts, by whose clock, and what is wrong with the clocks.

    Attributes:
        pushed: whether it is the forge's clock.
    """

    moment: datetime
    how: str
    wrong: tuple[str, ...] = field(default=())
    pushed: bool = False


def when(history: History, base: str, head: str, event: Event | None, now: datetime) -> Counted:
    """When the commits from `base` to `head` count: the rule of `referee gate` and of `referee grade`.

    By when they were pushed, where the forge tells. Otherwise by the latest of their committers' dates and the base's:
    a commit cannot be older than what it builds on, so setting a clock back to before that gains nothing.

    Args:
        event: what the forge says; for grades, what an editor kept of it (`read_pushes`).
        now: no later moment can be.

    Raises:
        UsageError: the event is about another commit.
    """
    commits = history.between(base, head)
    wrong: list[str] = []
    moments: list[datetime] = []
    for commit in commits:
        moment = commit.moment
        if moment is None or moment < BIRTH:
            wrong.append(
                f"the commit {commit.short} has a date that cannot be ({commit.seconds} seconds since 1970). {_CLOCK}"
            )
        elif moment > now + SKEW:
            wrong.append(f"the commit {commit.short} is from the future ({moment:%Y-%m-%d %H:%M} UTC). {_CLOCK}")
        else:
            moments.append(moment)
    if event is not None and event.head is not None:
        if event.head != head and event.head not in history.parents(head):  # a workflow may check out the merge
            raise UsageError(
                f"the event is about the commit {event.head[:10]}, but {head[:10]} is checked out. "
                "Check out the commit of the event, or leave --event away."
            )
        if event.pushed is not None:
            if BIRTH <= event.pushed <= now + SKEW:
                return Counted(event.pushed, "when it was pushed, as the forge says", tuple(wrong), pushed=True)
            pushed = f"the event says that it was pushed at {event.pushed:%Y-%m-%d %H:%M} UTC, which cannot be"
            wrong.append(f"{pushed}. Give the payload as the forge sent it.")
    told = "the forge's event tells nothing" if event is not None else "no event of a forge was given"
    if (start := history.at(base).moment) is not None and start <= now + SKEW:
        moments.append(start)
    latest = max(moments, default=now) if not wrong else now
    return Counted(latest, f"the latest committer's date, since {told}", tuple(wrong))


def printable(text: str, limit: int = 200) -> str:
    """Text from anywhere as one short line that no terminal acts on."""
    from referee.checks.base import printable as inert

    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return inert(cut)
