"""NB: the notebook was run from top to bottom, shows what came out, and holds nothing that acts by itself."""

import ast
import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from referee.checks.base import FROM_V1, WARN_FROM_V1, Found, Skip, Submission, check
from referee.checks.reading import LOCAL_PATH, Unreadable, acting, parse_json, parse_python, read_text

MAX_CELLS = 500

INERT = frozenset({"text/plain", "text/latex", "image/png", "image/jpeg", "application/json"})
"""Kinds of output that a page shows and never runs."""

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
SHELL = re.compile(
    r"^\s*(?:!|%%?(?:bash|sh|cmd|script|system|sx|pip|conda|run|javascript|js|html|perl|ruby|writefile)\b)"
)
SHOWS = frozenset({"print", "display"})


@dataclass(frozen=True)
class Cell:
    """A cell of a notebook; outputs are as the file has them, each known to be an object."""

    number: int  # from 1, as people count
    line: int  # in the file
    code: bool
    source: str
    count: int | None
    outputs: list[dict[str, Any]]


def cells(submission: Submission) -> list[Cell]:
    """The notebook's cells; Skip when there is no notebook or it cannot be read (NB-001)."""
    if "notebook" not in submission.cache:
        try:
            submission.cache["notebook"] = _read(submission)
        except Unreadable:
            submission.cache["notebook"] = None
    if (known := submission.cache["notebook"]) is None:
        raise Skip
    result: list[Cell] = known
    return result


def _read(submission: Submission) -> list[Cell]:
    path = submission.at(f"{submission.name}.ipynb")
    return notebook_cells(read_text(path, submission.limits.notebook_kib * 1024))


def notebook_cells(text: str) -> list[Cell]:
    """The cells of a notebook's text.

    Raises:
        Unreadable: it is no notebook of the format 4, or is not as such a notebook has to be.
    """
    raw = parse_json(text)
    if not isinstance(raw, dict) or not isinstance(raw.get("cells"), list):
        raise Unreadable("is not a notebook: it holds no list of cells")
    if raw.get("nbformat") != 4:
        raise Unreadable(f"is of the notebook format {str(raw.get('nbformat'))[:20]}, not 4")
    if len(raw["cells"]) > MAX_CELLS:
        raise Unreadable(f"has more than {MAX_CELLS} cells")
    lines = [m.start() for m in re.finditer(r'^ {0,4}"cell_type":', text, re.MULTILINE)]
    placed = len(lines) == len(raw["cells"])  # as Jupyter writes it, one cell after the other
    found: list[Cell] = []
    line, before = 1, 0
    for number, cell in enumerate(raw["cells"], 1):
        if placed:
            line, before = line + text.count("\n", before, lines[number - 1]), lines[number - 1]
        found.append(_cell(cell, number, line))
    return found


def _cell(cell: Any, number: int, line: int) -> Cell:
    kind = cell.get("cell_type") if isinstance(cell, dict) else None
    if kind not in ("code", "markdown", "raw"):
        raise Unreadable(f"has a cell (number {number}) that is neither code nor text", line)
    count, outputs = cell.get("execution_count"), cell.get("outputs", [])
    if not isinstance(outputs, list) or not all(isinstance(o, dict) for o in outputs):
        raise Unreadable(f"has a cell (number {number}) whose outputs are no list of objects", line)
    if count is not None and type(count) is not int:
        raise Unreadable(f"has a cell (number {number}) whose execution count is no number", line)
    if kind != "code" and outputs:
        raise Unreadable(f"has a text cell (number {number}) with outputs", line)
    return Cell(number, line, kind == "code", _joined(cell.get("source", "")), count, outputs)


def _joined(text: Any) -> str:
    """Text as notebooks keep it: whole, or as a list of lines."""
    if isinstance(text, list) and all(isinstance(part, str) for part in text):
        return "".join(text)
    if isinstance(text, str):
        return text
    raise Unreadable("holds something else than text where text belongs")


def _code_cells(submission: Submission) -> list[Cell]:
    """The code cells that hold code."""
    return [cell for cell in cells(submission) if cell.code and cell.source.strip()]


