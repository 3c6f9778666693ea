"""The interface of `common`, from its docstrings: a page per module, read by griffe without importing anything.

Docstrings are text as people write it: paragraphs, lists, indented tables and formulas, `names` in backticks, lines
like "name: what it is", and the sections Args, Returns, Raises. They are shown as what they are; names in backticks and
the exceptions under Raises become links to where they are explained.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path

import griffe

from referee.site.model import Page, Site
from referee.site.writing import md

PACKAGE = "common"
INTRODUCTION = (
    "What every project may use. Log-densities are nats, of shape (B,); randomness comes from explicit generators. "
    "Everything here is what the docstrings in the code say."
)
WIDTH = 88  # of a signature that stands on one line

SECTION = re.compile(r"(Args|Returns|Raises|Yields|Attributes|Examples?):")
TERM = re.compile(r"(\*{0,2}[A-Za-z_]\w*(?:, \*{0,2}[A-Za-z_]\w*)*): (.*)")
ITEM = re.compile(r"( *)- (.*)")
CODE = re.compile(r"`([^`\n]+)`")
NAME = re.compile(r"[A-Za-z_][\w.]*")
# In the search, what explains a subject stands before the functions that compute it. Functions are named after their
# subjects, and a word in a title weighs a thousand times a word in a text.
FOUND_LAST = "search: {boost: 0.001}"


def pages(site: Site) -> Iterable[Page]:
    """`reference/index.md` and `reference/<module>.md`; none in a repository without the package."""
    if (site.root / PACKAGE / "__init__.py").is_file():
        reference = Reference(site.root)
        yield Page("reference/index.md", reference.index())
        for module in reference.modules:
            yield Page(f"reference/{module.path}.md", reference.module(module))


@dataclass(frozen=True)
class Place:
    """Where a name is explained."""

    module: str
    anchor: str = ""


class Reference:
    """The documented names of the package in a folder.

    Attributes:
        modules: those with something to tell, by name.
    """

    def __init__(self, root: Path) -> None:
        package = griffe.load(PACKAGE, search_paths=[root], try_relative_path=False, allow_inspection=False)
        assert isinstance(package, griffe.Module)
        self.modules = [m for m in _modules(package) if m is not package]
        self.places: dict[str, Place] = {}  # full name -> its place
        self.members: dict[str, griffe.Object] = {}  # full name -> what it is
        for module in self.modules:
            self.places[module.path] = Place(module.path)
            for member in _documented(module):
                self.members[member.path] = member
                self.places[member.path] = Place(module.path, _anchor(_inside(member, module)))
        self.last: dict[str, list[str]] = {}  # last part of a name -> the full names that end in it
        for path in self.places:
            self.last.setdefault(path.rpartition(".")[2], []).append(path)
        for module in self.modules:
            for path in _exports(module):
                if path in self.places:
                    self.places.setdefault(f"{module.path}.{path.rpartition('.')[2]}", self.places[path])

    def index(self) -> str:
        """The page that lists all modules and their names, each name once."""
        parts = [f"---\nhide: [toc]\n{FOUND_LAST}\n---\n\n# Reference of `{PACKAGE}`\n\n{INTRODUCTION}"]
        listed: set[str] = set()
        for module in self.modules:
            names = [path for path in (*_exports(module), *(m.path for m in _public(module))) if path not in listed]
            listed.update(names)
            parts.append(f"## [{md(module.path)}]({module.path}.md) {{ #{module.path} }}\n\n{self._first(module)}")
            parts += self._table(names, "")
        return "\n\n".join(parts) + "\n"

    def module(self, module: griffe.Module) -> str:
        """A module's page."""
        parts = [f"---\n{FOUND_LAST}\n---", f"# `{module.path}`", *self._docstring(module)]
        parts += self._table(_exports(module), module.path)
        for member in _documented(module):
            name = _inside(member, module)
            parts.append(f"{'###' if '.' in name else '##'} `{name}` {{ #{_anchor(name)} }}")
            parts.append(f"```python\n{_signature(member)}\n```")
            parts += self._docstring(member)
        return "\n\n".join(parts) + "\n"

    def _table(self, names: list[str], scope: str) -> Iterator[str]:
        """Names and the first sentence on each; nothing for no names."""
        rows = [
            f"| {self._link(path, scope, path.rpartition('.')[2])} | {self._first(self.members[path])} |"
            for path in names
            if path in self.members
        ]
        if rows:
            yield "\n".join(["| Name | What it is |", "| --- | --- |", *rows])

    def _first(self, member: griffe.Object) -> str:
        """The first paragraph of what is said of a name."""
        return self._inline(_said(member).split("\n\n")[0], member.path)

    # -- Docstrings ----------------------------------------------------------------------------------------------------

    def _docstring(self, member: griffe.Object) -> Iterator[str]:
        """A docstring as Markdown, block by block."""
        scope, names = member.path, _arguments(member)
        for block in re.split(r"\n\s*\n", _said(member)) if member.docstring else ():
            lines = block.split("\n")
            if lines[0].lstrip().startswith(">>>"):
                yield _fenced("pycon", lines)
            elif all(line.startswith("    ") for line in lines):
                yield _fenced("text", lines)
            elif heading := SECTION.fullmatch(lines[0]):
                yield f"**{heading[1]}**"
                rest = cleandoc("\n" + "\n".join(lines[1:])).split("\n")
                terms = _terms(rest)
                yield from self._list(terms, scope, heading[1] == "Raises") if terms else self._text(rest, scope)
            elif (terms := _terms(lines)) and all(names.issuperset(term.split(", ")) for term, _ in terms):
                yield from self._list(terms, scope)
            else:
                yield from self._text(lines, scope)

    def _list(self, terms: list[tuple[str, str]], scope: str, linked: bool = False) -> Iterator[str]:
        """A definition list."""
        for term, says in terms:
            names = (self._link(n, scope, n) if linked else f"`{n}`" for n in term.split(", "))
            yield f"{', '.join(names)}\n:   {self._inline(says, scope)}"

    def _text(self, lines: list[str], scope: str) -> Iterator[str]:
        """Paragraphs and lists, and what is indented between them."""
        done: list[str] = []
        kind, open_lines = "text", list[str]()

        def close() -> None:
            if kind == "code" and open_lines:
                done.append(_fenced("text", open_lines))
            elif open_lines:
                said = self._inline(" ".join(open_lines), scope)
                done.append(f"- {said}" if kind == "item" else said)
            open_lines.clear()

        for line in lines:
            item = ITEM.fullmatch(line)
            now = "item" if item else kind if kind == "item" and line.startswith("  ") else "text"
            if now == "text" and line.startswith("    "):
                now = "code"
            if item or now != kind:
                close()
                kind = now
            open_lines.append(item[2] if item else line if kind == "code" else line.strip())
        close()
        yield re.sub(r"(?m)^(- .*)\n\n(?=- )", r"\1\n", "\n\n".join(done))

    def _inline(self, text: str, scope: str) -> str:
        """One paragraph: names in backticks as code, linked where they are known; the rest as it is."""
        parts = CODE.split(" ".join(text.split()))
        return "".join(self._link(p, scope, p) if i % 2 else _plain(p) for i, p in enumerate(parts))

    def _link(self, name: str, scope: str, shown: str) -> str:
        code = f"`{shown}`".replace("|", r"\|")
        path = self._find(name, scope) if NAME.fullmatch(name) else None
        if path is None or path == scope:
            return code
        place = self.places[path]
        return f"[{code}]({place.module}.md{'#' + place.anchor if place.anchor else ''})"

    def _find(self, name: str, scope: str) -> str | None:
        """The full name that is meant by one: the nearest to where it stands, else the only one there is."""
        if scope in self.members and name in _arguments(self.members[scope]):
            return None
        if name in self.places:
            return name
        while scope:
            if f"{scope}.{name}" in self.places:
                return f"{scope}.{name}"
            scope = scope.rpartition(".")[0]
        ends = [p for p in self.last.get(name.rpartition(".")[2], []) if f".{p}".endswith(f".{name}")]
        if "." not in name:  # then it is a class, a function or a constant
            ends = [p for p in ends if self.places[p].anchor == name]
        return ends[0] if len(ends) == 1 else None


