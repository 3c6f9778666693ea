"""Early stopping: train until a validation measure has not improved for long, and keep the weights that had the best.

A run that is killed at any moment and started again ends with the same bits as one never killed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from common.errors import ConfigError
from common.training.checkpoint import load
from common.training.fit import fit
from common.training.state import State

if TYPE_CHECKING:
    from common.experiment import Run

Batch = TypeVar("Batch")


class Best:
    """A hook: every `every` updates, the measure; the highest so far, when it was reached, and by which weights."""

    def __init__(self, measure: Callable[[], float], every: int, name: str) -> None:
        self.measure, self.every, self.name = measure, every, name
        self.value, self.step = -math.inf, 0
        self.weights: dict[str, Tensor] = {}

    def __call__(self, state: State) -> Mapping[str, float] | None:
        if state.step % self.every:
            return None
        value = self.measure()
        if value > self.value:
            self.value, self.step = value, state.step
            self.weights = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
        return {self.name: value}

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "step": self.step, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value, self.step, self.weights = state["value"], state["step"], state["weights"]


def fit_until_worse(
    state: State,
    batches: Callable[[int], Batch],
    step: Callable[[State, Batch], Mapping[str, Tensor]],
    measure: Callable[[], float],
    *,
    every: int,
    patience: int,
    steps: int,
    run: Run,
    name: str,
) -> Best:
    """`fit`, ended when `patience` measurements in a row were no better; the model then has its best weights.

    Args:
        measure: of the model as it stands, higher is better; a function of validation data, never of test data. It
            must not change what training uses.
        every: updates between two measurements; metrics.jsonl gets a line at each, with the measure as `name`.
        patience: how many measurements without a better one end training.
        steps: updates, at most; fewer than `every` give no measurement, and the last weights.

    Raises:
        ConfigError: every, patience or steps below 1; and all that `fit` raises.
    """
    if min(every, patience, steps) < 1:
        raise ConfigError(f"every, patience and steps must be at least 1, not {every}, {patience}, {steps}.")
    best = Best(measure, every, name)
    saved = run.directory / "checkpoint.pt"
    done: int = load(saved)["state"]["step"] if saved.exists() else 0
    # `fit` brings `best` back from the checkpoint, and each better measurement puts the end off.
    while state.step < (end := max(done, min(steps, best.step + patience * every))):
        fit(state, batches, step, steps=end, run=run, log_every=every, hooks=[best])
    if best.weights:
        state.model.load_state_dict(best.weights)
    return best
