"""What measures the projects, measured: the metrics beside references (`make conformance`), the speed beside peers
(`make bench`). Both pages are made of the kept tables alone."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import UserError
from referee.plots import Bar, ratio_chart
from referee.site.model import Page, Site
from referee.site.writing import render
from referee.verdicts import minus

CONFORMANCE = "benchmarks/conformance/table.json"
BENCHMARKS = "benchmarks/results"
METRICS_PAGE = "measuring/metrics.md"
SPEED_PAGE = "measuring/benchmarks.md"

OUTCOMES: Mapping[str, tuple[str, str, str]] = {
    "holds": ("✓", "holds", "v-reproduced"),
    "differs": ("≠", "differs by definition", "v-trend-only"),
    "fails": ("✗", "does not hold", "v-not-reproduced"),
    "not run": ("–", "not run", "v-not-attempted"),
}
"""How a row of the conformance table came out: sign, words, class of its badge."""


T = TypeVar("T", bound=BaseModel)


class _Read(BaseModel):
    """A part of a kept file; what is not shown is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


# -- Metrics ----------------------------------------------------------------------------------------------------------


class Metric(_Read):
    """A metric, and the function that works it out."""

    name: str
    family: str
    what: str
    function: str

    @property
    def module(self) -> str:
        """Where the function is."""
        return self.function.rpartition(".")[0]

    @property
    def short(self) -> str:
        """The function's own name."""
        return self.function.rpartition(".")[2]


class Check(_Read):
    """The same number worked out twice."""

    metric: str
    case: str
    kind: str
    reference: str
    package: str
    version: str
    ours: float | None
    value: float | None
    stderr: float | None
    measure: Literal["relative", "absolute", "standard errors"]
    difference: float | None
    allowed: float
    outcome: Literal["holds", "differs", "fails", "not run"]
    note: str = ""

    @property
    def by(self) -> str:
        """'closed form', 'torch-fidelity 0.4.0'."""
        return f"{self.package} {self.version}".strip() if self.package else self.kind

    def shown(self, value: float | None) -> str:
        """A value to the places that the comparison is about."""
        if value is None:
            return "–"
        return minus(_to_error(value, self.stderr) if self.stderr else f"{value:.9g}")

    @property
    def apart(self) -> Markup:
        """The difference: '4.4 × 10⁻⁹', '0.4 standard errors'."""
        return Markup("–") if self.difference is None else self._measured(self.difference)

    @property
    def limit(self) -> Markup:
        """The largest difference that is right; of what is defined otherwise there is none."""
        return Markup("none") if self.outcome == "differs" else self._measured(self.allowed)

    @property
    def shows(self) -> Markup | None:
        """The fault that a random row lets pass one time in 43: two standard errors beyond its limit."""
        random = self.measure == "standard errors" and self.stderr and self.outcome != "differs"
        return power((self.allowed + 2) * self.stderr) if random and self.stderr else None

    def _measured(self, value: float) -> Markup:
        return Markup(f"{value:.2g} s.e.") if self.measure == "standard errors" else power(value)


class Conformance(_Read):
    """The kept table."""

    command: str
    made: str
    versions: dict[str, str]
    metrics: list[Metric]
    rows: list[Check]

    @cached_property
    def of(self) -> dict[str, list[Check]]:
        """Metric -> its rows."""
        return {m.name: [row for row in self.rows if row.metric == m.name] for m in self.metrics}

    @property
    def families(self) -> list[tuple[str, list[Metric]]]:
        """Families with their metrics, as they follow each other."""
        order = list(dict.fromkeys(m.family for m in self.metrics))
        return [(family, [m for m in self.metrics if m.family == family and self.of[m.name]]) for family in order]

    def tally(self, name: str = "") -> list[tuple[str, int]]:
        """How many rows came to what, of one metric or of all."""
        counts: Counter[str] = Counter(row.outcome for row in (self.of[name] if name else self.rows))
        return [(outcome, counts[outcome]) for outcome in OUTCOMES if counts[outcome]]

    def packages(self, name: str = "") -> list[str]:
        """The implementations that were asked, of one metric or of all."""
        rows = self.of[name] if name else self.rows
        return sorted({row.package for row in rows if row.package and row.outcome != "not run"}, key=str.lower)

    def against(self, name: str) -> list[str]:
        """What a metric is compared with, in a few words."""
        kinds = dict.fromkeys(row.kind for row in self.of[name] if not row.package)
        return [*kinds, *self.packages(name)]

    def cases(self, name: str) -> list[tuple[str, list[Check]]]:
        """A metric's rows by what they were worked out on."""
        by_case: dict[str, list[Check]] = {}
        for row in self.of[name]:
            by_case.setdefault(row.case, []).append(row)
        return list(by_case.items())


