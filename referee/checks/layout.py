"""LAY: the project's folder has the shape that people and commands rely on. PRJ: the rules of `project.yaml`."""

import ast
import keyword
import sys
from collections.abc import Iterator

from common.digest import INTERFACE
from referee.checks.base import FROM_V1, WARN_FROM_V1, Found, Submission, check, register_reading
from referee.checks.reading import LOCAL_PATH, MAX_SOURCE, MAX_TEXT, Unreadable, line_of, parse_python, read_text
from referee.project import PAPER_NAME

MAX_LINES = 450  # "about 400"
TEXTS = (".py", ".md", ".yaml", ".yml", ".json", ".jsonl", ".ipynb", ".txt", ".toml", ".cfg")
KNOWN = (*TEXTS, ".png", ".jpg", ".jpeg", ".svg", ".safetensors", ".bib")

OFFERS = (*sorted(INTERFACE), "PRESETS", "PROBES")
"""What `common.experiment.Paper` asks of a paper's file."""

register_reading("PRJ", "project.yaml")


@check(
    "LAY-001",
    "The project's files are there",
    why="Each file has a reader: the machine project.yaml, a person the README, a reviewer the tests.",
    fix="Add the file; CONTRIBUTING lists what each one is. A link does not count as a file.",
)
def files_are_there(submission: Submission) -> Iterator[Found]:
    name = submission.name
    wanted = ["project.yaml"]
    if submission.stage != "proposed":
        wanted += ["README.md", "__init__.py", f"{name}.py", f"test_{name}.py", f"{name}.ipynb"]
    for file in wanted:
        if not submission.has(file):
            yield submission.at(file), 1, "is missing; add it."
        elif file == "project.yaml":
            _ = submission.file  # what is wrong with it is said under the rules PRJ
    if submission.stage != "proposed" and not any(e.path.name == "record.json" for e in submission.entries):
        message = f"holds no record; run a preset with 'referee run {name} --preset smoke --publish'."
        yield submission.at("results"), 1, message


@check(
    "LAY-002",
    "The folder's name can be imported",
    why="The project is the Python module projects.<paper>.<paper>, and commands name it.",
    fix="Rename the folder: small letters, digits and underscores, beginning with a letter.",
)
def name_can_be_imported(submission: Submission) -> Iterator[Found]:
    name = submission.name
    taken = keyword.iskeyword(name) or name in sys.stdlib_module_names or name in ("common", "referee", "projects")
    if not PAPER_NAME.fullmatch(name) or not name.isidentifier() or taken:
        why = "is taken by Python or this repository" if taken else "is no name for a module"
        yield submission.project.folder, 1, f"'{name}' {why}; rename the folder to small letters, digits and _."


@check(
    "LAY-003",
    "Text files are readable UTF-8",
    why="A file that editors and programs read differently hides something.",
    fix="Save the file as UTF-8 without NUL characters, below 1 MiB (a notebook: below its own limit).",
)
def texts_are_readable(submission: Submission) -> Iterator[Found]:
    for entry in submission.files(*TEXTS):
        if entry.path.suffix == ".ipynb":
            continue  # NB-001 reads it
        try:
            read_text(entry.path, MAX_SOURCE if entry.path.suffix == ".py" else MAX_TEXT)
        except Unreadable as error:
            yield entry.path, error.line, f"{error}; save it as UTF-8 text, no larger than needed."


@check(
    "LAY-004",
    "Python files are Python",
    why="Nothing else can be said of code that does not parse.",
    fix="Correct the line named.",
)
def python_is_python(submission: Submission) -> Iterator[Found]:
    for entry in submission.files(".py"):
        try:
            parse_python(read_text(entry.path, MAX_SOURCE))
        except Unreadable as error:
            yield entry.path, error.line, f"{error}; correct it."


@check(
    "LAY-005",
    "The paper's file offers what the commands call",
    why="run, probe and demo work on every paper because each offers the same few names.",
    fix="Define it at the top of the file; common/experiment.py says what it is.",
    severity=FROM_V1,
)
def interface_is_offered(submission: Submission) -> Iterator[Found]:
    path = submission.project.paper_file
    defined = top_level_names(submission.tree(path))
    for name in OFFERS:
        if name not in defined:
            yield path, 1, f"defines no '{name}'; common/experiment.py (Paper) says what it is."


@check(
    "LAY-006",
    "The paper is one file of about 400 lines",
    why="A reader should get through the whole idea in one sitting.",
    fix="Move plumbing to common (on its third use), figures to the notebook; shorten the rest.",
    severity=WARN_FROM_V1,
)
def paper_is_short(submission: Submission) -> Iterator[Found]:
    path = submission.project.paper_file
    lines = submission.text(path).count("\n")
    if lines > MAX_LINES:
        yield path, MAX_LINES, f"has {lines} lines; about 400 is what a reader follows. Shorten it."


@check(
    "LAY-007",
    "A project imports common and libraries, nothing else of the repository",
    why="Projects can be read, moved and removed one by one; the referee judges from outside.",
    fix="Take what you need into the project, declared under 'borrowed', or into common on its third use.",
    severity=FROM_V1,
)
def imports_stay_inside(submission: Submission) -> Iterator[Found]:
    for entry in submission.files(".py"):
        for module, line in imported(submission.tree(entry.path)):
            parts = module.split(".")
            elsewhere = parts[0] == "projects" and parts[1:2] not in ([], [submission.name])
            if parts[0] == "referee" or elsewhere or module.startswith(".."):
                yield entry.path, line, f"imports '{module[:80]}'; a project imports common and libraries only."


@check(
    "LAY-008",
    "Files name no path on somebody's machine",
    why="It works on one machine only, and tells who worked there.",
    fix="Use a path relative to the project or repository, a temporary folder of the library, or an option.",
    severity=WARN_FROM_V1,
)
def no_local_paths(submission: Submission) -> Iterator[Found]:
    for entry in submission.files(".py", ".md", ".yaml", ".json"):
        text = submission.text(entry.path)
        if found := LOCAL_PATH.search(text):
            message = f"names the local path '{found[0][:60]}'; use a relative path or an option."
            yield entry.path, line_of(text, found.start()), message


@check(
    "LAY-009",
    "Files are of a kind that belongs here",
    why="What nobody can read in a review should not be in it.",
    fix="Delete it, or say in the README what it is for and have its kind added to this check.",
    severity="warning",
)
def kinds_are_known(submission: Submission) -> Iterator[Found]:
    for entry in submission.files():
        if entry.path.suffix.lower() not in KNOWN:
            yield entry.path, 1, "is of a kind that has no place in a project; delete it."


# -- What other modules use, too ---------------------------------------------------------------------------------------


def top_level_names(tree: ast.Module) -> set[str]:
    """The names that a module defines or imports at its top."""
    names: set[str] = set()
    for statement in tree.body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {(a.asname or a.name).split(".")[0] for a in aliases}
    return names


def imported(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """All modules that a file imports anywhere, absolute or relative ('.x'), with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            if node.level or node.module != "projects":
                yield base, node.lineno
            if not node.level and node.module == "projects":
                yield from ((f"projects.{alias.name}", node.lineno) for alias in node.names)


def literal_keys(tree: ast.Module, name: str) -> list[str] | None:
    """The text keys of a dictionary written out at a module's top; None when it is not one or has other keys."""
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=n)], value=ast.Dict(keys=keys)) if n == name:
                pass
            case ast.AnnAssign(target=ast.Name(id=n), value=ast.Dict(keys=keys)) if n == name:
                pass
            case _:
                continue
        found = [key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
        return found if len(found) == len(keys) else None
    return None
