"""Records: what came out of a run, and everything needed to judge and repeat it.

A finished run is a folder:

    record.json            the `Record`: scores, configuration, seed, digests, environment, hardware, time
    config.json            the configuration alone
    metrics.jsonl          the learning curve, one JSON object a line; no clocks in it
    examples.safetensors   per-example values of the scores, so that two runs can be compared pairwise
    samples.png            what the model makes
    memory.json            the most memory that it needed (`referee.runs.memory`)
    weights.safetensors    the trained parameters
    trained.json           only while they are evaluated again: the record that they are from

`runs/<paper>/` (made on this machine) and `projects/<paper>/results/` (published) have the same shape:
`<preset>/<run>/` for the preset's own seed, `<preset>/<run>/seed-<s>/` for another. This module reads and writes such
folders. It does not import torch, so that commands which only read files stay fast.
"""

import dataclasses
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from safetensors.numpy import load_file, save_file

from common.errors import RecordError

PRESETS_ORDER = ("smoke", "laptop", "workstation", "paper")
"""Presets from the smallest to the paper's own setting."""

Kind = Literal["exact", "bound", "estimate"]

LARGEST = 1e12
"""No measured number is as large."""


@dataclass(frozen=True)
class Score:
    """One measured number, with what it takes to compare it.

    `kind` tells an exact value from a bound and from an estimate. `protocol` says how it was measured; two scores
    are comparable only when their protocols are equal. `stderr` is the standard error of `value` over the `n`
    examples, in the same unit.
    """

    name: str  # "nll", "active_units", ...
    value: float
    stderr: float | None
    n: int  # examples it is a mean over
    unit: str  # "nats", "bits/dim", "units", ...
    kind: Kind
    split: str  # "train", "val" or "test"
    weights: Literal["raw", "ema"]
    protocol: str  # "dynamic MNIST, L_5000"

    def __post_init__(self) -> None:
        for what, number in (("is", self.value), ("has a standard error of", self.stderr)):
            if number is not None and not abs(number) < LARGEST:  # NaN is not below anything
                raise RecordError(
                    f"score '{self.name}' {what} {number}: a record holds finite numbers below {LARGEST:g} only."
                )
        if self.stderr is not None and self.stderr < 0:
            raise RecordError(f"score '{self.name}' has a standard error of {self.stderr}: it cannot be negative.")
        if self.n < 1:
            raise RecordError(f"score '{self.name}' is a mean over n={self.n} examples; it needs at least one.")
        if self.kind not in get_args(Kind):
            raise RecordError(f"score '{self.name}': kind '{self.kind}' is not one of {', '.join(get_args(Kind))}.")


@dataclass(frozen=True)
class Record:
    """What came out of one run of one preset of one project."""

    project: str
    preset: str
    run: str
    config: dict[str, Any]
    scores: list[Score]
    seed: int
    steps: int
    code_digest: str
    git_sha: str  # the commit checked out; ends in "+" when files of the code differed from it
    data_sha256: dict[str, str]
    environment: dict[str, str]
    hardware: dict[str, str | int]
    wall_s: float  # training and evaluation, over all sessions of the run
    finished: str  # UTC, ISO 8601
    parameters: int = 0
    timings_s: dict[str, float] = field(default_factory=dict)
    training_digest: str = ""  # of the code that the weights depend on (common.digest.training_digest)
    weights_sha256: str = ""
    trained: dict[str, Any] = field(default_factory=dict)
    """Where the weights are from, if they were evaluated again after other code than training's had changed: git_sha,
    environment, hardware and finished of the record that came with the training. Else empty: from this very run."""

    def score(self, name: str) -> Score | None:
        """The score of that name, or None."""
        return next((s for s in self.scores if s.name == name), None)

    def save(self, directory: Path) -> None:
        """Write `record.json` atomically."""
        write_text(directory / "record.json", json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, directory: Path, name: str = "record.json") -> "Record":
        """Read `record.json` of a run's folder, or a record of another name.

        Raises:
            RecordError: there is none, it is not JSON, or a field is missing, unknown or of the wrong type.
        """
        path = directory / name
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RecordError(f"{path}: there is no record; the run has not finished.") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RecordError(f"{path}: not readable as JSON ({error}). Run it again with --fresh.") from None
        if not isinstance(raw, dict):
            raise RecordError(f"{path}: holds a {type(raw).__name__}, not a record.")
        try:
            raw["scores"] = [Score(**_typed(Score, s, f"{path}: scores[{i}]")) for i, s in enumerate(raw["scores"])]
            return cls(**_typed(cls, raw, str(path)))
        except KeyError as error:
            raise RecordError(f"{path}: the field {error} is missing. Run it again with --fresh.") from None


_JSON_TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "dict": dict,
    "list": list,
}


