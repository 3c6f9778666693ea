"""Benchmarks: what is compared with what, and what is kept. How fast anything is, no test says."""

import importlib.util
import json
import re
import statistics
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import flows_peers, measure
from benchmarks.measure import CPU, Agreement, Result, Row, Setting, Target, Turns, take_turns

FOLDER = Path(command.__file__).parent
KEPT = sorted(FOLDER.glob("results/**/*.json"))
FILE = {"schema", "name", "question", "rows", "notes", "measured", "command", "device", "hardware", "threads"}
FILE |= {"load", "versions"}
ROW = {"title", "unit", "less_is_better", "ours", "peers", "turns", "medians", "spread", "fastest_peer", "ratio"}
ROW |= {"ratio_spread", "memory_mb", "equal_on", "correct_to", "target", "met", "why"}


def a_row(turns: dict[str, list[float]], **settings: Any) -> Row:
    peers = dict.fromkeys([name for name in turns if name not in ("ours", "floor")], "")
    return Row("row", "steps/s", "ours", Turns(turns), peers, "the same", **settings)


def test_ours_is_compared_with_the_fastest_peer_turn_by_turn() -> None:
    turns = {"ours": [10.0, 20.0, 33.0], "slow": [1.0, 1.0, 900.0], "fast": [20.0, 10.0, 30.0], "floor": [99.0] * 3}
    row = a_row(turns)
    assert row.fastest_peer == "fast"  # by its median, whatever the luck of one turn; what is no peer does not count
    assert row.ratio == pytest.approx(1.1)  # the median of 1/2, 2 and 1.1


def test_of_a_cost_the_least_is_the_best() -> None:
    row = a_row({"ours": [1.0, 2.0], "dear": [9.0, 9.0], "cheap": [3.0, 4.0]}, less_is_better=True)
    assert row.fastest_peer == "cheap"
    assert row.ratio == pytest.approx(2.5)  # the median of 3/1 and 4/2


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (Target(2), True),
        (Target(2.01), False),
        (Target(11, "most", "median"), True),
        (Target(9, "most", "median"), False),
    ],
)
def test_a_target_is_missed_or_met_and_the_reason_is_kept_where_it_was_missed(target: Target, met: bool) -> None:
    kept = a_row({"ours": [10.0], "peer": [5.0]}, target=target, why="Because.").kept()
    assert (kept["met"], kept["why"]) == (met, "" if met else "Because.")
    assert a_row({"ours": [10.0]}, target=Target(2)).met is None  # no peer ran


@pytest.mark.parametrize("difference", [1e-3, float("nan")])
def test_what_does_not_compute_the_same_is_not_compared(difference: float) -> None:
    with pytest.raises(SystemExit, match="allowed is 1e-06"):
        Agreement("difference", difference, 1e-6)


def test_turns_alternate_and_warming_up_does_not_count() -> None:
    order: list[str] = []

    def work(name: str) -> float:
        order.append(name)
        return 1.0

    found = take_turns({name: (lambda name=name: work(name)) for name in "ab"}, turns=2, warm_up=1)
    assert "".join(order) == "abbaab"
    assert {name: len(values) for name, values in found.values.items()} == {"a": 2, "b": 2}


