"""What the pages are made from, read once (`Site`), and what a page is (`Page`)."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path

from common.errors import RecordError, UserError
from referee.assignment import load_assignment
from referee.course import ROLLING, Course, load_course
from referee.documents import DocumentError
from referee.history import Commit, HistoryError
from referee.probed import ProbeRun, load_probes
from referee.project import Project, paper_names
from referee.reviews import Reviews, load_reviews
from referee.site.past import Past
from referee.stages import Freeze, freeze
from referee.standing import Standing, standing


@dataclass(frozen=True)
class Page:
    """A file of the tree, and what lies beside it.

    Attributes:
        path: in the tree, like "projects/iwae.md" or "register.json".
        text: Markdown; of other files, their content.
        files: path in the tree -> content, or the file of the repository (or of a cache) that is copied there.
    """

    path: str
    text: str | bytes = ""
    files: Mapping[str, bytes | Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Site:
    """A repository as the pages see it.

    Attributes:
        standings: every project that can be read, by name.
        problems: what is wrong with the repository, one message each; of projects that cannot be read, too.
        probes: project -> what its probes came to, where that was published.
        repository: its address at a forge, without a slash at the end; "" where none is known, so that nothing links
            to files that are not on the site. From SITE_REPOSITORY, as in mkdocs.yml.
        url: where the site is published, without a slash at the end; "" where it is not known. From SITE_URL.
    """

    root: Path
    standings: tuple[Standing, ...]
    course: Course = ROLLING
    problems: tuple[str, ...] = ()
    probes: Mapping[str, ProbeRun] = field(default_factory=dict)
    repository: str = ""
    url: str = ""
    _reviews: dict[str, Reviews] = field(default_factory=dict, repr=False, compare=False)
    _frozen: dict[str, Freeze | None] = field(default_factory=dict, repr=False, compare=False)

    def standing(self, paper: str) -> Standing:
        """One project's. KeyError if there is none."""
        return self._by_name[paper]

    def reviews(self, paper: str) -> Reviews:
        """All that was written about a project; what cannot be read of it is in `.problems`."""
        if paper not in self._reviews:
            self._reviews[paper] = load_reviews(Project(self.root, paper))
        return self._reviews[paper]

    @cached_property
    def assignment(self) -> Mapping[str, tuple[str, ...]]:
        """Project -> the handles of those who are to review it."""
        try:
            return load_assignment(self.root)
        except UserError:  # which is among the problems
            return {}

    @cached_property
    def history(self) -> Past | None:
        """None where there is no git, or no commit yet."""
        history = Past(self.root)
        try:
            return history if history.exists else None
        except HistoryError:
            return None

    def changed(self, path: str) -> list[tuple[Commit, bool]]:
        """The commits by which a file (relative to the root) changed, oldest first, and whether each leaves it there.
        Empty where there is no history."""
        try:
            return self.history.of_path(path, "HEAD") if self.history else []
        except HistoryError:
            return []

    def first(self, path: str) -> datetime | None:
        """Since when the history has a file."""
        found = self.changed(path)
        return found[0][0].moment if found else None

    def last(self, path: str) -> datetime | None:
        """When a file changed last."""
        found = self.changed(path)
        return found[-1][0].moment if found else None

    def freeze(self, paper: str) -> Freeze | None:
        """The acceptance of a project's proposal."""
        if paper not in self._frozen:
            try:
                self._frozen[paper] = freeze(self.history, paper, "HEAD") if self.history else None
            except HistoryError:
                self._frozen[paper] = None
        return self._frozen[paper]

    @cached_property
    def _by_name(self) -> dict[str, Standing]:
        return {s.project.name: s for s in self.standings}


def load_site(root: Path) -> Site:
    """Read a repository. What is wrong with single projects is among the problems; the others are read."""
    problems: list[str] = []
    standings: list[Standing] = []
    probes: dict[str, ProbeRun] = {}
    for name in paper_names(root):
        try:
            s = standing(Project(root, name))
        except DocumentError as error:
            problems += str(error).splitlines()
            continue
        except UserError as error:
            problems.append(str(error))
            continue
        standings.append(s)
        try:
            run = load_probes(s.project)
        except RecordError as error:
            s.problems.append(str(error))
        else:
            probes |= {name: run} if run else {}
        problems += s.problems
    try:
        course = load_course(root)
    except DocumentError as error:
        problems += str(error).splitlines()
        course = ROLLING
    try:
        load_assignment(root)
    except DocumentError as error:
        problems += str(error).splitlines()
    addresses = {}
    for name in ("SITE_REPOSITORY", "SITE_URL"):
        addresses[name] = os.environ.get(name, "").rstrip("/")
        if addresses[name] and not re.fullmatch(r"https?://[A-Za-z0-9.:-]+(/[A-Za-z0-9._~/-]*)?", addresses[name]):
            raise UserError(f"{name} is not an address like https://example.org/papers: {addresses[name][:80]!r}")
    reviews = {s.project.name: load_reviews(s.project) for s in standings}
    problems += [str(problem) for read in reviews.values() for problem in read.problems]
    repository, url = addresses["SITE_REPOSITORY"], addresses["SITE_URL"]
    return Site(root, tuple(standings), course, tuple(problems), probes, repository, url, reviews)