def _modules(module: griffe.Module) -> Iterator[griffe.Module]:
    yield module
    for name in sorted(module.modules):
        if not name.startswith("_") and not module.members[name].is_alias:
            yield from _modules(module.modules[name])


def _public(owner: griffe.Module | griffe.Class) -> list[griffe.Object]:
    """Classes, functions and explained constants, as they follow each other in the file."""
    found: list[griffe.Object] = []
    for name, member in owner.members.items():
        if isinstance(member, griffe.Alias) or (name.startswith("_") and name != "__call__"):
            continue
        if isinstance(member, griffe.Function | griffe.Class) or (
            isinstance(member, griffe.Attribute) and member.docstring
        ):
            found.append(member)
    return sorted(found, key=lambda m: m.lineno or 0)


def _documented(module: griffe.Module) -> Iterator[griffe.Object]:
    """The public names of a module, and behind each class those of the class."""
    for member in _public(module):
        yield member
        if isinstance(member, griffe.Class):
            yield from _public(member)


def _inside(member: griffe.Object, module: griffe.Module) -> str:
    """A name as its module has it: "Batches.epoch"."""
    return member.path.removeprefix(f"{module.path}.")


def _anchor(name: str) -> str:
    """A name as an id: two underscores are bold in Markdown, in a heading's attributes, too."""
    return name.replace("__", "")


