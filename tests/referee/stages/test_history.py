"""What git and the forge tell, and what they must not be made to tell."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from referee.history import BIRTH, Event, History, HistoryError, check_actor, read_event, when
from referee.project import UsageError
from tests.referee.stages.conftest import YAML, Repository, at

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
HOSTILE = [
    "--upload-pack=touch HACKED",
    "-x",
    "$(touch HACKED)",
    "a;touch HACKED",
    "main\n--all",
    "\x1b[31mred",
    "..",
    "\0",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_no_commits_and_reach_no_terminal(repository: Repository, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        History(repository.root).merge_base(name)
    assert "\x1b" not in str(caught.value)
    assert not list(repository.root.parent.rglob("HACKED"))


def test_hostile_branch_names_are_branches(repository: Repository) -> None:
    name = "$(touch${IFS}HACKED)"
    repository.branch(name)
    head = repository.commit()
    assert History(repository.root).commit(name) == head
    assert not list(repository.root.parent.rglob("HACKED"))


def test_changes_files_and_names(proposed: Repository) -> None:
    history = History(proposed.root)
    base = history.commit("main")
    odd = "projects/toy/a b\nc\t*.txt"
    head = proposed.commit((odd, "x"), ("pyproject.toml", None), (YAML, at("v1")))
    assert [(c.status, c.path) for c in history.changes(base, head)] == [
        ("A", odd),
        ("M", YAML),
        ("D", "pyproject.toml"),
    ]
    assert history.text(head, odd) == "x"
    assert history.text(base, odd) is None
    assert history.text(head, "projects/toy/*") is None  # a path, not a pattern
    assert history.text(head, "projects/toy") is None  # a folder
    assert len(history.of_path(YAML, head)) == 2
    assert history.of_path("projects/*/project.yaml", head) == []
    assert history.names(head, "projects/toy") == ["a b\nc\t*.txt", "project.yaml"]
    assert history.uncommitted() == 0
    proposed.write("projects/toy/new.py", "")
    assert history.uncommitted() == 1


def test_links_large_files_and_other_encodings_are_not_text(repository: Repository) -> None:
    (repository.root / "link").symlink_to("/etc/passwd")
    (repository.root / "latin").write_bytes(b"\xe9")
    head = repository.commit(("large", "x" * 2000))
    history = History(repository.root)
    assert history.text(head, "link") is None
    assert history.text(head, "latin") is None
    assert history.text(head, "large") == "x" * 2000
    with pytest.raises(HistoryError, match="larger than 1 KiB"):
        history.text(head, "large", limit=1024)
    with pytest.raises(HistoryError, match="prints more than"):
        history.git("log", "-p", limit=10)


def test_no_common_history(repository: Repository) -> None:
    repository.git("checkout", "--quiet", "--orphan", "other")
    repository.commit(message="elsewhere")
    with pytest.raises(HistoryError, match="no history in common"):
        History(repository.root).merge_base("main")


def test_a_shallow_clone_says_so(proposed: Repository, tmp_path: Path) -> None:
    proposed.git("checkout", "--quiet", "main")
    proposed.commit((YAML, at("v1")))
    proposed.git("clone", "--quiet", "--depth", "1", f"file://{proposed.root}", str(tmp_path / "clone"))
    history = History(tmp_path / "clone")
    assert history.shallow
    with pytest.raises(HistoryError, match="git fetch --unshallow"):
        history.of_path(YAML, "HEAD")
    with pytest.raises(UsageError, match="git fetch --unshallow"):
        history.merge_base("HEAD~1")


def test_when_a_file_came_to_a_branch(proposed: Repository) -> None:
    """A merge counts as it happened on the branch that took it, not as its commits were made elsewhere."""
    proposed.commit((YAML, at("v1")), date="2026-12-05T00:00:00+00:00")
    proposed.git("checkout", "--quiet", "main")
    proposed.clock = "2026-12-09T00:00:00+00:00"
    proposed.git("merge", "--quiet", "--no-ff", "-m", "merge", "work")
    found = History(proposed.root).of_path(YAML, "main")
    assert [c.moment and c.moment.day for c, _ in found] == [20, 9]
    assert all(there for _, there in found)
    proposed.commit((YAML, None))
    assert [there for _, there in History(proposed.root).of_path(YAML, "main")] == [True, True, False]


def test_outside_git(tmp_path: Path) -> None:
    history = History(tmp_path)
    assert not history.exists
    with pytest.raises(UsageError, match="knows no commit"):
        history.commit("HEAD")


# -- When a change counts ---------------------------------------------------------------------------------------------


def counted(repository: Repository, event: Event | None = None, now: datetime = NOW):  # type: ignore[no-untyped-def]
    history = History(repository.root)
    return when(history, history.merge_base("main"), history.commit("HEAD"), event, now)


def test_the_forge_knows_better_than_the_committer(proposed: Repository) -> None:
    head = proposed.commit(date="2026-11-25T10:00:00+00:00")
    assert counted(proposed).moment == datetime(2026, 11, 25, 10, tzinfo=UTC)
    assert "no event of a forge was given" in counted(proposed).how
    pushed = datetime(2026, 11, 28, tzinfo=UTC)
    found = counted(proposed, Event(head, pushed))
    assert found.moment == pushed
    assert "pushed" in found.how
    assert "tells nothing" in counted(proposed, Event(head, None)).how


def test_a_clock_set_back_gains_nothing(proposed: Repository) -> None:
    """The base is of 20 November; a commit on top of it cannot be older."""
    proposed.commit(date="2026-11-02T10:00:00+00:00")
    assert counted(proposed).moment == datetime(2026, 11, 20, 12, tzinfo=UTC)
    proposed.commit(date="2026-11-26T10:00:00+00:00")
    proposed.commit(date="2026-11-02T10:00:00+00:00")
    assert counted(proposed).moment == datetime(2026, 11, 26, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("date", "says"),
    [
        ("2027-06-01T00:00:00+00:00", "from the future"),
        ("1999-01-01T00:00:00+00:00", "cannot be"),
        ("@99999999999 +0000", "from the future"),
        ("@0 +0000", "cannot be"),
    ],
)
def test_dates_that_cannot_be(proposed: Repository, date: str, says: str) -> None:
    proposed.commit(date=date)
    found = counted(proposed)
    assert says in found.wrong[0]
    assert found.moment == NOW  # and counts as made now


def test_a_date_that_no_clock_shows(proposed: Repository) -> None:
    """Written by hand into a commit: git prints what it cannot represent in ways of its own."""
    tree, parent = proposed.git("rev-parse", "HEAD^{tree}"), proposed.git("rev-parse", "HEAD")
    who = "ada <a@b> 99999999999999999999999 +0000"
    text = f"tree {tree}\nparent {parent}\nauthor {who}\ncommitter {who}\n\nodd\n"
    done = subprocess.run(
        ["git", "-C", str(proposed.root), "hash-object", "-t", "commit", "-w", "--literally", "--stdin"],
        input=text, capture_output=True, text=True, check=True,
    )  # fmt: skip
    proposed.git("update-ref", "refs/heads/work", done.stdout.strip())
    assert counted(proposed).wrong


def test_a_clock_a_few_minutes_ahead_is_forgiven(proposed: Repository) -> None:
    proposed.commit(date=(NOW + timedelta(minutes=5)).isoformat())
    assert counted(proposed).wrong == ()


def test_an_event_about_another_commit_is_refused(proposed: Repository) -> None:
    first = proposed.commit()
    proposed.commit()
    with pytest.raises(UsageError, match="the event is about the commit"):
        counted(proposed, Event("1" * 40, NOW))
    merge = proposed.git("rev-parse", "HEAD")
    proposed.git("checkout", "--quiet", "main")
    proposed.git("merge", "--quiet", "--no-ff", "-m", "the forge's merge", "work")
    history = History(proposed.root)
    found = when(history, first, history.commit("HEAD"), Event(merge, NOW), NOW)  # a parent of what is checked out
    assert "pushed" in found.how


def test_a_forge_from_the_future_is_not_believed(proposed: Repository) -> None:
    head = proposed.commit(date="2026-11-25T10:00:00+00:00")
    found = counted(proposed, Event(head, NOW + timedelta(days=1)))
    assert "cannot be" in found.wrong[0]
    assert found.moment == NOW


# -- Events -----------------------------------------------------------------------------------------------------------

SHA = "a" * 40


def event(tmp_path: Path, data: object) -> Event:
    path = tmp_path / "event.json"
    path.write_text(json.dumps(data))
    return read_event(path)


def pull(**fields: object) -> dict[str, object]:
    return {
        "action": "synchronize",
        "pull_request": {
            "number": 7,
            "title": "$(touch HACKED)\x1b[31m",
            "user": {"login": "ada"},
            "updated_at": "2027-01-15T22:00:00Z",
            "head": {"sha": SHA, "ref": "`id`", "repo": {"pushed_at": "2027-01-15T21:59:00Z"}},
            **fields,
        },
    }


def test_a_pull_request(tmp_path: Path) -> None:
    assert event(tmp_path, pull()) == Event(SHA, datetime(2027, 1, 15, 21, 59, tzinfo=UTC), "ada")
    # Somebody pushed to another branch of the same repository since.
    later = {"sha": SHA, "repo": {"pushed_at": "2027-01-16T10:00:00Z"}}
    assert event(tmp_path, pull(head=later)).pushed == datetime(2027, 1, 15, 22, tzinfo=UTC)
    assert event(tmp_path, pull(head={"sha": SHA, "repo": None})).pushed == datetime(2027, 1, 15, 22, tzinfo=UTC)


def test_a_push(tmp_path: Path) -> None:
    data = {
        "before": "b" * 40,
        "after": SHA,
        "forced": True,
        "repository": {"pushed_at": 1800000000},
        "sender": {"login": "bo"},
        "head_commit": {"timestamp": "1999-01-01T00:00:00Z"},
    }
    assert event(tmp_path, data) == Event(SHA, datetime.fromtimestamp(1800000000, UTC), "bo", "b" * 40)
    assert event(tmp_path, {**data, "forced": False}).rewritten is None
    assert event(tmp_path, {**data, "after": "0" * 40}) == Event(actor="bo")  # the branch was deleted


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"pull_request": []},
        {"pull_request": {"head": "x", "user": 3, "updated_at": 1e99}},
        {"pull_request": {"head": {"sha": "HEAD; rm -rf /", "repo": {"pushed_at": "soon"}}, "user": {"login": "a b"}}},
        {"after": 5, "repository": {"pushed_at": 10**25}, "sender": {"login": "-rf"}},
        {"pull_request": {"head": {"sha": SHA, "repo": {"pushed_at": "2027-01-15T21:59:00"}}}},  # no zone
    ],
)
def test_events_of_odd_shapes_tell_nothing(tmp_path: Path, data: object) -> None:
    found = event(tmp_path, data)
    assert found.pushed is None
    assert found.actor is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '"x"', '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 100_000, "\0", "\ud800"]
)
def test_what_is_no_event_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "event.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UsageError, match=r"event\.json (is|holds)"):
        read_event(path)


def test_where_there_is_no_event(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UsageError):
            read_event(path)


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=8),
        lambda x: st.lists(x)
        | st.dictionaries(
            st.sampled_from(["pull_request", "head", "sha", "repo", "pushed_at", "user", "login", "after", "sender"]), x
        ),
    )
)
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: object) -> None:
    try:
        found = event(tmp_path_factory.mktemp("event"), data)
    except UsageError:
        return
    assert found.pushed is None or found.pushed.tzinfo is UTC
    assert found.actor is None or check_actor(found.actor)


@pytest.mark.parametrize("handle", ["", "-x", "a b", "ада", "x" * 40, "a\n", "a/b", "[bot]"])
def test_what_is_no_handle(handle: str) -> None:
    with pytest.raises(UsageError):
        check_actor(handle)


def test_handles() -> None:
    assert check_actor("dependabot[bot]")
    assert check_actor("Ada-1")
    assert BIRTH.year == 2005