def _typed(cls: type, raw: Any, where: str) -> dict[str, Any]:
    """The fields of a dataclass out of parsed JSON, names and plain types checked."""
    if not isinstance(raw, dict):
        raise RecordError(f"{where}: holds a {type(raw).__name__}, not an object.")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    if unknown := sorted(set(raw) - set(fields)):
        raise RecordError(f"{where}: unknown field '{unknown[0]}'; it was written by another version of the code.")
    for name, f in fields.items():
        if name not in raw:
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
                raise RecordError(f"{where}: the field '{name}' is missing.")
            continue
        stated = str(f.type.__name__ if isinstance(f.type, type) else f.type)
        expected = _JSON_TYPES.get(re.split(r"[\[ ]", stated)[0])
        value = raw[name]
        if expected is None or (value is None and "None" in stated):
            continue
        if not isinstance(value, expected) or isinstance(value, bool):
            raise RecordError(f"{where}: '{name}' is {value!r}, expected {stated}.")
    return raw


def results(root: Path) -> dict[str, dict[str, Record]]:
    """All records below a project's results: preset -> run -> record, presets from small to large.

    Folders without a `record.json` are unfinished runs and are passed over.
    """
    found: dict[str, dict[str, Record]] = {}
    for path in sorted(root.glob("*/*/record.json")):
        found.setdefault(path.parts[-3], {})[path.parts[-2]] = Record.load(path.parent)
    return dict(sorted(found.items(), key=lambda item: _rank(item[0])))


def seed_folder(seed: int) -> str:
    """The folder of a seed that is not the preset's own, in the folder of the run: 'seed-3'."""
    return f"seed-{seed}"


def folder_seed(name: str) -> int | None:
    """The seed whose folder has this name, None where it is no such folder."""
    match = re.fullmatch(r"seed-(0|[1-9]\d{0,11})", name)
    return int(match[1]) if match else None


def replicates(root: Path) -> dict[str, dict[str, list[Record]]]:
    """All records below a project's results, of all seeds: preset -> run -> records.

    The preset's own seed is first, where it has a record; the others follow in ascending order.

    Raises:
        RecordError: one of them is no record.
    """
    own = results(root)
    others: dict[str, dict[str, list[Record]]] = {}
    for path in sorted(root.glob("*/*/seed-*/record.json")):
        if folder_seed(path.parent.name) is not None and not path.parts[-3].startswith("."):  # that is put aside
            others.setdefault(path.parts[-4], {}).setdefault(path.parts[-3], []).append(Record.load(path.parent))
    return {
        preset: {
            run: [
                *([own[preset][run]] if run in own.get(preset, {}) else []),
                *sorted(others.get(preset, {}).get(run, []), key=lambda record: record.seed),
            ]
            for run in sorted({*own.get(preset, {}), *others.get(preset, {})})
        }
        for preset in sorted({*own, *others}, key=_rank)
    }


def _rank(preset: str) -> tuple[int, str]:
    """By which presets are ordered: from the smallest to the paper's own, then those with changed settings."""
    return (PRESETS_ORDER.index(preset) if preset in PRESETS_ORDER else len(PRESETS_ORDER)), preset


def read_metrics(directory: Path) -> list[dict[str, float]]:
    """The learning curve of a run: the objects in `metrics.jsonl`, in order of step.

    Raises:
        RecordError: a line is not a JSON object; the message names it.
    """
    path = directory / "metrics.jsonl"
    rows = []
    if path.exists():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                row = None
            if not isinstance(row, dict):
                raise RecordError(f"{path}:{number}: not a JSON object.")
            rows.append(row)
    return rows


def write_examples(directory: Path, values: Mapping[str, np.ndarray]) -> None:
    """Keep per-example values (score name -> array of shape (n,)) as float32 in `examples.safetensors`."""
    target = directory / "examples.safetensors"
    part = target.with_suffix(".part")
    save_file({name: np.ascontiguousarray(v, dtype=np.float32) for name, v in values.items()}, part)
    os.replace(part, target)


def read_examples(directory: Path) -> dict[str, np.ndarray]:
    """Per-example values of a run's scores, {} when it kept none."""
    path = directory / "examples.safetensors"
    if not path.exists():
        return {}
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own, undocumented types
        raise RecordError(f"{path}: not a safetensors file ({error}).") from None


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the new, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def git_sha(root: Path) -> str:
    """The commit that is checked out, with a '+' when tracked Python files differ from it; '' outside git."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        sha = git("rev-parse", "HEAD")
        dirty = git("status", "--porcelain", "--untracked-files=no", "--", "*.py")
    except FileNotFoundError:  # no git on this machine
        return ""
    return sha + ("+" if sha and dirty else "")


def environment() -> dict[str, str]:
    """Versions of what a number may depend on."""
    from importlib.metadata import version

    return {"python": platform.python_version(), **{name: version(name) for name in ("torch", "numpy")}}


def hardware() -> dict[str, str | int]:
    """The processor, as far as the machine tells, and the number of cores this process may use."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), flags=re.M)
        model = named.group(1) if named else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"cpu": model, "cores": cores, "system": f"{platform.system()} {platform.machine()}"}
