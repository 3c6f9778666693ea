"""What a number depends on: a digest of the code that a paper's runs reach, and of no other.

A record holds this digest of the code that made it. When the code changes the digest moves, and the record is stale;
so it has to move when anything changes that could have changed a number, and had better not move otherwise: thirty
papers share `common`. What counts is found by reading the code, never by running it:

* the paper's whole file, without its `PRESETS` and `PROBES` and what only they use;
* of `common`, each **definition that is reached**: a function, a class (whole) or an assignment whose name is used in
  what counts already, through imports, re-exports and attributes of imported modules (`distributed.is_main`);
* of every module that is imported on the way, what runs when it is imported: statements that are neither definitions
  nor plain assignments, and definitions under a decorator that is not known to do nothing else (`HARMLESS`);
* a whole module where this cannot tell: a module that is passed on, `import *`, a name that is not found in it;
* what `common.experiment.execute` does around a paper (`ENTRY`).

Weights depend on less: on what `build` and `train` use, of the paper's file too. `training_digest` is of that part
alone, so that trained weights can be kept when only their evaluation changes.

Comments, docstrings and blank lines do not count, nor where in its module a definition stands, nor the modules in
`NO_INFLUENCE`. Not seen is what has no name in the code: a class reached by `getattr` on a module or by a string.

This module does not import torch, so that commands which only read files stay fast.
"""

import ast
import hashlib
import io
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path

NO_INFLUENCE = {
    "common.plotting",  # shows results
    "common.probes",  # examines models
    "common.errors",  # words
    "common.records",  # writes down what came out
    "common.digest",
    "common.data.registry",  # finds data sets, whose content is verified by a digest of its own
    "common.data.sources",
    "common.data.formats",
    "common.training.log",
    "common.training.progress",
    "common.training.stop",
}
"""Modules that cannot change a number, or whose work is verified otherwise: left out, with all that only they use. What
they hand out counts: the classes that a function's signature says it returns, and those of a class's fields."""

INTERFACE = frozenset({"Config", "build", "train", "evaluate", "illustrate"})
"""What `common.experiment` takes from a paper's file to make a record."""

ENTRY = ("common.experiment.prepare", "common.experiment.measure")
"""What a run goes through that no paper imports, and that decides numbers."""

TRAINING = ("Config", "build", "train")
"""What of a paper's interface its weights depend on."""

TRAINING_ENTRY = ("common.experiment.prepare",)
"""What of `ENTRY` a run's weights depend on."""

HARMLESS = frozenset(
    {
        "abc.abstractmethod",
        "classmethod",
        "contextlib.contextmanager",
        "dataclasses.dataclass",
        "functools.cache",
        "functools.cached_property",
        "functools.lru_cache",
        "functools.wraps",
        "property",
        "staticmethod",
        "torch.compile",
        "torch.enable_grad",
        "torch.inference_mode",
        "torch.no_grad",
        "typing.overload",
        "typing.runtime_checkable",
    }
)
"""Decorators that do nothing but to the definition they stand above."""


BESIDE = ("PRESETS", "PROBES")
"""What of a paper's file no run's numbers depend on: a record holds the configuration that it came from."""


def code_digest(paper_file: Path, *, leaving: Iterable[str] = BESIDE) -> str:
    """A digest of the code that a run's numbers depend on, as this module's docstring says.

    Args:
        paper_file: `projects/<paper>/<paper>.py`, or any file two folders below the root of the repository.
        leaving: names of that file that do not count, with what only they use.

    Raises:
        SyntaxError: it, or a module that it imports, is not Python.
    """
    return _digest(reach(paper_file, leaving=leaving))


def training_digest(paper_file: Path) -> str:
    """A digest of the code that a run's weights depend on: of what `TRAINING` reaches, as far as it is definitions.

    Whatever changes it changes `code_digest`, but for a change in names that are left out there.

    Raises:
        SyntaxError: it, or a module that it imports, is not Python.
    """
    return _digest(reach(paper_file, of=TRAINING))


def _digest(reached: "Reached") -> str:
    digest = hashlib.sha256()
    for module, statements in sorted(reached.statements().items(), key=lambda item: item[0].name):
        digest.update(f"{module.name}\0".encode())
        for statement in sorted(statements, key=lambda s: s.defines[:1]):  # stable: those of one name keep their order
            digest.update(f"{statement.text}\0".encode())
    for edge in sorted(reached.edges):
        digest.update(f"{edge}\0".encode())
    return digest.hexdigest()


