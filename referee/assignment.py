"""Who reviews what: an exact assignment of reviewers to the projects that stand at v1.

What must hold: every project gets its number of reviewers; nobody reviews their own project, or one whose team they
have a conflict with (whoever declared it); no two teams review each other; nobody gets more reviews than the course
allows. Among all assignments that hold, the best is taken, in this order:

    1. as few changes to the previous assignment as possible, and of those as few as possible to reviews begun
    2. the load is balanced: the least sum of squared loads, so loads differ by at most one wherever they can
    3. as many reviews as possible by people who know the family or the paper
    4. the seed decides between what is equal

Each step is an integer linear program, solved to its optimum by HiGHS (`scipy.optimize.milp`) under the optima of the
steps before it. If nothing holds, the same program with its constraints made elastic tells which would have to give.
"""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from common.errors import UserError
from common.records import write_text
from referee.course import FILE as COURSE
from referee.course import Course, Person, ProjectName, load_course, not_expertise
from referee.documents import parse_yaml, pattern, read_yaml
from referee.history import History
from referee.project import Project, UsageError, find_root, paper_names
from referee.schema import Handle, Part
from referee.words import number_of

ASSIGNMENT = "reviews/assignment.yaml"

KINDS = ("load", "number", "reciprocity", "conflict", "own")
"""What can stand in the way, from what gives most easily to what never does."""


@dataclass(frozen=True)
class Reviewer:
    """Somebody who reviews. Handles are compared without regard to capitals, as forges do."""

    handle: str
    expertise: frozenset[str] = frozenset()  # families and papers
    conflicts: frozenset[str] = frozenset()  # handles, from either side


@dataclass(frozen=True)
class Reviewed:
    """A project to be reviewed."""

    name: str
    family: str
    team: frozenset[str]  # handles