@check(
    "NB-001",
    "The notebook can be read",
    why="It is the first thing a reader opens.",
    fix="Save it with Jupyter, in the notebook format 4.",
)
def notebook_can_be_read(submission: Submission) -> Iterator[Found]:
    for entry in submission.files(".ipynb"):
        if entry.path != submission.at(f"{submission.name}.ipynb"):
            yield entry.path, 1, f"is a second notebook; a project has one, {submission.name}.ipynb. Delete it."
            continue
        if entry.size > submission.limits.notebook_kib * 1024:
            continue  # NB-002
        try:
            _read(submission)
        except Unreadable as error:
            yield entry.path, error.line, f"{error}; save it with Jupyter."


@check(
    "NB-002",
    "The notebook is small",
    why="It is cloned, converted and shown many times.",
    fix="Draw pictures at the size at which they are seen, as PNG; clear what nobody reads.",
)
def notebook_is_small(submission: Submission) -> Iterator[Found]:
    limit = submission.limits.notebook_kib
    for entry in submission.files(".ipynb"):
        if entry.size > limit * 1024:
            yield entry.path, 1, f"is {entry.size / 1024:,.0f} KiB; the limit is {limit:,} KiB. Draw smaller pictures."


@check(
    "NB-003",
    "The notebook was executed once, from top to bottom",
    why="Cells run in another order show what nobody can repeat.",
    fix="Restart the kernel, run all cells, save.",
    severity=FROM_V1,
)
def executed_in_order(submission: Submission) -> Iterator[Found]:
    path = submission.at(f"{submission.name}.ipynb")
    code = _code_cells(submission)
    for expected, cell in enumerate(code, 1):
        if cell.count != expected:
            what = "was not executed" if cell.count is None else f"has the execution count {cell.count}, not {expected}"
            yield path, cell.line, f"cell {cell.number} {what}; restart the kernel, run all cells, save."
            return
    if not code:
        yield path, 1, "has no code; it shows the paper's idea and figures from the committed results."


@check(
    "NB-004",
    "No cell ended in an error",
    why="What comes after an error was not shown to work.",
    fix="Correct the cell, restart the kernel, run all cells, save.",
    severity=FROM_V1,
)
def no_errors(submission: Submission) -> Iterator[Found]:
    for cell in cells(submission):
        for output in cell.outputs:
            if output.get("output_type") == "error":
                name = str(output.get("ename"))[:60]
                message = f"cell {cell.number} ended in an error ({name}); correct it and run all cells."
                yield submission.at(f"{submission.name}.ipynb"), cell.line, message


@check(
    "NB-005",
    "Outputs are there",
    why="A reader sees the figures without running anything; cleared outputs show nothing.",
    fix="Run all cells and save with outputs.",
    severity=FROM_V1,
)
def outputs_are_there(submission: Submission) -> Iterator[Found]:
    path = submission.at(f"{submission.name}.ipynb")
    code = _code_cells(submission)
    for cell in code:
        if not cell.outputs and _always_shows(cell.source):
            yield path, cell.line, f"cell {cell.number} prints something and shows nothing; run all cells and save."
            return
    kinds = {kind for cell in code for output in cell.outputs for kind in _data(output)}
    if code and not any(cell.outputs for cell in code):
        yield path, 1, "shows no output at all; run all cells and save with outputs."
    elif code and not any(kind.startswith("image/") for kind in kinds):
        yield path, 1, "shows no picture; draw at least one figure from the committed results."


def _always_shows(source: str) -> bool:
    """Whether a cell calls print or display at its top level, so that it cannot end without output."""
    try:
        tree = parse_python(source)
    except Unreadable:
        return False  # magics
    return any(
        isinstance(s, ast.Expr)
        and isinstance(s.value, ast.Call)
        and isinstance(s.value.func, ast.Name)
        and s.value.func.id in SHOWS
        for s in tree.body
    )


def _data(output: dict[str, Any]) -> dict[str, Any]:
    data = output.get("data", {})
    return data if isinstance(data, dict) else {}