def file_digests(files: Iterable[Path], root: Path) -> dict[str, str]:
    """Digests of these files and of all of `common` that they import, by path from the root: of whole files, without
    prose and without the modules in `NO_INFLUENCE`."""
    digests = {}
    for path in sorted({path for file in files for path in _local_imports(file.resolve(), root.resolve())}):
        source = path.read_text(encoding="utf-8")
        code = "\n".join(line for line in _without_prose(source, ast.parse(source)) if line)
        digests[path.relative_to(root.resolve()).as_posix()] = hashlib.sha256(code.encode()).hexdigest()
    return digests


def reach(paper_file: Path, *, leaving: Iterable[str] = BESIDE, of: Iterable[str] | None = None) -> "Reached":
    """What of a paper's file and of `common` counts for its numbers; see `code_digest`.

    Args:
        of: names of the paper's file: only what they use counts, in that file too. None: all of the file does.

    Raises:
        SyntaxError: it, or a module that it imports, is not Python.
    """
    paper_file = paper_file.resolve()
    root = paper_file.parents[2]
    source = paper_file.read_text(encoding="utf-8")
    name = paper_file.relative_to(root).with_suffix("").as_posix().replace("/", ".")
    paper = _module(name, False, source)
    reached = Reached(root, paper, whole=of is None)
    for statement in without(leaving, paper) if of is None else paper.running:
        reached.add(statement)
    reached.imports(paper)
    for name in of or ():
        reached.use(paper, name)
    for address in ENTRY if of is None else TRAINING_ENTRY:
        module, _, attribute = address.rpartition(".")
        if reached.module(module) is not None:
            reached.imported(module)
            reached.look_up(module, attribute)
    reached.settle()
    return reached


# -- One module, read --------------------------------------------------------------------------------------------------


class Statement:
    """A statement at the top of a module.

    defines: the names that it gives, sorted, if it is a definition or a plain assignment; else ().
    """

    def __init__(self, node: ast.stmt, module: "Module") -> None:
        self.node = node
        self.module = module
        self.defines = tuple(sorted(_defined(node)))
        self.first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        self.last = node.end_lineno or node.lineno

    @property
    def text(self) -> str:
        """Its code, without prose."""
        return "\n".join(line for line in self.module.lines[self.first - 1 : self.last] if line)

    @cached_property
    def uses(self) -> tuple[frozenset[str], frozenset[tuple[str, str]]]:
        """The names in it that stand alone, and those that an attribute is taken of: {"x"}, {("module", "f")}."""
        alone, attributes = set[str](), set[tuple[str, str]]()
        todo: list[ast.AST] = [self.node]
        while todo:
            match todo.pop():
                case ast.Attribute(value=ast.Name(id=base), attr=attribute):
                    attributes.add((base, attribute))
                case ast.Name(id=name):
                    alone.add(name)
                case node:
                    todo += ast.iter_child_nodes(node)
        return frozenset(alone), frozenset(attributes)

    @cached_property
    def names(self) -> frozenset[str]:
        """All names in it."""
        alone, attributes = self.uses
        return alone | {base for base, _ in attributes}

    @cached_property
    def imports(self) -> tuple["Import", ...]:
        """The imports in it, at whatever depth."""
        return tuple(_imports(self.node, self.module))

    def runs(self) -> bool:
        """Whether it may do something beyond its own definition when the module is imported."""
        node = self.node
        if isinstance(node, ast.ClassDef):
            plain = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.Pass)
            inner = [s for s in ast.walk(node) if isinstance(s, ast.ClassDef)]
            bodies = [s for c in inner for s in c.body]
            if any(c.keywords for c in inner) or any(not isinstance(s, plain) and not _is_prose(s) for s in bodies):
                return True
            decorated: list[ast.stmt] = [*inner, *bodies]
        else:
            decorated = [node]
        decorators = [d for s in decorated for d in getattr(s, "decorator_list", [])]
        return not self.defines or not all(self.module.harmless(d) for d in decorators)


class Import:
    """One name that an import gives: `name` is `module`, or `attribute` of it; "*" for all of its names."""

    def __init__(self, name: str, module: str, attribute: str | None) -> None:
        self.name, self.module, self.attribute = name, module, attribute


