"""Rows of the conformance table: the same number worked out twice, kept with versions and the digests of the code.

A row is one function that returns ours and the reference's value, and, for random estimates, the standard error of
their difference. A decorator says what it is compared with:

    @closed_form("fd", "two Gaussians, ...", "|m|^2 + ...", relative=1e-9)
    def _() -> tuple[float, float]: ...

Modules with rows are imported only when rows are worked out: whether the table is stale is known without torch.
"""

import contextlib
import importlib
import io
import json
import math
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from benchmarks.conformance.metrics import METRICS
from common import records
from common.digest import file_digests

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KEPT = HERE / "table.json"
COMMAND = "make conformance"
VERSION = 1

Values = tuple[float, float] | tuple[float, float, float]
"""Ours, the reference's, and the standard error of the difference where one or both are random."""

Kind = Literal["closed form", "slow reference", "implementation"]
Measure = Literal["relative", "absolute", "standard errors"]
Outcome = Literal["holds", "fails", "differs", "not run"]
"""'differs': by definition, and the note says which; 'not run': the implementation is not installed."""


@dataclass(frozen=True)
class Case:
    """A row to be worked out.

    Attributes:
        metric: its name in `metrics.METRICS`.
        case: the data with their seed and size, and the settings.
        kind: what it is compared with.
        reference: the formula, what the slow reference does, or the implementation's function.
        package: the distribution that has the implementation; "" where it needs none.
        measure: in what the difference is taken.
        allowed: the largest that is right.
        differs: why ours is not the reference's value and should not be; "" where they should agree.
        note: what else to know of it.
        compute: works out both.
    """

    metric: str
    case: str
    kind: Kind
    reference: str
    package: str
    measure: Measure
    allowed: float
    differs: str
    note: str
    compute: Callable[[], Values]


