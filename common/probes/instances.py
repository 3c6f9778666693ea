"""Instances for probes: a model far from where it begins, a model after a short training."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

if TYPE_CHECKING:
    from common.experiment import Run

Module = TypeVar("Module", bound=nn.Module)


def jittered(model: Module, std: float = 0.3, seed: int = 0) -> Module:
    """The model, in place, in float64 and evaluation mode, every number drawn anew: weights normal with standard
    deviation `std`, variances (names that end in "var") uniform in [0.5, 2].

    Many models begin as the identity, or where a mistake cannot be seen. Weight normalisation's own parts stay, and so
    do counters, which are not numbers of the model.
    """
    model = model.double().eval()
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith("var"):
            value.uniform_(0.5, 2, generator=generator)
        elif value.is_floating_point() and not name.endswith(("original0", "original1", "count")):
            value.normal_(0, std, generator=generator)
    return model


def run_in(directory: Path, config: Any) -> Run:
    """A run of its own on the CPU, for `train(config, run_in(directory, config))`."""
    from common.experiment import Run

    return Run(directory, torch.device("cpu"), {}, config.seed, progress=False)


def trained(paper_train: Any, config: Any) -> Any:
    """What a paper's `train` gives, in evaluation mode; its files are thrown away."""
    with tempfile.TemporaryDirectory(prefix="probe-") as directory:
        return paper_train(config, run_in(Path(directory), config)).eval()
