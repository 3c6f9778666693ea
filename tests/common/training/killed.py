"""Train without interruption, and again with 20 kills; write down whether the results are the same bytes.

    python killed.py FOLDER

A process of its own, which forks a child per session: that needs torch imported once and no thread started.
"""

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace as Run

import numpy as np
import torch
from torch import Tensor, nn

from common.training import EMA, State, fit, sgd_step
from common.training import checkpoint as checkpoint_module
from common.training import log as log_module

STEPS, KILLS = 330, 20


class Curriculum:
    """State of the project's own: a tensor and a number."""

    def __init__(self) -> None:
        self.level, self.history = 0, torch.zeros(4)

    def advance(self, loss: Tensor) -> None:
        self.level += 1
        self.history[self.level % 4] = loss

    def state_dict(self) -> dict:
        return {"level": self.level, "history": self.history}

    def load_state_dict(self, state: dict) -> None:
        self.level, self.history = state["level"], state["history"].clone()


class Drift:
    """A hook with a state, that reports now and then and draws from every global generator."""

    def __init__(self) -> None:
        self.total = 0.0

    def __call__(self, state: State) -> dict[str, float] | None:
        self.total += torch.rand(()).item() + np.random.rand() + random.random()  # noqa: NPY002
        return {"drift": self.total} if state.step % 11 == 0 else None

    def state_dict(self) -> dict:
        return {"total": self.total}

    def load_state_dict(self, state: dict) -> None:
        self.total = state["total"]


def train(
    directory: Path,
    kill_at: int | None = None,
    place: str = "",
    draw: random.Random | None = None,
    steps: int = STEPS,
) -> None:
    """One session; with `kill_at` it kills itself near that update."""
    torch.manual_seed(3), np.random.seed(4), random.seed(5)  # noqa: NPY002
    data = torch.randn(64, 6, generator=torch.Generator().manual_seed(6))
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 6))
    adam = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.StepLR(adam, 20, 0.9)
    state = State(
        model,
        {"adam": adam},
        torch.Generator().manual_seed(7),
        EMA(model, 0.99),
        extra={"schedule": schedule, "curriculum": Curriculum()},
    )

    def step(state: State, x: Tensor) -> dict[str, Tensor]:
        if state.step == kill_at:
            arm(place, draw)

        def loss(x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            noisy = x + torch.randn(x.shape, generator=state.generator)
            value = (model(noisy) - x).square().mean()
            return value, {"largest": noisy.max()}

        metrics = sgd_step(loss, adam, x, micro=5, clip=1.0)
        schedule.step()
        state.extra["curriculum"].advance(metrics["loss"])
        return metrics

    def batches(step: int) -> Tensor:
        return data[torch.randperm(64, generator=torch.Generator().manual_seed(step))[:8]]

    run = Run(
        directory=directory,
        device=torch.device("cpu"),
        config={"lr": 1e-2},
        seed=3,
        progress=False,
        steps=0,
        timings_s={},
    )
    every = 1e9 if kill_at is None and not place else 0.0
    fit(state, batches, step, steps=steps, run=run, log_every=7, checkpoint_every_s=every, hooks=[Drift()])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def arm(place: str, draw: random.Random) -> None:
    """Die soon, at a place of the program or at a moment of the clock."""
    if place == "clock":
        delay = draw.uniform(0, 0.01)
        threading.Thread(target=lambda: (time.sleep(delay), die()), daemon=True).start()
    elif place == "checkpoint":
        left, write = [draw.randrange(40)], checkpoint_module._Sink.write

        def torn(self, data):
            if left[0] == 0:
                self.file.write(memoryview(data).cast("B")[: len(data) // 2])
                self.file.flush()
                die()
            left[0] -= 1
            return write(self, data)

        checkpoint_module._Sink.write = torn
    elif place in ("before replacing", "after replacing"):
        replace = os.replace

        def last(*paths):
            if place == "after replacing":
                replace(*paths)
            die()

        checkpoint_module.os.replace = last
    elif place == "log":
        write = log_module.Log.write

        def torn_line(self, step, epoch, values):
            write(self, step, epoch, values)
            os.truncate(self.path, self.path.stat().st_size - draw.randrange(20))
            die()

        log_module.Log.write = torn_line


def session(**arguments) -> int:
    """Run `train` in a child; return the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        try:
            train(**arguments)
            os._exit(0)
        finally:
            import traceback

            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "a session failed"
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def leaves(tree, name=""):
    """(name, bytes) of everything in a checkpoint but the clock."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{name}/{key}")
    elif isinstance(tree, (list, tuple)):
        for index, value in enumerate(tree):
            yield from leaves(value, f"{name}/{index}")
    elif isinstance(tree, Tensor):
        yield name, tree.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tree.numel() else b""
    elif name != "/state/wall_s":
        yield name, repr(tree).encode()


def compare(one: Path, other: Path) -> dict:
    first, second = (dict(leaves(checkpoint_module.load(d / "checkpoint.pt"))) for d in (one, other))
    return {
        "leaves": len(first),
        "different": [n for n in first.keys() | second.keys() if first.get(n) != second.get(n)],
        "log_lines": (one / "metrics.jsonl").read_bytes().count(b"\n"),
        "log_same": (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes(),
        "left_over": sorted(p.name for p in other.iterdir()),
    }


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    draw = random.Random(20)
    train(folder / "warm", steps=2)  # whatever is imported late is imported before the children are forked
    assert session(directory=folder / "whole") == 0
    places = ["clock"] * 8 + ["checkpoint"] * 5 + ["before replacing"] * 2 + ["after replacing"] * 2 + ["log"] * 3
    draw.shuffle(places)
    kills = []
    for index, place in enumerate(places):
        kill_at = index * STEPS // (KILLS + 2) + draw.randrange(4)
        how = session(directory=folder / "killed", kill_at=kill_at, place=place, draw=draw)
        kills.append(how == signal.SIGKILL)
        draw.random()
    assert session(directory=folder / "killed") == 0
    print(json.dumps({"kills": sum(kills), **compare(folder / "whole", folder / "killed")}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
