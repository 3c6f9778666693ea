"""Take turns, time, take medians, keep the numbers: one shape for every benchmark, kept as `results/<name>.json`.

A `Result` has rows; a `Row` is one kind of work, done by ours and by its peers. Where there is no peer (what a command
costs), the row has ours alone. README.md in this folder has the kept file's shape, key by key.
"""

import json
import os
import platform
import re
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

from common import records

SCHEMA = 2
RESULTS = Path(__file__).parent / "results"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Setting:
    """Where a benchmark runs, and whether it measures or only goes through everything once.

    Args:
        device: what the tensors lie on.
        quick: one turn of the least work; says that everything runs, and nothing about speed.
    """

    device: torch.device = CPU
    quick: bool = False

    def turns(self, wanted: int) -> int:
        return 1 if self.quick else wanted

    def size(self, wanted: int, quick: int) -> int:
        return quick if self.quick else wanted


@dataclass(frozen=True)
class Target:
    """What was aimed at: a bound on the ratio, or on the median of ours."""

    bound: float
    at: Literal["least", "most"] = "least"
    of: Literal["ratio", "median"] = "ratio"

    def met(self, value: float) -> bool:
        return value >= self.bound if self.at == "least" else value <= self.bound

    def __str__(self) -> str:
        return f"{'ratio' if self.of == 'ratio' else 'ours'} at {self.at} {self.bound:g}"


@dataclass(frozen=True)
class Agreement:
    """How far the candidates' answers were apart in this run, and how far they may be."""

    what: str
    difference: float
    tolerance: float

    def __post_init__(self) -> None:
        if not self.difference <= self.tolerance:  # NaN is not below anything
            raise SystemExit(
                f"{self.what}: {self.difference:.3g}, allowed is {self.tolerance:.3g}. What does not compute the same "
                f"is not compared in speed."
            )

    def __str__(self) -> str:
        return f"{self.what}: {self.difference:.2g} (allowed: {self.tolerance:.2g})"


@dataclass
class Turns:
    """One number a turn for each candidate, and on a GPU the most memory that a turn took, in MB."""

    values: dict[str, list[float]] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)


@dataclass
class Row:
    """One kind of work, and what each candidate's turns came to.

    Args:
        unit: of the turns' numbers: "steps/s", "s", "kB".
        ours: which of the candidates is ours.
        peers: candidate -> the package that it is of, on PyPI; "" for what is of none. A candidate that is neither
            ours nor a peer is shown beside them, and no ratio is taken to it.
        equal_on: what is the same for all: data, sizes, numbers' precision.
        correct_to: how far the answers were apart; None where there is no answer to compare.
        why: what keeps ours from its target: kept where it was missed, and only there.
        less_is_better: the unit is a cost.
    """

    title: str
    unit: str
    ours: str
    measured: Turns
    peers: dict[str, str]
    equal_on: str
    correct_to: Agreement | None = None
    target: Target | None = None
    why: str = ""
    less_is_better: bool = False

    @property
    def medians(self) -> dict[str, float]:
        return {name: statistics.median(values) for name, values in self.measured.values.items()}

    @property
    def fastest_peer(self) -> str | None:
        """By its median, whatever the luck of one turn."""
        medians = self.medians
        best = min if self.less_is_better else max
        return best((name for name in medians if name in self.peers), key=medians.__getitem__, default=None)

    def ratios(self, peer: str) -> list[float]:
        """How many times as fast (or as cheap) ours was, turn by turn."""
        pairs = zip(self.measured.values[self.ours], self.measured.values[peer], strict=True)
        return [b / a if self.less_is_better else a / b for a, b in pairs]

    @property
    def ratio(self) -> float | None:
        """Ours over the fastest peer's, the median over turns: above 1 ours is better."""
        return None if self.fastest_peer is None else statistics.median(self.ratios(self.fastest_peer))

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        value = self.ratio if self.target.of == "ratio" else self.medians[self.ours]
        return None if value is None else self.target.met(value)

    def kept(self) -> dict[str, Any]:
        fastest, target, agreement = self.fastest_peer, self.target, self.correct_to
        turns = self.measured.values
        return {
            "title": self.title,
            "unit": self.unit,
            "less_is_better": self.less_is_better,
            "ours": self.ours,
            "peers": {name: f"{package} {release(package)}" if package else "" for name, package in self.peers.items()},
            "turns": turns,
            "medians": self.medians,
            "spread": {name: [min(values), max(values)] for name, values in turns.items()},
            "fastest_peer": fastest,
            "ratio": self.ratio,
            "ratio_spread": None if fastest is None else [min(self.ratios(fastest)), max(self.ratios(fastest))],
            "memory_mb": self.measured.memory or None,
            "equal_on": self.equal_on,
            "correct_to": agreement and vars(agreement).copy(),
            "target": target and vars(target).copy(),
            "met": self.met,
            "why": self.why if self.met is False else "",
        }

    def show(self) -> None:
        print(f"\n  {self.title} ({self.unit}{', less is better' if self.less_is_better else ''})")
        for name, median in self.medians.items():
            kind = "ours" if name == self.ours else "peer" if name in self.peers else ""
            values = self.measured.values[name]
            spread = f"{min(values):,.4g} to {max(values):,.4g} in {len(values)} turns"
            memory = f", {self.measured.memory[name]:,.0f} MB" if name in self.measured.memory else ""
            print(f"    {kind:4}  {name:44} {median:11,.4g}   ({spread}{memory})")
        if self.fastest_peer is not None:
            ratios = self.ratios(self.fastest_peer)
            spread = f"{min(ratios):.3g} to {max(ratios):.3g}"
            print(f"    ratio to {self.fastest_peer}: {statistics.median(ratios):.3g}   ({spread})")
        print(f"    equal on: {self.equal_on}")
        print(f"    correct to: {self.correct_to or 'no answer to compare'}")
        if self.target is not None:
            verdict = {True: "met", False: f"missed. {self.why}", None: "not judged: no peer ran"}[self.met]
            print(f"    target: {self.target}: {verdict}")


