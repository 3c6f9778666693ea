"""Read `project.yaml`: untrusted text in, a `ProjectFile` out, or every problem of the file with its line.

Rules have permanent ids:

    PRJ-001  the file can be read (it exists, is not too large, is UTF-8)
    PRJ-002  it is YAML
    PRJ-003  plain YAML: one document, no anchors, aliases or tags, not nested too deeply
    PRJ-004  no key stands twice
    PRJ-005  every field is known
    PRJ-006  every required field is there
    PRJ-007  every value has its type and shape
    PRJ-008  numbers are readable
    PRJ-009  metrics are known
    PRJ-010  claim ids are unique
    PRJ-011  a claim does not contradict itself or its metric
    PRJ-012  text holds no control characters, paths stay inside the project
    PRJ-013  presets, runs and probes named in the file exist in the paper's module

A scalar is a number only if it looks like one to a reader: `84.78`, `-3`, `1e-3`. YAML's other spellings (`1_000`,
`0x10`, `84:18` for base sixty) stay text, and so do `yes` and `no`.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from common.errors import UserError, nearest
from referee.schema import (
    METRICS,
    Borrowed,
    Compute,
    Deviation,
    FigureClaim,
    Member,
    OrderingClaim,
    Paper,
    ProjectFile,
    ValueClaim,
)

MAX_BYTES = 256 * 1024
MAX_DEPTH = 12

Path_ = tuple[str | int, ...]  # the way to a value: ("claims", 0, "metric")


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a file."""

    file: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.message}"


