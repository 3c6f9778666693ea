"""Two processes under torchrun do what one does."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.errors import DeviceError
from common.training import distributed

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """What two processes did. Starting them takes seconds: once for all the tests here."""
    folder = tmp_path_factory.mktemp("two")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", SCRIPT, folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "result.json").read_text())


def test_same_curve_and_weights_as_one_process(result, tmp_path):
    """For a loss that is no forward(), two optimisers, micro-batches, clipping, uneven and empty local batches."""
    spec = importlib.util.spec_from_file_location("two_processes", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    one, two = script.curve(tmp_path, seed=0), result["curve"]
    assert result["world"] == 2
    assert two["same_everywhere"]
    assert one["unused_without_gradient"]
    assert two["unused_without_gradient"]
    assert [set(line) for line in two["log"]] == [{"step", "loss", "worst", "grad_norm", "critic"}] * script.STEPS
    for ours, theirs in zip(one["log"], two["log"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)  # the file holds six digits
    assert two["weights"] == pytest.approx(one["weights"], rel=1e-9, abs=1e-12)
    assert two["average"] == pytest.approx(one["average"], rel=1e-9, abs=1e-12)


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


def test_alone_nothing_is_shared():
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.start(torch.device("cpu")) == torch.device("cpu")
    assert distributed.agree(2) == 2
    assert distributed.gather("x") == ["x"]
