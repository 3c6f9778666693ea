"""Read the files that people write, safely: YAML, and Markdown that begins with YAML.

Untrusted text in, a data model out, or every problem of the file with its line. Every kind of file has a prefix of its
own (PRJ `project.yaml`, CRS `course.yaml`, REV reviews, responses and decisions); the numbers mean the same for all:

    001  the file can be read (it exists, is a plain file, is not too large, is UTF-8)
    002  it is YAML; a Markdown file begins with YAML between two lines '---'
    003  plain YAML: one document, no anchors, aliases or tags, not nested too deeply
    004  no key stands twice
    005  every field is known
    006  every required field is there
    007  every value has its type and shape
    008  numbers are readable
    009  names that the code must know are known
    010  ids are unique
    011  the file does not contradict itself
    012  text holds no control characters, paths stay inside

A scalar is a number only if it looks like one to a reader: `84.78`, `-3`, `1e-3`. YAML's other spellings (`1_000`,
`0x10`, `84:18` for base sixty) stay text, and so do dates, `yes` and `no`.
"""

import os
import re
import stat
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, StringConstraints, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from common.errors import UserError, nearest

MAX_BYTES = 256 * 1024
MAX_DEPTH = 12

Path_ = tuple[str | int, ...]  # the way to a value: ("claims", 0, "metric")
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a file."""

    file: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.message}"


class DocumentError(UserError):
    """A file is not as it should be; the message lists every problem, one a line."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = tuple(sorted(problems, key=lambda p: (p.line, p.rule)))
        super().__init__("\n".join(str(p) for p in self.problems))


# -- What models say about themselves ----------------------------------------------------------------------------------

_WORDS: dict[str, str] = {}  # pattern -> what it means to a reader


def pattern(regex: str, words: str) -> StringConstraints:
    """A shape of text for a model's field, with the words that explain it.

    >>> Slug = Annotated[str, pattern(r"^[a-z-]+$", "it is made of small letters and hyphens, like my-claim")]
    """
    _WORDS[regex] = words
    return StringConstraints(pattern=regex)


Refusal = Literal["unreadable_number", "unknown_name", "repeated", "contradiction", "unsafe"]
_REFUSALS: dict[str, str] = {
    "unreadable_number": "008",
    "unknown_name": "009",
    "repeated": "010",
    "contradiction": "011",
    "unsafe": "012",
}


def refuse(kind: Refusal, message: str, *, at: Path_ = ()) -> PydanticCustomError:
    """What a model's validator raises, so that the problem gets its rule and its line.

    Args:
        message: a sentence without its full stop; it stands after the field's name.
        at: the way from what is validated to the value that the problem is about.
    """
    return PydanticCustomError(kind, "{message}", {"message": message, "at": at})


# -- Files -------------------------------------------------------------------------------------------------------------