@dataclass(frozen=True)
class Row:
    """A row as it is kept. What was not run has no values."""

    metric: str
    case: str
    kind: str
    reference: str
    package: str
    version: str  # of the package
    ours: float | None
    value: float | None  # the reference's
    stderr: float | None  # of the difference
    measure: str
    difference: float | None
    allowed: float
    outcome: str
    note: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from all others."""
        return self.metric, self.case, self.reference


@dataclass(frozen=True)
class Table:
    """The table as it is kept."""

    version: int
    command: str
    made: str  # UTC, ISO 8601
    versions: Mapping[str, str]
    digests: Mapping[str, str]  # file of the repository -> SHA-256 of its code, without prose
    metrics: list[dict[str, str]]
    rows: list[Row] = field(default_factory=list)

    def save(self, path: Path | None = None) -> None:
        """Write it atomically."""
        records.write_text(path or KEPT, json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path | None = None) -> "Table":
        """Read it again."""
        raw = json.loads((path or KEPT).read_text(encoding="utf-8"))
        return cls(**raw | {"rows": [Row(**row) for row in raw["rows"]]})


CASES: list[Case] = []


def _row(
    kind: Kind,
    metric: str,
    case: str,
    reference: str,
    package: str = "",
    relative: float | None = None,
    absolute: float | None = None,
    errors: float | None = None,
    differs: str = "",
    note: str = "",
) -> Callable[[Callable[[], Values]], Callable[[], Values]]:
    """Enter a row; exactly one of `relative`, `absolute` and `errors` says how far off it may be."""
    limits: dict[Measure, float | None] = {"relative": relative, "absolute": absolute, "standard errors": errors}
    stated = [(measure, limit) for measure, limit in limits.items() if limit is not None]
    if len(stated) != 1:
        raise ValueError(f"{metric}, {case}: state one of relative, absolute and errors, not {len(stated)}.")
    if metric not in METRICS:
        raise ValueError(f"{metric} is not among METRICS.")

    def enter(compute: Callable[[], Values]) -> Callable[[], Values]:
        CASES.append(Case(metric, case, kind, reference, package, *stated[0], differs, note, compute))
        return compute

    return enter


def closed_form(metric: str, case: str, formula: str, **limits: Any) -> Callable[..., Any]:
    """A row whose reference is a formula."""
    return _row("closed form", metric, case, formula, **limits)


def slow(metric: str, case: str, does: str, **limits: Any) -> Callable[..., Any]:
    """A row whose reference is the definition, written down as plainly as can be."""
    return _row("slow reference", metric, case, does, **limits)


def implementation(package: str, metric: str, case: str, function: str, **limits: Any) -> Callable[..., Any]:
    """A row whose reference is a function of a package."""
    return _row("implementation", metric, case, function, package, **limits)


def cases(names: Iterable[str] = ()) -> list[Case]:
    """All rows, by family and metric as METRICS has them, or those of some metrics."""
    for family in dict.fromkeys(metric.family for metric in METRICS.values()):
        importlib.import_module(f"benchmarks.conformance.{family.replace(' ', '_')}")
    wanted, order = set(names), list(METRICS)
    found = [case for case in CASES if not wanted or case.metric in wanted]
    return sorted(found, key=lambda case: order.index(case.metric))


def work_out(case: Case) -> Row:
    """The row of a case; one whose package is missing says so."""
    found = _version(case.package)
    row = Row(
        *(case.metric, case.case, case.kind, case.reference, case.package, found or ""),
        *(None, None, None, case.measure, None, case.allowed, "not run", case.differs or case.note),
    )
    if case.package and not found:
        return row
    with contextlib.redirect_stdout(io.StringIO()):  # peers have things to say
        ours, value, stderr = (*case.compute(), None)[:3]
    difference = apart(float(ours), float(value), stderr, case.measure)
    within = difference <= case.allowed  # never so for NaN
    outcome = ("fails" if within else "differs") if case.differs else ("holds" if within else "fails")
    filled = {"ours": float(ours), "value": float(value), "stderr": stderr and float(stderr)}
    return Row(**asdict(row) | filled | {"difference": difference, "outcome": outcome})


def load(module: str) -> ModuleType:
    """Import a module of a peer."""
    from benchmarks.peers import allow_torchvision

    allow_torchvision()
    return importlib.import_module(module)


def apart(ours: float, value: float, stderr: float | None, measure: str) -> float:
    """How far ours is from the reference: of its size, in its unit, or in standard errors of the difference."""
    difference = abs(ours - value)
    if measure == "relative":
        return difference / abs(value) if value else (math.inf if difference else 0.0)
    if measure == "standard errors":
        assert stderr is not None, "a random estimate needs the error of the difference"
        return difference / stderr
    return difference


def make(rows: Iterable[Row], code: Mapping[str, str]) -> Table:
    """The table of these rows, as it is to be kept, with the digests of the code that worked them out."""
    rows = list(rows)
    packages = sorted({"torch", "numpy", *(row.package for row in rows if row.package)})
    versions = {"python": platform.python_version()} | {name: found for name in packages if (found := _version(name))}
    described = [{"name": name, **asdict(metric)} for name, metric in METRICS.items()]
    made = datetime.now(UTC).isoformat(timespec="seconds")
    return Table(VERSION, COMMAND, made, versions, code, described, rows)


def digests(root: Path = ROOT) -> dict[str, str]:
    """Of the code that decides the table: the metrics', and the rows' own."""
    metrics = {root.joinpath(*metric.function.split(".")[:-1]).with_suffix(".py") for metric in METRICS.values()}
    rows = (root / "benchmarks" / "conformance").glob("*.py")
    found = file_digests({*metrics, *rows}, root)
    kept = ("common/evaluation/", "benchmarks/conformance/")
    named = {path.relative_to(root).as_posix() for path in metrics}
    return {path: digest for path, digest in found.items() if path.startswith(kept) or path in named}


def complaints(table: Table, now: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with a kept table, given the digests of the code as it is."""
    for path in sorted({*table.digests, *now}):
        if path not in now:
            yield f"{path} is gone since the table was made"
        elif table.digests.get(path) != now[path]:
            yield f"{path} changed since the table was made"
    for row in table.rows:
        if row.outcome == "fails":
            yield f"{row.metric}, {row.case}: {row.ours} here, {row.value} by {row.reference}"
        if row.outcome == "not run":
            yield f"{row.metric}, {row.case}: {row.package} was not installed"


def _version(package: str) -> str | None:
    try:
        return version(package) if package else None
    except PackageNotFoundError:
        return None