class Module:
    """A module's statements by what they are.

    definitions: name -> the statements that define it.
    running: what runs when it is imported, in order.
    bindings: name -> what imports give it.
    loads: the imports that are carried out when it is imported.
    """

    def __init__(self, name: str, package: bool, source: str) -> None:
        self.name, self.package, self.source = name, package, source
        self.definitions: dict[str, list[Statement]] = {}
        self.running: list[Statement] = []
        self.statements: list[Statement] = []
        self.bindings: dict[str, list[Import]] = {}
        self.loads: list[Import] = []
        self.given_otherwise: set[str] = set()
        self.tree = ast.parse(source)
        for node in self.tree.body:
            statement = Statement(node, self)
            self.statements.append(statement)
            if _is_prose(node) or _is_main(node):
                continue
            for name in statement.defines:
                self.definitions.setdefault(name, []).append(statement)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if not statement.defines:
                for each in statement.imports:
                    self.bindings.setdefault(each.name, []).append(each)
                if _is_for_types(node):
                    continue
                self.loads += statement.imports
                if not isinstance(node, ast.Import | ast.ImportFrom):
                    self.given_otherwise |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
                    self.given_otherwise |= {
                        n.name for n in ast.walk(node) if isinstance(n, ast.FunctionDef | ast.ClassDef)
                    }
        for statement in self.statements:  # when all names are known
            node = statement.node
            if isinstance(node, ast.Import | ast.ImportFrom) or _is_prose(node) or _is_main(node):
                continue
            if not _is_for_types(node) and statement.runs():
                self.running.append(statement)

    @cached_property
    def lines(self) -> list[str]:
        """The source's lines without prose, those that are left empty among them."""
        return _without_prose(self.source, self.tree)

    def harmless(self, decorator: ast.expr) -> bool:
        """Whether a decorator is one of `HARMLESS`, or sets or deletes a property."""
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if isinstance(called, ast.Attribute) and called.attr in ("setter", "getter", "deleter"):
            return True
        first, dot, rest = ast.unparse(called).partition(".")
        if first in self.definitions:
            return False
        given = [".".join(filter(None, (i.module, i.attribute))) for i in self.bindings.get(first, ())] or [first]
        return all(name + dot + rest in HARMLESS for name in given)


@lru_cache(maxsize=1024)  # many papers import the same modules
def _module(name: str, package: bool, source: str) -> Module:
    return Module(name, package, source)


