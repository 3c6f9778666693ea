"""Where the repository and its projects are. Imports neither torch nor pydantic until a project is opened."""

import importlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from common.errors import UserError, nearest

if TYPE_CHECKING:  # importing them for real brings torch and pydantic
    from common.experiment import Paper
    from referee.schema import ProjectFile

PAPER_NAME = re.compile(r"[a-z0-9_]+")
HANDLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}")
"""Of a person, as forges have them."""


class UsageError(UserError):
    """The command was called in a way that cannot work; exit status 2."""


def find_root(start: Path | None = None) -> Path:
    """The repository: the nearest folder upward that holds `pyproject.toml` and `projects/`, else this package's.

    Raises:
        UsageError: neither is such a folder.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[1]):
        if (folder / "pyproject.toml").is_file() and (folder / "projects").is_dir():
            return folder
    raise UsageError(
        f"{here} is not inside a repository of projects (a folder with pyproject.toml and projects/). "
        "Change into one, or install the package from it with 'pip install -e .'."
    )


def paper_names(root: Path) -> list[str]:
    """The projects of the repository, by name."""
    return sorted(
        folder.name
        for folder in (root / "projects").iterdir()
        if PAPER_NAME.fullmatch(folder.name) and (folder / "project.yaml").is_file()
    )


@dataclass(frozen=True)
class Project:
    """One paper's folder."""

    root: Path
    name: str

    @property
    def folder(self) -> Path:
        return self.root / "projects" / self.name

    @property
    def paper_file(self) -> Path:
        return self.folder / f"{self.name}.py"

    @property
    def results(self) -> Path:
        """Published records."""
        return self.folder / "results"

    @property
    def runs(self) -> Path:
        """Runs made on this machine."""
        return self.root / "runs" / self.name

    def shown(self, path: Path) -> str:
        """A path as messages show it: relative to the repository where it can be."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def load(self) -> "ProjectFile":
        """Read `project.yaml`; DocumentError lists what is wrong with it."""
        from referee.loading import load_project

        path = self.folder / "project.yaml"
        return load_project(path, self.shown(path))

    def module(self) -> "Paper":
        """Import the paper's code (and torch with it)."""
        if not self.paper_file.is_file():
            raise UserError(f"{self.shown(self.paper_file)} is missing: '{self.name}' has no code yet.")
        if str(self.root) not in sys.path:
            sys.path.insert(0, str(self.root))
        try:
            module = importlib.import_module(f"projects.{self.name}.{self.name}")
        except SyntaxError as error:
            raise UserError(f"{error.filename}:{error.lineno}: not Python: {error.msg}.") from None
        if Path(module.__file__ or "").resolve() != self.paper_file.resolve():
            raise UserError(f"'import projects.{self.name}' finds {module.__file__}, not {self.paper_file}.")
        return cast("Paper", module)


def find_project(root: Path, name: str) -> Project:
    """A project by name; UsageError names the nearest when there is none."""
    known = paper_names(root)
    if not PAPER_NAME.fullmatch(name) or name not in known:
        listed = f" Papers: {', '.join(known)}." if known else " There is no project yet."
        raise UsageError(f"unknown paper '{name[:80]}'.{nearest(name, known)}{listed}")
    return Project(root, name)
