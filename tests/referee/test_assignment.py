"""Assignments are the best there are: compared with all others where those can be listed, in seconds where not."""

import itertools
import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from referee.assignment import Infeasible, Plan, Reviewed, Reviewer, Task, _lot, plan, reciprocal

FAMILIES = ["vae", "flow", "gan"]


def person(handle: str, *expertise: str, conflicts: str = "") -> Reviewer:
    return Reviewer(handle, frozenset(expertise), frozenset(conflicts.split()))


def project(name: str, team: str, family: str = "vae") -> Reviewed:
    return Reviewed(name, family, frozenset(team.split()))


def everyone(handles: str) -> tuple[Reviewer, ...]:
    return tuple(person(h) for h in handles.split())


def allowed(task: Task, chosen: dict[str, tuple[str, ...]]) -> bool:
    """What must hold, said anew and slowly."""
    everybody = {r.handle: r for r in task.reviewers}
    teams = {p.name: {h.lower() for h in p.team} for p in (*task.projects, *task.settled)}
    reviews = {**{p.name: tuple(h) for p, h in task.settled.items()}, **chosen}
    for name, handles in chosen.items():
        if len(set(handles)) != task.each:
            return False
        for handle in handles:
            if handle.lower() in teams[name]:
                return False
            for member in teams[name]:
                theirs = next((r for r in task.reviewers if r.handle.lower() == member), person("x"))
                if member in {c.lower() for c in everybody[handle].conflicts}:
                    return False
                if handle.lower() in {c.lower() for c in theirs.conflicts}:
                    return False
    for a, b in itertools.combinations(teams, 2):
        if a in chosen or b in chosen:  # between settled ones nothing can be changed
            forth = any(h.lower() in teams[a] for h in reviews[b])
            back = any(h.lower() in teams[b] for h in reviews[a])
            if forth and back:
                return False
    load = loads(task, chosen)
    new = {h for handles in chosen.values() for h in handles}
    return task.at_most is None or all(load[h] <= task.at_most for h in new)


def loads(task: Task, chosen: dict[str, tuple[str, ...]]) -> dict[str, int]:
    handles = [h for group in (*chosen.values(), *task.settled.values()) for h in group]
    return {r.handle: handles.count(r.handle) for r in task.reviewers}


def all_assignments(task: Task) -> Iterator[dict[str, tuple[str, ...]]]:
    groups = list(itertools.combinations(sorted(r.handle for r in task.reviewers), task.each))
    names = [p.name for p in task.projects]
    for choice in itertools.product(groups, repeat=len(names)):
        chosen = dict(zip(names, choice, strict=True))
        if allowed(task, chosen):
            yield chosen


def worth(task: Task, seed: int, chosen: dict[str, tuple[str, ...]]) -> tuple[int, ...]:
    """Smaller is better, from left to right."""
    expertise = {r.handle: r.expertise for r in task.reviewers}
    family = {p.name: p.family for p in task.projects}
    pairs = {(h, name) for name, handles in chosen.items() for h in handles}
    before = {(h, name) for name, handles in task.previous.items() for h in handles if name in chosen}
    dropped = before - pairs
    return (
        len(dropped),
        len(dropped & task.begun),
        sum(n * n for n in loads(task, chosen).values()),
        -sum(bool(expertise[h] & {family[name], name}) for h, name in pairs),
        sum(_lot(seed, pair) for pair in pairs),
    )


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    people = [f"u{i}" for i in range(draw(st.integers(3, 6)))]
    some = st.sets(st.sampled_from(people), max_size=2).map(frozenset)
    reviewers = tuple(
        Reviewer(h, draw(st.sets(st.sampled_from([*FAMILIES, "p0"]), max_size=2).map(frozenset)), draw(some))
        for h in people
    )
    n = draw(st.integers(1, 3))
    projects = tuple(Reviewed(f"p{i}", draw(st.sampled_from(FAMILIES)), draw(some)) for i in range(n))
    each = draw(st.integers(1, 2))
    group = st.lists(st.sampled_from(people), min_size=each, max_size=each, unique=True)
    previous = {p.name: draw(group) for p in projects if draw(st.booleans())}
    begun = frozenset((h, name) for name, handles in previous.items() for h in handles if draw(st.booleans()))
    settled = {Reviewed("old", "vae", draw(some)): draw(group)} if draw(st.booleans()) else {}
    at_most = draw(st.sampled_from([None, 1, 2]))
    return Task(reviewers, projects, each, at_most, previous, settled, begun)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tasks(), st.integers(0, 3))
def test_nothing_is_better(task: Task, seed: int) -> None:
    others = list(all_assignments(task))
    if not others:
        with pytest.raises(Infeasible, match="It would be possible"):
            plan(task, seed)
        return
    found = plan(task, seed)
    assert allowed(task, dict(found.reviewers))
    assert worth(task, seed, dict(found.reviewers)) == min(worth(task, seed, other) for other in others)
    assert found.load == loads(task, dict(found.reviewers))


