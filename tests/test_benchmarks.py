"""Benchmarks: what is compared with what. How fast anything is, no test says."""

import importlib.util
import re
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks.measure import Rows, take_turns


def test_ours_is_compared_with_the_fastest_peer_turn_by_turn() -> None:
    rates = {"row": {"ours": [10.0, 20.0, 33.0], "slow": [1.0, 1.0, 900.0], "fast": [20.0, 10.0, 30.0]}}
    rows = Rows("n", "q", "t", "ours", {"row": "steps"}, rates)
    assert rows.fastest_peer("row") == "fast"  # by its median, whatever the luck of one turn
    assert rows.ratio("row") == pytest.approx(1.1)  # the median of 1/2, 2 and 1.1


def test_turns_alternate_and_warming_up_does_not_count() -> None:
    order: list[str] = []

    def work(name: str) -> float:
        order.append(name)
        return 1.0

    rates = take_turns({name: (lambda name=name: work(name)) for name in "ab"}, turns=2, warm_up=1)
    assert "".join(order) == "abbaab"
    assert {name: len(values) for name, values in rates.items()} == {"a": 2, "b": 2}


def test_every_benchmark_is_there_is_described_and_names_peers_that_are_installed_for_it() -> None:
    folder = Path(command.__file__).parent
    described, wanted = (folder / "README.md").read_text(), (folder / "peers.txt").read_text()
    wanted += (folder / "peers_alone.txt").read_text()
    for name in command.NAMES:
        assert importlib.util.find_spec(f"benchmarks.{name}"), name
        assert f"`{name}`" in described, name
    for peer in (peer for peers in command.NEEDS.values() for peer in peers):
        assert re.search(rf"^{peer.replace('_', '-')}==", wanted, re.MULTILINE), peer
