"""A run that was interrupted ends with the same bytes as one that was not."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_run import lines, tiny, weights

from common.errors import CheckpointError, ConfigError, UserError
from common.training import fit
from common.training.log import Log

ROOT = Path(__file__).parents[3]


def test_twenty_kills(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    script = Path(__file__).with_name("killed.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["kills"] == 20
    assert result["leaves"] > 50  # weights, averages, optimiser, schedule, generators, window
    assert result["different"] == []
    assert result["log_same"]
    assert result["log_lines"] == 330 // 7 + 330 // 11 - 330 // 77 + 1  # windows, hook, both at once, the short end
    assert result["left_over"] == ["checkpoint.pt", "metrics.jsonl"]


def test_log_line_is_the_mean_over_a_window_that_an_interruption_cuts(new_run):
    values = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
    run = new_run()
    for steps in (2, 5, 7):  # windows of 4: cut at 2, and at 5
        state, batches, _ = tiny()
        fit(state, batches, lambda s, b: {"v": values[s.step]}, steps=steps, run=run, log_every=4)
    assert lines(run) == [
        {"step": 4, "epoch": 0, "v": (1 + 2 + 4 + 8) / 4},
        {"step": 7, "epoch": 1, "v": round((16 + 32 + 64) / 3, 4)},
    ]


def test_finished_run_returns_without_a_step(new_run):
    run = new_run()
    state, batches, step = tiny()
    fit(state, batches, step, steps=7, run=run, log_every=5)
    log = (run.directory / "metrics.jsonl").read_bytes()
    again, batches, _ = tiny(seed=9)
    run = new_run()

    def never(state, batch):
        raise AssertionError("a finished run trained on")

    fit(again, batches, never, steps=7, run=run, log_every=5)
    assert weights(again) == weights(state)
    assert (again.step, run.steps) == (7, 7)
    assert (run.directory / "metrics.jsonl").read_bytes() == log


def test_more_steps_continue_as_if_asked_for_at_once(new_run):
    finals, logs = [], []
    for folder, stages in (("at_once", [13]), ("in_stages", [4, 7, 13])):
        for steps in stages:
            state, batches, step = tiny()
            run = new_run(folder=folder)
            fit(state, batches, step, steps=steps, run=run, log_every=5)
        finals.append(weights(state))
        logs.append((run.directory / "metrics.jsonl").read_bytes())
    assert finals[0] == finals[1]
    assert logs[0] == logs[1]


def test_fewer_steps_than_done_are_refused(new_run):
    state, batches, step = tiny()
    fit(state, batches, step, steps=7, run=new_run())
    state, batches, step = tiny()
    with pytest.raises(CheckpointError, match="is at step 7, beyond the 5"):
        fit(state, batches, step, steps=5, run=new_run())


def test_metrics_of_an_unsaved_session_are_cut_off(new_run):
    run = new_run()
    run.directory.mkdir()
    (run.directory / "metrics.jsonl").write_text('{"step": 5, "loss": 1.0}\n{"step": 10, "lo')
    state, batches, step = tiny()
    fit(state, batches, step, steps=10, run=run, log_every=5)
    assert [line["step"] for line in lines(run)] == [5, 10]


def test_missing_metrics_are_not_glossed_over(new_run):
    run = new_run()
    state, batches, step = tiny()
    fit(state, batches, step, steps=10, run=run, log_every=5)
    (run.directory / "metrics.jsonl").unlink()
    state, batches, step = tiny()
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl has 0 bytes"):
        fit(state, batches, step, steps=15, run=run, log_every=5)


def test_wall_time_adds_up_over_sessions(new_run, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def timed(state, batch):
        clock[0] += 2.0
        return step(state, batch)

    for steps in (3, 5):
        clock[0] += 1000.0  # between sessions nothing counts
        state, batches, step = tiny()
        run = new_run()
        fit(state, batches, timed, steps=steps, run=run)
    assert state.wall_s == pytest.approx(10.0)
    assert run.timings_s["train"] == state.wall_s


def test_two_processes_cannot_train_in_one_folder(new_run):
    run = new_run()
    run.directory.mkdir()
    state, batches, step = tiny()
    with Log(run.directory / "metrics.jsonl"), pytest.raises(UserError, match="Another process"):
        fit(state, batches, step, steps=3, run=run)
    fit(state, batches, step, steps=3, run=run)  # the lock went with its owner


def test_hooks_report_and_lines_at_the_same_step_are_one(new_run):
    run = new_run()
    state, batches, step = tiny()
    seen = []

    def hook(state):
        seen.append(state.step)
        return {"bound": float(state.step)} if state.step % 3 == 0 else None

    fit(state, batches, step, steps=6, run=run, log_every=6, hooks=[hook])
    assert seen == [1, 2, 3, 4, 5, 6]
    first, second = lines(run)
    assert first == {"step": 3, "epoch": 0, "bound": 3.0}
    assert list(second) == ["step", "epoch", "loss", "bound"]


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"loss": torch.zeros(3)}, r"'loss' is of shape \(3,\)"),
        ({"loss": 1.0}, "'loss' is of float"),
        ({"step": torch.zeros(())}, "cannot be called 'step'"),
    ],
)
def test_metrics_that_cannot_be_logged(new_run, metrics, message):
    state, batches, _ = tiny()
    with pytest.raises(ConfigError, match=message):
        fit(state, batches, lambda s, b: metrics, steps=3, run=new_run())


def test_metrics_must_keep_their_names(new_run):
    state, batches, _ = tiny()
    with pytest.raises(ConfigError, match="the step before"):
        fit(state, batches, lambda s, b: {f"loss{s.step}": torch.zeros(())}, steps=3, run=new_run())


def test_a_metric_that_is_changed_in_place_afterwards_was_already_noted(new_run):
    run = new_run()
    state, batches, _ = tiny()
    running = torch.zeros(())

    def step(state, batch):
        return {"count": running.add_(1.0)}

    fit(state, batches, step, steps=4, run=run, log_every=4)
    assert lines(run)[0]["count"] == (1 + 2 + 3 + 4) / 4