def semester(teams: int, each: int, seed: int = 1) -> Task:
    rng = random.Random(seed)
    reviewers = tuple(
        Reviewer(f"u{i}", frozenset(rng.sample(FAMILIES, 1)), frozenset({f"u{rng.randrange(3 * teams)}"}))
        for i in range(3 * teams)
    )
    projects = tuple(
        Reviewed(f"p{t}", rng.choice(FAMILIES), frozenset(f"u{3 * t + j}" for j in range(3))) for t in range(teams)
    )
    return Task(reviewers, projects, each)


def test_thirty_teams_and_a_drop_out() -> None:
    task = semester(30, 3)
    first = plan(task, 7)
    assert set(first.load.values()) == {1}
    assert reciprocal(first.reviewers, {p.name: p.team for p in task.projects}) == []
    gone = first.reviewers["p4"][0]
    rest = Task(tuple(r for r in task.reviewers if r.handle != gone), task.projects, 3, previous=first.reviewers)
    second = plan(rest, 8)
    assert [project for _, project in second.dropped] == ["p4"]  # the one review that cannot stay, and no other
    assert sum(set(second.reviewers[p]) != set(first.reviewers[p]) for p in first.reviewers) == 1


def test_the_seed_decides_and_order_does_not() -> None:
    task = semester(6, 2)
    shuffled = Task(task.reviewers[::-1], task.projects[::-1], 2)
    assert plan(task, 1) == plan(task, 1) == plan(shuffled, 1)
    assert task.digest() == shuffled.digest()
    assert len({tuple(plan(task, seed).reviewers.items()) for seed in range(4)}) > 1


def test_the_digest_depends_on_everything() -> None:
    task = semester(3, 2)
    others = [
        Task(task.reviewers[1:], task.projects, 2),
        Task(task.reviewers, task.projects[1:], 2),
        Task(task.reviewers, task.projects, 1),
        Task(task.reviewers, task.projects, 2, at_most=3),
        Task(task.reviewers, task.projects, 2, previous={"p0": ["u4"]}),
        Task(task.reviewers, task.projects, 2, settled={project("q", "u1"): ["u4"]}),
        Task(task.reviewers, task.projects, 2, begun=frozenset({("u4", "p0")})),
    ]
    assert len({t.digest() for t in (task, *others)}) == len(others) + 1


def test_capitals_hide_nobody() -> None:
    found = plan(Task(everyone("Ada bo cy"), (project("p", "ADA"),), 2), 0)
    assert found.reviewers == {"p": ("bo", "cy")}
    with pytest.raises(Infeasible):
        plan(Task((person("Ada", conflicts="CY"), person("bo")), (project("p", "cy"),), 2), 0)


def explained(task: Task) -> str:
    with pytest.raises(Infeasible) as caught:
        plan(task, 0)
    return str(caught.value)


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (
            Task(everyone("ada bo"), (project("p", "ada"),), 2),
            [
                "2 people to 1 project at 2 reviewers each",
                "fewer than 2\n  what is never done: ada reviews p, their own",
            ],
        ),
        (
            Task((person("ada"), person("bo", conflicts="ada"), person("cy")), (project("p", "ada"),), 2),
            ["a conflict overlooked: bo reviews p in spite of the conflict with ada", "p gets 1 fewer than 2"],
        ),
        (
            Task(everyone("ada bo"), (project("p", "ada"), project("q", "bo")), 1),
            ["teams that review each other: the teams of p and q review each other", "fewer than 1"],
        ),
        (
            Task(everyone("ada bo"), (project("p", "x"), project("q", "y"), project("r", "z")), 1, at_most=1),
            ["more reviews a person (reviews_per_reviewer): ", " gets 1 more than 1", "gets 1 fewer than 1"],
        ),
        (
            Task(everyone("ada"), (project("q", "bo"),), 1, settled={project("p", "ada"): ["bo"]}),
            ["ada reviews q, whose team has reviewed p"],
        ),
        (Task((), (project("p", "ada"),), 2), ["0 people", "p gets 2 fewer than 2"]),
    ],
)
def test_what_stands_in_the_way(task: Task, says: list[str]) -> None:
    message = explained(task)
    for piece in says:
        assert piece in message


def test_the_smallest_ways_out_come_first() -> None:
    task = Task(everyone("ada abe bo bea"), (project("p", "ada abe"), project("q", "bo bea")), 2)
    message = explained(task)
    assert "p gets 2 fewer than 2" in message or "q gets 2 fewer than 2" in message
    assert message.index("the teams of p and q review each other") < message.index("2 fewer than 2")


def test_who_has_begun_stays() -> None:
    """One of two reviewers has to go, since reviews are fewer now; the one who has begun is kept."""
    before = {"p": ["ada", "bo"]}
    for begun in ("ada", "bo"):
        task = Task(everyone("ada bo cy"), (project("p", "x"),), 1, previous=before, begun=frozenset({(begun, "p")}))
        assert plan(task, 3).reviewers == {"p": (begun,)}


def test_nothing_to_assign() -> None:
    assert plan(Task(everyone("ada bo"), (), 2), 0) == Plan({}, {"ada": 0, "bo": 0}, 0, ())