def read_text(path: Path, *, rules: str, shown: str | None = None, limit: int = MAX_BYTES) -> str:
    """The text of a plain file: bounded, UTF-8, no link, nothing that could block.

    Raises:
        DocumentError: rule 001.
    """
    shown = shown or str(path)

    def problem(message: str, line: int = 1) -> DocumentError:
        return DocumentError([Problem(shown, line, f"{rules}-001", message)])

    try:
        # Neither follow a link nor wait for a pipe that nobody writes to.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink():
            raise problem("is a symbolic link; put the file itself there.") from None
        raise problem(f"cannot be read: {error.strerror}.") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise problem("cannot be read: it is no plain file.")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            raw = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(raw) > limit:
        raise problem(f"larger than {limit // 1024} KiB; keep results and long texts in files of their own.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise problem("not UTF-8 text; save the file with the encoding UTF-8.", line) from None


def read_yaml(path: Path, model: type[M], *, rules: str, shown: str | None = None) -> M:
    """Read a YAML file into a model.

    Args:
        rules: the prefix of the rules that problems are reported under, like "PRJ".
        shown: what messages call the file; its path when not given.

    Raises:
        DocumentError: with all problems found.
    """
    shown = shown or str(path)
    return parse_yaml(read_text(path, rules=rules, shown=shown), model, rules=rules, shown=shown)


def parse_yaml(
    text: str,
    model: type[M],
    *,
    rules: str,
    shown: str,
    first_line: int = 1,
    also: "Callable[[dict[str, Any], Tree], None] | None" = None,
) -> M:
    """Check the text of a YAML file; see `read_yaml`.

    Args:
        first_line: the line of the file on which the text begins.
        also: looks at the plain values for what no single field shows, and notes problems in the tree. Values may
            have any type there.

    Raises:
        DocumentError: with all problems found.
    """
    tree = Tree(shown, rules, first_line)
    node = tree.compose(text)
    data = tree.value(node, ())
    parsed: M | None = None
    if not isinstance(data, dict):
        first = next(iter(model.model_fields))
        tree.problem((), "007", f"holds no fields; it starts with '{first}: …' and so on.")
    else:
        try:
            parsed = model.model_validate(data)
        except ValidationError as error:
            for details in error.errors():
                tree.explain(details, model, data)
        if also is not None:
            also(data, tree)
    if tree.problems or parsed is None:
        raise DocumentError(tree.problems)
    return parsed


def split_front_matter(text: str, *, rules: str, shown: str) -> tuple[str, int, str, int]:
    """The two parts of a Markdown file that begins with YAML between lines '---'.

    Returns:
        The YAML, the line it begins on, the Markdown, the line that begins on.

    Raises:
        DocumentError: there are no two such lines (rule 002), or a character has no place in text (rule 012).
    """
    lines = text.replace("\r\n", "\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if bad := next((c for c in line if c != "\t" and unicodedata.category(c) in UNSAFE), None):
            message = f"the character U+{ord(bad):04X} is not allowed in text; delete it."
            raise DocumentError([Problem(shown, number, f"{rules}-012", message)])
    if lines[0].rstrip() != "---":
        message = "does not begin with a line '---', the fields, and another line '---'; keep the form's head."
        raise DocumentError([Problem(shown, 1, f"{rules}-002", message)])
    end = next((i for i, line in enumerate(lines[1:], start=1) if line.rstrip() == "---"), None)
    if end is None:
        message = "the fields have no end: a line '---' is missing after them."
        raise DocumentError([Problem(shown, 1, f"{rules}-002", message)])
    return "\n".join(lines[1:end]) + "\n", 2, "\n".join(lines[end + 1 :]), end + 2


# -- YAML with its lines -----------------------------------------------------------------------------------------------

UNSAFE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
"""Unicode categories that text may not hold: controls (terminal escapes), invisible and direction-changing characters,
line breaks that editors do not show."""


class _Composer(yaml.composer.Composer, yaml.resolver.Resolver):
    """Builds nodes of what was read before."""

    def __init__(self, events: Iterable[yaml.Event]):
        yaml.composer.Composer.__init__(self)
        yaml.resolver.Resolver.__init__(self)
        self.events = deque(events)

    def check_event(self, *kinds: type[yaml.Event]) -> bool:
        return bool(self.events) and isinstance(self.events[0], kinds)

    def peek_event(self) -> yaml.Event:
        return self.events[0]

    def get_event(self) -> yaml.Event:
        return self.events.popleft()


class Tree:
    """A file as YAML nodes: turns them into plain values, remembers where each one stands, gathers what is wrong."""

    _NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")

    def __init__(self, shown: str, rules: str, first_line: int = 1):
        self.shown = shown
        self.rules = rules
        self.offset = first_line
        self.lines: dict[Path_, int] = {}
        self.problems: list[Problem] = []

    def problem(self, path: Path_, number: str, message: str) -> None:
        """Note that a value breaks a rule."""
        self._note(self.line(path), number, message)

    def _note(self, line: int, number: str, message: str) -> None:
        self.problems.append(Problem(self.shown, line, f"{self.rules}-{number}", message))

    def _stop(self, line: int, number: str, message: str) -> DocumentError:
        return DocumentError([Problem(self.shown, line, f"{self.rules}-{number}", message)])

    def _at(self, mark: Any) -> int:  # PyYAML has two classes of marks
        return self.offset + (mark.line if mark is not None else 0)

    def compose(self, text: str) -> yaml.Node | None:
        """The document's root node; refuses what could be used to harm before building anything."""
        try:
            try:
                if yaml.reader.Reader.NON_PRINTABLE.search(text):
                    raise yaml.YAMLError
                events = self._inert(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
            except (yaml.YAMLError, UnicodeError):
                # libyaml is ten times faster; what it refuses is read again in Python, for the same words everywhere.
                events = self._inert(yaml.parse(text, Loader=yaml.SafeLoader))
            node: yaml.Node | None = _Composer(events).get_single_node()
            return node
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            what = " ".join(filter(None, (error.context, error.problem)))
            where = f" (column {mark.column + 1})" if mark else ""
            hint = " Indent with spaces, not tabs." if "\\t" in what else ""
            if "mapping values are not allowed" in what:
                hint = " Text that holds ': ' goes into quotes."
            raise self._stop(self._at(mark), "002", f"not YAML: {what}{where}.{hint}") from None
        except yaml.reader.ReaderError as error:
            line = self.offset + text[: error.position].count("\n")
            code = int(error.character)  # a number when the input is text
            message = f"the character U+{code:04X} is not allowed; delete it."
            raise self._stop(line, "002", message) from None

    def _inert(self, events: Iterable[yaml.Event]) -> list[yaml.Event]:
        """What stands in a document, if none of it could be used to harm."""
        found = []
        depth = documents = 0
        for event in events:
            found.append(event)
            line = self._at(event.start_mark)
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    raise self._stop(line, "003", f"nested more than {MAX_DEPTH} levels deep.")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._stop(line, "003", "a second document ('---'); a file holds one.")
            if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
                what = "an alias" if isinstance(event, yaml.AliasEvent) else "an anchor"
                message = f"{what} ('{event.anchor}'); write the value out where it is used."
                raise self._stop(line, "003", message)
            if (tag := getattr(event, "tag", None)) is not None:
                raise self._stop(line, "003", f"a tag ('{tag}'); plain values only.")
        return found

    def value(self, node: yaml.Node | None, path: Path_) -> Any:
        """Plain Python values: dict, list, str, int, Decimal, bool or None."""
        if node is None:
            return None
        line = self._at(node.start_mark)
        self.lines.setdefault(path, line)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*path, i)) for i, child in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        assert isinstance(node, yaml.ScalarNode)
        if bad := next((c for c in node.value if unicodedata.category(c) in UNSAFE and c != "\n"), None):
            message = f"{_way(path, None)}the character U+{ord(bad):04X} is not allowed in text; delete it."
            self._note(line, "012", message)
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
            line = self._at(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                self._note(line, "007", f"{_way(path, None)}a field's name is plain text.")
                continue
            key = key_node.value
            if key in result:
                first = self.lines[(*path, key)]
                message = f"the field '{key}' stands twice (first on line {first}); delete one."
                self._note(line, "004", _way(path, None) + message)
                continue
            self.lines[(*path, key)] = line
            result[key] = self.value(child, (*path, key))
        return result

    def line(self, path: Path_) -> int:
        """Where a value stands, or the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, self.offset)

    def explain(self, error: ErrorDetails, model: type[BaseModel], data: dict[str, Any]) -> None:
        """Note one of pydantic's findings, in our words."""
        kind, context = error["type"], error.get("ctx", {})
        path, fields, field = _resolve(model, error["loc"])
        given = error["input"]
        where = _way(path[:-1], data)
        name = str(path[-1]) if path else ""
        if len(path) > 1 and isinstance(path[-1], int):
            name = f"{path[-2]}, entry {path[-1] + 1}"
        number = "007"
        if kind == "extra_forbidden":
            hint = nearest(name, fields) or f" Known: {', '.join(fields)}."
            number, message = "005", f"{where}unknown field '{_brief(name, quoted=False)}'.{hint}"
        elif kind == "missing":
            hint = f" {' '.join(field.description.split())}" if field and field.description else ""
            number, message = "006", f"{where}the field '{name}' is missing.{hint}"
        elif kind in ("union_tag_not_found", "union_tag_invalid"):
            where = _way(path, data)
            tag_field = str(context.get("discriminator", "")).strip("'")
            choices = _choices(context.get("expected_tags")) or _tags(field)
            if kind == "union_tag_not_found":
                number, message = "006", f"{where}the field '{tag_field}' is missing: {_or(choices)}."
            else:
                path = (*path, tag_field)
                tag = str(context.get("tag"))
                message = (
                    f"{where}unknown {tag_field} {_brief(tag)}.{nearest(tag, choices)} One of {', '.join(choices)}."
                )
        elif kind in _REFUSALS:
            number = _REFUSALS[kind]
            at: Path_ = tuple(context.get("at", ()))
            if kind == "unreadable_number":
                message = f"{where}'{name}': {error['msg']}; write it with a point and nothing else, like 84.78."
            elif at or not path:
                message = f"{_way((*path, *at), data)}{error['msg']}."
            else:
                message = f"{where}'{name}': {error['msg']}."
            path = (*path, *at)
        elif kind == "literal_error":
            choices = _choices(context.get("expected"))
            message = f"{where}'{name}' is {_brief(given)}.{nearest(str(given), choices)} One of {', '.join(choices)}."
        elif kind == "string_type" and isinstance(given, int | Decimal) and not isinstance(given, bool):
            message = f"{where}'{name}' is text; put it in quotes: \"{given}\"."
        elif kind == "string_pattern_mismatch":
            shape = _WORDS.get(str(context.get("pattern")), f"it has the form {context.get('pattern')}")
            message = f"{where}'{name}' is {_brief(given)}; {shape}."
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
                "too_long": f"has more than {context.get('max_length')} entries",
            }.get(kind, f"is {_brief(given)}: {error['msg'][:1].lower()}{error['msg'][1:]}")
            message = f"{where}'{name}' {what}." if name else f"{what}."
        self.problem(path, number, message)


# -- Where in a model an error is --------------------------------------------------------------------------------------


def _resolve(model: type[BaseModel], loc: Path_) -> tuple[Path_, list[str], FieldInfo | None]:
    """Follow one of pydantic's locations through a model.

    Returns:
        The way in the data (a location also names the chosen member of a union), the names of the fields that are
        known where it ends, and the field it ends at, if it is one.
    """
    here: Any = model
    field: FieldInfo | None = None
    fields = list(model.model_fields)
    path: list[str | int] = []
    for step in loc:
        here = _bare(here)
        origin, arguments = get_origin(here), get_args(here)
        if isinstance(here, type) and issubclass(here, BaseModel):
            fields, field = list(here.model_fields), here.model_fields.get(str(step))
            here = field.annotation if field else None
            path.append(step)
        elif origin in (list, tuple, set, frozenset):
            here = arguments[0]
            path.append(step)
        elif origin is dict:
            here = arguments[1]
            if step != "[key]":
                path.append(step)
        elif chosen := next((m for m in _members(here) if _is_called(m, step)), None):
            here = chosen  # a member of a union: stands in the location, not in the data
        elif not _members(here):
            path.append(step)
    return tuple(path), fields, field


def _bare(annotation: Any) -> Any:
    """An annotation without `Annotated` and without `| None`."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
            continue
        members = [m for m in get_args(annotation) if m is not type(None)]
        if _is_union(annotation) and len(members) == 1:
            annotation = members[0]
            continue
        return annotation


def _is_union(annotation: Any) -> bool:
    return getattr(get_origin(annotation), "__name__", "") in ("Union", "UnionType")


def _members(annotation: Any) -> Iterator[Any]:
    if _is_union(annotation):
        yield from (m for m in get_args(annotation) if m is not type(None))


def _is_called(member: Any, step: str | int) -> bool:
    """Whether a step of a location names this member of a union: by its name, or by the value that tells it apart."""
    member = _bare(member)
    if not (isinstance(member, type) and issubclass(member, BaseModel)):
        return False
    return step == member.__name__ or any(step in _literals(f) for f in member.model_fields.values())


def _literals(field: FieldInfo) -> tuple[Any, ...]:
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def _tags(field: FieldInfo | None) -> list[str]:
    """The values that tell the members of a field's union apart."""
    here = _bare(field.annotation) if field else None
    while get_origin(here) in (list, tuple):
        here = _bare(get_args(here)[0])
    first = [
        next(iter(_bare(m).model_fields.values()), None) for m in _members(here) if hasattr(_bare(m), "model_fields")
    ]
    return [str(tag) for f in first if f for tag in _literals(f)]


def _choices(listed: object) -> list[str]:
    return re.findall(r"'([^']+)'", str(listed or ""))


def _or(choices: list[str]) -> str:
    return ", ".join(choices[:-1]) + f" or {choices[-1]}" if len(choices) > 1 else "".join(choices)


def _brief(value: object, *, quoted: bool = True) -> str:
    shown = repr(value) if isinstance(value, str) and quoted else str(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _way(path: Path_, data: Any) -> str:
    """How a message names a place: "claim 'nll-k50': " for ("claims", 0) in `data`, "paper: ", "" for the top."""
    parts: list[str] = []
    here = data
    for step in path:
        try:
            here = here[step] if here is not None else None
        except (KeyError, IndexError, TypeError):
            here = None
        if isinstance(step, str):
            parts.append(step)
            continue
        identity = (
            next((here[k] for k in ("id", "handle") if isinstance(here.get(k), str)), None)
            if isinstance(here, dict)
            else None
        )
        last = parts.pop() if parts else ""
        entry = last[:-1] if last.endswith("s") else f"{last}, entry"
        parts.append(f"{entry} '{_brief(identity, quoted=False)}'" if identity else f"{entry} {step + 1}")
    return f"{', '.join(_brief(p, quoted=False) for p in parts)}: " if parts else ""
