"""What a paper's probes came to when they were last run: `projects/<paper>/results/probes.json`.

`referee probe <paper> --publish` writes it, so that a reader sees the numbers, from when they are, and whether the code
has changed since. The file is untrusted when it is read.
"""

import ast
import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import records
from common.digest import code_digest
from common.errors import RecordError
from referee.project import Project

FILE = "probes.json"
MAX_BYTES = 256 * 1024


@dataclass(frozen=True)
class Probed:
    """What one probe came to."""

    name: str
    statement: str
    passed: bool
    numbers: Mapping[str, float | str]
    detail: str


@dataclass(frozen=True)
class ProbeRun:
    """What a project's probes came to, all run at one time."""

    probes: tuple[Probed, ...]
    digest: str  # of the code and the instances
    git_sha: str
    environment: Mapping[str, str]
    finished: str  # UTC, ISO 8601


def probe_digest(project: Project) -> str:
    """A digest of what a project's probes look at: its code and its instances, not the probes. Comments do not count.

    Raises:
        SyntaxError: a file is not Python.
    """
    digest = hashlib.sha256(code_digest(project.paper_file, leaving=()).encode())
    digest.update(ast.unparse(ast.parse(project.paper_file.read_text(encoding="utf-8"))).encode())
    return digest.hexdigest()


def save_probes(project: Project, results: Sequence[Mapping[str, Any]], finished: str) -> Path:
    """Write what all of a project's probes came to; returns the file."""
    path = project.results / FILE
    run = {
        "project": project.name,
        "finished": finished,
        "git_sha": records.git_sha(project.root),
        "digest": probe_digest(project),
        "environment": records.environment(),
        "probes": list(results),
    }
    records.write_text(path, json.dumps(run, indent=1) + "\n")
    return path


def load_probes(project: Project) -> ProbeRun | None:
    """What was published; None if nothing was.

    Raises:
        RecordError: it is not such a file.
    """
    path = project.results / FILE
    if not path.is_symlink() and not path.exists():
        return None
    shown = project.shown(path)
    again = f"Write it anew with 'referee probe {project.name} --publish'."
    try:
        if path.is_symlink() or path.stat().st_size > MAX_BYTES:
            raise ValueError("a link, or too large")
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["project"] != project.name:
            raise ValueError("of another project")
        run = ProbeRun(
            tuple(_probed(p) for p in raw["probes"]),
            _text(raw["digest"]),
            _text(raw["git_sha"]),
            {_text(k): _text(v) for k, v in raw["environment"].items()},
            _text(raw["finished"]),
        )
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:+.-]{5,30}", run.finished, re.A):
            raise ValueError("without a date")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecordError(f"{shown}: not what the probes came to ({str(error)[:80]}). {again}") from None
    return run


def _probed(raw: Mapping[str, Any]) -> Probed:
    probed = Probed(**{f.name: raw[f.name] for f in dataclasses.fields(Probed)})
    for text in (probed.name, probed.statement, probed.detail):
        _text(text)
    if not isinstance(probed.passed, bool):
        raise ValueError("a probe passed or did not")
    for name, value in probed.numbers.items():
        _text(name)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError(f"'{name[:40]}' is no number")
    return probed


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{type(value).__name__} where text belongs")
    return value


def show_number(value: float | str) -> str:
    """'−2.328', '8', '8.84e-14', or a text as it is."""
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return str(value)
    return f"{value:.4g}".replace("-", "−", 1) if value < 0 else f"{value:.4g}"
