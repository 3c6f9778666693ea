"""The training loop's bookkeeping. The update itself belongs to the project.

    while state.step < steps:
        metrics = step(state, batches(state.step))

is what a run does. `fit` adds what every run needs around these two lines: it continues where an interrupted session
stopped, to the bit; logs; averages weights; saves; shows progress; stops when asked to, and when a number is not one.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from torch import Tensor

from common.errors import CheckpointError, ConfigError, NonFiniteError
from common.training import checkpoint, distributed, rng
from common.training.log import Log, Window
from common.training.progress import Progress
from common.training.state import State, Stateful
from common.training.stop import Interrupted, stop_signals

if TYPE_CHECKING:
    from common.experiment import Run

Batch = TypeVar("Batch")
CONTINUE, SAVE, STOP = 0, 1, 2


class Hook(Protocol):
    """Called after every update; decides by `state.step` whether it is due.

    What it returns, if anything, goes into metrics.jsonl at this step. It must leave the model as it found it. A hook
    with `state_dict` and `load_state_dict` is saved and restored with the run.
    """

    def __call__(self, state: State) -> Mapping[str, float] | None: ...


def fit(
    state: State,
    batches: Callable[[int], Batch],
    step: Callable[[State, Batch], Mapping[str, Tensor]],
    *,
    steps: int,
    run: Run,
    log_every: int = 100,
    checkpoint_every_s: float = 30.0,
    hooks: Sequence[Hook] = (),
) -> State:
    """Train until `steps` updates are done, counting those of earlier sessions of the same run.

    Killed at any moment and called again with the same arguments and a state built the same way, it ends with the same
    bits in weights, optimisers, averages and metrics.jsonl as if never killed. Updates beyond those of a finished run
    continue it; a finished run returns at once.

    Args:
        state: as at the start of the run; everything in it changes in place.
        batches: step number (from 0) -> batch; a pure function, so that nothing about the data needs saving. If it
            has a method `epoch(step)`, log lines hold its value.
        step: performs one update and returns 0-dim tensors, means over the batch, the same names every time. They
            stay on the device until a line is due.
        run: `directory` receives checkpoint.pt and metrics.jsonl; `config` and `seed` must be the checkpoint's.
        log_every: updates a line of metrics.jsonl is the mean of; the last line may be of fewer.
        checkpoint_every_s: seconds between checkpoints; the end of the run is saved in any case.

    Returns `state`.

    Raises:
        Interrupted: SIGTERM or Ctrl-C; the update at hand was finished and saved.
        NonFiniteError: a metric, parameter or optimiser state is NaN or infinite; nothing was written after it.
        CheckpointError: a checkpoint of another configuration, damaged, or impossible to write.
        ConfigError: an argument out of range.
    """
    if steps < 0 or log_every < 1:
        raise ConfigError(f"steps must be at least 0 and log_every at least 1, not {steps}, {log_every}.")
    run.directory.mkdir(parents=True, exist_ok=True)
    metrics_file = run.directory / "metrics.jsonl" if distributed.is_main() else None
    with stop_signals() as signals, Log(metrics_file) as log:
        book = _Book(state, run, log, hooks, getattr(batches, "epoch", None))
        book.restore(steps)
        started_at = state.step
        shown = run.progress and distributed.is_main() and started_at < steps
        with closing(Progress(started_at, steps, state.wall_s, shown)) as progress:
            save_at = time.monotonic() + checkpoint_every_s
            while state.step < steps:
                batch = batches(state.step)
                metrics = step(state, batch)
                state.step += 1
                if state.ema is not None:
                    state.ema.update()
                book.window.add(metrics)
                found: dict[str, float] = {}
                for hook in hooks:
                    found.update(hook(state) or {})

                if state.step % log_every == 0:
                    means = book.close_window()
                    progress.show(means)
                    found = {**means, **found}
                if found:
                    book.write(found)
                progress.update(batch)

                wish = STOP if signals else SAVE if time.monotonic() >= save_at else CONTINUE
                wish = distributed.agree(wish)
                if wish == STOP:
                    break
                if wish == SAVE and state.step < steps:
                    book.save()
                    save_at = time.monotonic() + checkpoint_every_s
        if state.step > started_at:
            book.save()
        if state.step == steps and len(book.window):
            # After the checkpoint, so that a longer run replaces this line by one of a full window.
            book.write(book.close_window())
        if distributed.agree(STOP if signals else CONTINUE) == STOP:
            raise Interrupted(
                f"Stopped by {signals[0] if signals else 'another process'} at step {state.step} of {steps}. "
                "Everything is saved: the same command continues from there."
            )
    return state


class _Book:
    """One run's files and what they hold: restored once, written as training goes."""

    def __init__(
        self,
        state: State,
        run: Run,
        log: Log,
        hooks: Sequence[Hook],
        epoch: Callable[[int], int | float] | None,
    ) -> None:
        self.state = state
        self.run = run
        self.log = log
        self.epoch = epoch
        self.window = Window()
        self.path = run.directory / "checkpoint.pt"
        self.saved: int | None = None  # step of the checkpoint on the disk
        self.began = time.monotonic()
        self.hooks = {
            f"{index}: {type(hook).__name__}": hook for index, hook in enumerate(hooks) if isinstance(hook, Stateful)
        }
        # As JSON would give it back, so that a tuple equals the list it is stored as.
        self.identity = json.loads(json.dumps({"seed": run.seed, **run.config}))

    def restore(self, steps: int) -> None:
        """Bring the state to where the last session's checkpoint left it, or every process to the same start."""
        state = self.state
        if not distributed.agree(int(distributed.is_main() and self.path.exists())):
            self.log.resume(0)
            distributed.broadcast([state.model] + ([state.ema.model] if state.ema else []))
            rng.decorrelate(state.generator)
            return
        tree = checkpoint.load(self.path)
        checkpoint.require_same(self.path, tree["identity"], self.identity)
        if tree["state"]["step"] > steps:
            raise CheckpointError(
                f"{self.path} is at step {tree['state']['step']}, beyond the {steps} asked for. "
                "Ask for at least as many, or start afresh (--fresh)."
            )
        self.log.resume(tree["log_bytes"])
        try:
            self._load(tree)
        except Exception as error:
            raise CheckpointError(
                f"{self.path} does not fit this code ({type(error).__name__}: {error}). "
                "Go back to the code that wrote it, or start afresh (--fresh)."
            ) from error
        self.saved = state.step
        self.began -= state.wall_s
        self._tell()

    def _load(self, tree: dict[str, Any]) -> None:
        if set(tree["hooks"]) != set(self.hooks):
            raise CheckpointError(
                f"the checkpoint has hooks {sorted(tree['hooks'])}, this code has {sorted(self.hooks)}"
            )
        self.state.load_state_dict(tree["state"])
        self.window.load_state_dict(tree["window"], self.run.device)
        for name, hook in self.hooks.items():
            hook.load_state_dict(tree["hooks"][name])
        states = tree["rng"]
        if len(states) == distributed.world_size():
            rng.put(states[distributed.rank()], self.state.generator, self.run.device)
        else:  # another number of processes cannot repeat the same numbers; it can avoid repeating any
            rng.reseed(self.state.generator, self.run.seed, self.state.step, distributed.rank())

    def save(self) -> None:
        """Checkpoint. Raises `NonFiniteError` instead when there is anything that must not be kept."""
        self._require_finite(self.window.non_finite(self.state.step), self.state.non_finite())
        self._tell()
        states = distributed.gather(rng.get(self.state.generator, self.run.device))
        if distributed.is_main():
            tree = {
                "identity": self.identity,
                "state": self.state.state_dict(),
                "window": self.window.state_dict(),
                "hooks": {name: hook.state_dict() for name, hook in self.hooks.items()},
                "rng": states,
                "log_bytes": self.log.sync(),
            }
            checkpoint.save(self.path, tree)
        self.saved = self.state.step
        distributed.barrier()  # nobody leaves, and so ends the others, while the file is being written

    def close_window(self) -> dict[str, float]:
        """Means of the metrics since the last line. Raises `NonFiniteError`."""
        self._require_finite(self.window.non_finite(self.state.step))
        means = self.window.means()
        self.window.clear()
        return means

    def write(self, values: Mapping[str, float]) -> None:
        """Append a line to metrics.jsonl. Raises `NonFiniteError`."""
        values = {name: float(value) for name, value in values.items()}
        wrong = next((f"'{n}' was {v}" for n, v in values.items() if not math.isfinite(v)), None)
        step = self.state.step
        if wrong:  # a hook's: it may report in one process only, so the others cannot be asked
            raise self._not_finite((step, wrong), None)
        self.log.write(step, None if self.epoch is None else self.epoch(step), values)

    def _tell(self) -> None:
        """Let the caller know how far the run is and how long it took."""
        self.state.wall_s = time.monotonic() - self.began
        self.run.steps = self.state.step
        self.run.timings_s["train"] = self.state.wall_s

    def _require_finite(self, metric: tuple[int, str] | None, tensor: str | None = None) -> None:
        """Stop every process when one of them found a metric (step, what was wrong) or a tensor that is not finite."""
        metric = next((each for each in distributed.gather(metric) if each), None)
        tensor = next((each for each in distributed.gather(tensor) if each), None)
        if metric is not None or tensor is not None:
            raise self._not_finite(metric, tensor or self.state.non_finite())

    def _not_finite(self, metric: tuple[int, str] | None, tensor: str | None) -> NonFiniteError:
        parts = []
        if metric is not None:
            parts.append(f"Step {metric[0]}: {metric[1]}.")
        if tensor is not None:
            parts.append(f"After step {self.state.step}: {tensor} is not finite.")
        kept = f"the checkpoint of step {self.saved}" if self.saved else "nothing: there is no checkpoint yet"
        return NonFiniteError(
            " ".join(parts) + f" Training stopped; what is kept is {kept}. "
            "Look for a division by zero, a log of zero, or too large a learning rate."
        )