@dataclass(frozen=True)
class Task:
    """All that an assignment depends on, but the seed.

    Attributes:
        each: reviewers a project gets.
        at_most: reviews a person gets, over all projects; None: no limit.
        previous: project -> reviewers, of the assignment that this one follows.
        settled: the same for projects whose review is over; they stay, and count for load and reciprocity.
        begun: (handle, project) of reviews that are written already.
    """

    reviewers: tuple[Reviewer, ...]
    projects: tuple[Reviewed, ...]
    each: int = 2
    at_most: int | None = None
    previous: Mapping[str, Sequence[str]] = field(default_factory=dict, hash=False)
    settled: Mapping[Reviewed, Sequence[str]] = field(default_factory=dict, hash=False)
    begun: frozenset[tuple[str, str]] = frozenset()

    def digest(self) -> str:
        """sha256 of the task, independent of the order in which people and projects are listed."""
        content = {
            "reviewers": sorted([r.handle, sorted(r.expertise), sorted(r.conflicts)] for r in self.reviewers),
            "projects": sorted([p.name, p.family, sorted(p.team)] for p in self.projects),
            "each": self.each,
            "at_most": self.at_most,
            "previous": sorted([name, sorted(handles)] for name, handles in self.previous.items()),
            "settled": sorted([p.name, sorted(p.team), sorted(handles)] for p, handles in self.settled.items()),
            "begun": sorted(self.begun),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """An assignment, and how good it is."""

    reviewers: Mapping[str, tuple[str, ...]]  # project -> handles, both sorted; without what is settled
    load: Mapping[str, int]  # handle -> reviews, with what is settled
    matches: int  # reviews by somebody who knows the family or the paper
    dropped: tuple[tuple[str, str], ...]  # (handle, project) of the previous assignment that are no more


class Infeasible(UserError):
    """No assignment holds; the message says what stands in the way, with names."""


def plan(task: Task, seed: int) -> Plan:
    """The best assignment.

    Raises:
        Infeasible: there is none.
    """
    model = _Model(task)
    previous = {(_key(handle), name): 1 for name, handles in task.previous.items() for handle in handles}
    begun = {(_key(handle), name) for handle, name in task.begun}
    many = len(previous) + 1
    steps: list[dict[int, int]] = []
    kept = {v: -(many + (pair in begun)) for pair, v in model.pairs.items() if pair in previous}
    if kept:
        steps.append(kept)
    steps.append(model.squared_load())
    steps.append({v: -1 for pair, v in model.pairs.items() if model.knows(pair)})
    steps.append({v: _lot(seed, pair) for pair, v in model.pairs.items()})
    values: list[int] | None = None
    for cost in steps:
        if values is not None and not cost:
            continue
        values = model.minimise(cost)
        if values is None:
            raise Infeasible(_explain(task))
        model.add(cost, high=sum(c * values[v] for v, c in cost.items()))
    assert values is not None
    chosen = sorted(pair for pair, v in model.pairs.items() if values[v])
    names = {_key(r.handle): r.handle for r in task.reviewers}
    reviewers = {p.name: tuple(names[h] for h, name in chosen if name == p.name) for p in task.projects}
    load = Counter({r.handle: model.settled_load[_key(r.handle)] for r in task.reviewers})
    load.update(names[h] for h, _ in chosen)
    return Plan(
        reviewers=dict(sorted(reviewers.items())),
        load=dict(sorted(load.items())),
        matches=sum(model.knows(pair) for pair in chosen),
        dropped=tuple(sorted(set(previous) - set(chosen))),
    )


def reciprocal(reviewers: Mapping[str, Iterable[str]], teams: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
    """Pairs of projects whose teams review each other.

    Args:
        reviewers: project -> handles of its reviewers.
        teams: project -> handles of its team.
    """
    reviews = {name: {_key(h) for h in handles} for name, handles in reviewers.items()}
    team = {name: {_key(h) for h in handles} for name, handles in teams.items()}
    names = sorted(set(reviews) & set(team))
    return [
        (a, b) for i, a in enumerate(names) for b in names[i + 1 :] if reviews[a] & team[b] and reviews[b] & team[a]
    ]


def _key(handle: str) -> str:
    return handle.lower()


def _lot(seed: int, pair: tuple[str, str]) -> int:
    """A pair's lot: depends on nothing but the seed and the pair, so one person more does not shuffle the others."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{pair[0]}/{pair[1]}".encode()).digest()[:3], "big")


class _Model:
    """The integer program: one binary variable for each pair of a reviewer and a project that may come together.

    With `relax`, the named kinds of constraints may be broken, at the price of variables listed in `broken` with the
    words that say what was broken.
    """

    def __init__(self, task: Task, relax: Iterable[str] = ()):
        self.task = task
        self.relax = frozenset(relax)
        self.upper: list[int] = []  # of each variable; all are integers from 0
        self.rows: list[tuple[dict[int, int], float, float]] = []
        self.pairs: dict[tuple[str, str], int] = {}  # (handle, project) -> variable
        self.broken: list[tuple[str, str, int]] = []  # kind, words, variable
        self.people = {_key(r.handle): r for r in sorted(task.reviewers, key=lambda r: _key(r.handle))}
        self.projects = {p.name: p for p in sorted(task.projects, key=lambda p: p.name)}
        self.teams = {p.name: {_key(h) for h in p.team} for p in (*task.projects, *task.settled)}
        self.settled = {p.name: {_key(h) for h in handles} for p, handles in task.settled.items()}
        self.settled_load = Counter(h for handles in self.settled.values() for h in handles if h in self.people)
        self._pairs()
        self._numbers()
        self._loads()
        self._reciprocity()

    def variable(self, upper: int = 1) -> int:
        self.upper.append(upper)
        return len(self.upper) - 1

    def add(self, row: Mapping[int, int], low: float = float("-inf"), high: float = float("inf")) -> None:
        self.rows.append((dict(row), low, high))

    def _breakable(self, kind: str, words: str, upper: int = 1) -> int | None:
        """A variable that counts how far a constraint is broken, None if it must not be."""
        if kind not in self.relax:
            return None
        variable = self.variable(upper)
        self.broken.append((kind, words, variable))
        return variable

    def _pairs(self) -> None:
        both_ways = {(h, _key(c)) for h, r in self.people.items() for c in r.conflicts}
        both_ways |= {(b, a) for a, b in both_ways}
        for name in self.projects:
            team = self.teams[name]
            for handle in self.people:
                barred: list[tuple[str, str]] = []
                who = self.people[handle].handle
                if handle in team:
                    barred.append(("own", f"{who} reviews {name}, their own project"))
                if foes := sorted(h for h in team if (handle, h) in both_ways):
                    barred.append(("conflict", f"{who} reviews {name} in spite of the conflict with {foes[0]}"))
                if other := next((o for o in sorted(self.settled) if self._reviewed_back(handle, name, o)), None):
                    barred.append(("reciprocity", f"{who} reviews {name}, whose team has reviewed {other}"))
                if any(kind not in self.relax for kind, _ in barred):
                    continue
                self.pairs[handle, name] = self.variable()
                for kind, words in barred:
                    self.broken.append((kind, words, self.pairs[handle, name]))

    def _reviewed_back(self, handle: str, name: str, other: str) -> bool:
        """Whether somebody of the project's team has reviewed the other, settled project, of whose team this one is."""
        return handle in self.teams[other] and bool(self.settled[other] & self.teams[name])

    def _numbers(self) -> None:
        for name in self.projects:
            row = {v: 1 for (_, project), v in self.pairs.items() if project == name}
            missing = self._breakable("number", f"{name} gets {{n}} fewer than {self.task.each}", self.task.each)
            if missing is not None:
                row[missing] = 1
            self.add(row, self.task.each, self.task.each)

    def _loads(self) -> None:
        if self.task.at_most is None:
            return
        for handle, person in self.people.items():
            row = {v: 1 for (who, _), v in self.pairs.items() if who == handle}
            words = f"{person.handle} gets {{n}} more than {self.task.at_most}"
            more = self._breakable("load", words, len(self.projects))
            if more is not None:
                row[more] = -1
            self.add(row, high=max(0, self.task.at_most - self.settled_load[handle]))

    def _reciprocity(self) -> None:
        """For each two projects one variable says whose team may review the other: 1 the first's, 0 the second's."""
        names = list(self.projects)
        for i, a in enumerate(names):
            for b in names[i + 1 :]:
                forth = [self.pairs[h, b] for h in sorted(self.teams[a]) if (h, b) in self.pairs]
                back = [self.pairs[h, a] for h in sorted(self.teams[b]) if (h, a) in self.pairs]
                if not forth or not back:
                    continue
                first = self.variable()
                both = self._breakable("reciprocity", f"the teams of {a} and {b} review each other")
                free = {} if both is None else {both: -1}
                for v in forth:
                    self.add({v: 1, first: -1, **free}, high=0)
                for v in back:
                    self.add({v: 1, first: 1, **free}, high=1)

    def knows(self, pair: tuple[str, str]) -> bool:
        """Whether the person of a pair knows the project's family or its paper."""
        project = self.projects[pair[1]]
        return bool(self.people[pair[0]].expertise & {project.family, project.name})

    def squared_load(self) -> dict[int, int]:
        """The sum of squared loads as a cost: (l + 1)² − l² = 2l + 1 for each review that is added to l others."""
        cost: dict[int, int] = {}
        for handle in self.people:
            row = {v: 1 for (who, _), v in self.pairs.items() if who == handle}
            for n in range(len(row)):
                step = self.variable()
                row[step] = -1
                cost[step] = 2 * (self.settled_load[handle] + n) + 1
            self.add(row, 0, 0)
        return cost

    def minimise(self, cost: Mapping[int, int]) -> list[int] | None:
        """Values of all variables at the optimum; None if nothing satisfies the constraints."""
        import numpy as np  # these two take a third of a second; whoever only reads an assignment needs neither
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array

        if any(not row and not low <= 0 <= high for row, low, high in self.rows):
            return None
        rows = [entry for entry in self.rows if entry[0]]
        if not self.upper or not rows:
            return [0] * len(self.upper)
        values = [c for row, _, _ in rows for c in row.values()]
        columns = [v for row, _, _ in rows for v in row]
        starts = np.cumsum([0, *(len(row) for row, _, _ in rows)])
        matrix = csr_array((np.array(values, float), columns, starts), shape=(len(rows), len(self.upper)))
        c = np.zeros(len(self.upper))
        c[list(cost)] = list(cost.values())
        solution = milp(
            c,
            integrality=np.ones(len(c)),
            bounds=Bounds(0, np.array(self.upper, float)),
            constraints=LinearConstraint(matrix, [low for _, low, _ in rows], [high for _, _, high in rows]),
            options={"mip_rel_gap": 0},
        )
        if solution.status == 2:  # infeasible
            return None
        if solution.x is None or solution.status != 0:
            raise UserError(f"the solver gave up: {solution.message}")
        return [round(v) for v in solution.x]


def _explain(task: Task) -> str:
    """What stands in the way: for each kind of constraint that alone could give, the fewest that would have to."""
    people, projects = len(task.reviewers), len(task.projects)
    head = (
        f"no assignment of {people} {'person' if people == 1 else 'people'} to {projects} "
        f"{'project' if projects == 1 else 'projects'} at {task.each} reviewers each satisfies all rules."
    )
    ways = [(found, kind) for kind in KINDS if (found := _fewest(task, [kind]))]  # fewer reviewers is always one
    lines = [
        f"  {_REMEDIES[kind]}: {'; '.join(words)}"
        for (_, words), kind in sorted(ways, key=lambda w: (w[1] == "own", w[0][0], KINDS.index(w[1])))
    ]
    return "\n".join([head, "It would be possible with any one of these, and with no less of its kind:", *lines])


_REMEDIES = {
    "load": "more reviews a person (reviews_per_reviewer)",
    "number": "fewer reviewers (reviewers_per_project), or more people",
    "reciprocity": "teams that review each other",
    "conflict": "a conflict overlooked",
    "own": "what is never done",
}


def _fewest(task: Task, kinds: Iterable[str]) -> tuple[int, list[str]] | None:
    """The smallest set of constraints of these kinds without which an assignment is possible: how far they give
    together, and each in words. None if there is no such set."""
    model = _Model(task, kinds)
    if not model.broken:
        return None
    # Fewest first; of equally many those that give most easily.
    many = 1 + len(model.broken) * len(KINDS) * (task.each + len(task.projects))
    values = model.minimise({v: many + KINDS.index(kind) for kind, _, v in model.broken})
    if values is None:
        return None
    broken = [(words.format(n=values[v]), values[v]) for _, words, v in model.broken if values[v]]
    return sum(n for _, n in broken), [words for words, _ in broken]


# -- The file, and the command -----------------------------------------------------------------------------------------


class AssignmentFile(Part):
    """`reviews/assignment.yaml`."""

    seed: int
    inputs: Annotated[str, pattern(r"^[0-9a-f]{64}$", "it is a sha256 in hexadecimal digits")]
    """The digest of the people, the projects and the assignment before."""
    reviewers: dict[ProjectName, list[Handle]] = Field(default_factory=dict)
    """Nobody at a project that is not in the course: whoever may review it does."""


def load_assignment(root: Path, path: Path | None = None) -> dict[str, tuple[str, ...]]:
    """Who reviews what: project -> handles. Empty when nothing was assigned yet.

    Args:
        path: another file than the repository's.

    Raises:
        DocumentError: with all problems of the file.
    """
    file = path or root / ASSIGNMENT
    if path is None and not file.is_symlink() and not file.exists():
        return {}
    shown = ASSIGNMENT if path is None else str(path)
    read = read_yaml(file, AssignmentFile, rules="CRS", shown=shown)
    return {name: tuple(handles) for name, handles in read.reviewers.items()}


def assignment_at(history: History, commit: str) -> dict[str, tuple[str, ...]]:
    """The same, as a commit has it.

    Raises:
        DocumentError: with all problems of the file.
    """
    text = history.text(commit, ASSIGNMENT)
    if text is None:
        return {}
    read = parse_yaml(text, AssignmentFile, rules="CRS", shown=f"{ASSIGNMENT} at {commit[:10]}")
    return {name: tuple(handles) for name, handles in read.reviewers.items()}


def is_assigned(assignment: Mapping[str, Sequence[str]], paper: str, handle: str) -> bool:
    """Whether a review by somebody is one of those that a paper needs: by whom it was assigned to, once there is an
    assignment, and by anybody who may review, before; and of a project that is not in the course."""
    return for_anybody(assignment, paper) or _key(handle) in map(_key, assignment.get(paper, ()))


def for_anybody(assignment: Mapping[str, Sequence[str]], paper: str) -> bool:
    """Whether the reviews of a paper are nobody's in particular: nothing is assigned, or it is entered for nobody."""
    return not assignment or (paper in assignment and not assignment[paper])


def gather(root: Path, course: Course, previous: Mapping[str, Sequence[str]]) -> Task:
    """All that the assignment of a repository depends on.

    Raises:
        UserError: the `project.yaml` of a project to be reviewed is not as it should be.
    """
    from referee.checks.command import stage_of

    reviewers = tuple(
        Reviewer(p.handle, frozenset(p.expertise), frozenset(c.handle for c in course.people if _foes(course, p, c)))
        for p in course.people
        if "reviewer" in p.roles
    )
    projects: list[Reviewed] = []
    settled: dict[Reviewed, Sequence[str]] = {}
    begun: set[tuple[str, str]] = set()
    for name in filter(course.includes, paper_names(root)):
        project = Project(root, name)
        stage = stage_of(project)
        if stage not in ("v1", "v2", "published"):
            continue
        file = project.load()
        reviewed = Reviewed(name, file.family, frozenset(member.handle for member in file.team))
        wrote = sorted({path.stem for path in (root / "reviews" / name).glob("*.md")} - {"response", "decision"})
        if stage == "v1":
            projects.append(reviewed)
            begun |= {(handle, name) for handle in wrote}
        elif before := previous.get(name) or [h for h in wrote if course.person(h)]:
            settled[reviewed] = before  # from before there was an assignment: those who have reviewed it
    return Task(
        reviewers,
        tuple(projects),
        course.reviewers_per_project,
        course.reviews_per_reviewer,
        {p.name: previous[p.name] for p in projects if p.name in previous},
        settled,
        frozenset(begun),
    )


def _foes(course: Course, one: Person, other: Person) -> bool:
    return one is not other and course.in_conflict(one.handle, other.handle)


def assign_command(options: argparse.Namespace) -> int:
    """`referee assign`."""
    root = find_root()
    course = load_course(root)
    if not any("reviewer" in p.roles for p in course.people):
        raise UsageError(f"assign: {COURSE} lists nobody with the role reviewer; add them first.")
    task = gather(root, course, load_assignment(root, Path(options.previous) if options.previous else None))
    if not task.projects:
        of = " of the course" if course.not_in_course else ""
        print(f"No project{of} stands at v1: there is nothing to assign.")
        return 0
    found = plan(task, options.seed)
    outside = [name for name in paper_names(root) if not course.includes(name)]
    _print(task, found, outside, [message for _, message in not_expertise(course, paper_names(root))])
    if options.dry_run:
        print(f"Nothing was written (--dry-run); it would be {ASSIGNMENT}.")
        return 0
    (root / ASSIGNMENT).parent.mkdir(exist_ok=True)
    write_text(root / ASSIGNMENT, written(task, found, options.seed, outside))
    print(f"wrote {ASSIGNMENT}")
    return 0


def written(task: Task, found: Plan, seed: int, outside: Iterable[str] = ()) -> str:
    """The text of `reviews/assignment.yaml`, the same for the same assignment.

    Args:
        outside: projects that are not in the course.
    """
    settled = {p.name: tuple(sorted(handles)) for p, handles in task.settled.items()}
    everything = {**settled, **found.reviewers, **dict.fromkeys(outside, ())}
    lines = [
        f"# Who reviews what. Made by: referee assign --seed {seed}",
        "# After a drop-out, change course.yaml and run it again: it changes as little as it can.",
        f"seed: {seed}",
        f"inputs: {task.digest()}",
        "reviewers:",
        *(
            f"  {name}: [{', '.join(handles)}]{'' if handles else '  # not in the course: whoever may review it'}"
            for name, handles in sorted(everything.items())
        ),
    ]
    return "\n".join(lines) + "\n"


def _print(task: Task, found: Plan, outside: Sequence[str], unmatched: Sequence[str]) -> None:
    from rich.text import Text

    from referee.show import console, plain_table

    before = {name: {_key(h) for h in handles} for name, handles in task.previous.items()}
    table = plain_table()
    for column in ("project", "family", "reviewers"):
        table.add_column(column, overflow="fold")
    for project in sorted(task.projects, key=lambda p: p.name):
        handles = [
            f"{h} (new)" if before and _key(h) not in before.get(project.name, set()) else h
            for h in found.reviewers[project.name]
        ]
        table.add_row(*(Text(cell) for cell in (project.name, project.family, ", ".join(handles))))
    out = console()
    out.print()
    out.print(table)
    out.print()
    reviews = sum(map(len, found.reviewers.values()))
    loads = sorted(found.load.values())
    out.print(
        f"{number_of(reviews, 'review')} by {number_of(len(task.reviewers), 'person', 'people')}, "
        f"{loads[0]} to {loads[-1]} each; "
        f"{found.matches} by somebody who knows the family or the paper."
    )
    for handle, name in found.dropped:
        out.print(Text(f"{handle} does not review {name} any more"))
    for message in unmatched:
        out.print(Text(message))
    if outside:
        out.print(Text(f"Not in the course, and assigned to nobody: {', '.join(outside)}."))