def _arguments(member: griffe.Object) -> set[str]:
    """What a function or a class is called with, and the class's attributes."""
    if isinstance(member, griffe.Function):
        return {p.name for p in member.parameters}
    if not isinstance(member, griffe.Class):
        return set()
    init = member.members.get("__init__")
    names = {name for name, inner in member.members.items() if isinstance(inner, griffe.Attribute)}
    return names | (_arguments(init) if isinstance(init, griffe.Function) else set())


def _said(member: griffe.Object) -> str:
    return cleandoc(member.docstring.value) if member.docstring else ""


def _terms(lines: list[str]) -> list[tuple[str, str]]:
    """Term and text of each line like "name: what it is"; nothing if the lines are of another form."""
    items: list[tuple[str, str]] = []
    for line in lines:
        if match := TERM.fullmatch(line):
            items.append((match[1], match[2]))
        elif items and line.startswith("    "):
            items[-1] = (items[-1][0], f"{items[-1][1]} {line.strip()}")
        else:
            return []
    return items


def _exports(module: griffe.Module) -> list[str]:
    """Full names of what a package offers that its modules define, as its `__all__` has it."""
    names = [str(name).strip("'\"") for name in module.exports or []]
    members = (module.members.get(name) for name in names)
    return [member.target_path for member in members if isinstance(member, griffe.Alias)]


def _plain(text: str) -> str:
    """Text as text, with the space at its ends that stands between it and a name."""
    return " " * text.startswith(" ") + md(text) + " " * (text.endswith(" ") and bool(text.strip()))


def _fenced(language: str, lines: list[str]) -> str:
    text = cleandoc("\n" + "\n".join(lines)).rstrip()
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def _signature(member: griffe.Object) -> str:
    """How a name is defined, without its body."""
    if isinstance(member, griffe.Function):
        decorators = [f"@{d.value}\n" for d in member.decorators if str(d.value) in ("staticmethod", "classmethod")]
        returns = f" -> {member.returns}" if member.returns else ""
        return "".join(decorators) + _call(f"def {member.name}", member, returns)
    if isinstance(member, griffe.Class):
        bases = ", ".join(map(str, member.bases))
        head = f"class {member.name}({bases})" if bases else f"class {member.name}"
        fields = [m for m in member.members.values() if isinstance(m, griffe.Attribute) and m.annotation]
        fields = [f for f in fields if f.lines and not f.name.startswith("_") and "property" not in f.labels]
        init = member.members.get("__init__")
        if isinstance(init, griffe.Function) and init.lineno and "dataclass" not in member.labels:
            return _call(head, init, "")
        if fields:
            made = "@dataclass\n" if "dataclass" in member.labels else ""
            return f"{made}{head}:\n" + "\n".join(line.rstrip() for f in fields for line in f.lines)
        return head
    if "property" in member.labels and isinstance(member, griffe.Attribute):
        return f"@property\ndef {member.name}(self) -> {member.annotation}"
    return "\n".join(cleandoc("\n" + "\n".join(member.lines)).split("\n")[:12])


def _call(head: str, function: griffe.Function, returns: str) -> str:
    """A signature on one line if it fits, else an argument a line."""
    arguments, star = [], False
    for p in function.parameters:
        keyword_only = p.kind is griffe.ParameterKind.keyword_only
        if keyword_only and not star:
            arguments.append("*")
        star = star or keyword_only or p.kind is griffe.ParameterKind.var_positional
        if p.name == "self":
            continue
        prefix = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}.get(p.kind, "")
        annotation = f": {p.annotation}" if p.annotation is not None else ""
        default = "" if p.default is None or prefix else f" = {p.default}" if annotation else f"={p.default}"
        arguments.append(f"{prefix}{p.name}{annotation}{default}")
    one = f"{head}({', '.join(arguments)}){returns}"
    return one if len(one) <= WIDTH else f"{head}(\n" + "".join(f"    {a},\n" for a in arguments) + f"){returns}"
