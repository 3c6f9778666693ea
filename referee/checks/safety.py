"""SEC: nothing in a project can harm who clones, loads, runs or reads it; nothing secret is given away."""

import ast
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from referee.checks.base import FROM_V1, MAX_FILES, WARN_FROM_V1, Entry, Found, Submission, check
from referee.checks.layout import TEXTS
from referee.checks.notebook import cells
from referee.checks.reading import (
    MAX_TEXT,
    PLACEHOLDER,
    Unreadable,
    line_of,
    parse_python,
    read_text,
    safetensors_header,
)

MIB = 1024 * 1024
MAX_DEEP = 6  # folders below the project's

PICKLES = frozenset(
    {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz", ".bin", ".h5", ".hdf5", ".pyc"}
)
MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x80\x02", "a pickle"),
    (b"\x80\x03", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
    (b"PK\x03\x04", "a zip archive, as torch.save writes it"),
    (b"PK\x05\x06", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a rar archive"),
    (b"\x93NUMPY", "a NumPy file, which may hold a pickle"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"\xcf\xfa\xed\xfe", "a program"),
    (b"\xca\xfe\xba\xbe", "a program"),
)
TEXT_PICKLE = re.compile(
    rb"\A(?:\(?c(?:os|posix|nt|sys|builtins|__builtin__|subprocess|torch[\w.]*|numpy[\w.]*)\n\w+\n)"
)
"""A pickle of protocol 0, which is text."""

SIGNATURES = {".png": b"\x89PNG\r\n\x1a\n", ".jpg": b"\xff\xd8\xff", ".jpeg": b"\xff\xd8\xff"}

ACTING_SVG = re.compile(
    r"<\s*(?:\w+:)?(?:script|iframe|foreignObject|animate|set|use|handler)\b|\bon[a-z]{3,20}\s*=|<!ENTITY|javascript:",
    re.IGNORECASE,
)

SECRETS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("a private key", re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----")),
    ("a GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})\b")),
    ("a GitLab token", re.compile(r"\bglpat-[A-Za-z0-9_-]{20,}")),
    ("an AWS key", re.compile(r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b")),
    ("a Google key", re.compile(r"\bAIza[A-Za-z0-9_-]{35}\b")),
    ("a Hugging Face token", re.compile(r"\bhf_[A-Za-z]{34}\b")),
    ("a Slack token", re.compile(r"\bxox[abposr]-[A-Za-z0-9-]{20,}")),
    ("an API key", re.compile(r"\bsk-(?:[a-z]+-)?[A-Za-z0-9_-]{32,}")),
    ("a PyPI token", re.compile(r"\bpypi-[A-Za-z0-9_-]{60,}")),
    ("an npm token", re.compile(r"\bnpm_[A-Za-z0-9]{36}\b")),
    ("a JSON web token", re.compile(r"\beyJ[A-Za-z0-9_-]{10,300}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10}")),
    (
        "a password in an address",
        re.compile(r"\b[a-z][a-z0-9+]{1,20}://[^\s/:@'\"<>]{1,100}:[^\s/@'\"<>]{3,100}@[\w.-]+"),
    ),
    (
        "a password or key",
        re.compile(
            r"""(?i)\b(?:password|passwd|secret|api_?key|access_?token|auth_?token|wandb_?key)["']?\s*[:=]\s*"""
            r"""["'](?=[^"'\s]*\d)(?=[^"'\s]*[A-Za-z])([^"'\s$<>{}]{12,})["']"""
        ),
    ),
)
"""Forms of secrets that are told from other text with few false alarms."""

INVISIBLE = re.compile(
    "[\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0e\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
"""Characters that are not seen, or change the direction in which others are read."""

CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
CODING = re.compile(r"^[ \t\f]*#.*?coding[:=][ \t]*([-_.a-zA-Z0-9]+)")
GREEK_LIKE_LATIN = frozenset("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧο")

RISKY_CALLS = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "__import__": "imports by name",
    "os.system": "starts a shell",
    "os.popen": "starts a shell",
    "os.execv": "replaces the process",
    "os.remove": "deletes files",
    "os.unlink": "deletes files",
    "shutil.rmtree": "deletes folders",
    "pickle.load": "unpickles, which runs code",
    "pickle.loads": "unpickles, which runs code",
    "dill.load": "unpickles, which runs code",
    "joblib.load": "unpickles, which runs code",
    "marshal.loads": "loads code",
    "ctypes.CDLL": "loads a program",
}
RISKY_MODULES = {
    "subprocess": "starts programs",
    "socket": "opens connections",
    "requests": "opens connections",
    "urllib.request": "opens connections",
    "http.client": "opens connections",
    "ftplib": "opens connections",
    "smtplib": "sends mail",
    "ctypes": "loads programs",
    "pickle": "unpickles, which runs code",
    "dill": "unpickles, which runs code",
    "marshal": "loads code",
}


@check(
    "SEC-001",
    "No links, no special files",
    why="A link may lead out of the project, to any file of who reads or publishes it.",
    fix="Copy the file itself, or import what you need from common.",
)
def no_links(submission: Submission) -> Iterator[Found]:
    for entry in submission.entries:
        if entry.kind == "link":
            yield entry.path, 1, "is a symbolic link; put the file itself there, or delete it."
        elif entry.kind == "special":
            yield entry.path, 1, "is neither a file nor a folder; delete it."
        elif entry.kind == "folder" and entry.path.name == ".git":
            yield entry.path, 1, "is a repository inside the repository; delete it."


@check(
    "SEC-002",
    "Nothing is huge",
    why="Everybody clones everything.",
    fix="Publish less: fewer runs, smaller pictures, weights of one run. Delete it from the history, too.",
)
def nothing_is_huge(submission: Submission) -> Iterator[Found]:
    limits = submission.limits
    files = submission.files()
    for entry in files:
        if entry.size > limits.file_mib * MIB:
            yield entry.path, 1, f"is {entry.size / MIB:.1f} MiB; the limit is {limits.file_mib} MiB. Make it smaller."
    for entry in submission.entries:
        if len(entry.path.relative_to(submission.project.folder).parts) > MAX_DEEP + 1:
            yield entry.path, 1, f"lies more than {MAX_DEEP} folders deep; move it up."
    if (total := sum(e.size for e in files)) > limits.project_mib * MIB:
        what = f"holds {total / MIB:.0f} MiB; the limit is {limits.project_mib} MiB"
        yield submission.project.folder, 1, f"{what}. Publish fewer results."
    if len(submission.entries) >= MAX_FILES:
        yield submission.project.folder, 1, f"holds {MAX_FILES:,} files or more; publish fewer."


@check(
    "SEC-003",
    "Nothing is pickled, packed or compiled",
    why="Loading a pickle runs whatever is in it; an archive or a program cannot be reviewed.",
    fix="Publish weights as safetensors, data through common.data, code as source.",
)
def nothing_is_pickled(submission: Submission) -> Iterator[Found]:
    for entry in submission.files():
        suffix = entry.path.suffix.lower()
        what = f"has the ending of a pickle or archive ({suffix})" if suffix in PICKLES else ""
        try:
            with entry.path.open("rb") as file:
                head = file.read(512)
        except OSError:
            continue
        if not (suffix == ".safetensors" and head[8:9] == b"{"):  # its first bytes are a length, and may be anything
            if named := next((name for magic, name in MAGIC if head.startswith(magic)), None):
                what = f"is {named}"
            elif TEXT_PICKLE.match(head):
                what = "is a pickle"
        if what:
            yield entry.path, 1, f"{what}; publish weights as safetensors and code as source, and delete it."


@check(
    "SEC-004",
    "Weights are safetensors that hold what they say, within the limit",
    why="The header says where each tensor lies; one that lies can make a reader crash or read elsewhere.",
    fix="Write the file with safetensors' save_file, as 'referee run --publish' does.",
)
def weights_are_safe(submission: Submission) -> Iterator[Found]:
    for entry in submission.files(".safetensors"):
        try:
            safetensors_header(entry.path, submission.limits.weights_mib * MIB)
        except Unreadable as error:
            yield entry.path, 1, f"{error}; write it again with 'referee run … --publish'."


@check(
    "SEC-005",
    "No secrets",
    why="What was once pushed is public for ever.",
    fix="Revoke it now, then delete it from the file and its history. Read secrets from the environment.",
)
def no_secrets(submission: Submission) -> Iterator[Found]:
    for path, text in _texts(submission):
        for what, pattern in SECRETS:
            for found in pattern.finditer(text):
                value = found[found.lastindex or 0]
                if len(set(value)) < 6 or PLACEHOLDER.search(value):
                    continue  # "xxxxxxxxxxxx"
                yield path, line_of(text, found.start()), f"looks like {what}; revoke it, then take it out."
                break


@check(
    "SEC-006",
    "Source reads as it runs: no invisible, reversing or look-alike characters",
    why="Such characters make code that a reviewer reads differ from code that runs (“Trojan source”).",
    fix="Delete the character, or write it as an escape (\\u202e); name things in Latin or in Greek letters.",
)
def source_reads_as_it_runs(submission: Submission) -> Iterator[Found]:
    for path, text in _texts(submission):
        for found in (INVISIBLE.search(text), CONTROL.search(text)):
            if found:
                what = (
                    f"holds the character U+{ord(found[0]):04X} ({unicodedata.name(found[0], 'a control character')})"
                )
                yield path, line_of(text, found.start()), f"{what}; delete it or write it as an escape."
        if path.suffix == ".py":
            for number, line in enumerate(text.splitlines()[:2], 1):
                coding = CODING.match(line)
                if coding and coding[1].lower().replace("_", "-") not in ("utf-8", "utf8", "ascii"):
                    yield path, number, f"says it is encoded as {coding[1][:20]}; delete the line, source is UTF-8."
            yield from _look_alikes(path, text)
    if submission.has(f"{submission.name}.ipynb"):
        path = submission.at(f"{submission.name}.ipynb")
        for cell in cells(submission):  # which the file may have as escapes
            if found := INVISIBLE.search(cell.source) or CONTROL.search(cell.source):
                yield path, cell.line, f"cell {cell.number} holds {_named(found[0])}; delete it."
            for _, _, message in _look_alikes(path, cell.source if cell.code else ""):
                yield path, cell.line, f"cell {cell.number}: {message}"


def _named(character: str) -> str:
    return f"the character U+{ord(character):04X} ({unicodedata.name(character, 'a control character')})"


def _look_alikes(path: Path, text: str) -> Iterator[Found]:
    if text.isascii():
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.isascii():
            continue
        for word in re.findall(r"[^\W\d]\w*", line):
            if not word.isascii() and (why := _look_alike(word)):
                yield path, number, f"the name '{word[:40]}' {why}; write it in Latin letters, or all in Greek."
                break


def _look_alike(word: str) -> str | None:
    scripts = {unicodedata.name(c, "?").split()[0] for c in word if c.isalpha() and not c.isascii()}
    if "FULLWIDTH" in scripts or "MATHEMATICAL" in scripts or "HALFWIDTH" in scripts:
        return "holds letters that Python reads as others"
    latin = any(c.isascii() and c.isalpha() for c in word)
    if latin and scripts & {"CYRILLIC", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU"}:
        return f"mixes Latin and {min(scripts).title()} letters"
    if scripts == {"CYRILLIC"} and all(c in "асеорхуіјѕАВЕКМНОРСТХУІЈЅ_0123456789" for c in word):
        return "looks Latin and is Cyrillic"
    if any(c in GREEK_LIKE_LATIN for c in word) and (latin or len(word) == 1):
        return "holds a Greek letter that looks Latin"
    return None


def _texts(submission: Submission) -> Iterator[tuple[Path, str]]:
    """All text of the project, file by file; of the notebook its sources and textual outputs, as the file has them."""
    for entry in submission.files(*TEXTS, ".svg", ".bib"):
        try:
            text = read_text(entry.path, submission.limits.notebook_kib * 1024 if _is_notebook(entry) else MAX_TEXT)
        except Unreadable:
            continue  # LAY-003 and NB-001 say so
        yield entry.path, _without_pictures(text) if _is_notebook(entry) else text


def _is_notebook(entry: Entry) -> bool:
    return entry.path.suffix.lower() == ".ipynb"


def _without_pictures(text: str) -> str:
    """A notebook's file without its pictures, whose random letters look like secrets; lines stay where they are."""
    return re.sub(r'(?<=")[A-Za-z0-9+/]{70,}={0,2}(?:\\n)?(?=")', "", text)


@check(
    "SEC-007",
    "Pictures are pictures",
    why="A file that is not what its name says is read by the wrong program; an SVG can carry scripts.",
    fix="Save it again as PNG with matplotlib.",
)
def pictures_are_pictures(submission: Submission) -> Iterator[Found]:
    for entry in submission.files(*SIGNATURES):
        with entry.path.open("rb") as file:
            if not file.read(8).startswith(SIGNATURES[entry.path.suffix.lower()]):
                yield entry.path, 1, f"is no {entry.path.suffix[1:].upper()} picture; save it again."
    for entry in submission.files(".svg"):
        try:
            text = read_text(entry.path)
        except Unreadable as error:
            yield entry.path, error.line, f"{error}; save it as PNG."
            continue
        if found := re.search(
            r"(?i)<\s*script|\bon[a-z]{3,20}\s*=|<!ENTITY|<\s*foreignObject|javascript:|<\s*iframe", text
        ):
            yield entry.path, line_of(text, found.start()), f"acts ('{found[0][:30]}'); save it as PNG."


@check(
    "SEC-008",
    "File names are plain",
    why="A name that one system cannot write, or that hides characters, breaks clones or deceives.",
    fix="Rename it: letters, digits, '.', '_', '-', '+'; no two names that differ in capitals only.",
)
def names_are_plain(submission: Submission) -> Iterator[Found]:
    seen: dict[str, Path] = {}
    for entry in submission.entries:
        name = entry.path.name
        stem = name.partition(".")[0].lower()
        if name.startswith(".") and entry.kind == "file":
            yield entry.path, 1, "is hidden from most people who look; delete it, or give it a name without the point."
        elif not re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_.+-]{0,99}", name) or name.endswith("."):
            yield entry.path, 1, "has a name of other characters than letters, digits, '.', '_', '-', '+'; rename it."
        elif stem in ("con", "prn", "aux", "nul") or re.fullmatch(r"(?:com|lpt)\d", stem):
            yield entry.path, 1, "has a name that Windows reserves; rename it."
        other = seen.setdefault(str(entry.path).casefold(), entry.path)
        if other != entry.path:
            yield entry.path, 1, f"differs from {other.name} in capitals only; rename one."


@check(
    "SEC-009",
    "Code does nothing that a paper does not need",
    why="Everybody runs it; starting programs, opening connections or deleting files is for a person to look at.",
    fix="Use common (data, records, checkpoints). If it is needed, say why in a comment; reviewers decide.",
    severity=WARN_FROM_V1,
)
def nothing_risky(submission: Submission) -> Iterator[Found]:
    for path, line, what in _risks(submission, certain=False):
        yield path, line, f"{what}; use common instead, or say why it is needed."


@check(
    "SEC-010",
    "Nothing is unpickled",
    why="Loading a pickle runs whatever is in it.",
    fix="Load weights with common.experiment.load_weights; torch.load only with weights_only=True.",
    severity=FROM_V1,
)
def nothing_is_unpickled(submission: Submission) -> Iterator[Found]:
    for path, line, what in _risks(submission, certain=True):
        yield path, line, f"{what}; load safetensors, or pass weights_only=True."


def _risks(submission: Submission, *, certain: bool) -> Iterator[Found]:
    """Calls and imports that a paper's code does without; `certain`: those that unpickle, else all others."""
    trees = [(entry.path, 0, submission.tree(entry.path)) for entry in submission.files(".py")]
    if submission.has(f"{submission.name}.ipynb"):
        for cell in cells(submission):
            if cell.code:
                source = re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.MULTILINE)
                try:
                    trees.append((submission.at(f"{submission.name}.ipynb"), cell.line, parse_python(source)))
                except Unreadable:
                    continue
    for path, line, tree in trees:
        for node in ast.walk(tree):
            if found := _risk(node, certain):
                yield path, line or getattr(node, "lineno", 1), found


def _risk(node: ast.AST, certain: bool) -> str | None:
    match node:
        case ast.Call(func=func):
            name = ast.unparse(func) if isinstance(func, ast.Name | ast.Attribute) and _dotted(func) else ""
            if name == "torch.load":
                safe = any(
                    k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True
                    for k in node.keywords
                )
                return "calls torch.load without weights_only=True" if certain and not safe else None
            if name == "np.load" or name == "numpy.load":
                pickled = any(k.arg == "allow_pickle" for k in node.keywords)
                return f"calls {name} with allow_pickle" if certain and pickled else None
            if name in RISKY_CALLS and ("unpickles" in RISKY_CALLS[name]) == certain:
                return f"calls {name}, which {RISKY_CALLS[name]}"
        case ast.Import(names=names) if not certain:
            return next(
                (f"imports {a.name}, which {RISKY_MODULES[a.name]}" for a in names if a.name in RISKY_MODULES), None
            )
        case ast.ImportFrom(module=str(module), level=0) if not certain and module in RISKY_MODULES:
            return f"imports {module}, which {RISKY_MODULES[module]}"
    return None


def _dotted(node: ast.expr) -> bool:
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)