class ProjectError(UserError):
    """`project.yaml` is not as it should be; the message lists every problem, one a line."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = tuple(sorted(problems, key=lambda p: (p.line, p.rule)))
        super().__init__("\n".join(str(p) for p in self.problems))


def load_project(path: Path, shown: str | None = None) -> ProjectFile:
    """Read and check a `project.yaml`.

    Args:
        path: the file.
        shown: what messages call it; the path when not given.

    Raises:
        ProjectError: with all problems found.
    """
    shown = shown or str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ProjectError([Problem(shown, 1, "PRJ-001", f"cannot be read: {error.strerror}.")]) from None
    if len(raw) > MAX_BYTES:
        message = f"larger than {MAX_BYTES // 1024} KiB; keep results and long texts in files of their own."
        raise ProjectError([Problem(shown, 1, "PRJ-001", message)])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        message = "not UTF-8 text; save the file with the encoding UTF-8."
        raise ProjectError([Problem(shown, line, "PRJ-001", message)]) from None
    return parse_project(text, shown)


def parse_project(text: str, shown: str = "project.yaml") -> ProjectFile:
    """Check the text of a `project.yaml`; see `load_project`."""
    tree = _Tree(shown)
    node = tree.compose(text)
    data = tree.value(node, ())
    problems = tree.problems
    project: ProjectFile | None = None
    if not isinstance(data, dict):
        problems.append(Problem(shown, 1, "PRJ-007", "holds no fields; it starts with 'stage: proposed' and so on."))
    else:
        try:
            project = ProjectFile.model_validate(data)
        except ValidationError as error:
            problems += [tree.explain(e, data) for e in error.errors()]
        problems += _contradictions(tree, data)
    if problems or project is None:
        raise ProjectError(problems)
    return project


def check_module(
    project: ProjectFile,
    presets: Mapping[str, Iterable[str]],
    probes: Iterable[str],
    shown: str = "project.yaml",
) -> list[Problem]:
    """What the file names and the paper's module does not have (rule PRJ-013).

    Args:
        presets: preset -> names of its runs, as in the module's `PRESETS`.
        probes: the names in the module's `PROBES`.
    """
    found: list[Problem] = []

    def missing(message: str) -> None:
        found.append(Problem(shown, 1, "PRJ-013", message))

    def check(what: str, preset: str, runs: Iterable[str]) -> None:
        if preset not in presets:
            hint = nearest(preset, presets)
            missing(f"{what}: the paper's module has no preset '{preset}'.{hint}")
            return
        known = list(presets[preset])
        for run in runs:
            if run not in known:
                hint = nearest(run, known)
                missing(f"{what}: preset '{preset}' has no run '{run}'.{hint} Runs: {', '.join(known)}.")

    for claim in project.claims:
        if isinstance(claim, ValueClaim):
            check(f"claim '{claim.id}'", claim.preset, [claim.run])
        elif isinstance(claim, OrderingClaim):
            check(f"claim '{claim.id}'", claim.preset, claim.runs)
    for entry in project.weights:
        preset, run = entry.split("/", 1)
        check("weights", preset, [run])
    offered = list(probes)
    for name in project.probes:
        if name not in offered:
            missing(f"probes: the paper's module offers no probe '{name}'.{nearest(name, offered)}")
    return found


class _Tree:
    """The file as YAML nodes: turns them into plain values and remembers where each one stands."""

    _NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")

    def __init__(self, shown: str):
        self.shown = shown
        self.lines: dict[Path_, int] = {}
        self.problems: list[Problem] = []

    def stop(self, line: int, rule: str, message: str) -> ProjectError:
        return ProjectError([Problem(self.shown, line, rule, message)])

    def compose(self, text: str) -> yaml.Node | None:
        """The document's root node; refuses what could be used to harm before building anything."""
        try:
            depth = documents = 0
            for event in yaml.parse(text, Loader=yaml.SafeLoader):
                assert event.start_mark is not None  # only events made by hand have none
                line = event.start_mark.line + 1
                if isinstance(event, yaml.CollectionStartEvent):
                    depth += 1
                    if depth > MAX_DEPTH:
                        raise self.stop(line, "PRJ-003", f"nested more than {MAX_DEPTH} levels deep.")
                elif isinstance(event, yaml.CollectionEndEvent):
                    depth -= 1
                elif isinstance(event, yaml.DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        raise self.stop(line, "PRJ-003", "a second document ('---'); a file holds one.")
                if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
                    what = "an alias" if isinstance(event, yaml.AliasEvent) else "an anchor"
                    message = f"{what} ('{event.anchor}'); write the value out where it is used."
                    raise self.stop(line, "PRJ-003", message)
                if (tag := getattr(event, "tag", None)) is not None:
                    raise self.stop(line, "PRJ-003", f"a tag ('{tag}'); plain values only.")
            return yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark is not None else 1
            what = " ".join(filter(None, (error.context, error.problem)))
            where = f" (column {mark.column + 1})" if mark else ""
            hint = " Indent with spaces, not tabs." if "\\t" in what else ""
            if "mapping values are not allowed" in what:
                hint = " Text that holds ': ' goes into quotes."
            raise self.stop(line, "PRJ-002", f"not YAML: {what}{where}.{hint}") from None
        except yaml.reader.ReaderError as error:
            line = text[: error.position].count("\n") + 1
            code = int(error.character)  # a number when the input is text
            message = f"the character U+{code:04X} is not allowed; delete it."
            raise self.stop(line, "PRJ-002", message) from None

    def value(self, node: yaml.Node | None, path: Path_) -> Any:
        """Plain Python values: dict, list, str, int, Decimal, bool or None."""
        if node is None:
            return None
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*path, i)) for i, child in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        assert isinstance(node, yaml.ScalarNode)
        if bad := next((c for c in node.value if unicodedata.category(c) in _UNSAFE and c != "\n"), None):
            message = f"{_way(path)}the character U+{ord(bad):04X} is not allowed in text; delete it."
            self.problems.append(Problem(self.shown, line, "PRJ-012", message))
        if node.style in ("'", '"', "|", ">"):
            return node.value
        if node.value in ("", "~", "null"):
            return None
        if node.value in ("true", "false"):
            return node.value == "true"
        if self._NUMBER.fullmatch(node.value) and len(node.value) <= 40:
            return int(node.value) if re.fullmatch(r"[-+]?\d+", node.value) else Decimal(node.value)
        return node.value

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, child in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                message = f"{_way(path)}a field's name is plain text."
                self.problems.append(Problem(self.shown, line, "PRJ-007", message))
                continue
            key = key_node.value
            if key in result:
                first = self.lines[(*path, key)]
                message = f"{_way(path)}the field '{key}' stands twice (first on line {first}); delete one."
                self.problems.append(Problem(self.shown, line, "PRJ-004", message))
                continue
            self.lines[(*path, key)] = line
            result[key] = self.value(child, (*path, key))
        return result

    def line(self, path: Path_) -> int:
        """Where a value stands, or the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def explain(self, error: ErrorDetails, data: dict[str, Any]) -> Problem:
        """One of pydantic's findings in our words."""
        loc = error["loc"]
        model: type[BaseModel] = ProjectFile
        if len(loc) > 2 and loc[0] == "claims":  # the kind of claim stands in the location too
            model = _CLAIMS.get(str(loc[2]), ProjectFile)
            loc = (*loc[:2], *loc[3:])
        elif len(loc) > 1:
            model = _PARTS.get(str(loc[0]), ProjectFile)
        where = _way(loc[:-1], data)
        name = str(loc[-1]) if loc else ""
        if len(loc) > 1 and isinstance(loc[-1], int):
            name = f"{loc[-2]}, entry {loc[-1] + 1}"
        kind, context = error["type"], error.get("ctx", {})
        given = error["input"]
        if kind == "extra_forbidden":
            fields = list(model.model_fields)
            hint = nearest(name, fields) or f" Known: {', '.join(fields)}."
            rule, message = "PRJ-005", f"{where}unknown field '{name}'.{hint}"
        elif kind == "missing":
            hint = _EXAMPLES.get(name, "")
            rule, message = "PRJ-006", f"{where}the field '{name}' is missing.{hint}"
        elif kind == "union_tag_not_found":
            where = _way(loc, data)
            rule, message = (
                "PRJ-006",
                f"{where}the field 'kind' is missing: value, ordering or figure.",
            )
        elif kind == "union_tag_invalid":
            where, loc = _way(loc, data), (*loc, "kind")
            tag = str(context.get("tag"))
            hint = nearest(tag, _CLAIMS)
            rule, message = (
                "PRJ-007",
                f"{where}unknown kind '{tag}'.{hint} One of value, ordering, figure.",
            )
        elif kind == "unreadable_number":
            rule = "PRJ-008"
            message = f"{where}'{name}': {error['msg']}; write it with a point and nothing else, like 84.78."
        elif kind == "unknown_metric":
            rule, message = "PRJ-009", f"{where}{error['msg']}."
        elif kind == "path_outside":
            rule, message = "PRJ-012", f"{where}'{name}': {error['msg']}."
        elif kind == "literal_error":
            choices = re.findall(r"'([^']+)'", str(context.get("expected", "")))
            hint = nearest(str(given), choices)
            rule = "PRJ-007"
            message = f"{where}'{name}' is {_brief(given)}.{hint} One of {', '.join(choices)}."
        elif kind == "string_type" and isinstance(given, int | Decimal):
            rule, message = "PRJ-007", f"{where}'{name}' is text; put it in quotes: \"{given}\"."
        elif kind == "string_pattern_mismatch":
            shape = _SHAPES.get(
                str(loc[-2]) if isinstance(loc[-1], int) else name, f"it has the form {context.get('pattern')}"
            )
            rule, message = "PRJ-007", f"{where}'{name}' is {_brief(given)}; {shape}."
        else:
            what = {
                "string_type": "is not text",
                "list_type": "is not a list; start each entry with '- '",
                "model_type": "is not a group of fields",
                "model_attributes_type": "is not a group of fields",
                "dict_type": "is not a group of fields",
                "int_type": "is not a whole number",
                "int_parsing": "is not a whole number",
                "int_from_float": "is not a whole number",
                "string_too_short": "is empty",
                "too_short": f"needs at least {context.get('min_length')} entries",
            }.get(kind, f"is {_brief(given)}: {error['msg'][:1].lower()}{error['msg'][1:]}")
            rule, message = "PRJ-007", f"{where}'{name}' {what}."
        return Problem(self.shown, self.line(loc), rule, message)


