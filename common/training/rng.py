"""The random number generators a training step may draw from: their state as plain data, and their seeds."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from common.training import distributed


def get(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
    """States of `generator`, of torch (CPU and `device`), of numpy and of `random`."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    state: dict[str, Any] = {
        "generator": generator.get_state(),
        "torch": torch.get_rng_state(),
        # numpy's own types are not among those that are safe to load: tensors and numbers are
        "numpy": [
            str(name),
            torch.tensor(np.asarray(keys).tolist()),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "random": random.getstate(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def put(state: dict[str, Any], generator: torch.Generator, device: torch.device) -> None:
    """Restore what `get` returned. A state of another kind of device is left out."""
    generator.set_state(state["generator"])
    torch.set_rng_state(state["torch"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    version, internal, gauss = state["random"]
    random.setstate((version, tuple(internal), gauss))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    elif device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])


def decorrelate(generator: torch.Generator) -> None:
    """Give every process but the first random numbers of its own: equal seeds would repeat the same noise."""
    if distributed.rank() > 0:
        reseed(generator, generator.initial_seed(), distributed.rank())


def reseed(generator: torch.Generator, *entropy: int) -> None:
    """Seed all random number generators from a few integers, well mixed."""
    words = np.random.SeedSequence([abs(number) for number in entropy]).generate_state(4)
    generator.manual_seed(int(words[0]))
    torch.manual_seed(int(words[1]))
    np.random.seed(int(words[2]))  # noqa: NPY002
    random.seed(int(words[3]))
