"""Every paper's `evaluate`, of untrained models on its smoke preset's data, written down by process 0 as JSON.

FORK=2 python every_paper.py FOLDER PAPER ...
"""

import dataclasses
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from forked import start
from torch import Tensor

from common.evaluation import shards
from common.experiment import Run
from common.training import distributed

LESS: dict[str, Any] = {"samples": 70, "reconstructions": 11, "latents": 11, "batch_size": 5, "S": 2, "S_longer": 3}
LESS |= {"sample_steps": 2, "eval_terms": 2, "eval_batch": 20, "eval_examples": 250, "eval_k": 4, "eval_z_samples": 20}
"""In the place of a smoke preset's settings of these names: evaluation then takes a moment, and yet several batches."""

OWN = {"wgan_gp": {"samples": 1100}}  # five hundred at a time
"""The same for one paper."""


def evaluated(name: str, folder: Path) -> dict[str, dict[str, Any]]:
    """What a paper's runs are scored, and their examples' values to the bit; and the most batches that were dealt."""
    paper = importlib.import_module(f"projects.{name}.{name}")
    less, found = LESS | OWN.get(name, {}), dict[str, dict[str, Any]]()
    for run_name, config in paper.PRESETS["smoke"].items():
        config = dataclasses.replace(config, **{key: value for key, value in less.items() if getattr(config, key, 0)})
        model = paper.build(config).eval()
        torch.manual_seed(distributed.rank())  # training, too, leaves each process with random numbers of its own
        run = Run(folder / name / run_name, torch.device("cpu"), {}, config.seed, progress=False)
        dealt = [1]
        with mock.patch.object(shards, "_shared", counting(shards._shared, dealt)):
            scores = paper.evaluate(config, model, run)
        found[run_name] = {
            "scores": [dataclasses.asdict(score) for score in scores],
            "examples": {key: as_bytes(values) for key, values in run.examples.items()},
            "data": run.data,
            "batches": max(dealt),
        }
    return found


def counting(share: Callable[..., Tensor], dealt: list[int]) -> Callable[..., Tensor]:
    """What `by_batch` and `drawn` deal with, which then notes into how many batches it cut the work."""

    def shared(value: Any, n: int, size: int, *how: Any) -> Tensor:
        dealt.append(-(-n // size))
        return share(value, n, size, *how)

    return shared


def as_bytes(values: Tensor) -> list[Any]:
    return [str(values.dtype), list(values.shape), values.contiguous().view(-1).view(torch.uint8).tolist()]


def main(folder: Path, papers: list[str]) -> None:
    torch.set_num_threads(1)
    distributed.start(torch.device("cpu"))
    found = distributed.gather({name: evaluated(name, folder) for name in papers})
    if distributed.is_main():
        (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    start(lambda: main(Path(sys.argv[1]), sys.argv[2:]))