def test_on_a_gpu_the_clock_is_read_when_it_has_finished_and_memory_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: said.append("wait"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: said.append("forget"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3_000_000)
    monkeypatch.setattr(measure.time, "perf_counter", lambda: said.append("clock") or float(len(said)))
    found = take_turns({"a": lambda: said.append("work") or 1.0}, 1, warm_up=0, device=torch.device("cuda"))
    assert said == ["wait", "forget", "clock", "work", "wait", "clock"]
    assert found.memory == {"a": 3.0}


def test_every_benchmark_is_there_is_described_and_names_peers_that_are_installed_for_it() -> None:
    described, wanted = (FOLDER / "README.md").read_text(), (FOLDER / "peers.txt").read_text()
    wanted += (FOLDER / "peers_alone.txt").read_text()
    for name in command.NAMES:
        assert importlib.util.find_spec(f"benchmarks.{name}"), name
        assert f"`{name}`" in described, name
    for peer in (peer for peers in command.NEEDS.values() for peer in peers):
        package = {"cleanfid": "clean-fid"}.get(peer, peer.replace("_", "-"))
        assert re.search(rf"^{package}==", wanted, re.MULTILINE), peer
    assert {*command.GPU, *command.OWN, *command.NEEDS} <= {*command.NAMES}


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.relative_to(FOLDER / "results").as_posix())
def test_what_is_kept_has_the_shape_that_is_described_and_follows_from_its_turns(path: Path) -> None:
    kept = json.loads(path.read_text())
    described = (FOLDER / "README.md").read_text()
    assert set(kept) == FILE
    assert path.stem in command.NAMES
    assert kept["schema"] == measure.SCHEMA
    assert kept["name"] == path.stem
    assert kept["rows"]
    assert len({row["title"] for row in kept["rows"]}) == len(kept["rows"])
    assert f"NAME={path.stem}" in kept["command"]
    for key in FILE - {"schema"} | ROW:
        assert f"`{key}`" in described, key
    for row in kept["rows"]:
        assert set(row) == ROW
        assert row["equal_on"]
        assert {row["ours"], *row["peers"]} <= set(row["turns"])
        agreement = row["correct_to"] and Agreement(**row["correct_to"])  # which would not be made if they differed
        target = row["target"] and Target(**row["target"])
        again = Row(
            **{key: row[key] for key in ("title", "unit", "ours", "equal_on", "why", "less_is_better")},
            measured=Turns(row["turns"], row["memory_mb"] or {}),
            peers=dict.fromkeys(row["peers"], ""),
            correct_to=agreement,
            target=target,
        ).kept()
        assert again == row | {"peers": again["peers"]}
        assert (row["met"] is False) == bool(row["why"]), row["title"]
        assert row["medians"][row["ours"]] == statistics.median(row["turns"][row["ours"]])


def test_an_unknown_name_gets_its_nearest_and_what_does_not_run_on_a_gpu_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for arguments, said in (
        (["flow_peers"], "unknown benchmark 'flow_peers'. Did you mean 'flows_peers'?"),
        (["--gpu", "site_build"], "'site_build' does not run on a GPU."),
    ):
        with pytest.raises(SystemExit) as stopped:
            command.main(arguments)
        assert stopped.value.code == 2
        assert said in capsys.readouterr().err


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main(["--gpu"]) == 2
    assert "There is no GPU that PyTorch" in capsys.readouterr().err


def test_peers_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(command.NEEDS, "flows_peers", ("no_such_peer", "torch"))
    assert command.main(["flows_peers"]) == 0
    assert "flows_peers: skipped, not installed here: no_such_peer; 'make bench'" in capsys.readouterr().out


def test_make_hands_on_the_name_and_the_gpu() -> None:
    make = ["make", "--dry-run", "--old-file=.venv/.done", "--old-file=.venv-peers/.done", "bench"]
    found = subprocess.run(
        [*make, "NAME=flows_peers", "GPU=1"], cwd=FOLDER.parent, capture_output=True, text=True, check=True
    )
    assert "-m benchmarks flows_peers --gpu" in found.stdout


def test_the_path_of_a_gpu_goes_through_on_a_processor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With the processor in the GPU's place and ours alone, since peers are not installed here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(command, "ACCELERATOR", CPU)
    monkeypatch.setattr(flows_peers, "the_layers_agree", lambda: 0.0)
    monkeypatch.setattr(flows_peers, "CANDIDATES", {flows_peers.OURS: flows_peers.ours})
    monkeypatch.setitem(command.NEEDS, "flows_peers", ())
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    assert command.main(["--gpu", "--quick", "flows_peers", "likelihood_bound"]) == 0
    said = capsys.readouterr().out
    assert "flows_peers: Real NVP" in said
    assert "likelihood_bound: The k = 50 bound" in said
    assert not list(tmp_path.iterdir())  # a quick turn keeps nothing


def test_what_is_kept_can_be_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    path = Result("some", "What?", [a_row({"ours": [2.0], "peer": [1.0]})], {"a note": 0.5}).keep()
    kept = json.loads(path.read_text())
    assert path == tmp_path / "some.json"
    assert set(kept) == FILE
    assert set(kept["rows"][0]) == ROW
    assert kept["rows"][0]["ratio"] == 2.0
    assert kept["versions"]["torch"] == torch.__version__
    assert kept["command"] == "make bench NAME=some"


def test_quick_is_one_short_turn() -> None:
    assert (Setting().turns(5), Setting().size(100, 3)) == (5, 100)
    assert (Setting(quick=True).turns(5), Setting(quick=True).size(100, 3)) == (1, 3)
