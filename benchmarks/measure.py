"""Take turns, time, take medians, keep the numbers."""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from common import records

RESULTS = Path(__file__).parent / "results"


@dataclass
class Comparison:
    """What was compared, and what came out. `rates` are in `unit` per second, one for each turn."""

    name: str
    question: str
    unit: str
    target: str
    ours: str
    peer: str
    rates: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, float | str] = field(default_factory=dict)

    @property
    def medians(self) -> dict[str, float]:
        return {name: statistics.median(values) for name, values in self.rates.items()}

    @property
    def ratio(self) -> float:
        """Ours over the peer's, the median over turns: above 1 we are faster."""
        pairs = zip(self.rates[self.ours], self.rates[self.peer], strict=True)
        return statistics.median(a / b for a, b in pairs)

    def keep(self, packages: Sequence[str] = ("torch", "numpy")) -> Path:
        """Write `results/<name>.json`."""
        return _keep(asdict(self) | {"ratio": round(self.ratio, 3), "medians": self.medians}, packages)

    def show(self) -> None:
        print(f"\n{self.question}")
        for name, median in self.medians.items():
            spread = f"{min(self.rates[name]):,.0f} to {max(self.rates[name]):,.0f}"
            print(f"  {name:34} {median:12,.0f} {self.unit}/s   ({spread}, {len(self.rates[name])} turns)")
        print(f"  ratio {self.ratio:.2f}, target {self.target}")
        for name, value in self.notes.items():
            print(f"  {name}: {value:.3f}" if isinstance(value, float) else f"  {name}: {value}")


@dataclass
class Rows:
    """Several kinds of work, each done by ours and by several peers. `rates[row][candidate]` has one for each turn."""

    name: str
    question: str
    target: str
    ours: str
    units: dict[str, str]  # row -> what its rates count, per second
    rates: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    notes: dict[str, float | str] = field(default_factory=dict)

    def medians(self, row: str) -> dict[str, float]:
        return {name: statistics.median(values) for name, values in self.rates[row].items()}

    def fastest_peer(self, row: str) -> str:
        medians = self.medians(row)
        return max((name for name in medians if name != self.ours), key=medians.__getitem__)

    def ratio(self, row: str) -> float:
        """Ours over the fastest peer's, the median over turns: above 1 we are faster."""
        pairs = zip(self.rates[row][self.ours], self.rates[row][self.fastest_peer(row)], strict=True)
        return statistics.median(a / b for a, b in pairs)

    def keep(self, packages: Sequence[str] = ("torch", "numpy")) -> Path:
        """Write `results/<name>.json`."""
        summary = {
            row: {
                "medians": self.medians(row),
                "fastest peer": self.fastest_peer(row),
                "ratio": round(self.ratio(row), 3),
            }
            for row in self.rates
        }
        return _keep(asdict(self) | {"summary": summary}, packages)

    def show(self) -> None:
        print(f"\n{self.question}")
        for row in self.rates:
            print(f"  {row}, {self.units[row]}/s")
            for name, median in self.medians(row).items():
                values = self.rates[row][name]
                spread = f"{min(values):,.4g} to {max(values):,.4g}"
                print(f"    {name:44} {median:10,.4g}   ({spread}, {len(values)} turns)")
            print(f"    ratio to {self.fastest_peer(row)}: {self.ratio(row):.2f}")
        print(f"  target {self.target}")
        for name, value in self.notes.items():
            print(f"  {name}: {value:.4g}" if isinstance(value, float) else f"  {name}: {value}")


@dataclass
class Figures:
    """What has no peer: a cost, and the most it may be. `turns` are those each median in `figures` is of."""

    name: str
    question: str
    figures: dict[str, float] = field(default_factory=dict)
    targets: dict[str, float] = field(default_factory=dict)
    turns: dict[str, list[float]] = field(default_factory=dict)

    def keep(self, packages: Sequence[str] = ()) -> Path:
        """Write `results/<name>.json`."""
        return _keep(asdict(self), packages)

    def show(self) -> None:
        print(f"\n{self.question}")
        for name, value in self.figures.items():
            target = f"   target: at most {self.targets[name]:g}" if name in self.targets else ""
            print(f"  {name:58} {value:8.3f}{target}")


def _keep(content: dict[str, Any], packages: Sequence[str]) -> Path:
    path = RESULTS / f"{content['name']}.json"
    content |= {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": records.hardware() | {"threads": torch.get_num_threads()},
        "versions": {name: version(name) for name in packages},
    }
    records.write_text(path, json.dumps(content, indent=1) + "\n")
    return path


def take_turns(candidates: Mapping[str, Callable[[], float]], turns: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Run the candidates in turn, and each turn in the other order, so that a machine's moods fall on all of them.

    Args:
        candidates: name -> work that returns how many units it did.

    Returns:
        name -> units per second, one for each turn.
    """
    rates: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(-warm_up, turns):
        for name in list(candidates)[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            units = candidates[name]()
            elapsed = time.perf_counter() - start
            if turn >= 0:
                rates[name].append(units / elapsed)
    return rates