@check(
    "NB-006",
    "The notebook names no path on somebody's machine",
    why="It runs on one machine only, and tells who worked there.",
    fix="Use paths relative to the notebook; silence the library that prints its folder; run all cells.",
    severity=FROM_V1,
)
def no_local_paths(submission: Submission) -> Iterator[Found]:
    for cell in cells(submission):
        for where, text in [("", cell.source), *(("'s output", t) for o in cell.outputs for t in _texts(o))]:
            if found := LOCAL_PATH.search(text):
                message = f"cell {cell.number}{where} names the local path '{found[0][:60]}'; make it relative."
                yield submission.at(f"{submission.name}.ipynb"), cell.line, message
                break


def _texts(output: dict[str, Any]) -> Iterator[str]:
    """All text of an output but pictures."""
    kinds = {kind: value for kind, value in _data(output).items() if not kind.startswith("image/")}
    for value in (output.get("text", ""), output.get("traceback", ""), *kinds.values()):
        try:
            yield _joined(value)
        except Unreadable:
            yield str(value)


@check(
    "NB-007",
    "The notebook is inert: no scripts, no HTML that acts, no widgets",
    why="The notebook becomes a page of the site; what is in it would run in every reader's browser.",
    fix="Show text and PNG pictures: print(...), matplotlib. Use plain Markdown in text cells.",
)
def outputs_are_inert(submission: Submission) -> Iterator[Found]:
    path = submission.at(f"{submission.name}.ipynb")
    for cell in cells(submission):
        for what in _active(cell):
            yield path, cell.line, f"cell {cell.number} {what}; show text and PNG pictures only."


def _active(cell: Cell) -> Iterator[str]:
    if not cell.code and (found := acting(cell.source)):
        yield f"holds HTML that acts ('{found[0][:40]}')"
    for output in cell.outputs:
        kind = output.get("output_type")
        if kind not in ("stream", "display_data", "execute_result", "error"):
            yield f"has an output of the unknown kind '{str(kind)[:40]}'"
        if "data" in output and not isinstance(output["data"], dict):
            yield "has an output whose data is no object"
        for name, value in _data(output).items():
            if name not in INERT:
                yield f"has an output of the kind '{name[:60]}', which a page may run"
            elif name == "text/latex" and acting(str(value)):
                yield "has an output with a link that acts"
            elif name.startswith("image/") and not _picture(name, value):
                yield f"has an output that says it is {name} and is not"


def _picture(kind: str, value: Any) -> bool:
    try:
        head = base64.b64decode("".join(_joined(value).split())[:64], validate=True)
    except (Unreadable, binascii.Error, ValueError):
        return False
    return head.startswith(PNG if kind == "image/png" else JPEG)


@check(
    "NB-008",
    "The notebook runs Python and nothing else",
    why="It is executed by continuous integration and by readers: no shell, no installation, no downloads by magic.",
    fix="Put what must be installed into the project's requirements, what must be run into a Makefile or README.",
    severity=FROM_V1,
)
def no_shell(submission: Submission) -> Iterator[Found]:
    path = submission.at(f"{submission.name}.ipynb")
    for cell in cells(submission):
        for line in cell.source.splitlines() if cell.code else []:
            if SHELL.match(line):
                what = f"runs a shell or a magic ('{line.strip()[:40]}')"
                yield path, cell.line, f"cell {cell.number} {what}; take it out."
                break


@check(
    "NB-009",
    "The notebook tells a story",
    why="Figures without words are read by nobody but their author.",
    fix="Begin with a heading that names the paper; say before each figure what to see in it.",
    severity=WARN_FROM_V1,
)
def tells_a_story(submission: Submission) -> Iterator[Found]:
    path = submission.at(f"{submission.name}.ipynb")
    everything = cells(submission)
    prose = [cell for cell in everything if not cell.code and cell.source.strip()]
    if not everything or everything[0].code or not everything[0].source.lstrip().startswith("# "):
        yield path, 1, "does not begin with a heading; begin with '# ' and the paper's name."
    if 2 * len(prose) < len(_code_cells(submission)):
        yield path, 1, f"has {len(prose)} cells of text to {len(_code_cells(submission))} of code; say what they show."