# -- Benchmarks -------------------------------------------------------------------------------------------------------


class Target(_Read):
    """What was aimed at."""

    bound: float
    at: Literal["least", "most"] = "least"
    of: Literal["ratio", "median"] = "ratio"

    def shown(self, unit: str) -> str:
        """'≥ 2×', '≤ 1.5 s'."""
        return f"{'≥' if self.at == 'least' else '≤'} {self.bound:g}{'×' if self.of == 'ratio' else f' {unit}'}"


class Agreement(_Read):
    """How far the candidates' answers were apart."""

    what: str
    difference: float
    tolerance: float


class Work(_Read):
    """One kind of work, and what ours and the peers' came to."""

    title: str
    unit: str
    less_is_better: bool = False
    ours: str
    peers: dict[str, str] = {}
    medians: dict[str, float]
    spread: dict[str, tuple[float, float]]
    turns: dict[str, list[float]]
    fastest_peer: str | None = None
    ratio: float | None = None
    ratio_spread: tuple[float, float] | None = None
    equal_on: str = ""
    correct_to: Agreement | None = None
    target: Target | None = None
    met: bool | None = None
    why: str = ""

    @property
    def behind(self) -> bool:
        """Whether it is to be said first: a target missed, or another package that is faster."""
        of_a_package = bool(self.fastest_peer and self.peers.get(self.fastest_peer))
        return self.met is False or (of_a_package and self.ratio is not None and self.ratio < 1)

    @property
    def aim(self) -> str:
        """The target in words; '' where there is none."""
        return self.target.shown(self.unit) if self.target else ""

    @property
    def times(self) -> str:
        """'1.34×'."""
        return "" if self.ratio is None else f"{number(self.ratio)}×"

    @property
    def times_range(self) -> str:
        """The ratio's least and largest turn; '' where there was one."""
        several = len(self.turns.get(self.ours, ())) > 1
        return " to ".join(f"{number(end)}×" for end in self.ratio_spread or ()) if several else ""

    @property
    def bar(self) -> Bar | None:
        """Its bar in a chart; None where there is no peer."""
        if self.ratio is None or self.ratio <= 0:
            return None
        low, high = self.ratio_spread or (self.ratio, self.ratio)
        aim = self.target.bound if self.target and self.target.of == "ratio" else None
        return Bar(self.title, self.ratio, low, high, aim, self.times, self.behind)

    @property
    def candidates(self) -> list[tuple[str, str]]:
        """All that took turns, the best first, and what each is."""
        sign = 1 if self.less_is_better else -1
        names = sorted(self.medians, key=lambda name: sign * self.medians[name])
        return [(n, "ours" if n == self.ours else self.peers.get(n, "") or "reference") for n in names]

    def shown(self, name: str) -> str:
        """A candidate's median."""
        return number(self.medians[name])

    def range(self, name: str) -> str:
        """A candidate's least and largest turn; 'one turn' where there was one."""
        if len(self.turns.get(name, ())) == 1:
            return "one turn"
        return " to ".join(number(end) for end in self.spread[name])


class Benchmark(_Read):
    """A kept file."""

    name: str
    question: str
    rows: list[Work]
    notes: dict[str, float | str] = {}
    measured: str
    command: str
    device: str = "cpu"
    hardware: dict[str, str | int] = {}
    threads: int | None = None
    load: list[float] | None = None
    versions: dict[str, str] = {}

    @property
    def compared(self) -> list[Work]:
        """Rows with a peer."""
        return [row for row in self.rows if row.ratio is not None]

    @property
    def alone(self) -> list[Work]:
        """Rows without one."""
        return [row for row in self.rows if row.ratio is None]

    @property
    def equal_on(self) -> str:
        """What is the same in all rows and for all candidates; '' where rows differ in it."""
        stated = {row.equal_on for row in self.rows}
        return next(iter(stated)) if len(stated) == 1 else ""

    @property
    def on(self) -> str:
        """'Intel Xeon, 2 threads, load 1.3'."""
        parts = [self.device if self.device != "cpu" else str(self.hardware.get("cpu", "a CPU"))]
        if self.threads:
            parts.append(f"{self.threads} thread{'s' if self.threads != 1 else ''}")
        if self.load:
            parts.append(f"load {self.load[0]:.1f}")
        return ", ".join(parts)

    @property
    def slug(self) -> str:
        """Its heading's id."""
        return self.name if self.device == "cpu" else f"{self.name}-gpu"

    @property
    def noted(self) -> list[tuple[str, str]]:
        """The notes, numbers rounded."""
        return [(what, number(v) if isinstance(v, float) else v) for what, v in self.notes.items()]