_UNSAFE = {
    "Cc",
    "Cf",
    "Cs",
    "Co",
}  # controls (terminal escapes), invisible and direction-changing characters
_CLAIMS: dict[str, type[BaseModel]] = {
    "value": ValueClaim,
    "ordering": OrderingClaim,
    "figure": FigureClaim,
}
_PARTS: dict[str, type[BaseModel]] = {
    "paper": Paper,
    "team": Member,
    "deviations": Deviation,
    "borrowed": Borrowed,
    "compute": Compute,
}
_EXAMPLES = {
    "source": ' Where does the paper say so? Like "Table 1, k=50".',
    "certainty": " 'seen' if the value was read in the paper or a copy of its table, 'mem' if remembered.",
    "tolerance": " How much worse than the paper still counts, in the claim's unit.",
    "direction": " Which way is better: lower or higher.",
    "runs": " The runs to compare, best first.",
    "preset": " The preset at which the claim is judged, like paper.",
}
_SHAPES = {
    "arxiv": 'it is the number alone, like "1509.00519"',
    "id": "it is made of small letters, digits and hyphens, like nll-k50",
    "handle": "it is a public handle: letters, digits and hyphens",
    "run": "it is made of letters, digits and . _ -",
    "runs": "it is made of letters, digits and . _ -",
    "weights": "it is preset/run, like laptop/k50",
}