def _defined(node: ast.stmt) -> set[str]:
    """The names that a definition or a plain assignment gives; none of any other statement."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
        case ast.Assign(targets=targets):
            names = [
                t for target in targets for t in (target.elts if isinstance(target, ast.Tuple | ast.List) else [target])
            ]
            if all(isinstance(t, ast.Name) for t in names):
                return {t.id for t in names if isinstance(t, ast.Name)}
    return set()


def _imports(node: ast.stmt, module: Module) -> Iterator[Import]:
    for each in ast.walk(node):
        if isinstance(each, ast.Import):
            for alias in each.names:
                first = alias.name.partition(".")[0]
                yield Import(alias.asname or first, alias.name, None)
        elif isinstance(each, ast.ImportFrom):
            base = each.module or ""
            if each.level:
                parts = module.name.split(".")
                parts = parts[: len(parts) - each.level + module.package]
                base = ".".join([*parts, *([base] if base else [])])
            for alias in each.names:
                yield Import(alias.asname or alias.name, base, alias.name)


def _is_prose(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_main(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and not node.orelse and ast.unparse(node.test) == "__name__ == '__main__'"


def _is_for_types(node: ast.stmt) -> bool:
    """Whether it is a block of imports that a type checker reads and Python does not."""
    return (
        isinstance(node, ast.If)
        and not node.orelse
        and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
    )


def _local(module: str) -> bool:
    return module == "common" or module.startswith("common.")


def _without_influence(module: str) -> bool:
    parts = module.split(".")
    return any(".".join(parts[: i + 1]) in NO_INFLUENCE for i in range(len(parts)))


# -- What is reached ---------------------------------------------------------------------------------------------------


class Reached:
    """The statements that count, and what the names in them stand for.

    edges: "module.name = what an import gives it", for every imported name that is used.
    """

    def __init__(self, root: Path, paper: Module, *, whole: bool) -> None:
        self.root = root
        self.paper = paper
        self.paper_is_whole = whole  # of the paper's own file, what is to count has been added; nothing is looked up
        self.edges: set[str] = set()
        self._modules: dict[str, Module | None] = {}
        self._found: set[Statement] = set()
        self._imported: set[str] = set()
        self._handed_out: set[Statement] = set()
        self._looking: set[str] = set()
        self._todo: list[Statement] = []

    def statements(self) -> dict[Module, list[Statement]]:
        """The statements that count, by module, as they stand there."""
        found: dict[Module, list[Statement]] = {}
        for statement in self._found:
            found.setdefault(statement.module, []).append(statement)
        return {module: sorted(each, key=lambda s: s.first) for module, each in found.items()}

    def module(self, name: str) -> Module | None:
        """A module of `common`; None if there is none of this name."""
        if name not in self._modules:
            base = self.root.joinpath(*name.split("."))
            self._modules[name] = None
            for path, package in ((base / "__init__.py", True), (base.with_suffix(".py"), False)):
                if _local(name) and path.is_file():
                    self._modules[name] = _module(name, package, path.read_text(encoding="utf-8"))
                    break
        return self._modules[name]

    def add(self, statement: Statement) -> None:
        """Let a statement count, and what it uses."""
        if statement not in self._found:
            self._found.add(statement)
            self._todo.append(statement)

    def settle(self) -> None:
        """Follow what the statements use until nothing new is found."""
        while self._todo:
            statement = self._todo.pop()
            local: dict[str, list[Import]] = {}
            if statement.defines:
                for each in statement.imports:
                    local.setdefault(each.name, []).append(each)
                    self._load(each)
            alone, attributes = statement.uses
            for name in alone:
                self._use(statement.module, local, name, None)
            for name, attribute in attributes:
                self._use(statement.module, local, name, attribute)

    def imports(self, module: Module) -> None:
        """Let count what a module's imports run."""
        for each in module.loads:
            self._load(each)
            if each.attribute == "*":
                self.whole(each.module)
                self.edges.add(f"{module.name}.* = {each.module}.*")

    def imported(self, name: str) -> None:
        """Let count what runs when a module is imported: of itself, of the packages around it, of its imports."""
        parts = name.split(".")
        for i in range(len(parts)):
            each = ".".join(parts[: i + 1])
            module = self.module(each)
            if module is None or each in self._imported or _without_influence(each):
                continue
            self._imported.add(each)
            for statement in module.running:
                self.add(statement)
            self.imports(module)

    def whole(self, name: str) -> None:
        """Let all of a module count."""
        module = self.module(name)
        if module is not None and not _without_influence(name):
            self.imported(name)
            for statement in module.statements:
                if not _is_prose(statement.node):
                    self.add(statement)

    def look_up(self, name: str, attribute: str) -> list[str]:
        """Let an attribute of a module of `common` count; returns what it is or may be, with a dot at the end if it is
        a module: ["common.data.batches.Batches"], ["common.data.toy."]."""
        address = f"{name}.{attribute}"
        module = self.module(name)
        if module is None:
            return [address]
        if _without_influence(name):
            self._hand_out(module, attribute)
            return [address]
        if attribute in module.definitions:
            for statement in module.definitions[attribute]:
                self.add(statement)
            return [address]
        if attribute in module.bindings and address not in self._looking:  # a package may import its modules by itself
            self._looking.add(address)
            found = [target for each in module.bindings[attribute] for target in self._follow(each)]
            self._looking.remove(address)
            return found
        if self.module(address) is not None:
            self.imported(address)
            return [f"{address}."]
        if attribute not in module.given_otherwise:
            self.whole(name)
        return [address]

    def use(self, module: Module, name: str) -> None:
        """Let count what a name of a module stands for."""
        self._use(module, {}, name, None)

    def _load(self, each: Import) -> None:
        """Carry out an import of a module of `common`."""
        if not _local(each.module):
            return
        self.imported(each.module)
        package = self.module(each.module)
        if each.attribute and package is not None and each.attribute not in package.definitions:
            self.imported(f"{each.module}.{each.attribute}")

    def _follow(self, each: Import) -> list[str]:
        """Let count what an imported name stands for; returns what that is or may be, as `look_up` does."""
        if not _local(each.module):
            return [f"{each.module}:{each.attribute or ''}"]
        if each.attribute is None:  # import common.x: to be safe, with all there is in it
            parts = each.module.split(".")
            for i in range(len(parts)):
                self.whole(".".join(parts[: i + 1]))
            return [each.module]
        return self.look_up(each.module, each.attribute)

    def _use(self, module: Module, local: dict[str, list[Import]], name: str, attribute: str | None) -> None:
        """A name that counts in a module, or an attribute of it."""
        if module is not self.paper or not self.paper_is_whole:
            for statement in module.definitions.get(name, ()):
                self.add(statement)
        for each in [*module.bindings.get(name, ()), *local.get(name, ())]:
            for target in self._follow(each):
                if target.endswith(".") and attribute is not None:
                    for found in self.look_up(target[:-1], attribute):
                        self.edges.add(f"{module.name}.{name}.{attribute} = {found}")
                else:
                    if target.endswith("."):
                        self.whole(target[:-1])
                    self.edges.add(f"{module.name}.{name} = {target}")

    def _hand_out(self, module: Module, attribute: str) -> None:
        """Let the classes count that a function of a module without influence returns, or a class there has."""
        for statement in module.definitions.get(attribute, ()):
            if statement in self._handed_out:
                continue
            self._handed_out.add(statement)
            node = statement.node
            said: list[ast.expr | None] = []
            for each in ast.walk(node) if isinstance(node, ast.ClassDef) else [node]:
                if isinstance(each, ast.FunctionDef):
                    said.append(each.returns)
                elif isinstance(each, ast.AnnAssign):
                    said.append(each.annotation)
            for annotation in said:
                for name in ast.walk(annotation) if annotation is not None else ():
                    if isinstance(name, ast.Name):
                        self._hand_out(module, name.id)
                        for binding in module.bindings.get(name.id, ()):
                            self._follow(binding)


