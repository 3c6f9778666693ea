"""Runs side by side: results in order, cores shared, failures and signals handed on."""

import math
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from common.errors import UserError
from referee.project import find_project, find_root
from referee.runs.running import run
from referee.runs.side_by_side import Stopped, cores, side_by_side


def go(work, tasks, jobs=2, finished=lambda name, result: None):
    return side_by_side(work, tasks, jobs=jobs, progress=False, finished=finished)


def test_results_come_in_the_order_of_the_tasks_and_are_told_as_they_come():
    told = {}
    results = go(math.sqrt, {"b": (4.0,), "a": (9.0,), "c": (16.0,)}, finished=told.__setitem__)
    assert list(results.items()) == [("b", 2.0), ("a", 3.0), ("c", 4.0)]
    assert told == results


def test_each_gets_its_share_of_the_cores_and_the_environment_comes_back(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    results = go(os.getenv, {"a": ("OMP_NUM_THREADS",), "b": ("OMP_NUM_THREADS",)})
    assert set(results.values()) == {str(max(1, cores() // 2))}
    assert "OMP_NUM_THREADS" not in os.environ


def test_a_failure_is_raised_after_what_is_under_way_and_nothing_new_begins():
    told = {}
    with pytest.raises(ValueError, match="could not convert"):
        go(float, {"a": ("x",), "b": ("2",), "c": ("3",), "d": ("4",)}, finished=told.__setitem__)
    assert told.get("b") == 2.0
    assert "d" not in told


def test_a_process_that_dies_without_a_word_is_named():
    with pytest.raises(UserError, match="b: its process ended with status 3"):
        go(os._exit, {"b": (3,)}, jobs=1)


def test_a_process_that_is_killed_is_named_with_what_may_have_been_and_what_to_do():
    said = r"b: its process was ended by SIGKILL\. Perhaps memory ran out: --jobs 1 .* The same command continues"
    with pytest.raises(UserError, match=said):
        go(_kill, {"b": (signal.SIGKILL,)}, jobs=1)


def test_a_mistake_keeps_the_traceback_of_its_own_process():
    with pytest.raises(ZeroDivisionError) as raised:
        go(_divide, {"a": (1, 0), "b": (1, 1)})
    (note,) = raised.value.__notes__
    assert "return a // b" in note


def _divide(a, b):
    return a // b


def _kill(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_of_them(number):
    before = signal.getsignal(number)
    timer = threading.Timer(1.5, os.kill, (os.getpid(), number))
    timer.start()
    start = time.monotonic()
    with pytest.raises(Stopped, match="same command continues"):
        go(time.sleep, {"a": (60,), "b": (60,), "c": (60,)})
    assert time.monotonic() - start < 30  # not a timing: it did not sleep to the end
    assert signal.getsignal(number) is before


def test_a_process_that_is_stopped_outside_training_leaves_no_semaphore_behind(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("""
import multiprocessing, os, signal, time
from pathlib import Path
from referee.runs.side_by_side import Stopped, side_by_side

def work(ready):
    lock = multiprocessing.RLock()  # as a progress bar has
    Path(ready).touch()
    time.sleep(60)

if __name__ == "__main__":
    import sys, threading
    def stop():
        while not Path(sys.argv[1]).exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=stop).start()
    try:
        side_by_side(work, {"a": (sys.argv[1],)}, jobs=1, progress=False, finished=print)
    except Stopped as error:
        print(error)
""")
    done = subprocess.run([sys.executable, script, tmp_path / "ready"], capture_output=True, text=True, timeout=50)
    assert done.stdout.startswith("Stopped. What was done is saved")
    assert done.stderr == ""


def test_a_presets_runs_side_by_side_are_those_one_after_the_other(tmp_path, capsys):
    iwae = find_project(find_root(), "iwae")
    short = ["--passes", "1", "--eval-k", "2", "--eval-examples", "5"]

    def go(out, jobs):
        return run(iwae, "smoke", only=["vae-1l-k1", "iwae-1l-k5"], overrides=short, out=out, jobs=jobs, progress=False)

    together = go(tmp_path / "together", 2)
    one_by_one = go(tmp_path / "one", 1)
    assert [record.run for record in together] == ["vae-1l-k1", "iwae-1l-k5"]
    for a, b in zip(together, one_by_one, strict=True):
        assert a.score("nll").value == pytest.approx(b.score("nll").value, rel=1e-4)
        assert (a.code_digest, a.config, a.steps) == (b.code_digest, b.config, b.steps)
    assert "2 at a time" in capsys.readouterr().out
    assert [record.finished for record in go(tmp_path / "together", 2)] == [record.finished for record in together]
