"""Two processes with a thread each against one with two threads: the same training, the same global batch.

What `torchrun` is for is another machine or another GPU. On the cores of one machine it shows what it costs: the
gradients that travel at every step, the time a process waits for the other, and smaller products.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import Agreement, Result, Row, Setting, take_turns
from benchmarks.processes import Together, obey
from common.data import Batch, Batches, Split
from common.experiment import Run
from common.training import State, distributed, fit, sgd_step
from projects.made import made
from projects.pixelcnn import pixelcnn

OURS, PEER = "two processes, one thread each", "one process, two threads"
EVERY = 10  # steps between the points of the curves that are compared
APART = 1e-3  # float32 sums in another order, and hundreds of steps of Adam that build on them
WORK = {  # what is trained -> its configuration, and how many steps a turn
    "gated PixelCNN on 28x28 pixels, batch 16": (pixelcnn.PRESETS["laptop"]["gated-mnist"], 30),
    "MADE with 500 hidden units on 180 bits, batch 100": (made.PRESETS["laptop"]["dna-1"], 800),
}


def train(title: str, steps: int, folder: Path) -> list[float]:
    """Some steps from the start, nothing of which is random; returns the losses that the run logs."""
    config = WORK[title][0]
    paper = pixelcnn if isinstance(config, pixelcnn.Config) else made
    model: Any = paper.build(config)
    shape = (1, 28, 28) if paper is pixelcnn else (made.DIMS[config.dataset],)
    x = torch.randint(0, 2, (2000, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def step(state: State, batch: Batch) -> dict[str, Tensor]:
        return sgd_step(lambda x: (-model.log_prob(x).mean(), {}), optimizer, batch.x.float())

    state = State(model, {"adam": optimizer}, torch.Generator().manual_seed(0))
    run = Run(folder, torch.device("cpu"), {}, seed=0, progress=False)
    fit(state, Batches(Split(x), config.batch_size, seed=0), step, steps=steps, run=run, log_every=min(EVERY, steps))
    if not distributed.is_main():  # the first process writes, and may have removed what it wrote
        return []
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def worker(order: dict[str, Any]) -> list[float]:
    return train(order["title"], order["steps"], Path(order["folder"]))


def main(setting: Setting) -> Result:
    rows = []
    for title, (_, wanted) in WORK.items():
        steps, curves = setting.size(wanted, 2), {}
        groups = {
            OURS: Together("benchmarks.two_processes", 2, threads=1),
            PEER: Together("benchmarks.two_processes", 1, threads=2),
        }

        def turn(name: str, title: str = title, steps: int = steps, groups: Any = groups, curves: Any = curves) -> int:
            with tempfile.TemporaryDirectory() as folder:
                curves[name] = groups[name].ask({"title": title, "steps": steps, "folder": folder})
            return steps

        measured = take_turns({OURS: lambda: turn(OURS), PEER: lambda: turn(PEER)}, setting.turns(5))
        for group in groups.values():
            group.close()
        apart = max(abs(a - b) / abs(b) for a, b in zip(curves[OURS], curves[PEER], strict=True))
        rows.append(
            Row(
                title,
                "steps/s",
                OURS,
                measured,
                {PEER: "torch"},
                f"{steps:,} steps of `fit` with the same global batches from the same weights, Adam, two cores; a "
                "checkpoint at the end",
                Agreement("largest relative difference of a point of the curves", apart, APART),
            )
        )
    notes: dict[str, float | str] = {"the ratio is the efficiency": "of two processes, beside one that has both cores"}
    return Result("two_processes", "What it costs to share a run's training between two processes", rows, notes)


if __name__ == "__main__":
    obey(worker)