def without(names: Iterable[str], module: Module) -> list[Statement]:
    """A module's statements without the definitions of these names, nor those that only they use.

    What is used elsewhere stays, and so do a paper's interface and what nobody uses.
    """
    owners = module.definitions
    users = Counter(name for s in module.statements for name in s.names - set(s.defines))
    leaving, asked = set[Statement](), set(names)
    todo = [s for name in asked for s in owners.get(name, ())]
    while todo:
        s = todo.pop()
        if s in leaving or not asked.issuperset(s.defines) or any(users[n] or n in INTERFACE for n in s.defines):
            continue
        leaving.add(s)
        for name in s.names - set(s.defines):
            asked.add(name)
            users[name] -= 1
            if not users[name]:
                todo += owners.get(name, ())
    return [s for s in module.statements if s not in leaving and not _is_prose(s.node)]


# -- Text --------------------------------------------------------------------------------------------------------------


def _without_prose(source: str, tree: ast.Module) -> list[str]:
    """The lines of source text, emptied of comments and docstrings; what is left is kept to the letter."""
    lines = source.splitlines()
    begun: list[int] = []  # rows of f-strings, which newer versions of Python cut into tokens
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind, (row, column), (last, _) = tokenize.tok_name[token.type], token.start, token.end
        if kind == "COMMENT":
            lines[row - 1] = lines[row - 1][:column]
        elif kind == "FSTRING_START":
            begun.append(row)
        elif kind in ("STRING", "FSTRING_END"):
            for inside in range(begun.pop() if kind == "FSTRING_END" else row, last):
                lines[inside - 1] += "\0"  # the line ends within a string: blanks, and nothing at all, are part of it
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        for statement in body:  # a bare string is a docstring wherever it stands
            if _is_prose(statement) and _stands_alone(statement, lines):
                first, last = statement.lineno, statement.end_lineno
                lines[first - 1 : last] = [""] * (last - first + 1)
    return [line.rstrip() for line in lines]


def _stands_alone(statement: ast.stmt, lines: list[str]) -> bool:
    """Whether nothing else is on a statement's lines."""
    before = lines[statement.lineno - 1].encode()[: statement.col_offset]
    after = lines[(statement.end_lineno or statement.lineno) - 1].encode()[statement.end_col_offset :]
    return not before.strip() and not after.strip()


def _local_imports(start: Path, root: Path) -> set[Path]:
    """The file and, transitively, the files of `common` that it imports."""
    seen: set[Path] = set()
    todo = [start]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in _imported(path.read_text(encoding="utf-8")):
            if not _local(name) or _without_influence(name):
                continue
            base = root.joinpath(*name.split("."))
            todo += [p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()]
    return seen


@lru_cache(maxsize=1024)
def _imported(source: str) -> tuple[str, ...]:
    """The modules that source text imports, and what may be modules in them."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(names)
