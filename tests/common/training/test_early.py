"""Early stopping: when it ends, which weights are left, and that a kill changes nothing."""

import json

import pytest
import torch
from torch import nn

from common import probes
from common.errors import ConfigError
from common.experiment import Run
from common.training import State, sgd_step
from common.training.early import fit_until_worse


class Line(nn.Module):
    """One weight, which every update moves by one."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))


def run_until_worse(directory, values, *, every=2, patience=2, steps=100):
    """Training whose measure after update n is values[n / every - 1]; returns the model and the best."""
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def step(state, batch):
        return sgd_step(lambda _: (-model.w.sum(), {}), optimizer, batch)

    def measure():
        return float(values[min(int(model.w.item()) // every, len(values)) - 1])

    run = Run(directory, torch.device("cpu"), {}, 0, progress=False)
    state = State(model, {"sgd": optimizer}, torch.Generator())
    limits = {"every": every, "patience": patience, "steps": steps}
    best = fit_until_worse(state, lambda _: torch.ones(3), step, measure, **limits, run=run, name="val")
    return model, best


def curve(directory):
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [line["val"] for line in lines if "val" in line]


def test_it_ends_when_patience_does_and_leaves_the_best_weights(tmp_path):
    model, best = run_until_worse(tmp_path, [1, 5, 2, 7, 7, 3, 9])  # an equal value is no better; the 9 comes too late
    assert curve(tmp_path) == [1, 5, 2, 7, 7, 3]
    assert model.w.item() == 8
    assert (best.value, best.step) == (7, 8)


def test_it_ends_at_the_last_update_allowed(tmp_path):
    model, _ = run_until_worse(tmp_path, range(1, 100), steps=7)
    assert curve(tmp_path) == [1, 2, 3]
    assert model.w.item() == 6  # the seventh update was never measured


def test_without_a_measurement_the_last_weights_are_left(tmp_path):
    model, best = run_until_worse(tmp_path, [1], every=50, steps=7)
    assert model.w.item() == 7
    assert best.weights == {}


def test_a_finished_training_is_not_continued(tmp_path):
    first, _ = run_until_worse(tmp_path, [1, 5, 2, 2, 9])
    again, _ = run_until_worse(tmp_path, [1, 5, 2, 2, 9])
    assert curve(tmp_path) == [1, 5, 2, 2]
    assert first.w.item() == again.w.item() == 4


def test_a_training_that_was_cut_short_remembers_its_best(tmp_path):
    run_until_worse(tmp_path, [1, 5, 2, 2, 9], steps=6)
    model, _ = run_until_worse(tmp_path, [1, 5, 2, 2, 9])
    assert curve(tmp_path) == [1, 5, 2, 2]
    assert model.w.item() == 4


def test_interrupted_and_resumed_is_never_interrupted():
    assert probes.resume(lambda directory: run_until_worse(directory, [1, 5, 2, 7, 7, 3])[0]).passed


@pytest.mark.parametrize("name", ["every", "patience", "steps"])
def test_limits_below_one_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="at least 1"):
        run_until_worse(tmp_path, [1], **{name: 0})