def _brief(value: object) -> str:
    shown = repr(value) if isinstance(value, str) else str(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _way(path: Path_, data: Any = None) -> str:
    """'claim 'nll-k50': ' for a path into the claims, 'paper: ' for one into the paper, '' for the top."""
    if not path:
        return ""
    if len(path) >= 2 and path[0] == "claims" and isinstance(path[1], int):
        identity = None
        if isinstance(data, dict) and isinstance(data.get("claims"), list):
            claim = data["claims"][path[1]]
            identity = claim.get("id") if isinstance(claim, dict) else None
        return f"claim '{identity}': " if identity else f"claim {path[1] + 1}: "
    if len(path) >= 2 and isinstance(path[1], int):
        return f"{path[0]}, entry {path[1] + 1}: "
    return f"{path[0]}: "


def _contradictions(tree: _Tree, data: dict[str, Any]) -> list[Problem]:
    """What no single field shows: ids used twice, claims at odds with their metric."""
    found: list[Problem] = []
    claims = data.get("claims")
    if not isinstance(claims, list):
        return found
    first: dict[str, int] = {}

    def problem(path: Path_, rule: str, message: str) -> None:
        found.append(Problem(tree.shown, tree.line(path), rule, message))

    for i, claim in enumerate(claims):
        if not isinstance(claim, dict):
            continue
        path: Path_ = ("claims", i)
        identity = claim.get("id")
        where = f"claim '{identity}': "
        line = tree.line((*path, "id"))
        if isinstance(identity, str):
            if identity in first:
                message = f"the claim id '{identity}' is used twice (first on line {first[identity]})."
                problem((*path, "id"), "PRJ-010", message + " Give each claim its own.")
            first.setdefault(identity, line)
        runs = claim.get("runs")
        if isinstance(runs, list) and len({str(r) for r in runs}) < len(runs):
            problem((*path, "runs"), "PRJ-011", f"{where}a run stands twice in 'runs'.")
        name = claim.get("metric")
        metric = METRICS.get(name) if isinstance(name, str) else None
        if metric is None:
            continue
        if claim.get("unit", "nats") != metric.unit:
            message = f"{where}'{name}' is measured in {metric.unit}; write 'unit: {metric.unit}'."
            problem((*path, "unit" if "unit" in claim else "metric"), "PRJ-011", message)
        direction = claim.get("direction")
        if direction in ("lower", "higher") and direction != metric.direction:
            message = f"{where}a better '{name}' is {metric.direction}, not {direction}."
            problem((*path, "direction"), "PRJ-011", message)
    return found