def pages(site: Site) -> Iterable[Page]:
    """`measuring/metrics.md` and `measuring/benchmarks.md`, each where there is a kept table."""
    explained = (site.root / "common" / "__init__.py").is_file()
    if (table := conformance(site.root)) is not None:
        text = render("metrics.md.j2", table=table, explained=explained, guide=_guide(site, "evaluate.md"), sign=sign)
        yield Page(METRICS_PAGE, text)
    if found := benchmarks(site.root):
        span = _span(found)
        charts = {b.slug: _charts(b, span) for b in found}
        guide = (site.root / "benchmarks" / "README.md").is_file()
        behind = list(_behind(found))
        how = {"guide": guide, "evaluate": _guide(site, "evaluate.md")}
        text = render("benchmarks.md.j2", found=found, charts=charts, behind=behind, power=power, **how)
        yield Page(SPEED_PAGE, text)


def _guide(site: Site, name: str) -> bool:
    """Whether there is such a page among the guides."""
    return (site.root / "docs" / name).is_file()


def conformance(root: Path) -> Conformance | None:
    """The kept conformance table; None where there is none.

    Raises:
        UserError: it cannot be read.
    """
    path = root / CONFORMANCE
    return _read(path, Conformance, root, "make conformance") if path.is_file() else None


def benchmarks(root: Path) -> list[Benchmark]:
    """What was kept of the benchmarks: those with peers first, on a CPU before those on a GPU.

    Raises:
        UserError: one cannot be read.
    """
    folder = root / BENCHMARKS
    paths = sorted((*folder.glob("*.json"), *folder.glob("gpu/*.json")))
    found = [_read(path, Benchmark, root, f"make bench NAME={path.stem}") for path in paths]
    return sorted(found, key=lambda b: (not b.compared, b.device != "cpu", b.name))


def _read(path: Path, model: type[T], root: Path, command: str) -> T:
    shown = path.relative_to(root).as_posix()
    try:
        return model.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        said: Any = error
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            said = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise UserError(f"{shown}: cannot be read ({said}). Make it again: {command}") from None


def _behind(found: Iterable[Benchmark]) -> Iterator[tuple[Benchmark, Work]]:
    for benchmark in found:
        for row in benchmark.rows:
            if row.behind:
                yield benchmark, row


def _span(found: Iterable[Benchmark]) -> tuple[float, float]:
    """The range of all ratios, so that all charts have the same axis."""
    bars = [row.bar for b in found for row in b.rows]
    ends = [end for bar in bars if bar for end in (bar.ratio, bar.low, bar.high, bar.target or 1.0)]
    return min([0.8, *ends]), max([1.25, *ends])


def _charts(benchmark: Benchmark, span: tuple[float, float]) -> Markup:
    """The benchmark's chart for wide screens and for phones; nothing where it has no peers."""
    bars = [bar for row in benchmark.rows if (bar := row.bar)]
    title = f"{benchmark.question}: how many times as fast ours is as the fastest peer"
    return Markup("").join(
        ratio_chart(bars, span, title=title, width=width, key=f"{benchmark.slug}-{width}") for width in (860, 350)
    )


def sign(outcome: str, count: int | None = None) -> Markup:
    """How rows came out, as a badge; with how many there are."""
    mark, words, kind = OUTCOMES[outcome]
    counted = (
        words
        if count is None
        else f"{count} {words if count == 1 else words.replace('holds', 'hold').replace('differs', 'differ')}"
    )
    return Markup('<span class="verdict {}"><span aria-hidden="true">{}</span> {}</span>').format(kind, mark, counted)


# -- Numbers ----------------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Three digits and no exponent: '6,760,000', '0.527', '−12.3'."""
    if not value:
        return "0"
    value = float(f"{value:.3g}")
    places = 2 - math.floor(math.log10(abs(value)))
    return minus(f"{value:,.{max(0, places)}f}")


def power(value: float) -> Markup:
    """Two digits, and a power of ten where that is shorter: '0.003', '4.4 × 10⁻⁹'."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return Markup(minus(f"{value:.2g}"))
    digits, _, exponent = f"{value:.1e}".partition("e")
    digits = digits.removesuffix(".0")
    times = "" if digits == "1" else f"{minus(digits)} × "
    return Markup(f"{times}10<sup>{minus(str(int(exponent)))}</sup>")


def _to_error(value: float, stderr: float) -> str:
    """A value to two digits of an error."""
    places = max(0, 1 - math.floor(math.log10(stderr)))
    return f"{value:,.{places}f}"
