"""Two processes under torchrun, and four, do what one does; when one of them dies, the run says so and continues."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.errors import DeviceError, ProcessError
from common.records import Record
from common.training import Interrupted, distributed

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name("two_processes.py")
TOGETHER = Path(__file__).with_name("together.py")


def torchrun(processes: int, *command: str | Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run([*start, *command], env=environment, capture_output=True, text=True, timeout=300)


def forked(processes: int, *command: str | Path) -> subprocess.CompletedProcess:
    """The same without torchrun, in half the time."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "FORK": str(processes)}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=300)


def result_of(start: Callable[..., subprocess.CompletedProcess], processes: int, folder: Path, *parts: str) -> dict:
    done = start(processes, SCRIPT, folder, *parts)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def two_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def result(two_folder):
    """What two processes did. Starting them takes seconds: once for all the tests here."""
    return result_of(torchrun, 2, two_folder, "curve", "resumed", "stopped", "not_a_number", "shards", "recorded")


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """What four processes did."""
    return result_of(forked, 4, tmp_path_factory.mktemp("four"), "curve", "shards")


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("two_processes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("processes", "fixture"), [(2, "result"), (4, "four")])
def test_same_curve_and_weights_as_one_process(script, processes, fixture, request, tmp_path):
    """For a loss that is no forward(), two optimisers, micro-batches, clipping, uneven and empty local batches."""
    result = request.getfixturevalue(fixture)
    one, two = script.curve(tmp_path, seed=0), result["curve"]
    assert result["world"] == processes
    assert two["same_everywhere"]
    assert one["unused_without_gradient"]
    assert two["unused_without_gradient"]
    assert [set(line) for line in two["log"]] == [{"step", "loss", "worst", "grad_norm", "critic"}] * script.STEPS
    for ours, theirs in zip(one["log"], two["log"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)  # the file holds six digits
    assert two["weights"] == pytest.approx(one["weights"], rel=1e-9, abs=1e-12)
    assert two["average"] == pytest.approx(one["average"], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("processes", "fixture"), [(2, "result"), (4, "four")])
def test_values_and_samples_divided_among_processes_are_those_of_one_to_the_bit(
    script, processes, fixture, request, tmp_path
):
    torch.manual_seed(0)
    one, shared = script.shards(tmp_path), request.getfixturevalue(fixture)["shards"]
    assert shared["values"] == one["values"]
    assert shared["same_everywhere"]
    assert one["sizes"] == [[4, 4, 4, 4, 4, 3, 3]]
    dealt = {2: [[4, 4, 4, 3], [4, 4, 3]], 4: [[4, 4, 3], [4, 3], [4], [4]]}  # and no batch is computed twice
    assert shared["sizes"] == dealt[processes]


def test_resumed_to_the_bit_with_noise_of_each_process_own(result):
    assert result["resumed"] == {"same_bits": True, "same_log": True, "own_noise": True}


def test_a_signal_to_one_process_stops_both_at_the_same_step(result):
    assert result["stopped"]["steps"] == [5, 5]
    first, second = result["stopped"]["told"]
    assert "at step 5 of 12" in first
    assert "SIGTERM at step 5 of 12" in second


def test_a_nan_in_one_process_stops_both(result):
    assert all("Step 7: 'worst' was nan." in told for told in result["not_a_number"]["told"])
    assert not result["not_a_number"]["saved"]


def test_more_processes_than_gpus(monkeypatch):
    for name, value in (("RANK", "2"), ("WORLD_SIZE", "3"), ("LOCAL_RANK", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DeviceError, match="--nproc-per-node 2"):
        distributed.start(torch.device("cuda"))


def test_processes_that_do_not_meet(monkeypatch):
    def refused(*arguments, **how):
        raise RuntimeError("Connection refused\nat length")

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed.dist, "init_process_group", refused)
    with pytest.raises(
        ProcessError, match=r"did not find each other; give the same command again. Connection refused$"
    ):
        distributed.start(torch.device("cpu"))


def test_alone_nothing_is_shared():
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.start(torch.device("cpu")) == torch.device("cpu")
    assert distributed.agree(2) == 2
    assert distributed.gather("x") == ["x"]


def test_one_of_two_is_killed_and_the_same_command_continues_to_the_same_bits(result, two_folder, tmp_path):
    """The whole way, to a record, as `referee run` goes."""
    whole, killed = two_folder / "recorded", tmp_path / "killed"
    done = torchrun(2, TOGETHER, killed, "1", "step 7")
    assert done.returncode != 0
    assert "told by 0: process 1 of 2 ended" in done.stderr
    assert f"saved is in {killed}: the same command continues" in done.stderr
    assert not (killed / "record.json").exists()
    assert (killed / "checkpoint.pt").exists()
    assert forked(2, TOGETHER, killed).returncode == 0
    for name in ("metrics.jsonl", "weights.safetensors", "examples.safetensors"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    one, other = Record.load(whole), Record.load(killed)
    assert one.scores == other.scores
    assert (other.steps, other.hardware["processes"]) == (12, 2)
    # Both evaluate, one writes.
    assert {path.name for path in whole.iterdir()} == {
        *("record.json", "config.json", "metrics.jsonl", "weights.safetensors", "examples.safetensors"),
        *("evaluated-0", "evaluated-1", "illustrated-0"),
    }
    assert (whole / "illustrated-0").read_text() == "1 True"
    # When other code than training's has changed since, its weights are evaluated again, by both.
    replace(other, code_digest="0" * 64).save(killed)
    assert forked(2, TOGETHER, killed, "1", "step 0").returncode == 0  # it would die if it trained
    again = Record.load(killed)
    assert (again.scores, again.steps, again.code_digest) == (one.scores, 12, one.code_digest)
    assert again.trained["finished"] == other.finished
    assert {path.name for path in killed.iterdir()} == {path.name for path in whole.iterdir()}
    for name in ("metrics.jsonl", "weights.safetensors", "examples.safetensors"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name


@pytest.fixture
def with_another(monkeypatch):
    """As in a run with another process, which has been killed and which nobody has asked about yet."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(
        distributed, "_peers", [(distributed.socket.gethostname(), p) for p in (os.getpid(), other.pid)]
    )
    assert distributed.lost() == []
    yield other
    other.kill()
    other.wait()


def test_an_error_because_another_process_died_says_so(with_another, tmp_path):
    def share() -> None:
        with distributed.together(tmp_path):
            raise RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer")

    with pytest.raises(ProcessError, match="on another machine"):
        share()
    with_another.kill()
    with pytest.raises(ProcessError, match=r"process 1 of 2 ended before .*: the same command continues") as caught:
        share()
    assert str(tmp_path) in str(caught.value)


def test_an_error_of_our_own_stays_one(with_another, tmp_path):
    with pytest.raises(RuntimeError, match="sizes of tensors"), distributed.together(tmp_path):
        raise RuntimeError("the sizes of tensors must match")


def test_sigterm_while_another_process_evaluates_is_explained(with_another, tmp_path):
    """torchrun sends it to those that are left."""

    def wait() -> None:
        with distributed.together(tmp_path):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="SIGTERM"):
        wait()
    with_another.kill()
    with_another.wait()
    with pytest.raises(ProcessError, match="process 1 of 2"):
        wait()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
