"""Read what a submission holds without trusting it: sizes are bounded, nothing is executed, nothing is unpickled."""

import ast
import html
import json
import math
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

MAX_TEXT = 1024 * 1024  # bytes of a text file
MAX_SOURCE = 256 * 1024  # bytes of a Python file
MAX_STATEMENTS = 2000  # at a Python file's top
MAX_HEADER = 4 * 1024 * 1024  # bytes of a safetensors header
MAX_TENSORS = 20_000

DTYPES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
"""Bytes an element takes, for the types that safetensors knows."""


class Unreadable(Exception):
    """Why a file cannot be read, and on which line; the message does not name the file."""

    def __init__(self, message: str, line: int = 1):
        self.line = line
        super().__init__(message)


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a plain file of at most `limit` bytes.

    Raises:
        Unreadable: it is missing, a link, no plain file, or larger.
    """
    if path.is_symlink() or not path.is_file():
        raise Unreadable("is missing" if not path.exists() else "is not a plain file")
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from None
    if len(content) > limit:
        raise Unreadable(f"is larger than {limit // 1024:,} KiB")
    return content


def read_text(path: Path, limit: int = MAX_TEXT) -> str:
    """The content of a plain UTF-8 file, line ends as they are.

    Raises:
        Unreadable: as `read_bytes`, or it is not UTF-8, or holds a NUL.
    """
    content = read_bytes(path, limit)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable("is not UTF-8 text", content[: error.start].count(b"\n") + 1) from None
    if "\0" in text:
        raise Unreadable("holds a NUL character", text[: text.index("\0")].count("\n") + 1)
    return text


def parse_json(text: str) -> Any:
    """JSON as RFC 8259 has it: no NaN, no infinity, no name twice in an object, no nesting beyond reason.

    Raises:
        Unreadable: with the line, where the parser tells.
    """

    def constant(name: str) -> NoReturn:
        raise Unreadable(f"holds {name}, which is not JSON")

    def number(digits: str) -> float:
        if not math.isfinite(value := float(digits)):
            raise Unreadable(f"holds the number {digits[:20]}, which is too large")
        return value

    def whole(digits: str) -> int:
        if len(digits) > 30:
            raise Unreadable(f"holds a number of {len(digits)} digits")
        return int(digits)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise Unreadable(f"holds the field '{twice[:60]}' twice in one object")
        return result

    try:
        return json.loads(text, parse_constant=constant, parse_float=number, parse_int=whole, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise Unreadable(f"is not JSON ({error.msg})", error.lineno) from None
    except RecursionError:
        raise Unreadable("is nested too deeply") from None


def parse_python(text: str) -> ast.Module:
    """Python source as a syntax tree.

    Raises:
        Unreadable: it is not Python, or too deeply nested to be parsed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(text)
        except SyntaxError as error:
            raise Unreadable(f"is not Python ({error.msg})", error.lineno or 1) from None
        except ValueError as error:
            raise Unreadable(f"is not Python ({error})") from None
        except (RecursionError, MemoryError):
            raise Unreadable("is nested too deeply to be read as Python") from None
    if len(tree.body) > MAX_STATEMENTS:
        raise Unreadable(f"has {len(tree.body):,} statements at its top, more than a person wrote")
    return tree


def safetensors_header(path: Path, limit: int) -> dict[str, Any]:
    """The names, types and shapes of a safetensors file, after comparing them with the file's size.

    The format is eight bytes of length (little endian), a JSON object of that length, and the tensors' bytes, which
    the object's offsets must cover without gap or overlap.

    Args:
        limit: bytes the file may have.

    Raises:
        Unreadable: the header lies.
    """
    if path.is_symlink() or not path.is_file():
        raise Unreadable("is not a plain file")
    size = path.stat().st_size
    if size > limit:
        raise Unreadable(f"is {size / 2**20:.1f} MiB; the limit is {limit // 2**20} MiB")
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(MAX_HEADER, size - 8):
            raise Unreadable(f"says that its header has {length:,} bytes, which the file has not")
        raw = file.read(length)
    if not raw.startswith(b"{"):
        raise Unreadable("has a header that is not a JSON object")
    try:
        header = parse_json(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise Unreadable("has a header that is not UTF-8") from None
    except Unreadable as error:
        raise Unreadable(f"has a header that {error}") from None
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise Unreadable("has a header that is not an object of tensors")
    spans = []
    for name, entry in header.items():
        if name == "__metadata__":
            if not isinstance(entry, dict) or not all(isinstance(v, str) for v in entry.values()):
                raise Unreadable("has metadata that is not text")
            continue
        spans.append(_span(name, entry))
    end = 0
    for first, last, name in sorted(spans):
        if first != end:
            raise Unreadable(f"has a gap or an overlap before the tensor '{name[:60]}'")
        end = last
    if end != size - 8 - length:
        raise Unreadable(f"describes {end:,} bytes of tensors and holds {size - 8 - length:,}")
    return header


def _span(name: str, entry: Any) -> tuple[int, int, str]:
    """Where a tensor's bytes begin and end, after checking that its type and shape take as many."""
    brief = name[:60]
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise Unreadable(f"describes the tensor '{brief}' by other fields than dtype, shape, data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise Unreadable(f"gives the tensor '{brief}' an unknown type")
    if not _counts(shape) or len(shape) > 16 or not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise Unreadable(f"gives the tensor '{brief}' an impossible shape or place")
    if math.prod(shape) * DTYPES[dtype] != offsets[1] - offsets[0]:
        raise Unreadable(f"gives the tensor '{brief}' more or fewer bytes than its shape takes")
    return offsets[0], offsets[1], name


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 2**48 for v in value)


PLACEHOLDER = re.compile(
    r"\b(?:TODO|FIXME|XXX|TBD|TBA|WRITE:|lorem ipsum)(?!\w)|<(?:your|insert|replace|fill)[^>\n]{0,60}>"
    r"|\[(?:your|insert|replace|fill in)[^\]\n]{0,60}\](?!\()|\b(?:your name here|write me|describe here)\b",
)
"""Text that was meant to be replaced."""

LOCAL_PATH = re.compile(
    r"(?<![\w./:~-])(?:/(?:home|Users|root|workspace|mnt|media|private/var|var/folders|tmp|scratch|content/drive)/[\w.@-]+"
    r"|[A-Za-z]:\\{1,2}(?:Users|Documents|Temp|home)\\{1,2}[\w.@ -]+|file:///?[\w.~-]+|~/[\w.-]+/[\w.-]+)",
)
"""A path on somebody's machine."""


ACTING = re.compile(
    r"<\s{0,9}/?\s{0,9}(?:script|iframe|object|embed|applet|form|link|meta|style|base|svg|math|frame|frameset|input|button)\b"
    r"|<[a-zA-Z][\w:-]*[\s/][^<>]*=",
    re.IGNORECASE,
)
SCHEME = re.compile(r"\b(?:javascript|vbscript)\s*:|\bdata\s*:\s*\w+/\w|\bfile\s*:\s*/", re.IGNORECASE)


def acting(text: str) -> re.Match[str] | None:
    """HTML that runs, loads or asks for something: such elements, any element with attributes, links that run."""
    plain = html.unescape(re.sub(r"&#(?:\d{8,}|[xX][\da-fA-F]{8,});?", "", text))  # beyond all characters
    return ACTING.search(text) or SCHEME.search(re.sub(r"[\t\r\n]", "", plain))


def line_of(text: str, position: int) -> int:
    """The line (from 1) of a place in a text."""
    return text.count("\n", 0, position) + 1
