"""What is shown while a run trains."""

import re

import torch
from tiny_run import tiny

from common.training import fit
from common.training.progress import Progress


def last_line(text: str) -> str:
    return re.split(r"[\r\n]", text.rstrip())[-1]


def test_counts_examples_and_shows_the_loss(new_run, capsys):
    state, batches, step = tiny()  # 4 examples a step
    fit(state, batches, step, steps=10, run=new_run(progress=True), log_every=5)
    everything = capsys.readouterr().err
    assert not re.search(r"steps|/10\b", everything)  # examples from the first line on
    shown = last_line(everything)
    assert "40/40" in shown
    assert "examples/s" in shown
    assert "loss=" in shown


def test_silent_when_asked_and_when_there_is_nothing_to_do(new_run, capsys):
    state, batches, step = tiny()
    fit(state, batches, step, steps=3, run=new_run())
    state, batches, step = tiny()
    fit(state, batches, step, steps=3, run=new_run(progress=True))
    assert capsys.readouterr() == ("", "")


def test_time_goes_on_from_earlier_sessions_and_the_rate_does_not_count_them(capsys, monkeypatch):
    clock = [50_000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: clock[0])
    progress = Progress(start=100, steps=300, wall_s=3600.0, shown=True)
    progress.bar._time = lambda: clock[0]
    for _ in range(100):
        clock[0] += 0.5
        progress.update(torch.zeros(8, 2))
    progress.bar.refresh()
    shown = last_line(capsys.readouterr().err)
    progress.close()
    assert "1600/2400" in shown
    assert "1:00:50<00:50" in shown  # an hour before, 50 s since; 100 steps at 2 a second remain
    assert "16.00 examples/s" in shown


def test_stopped_before_the_first_step_nothing_is_shown(capsys):
    Progress(start=100, steps=300, wall_s=3600.0, shown=True).close()
    assert not re.search(r"\d", capsys.readouterr().err)