@dataclass
class Result:
    """What one benchmark found."""

    name: str
    question: str
    rows: list[Row] = field(default_factory=list)
    notes: dict[str, float | str] = field(default_factory=dict)
    device: torch.device = CPU

    def show(self) -> None:
        print(f"\n{self.name}: {self.question}")
        for row in self.rows:
            row.show()
        if self.notes:
            print()
        for name, value in self.notes.items():
            print(f"  {name}: {value:.4g}" if isinstance(value, float) else f"  {name}: {value}")

    def keep(self, packages: Sequence[str] = ("torch", "numpy")) -> Path:
        """Write `results/<name>.json`, or `results/gpu/<name>.json`."""
        on_gpu = self.device.type != "cpu"
        path = RESULTS / ("gpu" if on_gpu else "") / f"{self.name}.json"
        peers = {package for row in self.rows for package in row.peers.values() if package}
        content = {
            "schema": SCHEMA,
            "name": self.name,
            "question": self.question,
            "rows": [row.kept() for row in self.rows],
            "notes": self.notes,
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join(["make", "bench", f"NAME={self.name}", *(["GPU=1"] if on_gpu else [])]),
            "device": torch.cuda.get_device_name(self.device) if on_gpu else "cpu",
            "hardware": records.hardware(),
            "threads": torch.get_num_threads(),
            "load": list(os.getloadavg()),
            "versions": {"python": platform.python_version()}
            | {name: release(name) for name in sorted({*packages, *peers})},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        records.write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return path


def release(package: str) -> str:
    """The version of an installed package, or the one that is pinned for the peers' environment."""
    try:
        return version(package)
    except PackageNotFoundError:
        pins = "".join((Path(__file__).parent / name).read_text() for name in ("peers.txt", "peers_alone.txt"))
        pinned = re.search(rf"^{re.escape(package)}==(\S+)", pins, re.MULTILINE)
        return pinned[1] if pinned else "unknown"


def take_turns(
    candidates: Mapping[str, Callable[[], float]],
    turns: int,
    warm_up: int = 1,
    device: torch.device = CPU,
    seconds: bool = False,
) -> Turns:
    """Run the candidates in turn, and each turn in the other order, so that a machine's moods fall on all of them.

    A GPU works on while the program goes ahead: the clock is read when it has finished.

    Args:
        candidates: name -> work that returns how many units it did.
        seconds: give seconds a unit, where otherwise it is units a second.
    """
    found = Turns({name: [] for name in candidates})
    gpu = device.type == "cuda"
    for turn in range(-warm_up, turns):
        for name in list(candidates)[:: 1 if turn % 2 else -1]:
            if gpu:
                torch.cuda.synchronize(device)
                torch.cuda.reset_peak_memory_stats(device)
            start = time.perf_counter()
            units = candidates[name]()
            if gpu:
                torch.cuda.synchronize(device)
            elapsed = time.perf_counter() - start
            if gpu:
                peak = torch.cuda.max_memory_allocated(device) / 1e6
                found.memory[name] = max(peak, found.memory.get(name, 0.0))
            if turn >= 0:
                found.values[name].append(elapsed / units if seconds else units / elapsed)
            if sys.stderr.isatty():
                print(f"\r  turn {max(turn, 0) + 1} of {turns}: {name:50}", end="\r", file=sys.stderr)
    return found
